//! Kafka dies, moves, or cannot be reached.

use std::time::{Duration, Instant};

use super::{Run, blocking, load_for};
use crate::audit::Report;
use crate::support::kafka::Cluster;
use crate::support::scale::{alone, is_full, size};

/// What the full run asks of an outage: nobody waits for long, and what waited goes out fast.
const P99_MS: u64 = 500;
const DRAINED_PER_SECOND: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_restarted_and_moved_loses_nothing() {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let mut run = Run::new(&cluster, cluster.brokers());
    blocking(|| run.start());
    let sender = run.load(size(200, 1000));
    let mut worst = Duration::ZERO;
    let times = size(2, 30);
    for _ in 0..times {
        load_for(Duration::from_secs(1)).await;
        blocking(|| {
            let leader = cluster.leader(&run.topics[0], 0).expect("it has a leader");
            let killed = Instant::now();
            cluster.stop(leader);
            // Others lead now, and everything goes on before it is back.
            let acked = run.metric(ACKED);
            run.wait_for("Kafka acknowledges again", |run| {
                run.metric(ACKED) > acked + 100.0
            });
            worst = worst.max(killed.elapsed());
            cluster.start_again(leader);
            for topic in &run.topics {
                cluster.wait_until(topic, |partitions| {
                    partitions
                        .iter()
                        .all(|partition| partition.in_sync.len() == 3)
                });
            }
            cluster.move_leaders(&run.topics[0]);
        });
    }
    let report = run.judge(&cluster, sender).await;
    run.record(
        "leader killed, restarted, moved",
        &times,
        &report,
        worst,
        None,
    );
}

const ACKED: &str = "zim2kafka_kafka_deliveries_total{result=\"acked\"}";
/// The producer takes no more records than this before Kafka acknowledges one. The rest of a longer
/// backlog is on disk only.
const WINDOW: f64 = 10_000.0;

const REPLAYED: &str = "zim2kafka_spool_replayed_records_total";

/// Lets what waits go out while live load goes on. Returns how long that took from when Kafka was
/// back, and how many records a second from the first one on.
fn drain(run: &Run, back: Instant) -> (Duration, u64) {
    let before = run.metric(REPLAYED);
    run.wait_for("the first record is replayed", |run| {
        run.metric(REPLAYED) > before
    });
    let (first, waiting) = (Instant::now(), run.metric("zim2kafka_spool_records"));
    run.wait_for("everything is replayed", |run| {
        run.metric("zim2kafka_spool_records") < 500.0
    });
    let rate = waiting / first.elapsed().as_secs_f64();
    (back.elapsed(), rate as u64)
}

/// What an outage must look like from outside.
fn nobody_noticed(report: &Report, drained_per_second: u64) {
    assert_eq!(report.answered_5xx, 0, "{report}");
    if is_full() {
        assert!(report.p99_answer_ms < P99_MS, "{report}");
        assert!(
            drained_per_second >= DRAINED_PER_SECOND,
            "{drained_per_second} {report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_all_brokers_loses_nothing() {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let mut run = Run::new(&cluster, cluster.brokers());
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(size(400, 1000));
    load_for(Duration::from_secs(2)).await;
    blocking(|| cluster.stop(1));
    let down = Instant::now();
    load_for(Duration::from_secs(size(5, 600))).await;
    blocking(|| {
        run.wait_for("more waits than the producer takes at once", |run| {
            run.metric("zim2kafka_spool_records") > WINDOW
        });
    });
    let outage = down.elapsed();
    blocking(|| cluster.start_again(1));
    let (recovery, rate) = blocking(|| drain(&run, Instant::now()));
    let report = run.judge(&cluster, sender).await;
    assert_eq!(report.unanswered, 0, "{report}");
    nobody_noticed(&report, rate);
    run.record(
        "all brokers down at 1,000/s",
        &format!("{} s", outage.as_secs()),
        &report,
        recovery,
        Some(rate),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_down_from_the_start_and_a_spool_of_an_earlier_run_lose_nothing() {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let mut run = Run::new(&cluster, cluster.brokers());
    blocking(|| {
        cluster.stop(1);
        run.start();
        run.service().ready();
    });
    let sender = run.load(size(400, 1000));
    let (times, mut worst, mut slowest) = (size(1, 5), Duration::ZERO, u64::MAX);
    for _ in 0..times {
        load_for(Duration::from_secs(size(3, 30))).await;
        blocking(|| {
            let log = run.stop();
            assert!(log.contains("Kafka unreachable"), "{log}");
            run.start();
            let service = run.service.as_mut().expect("it is started");
            service.process.logs("records of an earlier run");
        });
        load_for(Duration::from_secs(size(3, 30))).await;
        let (recovery, rate) = blocking(|| {
            cluster.start_again(1);
            drain(&run, Instant::now())
        });
        (worst, slowest) = (worst.max(recovery), slowest.min(rate));
        blocking(|| {
            run.wait_until_drained();
            cluster.stop(1);
            run.stop();
            run.start();
        });
    }
    blocking(|| cluster.start_again(1));
    let report = run.judge(&cluster, sender).await;
    nobody_noticed(&report, slowest);
    run.record(
        "Kafka down from the start, with the spool of an earlier run",
        &times,
        &report,
        worst,
        Some(slowest),
    );
}
