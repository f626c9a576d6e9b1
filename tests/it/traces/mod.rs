//! The trace context of a request: on records and dead letters, in answers and in the log. And the
//! line of each callback in the log.

mod log;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use zim2kafka::spool::SpoolSettings;

use crate::support::answers::{assert_problem, assert_status};
use crate::support::app::{App, Settings, callback};
use crate::support::kafka::{TestRecord, kafka};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The headers of a request that belongs to a trace, and of its record.
const TRACED: [(&str, &str); 2] = [
    ("traceparent", TRACEPARENT),
    ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
];

/// Headers of a request or a record.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// The headers of the trace context.
fn trace_of(record: &TestRecord) -> Vec<(&str, &str)> {
    let headers = record.headers.iter().map(|(name, value)| {
        let value = str::from_utf8(value).expect("a header is text");
        (name.as_str(), value)
    });
    headers
        .filter(|(name, _)| name.starts_with("trace"))
        .collect()
}

#[track_caller]
fn only(records: &[TestRecord]) -> &TestRecord {
    let [record] = records else {
        panic!("one record: {records:?}");
    };
    record
}

#[tokio::test]
async fn a_trace_context_becomes_headers_of_the_record_and_of_the_dead_letter() {
    let app = App::embedded(|settings| settings);
    for (event, status) in [("group_join", "published"), ("group_exit", "dead_lettered")] {
        let body = callback(json!({ "event": event }));
        let answer = app.post_with(&TRACED, body.clone()).await;
        let event_id = assert_status(&answer, status);
        // An answer 2xx is the same with a trace as without one.
        let expected = format!(r#"{{"status":"{status}","event_id":"{event_id}"}}"#);
        assert_eq!(answer.text(), expected);
        // A retry with another trace adds nothing, and is answered without a trace too.
        let answer = app.post_with(&[("traceparent", OTHER)], body).await;
        assert_eq!(assert_status(&answer, "duplicate"), event_id);
        assert_eq!(
            answer.json().as_object().map(|members| members.len()),
            Some(2)
        );
    }
    let (records, letters) = (app.records(1).await, app.dead_letters(1).await);
    for record in [only(&records), only(&letters)] {
        assert_eq!(trace_of(record), TRACED);
        // They come after the headers that every record has.
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names[names.len() - 2..], ["traceparent", "tracestate"]);
    }
}

#[tokio::test]
async fn what_is_not_a_valid_trace_context_is_dropped_and_the_event_published() {
    let app = App::embedded(|settings| settings);
    let long = "x".repeat(512);
    let too_long = "x".repeat(513);
    let upper_case = TRACEPARENT.to_uppercase();
    let [future, invalid] = ["01", "ff"].map(|version| TRACEPARENT.replacen("00", version, 1));
    let cases: [[Headers<'_>; 2]; 13] = [
        [&[], &[]],
        [
            &[("TraceParent", TRACEPARENT)],
            &[("traceparent", TRACEPARENT)],
        ],
        [&[("traceparent", &upper_case)], &[]],
        [&[("traceparent", &future)], &[]],
        [&[("traceparent", &invalid)], &[]],
        [&[("traceparent", ""), ("tracestate", "a=1")], &[]],
        [&[("tracestate", "a=1")], &[]],
        [
            &[("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
            &[],
        ],
        [
            &[("traceparent", TRACEPARENT), ("tracestate", &long)],
            &[("traceparent", TRACEPARENT), ("tracestate", &long)],
        ],
        [
            &[("traceparent", TRACEPARENT), ("tracestate", &too_long)],
            &[("traceparent", TRACEPARENT)],
        ],
        [
            &[("traceparent", TRACEPARENT), ("tracestate", "a=\t1")],
            &[("traceparent", TRACEPARENT)],
        ],
        [
            &[("traceparent", TRACEPARENT), ("tracestate", "")],
            &[("traceparent", TRACEPARENT)],
        ],
        [
            &[
                ("tracestate", "a=1,b=2"),
                ("traceparent", TRACEPARENT),
                ("tracestate", ""),
                ("TraceState", "c=3"),
            ],
            &[("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2,c=3")],
        ],
    ];
    for (number, [headers, _]) in cases.iter().enumerate() {
        let body = callback(json!({"group_id": number.to_string()}));
        assert_status(&app.post_with(headers, body).await, "published");
    }
    let records = app.records(cases.len()).await;
    assert_eq!(records.len(), cases.len());
    for record in &records {
        let key = str::from_utf8(record.key.as_deref().expect("a key")).expect("text");
        let [sent, expected] = cases[key.parse::<usize>().expect("a number")];
        assert_eq!(trace_of(record), expected, "{sent:?}");
    }
}

#[tokio::test]
async fn a_reused_signature_has_its_own_trace() {
    let app = App::embedded(|settings| settings);
    for (group_id, traceparent) in [("g1", TRACEPARENT), ("g2", OTHER)] {
        let body = callback(json!({"group_id": group_id, "nonce": "1"}));
        let answer = app.post_with(&[("traceparent", traceparent)], body).await;
        assert_status(&answer, "published");
    }
    for record in app.records(2).await {
        let is_first = record.key.as_deref() == Some(b"g1");
        let (trace, reused) = match is_first {
            true => (TRACEPARENT, None),
            false => (OTHER, Some(&b"true"[..])),
        };
        assert_eq!(trace_of(&record), [("traceparent", trace)]);
        assert_eq!(record.header("ce_signaturereused"), reused);
    }
}

/// Bytes of its key, headers and value.
fn size(record: &TestRecord) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len());
    record.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>() + record.value.len()
}

#[tokio::test]
async fn the_headers_of_a_trace_count_for_the_limit_of_a_record_and_never_for_a_2xx() {
    const LIMIT: usize = 900_000;
    let app = App::embedded(|mut settings| {
        settings.0.callbacks.body_limit = LIMIT;
        settings
    });
    let padded = |bytes: usize| {
        let nonce = format!("{:020}", rand::random::<u64>());
        callback(json!({"note": "x".repeat(bytes), "nonce": nonce}))
    };
    assert_status(&app.post(padded(1)).await, "published");
    let unpadded = size(only(&app.records(1).await)) - 1;

    let state = "x".repeat(512);
    let traced = [("traceparent", TRACEPARENT), ("tracestate", &state)];
    let of_trace = traced.map(|(name, value)| name.len() + value.len());
    let of_trace: usize = of_trace.iter().sum();
    assert_eq!(of_trace, 588);
    let mut published = 1;
    for (headers, room) in [
        (&[][..], LIMIT - unpadded),
        (&traced[..1], LIMIT - unpadded - 66),
        (&traced, LIMIT - unpadded - of_trace),
    ] {
        assert_status(&app.post_with(headers, padded(room)).await, "published");
        published += 1;
        let too_large = app.post_with(headers, padded(room + 1)).await;
        assert_status(&too_large, "dead_lettered");
    }
    let records = app.records(published).await;
    let largest = records.iter().filter(|record| size(record) == LIMIT);
    assert_eq!(largest.count(), 3);
    // The largest body is a dead letter with the largest trace context.
    let largest = padded(LIMIT - padded(0).len());
    assert_eq!(largest.len(), LIMIT);
    let answer = app.post_with(&traced, largest).await;
    assert_status(&answer, "dead_lettered");
    for letter in app.dead_letters(4).await {
        let detail = str::from_utf8(letter.header("dead_letter_detail").expect("why"));
        let detail = detail.expect("text");
        assert!(detail.starts_with("its record has 90"), "{detail}");
    }
}

/// A trace context must not cost an event: a proxy adds the same one's length to every retry.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafka_rejects_only_for_its_trace_context_is_a_dead_letter_with_it() {
    let Some(kafka) = kafka() else { return };
    let [topic, dead] = ["traced", "traced-dead"].map(|name| kafka.unique_topic(name));
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "2000")]);
    kafka.create_topic(&dead, 1, &[]);
    let mut settings = Settings::on(kafka.brokers(), &topic, &dead);
    // Compression would make it fit.
    settings = settings.properties("compression.type=none");
    settings.0.callbacks.answer_deadline = Duration::from_secs(25);
    let app = settings.start();
    app.ready().await;
    let state = "x".repeat(512);
    let traced = [("traceparent", TRACEPARENT), ("tracestate", &state)];
    let body = || callback(json!({"note": "x".repeat(1100)}));
    assert_status(&app.post(body()).await, "published");
    let rejected = app.post_with(&traced, body()).await;
    assert_status(&rejected, "dead_lettered");
    assert_eq!(trace_of(only(&app.records(1).await)), []);
    let letters = app.dead_letters(1).await;
    let letter = only(&letters);
    let reason = letter.header("dead_letter_reason");
    assert_eq!(reason, Some(b"rejected_by_kafka".as_slice()));
    assert_eq!(trace_of(letter), traced);
    app.stop().await.expect("it stops in order");
}

fn with_spool(mut settings: Settings, folder: &Path) -> Settings {
    settings.0.spool = Some(SpoolSettings {
        folder: folder.to_owned(),
        max_bytes: 1 << 30,
        after: Duration::from_millis(1),
    });
    settings.0.stop_deadline = Duration::from_secs(1);
    settings
}

#[tokio::test]
async fn a_trace_context_waits_in_the_spool_with_its_record() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let folder = home.path().join("spool");
    let without_kafka = Settings::on("127.0.0.1:1", "joined", "dead");
    let app = with_spool(without_kafka, &folder).start();
    app.ready().await;
    for event in ["group_join", "group_exit"] {
        let body = callback(json!({ "event": event }));
        let answer = app.post_with(&TRACED, body.clone()).await;
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
        // The record on disk has the trace of the first request.
        let answer = app.post_with(&[("traceparent", OTHER)], body).await;
        assert_status(&answer, "duplicate");
    }
    app.stop().await.ok();

    let app = App::embedded(|settings| with_spool(settings, &folder));
    let (records, letters) = (app.records(1).await, app.dead_letters(1).await);
    for record in [only(&records), only(&letters)] {
        assert_eq!(trace_of(record), TRACED);
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn a_retry_that_is_answered_503_has_its_own_trace_in_the_answer() {
    let mut settings = Settings::on("127.0.0.1:1", "joined", "dead");
    settings.0.callbacks.answer_deadline = Duration::from_millis(100);
    let app = settings.start();
    let body = callback(json!({}));
    for traceparent in [TRACEPARENT, OTHER] {
        let headers = [("traceparent", traceparent)];
        let answer = app.post_with(&headers, body.clone()).await;
        assert_eq!(answer.status.as_u16(), 503);
        assert_eq!(answer.json()["trace_id"], traceparent[3..35]);
    }
    let answer = app.post(body).await;
    assert_problem(&answer, 503, "Service Unavailable");
}
