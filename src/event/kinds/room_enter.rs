//! A user entered a room. ZEGOCLOUD's page "Callback on room entered".
//!
//! Until 2025-09 the page had `new_user_ids` too, which repeated the operator. It goes to `extra`.

use crate::event::field::{Subject, Type, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "room_enter",
    family: Family::Room,
    ce_type: "com.zegocloud.zim.room.entered.v1",
    schema: "urn:zim2kafka:schema:room-entered:v1",
    about: "A user entered a room.",
    page: "room/room-entered",
    fields: &[
        required("room_id", Type::Id(Subject::Room), "The room."),
        required(
            "operator_account",
            Type::Id(Subject::User),
            "The user who entered.",
        ),
    ],
    identity: &["room_id", "operator_account"],
    examples: &[r#"{"event":"room_enter","room_id":"room-42","operator_account":"u_cem"}"#],
    ..Kind::USUAL
};
