//! A broker that is gone or answers nothing, while each partition has one replica.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::{Run, blocking, load_for};
use crate::audit::{Contents, Durable, Found, Log, read};
use crate::support::kafka::Cluster;
use crate::support::scale::{alone, size};

const PARTITIONS: i32 = 12;

/// What the events of a time were answered, by whether their partition was one of the broker.
#[derive(Debug, Default)]
struct Answers {
    published: [u32; 2],
    spooled: [u32; 2],
    /// The slowest answer of the others, in ms.
    slowest_ms: u64,
}

/// Judges what was begun within this time, in µs since the load began.
fn answers(log: &Log, contents: &Contents, stuck: &BTreeSet<i32>, during: Range<u64>) -> Answers {
    let place = |found: &Found| Some((found.number?, found.partition));
    let partitions: BTreeMap<u64, i32> = contents.events.iter().filter_map(place).collect();
    let mut answers = Answers::default();
    for (number, sent) in (0..).zip(&log.sent) {
        let Some(partition) = partitions.get(&number) else {
            continue;
        };
        let is_stuck = usize::from(stuck.contains(partition));
        for attempt in &sent.attempts {
            if !during.contains(&attempt.began) {
                continue;
            }
            match attempt.durable {
                Some(Durable::Published) => answers.published[is_stuck] += 1,
                Some(Durable::Spooled) => answers.spooled[is_stuck] += 1,
                None => {}
            }
            if is_stuck == 0 {
                let took = (attempt.ended - attempt.began) / 1000;
                answers.slowest_ms = answers.slowest_ms.max(took);
            }
        }
    }
    answers
}

/// Takes one of three brokers away while the load goes on, and gives it back.
async fn without_a_broker(fault: &str, away: fn(&Cluster, usize), back: fn(&Cluster, usize)) {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let topics = ["joined", "dead"].map(|purpose| cluster.unique_topic(purpose));
    let mut run = Run::on(cluster.brokers(), topics);
    blocking(|| {
        for topic in &run.topics {
            cluster.create_unreplicated_topic(topic, PARTITIONS);
        }
        run.start();
        run.service().ready();
    });
    let rate = size(200, 1000);
    let sender = run.load(rate);
    // Every partition has had records.
    load_for(Duration::from_secs(4)).await;
    let broker = 2;
    let began = sender.elapsed();
    let stuck: BTreeSet<i32> = blocking(|| {
        let partitions = cluster.partitions(&run.topics[0]);
        let led = partitions
            .iter()
            .filter(|found| found.leader == Some(broker));
        let led = led.map(|found| found.id).collect();
        away(&cluster, broker);
        led
    });
    let settled = began + Duration::from_secs(size(3, 5));
    load_for(Duration::from_secs(size(12, 600))).await;
    let ended = sender.elapsed();
    blocking(|| back(&cluster, broker));
    load_for(Duration::from_secs(2)).await;
    let log = sender.stop().await;
    blocking(|| run.wait_until_drained());
    let contents = blocking(|| {
        let [events, dead_letters] = &run.topics;
        read(cluster.brokers(), [events, dead_letters], &log)
    });
    let report = run.judge_these(&log, &contents);
    assert_eq!(report.answered_5xx, 0, "{report}");
    let micros = |time: Duration| time.as_micros() as u64;
    let answers = answers(&log, &contents, &stuck, micros(settled)..micros(ended));
    println!("{fault}: {answers:?}");
    let [others, of_the_broker] = answers.published;
    assert_eq!(of_the_broker, 0, "{answers:?}");
    assert!(answers.spooled[1] > 0, "{answers:?}");
    // Of a thousand events of other partitions, at most one.
    assert!(answers.spooled[0] * 1000 <= others, "{answers:?}");
    run.record(fault, &1, &report, Duration::ZERO, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_holds_up_the_groups_of_its_partitions_only() {
    without_a_broker(
        "one replica a partition, one of three brokers killed",
        Cluster::stop,
        Cluster::start_again,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_nothing_holds_up_the_groups_of_its_partitions_only() {
    without_a_broker(
        "one replica a partition, one of three brokers stopped by SIGSTOP",
        Cluster::freeze,
        Cluster::thaw,
    )
    .await;
}
