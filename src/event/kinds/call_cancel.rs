//! A call was canceled before it was answered. ZEGOCLOUD's page "Call invitation canceled".

use crate::event::field::{Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "call_cancel",
    family: Family::Call,
    ce_type: "com.zegocloud.zim.call.canceled.v1",
    schema: "urn:zim2kafka:schema:call-canceled:v1",
    about: "A call was canceled before it was answered.",
    page: "call-invitation-canceled",
    fields: &[
        required("call_id", Type::ServerId, "The call."),
        required("user_ids", USERS, "The users who were invited."),
        optional(
            "reason",
            Type::Text,
            "caller_cancel: the caller canceled or went offline. timeout_cancel: no user answered. Other values can occur.",
        ),
        optional(
            "payload",
            Type::Text,
            "Data that the app attached, as text.",
        )
        .content(),
    ],
    identity: &["call_id", "user_ids", "reason"],
    examples: &[
        r#"{"event":"call_cancel","call_id":"3501761173612493301","user_ids":["u_bao","u_cem"],"reason":"caller_cancel","payload":"{\"busy\":false}"}"#,
    ],
    ..Kind::USUAL
};
