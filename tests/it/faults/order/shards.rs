//! A spool that was filled at one distance of Kafka is drained at others, by another number of
//! producers.

use std::ops::Range;
use std::time::Duration;

use super::{record_times, run_on, start_again};
use crate::faults::{blocking, load_for};
use crate::support::kafka::Cluster;
use crate::support::scale::{is_full, light_load, size};

/// The delay of each direction, which the proxy rounds up to a millisecond, and the round trips that
/// the service must measure: it then has eight, four and one producers for what is not on disk.
const DISTANCES: [(Duration, Range<f64>); 3] = [
    (Duration::from_millis(5), 0.004..1.0),
    (Duration::from_micros(500), 0.0015..0.004),
    (Duration::ZERO, 0.0..0.0015),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_drained_in_order_by_eight_producers_by_four_and_by_one() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let proxy = cluster.proxy(1);
    let mut run = run_on(&cluster, &cluster.proxied());
    let mut sender = None;
    let times = size(1, 10);
    for _ in 0..times {
        for (delay, round_trips) in DISTANCES {
            proxy.delay(delay);
            start_again(&mut run, &mut sender);
            blocking(|| {
                // Beside other tests the machine may add to it.
                run.wait_for("it knows the distance", |run| {
                    let measured = run.metric("zim2kafka_kafka_round_trip_seconds");
                    measured > 0.0 && (round_trips.contains(&measured) || !is_full())
                });
            });
            load_for(Duration::from_secs(1)).await;
            // The next start finds rows of every group.
            proxy.stall();
            load_for(Duration::from_secs(2)).await;
            assert!(run.metric("zim2kafka_spool_records") > 0.0);
        }
    }
    proxy.pass();
    let report = run.judge(&cluster, sender.expect("it is started")).await;
    record_times(
        &run,
        "spool drained by 8, 4 and 1 producers",
        times,
        &report,
    );
}
