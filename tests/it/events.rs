//! All events over HTTP to a real Kafka: every vector of `fixtures/zim-events` in the topic of its
//! family, as the index states.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use zim2kafka::event::{EVENTS, FieldSpec, Presence, Routes, Type};

use crate::support::app::{Answer, PATIENCE, Settings};
use crate::support::ids;
use crate::support::kafka::{Kafka, TestRecord, kafka};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/zim-events");

/// The families. Each has a topic of its own.
const FAMILIES: [&str; 5] = ["group", "room", "message", "call", "user"];

#[derive(Deserialize)]
struct Index {
    events: Vec<OfEvent>,
}

#[derive(Deserialize)]
struct OfEvent {
    family: String,
    ce_type: Option<String>,
    dataschema: Option<String>,
    example: Vector,
    variants: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    file: String,
    outcome: String,
    detail: Option<String>,
    signed: Signed,
    key: Option<Key>,
    record: Option<Box<RawValue>>,
    event_id: Option<Id>,
}

#[derive(Deserialize)]
struct Signed {
    timestamp: String,
}

#[derive(Deserialize)]
struct Key {
    value: String,
}

#[derive(Deserialize)]
struct Id {
    uuid: String,
}

/// A vector that was posted.
struct Posted<'a> {
    of_event: &'a OfEvent,
    vector: &'a Vector,
    body: Vec<u8>,
    answer: Answer,
}

fn index() -> Index {
    let text = include_str!("../fixtures/zim-events/index.json");
    serde_json::from_str(text).expect("the index")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vector_is_answered_and_published_in_the_topic_of_its_family() {
    let Some(kafka) = kafka() else { return };
    let topics: BTreeMap<&str, String> = FAMILIES
        .map(|family| (family, kafka.unique_topic(family)))
        .into();
    let dead = kafka.unique_topic("dead");
    for topic in topics.values().chain([&dead]) {
        kafka.create_topic(topic, 12, &[]);
    }
    let routes = EVENTS.iter().map(|kind| {
        let family: &str = kind.family.into();
        (kind.name, topics[family].as_str())
    });
    let mut settings = Settings::on(kafka.brokers(), "", &dead).secrets("1234567890=secret");
    settings.0.kafka.routes = Routes::new(routes, &dead);
    let app = settings.start();
    app.ready().await;

    let index = index();
    let mut posted = Vec::new();
    for of_event in &index.events {
        for vector in [&of_event.example].into_iter().chain(&of_event.variants) {
            let body = std::fs::read(Path::new(FOLDER).join(&vector.file)).expect("the body");
            let answer = app.post(body.clone()).await;
            posted.push(Posted {
                of_event,
                vector,
                body,
                answer,
            });
        }
    }
    assert_eq!(posted.len(), 86);
    posted.iter().for_each(check_answer);
    for (family, topic) in &topics {
        let expected: Vec<_> = (posted.iter())
            .filter(|posted| posted.vector.outcome == "published")
            .filter(|posted| posted.of_event.family == *family)
            .collect();
        check_topic(&read(kafka, topic, expected.len()).await, &expected);
    }
    let letters: Vec<_> = (posted.iter())
        .filter(|posted| is_dead_letter(posted.vector))
        .collect();
    check_dead_letters(&read(kafka, &dead, letters.len()).await, &letters);
    app.stop().await.expect("it stops in order");
}

fn is_dead_letter(vector: &Vector) -> bool {
    ["invalid_event", "unsupported_event"].contains(&vector.outcome.as_str())
}

/// All records in a topic, once the expected number is there.
async fn read(kafka: &Kafka, topic: &str, count: usize) -> Vec<TestRecord> {
    assert!(count >= 4, "{count} in {topic}");
    let (kafka, topic) = (Kafka::at(kafka.brokers()), topic.to_owned());
    let records = tokio::task::spawn_blocking(move || {
        let mut records = kafka.read_until(&topic, count, PATIENCE);
        assert_eq!(records.len(), count, "{topic}");
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    });
    records.await.expect("it reads")
}

fn check_answer(posted: &Posted<'_>) {
    let Posted {
        vector,
        body,
        answer,
        ..
    } = posted;
    let file = &vector.file;
    let expected = match vector.outcome.as_str() {
        "malformed" => {
            assert_eq!(answer.status.as_u16(), 400, "{file}");
            return;
        }
        "answered" => json!({"result": 0}),
        "published" => {
            let id = &vector.event_id.as_ref().expect("it has an id").uuid;
            json!({"status": "published", "event_id": id})
        }
        _ => json!({"status": "dead_lettered", "event_id": ids::of_dead_letter(body)}),
    };
    assert_eq!(answer.status.as_u16(), 200, "{file}");
    assert_eq!(answer.json(), expected, "{file}");
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

/// Each record is that of its vector, and the records of a key are in the order of their callbacks.
fn check_topic(records: &[TestRecord], expected: &[&Posted<'_>]) {
    let mut of_key: HashMap<&str, Vec<&TestRecord>> = HashMap::new();
    for record in records {
        let key = text(record.key.as_deref().expect("every event has a key"));
        of_key.entry(key).or_default().push(record);
    }
    let mut places: HashMap<&str, usize> = HashMap::new();
    for posted in expected {
        let file = &posted.vector.file;
        let key = posted
            .vector
            .key
            .as_ref()
            .expect("it has a key")
            .value
            .as_str();
        let place = places.entry(key).or_default();
        let record = of_key.get(key).and_then(|records| records.get(*place));
        let record = record.unwrap_or_else(|| panic!("{file}: not published with the key {key}"));
        assert_eq!(record.partition, of_key[key][0].partition, "{file}");
        *place += 1;
        check_record(posted, key, record);
    }
}

fn check_record(posted: &Posted<'_>, key: &str, record: &TestRecord) {
    let Posted {
        of_event, vector, ..
    } = posted;
    let file = &vector.file;
    let expected = vector.record.as_ref().expect("it has a record").get();
    let id = &vector.event_id.as_ref().expect("it has an id").uuid;
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(&record.value).expect("strict parsers read it");
    let event_id = members.remove("event_id").expect("it has an id");
    assert_eq!(event_id.get(), format!("{id:?}"), "{file}");
    let received_at = members.remove("received_at").expect("it has a time");
    assert!(received_at.get() > "1757577600000", "{file}");
    let found = serde_json::to_string(&members).expect("JSON");
    assert_eq!(normal(&found), normal(expected), "{file}");
    // The tolerance is off, so the own time of a message counts.
    let time = match members.get("msg_time").map(|time| time.get()) {
        None | Some("null") => members["timestamp"].get(),
        Some(time) => time,
    };
    assert_eq!(record.timestamp.to_string(), time, "{file}");
    let time = jiff::Timestamp::from_millisecond(record.timestamp).expect("a time");
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    assert_headers(
        file,
        record,
        &[
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_type", of_event.ce_type.as_deref().expect("a type")),
            ("ce_source", "/zim/apps/1234567890"),
            ("ce_subject", key),
            ("ce_time", &time),
            (
                "ce_dataschema",
                of_event.dataschema.as_deref().expect("a schema"),
            ),
            ("content-type", "application/json"),
        ],
    );
}

fn assert_headers(file: &str, record: &TestRecord, expected: &[(&str, &str)]) {
    let found: Vec<_> = (record.headers.iter())
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    assert_eq!(found, expected, "{file}");
}

fn check_dead_letters(letters: &[TestRecord], expected: &[&Posted<'_>]) {
    for posted in expected {
        let file = &posted.vector.file;
        let letter = letters.iter().find(|letter| letter.value == posted.body);
        let letter = letter.unwrap_or_else(|| panic!("{file}: there is no dead letter"));
        assert_eq!(
            letter.key.as_deref().map(text),
            key_of_dead_letter(file),
            "{file}"
        );
        let detail = detail_of_dead_letter(posted.vector);
        let timestamp = match posted.vector.signed.timestamp.as_str() {
            seconds if seconds.len() == 10 => format!("{seconds}000"),
            milliseconds => milliseconds.to_owned(),
        };
        assert_headers(
            file,
            letter,
            &[
                ("event_id", &ids::of_dead_letter(&posted.body)),
                ("dead_letter_reason", &posted.vector.outcome),
                ("dead_letter_detail", detail.as_str()),
                ("callback_timestamp", &timestamp),
                ("received_at", &letter.timestamp.to_string()),
                ("content-type", "application/json"),
            ],
        );
    }
}

/// What the service says of the field that the index names.
fn detail_of_dead_letter(vector: &Vector) -> String {
    let detail = vector.detail.as_deref().expect("it has a detail");
    let event = vector.file.split('.').next().expect("a name");
    if vector.outcome == "unsupported_event" {
        return format!("the event is {event:?}");
    }
    let field = detail.split([' ', '[']).next().expect("a name");
    let kind = EVENTS.iter().find(|kind| kind.name == event);
    let kind = kind.expect("an event");
    let spec = kind.fields.iter().find(|spec| spec.name == field);
    let FieldSpec { of, presence, .. } = spec.expect("a field of the event");
    let problem = match (of, presence) {
        (Type::Id(_), _) if field == "conv_id" => "is missing or empty, and conv_type is not 0",
        (Type::Id(_), _) => "is not a string of at least one character",
        (Type::ServerId, _) => "is not a string of at least one character, nor a whole number",
        (Type::Text, _) => "is not a string",
        (Type::Users { .. }, Presence::Required) => {
            "is not a list of user IDs with at least one in it"
        }
        (Type::Users { .. }, _) => "is not a list of user IDs",
        (Type::OneOf([one, other]), _) => &format!("is neither {one:?} nor {other:?}"),
        (other, _) => panic!("{}: {other:?}", vector.file),
    };
    format!("{field} {problem}")
}

/// The key of the event, as far as it can be read. RTC's `room_create` is of no family, and has no
/// group.
fn key_of_dead_letter(file: &str) -> Option<&'static str> {
    match file {
        "group_exit.no-users.json"
        | "group_exit.unknown-type.json"
        | "group_destroy.users-not-strings.json"
        | "send_msg.body-object.json" => Some("grp-7f3a"),
        "room_enter.no-operator.json" | "room_exit.users-a-string.json" => Some("room-42"),
        "call_create.cancel-body.json"
        | "call_invite.no-users.json"
        | "call_timeout.no-users.json"
        | "call_accept.number-user.json"
        | "call_reject.no-user.json" => Some("3501761173612493301"),
        _ => None,
    }
}

/// A JSON text with its members in order of their names and every number as it was written.
fn normal(json: &str) -> String {
    match json.as_bytes() {
        [b'{', ..] => {
            let members: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(json).expect("an object");
            let members = members.iter();
            let members = members.map(|(name, value)| format!("{name:?}:{}", normal(value.get())));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        [b'[', ..] => {
            let elements: Vec<Box<RawValue>> = serde_json::from_str(json).expect("an array");
            let elements = elements.iter().map(|value| normal(value.get()));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        [b'"', ..] => {
            let text: String = serde_json::from_str(json).expect("a string");
            format!("{text:?}")
        }
        _ => json.to_owned(),
    }
}
