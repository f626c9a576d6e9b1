//! Users left a group. ZEGOCLOUD's page "Callback on group left".
//!
//! From 2025-06-30 to 2025-07-24 the page named the event `group_destroy`, the name of another
//! event. Only `group_exit` has `exit_type` and `exit_user_ids`.

use crate::event::field::{Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "group_exit",
    slips: &[("group_destroy", ["exit_type", "exit_user_ids"])],
    family: Family::Group,
    ce_type: "com.zegocloud.zim.group.left.v1",
    schema: "urn:zim2kafka:schema:group-left:v1",
    about: "Users left a group.",
    page: "group/group-left",
    fields: &[
        required("group_id", Type::Id(Subject::Group), "The group."),
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
    identity: &["group_id", "exit_type", "operator_account", "exit_user_ids"],
    examples: &[
        r#"{"event":"group_exit","group_id":"grp-7f3a","exit_type":"Kickout","operator_account":"u_ada","exit_user_ids":["u_bao","u_cem"]}"#,
        r#"{"event":"group_exit","group_id":"grp-7f3a","exit_type":"Quit","operator_account":"u_bao","exit_user_ids":["u_bao"]}"#,
    ],
    ..Kind::USUAL
};
