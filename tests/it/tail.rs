//! `tail` reads all of a topic, also when its partitions change, and `serve` warns of that.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::app::callback;
use crate::support::kafka::{Cluster, Kafka, kafka, publish, shared_cluster};
use crate::support::process::{Process, Service, zim2kafka};

fn tail(brokers: &str, topic: &str, more: &[&str]) -> Process {
    let arguments = ["tail", "--kafka-brokers", brokers, "--topic", topic];
    Process::start(zim2kafka(&[&arguments, more].concat(), &[]))
}

/// The partition and the offset of each record that was printed.
fn places(stdout: &str) -> Vec<(i64, i64)> {
    let place = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("one JSON object a line");
        let number = |name| record[name].as_i64().expect("a number");
        (number("partition"), number("offset"))
    };
    stdout.lines().map(place).collect()
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning_and_warned_of() {
    let Some(kafka) = kafka() else { return };
    let [topic, dead] = ["grows", "dead"].map(|purpose| kafka.unique_topic(purpose));
    kafka.create_topic(&topic, 1, &[]);
    kafka.create_topic(&dead, 1, &[]);
    let mut service = Service::start(
        &[],
        &[
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
            ("ZIM2KAFKA_TOPIC", &topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &dead),
        ],
    );
    service.ready();
    let post = |service: &Service, group: usize| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is later");
        let now = u64::try_from(now.as_millis()).expect("it is not that late");
        let body = callback(json!({"group_id": group.to_string(), "timestamp": now}));
        let answer = service.post(body);
        assert!(answer.contains("published"), "{answer}");
    };
    // Nothing is published before, so the service learns the number without a record.
    let (changed, again) = (
        "the number of partitions has changed from 1 to 2;",
        "the number of partitions has changed from 2 to 6;",
    );
    kafka.add_partitions(&topic, 2);
    service.process.logs(changed);

    (0..5).for_each(|group| post(&service, group));
    let mut tail = tail(kafka.brokers(), &topic, &["--from-beginning", "--count=30"]);
    tail.wait_until("five records", |tail| tail.stdout().lines().count() == 5);
    kafka.add_partitions(&topic, 6);
    kafka.add_partitions(&dead, 2);
    service.process.logs(again);
    (0..25).for_each(|group| post(&service, group));
    service.process.logs(&format!(
        "{dead}: the number of partitions has changed from 1 to 2"
    ));
    let log = service.process.stderr();
    for (text, level) in [(changed, "WARN"), (again, "WARN"), (&dead, "INFO")] {
        let is = |line: &&str| line.contains(text) && line.contains("number of partitions");
        let lines: Vec<_> = log.lines().filter(is).collect();
        assert_eq!(lines.len(), 1, "{text}: {log}");
        assert!(lines[0].contains(level), "{lines:?}");
    }

    let ended = tail.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let stored = kafka.read_all(&topic);
    let stored = stored
        .iter()
        .map(|record| (i64::from(record.partition), record.offset));
    let stored: BTreeSet<_> = stored.collect();
    let read = places(&ended.stdout);
    assert_eq!(read.len(), 30, "each record once");
    assert_eq!(BTreeSet::from_iter(read), stored);
    assert!(stored.iter().any(|(partition, _)| *partition > 1));
    let line = "changed from 2 to 6; reading the new ones from their beginning";
    assert!(ended.stderr.contains(line), "{ended:?}");

    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 3, &[]);
    service
        .process
        .logs("the number of partitions has changed from 6 to 3;");
}

#[test]
fn a_topic_that_is_missing_is_waited_for_and_read_from_its_beginning() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.unique_topic("comes-and-goes");
    let put = |key: &str| publish(&kafka.client(), &topic, key).expect("Kafka takes it");
    let mut tail = tail(kafka.brokers(), &topic, &["--count=7"]);
    tail.logs("the topic does not exist; waiting for it");
    kafka.create_topic(&topic, 1, &[]);
    ["a", "b", "c"].into_iter().for_each(put);
    tail.wait_until("three records", |tail| tail.stdout().lines().count() == 3);
    assert!(
        tail.stderr()
            .contains("the topic exists now, with 1 partitions")
    );

    kafka.delete_topic(&topic);
    tail.logs("the topic was deleted; waiting until it is created again");
    kafka.create_topic(&topic, 2, &[]);
    ["d"; 3].into_iter().for_each(put);
    tail.wait_until("six records", |tail| tail.stdout().lines().count() == 6);

    // Faster than a lookup of partitions.
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 2, &[]);
    put("d");
    let ended = tail.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let offsets = places(&ended.stdout).into_iter().map(|(_, offset)| offset);
    assert!(offsets.eq([0, 1, 2, 0, 1, 2, 0]), "{ended:?}");
}

#[test]
fn several_topics_are_read_and_a_missing_one_holds_up_no_other() {
    let Some(kafka) = kafka() else { return };
    let [group, room] = ["here", "not-yet"].map(|purpose| kafka.unique_topic(purpose));
    let put =
        |topic: &str, key: &str| publish(&kafka.client(), topic, key).expect("Kafka takes it");
    kafka.create_topic(&group, 2, &[]);
    put(&group, "a");
    let routes = format!("group={group},group_join={group},room={room}");
    let arguments = ["--topics", &routes, "--from-beginning", "--count=4"];
    let always = ["tail", "--kafka-brokers", kafka.brokers()];
    let mut tail = Process::start(zim2kafka(&[&always[..], &arguments].concat(), &[]));
    tail.logs(&format!("{room}: the topic does not exist; waiting for it"));
    put(&group, "b");
    tail.wait_until("two records", |tail| tail.stdout().lines().count() == 2);
    kafka.create_topic(&room, 1, &[]);
    put(&room, "c");
    tail.wait_until("three records", |tail| tail.stdout().lines().count() == 3);
    put(&group, "d");
    let ended = tail.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let records = ended.stdout.lines().map(|line| {
        let record: Value = serde_json::from_str(line).expect("one JSON object a line");
        let text = |name| record[name].as_str().expect("text").to_owned();
        (text("topic"), text("key"))
    });
    let expected = ["a", "b", "c", "d"].map(|key| {
        let topic = if key == "c" { &room } else { &group };
        (topic.clone(), key.to_owned())
    });
    assert!(records.eq(expected), "{ended:?}");
}

#[test]
fn a_forbidden_topic_is_warned_of_and_the_others_are_read() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let kafka: &Kafka = cluster;
    let [open, no_read, unseen] =
        ["open", "no-read", "unseen"].map(|purpose| kafka.unique_topic(purpose));
    for topic in [&open, &no_read, &unseen] {
        kafka.create_topic(topic, 1, &[]);
    }
    let put = |key| publish(&kafka.client(), &open, key).expect("Kafka takes it");
    put("a");
    let forbidden = [(&no_read, "READ"), (&unseen, "DESCRIBE")];
    for (topic, operation) in forbidden {
        cluster.deny(topic, operation);
    }
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties.map(|(key, value)| format!("{key}={value}"));
    let start = |topics: &str, more: &[&str]| {
        let always = ["tail", "--from-beginning", "--topics", topics];
        let variables = [
            ("ZIM2KAFKA_KAFKA_BROKERS", sasl.brokers.as_str()),
            ("ZIM2KAFKA_KAFKA_PROPERTIES", &properties.join("\n")),
        ];
        Process::start(zim2kafka(&[&always[..], more].concat(), &variables))
    };
    let routes = format!("room={no_read},group_join={open},call={unseen}");
    let mut tail = start(&routes, &["--count=2"]);
    for (topic, _) in forbidden {
        tail.logs(&format!("cannot read the topic {topic}"));
    }
    // After both warnings.
    put("b");
    let ended = tail.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(places(&ended.stdout), [(0, 0), (0, 1)]);
    let ended = start(&format!("room={no_read},group_join={unseen}"), &[]).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn records_that_are_deleted_before_they_are_read_are_reported() {
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    let topic = cluster.unique_topic("expires");
    cluster.create_topic(&topic, 1, &[]);
    let put = |key: &str| publish(&cluster.client(), &topic, key).expect("Kafka takes it");
    put("a");
    let mut tail = tail(
        &cluster.proxied(),
        &topic,
        &["--from-beginning", "--count=2"],
    );
    tail.prints("\n");
    cluster.proxy(1).refuse();
    ["b", "c", "d", "e"].into_iter().for_each(put);
    cluster.delete_records(&topic, 0, 4);
    cluster.proxy(1).pass();
    let ended = tail.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(places(&ended.stdout), [(0, 0), (0, 4)]);
    let line = "partition 0 has lost its records from offset 1 on before they were read, probably by retention; reading on from offset 4";
    assert!(ended.stderr.contains(line), "{ended:?}");
}

#[test]
fn a_partition_whose_leader_is_not_reached_holds_up_no_other_partition() {
    let Some(cluster) = Cluster::exclusive(3) else {
        return;
    };
    let topic = cluster.unique_topic("partly");
    cluster.create_unreplicated_topic(&topic, 3);
    let leader = |partition| {
        let leader = cluster.leader(&topic, partition);
        leader.expect("every partition has one")
    };
    let (reached, silent) = (leader(0), leader(1));
    assert_ne!(reached, silent, "partitions are spread over the brokers");
    let put = || {
        for key in 0..40 {
            publish(&cluster.client(), &topic, &key.to_string()).expect("Kafka takes it");
        }
    };
    // The last line may not be whole yet.
    let printed = |tail: &Process, partition: i32| {
        let partition = format!("\"partition\":{partition},");
        tail.stdout().matches(&partition).count()
    };
    put();
    let mut tail = tail(&cluster.proxied(), &topic, &["--from-beginning"]);
    tail.wait_until("all", |tail| tail.stdout().lines().count() == 40);
    let before = printed(&tail, 0);

    (1..=3).for_each(|broker| cluster.proxy(broker).refuse());
    put();
    let end = cluster.ends(&topic, [0])[&0];
    cluster.delete_records(&topic, 0, end - 1);
    let others = (1..=3).filter(|broker| *broker != silent);
    others.for_each(|broker| cluster.proxy(broker).pass());
    tail.wait_until("the record that is left", |tail| {
        printed(tail, 0) == before + 1
    });
    tail.logs("the leaders of these partitions do not answer: 1");
    cluster.add_partitions(&topic, 6);
    put();
    let added: Vec<_> = (3..6)
        .filter(|partition| leader(*partition) != silent)
        .collect();
    assert!(!added.is_empty());
    for partition in added {
        let end = cluster.ends(&topic, [partition])[&partition];
        tail.wait_until("all of a new partition", |tail| {
            i64::try_from(printed(tail, partition)) == Ok(end)
        });
    }
    assert!(
        tail.stderr()
            .contains("changed from 3 to 6; reading the new ones")
    );

    cluster.proxy(silent).pass();
    let end = cluster.ends(&topic, [1])[&1];
    tail.wait_until("the partition without a leader that answers", |tail| {
        i64::try_from(printed(tail, 1)) == Ok(end)
    });
    tail.signal("TERM");
    let ended = tail.end();
    let read = places(&ended.stdout);
    assert_eq!(
        BTreeSet::from_iter(&read).len(),
        read.len(),
        "each record once"
    );
}
