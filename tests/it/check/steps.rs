//! `check` and real brokers: the step that fails after the connection, and the topics that a start
//! creates.

use std::thread;
use std::time::{Duration, Instant};

use super::report::{finding, report};
use crate::support::app::PATIENCE;
use crate::support::kafka::{Cluster, shared_cluster};
use crate::support::process::Service;

#[test]
fn check_names_a_missing_right_and_a_missing_topic() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let names = ["undescribed", "unwritable", "missing"].map(|name| cluster.unique_topic(name));
    let [undescribed, unwritable, missing] = names.each_ref().map(String::as_str);
    for (name, operation) in [(undescribed, "DESCRIBE"), (unwritable, "WRITE")] {
        cluster.create_topic(name, 1, &[]);
        cluster.deny(name, operation);
    }
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties
        .map(|(key, value)| format!("{key}={value}"))
        .join("\n");
    let topics = format!("group_join={undescribed},room={unwritable}");
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", sasl.brokers.as_str()),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", properties.as_str()),
        ("ZIM2KAFKA_TOPICS", topics.as_str()),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", missing),
    ];
    // Brokers follow within moments, not at once.
    let deadline = Instant::now() + PATIENCE;
    let (ended, found) = loop {
        let (ended, found) = report(&[], &variables);
        let stdout = &ended.stdout;
        if stdout.contains("cannot describe") && stdout.contains("is not writable") {
            break (ended, found);
        }
        assert!(Instant::now() < deadline, "{ended:?}");
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (topic, step, text) in [
        (
            undescribed,
            "authorization",
            "(authorization: Broker: Topic authorization failed); grant the service's user the right Describe",
        ),
        (
            unwritable,
            "authorization",
            "(authorization: Kafka lists no right Write); grant the service's user the right Write",
        ),
        (
            missing,
            "topic",
            "(topic: Broker: Unknown topic or partition); create it",
        ),
    ] {
        assert_eq!(
            finding(&found, "error", topic, text)["step"],
            step,
            "{topic}"
        );
    }
    assert_eq!(found["errors"], 3, "{found:#}");
}

#[test]
fn a_start_creates_all_missing_topics_with_one_request() {
    /// CreateTopics, as Kafka's protocol numbers it.
    const CREATE_TOPICS: i16 = 19;
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    let families = ["group", "room", "message", "call", "user"];
    let topics = families.map(|family| cluster.unique_topic(family));
    let list = families.iter().zip(&topics);
    let list: Vec<_> = list
        .map(|(name, topic)| format!("{name}={topic}"))
        .collect();
    let dead = cluster.unique_topic("dead");
    // One that is there.
    cluster.create_topic(&topics[1], 2, &[]);
    let list = format!("group_join={},{}", topics[0], list.join(","));
    let brokers = cluster.proxied();
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", brokers.as_str()),
        ("ZIM2KAFKA_TOPICS", &list),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &dead),
        ("ZIM2KAFKA_CREATE_TOPICS", "true"),
        ("ZIM2KAFKA_TOPIC_PARTITIONS", "3"),
    ];
    let sent = || cluster.proxy(1).requests(CREATE_TOPICS);
    let before = sent();
    let mut service = Service::start(&[], &variables);
    let created = |topic: &str| format!("{topic}: created with 3 partitions");
    for topic in topics.iter().chain([&dead]) {
        let was_there = *topic == topics[1];
        if !was_there {
            service.process.logs(&created(topic));
        }
        let partitions = cluster.partitions(topic).len();
        assert_eq!(partitions, if was_there { 2 } else { 3 }, "{topic}");
    }
    service.ready();
    assert!(!service.process.stderr().contains(&created(&topics[1])));
    assert_eq!(sent() - before, 1);
}
