//! What goes wrong: records that Kafka rejects, two runs at once, signals, rights, topics.

use std::time::Instant;

use rdkafka::producer::{BaseProducer, Producer};
use serde_json::json;
use zim2kafka::event::{Reason, Record};

use super::{PATIENCE, Topics, has_row, join, now};
use crate::support::app::callback;
use crate::support::dead_letters::{dead_letter, put_by};
use crate::support::kafka::{kafka, shared_cluster};
use crate::support::process::run;

/// A valid dead letter whose record has about this many bytes, also if it is compressed.
fn large(group: &str, bytes: usize) -> Record {
    let user = |_| format!("{:032x}", rand::random::<u128>());
    let users: Vec<_> = (0..bytes / 16).map(user).collect();
    let fields = json!({"group_id": group, "timestamp": now(), "new_user_ids": users});
    dead_letter("secret", &callback(fields), Reason::InvalidEvent, now())
}

#[test]
fn records_that_kafka_rejects_hold_up_no_others() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create_with(kafka, &[("max.message.bytes", "3000")]);
    let letters = (0..120).map(|number| match number % 12 {
        // Neighbours of the others in each batch.
        5 => large(&format!("large-{number:03}"), 20_000),
        _ => join(&format!("small-{number:03}"), Reason::InvalidEvent),
    });
    topics.put(letters);
    let ended = topics.redrive(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("Kafka has rejected 10 of the records; raise max.message.bytes"),
        "{ended:?}"
    );
    has_row(&ended.stdout, 110, "published to");
    has_row(&ended.stdout, 10, "rejected by Kafka again");
    let details = ended.stdout.to_lowercase();
    assert!(details.contains("message size too large"), "{ended:?}");
    let keys = topics.keys();
    assert_eq!(keys.len(), 110);
    assert!(keys.iter().all(|key| key.starts_with("small-")), "{keys:?}");

    kafka.change_topic(&topics.events, &[]);
    let table = topics.redriven(&["--from-beginning"]);
    has_row(&table, 10, "published to");
    has_row(&table, 110, "not published again");
    let mut keys = topics.keys();
    assert_eq!(keys.len(), 120);
    keys.dedup();
    assert_eq!(keys.len(), 120);
}

#[test]
fn of_two_runs_with_the_same_filters_the_first_one_ends() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    // More than it publishes while it is stopped.
    let count = 20_000;
    let letters = (0..count).map(|number| join(&number.to_string(), Reason::InvalidEvent));
    topics.put(letters);
    let mut first = topics.start(&[]);
    let written = || -> i64 { kafka.ends(&topics.events, 0..12).values().sum() };
    first.wait_until("some records", |_| written() > 0);
    // In the middle of whatever it does.
    first.signal("STOP");
    let second = topics.redrive(&[]);
    assert_eq!(second.code, Some(0), "{second:?}");
    first.signal("CONT");
    let first = first.end_within(PATIENCE);
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(
        first
            .stderr
            .contains("another `redrive` with the same filters has begun"),
        "{first:?}"
    );
    let mut keys = topics.keys();
    assert_eq!(keys.len(), count);
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn a_signal_ends_it_in_order_and_the_same_command_continues() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let count = 20_000;
    let letters = (0..count).map(|number| join(&number.to_string(), Reason::InvalidEvent));
    topics.put(letters);
    let mut running = topics.start(&[]);
    let written = || -> i64 { kafka.ends(&topics.events, 0..12).values().sum() };
    running.wait_until("some records", |_| written() > 0);
    running.signal("INT");
    let ended = running.end_within(PATIENCE);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("stopped by a signal; the same command continues"),
        "{ended:?}"
    );
    // The table has what is published.
    let published = topics.keys().len();
    assert!((1..count).contains(&published), "{published}");
    has_row(&ended.stdout, published, "published to");
    let table = topics.redriven(&[]);
    has_row(&table, count - published, "published to");
    let mut keys = topics.keys();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn aborted_dead_letters_are_not_read_and_markers_at_the_end_do_not_hold_it_up() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create(kafka);
    let mut client = kafka.client();
    client.set("transactional.id", kafka.unique_topic("writer"));
    let writer: BaseProducer = client.create().expect("the settings are sound");
    writer.init_transactions(PATIENCE).expect("it starts");
    let write = |groups: [&str; 2]| {
        writer.begin_transaction().expect("it is idle");
        let letters = groups.map(|group| join(group, Reason::InvalidEvent));
        put_by(&writer, &topics.dead, letters);
    };
    write(["a", "b"]);
    writer.commit_transaction(PATIENCE).expect("it is open");
    write(["c", "d"]);
    writer.abort_transaction(PATIENCE).expect("it is open");
    let table = topics.redriven(&[]);
    assert!(table.starts_with("2 dead letters"), "{table}");
    assert_eq!(topics.keys(), ["a", "b"]);
    let table = topics.redriven(&[]);
    assert!(table.starts_with("0 dead letters"), "{table}");
}

#[test]
fn a_missing_topic_is_reported_before_anything_is_published() {
    let Some(kafka) = kafka() else { return };
    let mut topics = Topics::create(kafka);
    let missing = kafka.unique_topic("missing");
    topics.put([join("a", Reason::InvalidEvent)]);
    let routes = topics
        .variables
        .iter()
        .find(|(name, _)| *name == "ZIM2KAFKA_TOPICS");
    let routes = routes.expect("it is set").1.clone();
    topics.set("ZIM2KAFKA_TOPICS", &format!("group_join={missing}"));
    for (flags, row) in [(&["--dry-run"][..], "to be published to"), (&[], "")] {
        let ended = topics.redrive(flags);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let error = format!("the topic {missing} does not exist; create it");
        assert!(ended.stderr.contains(&error), "{ended:?}");
        if !row.is_empty() {
            has_row(&ended.stdout, 1, row);
        }
    }
    assert!(kafka.partitions(&missing).is_empty());
    // No progress was stored.
    topics.set("ZIM2KAFKA_TOPICS", &routes);
    topics.redriven(&[]);
    assert_eq!(topics.keys(), ["a"]);

    topics.set("ZIM2KAFKA_DEAD_LETTER_TOPIC", &missing);
    let ended = topics.redrive(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains(&format!("the topic {missing} does not exist")),
        "{ended:?}"
    );
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
    ];
    let ended = run(&["redrive", "--dry-run"], &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("check ZIM2KAFKA_KAFKA_BROKERS"),
        "{ended:?}"
    );
}

#[test]
fn a_missing_right_is_named() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let mut topics = Topics::create(cluster);
    topics.put([join("a", Reason::InvalidEvent)]);
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties.map(|(key, value)| format!("{key}={value}"));
    topics.set("ZIM2KAFKA_KAFKA_BROKERS", &sasl.brokers);
    topics.set("ZIM2KAFKA_KAFKA_PROPERTIES", &properties.join("\n"));
    let (dead, events) = (topics.dead.clone(), topics.events.clone());
    let group = format!("zim2kafka-redrive-{dead}");
    for (resource, operation, rights) in [
        (
            dead.clone(),
            "READ",
            format!("Read and Describe on the topic {dead}"),
        ),
        (
            events.clone(),
            "WRITE",
            format!("Write and Describe on the topic {events}"),
        ),
        (
            format!("group:{group}"),
            "READ",
            format!("Read and Describe on the consumer group {group}-"),
        ),
        (
            format!("transactional_id:{group}"),
            "WRITE",
            format!("Write and Describe on the transactional id {group}-"),
        ),
    ] {
        cluster.deny(&resource, operation);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = topics.redrive(&["--from-beginning", "--republish"]);
            let is_named = ended
                .stderr
                .contains(&format!("grant this user the rights {rights}"));
            if ended.code == Some(1) && is_named {
                break;
            }
            assert!(ended.code == Some(0), "{resource}: {ended:?}");
            assert!(Instant::now() < deadline, "{resource}: {ended:?}");
        }
        cluster.allow_again(&resource, operation);
    }
    let deadline = Instant::now() + PATIENCE;
    while topics.redrive(&[]).code != Some(0) {
        assert!(Instant::now() < deadline, "it is allowed again");
    }
    assert!(!topics.keys().is_empty());
}
