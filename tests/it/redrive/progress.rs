//! Filters, the progress of each set of them, and what is never published twice.

use serde_json::json;
use zim2kafka::event::{EVENTS, Reason};

use super::{Topics, has_row, invalid, join, now};
use crate::support::app::callback;
use crate::support::dead_letters::dead_letter;
use crate::support::kafka::kafka;

const STALE: [&str; 2] = ["--reason=stale", "--ignore-age"];

#[test]
fn each_set_of_filters_has_its_own_progress_and_none_publishes_twice() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    topics.put([
        join("a", Reason::Stale),
        join("b", Reason::InvalidEvent),
        invalid("c"),
    ]);
    let table = topics.redriven(&STALE);
    let selected = format!(
        "3 dead letters of {} read, 1 selected (reason stale)\n",
        topics.dead
    );
    assert!(table.starts_with(&selected), "{table}");
    assert_eq!(topics.keys(), ["a"]);
    let table = topics.redriven(&STALE);
    assert!(table.starts_with("0 dead letters"), "{table}");

    // Without filters, the progress is another one.
    let table = topics.redriven(&["--ignore-age"]);
    has_row(&table, 1, "published to");
    has_row(
        &table,
        1,
        "not published again: an earlier redrive has published them",
    );
    has_row(&table, 1, "still invalid_event");
    assert_eq!(topics.keys(), ["a", "b"]);

    topics.put([join("d", Reason::Stale)]);
    let table = topics.redriven(&STALE);
    assert!(table.starts_with("1 dead letter of"), "{table}");
    assert_eq!(topics.keys(), ["a", "b", "d"]);

    let again = ["--from-beginning", "--ignore-age"];
    let dry = topics.redriven(&[&again[..], &["--dry-run"]].concat());
    let table = topics.redriven(&again);
    assert!(dry.starts_with(&table), "{dry}{table}");
    has_row(&table, 3, "not published again");
    has_row(&table, 1, "still invalid_event");
    assert_eq!(topics.keys(), ["a", "b", "d"]);
    // Progress has not gone back.
    let table = topics.redriven(&["--ignore-age"]);
    assert!(table.starts_with("0 dead letters"), "{table}");

    topics.redriven(&[&again[..], &["--republish"]].concat());
    assert_eq!(topics.keys(), ["a", "a", "b", "b", "d", "d"]);
}

#[test]
fn nothing_is_published_again_although_kafka_has_forgotten_the_progress() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    topics.put([join("a", Reason::Stale), join("b", Reason::InvalidEvent)]);
    topics.redriven(&STALE);
    kafka.delete_groups(&format!("zim2kafka-redrive-{}-", topics.dead));
    let table = topics.redriven(&["--ignore-age"]);
    has_row(&table, 1, "published to");
    has_row(&table, 1, "not published again");
    assert_eq!(topics.keys(), ["a", "b"]);
}

/// A larger tolerance gives a record the message's own time, which is long before the signed one.
#[test]
fn what_was_published_with_another_tolerance_is_found() {
    let Some(kafka) = kafka() else { return };
    let mut topics = Topics::create(kafka);
    topics.set("ZIM2KAFKA_TOPICS", &format!("message={}", topics.events));
    let kind = EVENTS.into_iter().find(|kind| kind.name == "send_msg");
    let mut body: serde_json::Value =
        serde_json::from_str(kind.expect("one").examples[0]).expect("JSON");
    let (received, own) = (now(), now() - 3_600_000);
    body["timestamp"] = received.into();
    body["msg_time"] = own.into();
    let letter = dead_letter("secret", &callback(body), Reason::InvalidEvent, received);
    topics.put([letter]);
    topics.set("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "2h");
    topics.redriven(&[]);
    assert_eq!(topics.published()[0].timestamp, own);
    topics.set("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "60s");
    let table = topics.redriven(&["--from-beginning"]);
    has_row(&table, 1, "not published again");
    assert_eq!(topics.published().len(), 1);
}

#[test]
fn of_dead_letters_with_the_same_id_one_is_published() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let twin = join("a", Reason::InvalidEvent);
    topics.put([twin.clone(), join("b", Reason::InvalidEvent), twin]);
    for flag in ["--dry-run", "--from-beginning"] {
        let table = topics.redriven(&[flag]);
        has_row(&table, 1, "not published again");
    }
    assert_eq!(topics.keys(), ["a", "b"]);
    topics.redriven(&["--from-beginning", "--republish"]);
    assert_eq!(topics.keys(), ["a", "a", "a", "b", "b"]);
}

#[test]
fn a_dry_run_stores_no_progress() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    topics.put([join("a", Reason::InvalidEvent)]);
    for _ in 0..2 {
        let table = topics.redriven(&["--dry-run"]);
        has_row(&table, 1, "to be published to");
    }
    assert_eq!(topics.keys(), [""; 0]);
    topics.redriven(&[]);
    assert_eq!(topics.keys(), ["a"]);
}

#[test]
fn what_stayed_invalid_is_judged_again_only_from_the_beginning() {
    let Some(kafka) = kafka() else { return };
    let mut topics = Topics::create(kafka);
    let kind = EVENTS.into_iter().find(|kind| kind.name == "group_create");
    let mut body: serde_json::Value =
        serde_json::from_str(kind.expect("one").examples[0]).expect("JSON");
    body["group_id"] = "x".into();
    body["timestamp"] = now().into();
    let letter = dead_letter("secret", &callback(body), Reason::UnsupportedEvent, now());
    topics.put([letter, join("a", Reason::InvalidEvent)]);
    let both = format!("group_join={0},group={0}", topics.events);
    topics.set("ZIM2KAFKA_TOPICS", &format!("group_join={}", topics.events));
    let table = topics.redriven(&[]);
    has_row(&table, 1, "still unsupported_event");
    assert_eq!(topics.keys(), ["a"]);
    topics.set("ZIM2KAFKA_TOPICS", &both);
    assert!(topics.redriven(&[]).starts_with("0 dead letters"));
    topics.redriven(&["--from-beginning"]);
    assert_eq!(topics.keys(), ["a", "x"]);
}

#[test]
fn filters_select_by_key_event_and_time() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let at = |group: &str, received_at: i64| {
        let timestamp = received_at - 1_000;
        let body = callback(json!({"group_id": group, "timestamp": timestamp}));
        dead_letter("secret", &body, Reason::InvalidEvent, received_at)
    };
    const HOUR: i64 = 3_600_000;
    let now = now();
    topics.put([
        at("old", now - 3 * HOUR),
        at("middle", now - 2 * HOUR),
        at("new", now),
    ]);
    let (since, until) = ((now - 2 * HOUR).to_string(), (now - HOUR).to_string());
    topics.redriven(&["--since", &since, "--until", &until]);
    assert_eq!(topics.keys(), ["middle"]);
    topics.redriven(&["--key=new", "--event=group_join"]);
    assert_eq!(topics.keys(), ["middle", "new"]);
    let table = topics.redriven(&["--event=group_exit"]);
    assert!(table.starts_with(&format!(
        "3 dead letters of {} read, 0 selected",
        topics.dead
    )));
    topics.redriven(&["--until=150m"]);
    assert_eq!(topics.keys(), ["middle", "new", "old"]);
}

/// Tomorrow the same command selects what is too new today.
#[test]
fn an_age_as_the_limit_leaves_newer_dead_letters_to_a_later_run() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let two_hours = 7_200_000;
    let received = |received_at: i64| {
        let body = callback(json!({"group_id": "g", "timestamp": received_at}));
        dead_letter("secret", &body, Reason::InvalidEvent, received_at)
    };
    // All in one partition.
    let now = now();
    topics.put([received(now - two_hours), received(now - 1), received(now)]);
    for read in [1, 0] {
        let table = topics.redriven(&["--until=1h"]);
        assert!(table.starts_with(&format!("{read} dead letter")), "{table}");
    }
    let written = topics.kafka.read_all(&topics.dead);
    assert_eq!(written.len(), 3);
    topics.redriven(&["--until=0s"]);
    assert_eq!(topics.keys(), ["g", "g", "g"]);
}

#[test]
fn partitions_that_were_added_are_read_and_expired_dead_letters_are_reported() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let put = |groups: std::ops::Range<u32>| {
        let letters = groups.map(|group| join(&group.to_string(), Reason::InvalidEvent));
        topics.put(letters);
    };
    put(0..20);
    topics.redriven(&[]);
    kafka.add_partitions(&topics.dead, 6);
    put(20..60);
    topics.redriven(&[]);
    let mut expected: Vec<_> = (0..60).map(|group| group.to_string()).collect();
    expected.sort();
    assert_eq!(topics.keys(), expected);

    put(60..100);
    let ends = kafka.ends(&topics.dead, 0..6);
    for (partition, end) in &ends {
        kafka.delete_records(&topics.dead, *partition, end - 1);
    }
    let ended = topics.redrive(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("were removed before they were read"),
        "{ended:?}"
    );
    let table = ended.stdout;
    assert!(table.starts_with("6 dead letters"), "{table}");
    assert_eq!(topics.keys().len(), 66);
}
