use super::*;

#[test]
fn the_body_of_readyz_names_the_reason() {
    let deadline = Duration::from_secs(2);
    let text = |spool_works, kafka_is_up, topic_found, waited, cause: Option<&str>| {
        let state = DeliveryState {
            spool_works,
            spool_is_full: false,
            kafka_is_up,
            kafka_errors: match kafka_is_up {
                true => String::new(),
                false => "connect: a:1: refused".to_owned(),
            },
            cause: cause.map(str::to_owned),
            schema_obstacle: None,
            oldest_ages: vec![("t".to_owned(), Duration::from_secs(waited))],
        };
        judge(&state, topic_found, deadline).to_string()
    };
    let leaderless = Some("the topic t has no leader for partition 0");
    let full = DeliveryState {
        spool_works: Some(false),
        spool_is_full: true,
        kafka_is_up: true,
        kafka_errors: String::new(),
        cause: None,
        schema_obstacle: None,
        oldest_ages: vec![("t".to_owned(), Duration::ZERO)],
    };
    let none_found = DeliveryState {
        oldest_ages: ["t", "u"]
            .map(|topic| (topic.to_owned(), Duration::ZERO))
            .into(),
        ..full.clone()
    };
    assert_eq!(
        judge(&none_found, false, deadline).to_string(),
        "not ready: the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES), and none of the topics t, u has been found"
    );
    for (text, expected) in [
        (
            judge(&full, true, deadline).to_string(),
            "degraded: the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES); Kafka works",
        ),
        (text(None, true, true, 0, None), "ready"),
        (text(Some(true), true, true, 1, None), "ready"),
        (
            text(Some(true), false, true, 0, None),
            "degraded: Kafka cannot be reached (connect: a:1: refused); events go to the spool",
        ),
        (
            text(Some(true), true, false, 0, None),
            "degraded: the topic t has not been found; events go to the spool",
        ),
        (
            text(Some(true), true, true, 0, leaderless),
            "degraded: the topic t has no leader for partition 0; events go to the spool",
        ),
        (text(None, true, true, 0, leaderless), "ready"),
        (
            text(Some(false), true, true, 0, None),
            "degraded: the spool takes no records; Kafka works",
        ),
        (
            text(None, false, true, 0, None),
            "not ready: Kafka cannot be reached (connect: a:1: refused)",
        ),
        (
            text(None, true, false, 0, None),
            "not ready: the topic t has not been found",
        ),
        (
            text(Some(false), false, true, 0, None),
            "not ready: the spool takes no records, and Kafka cannot be reached (connect: a:1: refused)",
        ),
        (
            text(Some(true), true, true, 2, None),
            "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE",
        ),
        (
            text(None, true, true, 2, leaderless),
            "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE (the topic t has no leader for partition 0)",
        ),
        (
            text(None, false, true, 2, None),
            "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE (Kafka cannot be reached (connect: a:1: refused))",
        ),
    ] {
        assert_eq!(text, expected);
    }
}

#[test]
fn a_topic_that_takes_no_events_makes_the_service_unready_only_if_no_other_may_work() {
    let text = |ages: &[u64], spool_works, kafka_is_up, topic_found, cause: Option<&str>| {
        let ages = ["a", "b", "c"].into_iter().zip(ages);
        let ages = ages.map(|(topic, age)| (topic.to_owned(), Duration::from_secs(*age)));
        let state = DeliveryState {
            spool_works,
            spool_is_full: spool_works == Some(false),
            kafka_is_up,
            kafka_errors: String::new(),
            cause: cause.map(str::to_owned),
            schema_obstacle: None,
            oldest_ages: ages.collect(),
        };
        judge(&state, topic_found, Duration::from_secs(2)).to_string()
    };
    let late = "waited longer than ZIM2KAFKA_ANSWER_DEADLINE";
    let missing = Some("the topic a has not been found");
    let not_ready = format!("not ready: an event has {late}");
    for (text, expected) in [
        (text(&[1, 1, 0], None, true, true, None), "ready".to_owned()),
        (
            text(&[2, 0, 0], None, true, true, missing),
            format!(
                "degraded: events of a have {late} (the topic a has not been found); those of other topics have not"
            ),
        ),
        // Before the cause is known.
        (
            text(&[2, 1, 9], None, true, true, None),
            format!("degraded: events of a, c have {late}; those of other topics have not"),
        ),
        (
            text(&[9, 0], Some(false), true, true, missing),
            format!(
                "degraded: events of a have {late} (the topic a has not been found); those of other topics have not; the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES)"
            ),
        ),
        (text(&[2, 2, 9], None, true, true, None), not_ready.clone()),
        (
            text(&[9, 9], Some(false), true, true, missing),
            format!("{not_ready} (the topic a has not been found)"),
        ),
        (text(&[9], None, true, true, None), not_ready.clone()),
        // Then the others do not work either.
        (
            text(&[9, 0], Some(true), false, true, None),
            format!("{not_ready} (Kafka cannot be reached)"),
        ),
        (text(&[9, 0], None, true, false, None), not_ready.clone()),
        (text(&[], None, true, true, None), "ready".to_owned()),
    ] {
        assert_eq!(text, expected);
    }
}

#[test]
fn a_service_is_not_ready_while_it_opens_its_spool() {
    let metrics = Arc::new(Metrics::new());
    let health = Health::new(metrics, Duration::from_secs(2));
    assert_eq!(health.readiness().to_string(), "not ready: starting");
    for (stage, expected) in [
        (
            OpenStage::Waiting,
            "not ready: waiting for another process to release the spool",
        ),
        (
            OpenStage::Loading(2_500_000_000),
            "not ready: loading the file of the spool, 2500 MB so far",
        ),
        (
            OpenStage::Checking,
            "not ready: checking the file of the spool",
        ),
        (
            OpenStage::Reading(1_234_000),
            "not ready: reading the spool, 1234000 records so far",
        ),
        (
            OpenStage::Migrating,
            "not ready: bringing the spool to this version's format",
        ),
        (
            OpenStage::Recovering,
            "not ready: recovering the damaged spool",
        ),
    ] {
        health.set_opening(stage);
        assert!(!health.readiness().is_ready());
        assert_eq!(health.readiness().to_string(), expected);
    }
    health.set_stopping();
    assert_eq!(health.readiness().to_string(), "not ready: stopping");
}
