//! Every fixture over HTTP, to the record or the dead letter that a subscriber reads.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::support::app::{Answer, App, callback};
use crate::support::ids;
use crate::support::kafka::TestRecord;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/callbacks");

/// What signed dead letters among the fixtures have for a timestamp.
const SIGNED_AT: &str = "1757577600123";

#[derive(Clone, Deserialize)]
struct Fixture {
    file: String,
    expect: Value,
}

/// A fixture, how it was sent, and what was answered.
struct Posted {
    fixture: Fixture,
    body: Vec<u8>,
    content_type: Option<&'static str>,
    answer: Answer,
    before: i64,
    after: i64,
}

fn index() -> Vec<Fixture> {
    let text = include_str!("../fixtures/callbacks/index.json");
    serde_json::from_str(text).expect("the index")
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(elapsed.expect("a clock").as_millis()).expect("a date")
}

async fn post(app: &App, fixture: Fixture, content_type: Option<&'static str>) -> Posted {
    let body = std::fs::read(Path::new(FOLDER).join(&fixture.file)).expect(&fixture.file);
    let headers: Vec<_> = content_type
        .iter()
        .map(|text| ("content-type", *text))
        .collect();
    let before = now();
    let answer = app.post_with(&headers, body.clone()).await;
    let after = now();
    Posted {
        fixture,
        body,
        content_type,
        answer,
        before,
        after,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_is_answered_and_published_as_the_index_states() {
    let app = App::embedded(|settings| settings);
    // Content-Type decides nothing: each form of body comes with each of these, and with none.
    let content_types = [
        Some("application/json"),
        None,
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; charset=utf-16"),
    ];
    let mut posted = Vec::new();
    for (fixture, content_type) in index().into_iter().zip(content_types.into_iter().cycle()) {
        posted.push(post(&app, fixture, content_type).await);
    }
    let (mut records, mut letters) = (Vec::new(), Vec::new());
    for posted in posted {
        check_answer(&posted);
        if posted.fixture.expect.get("record").is_some() {
            records.push(posted);
        } else if posted.fixture.expect.get("dead_letter").is_some() {
            letters.push(posted);
        }
    }
    assert!(!records.is_empty() && !letters.is_empty());
    let mut found = by_id(app.records(records.len()).await, "ce_id");
    for posted in records {
        check_record(&posted, &take(&mut found, &posted));
    }
    assert!(
        found.values().all(Vec::is_empty),
        "nothing else is published"
    );
    let mut found = by_id(app.dead_letters(letters.len()).await, "event_id");
    for posted in letters {
        check_dead_letter(&posted, &take(&mut found, &posted));
    }
    assert!(
        found.values().all(Vec::is_empty),
        "nothing else is a dead letter"
    );
    app.stop().await.expect("it stops in order");
}

/// Fixtures of equal content have an equal id; each took one record.
fn by_id(records: Vec<TestRecord>, header: &str) -> HashMap<String, Vec<TestRecord>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for record in records {
        let id = record.header(header).expect("every record has its id");
        let id = String::from_utf8(id.to_vec()).expect("an id is text");
        found.entry(id).or_default().insert(0, record);
    }
    found
}

fn take(found: &mut HashMap<String, Vec<TestRecord>>, posted: &Posted) -> TestRecord {
    let answer = posted.answer.json();
    let id = answer["event_id"].as_str().expect("a 200 names its event");
    let record = found.get_mut(id).and_then(Vec::pop);
    record.unwrap_or_else(|| panic!("{}: there is no record {id}", posted.fixture.file))
}

fn check_answer(posted: &Posted) {
    let Posted {
        fixture, answer, ..
    } = posted;
    let (file, expect) = (&fixture.file, &fixture.expect);
    assert_eq!(expect["status"], answer.status.as_u16(), "{file}");
    let json = answer.json();
    if answer.status != StatusCode::OK {
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{file}"
        );
        assert_eq!(json["status"], expect["status"], "{file}");
        return;
    }
    assert_eq!(answer.header("content-type"), "application/json", "{file}");
    if expect["passed"] == true {
        assert_eq!(json, json!({"result": 0}), "{file}");
        return;
    }
    let status = if expect.get("record").is_some() {
        "published"
    } else {
        "dead_lettered"
    };
    // The id's value is checked against the record, which is looked up by it.
    assert_eq!(
        json,
        json!({"status": status, "event_id": json["event_id"]}),
        "{file}"
    );
}

/// A record's value, closed: nothing else may be in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordValue {
    event_id: String,
    event: String,
    appid: String,
    group_id: String,
    join_type: String,
    operator_account: Option<String>,
    new_user_ids: Vec<String>,
    timestamp: i64,
    received_at: i64,
    extra: Option<BTreeMap<String, Box<RawValue>>>,
}

fn check_record(posted: &Posted, record: &TestRecord) {
    let (file, expect) = (&posted.fixture.file, &posted.fixture.expect["record"]);
    let value: RecordValue = serde_json::from_slice(&record.value).expect(file);
    let event_id = ids::of_record(&json!([
        value.appid,
        "group_join",
        value.group_id,
        value.join_type,
        value.operator_account,
        value.new_user_ids,
        value.timestamp,
    ]));
    assert_eq!(
        (value.event_id.as_str(), value.event.as_str()),
        (&*event_id, "group_join"),
        "{file}"
    );
    assert_eq!(
        json!([
            value.appid,
            value.group_id,
            value.join_type,
            value.operator_account,
            value.new_user_ids,
            value.timestamp,
        ]),
        json!([
            expect["appid"],
            expect["group_id"],
            expect["join_type"],
            expect["operator_account"],
            expect["new_user_ids"],
            expect["timestamp"],
        ]),
        "{file}"
    );
    assert!(
        (posted.before..=posted.after).contains(&value.received_at),
        "{file}"
    );
    assert_eq!(
        record.key.as_deref(),
        Some(value.group_id.as_bytes()),
        "{file}"
    );
    assert_eq!(record.timestamp, value.timestamp, "{file}");
    let time = Timestamp::from_millisecond(value.timestamp).expect("a date");
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    check_headers(
        file,
        record,
        &[
            ("ce_specversion", "1.0"),
            ("ce_id", &event_id),
            ("ce_type", "com.zegocloud.zim.group.joined.v1"),
            // Every fixture is application 1's; what needs encoding has a test of its own.
            ("ce_source", "/zim/apps/1"),
            ("ce_subject", &value.group_id),
            ("ce_time", &time),
            ("ce_dataschema", "urn:zim2kafka:schema:group-joined:v1"),
            ("content-type", "application/json"),
        ],
    );
    check_extra(file, value.extra, expect);
}

fn check_extra(file: &str, extra: Option<BTreeMap<String, Box<RawValue>>>, expect: &Value) {
    assert!(
        extra.as_ref().is_none_or(|extra| !extra.is_empty()),
        "{file}: absent where empty"
    );
    let extra = extra.unwrap_or_default();
    let of = |name: &str| expect[name].as_object().cloned().unwrap_or_default();
    let (values, texts): (Map<_, _>, Map<_, _>) = (of("extra"), of("extra_text"));
    let mut names: Vec<_> = values.keys().chain(texts.keys()).collect();
    names.sort();
    assert_eq!(extra.keys().collect::<Vec<_>>(), names, "{file}");
    for (name, found) in &extra {
        match texts.get(name) {
            Some(text) => assert_eq!(text, found.get(), "{file}: {name}"),
            None => {
                let found: Value = serde_json::from_str(found.get()).expect(file);
                assert_eq!(Some(&found), values.get(name), "{file}: {name}");
            }
        }
    }
}

fn check_dead_letter(posted: &Posted, letter: &TestRecord) {
    let (file, expect) = (&posted.fixture.file, &posted.fixture.expect["dead_letter"]);
    assert_eq!(letter.value, posted.body, "{file}");
    let key = letter
        .key
        .as_deref()
        .map(|key| str::from_utf8(key).expect("text"));
    assert_eq!(key, expect["key"].as_str(), "{file}");
    assert!(
        (posted.before..=posted.after).contains(&letter.timestamp),
        "{file}"
    );
    let detail = letter.header("dead_letter_detail").unwrap_or_default();
    let detail = str::from_utf8(detail).expect("text");
    assert!(detail.len() > 10, "{file}: {detail:?} tells people nothing");
    let event_id = ids::of_dead_letter(&posted.body);
    let received_at = letter.timestamp.to_string();
    let mut headers = vec![
        ("event_id", event_id.as_str()),
        (
            "dead_letter_reason",
            expect["reason"].as_str().expect("a reason"),
        ),
        ("dead_letter_detail", detail),
        ("callback_timestamp", SIGNED_AT),
        ("received_at", &received_at),
    ];
    headers.extend(posted.content_type.map(|text| ("content-type", text)));
    check_headers(file, letter, &headers);
}

/// All of these, each once, and no other; their order says nothing.
#[track_caller]
fn check_headers(file: &str, record: &TestRecord, expected: &[(&str, &str)]) {
    let mut found: Vec<(&str, &[u8])> = (record.headers.iter())
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut expected: Vec<(&str, &[u8])> = (expected.iter())
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{file}");
}

#[tokio::test]
async fn a_dead_letter_keeps_a_content_type_that_is_not_text() {
    let app = App::embedded(|settings| settings);
    let body = callback(json!({"event": "group_exit"}));
    let uri = format!("http://{}/callbacks/zim", app.callbacks);
    let request = hyper::Request::post(uri).header("content-type", b"text/\xff".as_slice());
    let request = request.body(body.into()).expect("valid");
    assert_eq!(app.ask(request).await.status, StatusCode::OK);
    let letters = app.dead_letters(1).await;
    let [letter] = letters.as_slice() else {
        panic!("one dead letter");
    };
    assert_eq!(letter.header("content-type"), Some(b"text/\xff".as_slice()));
}
