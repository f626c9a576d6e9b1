//! The spool has no room, while Kafka is away.

use std::time::{Duration, Instant};

use super::{Run, blocking, load_for};
use crate::support::kafka::Cluster;
use crate::support::scale::{alone, size};
use crate::support::volume::Volume;

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_reached_and_freed_loses_nothing() {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let mut run = Run::new(&cluster, &cluster.proxied());
    run.set("ZIM2KAFKA_SPOOL_MAX_BYTES", "4MiB");
    without_room(
        &cluster,
        run,
        size(150, 1000),
        "spool quota reached and freed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let _alone = alone().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let volume = Volume::of(size(16, 24) << 20);
    let mut run = Run::new(&cluster, &cluster.proxied());
    run.put_spool_on(volume);
    // Enough for more records than the ballast lets be deleted at once.
    without_room(&cluster, run, size(150, 1000), "disk full").await;
}

/// Kafka goes away until callbacks are refused, and comes back.
async fn without_room(cluster: &Cluster, mut run: Run, rate: u32, fault: &str) {
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(rate);
    let (times, mut worst) = (size(1, 10), Duration::ZERO);
    for _ in 0..times {
        load_for(Duration::from_secs(1)).await;
        let back = blocking(|| {
            cluster.proxy(1).refuse();
            let refused = run.metric(REFUSED);
            run.wait_for("callbacks are refused", |run| {
                run.metric(REFUSED) > refused + 50.0
            });
            assert!(!run.service().admin("/readyz").starts_with("HTTP/1.1 200"));
            cluster.proxy(1).pass();
            let back = Instant::now();
            run.wait_until_drained_to(200.0);
            run.service().ready();
            back
        });
        worst = worst.max(back.elapsed());
    }
    let report = run.judge(cluster, sender).await;
    assert!(report.answered_5xx > 0, "{report}");
    blocking(|| {
        run.wait_for("the spool takes records again", |run| {
            run.service().admin("/readyz").ends_with("\r\n\r\nready\n")
        });
    });
    run.record(fault, &times, &report, worst, None);
}

const REFUSED: &str = "zim2kafka_callbacks_total{outcome=\"unavailable\"}";
