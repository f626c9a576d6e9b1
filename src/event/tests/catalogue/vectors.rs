//! The bodies of `tests/fixtures/zim-events`, with what the index states of each.

use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::event;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/zim-events");

#[derive(Deserialize)]
struct Index {
    events: Vec<OfEvent>,
}

#[derive(Deserialize)]
struct OfEvent {
    name: String,
    ce_type: Option<String>,
    dataschema: Option<String>,
    example: Vector,
    variants: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    file: String,
    outcome: String,
    event: Option<String>,
    key: Option<Key>,
    record: Option<Box<RawValue>>,
    event_id: Option<Id>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    value: String,
}

#[derive(Deserialize)]
struct Id {
    text: String,
    uuid: Uuid,
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
        [b'"', ..] => format!("{:?}", text_of(json)),
        _ => json.to_owned(),
    }
}

/// The same without these members.
fn normal_without(members: &BTreeMap<String, Box<RawValue>>, names: &[&str]) -> String {
    let mut members = members.clone();
    members.retain(|name, _| !names.contains(&name.as_str()));
    normal(&serde_json::to_string(&members).expect("JSON"))
}

/// What becomes of a vector.
#[derive(Debug)]
enum Outcome {
    Malformed,
    Answered,
    Published(Made),
    DeadLetter(Unpublishable, Record),
}

fn outcome(body: Vec<u8>) -> Outcome {
    let raw = RawCallback {
        body: body.into(),
        content_type: None,
        trace: None,
        received_at: RECEIVED_AT,
    };
    let Ok(json) = raw.json() else {
        return Outcome::Malformed;
    };
    let Ok(unverified) = json.decode() else {
        return Outcome::Malformed;
    };
    let callback = Secrets::parse_list("1234567890=secret")
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .expect("every vector is signed");
    if event::name(&callback).as_deref() == Some(event::BEFORE_SEND_MESSAGE) {
        return Outcome::Answered;
    }
    let kind = kind_of(&callback);
    let record = kind
        .clone()
        .and_then(|kind| kind.record(&callback, &open_policy()));
    match record {
        Ok(record) => {
            let members = serde_json::from_slice(&record.value).expect("strict parsers read it");
            Outcome::Published(Made { record, members })
        }
        Err(why) => {
            let letter = Record::dead_letter(&callback, kind.ok(), &why);
            Outcome::DeadLetter(why, letter)
        }
    }
}

/// The records of all vectors that are published.
pub(super) fn records() -> Vec<Record> {
    let files = std::fs::read_dir(FOLDER).expect("it can be listed");
    let paths = files.map(|file| file.expect("it can be read").path());
    let bodies = paths.filter(|path| !path.ends_with("index.json"));
    let records = bodies.filter_map(|path| match outcome(std::fs::read(path).expect("a body")) {
        Outcome::Published(made) => Some(made.record),
        _ => None,
    });
    records.collect()
}

#[test]
fn every_vector_becomes_what_the_index_states() {
    let text = include_str!("../../../../tests/fixtures/zim-events/index.json");
    let index: Index = serde_json::from_str(text).expect("the index");
    let mut count = 0;
    for of_event in &index.events {
        for vector in [&of_event.example].into_iter().chain(&of_event.variants) {
            let body = std::fs::read(Path::new(FOLDER).join(&vector.file)).expect("the body");
            check(of_event, vector, &body);
            count += 1;
        }
    }
    assert_eq!(count, 86);
    let files = std::fs::read_dir(FOLDER).expect("it can be listed").count();
    assert_eq!(files, count + 1, "every body and the index");
}

fn check(of_event: &OfEvent, vector: &Vector, body: &[u8]) {
    let file = &vector.file;
    match (vector.outcome.as_str(), outcome(body.to_owned())) {
        ("malformed", Outcome::Malformed) | ("answered", Outcome::Answered) => {}
        ("published", Outcome::Published(made)) => check_record(of_event, vector, &made),
        ("invalid_event" | "unsupported_event", Outcome::DeadLetter(why, letter)) => {
            assert_eq!(<&str>::from(why.reason), vector.outcome, "{file}");
            // The index names the field; the service has its own wording.
            let detail = vector.detail.as_deref().expect("it has a detail");
            let subject = detail.split([' ', '[']).next().unwrap_or_default();
            assert!(why.detail.contains(subject), "{file}: {detail}: {why:?}");
            assert_eq!(letter.value, body, "{file}");
            assert_eq!(
                letter.key.as_deref(),
                key_of(file).map(str::as_bytes),
                "{file}"
            );
        }
        (expected, found) => panic!("{file}: not {expected}: {found:?}"),
    }
}

fn check_record(of_event: &OfEvent, vector: &Vector, made: &Made) {
    let file = &vector.file;
    let expected = vector.record.as_ref().expect("it has a record").get();
    let found = normal_without(&made.members, &["event_id", "received_at"]);
    assert_eq!(found, normal(expected), "{file}");
    let Id { text, uuid } = vector.event_id.as_ref().expect("it has an id");
    assert_eq!(id_of(text), *uuid, "{file}: the index");
    assert_eq!(canonical(text), *text, "{file}: the index is canonical");
    assert_eq!(made.record.event_id, *uuid, "{file}: {text}");
    let key = &vector.key.as_ref().expect("it has a key").value;
    assert_eq!(made.key(), key, "{file}");
    let event = vector.event.as_deref().expect("it has an event");
    assert_eq!(event, of_event.name, "{file}");
    assert_eq!(made.record.event.as_deref(), Some(event), "{file}");
    let time = match made.members.get("msg_time").map(|time| time.get()) {
        None | Some("null") => made.get("timestamp"),
        Some(time) => time,
    };
    assert_eq!(made.record.timestamp.to_string(), time, "{file}");
    let source = "/zim/apps/1234567890";
    let time = jiff::Timestamp::from_millisecond(made.record.timestamp).expect("a time");
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    let headers: Vec<(&str, &str)> = (made.record.headers.iter())
        .map(|(name, value)| (name.as_ref(), str::from_utf8(value).expect("text")))
        .collect();
    assert_eq!(
        headers,
        [
            ("ce_specversion", "1.0"),
            ("ce_id", &uuid.to_string()),
            ("ce_type", of_event.ce_type.as_deref().expect("a type")),
            ("ce_source", source),
            ("ce_subject", key),
            ("ce_time", &time),
            (
                "ce_dataschema",
                of_event.dataschema.as_deref().expect("a schema")
            ),
            ("content-type", "application/json"),
        ],
        "{file}"
    );
}

/// The keys of dead letters, if the family has a topic: those of the events, as far as they can be
/// read. RTC's `room_create` is of no family; it has no group.
fn key_of(file: &str) -> Option<&'static str> {
    match file {
        "user_action.no-user.json" => None,
        "group_create.room-body.json" | "group_join.number-id.json" => None,
        "group_exit.no-users.json" | "group_exit.unknown-type.json" => Some("grp-7f3a"),
        "group_destroy.users-not-strings.json" => Some("grp-7f3a"),
        "room_create.rtc.json" | "room_create.no-room.json" | "room_destroy.no-room.json" => None,
        "room_enter.no-operator.json" | "room_exit.users-a-string.json" => Some("room-42"),
        // A group without its ID.
        "send_msg.no-conversation.json" => None,
        "send_msg.body-object.json" => Some("grp-7f3a"),
        // One to one, by an unknown sender.
        "bot_msg.no-sender.json" => None,
        "call_create.cancel-body.json" => Some("3501761173612493301"),
        "call_invite.no-users.json" | "call_timeout.no-users.json" => Some("3501761173612493301"),
        "call_cancel.no-call.json" => None,
        "call_accept.number-user.json" | "call_reject.no-user.json" => Some("3501761173612493301"),
        other => panic!("{other}: which key?"),
    }
}
