//! `Record`: what is handed to Kafka, whether an event or a dead letter.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use super::{JoinType, Unpublishable};
use crate::callback::VerifiedCallback;

/// A record of more bytes becomes a dead letter. It leaves room below the producer's limit of
/// 1,000,000 for what Kafka adds, and a body, which is limited to as much, always fits as a dead letter.
pub const MAX_RECORD_BYTES: usize = 900_000;

/// A longer group ID does not become a dead letter's key: it is not one of ZEGOCLOUD's, which end
/// at 32 bytes, and the dead letter must fit whatever the body holds.
const MAX_DEAD_LETTER_KEY_BYTES: usize = 1024;

/// `UUIDv5(DNS, "dead-letter.zim2kafka")`: the namespace of the ids of dead letters.
const DEAD_LETTER_IDS: Uuid = Uuid::from_u128(0x3f18c754_b474_5f36_9250_eafa561fdd82);

/// One record as Kafka gets it, but for the topic, which belongs to its lane.
#[derive(Clone)]
pub struct Record {
    /// The id that consumers deduplicate by: equal content has an equal id.
    pub event_id: Uuid,
    /// The key, or none for a dead letter whose group could not be read.
    pub key: Option<Bytes>,
    /// The time Kafka stores, in milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The headers, in order.
    pub headers: Vec<Header>,
    /// The value.
    pub value: Bytes,
    /// What the record is, for its lane and for the metrics.
    pub kind: Kind,
    /// When the callback was signed to have happened, and when it had arrived: what a later dead
    /// letter of this record tells. Milliseconds since 1970-01-01 UTC.
    pub times: Times,
}

/// A record's header. Its name is known, but for a record that comes back from disk.
pub type Header = (Cow<'static, str>, Bytes);

/// When a record's callback happened and arrived, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// By the callback's own timestamp.
    pub callback: i64,
    /// By our clock.
    pub received: i64,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Users joined a group.
    GroupJoined {
        /// How they joined.
        join_type: JoinType,
        /// How many joined.
        users: usize,
    },
    /// Authentic, but not publishable as an event.
    DeadLetter(Reason),
}

/// Why a callback became a dead letter: the header `dead_letter_reason` and the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The event is none that this service publishes.
    UnsupportedEvent,
    /// A group-joined callback that lacks what its record needs.
    InvalidEvent,
    /// Its timestamp is further from now than the tolerance.
    Stale,
    /// Kafka refuses the record itself, for good.
    RejectedByKafka,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 4] = [
        Self::UnsupportedEvent,
        Self::InvalidEvent,
        Self::Stale,
        Self::RejectedByKafka,
    ];

    /// The reason as consumers and dashboards read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedEvent => "unsupported_event",
            Self::InvalidEvent => "invalid_event",
            Self::Stale => "stale",
            Self::RejectedByKafka => "rejected_by_kafka",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Record {
    /// A dead letter's value holds a live signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("event_id", &self.event_id)
            .field("kind", &self.kind)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Record {
    /// The dead letter of a callback: its body, unchanged, and why it is here.
    pub fn dead_letter(callback: &VerifiedCallback<'_>, why: &Unpublishable) -> Self {
        let times = Times {
            callback: callback.timestamp(),
            received: callback.raw().received_at,
        };
        let group_id = callback
            .fields()
            .iter()
            .find(|field| field.name == "group_id");
        let key = group_id
            .and_then(|field| field.text())
            .filter(|key| (1..=MAX_DEAD_LETTER_KEY_BYTES).contains(&key.len()))
            .map(|key| Bytes::from(key.into_owned()));
        let raw = callback.raw();
        Self::of_dead_letter(
            // The connection's read buffer, of which the body is a slice, must not live as long.
            Bytes::copy_from_slice(&raw.body),
            raw.content_type.clone(),
            key,
            times,
            why.reason,
            &why.detail,
        )
    }

    /// The dead letter of this record, after Kafka has refused it for good.
    pub fn rejected(&self, detail: &str) -> Self {
        let key = self.key.clone();
        Self::of_dead_letter(
            self.value.clone(),
            Some(Bytes::from_static(JSON)),
            key.filter(|key| key.len() <= MAX_DEAD_LETTER_KEY_BYTES),
            self.times,
            Reason::RejectedByKafka,
            detail,
        )
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
            header("dead_letter_reason", reason.as_str().into()),
            header("dead_letter_detail", detail.to_owned().into()),
            header("callback_timestamp", times.callback.to_string().into()),
            header("received_at", times.received.to_string().into()),
        ];
        headers.extend(content_type.map(|text| ("content-type".into(), text)));
        Self {
            event_id,
            key,
            timestamp: times.received,
            headers,
            value,
            kind: Kind::DeadLetter(reason),
            times,
        }
    }

    /// Says that the signature of this record's callback had already come with another body. The
    /// sender's nonces collide honestly, so this marks a record and refuses none.
    #[must_use]
    pub fn marked_as_reuse(mut self) -> Self {
        if !self.is_dead_letter() {
            self.headers
                .push(header("ce_signaturereused", "true".into()));
        }
        self
    }

    /// Whether it belongs to the dead-letter topic.
    pub fn is_dead_letter(&self) -> bool {
        matches!(self.kind, Kind::DeadLetter(_))
    }

    /// The bytes of its key, headers and value.
    pub fn size(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.key.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>() + self.value.len()
    }
}

/// A UUID of version 5, which is what the `uuid` crate's `new_v5` makes, with a SHA-1 that uses the
/// processor's instructions for it; `uuid`'s own takes several times as long.
pub(super) fn name_based_id(namespace: Uuid, name: &[u8]) -> Uuid {
    let hash: [u8; 20] = Sha1::new()
        .chain_update(namespace)
        .chain_update(name)
        .finalize()
        .into();
    let first = hash.first_chunk().expect("20 bytes begin with 16");
    Builder::from_sha1_bytes(*first).into_uuid()
}

/// The content type of every record that is no dead letter.
pub(super) const JSON: &[u8] = b"application/json";

/// A header's value from text that is either known or made for this record.
pub(super) fn header(name: &'static str, value: Cow<'static, str>) -> Header {
    match value {
        Cow::Borrowed(text) => (name.into(), Bytes::from_static(text.as_bytes())),
        Cow::Owned(text) => (name.into(), Bytes::from(text)),
    }
}
