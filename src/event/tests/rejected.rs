//! Records that are made again from the value that Kafka had rejected.

use super::*;

/// Judges the value of a rejected record; every event has a topic.
fn again(value: &Bytes, policy: &Policy) -> Verdict {
    again_with(value, policy, &routes(), None)
}

fn again_with(
    value: &Bytes,
    policy: &Policy,
    routes: &Routes,
    age_limit: Option<Duration>,
) -> Verdict {
    let rules = Rules {
        routes,
        policy,
        age_limit,
    };
    rules.judge_rejected(value, None).verdict
}

fn routes() -> Routes {
    Routes::new(EVENTS.map(|kind| (kind.name, "topic")), "dead")
}

/// All that is published of a record.
fn published(record: &Record) -> impl PartialEq + std::fmt::Debug {
    let headers: Vec<_> = (record.headers.iter())
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect();
    (
        record.event.clone(),
        record.event_id,
        record.key.clone(),
        record.timestamp,
        headers,
        String::from_utf8_lossy(&record.value).into_owned(),
    )
}

#[track_caller]
fn is_made_again(record: &Record, policy: &Policy) {
    match again(&record.value, policy) {
        Verdict::Event(made) => {
            assert_eq!(published(&made), published(record));
            assert_eq!(made.times, record.times);
            assert_eq!(made.counted, None);
        }
        other => panic!("{record:?}: {other:?}"),
    }
}

#[test]
fn the_record_of_every_example_is_made_again() {
    let policy = Policy::default();
    omit::each_example(|kind, example, fields| {
        let (record, _) = omit::record_of(kind, example, fields, &policy.omit);
        is_made_again(&record, &policy);
    });
}

#[test]
fn the_record_of_every_vector_is_made_again() {
    let (policy, records) = catalogue::records_of_vectors();
    assert!(records.len() > 50);
    for record in records {
        is_made_again(&record, &policy);
    }
}

/// What is left out today is left out of records that were made before, and named.
#[test]
fn the_omitted_fields_of_today_are_left_out() {
    let all = Omit {
        content: true,
        user_name: true,
        extra: true,
        fields: ["msg_seq"].into(),
    };
    let classes = [
        Omit {
            extra: true,
            ..Omit::default()
        },
        Omit {
            fields: ["msg_seq", "session_id"]
                .into_iter()
                .filter(|name| is_omittable(name))
                .collect(),
            ..Omit::default()
        },
        all.clone(),
    ];
    for omit in classes {
        let policy = Policy {
            omit: omit.clone(),
            tolerance: None,
        };
        omit::each_example(|kind, example, fields| {
            let (whole, _) = omit::record_of(kind, example, fields, &Omit::default());
            let Verdict::Event(made) = again(&whole.value, &policy) else {
                panic!("{example}");
            };
            let (less, _) = omit::record_of(kind, example, fields, &omit);
            // A field that the callback did not have, or had as an empty ID, is null in the record
            // and not named either way.
            assert_eq!(published(&made), published(&less), "{example}");
            // Once more leaves out nothing more.
            is_made_again(&less, &policy);
        });
    }
}

#[test]
fn the_key_is_that_of_the_fields_also_if_the_dead_letter_has_none() {
    let long = "g".repeat(2000);
    let record = authentic(callback(&json!({"group_id": long})).to_string());
    assert_eq!(record.rejected("too large").key, None);
    is_made_again(&record, &Policy::default());
}

#[test]
fn todays_routes_and_tolerance_apply() {
    let record = authentic(callback(&json!({})).to_string());
    let policy = Policy::default();
    let with = |routes: &Routes, limit| again_with(&record.value, &policy, routes, limit);
    let none = Routes::new([], "dead");
    let why = |verdict| match verdict {
        Verdict::DeadLetter(why) => (why.reason, why.detail.into_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        why(with(&none, None)),
        (
            Reason::UnsupportedEvent,
            "the event is \"group_join\"".to_owned()
        )
    );
    let discarding = none.discarding([GROUP_JOIN]);
    assert!(matches!(with(&discarding, None), Verdict::Discarded));
    // It was received 877 ms after its timestamp.
    let limit = |milliseconds| Some(Duration::from_millis(milliseconds));
    assert!(matches!(with(&routes(), limit(877)), Verdict::Event(_)));
    assert_eq!(why(with(&routes(), limit(876))).0, Reason::Stale);
}

#[test]
fn what_is_not_the_value_of_a_record_stays_a_dead_letter() {
    let record = authentic(callback(&json!({})).to_string());
    let value: Value = serde_json::from_slice(&record.value).expect("JSON");
    let changed = |name: &str, to: Value| {
        let mut value = value.clone();
        value[name] = to;
        Bytes::from(value.to_string())
    };
    let values = [
        (Bytes::from_static(b""), Reason::InvalidEvent),
        (Bytes::from_static(b"[]"), Reason::InvalidEvent),
        (
            Bytes::from_static(b"{\"event\":\"\xff\"}"),
            Reason::InvalidEvent,
        ),
        (Bytes::from_static(b"{}"), Reason::InvalidEvent),
        (changed("event_id", "1".into()), Reason::InvalidEvent),
        (changed("timestamp", json!(-1)), Reason::InvalidEvent),
        (
            changed("timestamp", json!(10_000_000_000_000_i64)),
            Reason::InvalidEvent,
        ),
        (
            changed("timestamp", json!("1757577600123")),
            Reason::InvalidEvent,
        ),
        (changed("group_id", Value::Null), Reason::InvalidEvent),
        (
            changed("event", "group_joined".into()),
            Reason::UnsupportedEvent,
        ),
        // Callbacks may use this name, records never do.
        (
            changed("event", "Apply_join_group".into()),
            Reason::UnsupportedEvent,
        ),
        (
            changed("event", BEFORE_SEND_MESSAGE.into()),
            Reason::UnsupportedEvent,
        ),
    ];
    for (value, reason) in values {
        match again(&value, &Policy::default()) {
            Verdict::DeadLetter(why) => assert_eq!(why.reason, reason, "{value:?}: {why:?}"),
            other => panic!("{value:?}: {other:?}"),
        }
    }
}
