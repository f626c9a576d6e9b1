//! The events: one file and one line in `events!` each.
//!
//! The fields and names are from ZEGOCLOUD's pages of server callbacks and their history.

use super::kind::Kind;

/// Declares the module of each event and lists its table. `cargo fmt` does not find files that a
/// macro declares; `rustfmt --edition 2024 src/event/kinds/*.rs` formats them.
macro_rules! events {
    ($($name:ident,)*) => {
        $(mod $name;)*

        /// Every event that can be published. The names are stored in spools: never rename or
        /// remove one.
        pub static EVENTS: [&Kind; [$(stringify!($name)),*].len()] = [$(&$name::KIND),*];
    };
}

events! {
    user_action,
    group_create,
    group_join,
    group_exit,
    group_destroy,
    room_create,
    room_enter,
    room_exit,
    room_destroy,
    send_msg,
    bot_msg,
    call_create,
    call_invite,
    call_cancel,
    call_accept,
    call_reject,
    call_timeout,
}

mod message;

pub use group_join::{GROUP_JOIN, JoinType};
