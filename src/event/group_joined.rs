//! The event "users joined a group": its fields, its id and its JSON.
//!
//! The fields and names are from ZEGOCLOUD's page "Callback on group joined" and its history.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::extra::Extra;
use super::record::{JSON, Times, header, name_based_id};
use super::{Kind, Record, Unpublishable};
use crate::callback::{EVENT_FIELDS, Field, VerifiedCallback};

/// The `$id` of `schemas/group-joined.v1.schema.json`.
const SCHEMA: &str = "urn:zim2kafka:schema:group-joined:v1";

/// The `ce_type` of records.
const TYPE: &str = "com.zegocloud.zim.group.joined.v1";

/// The namespace of event ids: `UUIDv5(DNS, "zim2kafka")`.
const EVENT_IDS: Uuid = Uuid::from_u128(0x37f28e8f_6ddb_5cb8_bd0d_c8ee87b50092);

/// The JSON of a record is rarely longer.
const USUAL_JSON_BYTES: usize = 1024;

/// The characters to encode in `ce_source`: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Users joined a group.
#[derive(Debug, Serialize)]
pub struct GroupJoined<'a> {
    event_id: Uuid,
    event: &'static str,
    appid: &'a str,
    group_id: Cow<'a, str>,
    join_type: JoinType,
    operator_account: Option<Cow<'a, str>>,
    new_user_ids: Vec<Cow<'a, str>>,
    timestamp: i64,
    received_at: i64,
    #[serde(skip_serializing_if = "Extra::is_empty")]
    extra: Extra<'a>,
}

/// How users joined. Every version of the page has these two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr, VariantArray)]
pub enum JoinType {
    /// They applied.
    Apply,
    /// `operator_account` invited them.
    Invited,
}

impl<'a> GroupJoined<'a> {
    /// The name of the event in records, whichever name the callback used.
    pub const EVENT: &'static str = "group_join";

    /// Whether `name` is a name of this event on any version of its page since 2025-06.
    ///
    /// From 2025-06-30 to 2025-07-24 the page said `group_destroy` by mistake, which is another
    /// event. Only this one has `join_type` and `new_user_ids`.
    pub(super) fn has_name(name: &str, callback: &VerifiedCallback<'_>) -> bool {
        let has = |wanted| callback.fields().iter().any(|field| field.name == wanted);
        match name {
            Self::EVENT | "Apply_join_group" | "invited_join_group" => true,
            "group_destroy" => has("join_type") && has("new_user_ids"),
            _ => false,
        }
    }

    /// Reads the event's fields.
    pub(super) fn read(callback: &'a VerifiedCallback<'a>) -> Result<Self, Unpublishable> {
        if !callback.is_valid_utf8() {
            return Err(Unpublishable::invalid("the body is not valid UTF-8"));
        }
        let Fields { known, extra } = Fields::sort(callback.fields())?;
        let [_, group_id, join_type, operator_account, new_user_ids] = known;
        let join_type = match join_type.and_then(Field::text).as_deref() {
            Some("Apply") => JoinType::Apply,
            Some("Invited") => JoinType::Invited,
            _ => {
                return Err(Unpublishable::invalid(
                    "join_type is neither \"Apply\" nor \"Invited\"",
                ));
            }
        };
        let mut event = Self {
            event_id: Uuid::nil(),
            event: Self::EVENT,
            appid: callback.appid(),
            group_id: group_id.and_then(id).ok_or_else(|| {
                Unpublishable::invalid("group_id is not a string of at least one character")
            })?,
            join_type,
            operator_account: operator(join_type, operator_account)?,
            new_user_ids: new_user_ids.and_then(users).ok_or_else(|| {
                Unpublishable::invalid(
                    "new_user_ids is not a list of user IDs with at least one in it",
                )
            })?,
            timestamp: callback.timestamp(),
            received_at: callback.raw().received_at,
            extra,
        };
        event.event_id = event.id();
        Ok(event)
    }

    /// The id: equal for equal content, also if that is resent or replayed. The text is canonical
    /// (RFC 8785): arrays keep their order, `serde_json` escapes strings in the same way, and a
    /// timestamp of at most thirteen digits is written as an integer in both.
    fn id(&self) -> Uuid {
        let name = (
            self.appid,
            self.event,
            &self.group_id,
            self.join_type,
            &self.operator_account,
            &self.new_user_ids,
            self.timestamp,
        );
        name_based_id(EVENT_IDS, &json(&name))
    }

    /// The record: CloudEvents 1.0, Kafka binding, binary mode.
    pub(super) fn record(&self) -> Record {
        let time = Timestamp::from_millisecond(self.timestamp)
            .expect("thirteen digits of milliseconds end in the year 2286");
        let source = format!("/zim/apps/{}", utf8_percent_encode(self.appid, RESERVED));
        let group_id = Bytes::from(self.group_id.clone().into_owned());
        Record {
            event: Some(Self::EVENT.into()),
            event_id: self.event_id,
            timestamp: self.timestamp,
            headers: vec![
                header("ce_specversion", "1.0".into()),
                header("ce_id", self.event_id.to_string().into()),
                header("ce_type", TYPE.into()),
                header("ce_source", source.into()),
                ("ce_subject".into(), group_id.clone()),
                header("ce_time", format!("{time:.3}").into()),
                header("ce_dataschema", SCHEMA.into()),
                ("content-type".into(), Bytes::from_static(JSON)),
            ],
            key: Some(group_id),
            // Copied without spare capacity, because it may wait for long.
            value: Bytes::copy_from_slice(&json(self)),
            kind: Some(Kind::GroupJoined {
                join_type: self.join_type,
                users: self.new_user_ids.len(),
            }),
            times: Times {
                callback: self.timestamp,
                received: self.received_at,
            },
        }
    }
}

/// Serialises a value whose parts are strings, numbers and JSON text, which cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_JSON_BYTES);
    serde_json::to_writer(&mut text, value).expect("writing to memory cannot fail");
    text
}

/// The fields of a callback, split into those that the record has and the others.
struct Fields<'a> {
    /// In the order of [`EVENT_FIELDS`].
    known: [Option<&'a Field<'a>>; EVENT_FIELDS.len()],
    extra: Extra<'a>,
}

impl<'a> Fields<'a> {
    fn sort(fields: &'a [Field<'a>]) -> Result<Self, Unpublishable> {
        let mut known = [None; EVENT_FIELDS.len()];
        let mut extra = Vec::new();
        for field in fields {
            let place = EVENT_FIELDS
                .iter()
                .zip(&mut known)
                .find(|(name, _)| **name == field.name);
            match place {
                None => extra.push(field),
                Some((_, known @ None)) => *known = Some(field),
                Some((name, Some(_))) => return Err(Unpublishable::repeated(name)),
            }
        }
        Ok(Self {
            known,
            extra: Extra::of(extra),
        })
    }
}

/// The inviting user. `Apply` has none: until 2025-06-26 the page said that the field repeats the
/// joining user, and since then that it is invalid.
fn operator<'a>(
    join_type: JoinType,
    field: Option<&'a Field<'a>>,
) -> Result<Option<Cow<'a, str>>, Unpublishable> {
    match (join_type, field) {
        (JoinType::Apply, _) | (_, None) => Ok(None),
        (_, Some(field)) if field.value.get() == "null" => Ok(None),
        (JoinType::Invited, Some(field)) => id(field).map(Some).ok_or_else(|| {
            Unpublishable::invalid("operator_account is not a string of at least one character")
        }),
    }
}

/// One user ID or a list of them, none of them empty.
fn users<'a>(field: &'a Field<'a>) -> Option<Vec<Cow<'a, str>>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if let Some(user) = id(field) {
        return Some(vec![user]);
    }
    let users: Vec<Text<'a>> = serde_json::from_str(field.value.get()).ok()?;
    let users: Vec<_> = users.into_iter().map(|Text(user)| user).collect();
    (!users.is_empty() && users.iter().all(|user| !user.is_empty())).then_some(users)
}

fn id<'a>(field: &'a Field<'a>) -> Option<Cow<'a, str>> {
    field.text().filter(|id| !id.is_empty())
}
