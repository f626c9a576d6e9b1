//! A room was destroyed. ZEGOCLOUD's page "Callback on room destroyed".
//!
//! Since 2025-08-08 it is also sent when the last user leaves.

use crate::event::field::{Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "room_destroy",
    family: Family::Room,
    ce_type: "com.zegocloud.zim.room.destroyed.v1",
    schema: "urn:zim2kafka:schema:room-destroyed:v1",
    about: "A room was destroyed.",
    page: "room/room-destroyed",
    fields: &[
        required("room_id", Type::Id(Subject::Room), "The room."),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who destroyed the room; null if it ended with its last user.",
        ),
        optional(
            "user_ids",
            USERS,
            "The users who were in the room at that moment.",
        ),
    ],
    identity: &["room_id", "operator_account", "user_ids"],
    examples: &[
        r#"{"event":"room_destroy","room_id":"room-42","user_ids":["u_bao","u_cem"],"operator_account":"u_bao"}"#,
    ],
    ..Kind::USUAL
};
