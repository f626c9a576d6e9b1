//! `redrive` of many dead letters with a real Kafka: its rate, and what is published after kills.

use std::time::{Duration, Instant};

use zim2kafka::event::Reason;

use super::audit::{self, Log, Plan};
use super::support::dead_letters::{dead_letter, put};
use super::support::kafka::{Cluster, Jvm};
use super::support::process::{Process, zim2kafka};
use super::support::schema;

/// The age of the callbacks, which makes them stale.
const AGE: Duration = Duration::from_secs(3600);

const PARTITIONS: i32 = 12;

/// A run may take this long.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How long a run that is to be killed may publish nothing.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

/// Fills a dead-letter topic, publishes it once without interruption, and once more with kills.
pub(crate) fn measure(letters: usize, kills: u32, groups: u32) {
    let kafka = Cluster::try_start(1, Jvm::Server).unwrap_or_else(|error| panic!("{error}"));
    let now = now();
    let plan = Plan {
        seed: rand::random(),
        appid: "1".to_owned(),
        secret: "secret".to_owned(),
    };
    let timestamp = now - AGE.as_millis() as u64;
    let log = Log::of_dead_letters(plan, &vec![timestamp; letters], groups);
    let nothing = kafka.unique_topic("nothing");
    kafka.create_topic(&nothing, 1, &[]);
    let fill = || {
        let topics = Topics::create(&kafka);
        let records = log
            .bodies()
            .map(|(body, _)| dead_letter("secret", &body, Reason::Stale, now as i64));
        put(&kafka, &topics.dead, records);
        topics
    };
    println!("{letters} dead letters, {PARTITIONS} partitions, {groups} groups");
    let topics = fill();
    for (what, flags) in [
        ("dry run", &["--ignore-age", "--dry-run"][..]),
        ("published", &["--ignore-age"]),
    ] {
        let began = Instant::now();
        let mut running = topics.start(&kafka, flags);
        let mut memory = 0.0_f64;
        while !running.has_ended() {
            memory = memory.max(rss_mb(running.id()).unwrap_or(0.0));
            std::thread::sleep(Duration::from_millis(10));
        }
        let elapsed = began.elapsed();
        let ended = running.end_within(PATIENCE);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        println!(
            "{what}: {:.1} s, {:.0}/s, at most {memory:.1} MB",
            elapsed.as_secs_f64(),
            letters as f64 / elapsed.as_secs_f64(),
        );
    }
    judge("without kills", &kafka, &topics, &nothing, &log);

    let topics = fill();
    let (mut within, began) = (0, Instant::now());
    for left in (1..=kills).rev() {
        let before = topics.written(&kafka);
        let mut running = topics.start(&kafka, &["--ignore-age"]);
        let part = letters as i64 / (i64::from(left) + 1);
        let most = part.min(letters as i64 / i64::from(kills));
        let after = before + rand::random_range(0..=most);
        let deadline = Instant::now() + KILL_PATIENCE;
        while !running.has_ended() && topics.written(&kafka) <= after && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !running.has_ended() {
            running.signal("KILL");
        }
        within += u32::from(running.end_within(PATIENCE).code.is_none());
    }
    let ended = topics.start(&kafka, &["--ignore-age"]).end_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    println!("{within} kills in {:.1} s", began.elapsed().as_secs_f64());
    judge("with kills", &kafka, &topics, &nothing, &log);
}

struct Topics {
    dead: String,
    events: String,
}

impl Topics {
    fn create(kafka: &Cluster) -> Self {
        let [dead, events] = ["dead", "events"].map(|purpose| kafka.unique_topic(purpose));
        kafka.create_topic(&dead, PARTITIONS, &[]);
        kafka.create_topic(&events, PARTITIONS, &[]);
        Self { dead, events }
    }

    fn start(&self, kafka: &Cluster, flags: &[&str]) -> Process {
        let variables = [
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
            ("ZIM2KAFKA_TOPIC", &self.events),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &self.dead),
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ];
        Process::start(zim2kafka(&[&["redrive"], flags].concat(), &variables))
    }

    /// Offsets in use, those of aborted records and of markers too.
    fn written(&self, kafka: &Cluster) -> i64 {
        kafka.ends(&self.events, 0..PARTITIONS).values().sum()
    }
}

/// The auditor's verdict.
fn judge(what: &str, kafka: &Cluster, topics: &Topics, nothing: &str, log: &Log) {
    let names = [topics.events.as_str(), nothing];
    let contents = audit::read(kafka.brokers(), names, log, schema::check);
    let report = audit::audit(log, &contents);
    let numbers = 0..log.sent.len() as u64;
    let invalid = numbers.filter(|number| log.plan.is_dead(*number)).count();
    println!(
        "{what}: {} published of {} valid ones; lost {}, duplicates {}, altered {}, invented {}",
        contents.events.len(),
        log.sent.len() - invalid,
        report.lost - invalid as u64,
        report.duplicates,
        report.altered,
        report.invented
    );
    let found = (
        report.lost,
        report.duplicates,
        report.altered,
        report.invented,
    );
    assert_eq!(found, (invalid as u64, 0, 0, 0), "{report}");
}

/// The resident memory of a process that may have just ended.
fn rss_mb(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes / 1024.0)
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.expect("it is later").as_millis()).expect("it is not that late")
}
