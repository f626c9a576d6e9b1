//! Users joined a group. ZEGOCLOUD's page "Callback on group joined".
//!
//! From 2025-06-30 to 2025-07-24 the page named the event `group_destroy`, the name of another
//! event. Only `group_join` has `join_type` and `new_user_ids`. The name in the page's sample has
//! always been a different one.

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::event::field::{Subject, Type, optional, required};
use crate::event::fields::Fields;
use crate::event::kind::{Family, Kind};
use crate::event::record::Joined;
use crate::event::value::Value;

/// The only event of earlier versions. `ZIM2KAFKA_TOPIC` sets its topic.
pub const GROUP_JOIN: &str = "group_join";

pub(super) static KIND: Kind = Kind {
    name: GROUP_JOIN,
    aliases: &["Apply_join_group", "invited_join_group"],
    slips: &[("group_destroy", ["join_type", "new_user_ids"])],
    family: Family::Group,
    ce_type: "com.zegocloud.zim.group.joined.v1",
    schema: "urn:zim2kafka:schema:group-joined:v1",
    about: "Users joined a group.",
    page: "group/group-joined",
    fields: &[
        required("group_id", Type::Id(Subject::Group), "The group."),
        required(
            "join_type",
            Type::OneOf(&["Apply", "Invited"]),
            "How they joined. Apply: at their own request. Invited: operator_account invited them.",
        ),
        optional(
            "operator_account",
            Type::Id(Subject::User),
            "The user who invited them; null for Apply, for which the sender's value has no meaning.",
        )
        .not_empty()
        .only_with("join_type", "Invited"),
        required(
            "new_user_ids",
            Type::Users { one_string: true },
            "The users who joined. ZEGOCLOUD documents at most 100 per invitation; zim2kafka does not enforce that.",
        ),
    ],
    identity: &["group_id", "join_type", "operator_account", "new_user_ids"],
    joined: Some(joined),
    examples: &[
        r#"{"event":"group_join","group_id":"grp-7f3a","join_type":"Invited","operator_account":"u_ada","new_user_ids":["u_bao","u_cem"]}"#,
        r#"{"event":"group_join","group_id":"grp-7f3a","join_type":"Apply","operator_account":"","new_user_ids":["u_dot"]}"#,
    ],
    ..Kind::USUAL
};

/// How users joined. Every version of the page has these two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum JoinType {
    /// They applied.
    Apply,
    /// `operator_account` invited them.
    Invited,
}

fn joined(fields: &Fields<'_>) -> Joined {
    let join_type = fields.text("join_type").and_then(|text| text.parse().ok());
    Joined {
        join_type: join_type.expect("another value is refused"),
        users: match fields.get("new_user_ids") {
            Value::Users(users) => users.len(),
            _ => 0,
        },
    }
}
