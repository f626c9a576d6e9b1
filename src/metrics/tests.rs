use super::*;
use crate::event::Label;

#[test]
fn every_value_of_a_label_counts_its_own_series() {
    let metrics = Metrics::new();
    for &outcome in Outcome::VARIANTS {
        metrics.callback_arrived().finished(outcome);
        let counted = format!("{{outcome=\"{}\"}} 1\n", <&str>::from(outcome));
        let series = format!("zim2kafka_callbacks_total{counted}");
        let durations = format!("zim2kafka_callback_duration_seconds_count{counted}");
        let text = metrics.text();
        assert!(
            text.contains(&series) && text.contains(&durations),
            "{text}"
        );
    }
    for &reason in Reason::VARIANTS {
        metrics.record_durable(Counted::DeadLetter(reason), Duration::ZERO);
        let series = format!("zim2kafka_dead_letters_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
    for &join_type in JoinType::VARIANTS {
        let users = 3;
        let joined = Some(Joined { join_type, users });
        metrics.record_durable(Counted::Event { joined }, Duration::ZERO);
        let join_type: &str = join_type.into();
        let series = format!("zim2kafka_group_joins_total{{join_type=\"{join_type}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{join_type}");
    }
    for &reason in CloseReason::VARIANTS {
        metrics.connections().closed_by_us(reason);
        let reason: &str = reason.into();
        let series = format!("zim2kafka_connections_cut_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
    for &reason in RefusalReason::VARIANTS {
        metrics.connections().request_refused(reason);
        let reason: &str = reason.into();
        let series = format!("zim2kafka_requests_refused_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.text().contains(&series), "{reason}");
    }
}

/// Whether it can be the outcome of a callback that is authentic.
fn is_of_events(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Published
        | Outcome::Spooled
        | Outcome::Duplicate
        | Outcome::DeadLettered
        | Outcome::Discarded
        | Outcome::Passed
        | Outcome::Unavailable => true,
        Outcome::Malformed
        | Outcome::Unauthorized
        | Outcome::Forbidden
        | Outcome::TooLarge
        | Outcome::TimedOut
        | Outcome::Failed => false,
    }
}

#[test]
fn every_event_counts_its_own_series_by_outcome() {
    let metrics = Metrics::new();
    let mut expected = Vec::new();
    let name = |event: Label, outcome: Outcome| {
        let (event, outcome) = (event.name(), <&str>::from(outcome));
        format!("zim2kafka_events_total{{event=\"{event}\",outcome=\"{outcome}\"}}")
    };
    for event in Label::all() {
        for (count, &outcome) in (1..).zip(Outcome::VARIANTS) {
            for _ in 0..count {
                let mut arrival = metrics.callback_arrived();
                arrival.set_event(event);
                arrival.finished(outcome);
            }
            if is_of_events(outcome) {
                expected.push(format!("{} {count}", name(event, outcome)));
            }
        }
    }
    // A callback whose event is unknown is counted for no event.
    metrics.callback_arrived().finished(Outcome::Unavailable);
    let text = metrics.text();
    let mut counted: Vec<_> = (text.lines())
        .filter(|line| line.starts_with("zim2kafka_events_total"))
        .collect();
    counted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(counted, expected);
}

#[test]
fn an_authentic_callback_without_an_answer_or_with_a_bug_has_no_outcome_by_event() {
    let metrics = Metrics::new();
    let mut arrival = metrics.callback_arrived();
    arrival.set_event(Label::OTHER);
    drop(arrival);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut arrival = metrics.callback_arrived();
        arrival.set_event(Label::OTHER);
        panic!("for a test");
    }));
    assert!(panicked.is_err());
    let text = metrics.text();
    let series = text.lines().filter(|line| line.starts_with("zim2kafka_"));
    let counted: Vec<_> = series.filter(|line| line.ends_with(" 1")).collect();
    assert!(counted.contains(&"zim2kafka_callbacks_total{outcome=\"failed\"} 1"));
    assert!(
        !counted.iter().any(|line| line.contains("events_total")),
        "{counted:?}"
    );
    let in_flight = "zim2kafka_callbacks_in_flight 0";
    assert!(text.lines().any(|line| line == in_flight));
}

#[test]
fn the_lag_of_an_event_is_in_its_bucket_and_a_dead_letter_has_none() {
    let metrics = Metrics::new();
    let event = Counted::Event { joined: None };
    for milliseconds in [0, 1, 800, 5_000, 700_000] {
        metrics.record_durable(event, Duration::from_millis(milliseconds));
    }
    let dead_letter = Counted::DeadLetter(Reason::Stale);
    metrics.record_durable(dead_letter, Duration::from_secs(1));
    let text = metrics.text();
    for line in [
        "bucket{le=\"0.001\"} 2",
        "bucket{le=\"0.5\"} 2",
        "bucket{le=\"1\"} 3",
        "bucket{le=\"5\"} 4",
        "bucket{le=\"+Inf\"} 5",
        "count 5",
        "sum 705.801",
    ] {
        let line = format!("zim2kafka_event_lag_seconds_{line}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[test]
fn an_application_has_its_series_from_when_it_is_configured_until_it_is_not() {
    let metrics = Metrics::new();
    let series = || -> Vec<String> {
        let text = metrics.text();
        let lines = (text.lines()).filter(|line| line.starts_with("zim2kafka_app_callbacks_total"));
        lines.map(str::to_owned).collect()
    };
    let of = |appid: &str, accepted: u32, unauthorized: u32| {
        let name = format!("zim2kafka_app_callbacks_total{{appid=\"{appid}\",outcome=");
        [
            format!("{name}\"accepted\"}} {accepted}"),
            format!("{name}\"unauthorized\"}} {unauthorized}"),
        ]
    };
    assert_eq!(series(), of("other", 0, 0));
    let first = metrics.apps().of(Some("1"));
    assert_eq!(series(), [of("1", 0, 0), of("other", 0, 0)].concat());
    first.accepted.inc();
    metrics.apps().of(Some("1")).unauthorized.inc();
    metrics.apps().of(None).unauthorized.inc();
    assert_eq!(series(), [of("1", 1, 1), of("other", 0, 1)].concat());
    metrics.apps().remove("1");
    assert_eq!(series(), of("other", 0, 1));
}
