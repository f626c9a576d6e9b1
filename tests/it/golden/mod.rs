//! Golden records: with nothing configured, every byte of a record of `group_join` and of a dead
//! letter is as it was before other events were published.

mod library;
mod service;
mod spool;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;

use crate::support::app::PATIENCE;
use crate::support::kafka::{Kafka, TestRecord};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

const TOPIC: &str = "zim.group-joined";
const DEAD_LETTER_TOPIC: &str = "zim.dead-letter";

/// A secret for one application, and one for all others.
const SECRETS: &str = "1=secret,*=secret";

/// When each callback was received, by the golden records.
const RECEIVED_AT: i64 = 1_757_577_601_000;

/// A callback, and its record or the status of its refusal. `tests/fixtures/golden/README.md`
/// describes the members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    body: Option<String>,
    hex: Option<String>,
    file: Option<String>,
    #[serde(default = "json_type")]
    content_type: Option<String>,
    #[serde(default)]
    reused: bool,
    rejected: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    passed: bool,
    record: Option<Golden>,
}

/// A whole record of Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    topic: String,
    key: Option<String>,
    timestamp: i64,
    /// In order, each as `name: value`.
    headers: Vec<String>,
    /// `None`: the body.
    value: Option<String>,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    topic: String,
    key: Option<Vec<u8>>,
    timestamp: i64,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
}

fn json_type() -> Option<String> {
    Some("application/json".to_owned())
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../fixtures/golden/records.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("the golden records");
    assert!(cases.len() > 650, "{} cases", cases.len());
    cases
}

/// Writes `{{x*3}}` as `xxx`.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{{") else {
        return text.to_owned();
    };
    let mark = rest.split_once("}}").and_then(|(mark, after)| {
        let (piece, count) = mark.rsplit_once('*')?;
        Some((piece.repeat(count.parse().ok()?), after))
    });
    match mark {
        Some((run, after)) => format!("{before}{run}{}", expanded(after)),
        None => format!("{before}{{{{{}", expanded(rest)),
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        match (&self.body, &self.hex, &self.file) {
            (Some(text), None, None) => expanded(text).into_bytes(),
            (None, Some(hex), None) => hex::decode(hex).expect("hex"),
            (None, None, Some(file)) => {
                std::fs::read(Path::new(FIXTURES).join(file)).expect("the fixture")
            }
            _ => panic!("{}: one body", self.name),
        }
    }

    /// The golden record, if there is one.
    fn expected(&self) -> Option<Found> {
        let golden = self.record.as_ref()?;
        let headers = golden.headers.iter().map(|header| {
            let (name, value) = header.split_once(": ").expect("a name and a value");
            (name.to_owned(), expanded(value).into_bytes())
        });
        let key = golden.key.as_ref().map(|key| expanded(key).into_bytes());
        Some(Found {
            topic: golden.topic.clone(),
            key,
            timestamp: golden.timestamp,
            headers: headers.collect(),
            value: match &golden.value {
                Some(text) => expanded(text).into_bytes(),
                None => self.bytes(),
            },
        })
    }
}

/// The differences, one a line, and each short.
fn differences(expected: &Found, found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, expected: &[u8], found: &[u8]| {
        if expected != found {
            let at = expected
                .iter()
                .zip(found)
                .take_while(|(one, other)| one == other);
            let at = at.count();
            let around = |bytes: &[u8]| {
                let piece =
                    &bytes[at.saturating_sub(40).min(bytes.len())..bytes.len().min(at + 80)];
                String::from_utf8_lossy(piece).into_owned()
            };
            lines.push(format!(
                "  {what} differs at byte {at}:\n    expected …{:?}\n    found    …{:?}",
                around(expected),
                around(found)
            ));
        }
    };
    compare("topic", expected.topic.as_bytes(), found.topic.as_bytes());
    let or_none = |key: &Option<Vec<u8>>| key.clone().unwrap_or_else(|| b"(none)".to_vec());
    compare("key", &or_none(&expected.key), &or_none(&found.key));
    let timestamps = [expected, found].map(|record| record.timestamp.to_string());
    compare(
        "timestamp",
        timestamps[0].as_bytes(),
        timestamps[1].as_bytes(),
    );
    let names = [expected, found].map(|record| {
        let names: Vec<_> = record
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(", ")
    });
    compare("list of headers", names[0].as_bytes(), names[1].as_bytes());
    for ((name, expected), (_, found)) in expected.headers.iter().zip(&found.headers) {
        compare(&format!("header {name}"), expected, found);
    }
    compare("value", &expected.value, &found.value);
    assert_eq!(
        lines.is_empty(),
        expected == found,
        "every difference is described"
    );
    lines
}

#[track_caller]
fn report(differences: &[String], of: usize) {
    assert!(
        differences.is_empty(),
        "{} of {of} golden records differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Replaces the time of arrival, which differs with each run, by that of the golden records.
fn with_golden_arrival(topic: &str, record: TestRecord, sent: RangeInclusive<i64>) -> Found {
    let TestRecord {
        key,
        mut timestamp,
        mut headers,
        mut value,
        ..
    } = record;
    let golden = RECEIVED_AT.to_string();
    let is_event = headers.iter().any(|(name, _)| name == "ce_id");
    if is_event {
        let text = String::from_utf8(value).expect("UTF-8");
        let (before, rest) = text.split_once("\"received_at\":").expect("it is there");
        let digits = rest.find(|character: char| !character.is_ascii_digit());
        let (received_at, after) = rest.split_at(digits.expect("the object ends"));
        let received_at = received_at.parse().expect("a number");
        assert!(sent.contains(&received_at), "{received_at}");
        value = format!("{before}\"received_at\":{golden}{after}").into();
    } else {
        assert!(sent.contains(&timestamp), "{timestamp}");
        let header = headers.iter_mut().find(|(name, _)| name == "received_at");
        let (_, header) = header.expect("every dead letter has it");
        assert_eq!(*header, timestamp.to_string().into_bytes());
        *header = golden.into_bytes();
        timestamp = RECEIVED_AT;
    }
    Found {
        topic: topic.to_owned(),
        key,
        timestamp,
        headers,
        value,
    }
}

/// Everything in a topic, by the event's id and in order.
fn by_id(kafka: &Kafka, topic: &str, count: usize) -> HashMap<String, Vec<TestRecord>> {
    let mut records = kafka.read_until(topic, count, PATIENCE);
    assert_eq!(records.len(), count, "{topic}");
    records.sort_by_key(|record| (record.partition, record.offset));
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for record in records.into_iter().rev() {
        let id = record.header("ce_id").or_else(|| record.header("event_id"));
        let id = String::from_utf8(id.expect("an id").to_vec()).expect("text");
        found.entry(id).or_default().push(record);
    }
    found
}
