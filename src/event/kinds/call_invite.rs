//! A user in a call invited more users. ZEGOCLOUD's page "Call invitation during a call".

use crate::event::field::{Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "call_invite",
    family: Family::Call,
    ce_type: "com.zegocloud.zim.call.invited.v1",
    schema: "urn:zim2kafka:schema:call-invited:v1",
    about: "A user in a call invited more users.",
    page: "call-invitation-during-a-call",
    fields: &[
        required("call_id", Type::ServerId, "The call."),
        required("inviter", Type::Id(Subject::User), "The user who invites."),
        required("user_ids", USERS, "The users who are invited."),
        optional(
            "invite_time",
            Type::Time,
            "When they were invited, in milliseconds since 1970-01-01 UTC.",
        ),
    ],
    identity: &["call_id", "inviter", "user_ids"],
    identity_time: Some("invite_time"),
    examples: &[
        r#"{"event":"call_invite","call_id":"3501761173612493301","user_ids":["u_dot"],"inviter":"u_bao","invite_time":1757577630456}"#,
    ],
    ..Kind::USUAL
};
