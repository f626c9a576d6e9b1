//! Plays a consumer: takes the whole of both topics, and compares each record with what was sent.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::plan::marker;
use super::sender::{Log, Sent, group_name};

/// Without a further record for so long, a topic that should have more cannot be read.
const PATIENCE: Duration = Duration::from_secs(60);

/// One record, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Of which callback it is; none where it is of none that was sent.
    pub(crate) number: Option<u64>,
    /// In what it differs from what was sent.
    pub(crate) altered: Option<String>,
}

/// Both topics, whole.
#[derive(Debug, Default, Clone)]
pub(crate) struct Contents {
    pub(crate) events: Vec<Found>,
    pub(crate) dead_letters: Vec<Found>,
}

/// A record as Kafka gave it.
#[derive(Debug, Clone, Default)]
pub(super) struct Raw {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Vec<u8>,
    pub(super) timestamp: i64,
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

/// What its user checks of the key, the headers and the value of each record.
pub(crate) type Check = fn(Option<&[u8]>, &[(String, Vec<u8>)], &[u8]);

/// Reads both topics from their beginning to where they end now. Blocks.
///
/// # Panics
///
/// Where Kafka does not give all that it says it has.
pub(crate) fn read(brokers: &str, topics: [&str; 2], log: &Log, check: Check) -> Contents {
    let [events, dead_letters] = topics;
    let mut contents = Contents::default();
    each(brokers, events, check, |raw| {
        contents.events.push(judge_event(log, &raw))
    });
    each(brokers, dead_letters, check, |raw| {
        contents.dead_letters.push(judge_dead_letter(log, &raw))
    });
    contents
}

/// Both topics, whole, and not judged yet: a topic that is about to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Taken([Vec<Raw>; 2]);

/// Takes both topics as they are now. Blocks.
pub(crate) fn take(brokers: &str, topics: [&str; 2], check: Check) -> Taken {
    Taken(topics.map(|topic| {
        let mut records = Vec::new();
        each(brokers, topic, check, |raw| records.push(raw));
        records
    }))
}

impl Taken {
    /// Puts in front of these what had been in the same topics before they were deleted.
    pub(crate) fn behind(mut self, earlier: Taken) -> Self {
        for (records, mut earlier) in self.0.iter_mut().zip(earlier.0) {
            let end = earlier.iter().map(|raw| raw.offset + 1).max();
            let shift = |raw: &mut Raw| raw.offset += end.unwrap_or(0);
            records.iter_mut().for_each(shift);
            earlier.append(records);
            *records = earlier;
        }
        self
    }

    pub(crate) fn judge(&self, log: &Log) -> Contents {
        let [events, dead_letters] = &self.0;
        Contents {
            events: events.iter().map(|raw| judge_event(log, raw)).collect(),
            dead_letters: (dead_letters.iter())
                .map(|raw| judge_dead_letter(log, raw))
                .collect(),
        }
    }
}

fn each(brokers: &str, topic: &str, check: Check, mut take: impl FnMut(Raw)) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "auditor")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("isolation.level", "read_committed")
        // A marker of a transaction may stand at the end.
        .set("enable.partition.eof", "true")
        .set("reconnect.backoff.max.ms", "200");
    let consumer: BaseConsumer = config.create().expect("sound settings");
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .expect("Kafka answers");
    let mut assignment = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in metadata.topics()[0].partitions() {
        let id = partition.id();
        let (low, high) = (consumer.fetch_watermarks(topic, id, PATIENCE)).expect("Kafka answers");
        assert_eq!(low, 0, "records of {topic} {id} are gone already");
        if high > 0 {
            let begin = assignment.add_partition_offset(topic, id, Offset::Beginning);
            begin.expect("a valid offset");
            ends.push((id, high));
        }
    }
    consumer.assign(&assignment).expect("a valid assignment");
    let mut last = Instant::now();
    while !ends.is_empty() {
        assert!(
            last.elapsed() < PATIENCE,
            "Kafka does not give {topic} to its end: {ends:?}"
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = match message {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(partition)) => {
                ends.retain(|(id, _)| *id != partition);
                continue;
            }
            // Errors of the connection are retried by the client; a lasting one ends above.
            Err(_) => continue,
        };
        last = Instant::now();
        let (partition, offset) = (message.partition(), message.offset());
        let raw = raw(&message);
        check(raw.key.as_deref(), &raw.headers, &raw.value);
        take(raw);
        ends.retain(|(id, high)| *id != partition || offset + 1 < *high);
    }
}

fn raw(message: &BorrowedMessage<'_>) -> Raw {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
        (
            header.key.to_owned(),
            header.value.unwrap_or_default().to_vec(),
        )
    };
    Raw {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        headers: headers.map(header).collect(),
    }
}

/// The number that a value tells, if it is of one that was sent.
fn number(log: &Log, value: &Value) -> Option<u64> {
    let user = value.get("new_user_ids")?.get(0)?.as_str()?;
    let number: u64 = user.strip_prefix('n')?.split('-').next()?.parse().ok()?;
    let is_ours = user == marker(log.plan.seed, number) && number < log.sent.len() as u64;
    is_ours.then_some(number)
}

fn found(raw: &Raw, number: Option<u64>, altered: Option<String>) -> Found {
    Found {
        partition: raw.partition,
        offset: raw.offset,
        number,
        altered,
    }
}

fn header(raw: &Raw, name: &str) -> String {
    let header = raw.headers.iter().find(|(key, _)| key == name);
    String::from_utf8_lossy(header.map_or(&[][..], |(_, value)| value)).into_owned()
}

pub(super) fn judge_event(log: &Log, raw: &Raw) -> Found {
    let text = |name: &str| header(raw, name);
    judge_value(log, raw, |sent, event_id| {
        vec![
            ("timestamp", raw.timestamp != sent.timestamp as i64),
            (
                "ce_id",
                event_id != Some(text("ce_id").as_str()) || text("ce_id").len() != 36,
            ),
            ("ce_subject", text("ce_subject") != group_name(sent.group)),
            (
                "ce_type",
                text("ce_type") != "com.zegocloud.zim.group.joined.v1",
            ),
        ]
    })
}

/// A record with the value of an event, in its topic or in a dead letter, and what else must not be
/// so of it.
fn judge_value(
    log: &Log,
    raw: &Raw,
    more: impl FnOnce(&Sent, Option<&str>) -> Vec<(&'static str, bool)>,
) -> Found {
    let Ok(mut value) = serde_json::from_slice::<Value>(&raw.value) else {
        return found(raw, None, Some("no JSON".to_owned()));
    };
    let Some(number) = number(log, &value) else {
        return found(raw, None, None);
    };
    let sent = &log.sent[number as usize];
    let group = group_name(sent.group);
    let fields = value.as_object_mut().expect("it has users");
    let event_id = fields.remove("event_id").unwrap_or_default();
    let received_at = fields.remove("received_at").and_then(|time| time.as_u64());
    let mut differs = vec![
        (
            "value",
            value != log.plan.value(number, &group, sent.timestamp),
        ),
        (
            "received_at",
            received_at.is_none_or(|time| time + 60_000 < sent.timestamp),
        ),
        ("key", raw.key.as_deref() != Some(group.as_bytes())),
        ("dead", log.plan.is_dead(number)),
    ];
    differs.extend(more(sent, event_id.as_str()));
    let altered = differs.iter().find(|(_, differs)| *differs);
    found(
        raw,
        Some(number),
        altered.map(|(what, _)| (*what).to_owned()),
    )
}

pub(super) fn judge_dead_letter(log: &Log, raw: &Raw) -> Found {
    if header(raw, "dead_letter_reason") == "rejected_by_kafka" {
        // One that Kafka did not take.
        return judge_value(log, raw, |_, _| Vec::new());
    }
    let value: Value = serde_json::from_slice(&raw.value).unwrap_or_default();
    let Some(number) = number(log, &value) else {
        return found(raw, None, None);
    };
    let sent = &log.sent[number as usize];
    let group = group_name(sent.group);
    let reason = raw
        .headers
        .iter()
        .find(|(key, _)| key == "dead_letter_reason");
    let differs = [
        (
            "body",
            raw.value != log.plan.body(number, &group, sent.timestamp),
        ),
        ("key", raw.key.as_deref() != Some(group.as_bytes())),
        (
            "reason",
            reason.is_none_or(|(_, value)| value != b"invalid_event"),
        ),
        ("alive", !log.plan.is_dead(number)),
    ];
    let altered = differs.iter().find(|(_, differs)| *differs);
    found(
        raw,
        Some(number),
        altered.map(|(what, _)| (*what).to_owned()),
    )
}
