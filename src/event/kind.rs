//! `Kind`: what an event is, as plain data, and how a callback of it becomes a record.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::field::FieldSpec;
use super::fields::Fields;
use super::omit::Omit;
use super::record::{
    Counted, Header, JSON, Joined, MAX_RECORD_BYTES, Times, header, name_based_id, trace_headers,
};
use super::value::{InId, Published, Value};
use super::{Record, Unpublishable};
use crate::callback::VerifiedCallback;

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

/// An event. Everything that the service knows of it is in this table.
#[derive(Debug)]
pub struct Kind {
    /// Its name in records, whichever name the callback used. The spool stores it.
    pub name: &'static str,
    /// Other names that ZEGOCLOUD's page has used for it.
    pub aliases: &'static [&'static str],
    /// Names of other events that ZEGOCLOUD's page has used for it by mistake, each with two fields
    /// that only this event has.
    pub slips: &'static [(&'static str, [&'static str; 2])],
    /// Detects the event with the same name of another ZEGOCLOUD product: it has any field of the
    /// list, and the other field, an ID, is missing, null or empty.
    pub of_other_product: Option<(&'static [&'static str], &'static str)>,
    /// Its family, which determines its key and, by default, its topic.
    pub family: Family,
    /// The `ce_type` of its records.
    pub ce_type: &'static str,
    /// The `$id` of its schema, and its `ce_dataschema`.
    pub schema: &'static str,
    /// What it reports, for schemas.
    pub about: &'static str,
    /// Its page in ZEGOCLOUD's documentation, below [`Kind::PAGES`].
    pub page: &'static str,
    /// Its fields, in the order of the record.
    pub fields: &'static [FieldSpec],
    /// The fields that its id is computed from, apart from appid, name and time.
    pub identity: &'static [&'static str],
    /// The field that replaces the timestamp in its id, if it is not null.
    pub identity_time: Option<&'static str>,
    /// Further fields that its id is computed from, if `identity` contains no ID that ZEGOCLOUD
    /// generated.
    pub identity_without_ids: &'static [&'static str],
    /// The field that becomes the record's Kafka timestamp, if it is within the tolerance of the
    /// signed timestamp.
    pub own_time: Option<&'static str>,
    /// What is counted in addition to the event.
    pub(super) joined: Option<fn(&Fields<'_>) -> Joined>,
    /// Bodies without the signed fields, as JSON. The first has all fields that are usually sent.
    pub examples: &'static [&'static str],
}

/// Events that are about the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Family {
    /// A group and its members.
    Group,
    /// A room and its users.
    Room,
    /// A chat message.
    Message,
    /// A call invitation.
    Call,
    /// A connection of a user.
    User,
}

/// The operator's settings for records.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What is left out.
    pub omit: Omit,
    /// How far an event's own time may be from the signed timestamp; `None` accepts any.
    pub tolerance: Option<Duration>,
}

impl Kind {
    /// Where ZEGOCLOUD documents its callbacks.
    pub const PAGES: &str = "https://www.zegocloud.com/docs/zim-server/callbacks/";

    /// The values that most events share. Every event sets the empty ones.
    pub(super) const USUAL: Self = Self {
        name: "",
        aliases: &[],
        slips: &[],
        of_other_product: None,
        family: Family::Group,
        ce_type: "",
        schema: "",
        about: "",
        page: "",
        fields: &[],
        identity: &[],
        identity_time: None,
        identity_without_ids: &[],
        own_time: None,
        joined: None,
        examples: &[],
    };

    /// The record of a callback of this event: CloudEvents 1.0, Kafka binding, binary mode, and the
    /// trace context of the request.
    ///
    /// # Errors
    ///
    /// [`Unpublishable`], if a field is missing or invalid, or the record would exceed
    /// [`MAX_RECORD_BYTES`].
    pub fn record(
        &self,
        callback: &VerifiedCallback<'_>,
        policy: &Policy,
    ) -> Result<Record, Unpublishable> {
        let fields = Fields::read(self.fields, callback)?;
        let key = (self.family.key(&fields)).ok_or_else(|| {
            Unpublishable::invalid("conv_id is missing or empty, and conv_type is not 0")
        })?;
        let key = Bytes::from(key.into_owned());
        let timestamp = self.time(&fields, policy);
        let content = Content {
            kind: self,
            callback,
            fields: &fields,
            event_id: self.id(callback, &fields),
            omit: &policy.omit,
        };
        let mut record = Record {
            event: Some(self.name.into()),
            event_id: content.event_id,
            timestamp,
            headers: self.headers(content.event_id, callback.appid(), &key, timestamp),
            key: Some(key),
            // Copied without spare capacity, because it may wait for long.
            value: Bytes::copy_from_slice(&json(&content)),
            counted: Some(Counted::Event {
                joined: self.joined.map(|joined| joined(&fields)),
            }),
            times: Times {
                callback: callback.timestamp(),
                received: callback.raw().received_at,
            },
        };
        record
            .headers
            .extend(trace_headers(callback.raw().trace.as_ref()));
        if record.size() > MAX_RECORD_BYTES {
            return Err(Unpublishable::invalid(format!(
                "its record has {} bytes, more than {MAX_RECORD_BYTES}",
                record.size()
            )));
        }
        Ok(record)
    }

    /// The headers of a record. The timestamp has at most thirteen digits of milliseconds.
    pub(super) fn headers(
        &self,
        event_id: Uuid,
        appid: &str,
        key: &Bytes,
        timestamp: i64,
    ) -> Vec<Header> {
        let time = Timestamp::from_millisecond(timestamp)
            .expect("thirteen digits of milliseconds end in the year 2286");
        let source = utf8_percent_encode(appid, RESERVED);
        vec![
            header("ce_specversion", "1.0".into()),
            header("ce_id", event_id.to_string().into()),
            header("ce_type", self.ce_type.into()),
            header("ce_source", format!("/zim/apps/{source}").into()),
            ("ce_subject".into(), key.clone()),
            header("ce_time", format!("{time:.3}").into()),
            header("ce_dataschema", self.schema.into()),
            ("content-type".into(), Bytes::from_static(JSON)),
        ]
    }

    /// The key that a record of this callback would have, as far as its fields can be read.
    pub(super) fn readable_key(&self, callback: &VerifiedCallback<'_>) -> Option<String> {
        let names = self.family.key_fields();
        let (fields, timestamp) = (callback.fields(), callback.timestamp());
        let fields = Fields::read_leniently(self.fields, names, fields, timestamp);
        self.family.key(&fields).map(Cow::into_owned)
    }

    /// Whether the field determines the key or the id.
    pub fn is_identified_by(&self, field: &str) -> bool {
        let ids = [self.identity, self.identity_without_ids].concat();
        self.identity_time == Some(field)
            || ids.contains(&field)
            || self.family.key_fields().contains(&field)
    }

    /// The Kafka timestamp. The event's own time is not signed, so it is used only if it is within
    /// the tolerance of the signed timestamp.
    pub(super) fn time(&self, fields: &Fields<'_>, policy: &Policy) -> i64 {
        let signed = fields.timestamp;
        match self.own_time.and_then(|name| fields.time(name)) {
            Some(own)
                if policy.tolerance.is_none_or(|tolerance| {
                    u128::from(own.abs_diff(signed)) <= tolerance.as_millis()
                }) =>
            {
                own
            }
            _ => signed,
        }
    }

    /// The id: equal for equal content, so a retry or a replay has the same one.
    fn id(&self, callback: &VerifiedCallback<'_>, fields: &Fields<'_>) -> Uuid {
        name_based_id(
            EVENT_IDS,
            &json(&Identity {
                kind: self,
                appid: callback.appid(),
                fields,
            }),
        )
    }
}

impl Family {
    /// The key of an event with these fields; `None` if they contain no key.
    pub(super) fn key<'v>(self, fields: &'v Fields<'_>) -> Option<Cow<'v, str>> {
        match self.key_fields() {
            [field] => fields.text(field).map(Cow::Borrowed),
            _ => conversation(fields),
        }
    }

    /// The fields from which the key is made.
    pub fn key_fields(self) -> &'static [&'static str] {
        match self {
            Self::Group => &["group_id"],
            Self::Room => &["room_id"],
            Self::Call => &["call_id"],
            Self::User => &["user_id"],
            Self::Message => &["from_user_id", "conv_type", "conv_id", "user_list"],
        }
    }
}

/// The key of a message. In a one-to-one chat `conv_id` is the receiver. The key is the sorted pair
/// of both users, so that both directions of a chat have the same key. One-to-one messages of the
/// server API have no `conv_id`, but a list of receivers.
fn conversation<'v>(fields: &'v Fields<'_>) -> Option<Cow<'v, str>> {
    let conv_id = fields.text("conv_id");
    if fields.text("conv_type")? != "0" {
        return conv_id.map(Cow::Borrowed);
    }
    let sender = fields.text("from_user_id")?;
    let receiver = match (conv_id, fields.get("user_list")) {
        (Some(receiver), _) => Some(receiver),
        (None, Value::Items(receivers)) => match receivers.as_slice() {
            [receiver] => (receiver.members.first()).and_then(|user| user.value.text()),
            _ => None,
        },
        (None, _) => None,
    };
    Some(match receiver {
        None => Cow::Borrowed(sender),
        Some(receiver) => {
            let mut pair = [sender, receiver];
            pair.sort_unstable();
            // Canonical JSON (RFC 8785) escapes strings in the same way.
            Cow::Owned(serde_json::to_string(&pair).expect("strings are JSON"))
        }
    })
}

/// Serialises a value whose parts are strings, numbers and JSON text, which cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_JSON_BYTES);
    serde_json::to_writer(&mut text, value).expect("writing to memory cannot fail");
    text
}

/// What the id is computed from, as canonical JSON (RFC 8785).
struct Identity<'v, 'a> {
    kind: &'v Kind,
    appid: &'v str,
    fields: &'v Fields<'a>,
}

impl Serialize for Identity<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            kind,
            appid,
            fields,
        } = self;
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(appid)?;
        list.serialize_element(kind.name)?;
        for name in kind.identity {
            list.serialize_element(&InId(fields.get(name)))?;
        }
        let time = kind.identity_time.and_then(|name| fields.time(name));
        list.serialize_element(&time.unwrap_or(fields.timestamp))?;
        if !kind.identity_without_ids.is_empty() && !fields.has_server_id(kind.identity) {
            list.serialize_element(&fields.timestamp)?;
            for name in kind.identity_without_ids {
                list.serialize_element(&InId(fields.get(name)))?;
            }
        }
        list.end()
    }
}

/// The value of a record.
struct Content<'v, 'a> {
    kind: &'v Kind,
    callback: &'v VerifiedCallback<'a>,
    fields: &'v Fields<'a>,
    event_id: Uuid,
    omit: &'v Omit,
}

impl Serialize for Content<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let omit = self.omit;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event_id", &self.event_id)?;
        map.serialize_entry("event", self.kind.name)?;
        map.serialize_entry("appid", self.callback.appid())?;
        for (spec, value) in self.fields.iter() {
            if !omit.leaves_out(spec) {
                map.serialize_entry(spec.name, &Published { value, omit })?;
            }
        }
        map.serialize_entry("timestamp", &self.callback.timestamp())?;
        map.serialize_entry("received_at", &self.callback.raw().received_at)?;
        let omitted = self.fields.omitted(omit);
        if !omitted.is_empty() {
            map.serialize_entry("omitted", &omitted)?;
        }
        if !self.fields.extra.is_empty() && !omit.leaves_out_extra() {
            map.serialize_entry("extra", &self.fields.extra)?;
        }
        map.end()
    }
}
