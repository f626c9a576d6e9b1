//! More than there is room for: refused at once, and nothing that was taken is lost.

use std::time::Duration;

use hyper::StatusCode;
use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::app::{Answer, App, PATIENCE, callback};
use crate::support::kafka::Kafka;
use crate::support::process::Service;
use crate::support::scale::{alone, is_full, size};
use crate::support::start::broker_down;
use crate::support::wire::{Wire, of_length, post};

/// A callback of about so many bytes, by which its group is known.
fn large(group: &str, bytes: usize) -> Vec<u8> {
    callback(json!({"group_id": group, "note": "x".repeat(bytes)}))
}

fn is_full_up(answer: &Answer) -> bool {
    answer.status == StatusCode::SERVICE_UNAVAILABLE
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_beyond_the_memory_limit_are_refused_at_once_and_the_others_published() {
    let kafka = MockCluster::new(1).expect("it starts");
    for topic in ["joined", "dead"] {
        kafka.create_topic(topic, 12, 1).expect("it can be created");
    }
    let brokers = kafka.bootstrap_servers();
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", brokers.as_str()),
        ("ZIM2KAFKA_TOPIC", "joined"),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", "dead"),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        // Longer than the test stays away.
        ("ZIM2KAFKA_ANSWER_DEADLINE", "1m"),
        ("ZIM2KAFKA_DRAIN_DELAY", "0s"),
    ];
    let service = Service::start(&[], &variables);
    // The mock cluster does not answer all that is asked of it, so this takes 20 seconds.
    service.ready();
    let _alone = alone().await;
    broker_down(&kafka, 1);

    // Less and less, until nothing fits any more.
    let mut waiting = JoinSet::new();
    for (bytes, at_most) in [
        (400_000, 200),
        (40_000, 20),
        (4000, 20),
        (400, 20),
        (10, 20),
    ] {
        for number in 0..at_most {
            let body = large(&format!("{bytes}-{number}"), bytes);
            let to = service.callbacks;
            waiting.spawn(async move { (post(to, body).await, bytes, number) });
        }
        // Those for which there is no room are answered, and the others wait.
        let mut refused = 0;
        loop {
            tokio::select! {
                Some(answered) = waiting.join_next() => {
                    let (answer, ..) = answered.expect("no panic");
                    assert!(is_full_up(&answer), "{answer:?}");
                    refused += 1;
                }
                () = sleep(Duration::from_secs(2)) => break,
            }
        }
        println!("of {at_most} with {bytes} bytes, {refused} were refused");
    }
    let taken = waiting.len();
    assert!(taken > 100, "{taken} wait for Kafka");

    let mut took: Vec<_> = Vec::new();
    for _ in 0..200 {
        let body = large("refused", 100_000);
        let began = Instant::now();
        let answer = post(service.callbacks, body).await;
        took.push(began.elapsed());
        assert!(is_full_up(&answer), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "2");
    }
    took.sort_unstable();
    let slowest = took[took.len() - 2];
    println!("200 refusals, all but one within {slowest:?}");
    // The answer deadline is a minute.
    assert!(slowest < size(Duration::from_secs(1), Duration::from_millis(50)));

    kafka.broker_up(1).expect("there is one");
    let began = Instant::now();
    let mut published = Vec::new();
    while let Some(answered) = waiting.join_next().await {
        let (answer, bytes, number) = answered.expect("no panic");
        assert_eq!(answer.json()["status"], "published");
        published.push(format!("{bytes}-{number}"));
    }
    let drained = Instant::now();
    assert_eq!(
        post(service.callbacks, large("after", 10)).await.status,
        StatusCode::OK
    );
    let after = drained.elapsed();
    println!(
        "{taken} published after {:?}, and the next after {after:?}",
        drained - began
    );
    assert!(!is_full() || after < Duration::from_secs(1));

    // librdkafka's mock keeps 5 MiB of a partition, so the groups that are there still are looked
    // at.
    let records = Kafka::at(&brokers).read_until("joined", 1, PATIENCE);
    for record in records {
        let event: Value = serde_json::from_slice(&record.value).expect("JSON");
        let group = event["group_id"].as_str().expect("text").to_owned();
        assert!(
            group == "after" || published.contains(&group),
            "{group} was refused"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_large_bodies_do_not_block_small_ones() {
    let _alone = alone().await;
    let app = App::embedded(|settings| settings);
    app.ready().await;
    // All but the last byte, of as many as there is room for, and more.
    let mut slow = Vec::new();
    let unfinished = "x".repeat(500_000 - 1);
    for _ in 0..150 {
        let mut wire = Wire::at(app.callbacks).await;
        wire.say(of_length(500_000)).await;
        wire.try_say(&unfinished).await;
        slow.push(wire);
    }
    let outcome = |name: &str| format!("zim2kafka_callbacks_total{{outcome=\"{name}\"}}");
    app.wait_for("there is no room for some", async || {
        app.metric(&outcome("unavailable")).await > 0.0
    })
    .await;
    for _ in 0..20 {
        let answer = post(app.callbacks, large("small", 15_000)).await;
        assert_eq!(answer.json()["status"], "published");
    }
    let answer = post(app.callbacks, large("large", 400_000)).await;
    assert!(is_full_up(&answer), "{answer:?}");
    // Theirs ends with the time for a body.
    assert_eq!(app.metric(&outcome("timed_out")).await, 0.0);
    drop(slow);
    app.wait_for("there is room again", async || {
        post(app.callbacks, large("large", 400_000)).await.status == StatusCode::OK
    })
    .await;
}
