//! `Record`: what is handed to Kafka, an event or a dead letter.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use strum::{Display, IntoStaticStr, VariantArray};
use uuid::{Builder, Uuid};

use super::{JoinType, Kind, Unpublishable};
use crate::callback::{TraceContext, VerifiedCallback};

/// A larger record becomes a dead letter. The limit leaves space for Kafka's overhead below the
/// producer's limit of 1,000,000 bytes. Bodies have the same limit, so every body fits into a dead
/// letter.
pub const MAX_RECORD_BYTES: usize = 900_000;

/// The longest group ID that becomes the key of a dead letter. ZEGOCLOUD's have at most 32 bytes,
/// and a dead letter must fit whatever its body contains.
const MAX_DEAD_LETTER_KEY_BYTES: usize = 1024;

/// The namespace of the ids of dead letters: `UUIDv5(DNS, "dead-letter.zim2kafka")`.
const DEAD_LETTER_IDS: Uuid = Uuid::from_u128(0x3f18c754_b474_5f36_9250_eafa561fdd82);

/// The header of records that `redrive` has published.
pub const REDRIVEN: &str = "redriven";

/// A record for Kafka, without the topic, which its event determines.
#[derive(Clone)]
pub struct Record {
    /// The name of its event, such as `group_join`; `None` for a dead letter. Stored in the spool,
    /// and not from a closed set there: another version may have written it.
    pub event: Option<Cow<'static, str>>,
    /// The id for deduplication by consumers: equal content has an equal id.
    pub event_id: Uuid,
    /// The key; `None` for a dead letter without a readable group ID.
    pub key: Option<Bytes>,
    /// The timestamp in Kafka, in milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The headers, in order.
    pub headers: Vec<Header>,
    /// The value.
    pub value: Bytes,
    /// What is counted once it is durable; `None` for a record read from disk, which was counted
    /// when it was written.
    pub counted: Option<Counted>,
    /// When its callback was signed and received, for a later dead letter of this record.
    pub times: Times,
}

/// A header. Its name is static, except in a record read from disk.
pub type Header = (Cow<'static, str>, Bytes);

/// The times of a callback, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Its signed timestamp.
    pub callback: i64,
    /// When it was received, by our clock.
    pub received: i64,
}

/// What is counted once a new record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// An event.
    Event {
        /// Who joined a group, if anybody did.
        joined: Option<Joined>,
    },
    /// An authentic callback that cannot be published as an event.
    DeadLetter(Reason),
}

/// Users who joined a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// How they joined.
    pub join_type: JoinType,
    /// How many they are.
    pub users: usize,
}

/// Why a callback became a dead letter. The name is the header `dead_letter_reason` and a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The event is not one that this service publishes.
    UnsupportedEvent,
    /// A field of the event is missing or invalid.
    InvalidEvent,
    /// Its timestamp was too far from the time of arrival.
    Stale,
    /// Kafka rejected its record permanently.
    RejectedByKafka,
}

impl fmt::Debug for Record {
    /// Without the value: that of a dead letter contains a live signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("event", &self.event)
            .field("event_id", &self.event_id)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Record {
    /// The dead letter of a callback: its body, unchanged, the reason, and its trace context. With the
    /// event that it is of, its key is that of the event; otherwise it is the group.
    pub fn dead_letter(
        callback: &VerifiedCallback<'_>,
        event: Option<&Kind>,
        why: &Unpublishable,
    ) -> Self {
        let times = Times {
            callback: callback.timestamp(),
            received: callback.raw().received_at,
        };
        let key = match event {
            Some(event) => event.readable_key(callback),
            None => group_id(callback),
        };
        let key = key
            .filter(|key| (1..=MAX_DEAD_LETTER_KEY_BYTES).contains(&key.len()))
            .map(Bytes::from);
        let raw = callback.raw();
        let mut letter = Self::of_dead_letter(
            // Copied, because the body is a slice of the connection's read buffer, which must not
            // live on.
            Bytes::copy_from_slice(&raw.body),
            raw.content_type.clone(),
            key,
            times,
            why.reason,
            &why.detail,
        );
        letter.headers.extend(trace_headers(raw.trace.as_ref()));
        letter
    }

    /// The dead letter of this record, which Kafka has rejected permanently.
    pub fn rejected(&self, detail: &str) -> Self {
        let key = self.key.clone();
        let mut letter = Self::of_dead_letter(
            self.value.clone(),
            Some(Bytes::from_static(JSON)),
            key.filter(|key| key.len() <= MAX_DEAD_LETTER_KEY_BYTES),
            self.times,
            Reason::RejectedByKafka,
            detail,
        );
        let headers = self.headers.iter();
        let of_trace = headers.filter(|(name, _)| TraceContext::is_header(name));
        letter.headers.extend(of_trace.cloned());
        letter
    }

    fn of_dead_letter(
        value: Bytes,
        content_type: Option<Bytes>,
        key: Option<Bytes>,
        times: Times,
        reason: Reason,
        detail: &str,
    ) -> Self {
        let event_id = name_based_id(DEAD_LETTER_IDS, &value);
        let mut headers = vec![
            header("event_id", event_id.to_string().into()),
            header("dead_letter_reason", <&str>::from(reason).into()),
            header("dead_letter_detail", detail.to_owned().into()),
            header("callback_timestamp", times.callback.to_string().into()),
            header("received_at", times.received.to_string().into()),
        ];
        headers.extend(content_type.map(|text| ("content-type".into(), text)));
        Self {
            event: None,
            event_id,
            key,
            timestamp: times.received,
            headers,
            value,
            counted: Some(Counted::DeadLetter(reason)),
            times,
        }
    }

    /// Marks a record whose signature was used before with another body. That can happen without an
    /// attack, because the sender's nonces collide, so such a record is not refused.
    #[must_use]
    pub fn marked_as_reuse(mut self) -> Self {
        if !self.is_dead_letter() {
            self.headers
                .push(header("ce_signaturereused", "true".into()));
        }
        self
    }

    /// Marks the record of a dead letter that `redrive` publishes.
    #[must_use]
    pub fn marked_as_redriven(mut self) -> Self {
        self.headers.push(header(REDRIVEN, "true".into()));
        self
    }

    /// Whether it belongs to the dead-letter topic.
    pub fn is_dead_letter(&self) -> bool {
        self.event.is_none()
    }

    /// Bytes of its key, headers and value.
    pub fn size(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.key.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>() + self.value.len()
    }
}

/// The headers of a request's trace context, if it has one.
pub(super) fn trace_headers(trace: Option<&TraceContext>) -> impl Iterator<Item = Header> {
    let headers = trace.into_iter().flat_map(TraceContext::headers);
    headers.map(|(name, value)| (name.into(), value.clone()))
}

fn group_id(callback: &VerifiedCallback<'_>) -> Option<String> {
    let field = (callback.fields().iter()).find(|field| field.name == "group_id")?;
    field.first_text().map(Cow::into_owned)
}

/// A UUID of version 5, like `Uuid::new_v5`, but with a SHA-1 that uses the processor's
/// instructions; the one in `uuid` takes several times as long.
pub(super) fn name_based_id(namespace: Uuid, name: &[u8]) -> Uuid {
    let hash: [u8; 20] = Sha1::new()
        .chain_update(namespace)
        .chain_update(name)
        .finalize()
        .into();
    let first = hash.first_chunk().expect("20 bytes begin with 16");
    Builder::from_sha1_bytes(*first).into_uuid()
}

/// The content type of every record that is not a dead letter.
pub(super) const JSON: &[u8] = b"application/json";

/// A header from static or owned text.
pub(super) fn header(name: &'static str, value: Cow<'static, str>) -> Header {
    match value {
        Cow::Borrowed(text) => (name.into(), Bytes::from_static(text.as_bytes())),
        Cow::Owned(text) => (name.into(), Bytes::from(text)),
    }
}
