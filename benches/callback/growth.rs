//! How the cost of a callback grows with connections, bodies, groups and partitions, and the cost
//! of many records in the spool.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::load::{Load, Pace};
use super::subjects::{self, Kind, Subject};

/// The service with the in-memory broker, with one parameter at a time changed.
pub(crate) fn measure(usual: &Load) {
    println!(
        "| what | callbacks/s | CPU µs | p50 / p99 / p99.9 ms | at half load | RSS MB | not 2xx |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let row = |what: &str, load: &Load| {
        let figures = subjects::measure(Kind::Embedded, load);
        let latency = |[p50, p99, p999]: [f64; 3]| format!("{p50:.2} / {p99:.2} / {p999:.2}");
        println!(
            "| {what} | {:.0} | {:.1} | {} | {} | {:.1} | {} |",
            figures.per_second,
            figures.cpu_us,
            latency(figures.saturation),
            latency(figures.half_load),
            figures.rss_mb,
            figures.not_2xx,
        );
    };
    row("defaults", usual);
    for connections in [1, 16, 256, 4096] {
        let what = format!("{connections} connections");
        row(
            &what,
            &Load {
                connections,
                ..*usual
            },
        );
    }
    for bytes in [2_000, 100_000] {
        row(
            &format!("bodies of {bytes} bytes"),
            &Load { bytes, ..*usual },
        );
    }
    for groups in [1, 1_000_000] {
        row(&format!("{groups} groups"), &Load { groups, ..*usual });
    }
    for partitions in [1, 4, 48] {
        let what = format!("{partitions} partitions");
        row(
            &what,
            &Load {
                partitions,
                ..*usual
            },
        );
    }
}

/// Half load on the service with the in-memory broker for the given minutes, and its memory after
/// each.
pub(crate) fn endurance(load: &Load, minutes: u64) {
    let subject = Subject::start(Kind::Embedded, load);
    let target = subject.target().expect("it takes callbacks");
    let mut connected = load.connect(target);
    connected.run(Pace::Saturation, Kind::Embedded.warm_up());
    let saturation = connected.run(Pace::Saturation, load.duration);
    let rate = saturation.per_second() / 2.0;
    println!("half load is {rate:.0}/s");
    println!("| minute | p50 / p99 / p99.9 ms | RSS MB | not 2xx |");
    println!("| ---: | ---: | ---: | ---: |");
    let mut memory = Vec::new();
    // The first minute fills what has a limit, such as the deduplication window.
    for minute in 0..=minutes {
        let half = connected.run(Pace::Rate(rate), Duration::from_secs(60));
        let [p50, p99, p999] = half.percentiles();
        memory.push(subject.process().rss_mb());
        println!(
            "| {minute} | {p50:.2} / {p99:.2} / {p999:.2} | {:.1} | {} |",
            memory[memory.len() - 1],
            half.not_2xx
        );
    }
    let most = memory.iter().copied().fold(0.0, f64::max);
    println!(
        "memory has grown by at most {:.1} MB since minute 0",
        most - memory[0]
    );
}

/// The given number of records in the spool: written while Kafka is down, found by a start,
/// published to the in-memory broker.
pub(crate) fn spool(load: &Load, records: u64) {
    // Not in the usual folder of temporary files, which may be in memory.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let folder = folder.path();
    let say = |what: &str, records: f64, began: Instant, subject: &Subject| {
        let elapsed = began.elapsed().as_secs_f64();
        println!(
            "{what}: {elapsed:.1} s, {:.0} records/s, RSS {:.1} MB",
            records / elapsed,
            subject.process().rss_mb()
        );
    };

    let began = Instant::now();
    let down = Subject::with_spool("127.0.0.1:1", folder);
    let mut connected = load.connect(down.target().expect("it takes callbacks"));
    while down.metric("zim2kafka_spool_records") < records as f64 {
        connected.run(Pace::Saturation, Duration::from_secs(5));
    }
    let records = down.metric("zim2kafka_spool_records");
    say(&format!("{records} written"), records, began, &down);
    drop((connected, down));

    let began = Instant::now();
    let found = Subject::with_spool("127.0.0.1:1", folder);
    assert!(
        found.metric("zim2kafka_spool_records") >= records,
        "none is lost"
    );
    say("found by a start, until ready", records, began, &found);
    drop(found);

    let (_broker, brokers) = subjects::embedded(load);
    let subject = Subject::with_spool(&brokers, folder);
    let began = Instant::now();
    while subject.metric("zim2kafka_spool_records") > 0.0 {
        std::thread::sleep(Duration::from_millis(200));
    }
    say("drained", records, began, &subject);
}
