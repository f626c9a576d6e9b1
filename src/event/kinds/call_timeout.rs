//! Users did not answer a call. ZEGOCLOUD's page "Call invitation timed out".
//!
//! One call may have several of these events.

use crate::event::field::{Type, USERS, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "call_timeout",
    family: Family::Call,
    ce_type: "com.zegocloud.zim.call.timed-out.v1",
    schema: "urn:zim2kafka:schema:call-timed-out:v1",
    about: "Users did not answer a call in time.",
    page: "call-invitation-timed-out",
    fields: &[
        required("call_id", Type::ServerId, "The call."),
        required("user_ids", USERS, "The users who did not answer."),
    ],
    identity: &["call_id", "user_ids"],
    examples: &[r#"{"event":"call_timeout","call_id":"3501761173612493301","user_ids":["u_cem"]}"#],
    ..Kind::USUAL
};
