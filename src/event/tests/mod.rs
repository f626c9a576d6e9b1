//! What a verified callback means: the fixtures, the ids, the headers, the limits.

mod catalogue;
mod extra;
mod fixtures;
mod ids;
mod omit;
mod rejected;
mod trace;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::callback::{RawCallback, Secrets, TimestampUnit, sign};

const RECEIVED_AT: i64 = 1_757_577_601_000;

/// What becomes of a body if only `group_join` has a topic, or the status that it is refused with.
fn record(body: impl Into<Vec<u8>>) -> Result<Record, u16> {
    record_with("1=secret,123456789=secret", body)
}

fn record_with(secrets: &str, body: impl Into<Vec<u8>>) -> Result<Record, u16> {
    let raw = RawCallback {
        body: body.into().into(),
        content_type: Some("text/plain".into()),
        trace: None,
        received_at: RECEIVED_AT,
    };
    let json = raw.json().map_err(|_| 400_u16)?;
    let unverified = json.decode().map_err(|_| 400_u16)?;
    let secrets = Secrets::parse_list(secrets).expect("a list");
    let callback = secrets
        .authenticate(unverified, TimestampUnit::Auto)
        .map_err(|_| 401_u16)?;
    let kind = kind_of(&callback);
    let known = kind.clone().ok();
    let record = kind.and_then(|kind| match kind.name {
        GROUP_JOIN => kind.record(&callback, &Policy::default()),
        _ => Err(unsupported(&callback)),
    });
    Ok(record.unwrap_or_else(|why| Record::dead_letter(&callback, known, &why)))
}

/// A signed callback; `fields` are added, and replace what is there.
fn callback(fields: &Value) -> Value {
    let mut body = json!({
        "appid": "1",
        "event": "group_join",
        "group_id": "g1",
        "join_type": "Apply",
        "new_user_ids": ["u1"],
        "nonce": "350176",
        "timestamp": "1757577600123",
    });
    let members = body.as_object_mut().expect("an object");
    members.extend(fields.as_object().expect("an object").clone());
    let timestamp = body["timestamp"].as_str().expect("a string");
    body["signature"] = sign("secret", timestamp, "350176").to_hex().into();
    body
}

/// As [`callback`], with one more member as text, which may be what no parser's value holds.
fn callback_with(name: &str, value: &str) -> String {
    let mut fields = callback(&json!({}));
    fields.as_object_mut().expect("an object").remove(name);
    let fields = fields.to_string();
    let members = fields.strip_suffix('}').expect("an object");
    format!("{members},\"{name}\":{value}}}")
}

#[track_caller]
fn authentic(body: impl Into<Vec<u8>>) -> Record {
    record(body).expect("it is authentic")
}

#[track_caller]
fn dead_letter(body: impl Into<Vec<u8>>, reason: Reason) -> Record {
    let letter = authentic(body);
    assert_eq!(
        letter.counted,
        Some(Counted::DeadLetter(reason)),
        "{letter:?}"
    );
    assert!(letter.is_dead_letter());
    letter
}

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let value = record.headers.iter().find(|(found, _)| *found == name);
    let (_, value) = value.expect("every record has the header");
    std::str::from_utf8(value).expect("the header is text")
}

#[test]
fn a_callback_with_two_events_is_an_invalid_one_whatever_they_are() {
    for event in ["group_join", "group_exit", "before_send_msg", "x"] {
        for second in [r#""group_join""#, r#""before_send_msg""#, "null", "7"] {
            let body = callback(&json!({"event": event})).to_string();
            let body = body.replacen('{', &format!("{{\"\\u0065vent\":{second},"), 1);
            let letter = dead_letter(body, Reason::InvalidEvent);
            let detail = header(&letter, "dead_letter_detail");
            assert_eq!(detail, "the field \"event\" is repeated");
        }
    }
}

#[test]
fn a_detail_stays_short_however_long_the_events_name_is() {
    let body = callback(&json!({"event": "é".repeat(100_000)})).to_string();
    let letter = dead_letter(body, Reason::UnsupportedEvent);
    assert!(header(&letter, "dead_letter_detail").len() < 1000);
}

#[test]
fn a_hundred_thousand_levels_in_an_unknown_field_are_kept_as_a_string() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let record = authentic(callback_with("deep", &deep));
        assert!(!record.is_dead_letter());
        let value = std::str::from_utf8(&record.value).expect("UTF-8");
        let deep = Value::from(deep);
        assert!(value.ends_with(&format!(r#","extra":{{"deep":{deep}}}}}"#)));
    }
}

#[test]
fn a_hundred_thousand_levels_in_a_known_field_are_no_event() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for name in ["group_id", "join_type", "new_user_ids"] {
        let letter = dead_letter(callback_with(name, &deep), Reason::InvalidEvent);
        assert!(
            header(&letter, "dead_letter_detail").contains(name),
            "{name}"
        );
    }
    dead_letter(callback_with("event", &deep), Reason::UnsupportedEvent);
    let invited = callback_with("operator_account", &deep).replace("Apply", "Invited");
    dead_letter(invited, Reason::InvalidEvent);
    let applied = callback_with("operator_account", &deep);
    assert!(
        !authentic(applied).is_dead_letter(),
        "it says nothing there"
    );
}

#[test]
fn a_record_is_published_up_to_its_limit_and_not_one_byte_beyond() {
    let padded = |bytes: usize| callback(&json!({"padding": "x".repeat(bytes)})).to_string();
    let room = MAX_RECORD_BYTES - authentic(padded(0)).size();
    let record = authentic(padded(room));
    assert_eq!(
        (record.size(), record.is_dead_letter()),
        (MAX_RECORD_BYTES, false)
    );

    let body = padded(room + 1);
    let letter = dead_letter(body.clone(), Reason::InvalidEvent);
    assert_eq!(letter.value, body.as_bytes());
    assert!(header(&letter, "dead_letter_detail").contains("900001"));
    // The body itself is smaller than its record, and whatever is accepted fits as a dead letter.
    assert!(letter.size() < 1_000_000);
}

#[test]
fn every_copy_of_the_group_id_counts_for_the_limit_of_a_record() {
    let group_id = "g".repeat(300_000);
    let letter = dead_letter(
        callback(&json!({"group_id": group_id})).to_string(),
        Reason::InvalidEvent,
    );
    assert_eq!(letter.key, None);
}

#[test]
fn headers_hold_any_appid_and_the_time_with_three_decimals() {
    for (timestamp, time) in [
        ("1757577600123", "2025-09-11T08:00:00.123Z"),
        ("1757577600", "2025-09-11T08:00:00.000Z"),
        ("0000000000", "1970-01-01T00:00:00.000Z"),
        ("9999999999999", "2286-11-20T17:46:39.999Z"),
    ] {
        let body = callback(&json!({"appid": "2/ä", "timestamp": timestamp})).to_string();
        let record = record_with("*=secret", body).expect("it is authentic");
        assert_eq!(header(&record, "ce_time"), time);
        assert_eq!(header(&record, "ce_source"), "/zim/apps/2%2F%C3%A4");
    }
}

#[test]
fn a_dead_letter_holds_the_body_unchanged_and_says_why() {
    let body = format!("\u{feff} {} ", callback(&json!({"join_type": "Scan"})));
    let letter = dead_letter(body.clone(), Reason::InvalidEvent);
    assert_eq!(letter.value, body.as_bytes());
    assert_eq!(letter.timestamp, RECEIVED_AT);
    for (name, value) in [
        ("event_id", letter.event_id.to_string().as_str()),
        ("dead_letter_reason", "invalid_event"),
        ("callback_timestamp", "1757577600123"),
        ("received_at", "1757577601000"),
        ("content-type", "text/plain"),
    ] {
        assert_eq!(header(&letter, name), value);
    }
}

#[test]
fn a_record_that_kafka_refuses_becomes_a_dead_letter_of_its_own_value() {
    let record = authentic(callback(&json!({})).to_string());
    let letter = record.rejected("the broker said so");
    assert_eq!(
        letter.counted,
        Some(Counted::DeadLetter(Reason::RejectedByKafka))
    );
    assert!(letter.is_dead_letter());
    assert_eq!((&letter.value, &letter.key), (&record.value, &record.key));
    assert_eq!(letter.timestamp, RECEIVED_AT);
    for (name, value) in [
        ("dead_letter_reason", "rejected_by_kafka"),
        ("dead_letter_detail", "the broker said so"),
        ("callback_timestamp", "1757577600123"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(&letter, name), value);
    }
    let long = authentic(callback(&json!({"group_id": "g".repeat(1025)})).to_string());
    assert_eq!(
        long.rejected("").key,
        None,
        "a dead letter has room for the body only"
    );
}

#[test]
fn only_events_are_marked_as_reuse() {
    let record = authentic(callback(&json!({})).to_string());
    let marked = record.clone().marked_as_reuse();
    assert_eq!(header(&marked, "ce_signaturereused"), "true");
    assert_eq!(marked.headers.len(), record.headers.len() + 1);
    let letter = dead_letter(
        callback(&json!({"event": ""})).to_string(),
        Reason::UnsupportedEvent,
    );
    let headers = letter.headers.clone();
    assert_eq!(letter.marked_as_reuse().headers, headers);
}

proptest! {
    /// Whatever an authentic callback holds, it comes out, as one or the other.
    #[test]
    fn every_authentic_callback_becomes_a_record_or_a_dead_letter(
        fields in prop::collection::hash_map(
            prop_oneof![
                Just("event".to_owned()),
                Just("group_id".to_owned()),
                Just("join_type".to_owned()),
                Just("operator_account".to_owned()),
                Just("new_user_ids".to_owned()),
                any::<String>(),
            ],
            prop_oneof![
                Just(Value::Null),
                any::<f64>().prop_map(Value::from),
                any::<String>().prop_map(Value::from),
                Just("Invited".into()),
                Just("group_destroy".into()),
                prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from),
            ],
            0..4,
        ),
    ) {
        let signed = ["appid", "timestamp", "nonce", "signature"];
        let fields = fields.into_iter()
            .filter(|(name, _)| !signed.contains(&name.to_lowercase().as_str()));
        let body = callback(&Value::Object(fields.collect())).to_string();
        let record = authentic(body.clone());
        match record.counted.expect("it is new") {
            Counted::DeadLetter(_) => prop_assert_eq!(record.value, body),
            Counted::Event { joined } => {
                let users = joined.expect("it is a join").users;
                let value: Value = serde_json::from_slice(&record.value).expect("JSON");
                prop_assert_eq!(value["new_user_ids"].as_array().map(Vec::len), Some(users));
                prop_assert_eq!(value["group_id"].as_str(), Some(header(&record, "ce_subject")));
            }
        }
    }
}
