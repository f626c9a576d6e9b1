//! What is too large, too slow or too deep, and what is just not.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;

use crate::support::answers::{assert_outcomes, assert_problem};
use crate::support::app::{App, PATIENCE, callback};
use crate::support::wire::{Wire, head, of_length};

/// A callback of exactly so many bytes.
fn of_bytes(bytes: usize) -> Vec<u8> {
    let empty = callback(json!({"note": "", "nonce": "1"})).len();
    let body = callback(json!({"note": "x".repeat(bytes - empty), "nonce": "1"}));
    assert_eq!(body.len(), bytes);
    body
}

#[tokio::test]
async fn a_body_that_does_not_end_in_time_gets_408() {
    let app = App::embedded(|settings| settings);
    let stops = async {
        let mut wire = Wire::to(&app).await;
        wire.say(of_length(100)).await;
        wire.say("{").await;
        wire.hear().await
    };
    // A byte now and then does not lengthen the time for the whole.
    let trickles = async {
        let mut wire = Wire::to(&app).await;
        wire.say(of_length(1000)).await;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                answer = wire.hear_patiently() => return answer,
                _ = second.tick() => {}
            }
            wire.say(" ").await;
        }
    };
    let began = Instant::now();
    let (stopped, trickled) = tokio::join!(stops, tokio::time::timeout(PATIENCE, trickles));
    let took = began.elapsed();
    assert_problem(&stopped, 408, "Request Timeout");
    assert_problem(&trickled.expect("it is answered"), 408, "Request Timeout");
    assert!(took >= Duration::from_secs(10), "{took:?}");
    assert_outcomes(&app, &[("timed_out", 2.0)]).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_counted_and_not_kept() {
    let app = App::embedded(|settings| settings);
    let mut wire = Wire::to(&app).await;
    wire.say(of_length(100)).await;
    wire.say(r#"{"appid":"#).await;
    drop(wire);
    app.wait_for("it is counted", async || {
        app.metric(r#"zim2kafka_callbacks_total{outcome="malformed"}"#)
            .await
            == 1.0
    })
    .await;
    assert_outcomes(&app, &[("malformed", 1.0)]).await;
}

#[tokio::test]
async fn a_body_may_come_in_chunks_of_any_size() {
    let app = App::embedded(|settings| settings);
    let chunked = async |body: &[u8], bytes: usize| {
        let mut wire = Wire::to(&app).await;
        wire.say(head("Transfer-Encoding: chunked")).await;
        let chunks = body.chunks(bytes).map(|chunk| {
            let chunk = str::from_utf8(chunk).expect("ASCII");
            format!("{:x}\r\n{chunk}\r\n", chunk.len())
        });
        // All at once, so that many chunks are in one read, or are split between two.
        wire.try_say(chunks.collect::<String>() + "0\r\n\r\n").await;
        wire.hear().await
    };
    for (body_bytes, chunk_bytes) in [
        (300, 1),
        (1_200, 1),
        (1_200, 2),
        (10_000, 1),
        (10_000, 5),
        (100_000, 1),
        (100_000, 63),
    ] {
        let answer = chunked(&of_bytes(body_bytes), chunk_bytes).await;
        let what = format!("{body_bytes} bytes in chunks of {chunk_bytes}: {answer:?}");
        assert_eq!(answer.status, StatusCode::OK, "{what}");
    }
    let too_large = of_bytes(512 * 1024 + 1);
    assert_problem(&chunked(&too_large, 1).await, 413, "Payload Too Large");
    let expected = [("duplicate", 3.0), ("published", 4.0), ("too_large", 1.0)];
    assert_outcomes(&app, &expected).await;
    // What was published is what was sent.
    let lengths = app.records(4).await.into_iter().map(|record| {
        let value: serde_json::Value = serde_json::from_slice(&record.value).expect("JSON");
        value["extra"]["note"].as_str().expect("a note").len()
    });
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    let empty = callback(json!({"note": "", "nonce": "1"})).len();
    assert_eq!(
        lengths,
        [300, 1_200, 10_000, 100_000].map(|bytes| bytes - empty)
    );
}

#[tokio::test]
async fn a_body_at_the_limit_is_accepted_and_one_byte_more_gets_413() {
    const LIMIT: usize = 512 * 1024;
    let app = App::embedded(|settings| settings);
    let chunked = async |body: &[u8]| {
        let mut wire = Wire::to(&app).await;
        wire.say(head("Transfer-Encoding: chunked")).await;
        for chunk in body.chunks(100_000) {
            wire.say(format!("{:x}\r\n", chunk.len())).await;
            wire.say(chunk).await;
            wire.say("\r\n").await;
        }
        wire.say("0\r\n\r\n").await;
        wire.hear().await
    };
    let largest = of_bytes(LIMIT);
    assert_eq!(app.post(largest.clone()).await.status, StatusCode::OK);
    assert_eq!(chunked(&largest).await.json()["status"], "duplicate");

    let too_large = of_bytes(LIMIT + 1);
    assert_problem(&chunked(&too_large).await, 413, "Payload Too Large");
    // What announces that it is too large is refused before a byte of it is sent.
    for length in [LIMIT + 1, 1 << 40] {
        let mut wire = Wire::to(&app).await;
        wire.say(of_length(length)).await;
        assert_problem(&wire.hear().await, 413, "Payload Too Large");
        let mut wire = Wire::to(&app).await;
        wire.say(head(&format!(
            "Content-Length: {length}\r\nExpect: 100-continue"
        )))
        .await;
        assert_problem(&wire.hear().await, 413, "Payload Too Large");
    }
    let expected = [("duplicate", 1.0), ("published", 1.0), ("too_large", 5.0)];
    assert_outcomes(&app, &expected).await;
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let app = App::embedded(|settings| settings);
    let body = callback(json!({}));
    let mut wire = Wire::to(&app).await;
    let length = body.len();
    wire.say(head(&format!(
        "Content-Length: {length}\r\nExpect: 100-continue"
    )))
    .await;
    assert_eq!(wire.hear().await.status, StatusCode::CONTINUE);
    wire.say(body).await;
    assert_eq!(wire.hear().await.json()["status"], "published");
}

#[tokio::test]
async fn a_head_of_too_many_fields_or_bytes_gets_431() {
    let app = App::embedded(|settings| settings);
    let post = async |fields: String| {
        let body = callback(json!({}));
        let mut wire = Wire::to(&app).await;
        wire.say(head(&format!("Content-Length: {}\r\n{fields}", body.len())))
            .await;
        wire.say(body).await;
        wire.hear().await
    };
    // Besides Host and Content-Length.
    let fields = |count: usize| vec!["x: y"; count - 2].join("\r\n");
    assert_eq!(post(fields(64)).await.status, StatusCode::OK);
    let too_many = "Request Header Fields Too Large";
    assert_problem(&post(fields(65)).await, 431, too_many);

    let others = "Hosthere".len() + "Content-Length".len() + "123".len();
    let bytes = |count: usize| format!("x: {}", "y".repeat(count - others - "x".len()));
    assert_eq!(callback(json!({})).len().to_string().len(), 3);
    assert_eq!(post(bytes(16 * 1024)).await.status, StatusCode::OK);
    assert_problem(&post(bytes(16 * 1024 + 1)).await, 431, too_many);
    assert_problem(&post(bytes(17 * 1024)).await, 431, too_many);
    let expected = [("published", 2.0), ("too_large", 3.0)];
    assert_outcomes(&app, &expected).await;
    // Far beyond, the HTTP library itself says so, in fewer words. No body follows: it would not be
    // read, and a connection that is closed over unread bytes may lose its answer.
    let mut wire = Wire::to(&app).await;
    wire.say(head(&fields(200))).await;
    assert_eq!(wire.hear().await.status.as_u16(), 431);
    assert_outcomes(&app, &expected).await;
}

#[tokio::test]
async fn nesting_a_hundred_thousand_deep_becomes_a_string_in_extra_and_a_dead_letter_elsewhere() {
    let app = App::embedded(|settings| settings);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let with = |name: &str| {
        let body = callback(json!({(name): "deep"}));
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        body.replace(r#""deep""#, &deep)
    };
    let answer = app.post(with("unknown")).await;
    assert_eq!(answer.json()["status"], "published");
    let body = with("group_id");
    let answer = app.post(body.clone()).await;
    assert_eq!(answer.json()["status"], "dead_lettered");

    let records = app.records(1).await;
    let [record] = records.as_slice() else {
        panic!("one record");
    };
    let value = str::from_utf8(&record.value).expect("text");
    let kept = format!(r#","extra":{{"unknown":"{deep}"}}}}"#);
    assert!(
        value.ends_with(&kept),
        "the text of an unknown field is kept"
    );
    let letters = app.dead_letters(1).await;
    let [letter] = letters.as_slice() else {
        panic!("one dead letter");
    };
    assert_eq!(
        (letter.value.as_slice(), &letter.key),
        (body.as_bytes(), &None)
    );
    assert_eq!(
        letter.header("dead_letter_reason"),
        Some(b"invalid_event".as_slice())
    );
}

#[tokio::test]
async fn the_largest_body_is_published_and_one_whose_record_would_be_too_large_is_a_dead_letter() {
    let app = App::embedded(|mut settings| {
        settings.0.callbacks.body_limit = 900_000;
        settings
    });
    let of_bytes = |bytes: usize, name: &str| {
        let empty = callback(json!({(name): "x", "nonce": "1"})).len();
        callback(json!({(name): "x".repeat(bytes - empty + 1), "nonce": "1"}))
    };
    let body = of_bytes(899_000, "note");
    assert_eq!(body.len(), 899_000);
    let answer = app.post(body).await;
    assert_eq!(answer.json()["status"], "published");
    // A group ID stands in the record's key, headers and value.
    let body = of_bytes(900_000, "group_id");
    let answer = app.post(body.clone()).await;
    assert_eq!(answer.json()["status"], "dead_lettered");
    let letters = app.dead_letters(1).await;
    let [letter] = letters.as_slice() else {
        panic!("one dead letter");
    };
    assert!(letter.value == body, "unchanged, whatever its size");
    assert_eq!(letter.key, None);
    assert_eq!(app.records(1).await.len(), 1);
}
