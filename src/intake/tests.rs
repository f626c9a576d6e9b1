//! The order of the steps, with the clock in the tests' hands: `RawCallback::received_at` is it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::callback::sign;
use crate::delivery::{Durability, Settled};
use crate::event::{GROUP_JOIN, Omit, Routes};
use crate::kafka::{EmbeddedKafka, KafkaSettings, Properties};

/// The time of every callback here, in ms.
const THEN: i64 = 1_757_577_600_123;

const TOLERANCE: i64 = 600_000;

/// An intake in front of a Kafka that is not there, so that everything stays on its way.
fn intake() -> Intake {
    intake_at("127.0.0.1:1")
}

fn intake_at(brokers: &str) -> Intake {
    intake_with(brokers, Routes::new([(GROUP_JOIN, "joined")], "dead"))
}

fn intake_with(brokers: &str, routes: Routes) -> Intake {
    let kafka = KafkaSettings {
        brokers: brokers.to_owned(),
        properties: Properties::default(),
        routes,
        create_topics: None,
        schema_ids: None,
    };
    let settings = IntakeSettings {
        secrets: Secrets::parse_list("1=secret").expect("a list"),
        timestamp_unit: TimestampUnit::Auto,
        timestamp_tolerance: Some(Duration::from_millis(TOLERANCE.unsigned_abs())),
        omit: Omit::default(),
    };
    let metrics = Arc::new(Metrics::new());
    let delivery = Delivery::start(&kafka, None, &metrics).expect("it starts");
    Intake::new(settings, Arc::new(delivery), metrics)
}

/// A signed callback that arrives at this time.
fn callback(received_at: i64, fields: &Value) -> RawCallback {
    let mut body = json!({
        "appid": "1",
        "event": "group_join",
        "group_id": "g1",
        "join_type": "Apply",
        "new_user_ids": ["u1"],
        "nonce": "350176",
        "timestamp": THEN.to_string(),
        "signature": sign("secret", &THEN.to_string(), "350176").to_hex(),
    });
    let members = body.as_object_mut().expect("an object");
    members.extend(fields.as_object().expect("an object").clone());
    RawCallback {
        body: Bytes::from(body.to_string()),
        content_type: None,
        trace: None,
        received_at,
    }
}

fn accept(intake: &Intake, raw: &RawCallback) -> Result<Accepted, Refusal> {
    let authentic = intake.accept(raw)?;
    Ok(authentic.result.expect("there is space"))
}

#[track_caller]
fn on_its_way(intake: &Intake, raw: &RawCallback) -> Arc<Ticket> {
    match accept(intake, raw) {
        Ok(Accepted::Pending(ticket)) => ticket,
        Ok(_) => panic!("it is not on its way"),
        Err(refusal) => panic!("it is refused: {refusal}"),
    }
}

fn metric(intake: &Intake, line: &str) -> bool {
    intake.metrics.text().lines().any(|found| found == line)
}

/// Why a callback is a dead letter, where it is one.
fn stale(intake: &Intake, raw: &RawCallback) -> Option<String> {
    let json = raw.json().expect("an object");
    let unverified = json.decode().expect("an object");
    let (callback, _) = intake.authenticate(raw, unverified).expect("authentic");
    match intake.rules().judge(&callback).verdict {
        Verdict::DeadLetter(why) => {
            assert_eq!(why.reason, Reason::Stale);
            Some(why.detail.into_owned())
        }
        Verdict::Event(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn freshness_ends_one_millisecond_behind_the_tolerance_on_either_side() {
    let intake = intake();
    for (age, detail) in [
        (0, None),
        (TOLERANCE, None),
        (-TOLERANCE, None),
        (TOLERANCE + 1, Some("its timestamp is 600 s old")),
        (-TOLERANCE - 1, Some("its timestamp is 600 s in the future")),
    ] {
        let raw = callback(THEN + age, &json!({}));
        assert_eq!(stale(&intake, &raw).as_deref(), detail, "{age}");
    }
    // The farthest that thirteen digits reach does not overflow anything.
    for received_at in [i64::MAX, 0] {
        assert!(stale(&intake, &callback(received_at, &json!({}))).is_some());
    }
}

/// Only the event's name and fields decide whether a callback is discarded.
#[test]
fn every_authentic_callback_of_a_discarded_event_is_dropped_and_no_other() {
    let routes = Routes::new([("group_exit", "left")], "dead");
    let routes = routes.discarding(["send_msg", "group_join", "room_create"]);
    let intake = intake_with("127.0.0.1:1", routes);
    let late = THEN + TOLERANCE + 1;
    let discarded = [
        callback(THEN, &json!({})),
        // Valid or not, fresh or not, under every name.
        callback(THEN, &json!({"new_user_ids": 1})),
        callback(late, &json!({})),
        callback(late, &json!({"event": "Apply_join_group", "group_id": ""})),
        callback(THEN, &json!({"event": "group_destroy"})),
        callback(THEN, &json!({"event": "send_msg"})),
        callback(late, &json!({"event": "zim_send_msg", "msg_body": 1})),
        callback(THEN, &json!({"event": "room_create", "room_id": "r"})),
    ];
    for raw in &discarded {
        // Retries too.
        for _ in 0..2 {
            let answer = accept(&intake, raw);
            assert!(matches!(answer, Ok(Accepted::Discarded)), "{:?}", raw.body);
        }
    }
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 0"));
    let kept = [
        callback(THEN, &json!({"event": "bot_msg"})),
        callback(THEN, &json!({"event": "group_exit"})),
        callback(THEN, &json!({"event": "group_joined"})),
        callback(THEN, &json!({"event": 1})),
        // Of another product of ZEGOCLOUD.
        callback(THEN, &json!({"event": "room_create", "room_session_id": 1})),
    ];
    for raw in &kept {
        on_its_way(&intake, raw);
    }
    let mut wrong = callback(THEN, &json!({"event": "send_msg"}));
    wrong.body = String::from_utf8_lossy(&wrong.body)
        .replace("350176", "350177")
        .into();
    let answer = accept(&intake, &wrong);
    assert!(matches!(answer, Err(Refusal::Unauthorized { .. })));
}

#[test]
fn an_event_without_a_topic_is_an_unsupported_one_under_the_name_that_it_came_with() {
    let routes = Routes::new([(GROUP_JOIN, "joined")], "dead");
    let intake = intake_with("127.0.0.1:1", routes);
    for (event, detail) in [
        ("room_enter", r#"the event is "room_enter""#),
        ("create_group", r#"the event is "create_group""#),
        ("no_event", r#"the event is "no_event""#),
    ] {
        let raw = callback(THEN, &json!({ "event": event, "room_id": "r" }));
        let json = raw.json().expect("an object");
        let unverified = json.decode().expect("an object");
        let (callback, _) = intake.authenticate(&raw, unverified).expect("authentic");
        let Verdict::DeadLetter(why) = intake.rules().judge(&callback).verdict else {
            panic!("{event} has no topic");
        };
        assert_eq!(why.reason, Reason::UnsupportedEvent);
        assert_eq!(why.detail, detail);
        on_its_way(&intake, &raw);
    }
}

#[test]
fn a_resend_of_an_event_on_its_way_waits_for_the_same_answer() {
    let intake = intake();
    let raw = callback(THEN, &json!({}));
    let first = on_its_way(&intake, &raw);
    let second = on_its_way(&intake, &raw);
    assert!(Arc::ptr_eq(&first, &second));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 0"));
}

#[test]
fn a_resend_is_known_before_anybody_asks_how_old_it_is() {
    let intake = intake();
    let first = on_its_way(&intake, &callback(THEN, &json!({})));
    let late = callback(THEN + TOLERANCE + 1, &json!({}));
    assert!(Arc::ptr_eq(&first, &on_its_way(&intake, &late)));
    let other = callback(THEN + TOLERANCE + 1, &json!({"group_id": "g2"}));
    assert!(!Arc::ptr_eq(&first, &on_its_way(&intake, &other)));
}

#[tokio::test]
async fn a_resend_of_an_event_that_is_safe_is_a_duplicate_even_when_it_is_stale_by_now() {
    let kafka = EmbeddedKafka::start(&["joined", "dead"], 1).expect("it starts");
    let intake = intake_at(kafka.brokers());
    let ticket = on_its_way(&intake, &callback(THEN, &json!({})));
    let Settled::Durable(Durability::Published, event_id) = *ticket.wait().await else {
        panic!("it is not published");
    };
    let late = callback(THEN + TOLERANCE + 1, &json!({}));
    let Ok(Accepted::Duplicate(known)) = accept(&intake, &late) else {
        panic!("it is no duplicate");
    };
    assert_eq!(known, event_id);
    // A stale one that never came before is safe among the dead letters, and known from then on.
    let other = callback(THEN + TOLERANCE + 1, &json!({"group_id": "g2"}));
    let ticket = on_its_way(&intake, &other);
    assert!(matches!(
        ticket.wait().await,
        Settled::Durable(Durability::DeadLettered, _)
    ));
    assert!(matches!(
        accept(&intake, &other),
        Ok(Accepted::Duplicate(_))
    ));
}

#[test]
fn another_body_under_the_same_signature_is_an_event_of_its_own_and_counted() {
    let intake = intake();
    let first = on_its_way(&intake, &callback(THEN, &json!({})));
    let other = callback(THEN, &json!({"group_id": "g2"}));
    let second = on_its_way(&intake, &other);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 1"));
    // Its own resend is a resend, and no further reuse.
    assert!(Arc::ptr_eq(&second, &on_its_way(&intake, &other)));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 1"));
}

#[test]
fn digits_that_move_between_nonce_and_timestamp_are_a_reuse() {
    let intake = intake();
    let split = |timestamp: &str, nonce: &str| {
        let signature = sign("secret", "1757577600", "350176").to_hex();
        let parts = json!({"timestamp": timestamp, "nonce": nonce, "signature": signature});
        callback(THEN, &parts)
    };
    on_its_way(&intake, &split("1757577600", "350176"));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 0"));
    on_its_way(&intake, &split("1757577600350", "176"));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 1"));
}

#[test]
fn the_question_is_passed_whatever_else_is_wrong_with_it_and_not_remembered() {
    let intake = intake();
    for fields in [
        json!({"event": "before_send_msg"}),
        json!({"event": "before_send_msg", "group_id": 7}),
    ] {
        for received_at in [THEN, THEN, THEN + TOLERANCE + 1] {
            let answer = accept(&intake, &callback(received_at, &fields));
            assert!(matches!(answer, Ok(Accepted::Passed)), "{fields}");
        }
    }
    on_its_way(&intake, &callback(THEN, &json!({})));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 0"));
}

#[tokio::test]
async fn a_body_with_two_events_is_never_the_question() {
    let kafka = EmbeddedKafka::start(&["joined", "dead"], 1).expect("it starts");
    let intake = intake_at(kafka.brokers());
    let question = "before_send_msg";
    for (number, second) in [
        r#","event":"before_send_msg"}"#,
        r#","event":"group_join"}"#,
        r#","\u0065vent":"group_join"}"#,
        r#","event":null}"#,
        "&event=group_join",
        "&%65vent=before_send_msg",
        "&event[]=before_send_msg",
        "&event[0]=group_join",
    ]
    .into_iter()
    .enumerate()
    {
        let nonce = number.to_string();
        let signature = sign("secret", &THEN.to_string(), &nonce).to_hex();
        let fields = json!({"event": question, "nonce": nonce, "signature": signature});
        let mut raw = callback(THEN, &fields);
        let first = match second.starts_with('&') {
            false => {
                let body = str::from_utf8(&raw.body).expect("JSON");
                body.strip_suffix('}').expect("an object").to_owned()
            }
            true => format!(
                "appid=1&event={question}&timestamp={THEN}&nonce={nonce}&signature={signature}"
            ),
        };
        raw.body = Bytes::from(first + second);
        let ticket = on_its_way(&intake, &raw);
        let settled = ticket.wait().await;
        assert!(
            matches!(settled, Settled::Durable(Durability::DeadLettered, _)),
            "{second}"
        );
    }
    // A ticket may settle before its record is counted.
    let deadline = Instant::now() + Duration::from_secs(30);
    let counted = "zim2kafka_dead_letters_total{reason=\"invalid_event\"} 8";
    while !metric(&intake, counted) {
        assert!(Instant::now() < deadline, "{}", intake.metrics.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_dead_letter_that_is_resent_while_it_is_pending_is_listed_once() {
    let intake = intake();
    let stale = callback(THEN + TOLERANCE + 1, &json!({}));
    let first = on_its_way(&intake, &stale);
    assert!(Arc::ptr_eq(&first, &on_its_way(&intake, &stale)));
    let [problems, _] = intake.metrics.problems().lines();
    let problems = serde_json::to_value(problems).expect("JSON");
    assert_eq!(problems[0]["kind"], "dead letter");
    assert_eq!(problems[0]["count"], 1, "{problems}");
}

#[test]
fn what_is_refused_is_not_remembered() {
    let intake = intake();
    let forged = callback(THEN, &json!({"nonce": "350177"}));
    assert!(matches!(
        accept(&intake, &forged),
        Err(Refusal::Unauthorized { .. })
    ));
    let broken = RawCallback {
        body: Bytes::from_static(b"{"),
        ..forged
    };
    assert!(matches!(
        accept(&intake, &broken),
        Err(Refusal::Malformed(_))
    ));
    assert!(metric(
        &intake,
        "zim2kafka_last_callback_timestamp_seconds 0"
    ));
    on_its_way(&intake, &callback(THEN, &json!({})));
    assert!(metric(&intake, "zim2kafka_reused_signatures_total 0"));
    assert!(metric(
        &intake,
        "zim2kafka_last_callback_timestamp_seconds 1757577600.123"
    ));
}
