//! From a signed callback to a keyed record: freshness, order, and the one question.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::answers::{assert_status, outcome};
use crate::support::app::{App, Settings, callback};
use crate::support::kafka::TestRecord;
use crate::support::partitions::Table;

/// Nobody answers here.
const NO_KAFKA: &str = "127.0.0.1:1";

fn value(record: &TestRecord) -> Value {
    serde_json::from_slice(&record.value).expect("a record is JSON")
}

#[tokio::test]
async fn a_signed_callback_becomes_a_record_keyed_by_its_group() {
    let app = App::embedded(|settings| settings);
    let answer = app.post(callback(json!({"group_id": "g7"}))).await;
    assert_status(&answer, "published");
    let records = app.records(1).await;
    let keys: Vec<_> = records.iter().map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [Some(b"g7".as_slice())]);
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn a_timestamp_of_0_is_published_as_1970() {
    let app = App::embedded(|settings| settings);
    for (group_id, timestamp) in [("seconds", "0000000000"), ("ms", "0000000000000")] {
        let body = callback(json!({"group_id": group_id, "timestamp": timestamp}));
        assert_status(&app.post(body).await, "published");
    }
    for record in app.records(2).await {
        // librdkafka takes 0 for now.
        assert_eq!(record.timestamp, 1, "{record:?}");
        assert_eq!(value(&record)["timestamp"], 0);
        let time = record.header("ce_time");
        assert_eq!(time, Some(b"1970-01-01T00:00:00.000Z".as_slice()));
    }
}

#[tokio::test]
async fn a_callback_outside_the_timestamp_tolerance_is_a_dead_letter() {
    let tolerance = Duration::from_secs(600);
    let app = App::embedded(|settings| settings.tolerance(tolerance));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    // Minutes from the boundary, which a test with a clock in its hands looks at.
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for (group_id, time, status) in [
        ("old", now - minutes(20), "dead_lettered"),
        ("fresh", now - minutes(5), "published"),
        ("a little early", now + minutes(5), "published"),
        ("from the future", now + minutes(20), "dead_lettered"),
    ] {
        let body = callback(json!({"group_id": group_id, "timestamp": time.as_secs()}));
        assert_status(&app.post(body).await, status);
    }
    let letters = app.dead_letters(2).await;
    let mut keys: Vec<_> = letters.iter().map(|letter| letter.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [Some(b"from the future".as_slice()), Some(b"old")]);
    for letter in &letters {
        assert_eq!(
            letter.header("dead_letter_reason"),
            Some(b"stale".as_slice())
        );
    }
    let stale = "zim2kafka_dead_letters_total{reason=\"stale\"}";
    assert_eq!(app.metric(stale).await, 2.0);
}

#[tokio::test]
async fn before_send_msg_is_allowed_at_once_even_without_kafka() {
    let app = Settings::on(NO_KAFKA, "joined", "dead")
        .tolerance(Duration::from_secs(600))
        .start();
    let body = callback(json!({"event": "before_send_msg", "conv_id": "c1"}));
    for _ in 0..2 {
        let before = Instant::now();
        let answer = app.post(body.clone()).await;
        // Less than the answer deadline, after which every other callback would be told 503.
        assert!(before.elapsed() < Duration::from_secs(2));
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.text(), r#"{"result":0}"#);
    }
    assert_eq!(app.metric(&outcome("passed")).await, 2.0);
    assert_eq!(app.metric("zim2kafka_kafka_in_flight_records").await, 0.0);
}

#[tokio::test]
async fn before_send_msg_is_not_published() {
    let app = App::embedded(|settings| settings);
    let answer = app
        .post(callback(json!({"event": "before_send_msg"})))
        .await;
    assert_eq!(answer.text(), r#"{"result":0}"#);
    // What comes after it in either topic is the first there.
    assert_status(&app.post(callback(json!({}))).await, "published");
    assert_status(
        &app.post(callback(json!({"event": "send_msg"}))).await,
        "dead_lettered",
    );
    assert_eq!(app.records(1).await.len(), 1);
    let letters = app.dead_letters(1).await;
    let of_send_msg = |letter: &TestRecord| value(letter)["event"] == "send_msg";
    assert!(
        letters.len() == 1 && letters.iter().all(of_send_msg),
        "{letters:?}"
    );
}

#[tokio::test]
async fn records_of_one_group_are_in_the_order_of_the_answers() {
    let app = App::embedded(|settings| settings);
    for number in 0..200 {
        let body = callback(json!({"group_id": "g1", "number": number}));
        assert_status(&app.post(body).await, "published");
    }
    let records = app.records(200).await;
    let numbers = records
        .iter()
        .map(|record| value(record)["extra"]["number"].as_i64());
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        (0..200).map(Some).collect::<Vec<_>>()
    );
    assert_eq!(app.metric(&outcome("published")).await, 200.0);
}

#[tokio::test]
async fn every_group_is_in_the_partition_that_a_java_producer_would_choose() {
    let app = App::embedded(|settings| settings);
    let table = Table::committed();
    let mut expected = table.of_topic_with(12);
    expected.remove("").expect("no group has an empty ID");
    for group_id in expected.keys() {
        assert_status(
            &app.post(callback(json!({"group_id": group_id}))).await,
            "published",
        );
    }
    let records = app.records(expected.len()).await;
    assert_eq!(records.len(), expected.len());
    for record in &records {
        let key = str::from_utf8(record.key.as_deref().expect("a key")).expect("text");
        assert_eq!(expected.get(key), Some(&record.partition), "{key}");
    }
}

#[tokio::test]
async fn query_string_and_content_type_are_ignored() {
    let app = App::embedded(|settings| settings);
    let uri = format!("http://{}/callbacks/zim?from=zego&appid=2", app.callbacks);
    let request = hyper::Request::post(uri).body(callback(json!({})).into());
    let answer = app.ask(request.expect("valid")).await;
    assert_status(&answer, "published");
    for headers in [
        [("content-type", "image/png")],
        [("content-type", "")],
        [("content-encoding", "identity")],
    ] {
        assert_status(
            &app.post_with(&headers, callback(json!({}))).await,
            "published",
        );
    }
}
