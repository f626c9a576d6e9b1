//! How fast a backlog in the spool leaves while Kafka is a round trip away, and what it costs the
//! callbacks that arrive meanwhile.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::load::{Load, Pace};
use super::super::subjects::{Subject, spool_in};
use super::{NOWHERE, PATIENCE, Topics, start_kafka};

/// Longer than the topic accepts.
const AGE: Duration = Duration::from_secs(7200);

/// Callbacks per second of other groups during the drain.
const RATE: f64 = 500.0;

/// The backlog to be drained.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Drain {
    /// The kind of records in the backlog
    #[arg(value_enum)]
    kind: Backlog,
    /// How many there are
    records: u64,
    /// In ms
    #[arg(long, default_value = "10")]
    round_trip: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Backlog {
    /// The topic rejects them because of their time
    Refused,
    /// The topic rejects every second one
    Mixed,
    /// The topic rejects them because of their size, 300 kB
    Large,
    /// Nothing; all are of one group
    OneGroup,
}

impl Drain {
    /// Measures one drain.
    pub(crate) fn measure(self, load: &Load) {
        let kafka = start_kafka(1, false, load);
        kafka.set_round_trip(Duration::from_millis(self.round_trip));
        let topics = Topics::create_with(
            &kafka,
            load.partitions,
            &[
                ("message.timestamp.before.max.ms", "3600000"),
                ("max.message.bytes", "262144"),
            ],
        );
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let start = |brokers: &str| {
            let mut variables = topics.variables().to_vec();
            variables.push(("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"));
            variables.push(("ZIM2KAFKA_BODY_LIMIT", "900000"));
            variables.extend(spool_in(folder.path()));
            Subject::service(brokers, &variables)
        };
        self.fill(&start(NOWHERE), load);

        let subject = start(&kafka.distant());
        let backlog = subject.metric("zim2kafka_spool_records");
        let others = Load {
            prefix: "other",
            ..*load
        };
        let mut connected = others.connect(subject.target().expect("it takes callbacks"));
        let drained = Mutex::new(None);
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                while subject.metric("zim2kafka_spool_records") > backlog / 1000.0 {
                    assert!(began.elapsed() < 20 * PATIENCE, "it does not drain");
                    thread::sleep(Duration::from_millis(50));
                }
                *drained.lock().expect("no panic") = Some(began.elapsed());
            });
            while drained.lock().expect("no panic").is_none() {
                let outcome = connected.run_open(RATE, Duration::from_secs(2));
                println!(
                    "other groups: p50 / p99 / p99.9 {:.1?} ms, published {}, spooled {}, 503 {}",
                    outcome.percentiles(),
                    outcome.answers.published,
                    outcome.answers.spooled,
                    outcome.answers.unavailable,
                );
            }
        });
        let elapsed = drained.lock().expect("no panic").expect("it is drained");
        let rejected = subject.metric("zim2kafka_kafka_deliveries_total{result=\"rejected\"}");
        println!(
            "{:?}: {backlog} records in {:.1} s, {:.0}/s, {rejected} of all rejected",
            self.kind,
            elapsed.as_secs_f64(),
            backlog / elapsed.as_secs_f64(),
        );
        let expected = backlog
            * match self.kind {
                Backlog::Refused | Backlog::Large => 1.0,
                Backlog::Mixed => 0.4,
                Backlog::OneGroup => 0.0,
            };
        assert!(rejected >= expected, "Kafka took records of the backlog");
        let healthy = connected.run_open(RATE, Duration::from_secs(10));
        println!(
            "without a backlog: p50 / p99 / p99.9 {:.1?} ms",
            healthy.percentiles()
        );
    }

    fn fill(self, down: &Subject, load: &Load) {
        let (bytes, groups, aged_each) = match self.kind {
            Backlog::Refused => (load.bytes, load.groups, 1),
            Backlog::Mixed => (load.bytes, load.groups, 2),
            Backlog::Large => (300_000, load.groups, 0),
            Backlog::OneGroup => (load.bytes, 1, 0),
        };
        let load = Load {
            bytes,
            groups,
            aged_each,
            age: AGE,
            ..*load
        };
        let mut connected = load.connect(down.target().expect("it takes callbacks"));
        while down.metric("zim2kafka_spool_records") < self.records as f64 {
            connected.run(Pace::Saturation, Duration::from_millis(500));
        }
    }
}
