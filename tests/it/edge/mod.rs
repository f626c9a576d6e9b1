//! The callback port as the internet meets it: those who are slow, silent, many, or up to
//! something.

mod bodies;
mod connections;
mod crowd;
mod files;
mod overload;
// What makes threads panic is in debug builds only.
#[cfg(debug_assertions)]
mod panics;
mod reload;
mod reload_files;
mod senders;
mod tls;
mod tricks;
