//! A user rejected a call. ZEGOCLOUD's page "Call invitation rejected".

use crate::event::field::{Subject, Type, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "call_reject",
    family: Family::Call,
    ce_type: "com.zegocloud.zim.call.rejected.v1",
    schema: "urn:zim2kafka:schema:call-rejected:v1",
    about: "A user rejected a call.",
    page: "call-invitation-rejected",
    fields: &[
        required("call_id", Type::ServerId, "The call."),
        required("user_id", Type::Id(Subject::User), "The user who rejected."),
        optional(
            "extend_data",
            Type::Text,
            "Data that the app attached, as text.",
        )
        .content(),
    ],
    identity: &["call_id", "user_id"],
    examples: &[
        r#"{"event":"call_reject","call_id":"3501761173612493301","user_id":"u_bao","extend_data":"{\"mic\":true}"}"#,
    ],
    ..Kind::USUAL
};
