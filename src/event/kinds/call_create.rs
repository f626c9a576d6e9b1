//! A user invited others to a call. ZEGOCLOUD's page "Call invitation sent".

use crate::event::field::{NUMBER, Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "call_create",
    family: Family::Call,
    ce_type: "com.zegocloud.zim.call.created.v1",
    schema: "urn:zim2kafka:schema:call-created:v1",
    about: "A user invited others to a call.",
    page: "call-invitation-sent",
    fields: &[
        required("call_id", Type::ServerId, "The call."),
        required("caller", Type::Id(Subject::User), "The user who calls."),
        required(
            "user_ids",
            USERS,
            "The users who are invited, except those who are logged out.",
        ),
        optional(
            "create_time",
            Type::Time,
            "When the call was created, in milliseconds since 1970-01-01 UTC.",
        ),
        optional(
            "timeout",
            NUMBER,
            "How long the call waits for an answer, in seconds.",
        ),
        optional(
            "payload",
            Type::Text,
            "Data that the app attached, as text.",
        )
        .content(),
    ],
    identity: &["call_id", "caller", "user_ids"],
    identity_time: Some("create_time"),
    examples: &[
        r#"{"event":"call_create","call_id":"3501761173612493301","caller":"u_ada","user_ids":["u_bao","u_cem"],"create_time":1757577660,"timeout":90,"payload":"{\"video\":true}"}"#,
    ],
    ..Kind::USUAL
};
