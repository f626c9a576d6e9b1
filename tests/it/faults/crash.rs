//! The service dies, or is replaced.

use std::time::{Duration, Instant};

use super::{Run, blocking, load_for};
use crate::support::kafka::kafka;
use crate::support::scale::{light_load, size};

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_points_lose_nothing() {
    let _load = light_load().await;
    let Some(kafka) = kafka() else { return };
    let kills = size(10, 200);
    let mut run = Run::new(kafka, kafka.brokers());
    blocking(|| run.start());
    let sender = run.load(size(300, 1000));
    let mut worst = Duration::ZERO;
    for kill in 0..kills {
        load_for(Duration::from_millis(rand::random_range(50..800))).await;
        // Of every two, one spools nearly everything, so that kills hit the disk's side too.
        run.set(
            "ZIM2KAFKA_SPOOL_AFTER",
            if kill % 2 == 0 { "1ms" } else { "250ms" },
        );
        let killed = Instant::now();
        blocking(|| {
            run.kill();
            run.start();
            let before = sender.answered();
            run.wait_for("it answers again", |_| sender.answered() > before);
        });
        worst = worst.max(killed.elapsed());
    }
    let report = run.judge(kafka, sender).await;
    run.record(
        "kill -9 of the service under load",
        &kills,
        &report,
        worst,
        None,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_and_refuses_nothing() {
    let _load = light_load().await;
    let Some(kafka) = kafka() else { return };
    let mut run = Run::new(kafka, kafka.brokers());
    blocking(|| run.start());
    let sender = run.load(size(300, 1000));
    let mut worst = Duration::ZERO;
    let restarts = size(3, 30);
    for _ in 0..restarts {
        load_for(Duration::from_millis(500)).await;
        let stopped = Instant::now();
        blocking(|| {
            // The new one starts while the old one still has the port and the spool, and waits for
            // them.
            let mut old = run.service.take().expect("it is started");
            old.process.signal("TERM");
            old.process.logs("stopping");
            run.start();
            let log = run.service().process.stderr();
            let ended = old.process.end();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(
                log.contains("another process uses the spool"),
                "{log}\n{}",
                ended.stderr
            );
            assert!(!ended.stderr.contains("deadline"), "{}", ended.stderr);
        });
        worst = worst.max(stopped.elapsed());
    }
    let report = run.judge(kafka, sender).await;
    // Each callback that was taken in was answered: only connections were refused.
    assert_eq!(report.answered_5xx, 0, "{report}");
    run.record(
        "rolling restart under load",
        &restarts,
        &report,
        worst,
        None,
    );
}
