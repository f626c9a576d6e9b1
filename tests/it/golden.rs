//! Golden records: with nothing configured, every byte of a record of `group_join` and of a dead
//! letter is as it was before other events were published.

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, VerifiedCallback, sign};
use zim2kafka::event::{self, Record};

use crate::support::app::{App, PATIENCE};
use crate::support::ids;
use crate::support::kafka::{Kafka, TestRecord};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

const TOPIC: &str = "zim.group-joined";
const DEAD_LETTER_TOPIC: &str = "zim.dead-letter";

/// One application of its own, and all others.
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
    let text = include_str!("../fixtures/golden/records.json");
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

/// The record of a callback if nothing is configured.
fn record_of<'a>(callback: &'a VerifiedCallback<'a>) -> Record {
    event::read(callback)
        .and_then(|event| event.record())
        .unwrap_or_else(|why| Record::dead_letter(callback, &why))
}

/// What the library makes of a case, or the status of the refusal.
fn made(case: &Case) -> Result<Found, u16> {
    let raw = RawCallback {
        body: case.bytes().into(),
        content_type: case.content_type.clone().map(Bytes::from),
        received_at: RECEIVED_AT,
    };
    let json = raw.json().map_err(|_| 400_u16)?;
    let unverified = json.decode().map_err(|_| 400_u16)?;
    let callback = Secrets::parse_list(SECRETS)
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .map_err(|_| 401_u16)?;
    let mut record = record_of(&callback);
    if case.reused {
        record = record.marked_as_reuse();
    }
    if let Some(detail) = &case.rejected {
        record = record.rejected(detail);
    }
    let headers = record.headers.iter();
    Ok(Found {
        topic: match record.is_dead_letter() {
            true => DEAD_LETTER_TOPIC.to_owned(),
            false => TOPIC.to_owned(),
        },
        key: record.key.as_deref().map(<[u8]>::to_vec),
        timestamp: record.timestamp,
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_vec()))
            .collect(),
        value: record.value.to_vec(),
    })
}

#[test]
fn every_golden_record_is_made_again_to_the_byte() {
    let cases = cases();
    let mut all = Vec::new();
    for case in &cases {
        // Answered before a record is made.
        if case.passed {
            continue;
        }
        let lines = match (made(case), case.expected()) {
            (Ok(found), Some(expected)) => differences(&expected, &found),
            (Err(status), None) if case.status == Some(status) => Vec::new(),
            (found, expected) => vec![format!(
                "  expected {:?} or status {:?}, found {:?}",
                expected.map(|record| record.topic),
                case.status,
                found.map(|record| record.topic)
            )],
        };
        if !lines.is_empty() {
            all.push(format!("{}:\n{}", case.name, lines.join("\n")));
        }
    }
    report(&all, cases.len());
}

/// Replaces the time of arrival, which differs with each run, by that of the golden records.
fn with_golden_arrival(topic: &str, record: TestRecord, sent: [i64; 2]) -> Found {
    let TestRecord {
        key,
        mut timestamp,
        mut headers,
        mut value,
        ..
    } = record;
    let golden = RECEIVED_AT.to_string();
    if topic == TOPIC {
        let text = String::from_utf8(value).expect("UTF-8");
        let (before, rest) = text.split_once("\"received_at\":").expect("it is there");
        let digits = rest.find(|character: char| !character.is_ascii_digit());
        let (received_at, after) = rest.split_at(digits.expect("the object ends"));
        let received_at = received_at.parse().expect("a number");
        assert!((sent[0]..=sent[1]).contains(&received_at), "{received_at}");
        value = format!("{before}\"received_at\":{golden}{after}").into();
    } else {
        assert!((sent[0]..=sent[1]).contains(&timestamp), "{timestamp}");
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

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(elapsed.expect("a clock").as_millis()).expect("a date")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_nothing_configured_publishes_every_golden_record_to_the_byte() {
    let app = App::embedded(|settings| settings.secrets(SECRETS));
    let cases = cases();
    let mut posted = Vec::new();
    let mut all = Vec::new();
    for case in cases.iter().filter(|case| case.rejected.is_none()) {
        let headers: Vec<_> = (case.content_type.iter())
            .map(|text| ("content-type", text.as_str()))
            .collect();
        let before = now();
        let answer = app.post_with(&headers, case.bytes()).await;
        let sent = [before, now()];
        let status = case.status.unwrap_or(200);
        assert_eq!(answer.status.as_u16(), status, "{}", case.name);
        if case.passed {
            assert_eq!(answer.text(), r#"{"result":0}"#, "{}", case.name);
        }
        let Some(mut expected) = case.expected() else {
            continue;
        };
        // 0 means "now" to librdkafka.
        expected.timestamp = expected.timestamp.max(1);
        let answer = answer.json();
        let word = match expected.topic.as_str() {
            TOPIC => "published",
            _ => "dead_lettered",
        };
        let id = answer["event_id"].clone();
        if answer != json!({"status": word, "event_id": id}) {
            all.push(format!("{}: {answer}", case.name));
            continue;
        }
        let id = id.as_str().expect("an id").to_owned();
        posted.push((case.name.clone(), expected, id, sent));
    }
    report(&all, cases.len());
    let kafka = Kafka::at(app.kafka.brokers());
    let (posted, lines) = tokio::task::spawn_blocking(move || {
        let mut found: HashMap<_, _> = [TOPIC, DEAD_LETTER_TOPIC]
            .into_iter()
            .map(|topic| {
                let in_topic = posted
                    .iter()
                    .filter(|(_, expected, ..)| expected.topic == topic);
                (topic.to_owned(), by_id(&kafka, topic, in_topic.count()))
            })
            .collect();
        let mut lines = Vec::new();
        for (case, expected, id, sent) in &posted {
            let found = found
                .get_mut(&expected.topic)
                .and_then(|found| found.get_mut(id));
            let Some(record) = found.and_then(Vec::pop) else {
                lines.push(format!("{}: there is no record {id}", case));
                continue;
            };
            let record = with_golden_arrival(&expected.topic, record, *sent);
            let differences = differences(expected, &record);
            if !differences.is_empty() {
                lines.push(format!("{}:\n{}", case, differences.join("\n")));
            }
        }
        (posted.len(), lines)
    })
    .await
    .expect("it reads");
    report(&lines, posted);
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn a_stale_callback_is_the_golden_dead_letter() {
    let app = App::embedded(|settings| settings.tolerance(std::time::Duration::from_secs(600)));
    let mut expected = Vec::new();
    for (age, detail) in [
        (3_600_400, "3600 s old"),
        (-3_600_800, "3600 s in the future"),
    ] {
        // A tenth of a second is left for the way to the service.
        let timestamp = now() - age;
        let (timestamp, nonce) = (timestamp.to_string(), rand::random::<u32>().to_string());
        let body = json!({
            "appid": "1",
            "event": "group_join",
            "group_id": "g1",
            "join_type": "Apply",
            "new_user_ids": ["u1"],
            "timestamp": timestamp,
            "nonce": nonce,
            "signature": sign("secret", &timestamp, &nonce).to_hex(),
        });
        let body = body.to_string();
        let answer = app.post(body.clone()).await;
        assert_eq!(answer.json()["status"], "dead_lettered");
        expected.push((timestamp, detail, body));
    }
    for letter in app.dead_letters(expected.len()).await {
        let at = expected
            .iter()
            .position(|(.., body)| body.as_bytes() == letter.value);
        let (timestamp, detail, body) = expected.swap_remove(at.expect("it was sent"));
        assert_eq!(letter.key.as_deref(), Some(b"g1".as_slice()));
        let headers = [
            ("event_id", ids::of_dead_letter(body.as_bytes())),
            ("dead_letter_reason", "stale".to_owned()),
            ("dead_letter_detail", format!("its timestamp is {detail}")),
            ("callback_timestamp", timestamp),
            ("received_at", letter.timestamp.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        let found: Vec<_> = (letter.headers.iter())
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
            .collect();
        assert_eq!(found, headers);
    }
    assert!(expected.is_empty(), "{expected:?}");
    app.stop().await.expect("it stops in order");
}
