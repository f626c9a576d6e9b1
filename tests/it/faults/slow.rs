//! Kafka takes records, and answers late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::answers::Answers;
use super::{RECREATIONS, Run, blocking, load_for};
use crate::audit::read;
use crate::support::kafka::Cluster;
use crate::support::proxy::{Fault, Proxy};
use crate::support::scale::{alone, light_load, size};
use crate::support::schema;

const ACKED: &str = "zim2kafka_kafka_deliveries_total{result=\"acked\"}";

/// Waits until the service has opened no connection for this long.
fn wait_until_settled(proxy: &Proxy, time: Duration) {
    let mut settled = (proxy.accepted(), Instant::now());
    while settled.1.elapsed() < time {
        if proxy.accepted() != settled.0 {
            settled = (proxy.accepted(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_answers_break_no_connection_and_keep_coming() {
    const LATE: Duration = Duration::from_millis(1500);
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let proxy = cluster.proxy(1);
    let mut run = Run::new(&cluster, &cluster.proxied());
    // Late answers make Kafka distant. The service then adds producers and replaces, once, those
    // that it created for a near Kafka. Kafka is distant before the fault too, so that these
    // connections do not count as reconnects.
    proxy.delay(Duration::from_millis(15));
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let rate = size(200, 1000);
    let sender = run.load(rate);
    // It takes some seconds to know that Kafka is distant.
    load_for(Duration::from_secs(6)).await;
    blocking(|| wait_until_settled(proxy, Duration::from_secs(size(2, 10))));
    let connections = proxy.accepted();
    let recreations = run.metric(RECREATIONS);

    let late = proxy.inject(Fault::Delay.every().after(LATE));
    let window = Duration::from_secs(5);
    for _ in 0..size(2, 60) {
        let (met, acked) = (late.injected(), run.metric(ACKED));
        load_for(window).await;
        let (met, acked) = (late.injected() - met, run.metric(ACKED) - acked);
        println!("{met} answers were late, {acked} records acknowledged");
        assert!(met > 0);
        // The first ones come after a while.
        assert!(acked >= f64::from(rate) * window.as_secs_f64() / 4.0);
    }
    println!("{connections} connections, then {}", proxy.accepted());
    assert_eq!(proxy.accepted(), connections, "it has connected again");
    assert_eq!(run.metric(RECREATIONS), recreations);
    proxy.pass();
    let ended = Instant::now();
    blocking(|| run.wait_until_drained_to(f64::from(rate)));
    let recovery = ended.elapsed();
    let report = run.judge(&cluster, sender).await;
    assert_eq!((report.answered_5xx, report.unanswered), (0, 0), "{report}");
    let fault = "every produce request answered after 1.5 s";
    run.record(fault, &late.injected(), &report, recovery, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_late_answers_slows_its_connection_only() {
    const LATE: Duration = Duration::from_secs(2);
    const BROKER: usize = 2;
    const SPOOL_AFTER: Duration = Duration::from_millis(250);
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let topics = ["joined", "dead"].map(|purpose| cluster.unique_topic(purpose));
    let mut run = Run::on(&cluster.proxied(), topics);
    let led: BTreeSet<i32> = blocking(|| {
        for topic in &run.topics {
            cluster.create_unreplicated_topic(topic, 12);
        }
        run.start();
        run.service().ready();
        let partitions = cluster.partitions(&run.topics[0]).into_iter();
        let led = partitions.filter(|found| found.leader == Some(BROKER));
        led.map(|found| found.id).collect()
    });
    let slow = *led.first().expect("it leads some");
    let sender = run.load(size(200, 1000));
    load_for(Duration::from_secs(size(3, 10))).await;
    let began = sender.elapsed();
    let delay = Fault::Delay.every().after(LATE);
    let late = (cluster.proxy(BROKER)).inject(delay.of(&run.topics[0], Some(slow)));
    load_for(Duration::from_secs(size(10, 300))).await;
    let ended = sender.elapsed();
    let met = late.injected();
    late.end();
    let delay_ended = Instant::now();
    blocking(|| run.wait_until_drained_to(200.0));
    let recovery = delay_ended.elapsed();
    let log = sender.stop().await;
    let contents = blocking(|| {
        run.wait_until_drained();
        let [events, dead_letters] = &run.topics;
        read(
            cluster.brokers(),
            [events, dead_letters],
            &log,
            schema::check,
        )
    });
    let report = run.judge_these(&log, &contents);
    assert_eq!((report.answered_5xx, report.unanswered), (0, 0), "{report}");

    let answers = Answers::new(&log, &contents);
    let of_the_broker = answers.figures(began..ended, |partition| led.contains(&partition));
    let others = answers.figures(began..ended, |partition| !led.contains(&partition));
    let of_slow = answers.figures(began..ended, |partition| partition == slow);
    println!("{met} answers were late; others: {others}");
    println!("of the broker: {of_the_broker}; of the slow partition: {of_slow}");
    assert!(met > 0 && of_slow.spooled > 0, "{of_slow}");
    // A small run has a busy machine, and a debug build.
    assert!(
        others.published >= others.spooled * size(99, 999),
        "{others}"
    );
    let limit = SPOOL_AFTER + Duration::from_millis(size(1250, 50));
    for figures in [&of_the_broker, &others] {
        assert!(figures.quantile(999) <= limit, "{figures}");
    }
    let fault = "one partition answered after 2 s";
    run.record(fault, &met, &report, recovery, None);
}
