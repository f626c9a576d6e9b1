//! A group was disbanded. ZEGOCLOUD's page "Callback on group destroyed".
//!
//! Its first draft (2025-06-23) had the name `destroy_group`.

use crate::event::field::{Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

pub(super) static KIND: Kind = Kind {
    name: "group_destroy",
    aliases: &["destroy_group"],
    family: Family::Group,
    ce_type: "com.zegocloud.zim.group.destroyed.v1",
    schema: "urn:zim2kafka:schema:group-destroyed:v1",
    about: "A group was disbanded.",
    page: "group/group-destroyed",
    fields: &[
        required("group_id", Type::Id(Subject::Group), "The group."),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who disbanded the group.",
        ),
        optional(
            "owner_account",
            Type::Id(Subject::User),
            "The owner of the group.",
        ),
        optional(
            "user_ids",
            USERS,
            "All members at that moment, possibly thousands.",
        ),
    ],
    identity: &["group_id", "operator_account", "owner_account", "user_ids"],
    examples: &[
        r#"{"event":"group_destroy","group_id":"grp-7f3a","operator_account":"u_ada","owner_account":"u_ada","user_ids":["u_ada","u_bao","u_cem","u_dot"]}"#,
    ],
    ..Kind::USUAL
};
