//! What becomes of a dead letter.

use std::time::Duration;

use serde_json::{Value, json};

use super::batch::Fate;
use super::judge::{Judge, Judgement};
use super::table::Outcome;
use crate::callback::{RawCallback, Secrets, TimestampUnit, TraceContext, VerifiedCallback, sign};
use crate::event::{
    EVENTS, Omit, Policy, Reason, Record, Routes, Rules, Unpublishable, Verdict, kind_of,
};
use crate::kafka::{Consumed, Stored};

const TIMESTAMP: i64 = 1_757_577_600_123;
const RECEIVED_AT: i64 = TIMESTAMP + 1_000;

/// The settings of a day. Every event has a topic, unless a test changes that.
struct Day {
    secrets: Secrets,
    unit: TimestampUnit,
    routes: Routes,
    policy: Policy,
    age_limit: Option<Duration>,
    trust_topic: bool,
}

impl Day {
    fn today() -> Self {
        let tolerance = Some(Duration::from_secs(600));
        Self {
            secrets: Secrets::parse_list("1=secret").expect("a list"),
            unit: TimestampUnit::Auto,
            routes: Routes::new(
                EVENTS.map(|kind| (kind.name, <&str>::from(kind.family))),
                "dead",
            ),
            policy: Policy {
                omit: Omit::default(),
                tolerance,
            },
            age_limit: tolerance,
            trust_topic: false,
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            routes: &self.routes,
            policy: &self.policy,
            age_limit: self.age_limit,
        }
    }

    fn judge(&self, letter: &Consumed) -> Judgement {
        let judge = Judge {
            secrets: &self.secrets,
            timestamp_unit: self.unit,
            rules: self.rules(),
            trust_topic: self.trust_topic,
        };
        judge.judge(letter)
    }

    /// What the service makes of a body on that day, when it is received then.
    fn serve(&self, body: &[u8], received_at: i64) -> Record {
        authentic(body, received_at, |callback| {
            let judged = self.rules().judge(callback);
            match judged.verdict {
                Verdict::Event(record) => record,
                Verdict::DeadLetter(why) => self.rules().dead_letter(callback, judged.kind, &why),
                other => panic!("{other:?}"),
            }
        })
    }
}

/// It travels on with the record.
fn trace() -> Option<TraceContext> {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::from_headers(|name| match name {
        "traceparent" => Some(parent),
        _ => Some("a=b"),
    });
    assert!(trace.is_some());
    trace
}

fn authentic<T>(body: &[u8], received_at: i64, of: impl Fn(&VerifiedCallback<'_>) -> T) -> T {
    let raw = RawCallback {
        body: body.to_vec().into(),
        content_type: Some("text/plain".into()),
        trace: trace(),
        received_at,
    };
    let json = raw.json().expect("a callback");
    let unverified = json.decode().expect("a callback");
    let secrets = Secrets::parse_list("1=secret").expect("a list");
    let callback = secrets.authenticate(unverified, TimestampUnit::Auto);
    of(&callback.expect("it is signed"))
}

fn body(event: &str, more: &Value) -> Vec<u8> {
    let timestamp = TIMESTAMP.to_string();
    let mut body = json!({
        "appid": "1",
        "event": event,
        "timestamp": timestamp,
        "nonce": "350176",
        "signature": sign("secret", &timestamp, "350176").to_hex(),
        "group_id": "g1",
    });
    let members = body.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    body.to_string().into_bytes()
}

fn join() -> Vec<u8> {
    body(
        "group_join",
        &json!({"join_type": "Apply", "new_user_ids": ["u1"], "new": 1e3}),
    )
}

/// The dead letter as it is read from its topic.
fn letter(record: &Record) -> Consumed {
    Consumed {
        topic: "dead".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: Some(record.timestamp),
        key: record.key.as_ref().map(|key| key.to_vec()),
        headers: (record.headers.iter())
            .map(|(name, value)| (name.to_string(), value.to_vec()))
            .collect(),
        value: record.value.to_vec(),
    }
}

/// A dead letter of this body, for this reason.
fn dead(body: &[u8], reason: Reason, received_at: i64) -> Consumed {
    let why = Unpublishable {
        reason,
        detail: "as it was then".into(),
    };
    letter(&authentic(body, received_at, |callback| {
        Record::dead_letter(callback, kind_of(callback).ok(), &why)
    }))
}

type Published = (
    Option<Vec<u8>>,
    i64,
    Vec<(String, Vec<u8>)>,
    Vec<u8>,
    String,
);

fn published(record: &Record) -> Published {
    let read = letter(record);
    let id = record.event_id.to_string();
    (read.key, record.timestamp, read.headers, read.value, id)
}

/// It is published as the service would have published it, with one more header.
#[track_caller]
fn is_published_as(judgement: Judgement, expected: &Record, authentic: bool) {
    let Judgement::Publish {
        record,
        is_authentic,
    } = judgement
    else {
        panic!("{judgement:?}");
    };
    assert_eq!(is_authentic, authentic);
    let mut expected = published(expected);
    expected.2.push(("redriven".to_owned(), b"true".to_vec()));
    assert_eq!(published(&record), expected);
}

#[track_caller]
fn stays(judgement: Judgement, outcome: &Outcome, detail: &str) {
    let Judgement::Stay(found, why) = judgement else {
        panic!("{judgement:?}");
    };
    assert_eq!((&found, why.as_str()), (outcome, detail));
}

#[test]
fn what_was_unsupported_because_its_family_had_no_topic_is_published() {
    let then = Day {
        routes: Routes::new([("group_join", "group")], "dead"),
        ..Day::today()
    };
    for kind in EVENTS {
        let mut more: Value = serde_json::from_str(kind.examples[0]).expect("JSON");
        more.as_object_mut().expect("an object").remove("event");
        let body = body(kind.name, &more);
        let record = Day::today().serve(&body, RECEIVED_AT);
        let stored = match kind.name {
            "group_join" => dead(&body, Reason::UnsupportedEvent, RECEIVED_AT),
            _ => letter(&then.serve(&body, RECEIVED_AT)),
        };
        assert_eq!(
            stored.header("dead_letter_reason"),
            Some(&b"unsupported_event"[..])
        );
        is_published_as(Day::today().judge(&stored), &record, true);
        if kind.name != "group_join" {
            let detail = format!("the event is {:?}", kind.name);
            stays(then.judge(&stored), &Outcome::Unsupported, &detail);
        }
    }
}

#[test]
fn what_was_invalid_by_an_older_rule_is_published_and_what_still_is_stays() {
    let valid = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
    let record = Day::today().serve(&join(), RECEIVED_AT);
    is_published_as(Day::today().judge(&valid), &record, true);
    let invalid = body(
        "group_join",
        &json!({"join_type": "Scan", "new_user_ids": ["u1"]}),
    );
    let invalid = letter(&Day::today().serve(&invalid, RECEIVED_AT));
    let detail = r#"join_type is neither "Apply" nor "Invited""#;
    stays(Day::today().judge(&invalid), &Outcome::Invalid, detail);
}

#[test]
fn the_age_is_judged_by_the_time_when_the_callback_was_received() {
    let late = TIMESTAMP + 900_000;
    let stale = letter(&Day::today().serve(&join(), late));
    assert_eq!(stale.header("dead_letter_reason"), Some(&b"stale"[..]));
    stays(
        Day::today().judge(&stale),
        &Outcome::Stale,
        "its timestamp is 900 s old",
    );
    let tolerant = Day {
        age_limit: Some(Duration::from_secs(900)),
        ..Day::today()
    };
    // Its time of receipt is in the record.
    let record = tolerant.serve(&join(), late);
    is_published_as(tolerant.judge(&stale), &record, true);
    // The clock was behind.
    let early = letter(&Day::today().serve(&join(), TIMESTAMP - 86_400_000));
    let detail = "its timestamp is 86400 s in the future";
    stays(Day::today().judge(&early), &Outcome::Stale, detail);
    let ignoring = Day {
        age_limit: None,
        ..Day::today()
    };
    let record = ignoring.serve(&join(), TIMESTAMP - 86_400_000);
    is_published_as(ignoring.judge(&early), &record, true);
}

#[test]
fn without_a_usable_header_the_time_of_receipt_is_kafkas_timestamp() {
    let record = Day::today().serve(&join(), RECEIVED_AT);
    let least = i64::MIN.to_string();
    for header in [
        None,
        Some(&b"soon"[..]),
        Some(&b"\xff"[..]),
        Some(least.as_bytes()),
    ] {
        let mut stored = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
        stored.headers.retain(|(name, _)| name != "received_at");
        stored
            .headers
            .extend(header.map(|value| ("received_at".to_owned(), value.to_vec())));
        is_published_as(Day::today().judge(&stored), &record, true);
    }
}

#[test]
fn a_message_keeps_its_own_time_if_the_age_is_ignored() {
    let near = json!({"from_user_id": "a", "conv_type": 2, "conv_id": "g", "msg_type": 1, "msg_time": TIMESTAMP - 300_000});
    let body = body("send_msg", &near);
    let ignoring = Day {
        age_limit: None,
        ..Day::today()
    };
    let stored = letter(&Day::today().serve(&body, TIMESTAMP + 900_000));
    let Judgement::Publish { record, .. } = ignoring.judge(&stored) else {
        panic!("it is valid");
    };
    assert_eq!(record.timestamp, TIMESTAMP - 300_000);
}

#[test]
fn what_is_forged_or_of_a_secret_that_is_gone_is_not_published() {
    let text = String::from_utf8(join()).expect("UTF-8");
    let signature = sign("secret", &TIMESTAMP.to_string(), "350176").to_hex();
    let forged = text.replace(&signature, &"0".repeat(40));
    let mut stored = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
    stored.value = forged.into_bytes();
    stays(
        Day::today().judge(&stored),
        &Outcome::NotAuthentic,
        "wrong signature",
    );
    let of_other = Day {
        secrets: Secrets::parse_list("2=secret").expect("a list"),
        ..Day::today()
    };
    let stored = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
    let detail = "ZIM2KAFKA_CALLBACK_SECRETS does not name its appid";
    stays(of_other.judge(&stored), &Outcome::NotAuthentic, detail);
    let seconds = Day {
        unit: TimestampUnit::Seconds,
        ..Day::today()
    };
    let detail = "timestamp is in the unit that ZIM2KAFKA_TIMESTAMP_UNIT excludes";
    stays(seconds.judge(&stored), &Outcome::NotAuthentic, detail);
    // A second secret is there for a rotation.
    let rotated = Day {
        secrets: Secrets::parse_list("1=new,1=secret").expect("a list"),
        ..Day::today()
    };
    assert!(matches!(rotated.judge(&stored), Judgement::Publish { .. }));
}

/// A forger cannot choose another judgement by a header.
#[test]
fn the_reason_of_a_dead_letter_does_not_make_it_authentic() {
    let record = Day::today().serve(&join(), RECEIVED_AT);
    let mut stored = letter(&record.rejected("too large"));
    let trusting = Day {
        trust_topic: true,
        ..Day::today()
    };
    is_published_as(trusting.judge(&stored), &record, false);
    for reason in ["stale", "invalid_event", "other", ""] {
        for (name, value) in &mut stored.headers {
            if name == "dead_letter_reason" {
                *value = reason.into();
            }
        }
        let detail = "signature is missing or unusable";
        let Judgement::Stay(Outcome::NotAuthentic, why) = trusting.judge(&stored) else {
            panic!("{reason}");
        };
        assert!(why.ends_with("is missing or unusable"), "{detail}: {why}");
    }
}

#[test]
fn a_rejected_value_is_published_only_if_the_topic_is_trusted() {
    let record = Day::today().serve(&join(), RECEIVED_AT);
    let stored = letter(&record.rejected("message too large"));
    stays(
        Day::today().judge(&stored),
        &Outcome::NotTrusted,
        "message too large",
    );
    let trusting = Day {
        trust_topic: true,
        ..Day::today()
    };
    is_published_as(trusting.judge(&stored), &record, false);
    // With the trust, others are authenticated all the same.
    let other = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
    is_published_as(trusting.judge(&other), &record, true);
}

#[test]
fn what_is_discarded_omitted_or_a_question_today_is_so_for_dead_letters_too() {
    let stored = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
    let discarding = Day {
        routes: Routes::new([], "dead").discarding(["group_join"]),
        ..Day::today()
    };
    stays(discarding.judge(&stored), &Outcome::Discarded, "");
    let omitting = Day {
        policy: Policy {
            omit: Omit {
                extra: true,
                ..Omit::default()
            },
            tolerance: None,
        },
        ..Day::today()
    };
    let record = omitting.serve(&join(), RECEIVED_AT);
    is_published_as(omitting.judge(&stored), &record, true);
    assert!(String::from_utf8_lossy(&record.value).contains(r#""omitted":["extra"]"#));
    let question = dead(
        &body("before_send_msg", &json!({})),
        Reason::UnsupportedEvent,
        0,
    );
    stays(Day::today().judge(&question), &Outcome::Question, "");
}

#[test]
fn what_is_no_callback_stays() {
    for value in ["", "text", "[]", "{\"appid\":\"1\",\"appid\":\"1\"}"] {
        let mut stored = dead(&join(), Reason::InvalidEvent, RECEIVED_AT);
        stored.value = value.into();
        let judgement = Day::today().judge(&stored);
        assert!(
            matches!(judgement, Judgement::Stay(Outcome::Malformed, _)),
            "{value}"
        );
    }
}

#[test]
fn a_form_and_percent_encoded_json_are_judged_as_well() {
    let timestamp = TIMESTAMP.to_string();
    let signature = sign("secret", &timestamp, "350176").to_hex();
    let form = format!(
        "appid=1&event=group_join&timestamp={timestamp}&nonce=350176&signature={signature}&group_id=g%2B1&join_type=Apply&new_user_ids[]=u1"
    );
    let encoded = percent_encoding::utf8_percent_encode(
        str::from_utf8(&join()).expect("UTF-8"),
        percent_encoding::NON_ALPHANUMERIC,
    )
    .to_string();
    for body in [form, encoded] {
        let record = Day::today().serve(body.as_bytes(), RECEIVED_AT);
        let stored = dead(body.as_bytes(), Reason::InvalidEvent, RECEIVED_AT);
        is_published_as(Day::today().judge(&stored), &record, true);
    }
}

#[test]
fn equal_filters_on_a_topic_have_one_group_and_others_have_others() {
    use super::group;
    use crate::commands::filter::Filter;
    let of = |reason: &[Reason]| Filter {
        reason: reason.to_vec(),
        ..Filter::default()
    };
    let all = group("dead", &of(&[]));
    // Progress is found by this name, so it never changes.
    assert_eq!(all, "zim2kafka-redrive-dead-a6cdcd70f5c18693");
    let both = group("dead", &of(&[Reason::Stale, Reason::InvalidEvent]));
    assert_eq!(
        both,
        group("dead", &of(&[Reason::InvalidEvent, Reason::Stale]))
    );
    assert_ne!(
        both,
        group("other", &of(&[Reason::InvalidEvent, Reason::Stale]))
    );
    assert_ne!(both, all);
}

#[test]
fn the_mark_tells_what_became_of_a_transaction_although_the_offsets_are_the_same() {
    let stored = |mark: &str| Stored::from([(0, (7, mark.to_owned())), (1, (9, mark.to_owned()))]);
    let (before, attempted) = (stored("before"), stored("attempted"));
    let fate = |now: &Stored| Fate::of(now, &before, &attempted);
    assert_eq!(fate(&before), Fate::Aborted);
    assert_eq!(fate(&attempted), Fate::Committed);
    assert_eq!(fate(&stored("another")), Fate::Unknown);
    assert_eq!(fate(&Stored::new()), Fate::Unknown);
    // Kafka has forgotten the progress before anything was attempted.
    let none = Stored::new();
    assert_eq!(Fate::of(&none, &before, &none), Fate::Unknown);
    assert_eq!(Fate::of(&none, &none, &attempted), Fate::Aborted);
}
