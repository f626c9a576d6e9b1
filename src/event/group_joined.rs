//! "Users joined a group": its fields, its id and its JSON.
//!
//! Fields and names are those of ZEGOCLOUD's page "Callback on group joined" and of its history.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::record::{JSON, Times, header, name_based_id};
use super::{Kind, Record, Unpublishable};
use crate::callback::{Field, VerifiedCallback};

/// The event's name in records, whatever name the callback used.
const EVENT: &str = "group_join";

/// The `$id` of `schemas/group-joined.v1.schema.json`.
const SCHEMA: &str = "urn:zim2kafka:schema:group-joined:v1";

/// The `ce_type` of records.
const TYPE: &str = "com.zegocloud.zim.group.joined.v1";

/// `UUIDv5(DNS, "zim2kafka")`: the namespace of event ids.
const EVENT_IDS: Uuid = Uuid::from_u128(0x37f28e8f_6ddb_5cb8_bd0d_c8ee87b50092);

/// A record's JSON is seldom longer.
const USUAL_BYTES: usize = 1024;

/// What RFC 3986 calls unreserved stays as it is in `ce_source`.
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

/// How users came into a group. Every version of the page knows these two and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinType {
    /// By a request of their own.
    Apply,
    /// By the invitation of `operator_account`.
    Invited,
}

impl JoinType {
    /// Every way there is.
    pub const ALL: [Self; 2] = [Self::Apply, Self::Invited];

    /// The name that the sender, the record and the metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Invited => "Invited",
        }
    }
}

impl<'a> GroupJoined<'a> {
    /// Whether `name` is this event's, in one of the forms that its page has had since 2025-06.
    ///
    /// From 2025-06-30 to 2025-07-24 the page said `group_destroy` by mistake, which is the name of
    /// another event; only this one has `join_type` and `new_user_ids`.
    pub(super) fn goes_by(name: &str, callback: &VerifiedCallback<'_>) -> bool {
        let has = |wanted| callback.fields().iter().any(|field| field.name == wanted);
        match name {
            EVENT | "Apply_join_group" | "invited_join_group" => true,
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
            event: EVENT,
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

    /// Equal content has an equal id, whoever sends or replays it. The text is RFC 8785's: arrays
    /// keep their order, `serde_json` writes strings with the same escapes, and a timestamp of at most
    /// thirteen digits is an integer in both.
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

    /// The record that subscribers read: CloudEvents 1.0, Kafka binding, binary mode.
    pub(super) fn record(&self) -> Record {
        let time = Timestamp::from_millisecond(self.timestamp)
            .expect("thirteen digits of milliseconds end in the year 2286");
        let source = format!("/zim/apps/{}", utf8_percent_encode(self.appid, RESERVED));
        let group_id = Bytes::from(self.group_id.clone().into_owned());
        Record {
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
            // With no more room than it needs, since it may wait long.
            value: Bytes::copy_from_slice(&json(self)),
            kind: Kind::GroupJoined {
                join_type: self.join_type,
                users: self.new_user_ids.len(),
            },
            times: Times {
                callback: self.timestamp,
                received: self.received_at,
            },
        }
    }
}

/// Strings, numbers and JSON text always serialise.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut text, value).expect("memory takes it");
    text
}

/// The fields that the record has a place for, in the order of [`Fields::known`].
const KNOWN: [&str; 5] = [
    "event",
    "group_id",
    "join_type",
    "operator_account",
    "new_user_ids",
];

/// A callback's fields, sorted into those that the record has a place for and the others.
struct Fields<'a> {
    known: [Option<&'a Field<'a>>; KNOWN.len()],
    extra: Extra<'a>,
}

impl<'a> Fields<'a> {
    fn sort(fields: &'a [Field<'a>]) -> Result<Self, Unpublishable> {
        let mut sorted = Self {
            known: [None; KNOWN.len()],
            extra: Extra(Vec::new()),
        };
        for field in fields {
            let place = KNOWN
                .iter()
                .zip(&mut sorted.known)
                .find(|(name, _)| **name == field.name);
            match place {
                None => sorted.extra.0.push(field),
                Some((_, known @ None)) => *known = Some(field),
                Some((name, Some(_))) => {
                    return Err(Unpublishable::invalid(format!(
                        "the field {name:?} is repeated"
                    )));
                }
            }
        }
        sorted.extra.keep_the_last_of_each_name();
        Ok(sorted)
    }
}

/// The fields that the record has no place for, as the JSON text that was received.
#[derive(Debug)]
struct Extra<'a>(Vec<&'a Field<'a>>);

impl Extra<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of a repeated name, the last is what every ordinary parser would have read; a record that
    /// repeated it would be refused by the strict ones.
    fn keep_the_last_of_each_name(&mut self) {
        if self.0.len() < 2 {
            return;
        }
        let last: HashMap<&str, usize> = (self.0.iter().enumerate())
            .map(|(at, field)| (field.name.as_ref(), at))
            .collect();
        if last.len() == self.0.len() {
            return;
        }
        let mut at = 0;
        self.0.retain(|field| {
            at += 1;
            last.get(field.name.as_ref()) == Some(&(at - 1))
        });
    }
}

impl Serialize for Extra<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for field in &self.0 {
            map.serialize_entry(&field.name, field.value)?;
        }
        map.end()
    }
}

/// Who invited. `Apply` has no operator: until 2025-06-26 the page said that it repeats the joiner,
/// since then that it is invalid, and neither says what is sent.
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

/// One user ID, or a list of them, and nothing empty.
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
