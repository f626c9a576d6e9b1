//! The callback port as the internet meets it: those who are slow, silent, many, or up to something.

mod connections;
mod senders;
mod tricks;
