//! Faults under load, judged by the auditor.
//!
//! `cargo test` runs them small. `tests/faults` runs them at full size, in release, and writes what
//! they found to `tests/faults.json`, from which the table in `docs/guarantees.md` is made.

mod answers;
mod crash;
mod disk;
mod kafka;
mod lanes;
mod leaderless;
mod network;
mod order;
mod producer;
mod slow;
mod topics;

use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use crate::audit::{Contents, Load, Log, Plan, Report, SCHEDULE, Sender, Taken, audit, read, take};
use crate::support::kafka::Kafka;
use crate::support::process::{Service, free_address};
use crate::support::scale::{is_full, size};
use crate::support::schema;
use crate::support::volume::Volume;

/// A hard deadline for every answer, in ms: the answer deadline, and what a busy machine adds.
const ANSWER_MS: u64 = 3000;

/// By `docs/guarantees.md` a crash or a new producer repeats no more: the window of the producer, and one
/// batch of deletions.
const DUPLICATES: u64 = 20_000;

/// For what goes on until it is done.
const PATIENCE: Duration = Duration::from_secs(120);

const RECREATIONS: &str = "zim2kafka_producer_recreations_total";

/// A service under load, with a spool and two topics of its own.
struct Run {
    service: Option<Service>,
    starts: u64,
    /// Where callbacks go, also after a restart.
    address: String,
    brokers: String,
    topics: [String; 2],
    spool: TempDir,
    volume: Option<Volume>,
    seed: u64,
    variables: Vec<(&'static str, String)>,
}

/// A row of the table.
#[derive(Serialize)]
struct Row<'a> {
    fault: &'a str,
    times: String,
    seed: u64,
    #[serde(flatten)]
    report: &'a Report,
    recovery_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    drained_per_second: Option<u64>,
}

impl Run {
    /// The topics are made at `kafka`; the service goes to `brokers`. It is not started.
    fn new(kafka: &Kafka, brokers: &str) -> Self {
        let topics = ["joined", "dead"].map(|purpose| kafka.unique_topic(purpose));
        for topic in &topics {
            kafka.create_topic(topic, 6, &[]);
        }
        Self::on(brokers, topics)
    }

    fn on(brokers: &str, topics: [String; 2]) -> Self {
        let given = env::var("ZIM2KAFKA_TEST_SEED").ok();
        let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("a number"));
        println!("ZIM2KAFKA_TEST_SEED={seed}");
        Self {
            service: None,
            starts: 0,
            address: free_address(),
            brokers: brokers.to_owned(),
            topics,
            spool: tempfile::tempdir().expect("a folder"),
            volume: None,
            seed,
            variables: Vec::new(),
        }
    }

    /// Its spool is on a small disk.
    fn put_spool_on(&mut self, volume: Volume) {
        self.volume = Some(volume);
    }

    fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.variables.retain(|(name, _)| *name != variable);
        self.variables.push((variable, value.into()));
    }

    fn start(&mut self) {
        self.starts += 1;
        let folder = match &self.volume {
            Some(volume) => volume.path().join("spool"),
            None => self.spool.path().join("spool"),
        };
        let folder = folder.to_str().expect("text").to_owned();
        let mut variables = vec![
            ("ZIM2KAFKA_KAFKA_BROKERS", self.brokers.as_str()),
            ("ZIM2KAFKA_TOPIC", &self.topics[0]),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &self.topics[1]),
            ("ZIM2KAFKA_SPOOL_DIR", &folder),
            ("ZIM2KAFKA_DRAIN_DELAY", "100ms"),
        ];
        variables.extend(
            self.variables
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        self.service = Some(Service::start_on(&self.address, &[], &variables));
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("it is started")
    }

    /// Without a chance to do anything.
    fn kill(&mut self) {
        drop(self.service.take());
    }

    /// In order. Returns what it logged.
    fn stop(&mut self) -> String {
        let service = self.service.take().expect("it is started");
        service.process.signal("TERM");
        let ended = service.process.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    }

    fn load(&self, rate: u32) -> Sender {
        self.load_of(0..4 * rate, rate)
    }

    /// The fewer groups there are, the sooner a group's next callback follows.
    fn load_of(&self, groups: impl IntoIterator<Item = u32>, rate: u32) -> Sender {
        Sender::start(Load {
            plan: Plan {
                seed: self.seed,
                appid: "1".to_owned(),
                secret: "secret".to_owned(),
            },
            address: self.address.parse().expect("an address"),
            rate,
            groups: groups.into_iter().collect(),
            // In a small run a failed attempt is repeated sooner, so that the test ends sooner.
            schedule: if is_full() {
                SCHEDULE
            } else {
                SCHEDULE.map(|pause| pause / 4)
            },
        })
    }

    fn metric(&self, series: &str) -> f64 {
        self.service().metric(series)
    }

    /// Polls until it is so.
    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE.max(size(PATIENCE, PATIENCE * 10));
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain: {what}\n{}",
                self.service().process.stderr()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_until_drained(&self) {
        self.wait_until_drained_to(0.0);
        self.wait_for("Kafka has answered for all records", |run| {
            run.metric("zim2kafka_kafka_in_flight_records") == 0.0
        });
    }

    /// Under load there may always be some.
    fn wait_until_drained_to(&self, records: f64) {
        self.wait_for("what is in the spool goes to Kafka", |run| {
            run.metric("zim2kafka_spool_records") <= records
        });
    }

    /// Ends the load, waits until all is in Kafka, and lets the auditor judge. What is against a
    /// promise fails the test here.
    async fn judge(&mut self, kafka: &Kafka, sender: Sender) -> Report {
        let log = sender.stop().await;
        blocking(|| self.wait_until_drained());
        let [events, dead_letters] = &self.topics;
        let contents =
            blocking(|| read(kafka.brokers(), [events, dead_letters], &log, schema::check));
        self.judge_these(&log, &contents)
    }

    /// What is in Kafka now, of topics that are about to be deleted.
    fn take(&self, kafka: &Kafka) -> Taken {
        let [events, dead_letters] = &self.topics;
        take(kafka.brokers(), [events, dead_letters], schema::check)
    }

    fn judge_these(&self, log: &Log, contents: &Contents) -> Report {
        let report = audit(log, contents);
        println!("{report}");
        let said = || format!("{report}\n{}", self.service().process.stderr());
        assert!(report.is_clean(), "{}", said());
        assert!(report.worst_answer_ms < ANSWER_MS, "{}", said());
        let producers = self.starts + self.metric(RECREATIONS) as u64;
        assert!(report.duplicates <= DUPLICATES * producers, "{}", said());
        assert_eq!((report.answered_else, report.refused), (0, 0), "{}", said());
        assert!(
            report.callbacks > 0 && report.answered_2xx >= report.callbacks,
            "{}",
            said()
        );
        report
    }

    /// Takes down a row of the table.
    fn record(
        &self,
        fault: &str,
        times: &dyn ToString,
        report: &Report,
        recovery: Duration,
        drained_per_second: Option<u64>,
    ) {
        let row = Row {
            fault,
            times: times.to_string(),
            seed: self.seed,
            report,
            recovery_ms: recovery.as_millis() as u64,
            drained_per_second,
        };
        let row = serde_json::to_string(&row).expect("it serialises");
        println!("{row}");
        if let Ok(folder) = env::var("ZIM2KAFKA_TEST_FAULTS_OUT") {
            let name = fault.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
            let file = Path::new(&folder).join(format!("{name}.json"));
            fs::write(file, row).expect("it can be written");
        }
    }
}

/// Runs what blocks, without starving the sender.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Load goes on for so long. Not a wait for anything: the time is the size of the test.
async fn load_for(time: Duration) {
    tokio::time::sleep(time).await;
}
