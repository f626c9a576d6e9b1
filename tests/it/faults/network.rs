//! The line between the service and Kafka is slow, hangs, or breaks at the worst moment.

use std::time::{Duration, Instant};

use super::{Run, blocking, load_for};
use crate::support::kafka::Cluster;
use crate::support::proxy::Fault;
use crate::support::scale::{light_load, size};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stalls_breaks_or_is_slow_loses_nothing() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let proxy = cluster.proxy(1);
    let times = size(1, 10);
    for fault in ["stall", "reset after the request", "+500 ms"] {
        let mut run = Run::new(&cluster, &cluster.proxied());
        blocking(|| {
            run.start();
            run.service().ready();
        });
        let sender = run.load(size(300, 1000));
        let mut worst = Duration::ZERO;
        for _ in 0..times {
            load_for(Duration::from_secs(1)).await;
            match fault {
                "stall" => {
                    proxy.stall();
                    load_for(Duration::from_secs(size(3, 15))).await;
                }
                "+500 ms" => {
                    proxy.delay(Duration::from_millis(500));
                    load_for(Duration::from_secs(size(3, 15))).await;
                }
                _ => {
                    // Kafka has the records, and the answer that says so never arrives.
                    let lost = proxy.inject(Fault::LoseResponse.next(5));
                    blocking(|| run.wait_for("five answers are lost", |_| lost.injected() == 5));
                }
            }
            proxy.pass();
            let well = Instant::now();
            blocking(|| run.wait_until_drained_to(200.0));
            worst = worst.max(well.elapsed());
        }
        let report = run.judge(&cluster, sender).await;
        assert_eq!(report.answered_5xx, 0, "{report}");
        run.record(
            &format!("line to Kafka: {fault}"),
            &times,
            &report,
            worst,
            None,
        );
    }
}
