//! The events: one file and one line in [`EVENTS`] each.
//!
//! The fields and names are from ZEGOCLOUD's pages of server callbacks and their history.

mod bot_msg;
mod call_accept;
mod call_cancel;
mod call_create;
mod call_invite;
mod call_reject;
mod call_timeout;
mod group_create;
mod group_destroy;
mod group_exit;
mod group_join;
mod message;
mod room_create;
mod room_destroy;
mod room_enter;
mod room_exit;
mod send_msg;
mod user_action;

use super::kind::Kind;
pub use group_join::{GROUP_JOIN, JoinType};

/// Every event that can be published. The names are stored in spools: never rename or remove one.
pub static EVENTS: [&Kind; 17] = [
    &user_action::KIND,
    &group_create::KIND,
    &group_join::KIND,
    &group_exit::KIND,
    &group_destroy::KIND,
    &room_create::KIND,
    &room_enter::KIND,
    &room_exit::KIND,
    &room_destroy::KIND,
    &send_msg::KIND,
    &bot_msg::KIND,
    &call_create::KIND,
    &call_invite::KIND,
    &call_cancel::KIND,
    &call_accept::KIND,
    &call_reject::KIND,
    &call_timeout::KIND,
];
