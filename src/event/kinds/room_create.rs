//! A room was created. ZEGOCLOUD's page "Callback on room created".
//!
//! ZEGOCLOUD's video product (RTC, Express) has an event of the same name, with other fields. Both may
//! be sent to one URL.

use crate::event::field::{FieldSpec, NUMBER_OR_ZERO, Subject, Type, optional, required};
use crate::event::kind::{Family, Kind};

const ATTRIBUTE: &[FieldSpec] = &[
    optional("key", Type::Text, "The name of the attribute."),
    optional("value", Type::Text, "The value of the attribute."),
    optional(
        "auto_delete",
        NUMBER_OR_ZERO,
        "1: the attribute is deleted when its operator leaves the room. 0, also if the callback had none: it is not.",
    ),
];

pub(super) static KIND: Kind = Kind {
    name: "room_create",
    of_other_product: Some((
        &["room_session_id", "room_create_time", "id_name"],
        "operator_account",
    )),
    family: Family::Room,
    ce_type: "com.zegocloud.zim.room.created.v1",
    schema: "urn:zim2kafka:schema:room-created:v1",
    about: "A room was created.",
    page: "room/room-created",
    fields: &[
        required("room_id", Type::Id(Subject::Room), "The room."),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who created the room. If the server API created it, that user is not in the room.",
        ),
        optional(
            "room_name",
            Type::Text,
            "The name of the room, chosen by users.",
        )
        .content(),
        optional(
            "attributes",
            Type::Items {
                members: ATTRIBUTE,
                empty_is_null: false,
            },
            "The attributes that the room was created with.",
        )
        .content(),
    ],
    identity: &["room_id", "operator_account"],
    examples: &[
        r#"{"event":"room_create","room_id":"room-42","operator_account":"u_bao","room_name":"Studio","attributes":[{"key":"mode","value":"live","auto_delete":0},{"key":"host","value":"u_bao","auto_delete":1}]}"#,
    ],
    ..Kind::USUAL
};
