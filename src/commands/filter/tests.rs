//! What the filters take and refuse.

use clap::Parser;

use super::*;

/// 2026-11-27T06:00:00Z.
const NOW: i64 = 1_795_759_200_000;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    filter: Filter,
}

fn filter(flags: &[&str]) -> Filter {
    let line = std::iter::once("test").chain(flags.iter().copied());
    Line::try_parse_from(line).expect("it is valid").filter
}

fn record(reason: Option<&str>, key: Option<&str>, value: &str) -> Consumed {
    let header = |reason: &str| ("dead_letter_reason".to_owned(), reason.into());
    Consumed {
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: Some(NOW),
        key: key.map(Into::into),
        headers: reason.map(header).into_iter().collect(),
        value: value.into(),
    }
}

#[test]
fn without_flags_every_record_is_taken() {
    let all = filter(&[]);
    assert!(all.matches(&record(None, None, "not JSON")));
    let untimed = Consumed {
        timestamp: None,
        ..record(Some("stale"), Some("g"), "{}")
    };
    assert!(all.matches(&untimed));
    assert_eq!(all.to_string(), "");
}

#[test]
fn a_key_is_compared_as_a_whole() {
    let wanted = filter(&["--key", r#"["a","b"]"#]);
    assert!(wanted.matches(&record(None, Some(r#"["a","b"]"#), "{}")));
    for other in [None, Some(""), Some("a"), Some(r#"["a","b"]x"#)] {
        assert!(!wanted.matches(&record(None, other, "{}")), "{other:?}");
    }
}

#[test]
fn an_event_is_found_in_every_encoding_and_by_its_other_names() {
    let wanted = filter(&["--event", "group_join,send_msg"]);
    for value in [
        r#"{"event":"group_join"}"#,
        r#"{"a":1,"event":"send_msg"}"#,
        r#"{"event":"Apply_join_group"}"#,
        r#"{"event":"zim_send_msg"}"#,
        "appid=1&event=group_join",
        "%7B%22event%22%3A%22group_join%22%7D",
    ] {
        assert!(wanted.matches(&record(None, None, value)), "{value}");
    }
    for value in [
        r#"{"event":"group_exit"}"#,
        r#"{"x":{"event":"group_join"}}"#,
        r#"{"event":"group_join","event":"group_join"}"#,
        r#"{"msg_body":"group_join"}"#,
        "group_join",
        "",
    ] {
        assert!(!wanted.matches(&record(None, None, value)), "{value}");
    }
    let named = |name| Parts {
        key: None,
        event: EventName::Known(name),
        reason: None,
        timestamp: None,
    };
    assert!(wanted.takes(named("send_msg")) && !wanted.takes(named("group_exit")));
}

#[test]
fn one_of_several_reasons_is_enough() {
    let wanted = filter(&["--reason=stale", "--reason=invalid_event,rejected_by_kafka"]);
    for reason in ["stale", "invalid_event", "rejected_by_kafka"] {
        assert!(wanted.matches(&record(Some(reason), None, "{}")));
    }
    for other in [None, Some("unsupported_event"), Some("stale "), Some("")] {
        assert!(!wanted.matches(&record(other, None, "{}")), "{other:?}");
    }
}

#[test]
fn since_is_within_and_until_is_not_so_that_ranges_can_follow_each_other() {
    let (before, after) = ((NOW - 1).to_string(), (NOW + 1).to_string());
    let now = NOW.to_string();
    let takes = |flags: &[&str]| filter(flags).matches(&record(None, None, "{}"));
    assert!(takes(&["--since", &now]) && takes(&["--since", &before]));
    assert!(!takes(&["--since", &after]));
    assert!(takes(&["--until", &after]));
    assert!(!takes(&["--until", &now]) && !takes(&["--until", &before]));
    assert!(takes(&["--since", &now, "--until", &after]));
    let untimed = Consumed {
        timestamp: None,
        ..record(None, None, "{}")
    };
    assert!(!filter(&["--since", &before]).matches(&untimed));
    assert!(!filter(&["--until", &after]).matches(&untimed));
}

#[test]
fn a_record_must_pass_every_flag() {
    let wanted = filter(&["--key=g", "--reason=stale", "--event=group_join"]);
    let join = r#"{"event":"group_join"}"#;
    assert!(wanted.matches(&record(Some("stale"), Some("g"), join)));
    for (reason, key, value) in [
        ("invalid_event", "g", join),
        ("stale", "h", join),
        ("stale", "g", "{}"),
    ] {
        assert!(!wanted.matches(&record(Some(reason), Some(key), value)));
    }
}

#[test]
fn a_time_is_absolute_or_an_age() {
    for (text, at) in [
        ("2026-11-27T06:00:00Z", NOW),
        ("2026-11-27 06:00:00.250Z", NOW + 250),
        ("2026-11-27t07:00+01:00", NOW),
        ("1795759200000", NOW),
        ("1795759200", NOW),
    ] {
        assert_eq!(moment_at(text, 0), Ok(Moment { at, age: None }), "{text}");
    }
    const MINUTE: i64 = 60_000;
    for (text, age) in [
        ("10m", 10 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("2 h", 120 * MINUTE),
        ("7d", 7 * 1440 * MINUTE),
        ("1w", 7 * 1440 * MINUTE),
        ("250ms", 250),
        ("0s", 0),
        ("PT10M", 10 * MINUTE),
    ] {
        let expected = Moment {
            at: NOW - age,
            age: Some(age),
        };
        assert_eq!(moment_at(text, NOW), Ok(expected), "{text}");
    }
    // Longer ago than there are times.
    assert_eq!(moment_at("1000000h", NOW).expect("an age").at, 0);
}

#[test]
fn what_is_no_time_is_refused_with_what_to_write() {
    const WRITE: &str =
        "write a time such as 2026-11-27T06:00:00Z, or an age such as 10m, 2h or 7d";
    let neither = "is neither a time nor an age";
    for (text, problem) in [
        ("", neither),
        ("soon", neither),
        ("06:00", neither),
        ("3mo", neither),
        ("10M", neither),
        ("2026-13-01T00:00:00Z", neither),
        ("10", "has no unit"),
        ("179575920000", "has no unit"),
        ("-10m", "is negative, but an age counts back from now"),
        ("10m ago", "is negative, but an age counts back from now"),
    ] {
        let expected = format!("{text:?} {problem}; {WRITE}");
        assert_eq!(moment_at(text, NOW), Err(expected));
    }
    for (text, instead) in [
        ("2026-11-27T06:00:00", "2026-11-27T06:00:00Z"),
        ("2026-11-27 06:00", "2026-11-27T06:00:00Z"),
        ("2026-11-27", "2026-11-27T00:00:00Z"),
    ] {
        let expected =
            format!("{text:?} has no time zone; write {instead} for UTC, or an age such as 10m");
        assert_eq!(moment_at(text, NOW), Err(expected));
    }
}

#[test]
fn a_reason_with_a_typo_is_refused_with_the_one_that_is_meant() {
    for (text, instead) in [
        ("Stale", "did you mean stale?"),
        ("invalid", "did you mean invalid_event?"),
        ("unsupported-event", "did you mean unsupported_event?"),
        ("rejected", "did you mean rejected_by_kafka?"),
        (
            "late",
            "write one of unsupported_event, invalid_event, stale, rejected_by_kafka",
        ),
    ] {
        let refused = reason(text).expect_err(text);
        assert!(refused.contains(instead), "{refused}");
    }
    for known in Reason::VARIANTS {
        assert_eq!(reason(known.into()), Ok(*known));
    }
}

fn faults(of: &Filter, check: impl Fn(&Filter, &mut Faults)) -> String {
    let mut faults = Faults::default();
    check(of, &mut faults);
    match faults.finish(Some(())) {
        Ok(()) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_range_that_is_empty_is_refused() {
    let since_now = |until: &str| {
        let filter = filter(&["--since", "2026-11-27T06:00:00Z", "--until", until]);
        faults(&filter, Filter::check)
    };
    assert_eq!(since_now("2026-11-27T06:00:01Z"), "");
    let expected = "--until: 2026-11-27T06:00:00Z is not after --since 2026-11-27T06:00:00Z, so no record can match; write a later time, or a shorter age than that of --since";
    assert_eq!(since_now("2026-11-27T06:00:00Z"), expected);
    let ages = |since, until| {
        faults(
            &filter(&["--since", since, "--until", until]),
            Filter::check,
        )
    };
    assert_eq!(ages("1h", "10m"), "");
    assert!(ages("10m", "1h").starts_with("--until: "));
}

#[test]
fn events_have_known_names_and_no_reason() {
    let check = |flags: &[&str]| {
        let add = |filter: &Filter, faults: &mut Faults| {
            filter.check_events("add --dead-letter", faults);
        };
        faults(&filter(flags), add)
    };
    assert_eq!(check(&["--event=group_join,send_msg", "--key=g"]), "");
    let refused = check(&["--event=group_join,group_jion"]);
    assert_eq!(
        refused,
        "--event: \"group_jion\" is not an event; did you mean group_join?"
    );
    let refused = check(&["--reason=stale"]);
    assert_eq!(
        refused,
        "--reason: only dead letters have a reason; add --dead-letter"
    );
    assert_eq!(filter(&["--event=group_join"]).warnings(), [""; 0]);
    assert_eq!(filter(&["--event=brand-new"]).warnings(), [""; 0]);
    assert_eq!(
        filter(&["--event=group_jion"]).warnings(),
        [
            "--event: \"group_jion\" is not an event, so only dead letters can match it; did you mean group_join?"
        ]
    );
}

/// `redrive` finds its progress by this text, so it never changes.
#[test]
fn equal_filters_have_one_canonical_text() {
    let same = [
        ["--event=send_msg,group_join", "--since=10m", "--until=0s"],
        [
            "--event=group_join,send_msg,group_join",
            "--since=600s",
            "--until=0m",
        ],
    ];
    for flags in same {
        assert_eq!(
            filter(&flags).canonical(),
            r#"{"event":["group_join","send_msg"],"key":null,"reason":[],"since":"600000 ms ago","until":"0 ms ago"}"#
        );
    }
    let other = filter(&[
        "--key=g\"1",
        "--reason=stale,invalid_event",
        "--since=2026-11-27T07:00:00+01:00",
    ]);
    assert_eq!(
        other.canonical(),
        r#"{"event":[],"key":"g\"1","reason":["invalid_event","stale"],"since":"2026-11-27T06:00:00Z","until":null}"#
    );
    assert_eq!(
        other.to_string(),
        "reason stale,invalid_event, key g\\\"1, since 2026-11-27T06:00:00Z"
    );
}
