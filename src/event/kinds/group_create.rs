//! A group was created. ZEGOCLOUD's page "Callback on group created".
//!
//! Its first draft (2025-06-23) had the name `create_group` and attributes named `Key` and `Value`.

use crate::event::field::{FieldSpec, Subject, Type, USERS, optional, required};
use crate::event::kind::{Family, Kind};

const ATTRIBUTE: &[FieldSpec] = &[
    optional("key", Type::Text, "The name of the attribute."),
    optional("value", Type::Text, "The value of the attribute."),
];

pub(super) static KIND: Kind = Kind {
    name: "group_create",
    aliases: &["create_group"],
    family: Family::Group,
    ce_type: "com.zegocloud.zim.group.created.v1",
    schema: "urn:zim2kafka:schema:group-created:v1",
    about: "A group was created.",
    page: "group/group-created",
    fields: &[
        required("group_id", Type::Id(Subject::Group), "The group."),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who created the group.",
        ),
        optional(
            "owner_account",
            Type::Id(Subject::User),
            "The owner of the group, for whom another user may have created it.",
        ),
        optional(
            "group_name",
            Type::Text,
            "The name of the group, chosen by users.",
        )
        .content(),
        optional(
            "attributes",
            Type::Items {
                members: ATTRIBUTE,
                empty_is_null: false,
            },
            "The attributes that the group was created with.",
        )
        .content(),
        optional(
            "user_ids",
            USERS,
            "The members of the group. ZEGOCLOUD's pages do not define whether the owner is one of them.",
        ),
    ],
    identity: &["group_id", "operator_account", "owner_account", "user_ids"],
    examples: &[
        r#"{"event":"group_create","group_id":"grp-7f3a","operator_account":"u_ada","owner_account":"u_ada","group_name":"Night shift","attributes":[{"key":"topic","value":"roster"},{"key":"lang","value":"de"}],"user_ids":["u_ada","u_bao","u_cem"]}"#,
    ],
    ..Kind::USUAL
};
