//! Topics that are deleted, and rights that are taken away, under load.

use std::time::Duration;

use super::{Run, blocking, load_for};
use crate::support::kafka::{Cluster, Kafka, shared_cluster};
use crate::support::scale::light_load;

const ACKED: &str = "zim2kafka_kafka_deliveries_total{result=\"acked\"}";

/// So many records more are acknowledged.
fn flows_on(run: &Run) {
    let acked = run.metric(ACKED);
    run.wait_for("records flow on", |run| run.metric(ACKED) > acked + 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_deleted_and_created_again_lose_nothing_but_what_they_held() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let mut run = Run::new(&cluster, &cluster.proxied());
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(200);
    load_for(Duration::from_secs(1)).await;
    let earlier = blocking(|| {
        // What is in them goes with them, so it is taken while nothing more can arrive.
        cluster.proxy(1).refuse();
        run.wait_for("the line is cut", |run| {
            run.metric("zim2kafka_kafka_up") == 0.0
        });
        let earlier = run.take(&cluster);
        run.topics
            .iter()
            .for_each(|topic| cluster.delete_topic(topic));
        cluster.proxy(1).pass();
        run.wait_for("Kafka is there", |run| {
            run.metric("zim2kafka_kafka_up") == 1.0
        });
        earlier
    });
    load_for(Duration::from_secs(2)).await;
    let [events, dead_letters] = run.topics.clone();
    blocking(|| {
        cluster.create_topic(&events, 6, &[]);
        // One is still missing, and holds up nothing.
        flows_on(&run);
        cluster.create_topic(&dead_letters, 6, &[]);
    });
    let log = sender.stop().await;
    blocking(|| run.wait_until_drained());
    let contents = blocking(|| run.take(&cluster).behind(earlier).judge(&log));
    let report = run.judge_these(&log, &contents);
    assert_eq!(report.answered_5xx, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_taken_away_and_given_back_lose_nothing() {
    let _load = light_load().await;
    let Some(cluster) = blocking(shared_cluster) else {
        return;
    };
    let sasl = cluster.sasl_ssl();
    let mut run = Run::new(cluster, &sasl.brokers);
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties.map(|(key, value)| format!("{key}={value}"));
    run.set("ZIM2KAFKA_KAFKA_PROPERTIES", properties.join("\n"));
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(200);
    load_for(Duration::from_secs(1)).await;
    let [events, dead_letters] = run.topics.clone();
    blocking(|| {
        cluster.deny(&dead_letters, "WRITE");
        run.wait_for("dead letters pile up", |run| {
            run.metric("zim2kafka_spool_records") > 3.0
        });
        flows_on(&run);
        cluster.allow_again(&dead_letters, "WRITE");
        run.wait_until_drained_to(20.0);
        cluster.deny(&events, "WRITE");
        run.wait_for("events pile up", |run| {
            run.metric("zim2kafka_spool_records") > 200.0
        });
        cluster.allow_again(&events, "WRITE");
        run.wait_until_drained_to(20.0);
    });
    let report = run.judge(cluster, sender).await;
    assert_eq!(report.answered_5xx, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spooled_record_that_kafka_refuses_becomes_a_dead_letter_and_its_neighbours_do_not() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let kafka: &Kafka = &cluster;
    let topics = ["small", "dead"].map(|purpose| kafka.unique_topic(purpose));
    kafka.create_topic(&topics[0], 1, &[("max.message.bytes", "3000")]);
    kafka.create_topic(&topics[1], 1, &[]);
    let mut run = Run::on(&cluster.proxied(), topics);
    run.set("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off");
    cluster.proxy(1).refuse();
    let sent = 30;
    blocking(|| {
        run.start();
        for number in 0..sent {
            // Random, so that compression does not shrink it.
            let length = if number % 10 == 5 { 5000 } else { 10 };
            let note: Vec<u8> = (0..length).map(|_| rand::random()).collect();
            let note = hex::encode(note);
            let body = crate::support::app::callback(serde_json::json!({
                "group_id": "g", "new_user_ids": [format!("{number}")], "note": note,
            }));
            let answer = run.service().post(body);
            assert!(answer.contains("\"spooled\""), "{answer}");
        }
        cluster.proxy(1).pass();
        run.wait_until_drained();
        let dead_letters = kafka.read_all(&run.topics[1]);
        assert_eq!(dead_letters.len(), 3);
        let user = |value: &[u8]| -> serde_json::Value {
            let value: serde_json::Value = serde_json::from_slice(value).expect("JSON");
            value["new_user_ids"][0].clone()
        };
        for (letter, number) in dead_letters.iter().zip(["5", "15", "25"]) {
            let reason = letter.header("dead_letter_reason");
            assert_eq!(reason, Some(b"rejected_by_kafka".as_slice()));
            assert_eq!(user(&letter.value), number);
        }
        // The producer that reports a rejected record may have the next batch on its way. It is then
        // ended, and the batch is sent again: the order is that of first occurrences.
        let mut first = Vec::new();
        for record in kafka.read_all(&run.topics[0]) {
            let user = user(&record.value);
            if !first.contains(&user) {
                first.push(user);
            }
        }
        let expected: Vec<_> = (0..sent)
            .filter(|number| number % 10 != 5)
            .map(|number| number.to_string())
            .collect();
        assert_eq!(first, expected);
        assert_eq!(
            run.metric("zim2kafka_dead_letters_total{reason=\"rejected_by_kafka\"}"),
            3.0
        );
        assert_eq!(run.metric("zim2kafka_spool_refused_records"), 0.0);
    });
}

/// More dead letters than their queue has space for.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_finds_no_space_is_made_later() {
    const EVENTS: usize = 100;
    const NOTE_BYTES: usize = 850_000;
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let kafka: &Kafka = &cluster;
    let topics = ["small", "dead"].map(|purpose| kafka.unique_topic(purpose));
    kafka.create_topic(&topics[0], 3, &[("max.message.bytes", "3000")]);
    let mut run = Run::on(&cluster.proxied(), topics);
    run.set("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off");
    run.set("ZIM2KAFKA_BODY_LIMIT", "900000");
    cluster.proxy(1).refuse();
    blocking(|| {
        run.start();
        for number in 0..EVENTS {
            // Random, so that compression does not shrink it.
            let note: Vec<u8> = (0..NOTE_BYTES / 2).map(|_| rand::random()).collect();
            let body = crate::support::app::callback(serde_json::json!({
                "group_id": format!("{number}"), "note": hex::encode(note),
            }));
            let answer = run.service().post(body);
            assert!(answer.contains("\"spooled\""), "{answer}");
        }
        run.stop();
        cluster.proxy(1).pass();
        // No dead letter leaves the queue: their topic is missing, and none is spooled this early.
        run.set("ZIM2KAFKA_SPOOL_AFTER", "10m");
        run.set("ZIM2KAFKA_ANSWER_DEADLINE", "20m");
        run.start();
        run.wait_for("the queue of dead letters is full", |run| {
            run.metric("zim2kafka_spool_refused_records") > 0.0
        });
        kafka.create_topic(&run.topics[1], 3, &[]);
        run.wait_until_drained();
        assert_eq!(kafka.read_all(&run.topics[1]).len(), EVENTS);
        assert_eq!(run.metric("zim2kafka_spool_refused_records"), 0.0);
    });
}
