//! The trace context of a request, on its record and on its dead letters.

use bytes::Bytes;

use super::*;
use crate::callback::TraceContext;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACED: [(&str, &str); 2] = [("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2")];

/// What becomes of a body, with a trace context if there are such headers.
fn record_of(headers: &[(&str, &str)], body: &Value) -> Record {
    let raw = RawCallback {
        body: body.to_string().into(),
        content_type: None,
        trace: TraceContext::from_headers(|name| {
            let values = headers.iter().filter(move |(found, _)| *found == name);
            values.map(|(_, value)| *value)
        }),
        received_at: RECEIVED_AT,
    };
    let json = raw.json().expect("an object");
    let unverified = json.decode().expect("an object");
    let callback = Secrets::parse_list("1=secret")
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .expect("it is signed");
    let record = kind_of(&callback).and_then(|kind| kind.record(&callback, &Policy::default()));
    record.unwrap_or_else(|why| Record::dead_letter(&callback, None, &why))
}

/// The headers that a record has more than another one.
fn added(record: &Record, without: &Record) -> Vec<(String, String)> {
    let (before, after) = record.headers.split_at(without.headers.len());
    assert_eq!(before, without.headers);
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).expect("text");
    let pair = |(name, value): &Header| (name.to_string(), text(value));
    after.iter().map(pair).collect()
}

fn traced() -> Vec<(String, String)> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    TRACED.map(pair).to_vec()
}

#[test]
fn a_trace_context_comes_after_the_headers_that_every_record_has() {
    for fields in [json!({}), json!({"event": ""}), json!({"group_id": 7})] {
        let body = callback(&fields);
        let [without, with] = [&[][..], &TRACED].map(|headers| record_of(headers, &body));
        assert_eq!(added(&with, &without), traced());
        assert_eq!(without.size() + 66 + 17, with.size());
        assert_eq!(with.event_id, without.event_id);
        // The dead letter of a record that Kafka rejects has it too, once.
        let [without, with] = [without, with].map(|record| record.marked_as_reuse().rejected(""));
        assert_eq!(added(&with, &without), traced());
    }
}

#[test]
fn a_record_is_published_up_to_its_limit_with_its_trace_context() {
    let padded = |bytes: usize| callback(&json!({"padding": "x".repeat(bytes)}));
    for headers in [&[][..], &TRACED[..1], &TRACED] {
        let room = MAX_RECORD_BYTES - record_of(headers, &padded(0)).size();
        let record = record_of(headers, &padded(room));
        assert_eq!(
            (record.size(), record.is_dead_letter()),
            (MAX_RECORD_BYTES, false)
        );
        let letter = record_of(headers, &padded(room + 1));
        assert_eq!(
            letter.counted,
            Some(Counted::DeadLetter(Reason::InvalidEvent))
        );
        assert!(header(&letter, "dead_letter_detail").contains("900001"));
    }
}
