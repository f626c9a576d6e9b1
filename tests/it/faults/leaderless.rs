//! A broker that is gone or answers nothing, while each partition has one replica.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use zim2kafka::event::key_hash;

use super::answers::Answers;
use super::{Run, blocking, load_for};
use crate::audit::{Contents, Durable, Log, group_name, read};
use crate::support::kafka::Cluster;
use crate::support::scale::{alone, is_full, size};
use crate::support::schema;

const PARTITIONS: i32 = 12;

/// The broker that is taken away.
const BROKER: usize = 2;

/// The others' answers may pause once, for this long.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// A lower healthy p99 counts as this one: on loopback, even twice its value would mean nothing.
const HEALTHY_P99_MIN: Duration = Duration::from_millis(10);

/// The service takes less memory than this, in bytes, however many rows are on disk.
const MEMORY_MAX: f64 = 150e6;

/// A service whose topics have one replica a partition, and the partitions that the broker leads.
async fn run_on(cluster: &Cluster, brokers: &str) -> (Run, BTreeSet<i32>) {
    let topics = ["joined", "dead"].map(|purpose| cluster.unique_topic(purpose));
    let mut run = Run::on(brokers, topics);
    let led = blocking(|| {
        for topic in &run.topics {
            cluster.create_unreplicated_topic(topic, PARTITIONS);
        }
        if !is_full() {
            // Beside other tests, a Kafka that works takes more than the default of 250 ms now and then.
            run.set("ZIM2KAFKA_SPOOL_AFTER", "1s");
        }
        run.start();
        run.service().ready();
        let partitions = cluster.partitions(&run.topics[0]).into_iter();
        let led = partitions.filter(|found| found.leader == Some(BROKER));
        led.map(|found| found.id).collect()
    });
    (run, led)
}

fn contents(run: &Run, cluster: &Cluster, log: &Log) -> Contents {
    blocking(|| {
        run.wait_until_drained();
        let [events, dead_letters] = &run.topics;
        read(
            cluster.brokers(),
            [events, dead_letters],
            log,
            schema::check,
        )
    })
}

/// Takes one of three brokers away while the load goes on, and gives it back.
async fn without_a_broker(fault: &str, away: fn(&Cluster, usize), back: fn(&Cluster, usize)) {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let (run, stuck) = run_on(&cluster, cluster.brokers()).await;
    let sender = run.load(size(200, 1000));
    // Every partition has had records.
    load_for(Duration::from_secs(size(2, 5))).await;
    let warm = sender.elapsed();
    load_for(Duration::from_secs(size(2, 30))).await;
    let began = sender.elapsed();
    blocking(|| away(&cluster, BROKER));
    let settled = began + Duration::from_secs(size(3, 5));
    load_for(Duration::from_secs(size(12, 600))).await;
    let ended = sender.elapsed();
    blocking(|| back(&cluster, BROKER));
    load_for(Duration::from_secs(2)).await;
    let log = sender.stop().await;
    let contents = contents(&run, &cluster, &log);
    let report = run.judge_these(&log, &contents);
    assert_eq!(report.answered_5xx, 0, "{report}");

    let answers = Answers::new(&log, &contents);
    let is_stuck = |partition| stuck.contains(&partition);
    let is_other = |partition| !is_stuck(partition);
    let healthy = answers.figures(warm..began, is_other);
    let others = answers.figures(settled..ended, is_other);
    let of_the_broker = answers.figures(settled..ended, is_stuck);
    let pauses = answers.pauses(began..ended, is_other);
    println!("{fault}: healthy: {healthy}; others: {others}; of the broker: {of_the_broker}");
    println!("{fault}: pauses of the others: {pauses:?}");
    assert_eq!(of_the_broker.published, 0, "{of_the_broker}");
    assert!(of_the_broker.spooled > 0, "{of_the_broker}");
    assert!(others.are_published(), "{others}");
    assert!(pauses.len() <= 1, "{pauses:?}");
    let longest = pauses.iter().max();
    assert!(longest <= Some(&PAUSE_MAX), "{pauses:?}");
    if is_full() {
        let limit = 2 * healthy.p99().max(HEALTHY_P99_MIN);
        assert!(others.p99() < limit, "{others}; healthy: {healthy}");
    }
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

/// Groups, two thirds of which belong to these partitions.
fn groups(stuck: &BTreeSet<i32>, count: usize) -> Vec<u32> {
    let is_stuck = |group: &u32| {
        let hash = key_hash(group_name(*group).as_bytes());
        stuck.contains(&((hash % PARTITIONS as u32) as i32))
    };
    let mut of_the_broker = (0..).filter(is_stuck);
    let mut others = (0..).filter(|group| !is_stuck(group));
    let of_both = (0..count).map(|at| match at % 3 {
        0 => others.next(),
        _ => of_the_broker.next(),
    });
    of_both.flatten().collect()
}

/// Load goes on for this long. Returns the most memory that the service took meanwhile.
async fn memory_during(run: &Run, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let mut most = 0.0_f64;
    while Instant::now() < end {
        load_for(Duration::from_millis(200)).await;
        most = most.max(blocking(|| run.metric("process_resident_memory_bytes")));
    }
    most
}

/// Stalls the proxies of the running brokers, and waits until `rows` more rows are on disk.
fn spool_all(run: &Run, cluster: &Cluster, rows: f64) {
    let before = run.metric(ROWS);
    for broker in (1..=3).filter(|broker| *broker != BROKER) {
        cluster.proxy(broker).stall();
    }
    run.wait_for("rows of all partitions are on disk", |run| {
        run.metric(ROWS) >= before + rows
    });
}

const ROWS: &str = "zim2kafka_spool_records";

/// The service is killed with rows of all partitions on disk. Most of them, and the first ones, are
/// of the stopped broker's partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_broker_holds_up_the_groups_of_its_partitions_only() {
    const FAULT: &str = "one replica a partition, one of three brokers killed, then kill -9";
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let (mut run, stuck) = run_on(&cluster, &cluster.proxied()).await;
    let rate = size(400, 1000);
    let sender = run.load_of(groups(&stuck, 4 * rate as usize), rate);
    load_for(Duration::from_secs(size(2, 10))).await;
    blocking(|| cluster.stop(BROKER));
    let mut memory = memory_during(&run, Duration::from_secs(size(3, 300))).await;
    // More than the service reads from disk for these partitions, before those of others.
    let rows = size(4_500, 200_000);
    blocking(|| {
        run.wait_for("rows of the broker's partitions are on disk", |run| {
            run.metric(ROWS) >= f64::from(rows)
        });
    });
    let stalled = sender.elapsed();
    blocking(|| spool_all(&run, &cluster, size(1800.0, 3000.0)));
    let killed = sender.elapsed();
    blocking(|| {
        run.kill();
        for broker in 1..=3 {
            cluster.proxy(broker).pass();
        }
        run.start();
        let before = sender.answered();
        run.wait_for("it answers again", |_| sender.answered() > before);
    });
    let settled = sender.elapsed() + Duration::from_secs(size(3, 5));
    let second = memory_during(&run, Duration::from_secs(size(8, 300))).await;
    memory = memory.max(second);
    let ended = sender.elapsed();
    let is_stuck = |partition| stuck.contains(&partition);
    let is_other = |partition| !is_stuck(partition);
    let ends = blocking(|| {
        let others = (0..PARTITIONS).filter(|partition| is_other(*partition));
        cluster.ends(&run.topics[0], others)
    });
    blocking(|| cluster.start_again(BROKER));
    let back = Instant::now();
    blocking(|| run.wait_until_drained_to(f64::from(rate)));
    let recovery = back.elapsed();
    let log = sender.stop().await;
    let contents = contents(&run, &cluster, &log);
    let report = run.judge_these(&log, &contents);
    assert_eq!(report.answered_5xx, 0, "{report}");

    let answers = Answers::new(&log, &contents);
    let others = answers.figures(settled..ended, is_other);
    let of_the_broker = answers.figures(settled..ended, is_stuck);
    println!("{FAULT}: others: {others}; of the broker: {of_the_broker}; {memory} bytes");
    // The test is void unless many rows of the stuck partitions were ahead of the others' rows.
    let spooled = |is_of: &dyn Fn(i32) -> bool, from: Duration, to: Duration| {
        let spooled = answers.iter().filter(|answer| {
            answer.durable == Some(Durable::Spooled) && (from..to).contains(&answer.ended)
        });
        let numbers = spooled.filter(|answer| is_of(answer.partition));
        numbers.map(|answer| answer.number).collect::<BTreeSet<_>>()
    };
    let in_front = spooled(&is_stuck, Duration::ZERO, stalled);
    let behind = spooled(&is_other, stalled, killed);
    println!("{FAULT}: {} rows before {}", in_front.len(), behind.len());
    assert!(
        in_front.len() * 10 >= rows as usize * 9,
        "{}",
        in_front.len()
    );
    assert!(behind.len() >= 100, "{}", behind.len());

    assert_eq!(of_the_broker.published, 0, "{of_the_broker}");
    assert!(of_the_broker.spooled > 0, "{of_the_broker}");
    assert!(others.are_published(), "{others}");
    let published: BTreeSet<u64> = (contents.events.iter())
        .filter(|found| (ends.get(&found.partition)).is_some_and(|end| found.offset < *end))
        .filter_map(|found| found.number)
        .collect();
    let left = behind.difference(&published).count();
    assert_eq!(left, 0, "of {} rows of other partitions", behind.len());
    assert!(memory < MEMORY_MAX, "{memory}");
    run.record(FAULT, &1, &report, recovery, None);
}
