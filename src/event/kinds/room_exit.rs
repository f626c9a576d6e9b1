//! Users left a room. ZEGOCLOUD's page "Callback on room left".
//!
//! For `Quit`, the English page defines the operator as the user who left. According to the Chinese
//! page it has no meaning.

use crate::event::field::{Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "room_exit",
    family: Family::Room,
    ce_type: "com.zegocloud.zim.room.left.v1",
    schema: "urn:zim2kafka:schema:room-left:v1",
    about: "Users left a room.",
    page: "room/room-left",
    fields: &[
        required("room_id", Type::Id(Subject::Room), "The room."),
        required(
            "exit_type",
            Type::OneOf(&["Quit", "Kickout"]),
            "How they left. Quit: on their own. Kickout: operator_account removed them.",
        ),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who removed them; null for Quit, for which the sender's value has no meaning.",
        )
        .only_with("exit_type", "Kickout"),
        required("exit_user_ids", USERS, "The users who left."),
    ],
    identity: &["room_id", "exit_type", "operator_account", "exit_user_ids"],
    examples: &[
        r#"{"event":"room_exit","room_id":"room-42","exit_type":"Kickout","operator_account":"u_bao","exit_user_ids":["u_cem","u_dot"]}"#,
        r#"{"event":"room_exit","room_id":"room-42","exit_type":"Quit","operator_account":"u_cem","exit_user_ids":["u_cem"]}"#,
    ],
    ..Kind::USUAL
};
