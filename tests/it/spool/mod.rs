//! The spool from outside: what is answered when the disk is slow, fails or is full, what is on
//! disk by then, and what the next start makes of it. Syncs are counted, held up and failed where
//! the program calls them (`support::disk`), because a process that is killed says nothing about
//! them: the system keeps what was written, synced or not.

mod damaged;
mod failing;
mod format;
mod quota;
mod shown;
mod starting;
mod unwritable;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{PATIENCE, callback};
use crate::support::disk::{Disk, EIO};
use crate::support::kafka::Kafka;
use crate::support::process::{Ended, Service, Starting};
use crate::support::start::broker_down;

const TOPIC: &str = "joined";
const DEAD_LETTER_TOPIC: &str = "dead";

/// Every callback is answered within so long, whatever the disk does: the deadline's 2 s, and what
/// a busy machine adds.
const ANSWERED: Duration = Duration::from_secs(3);

/// A folder on a disk under test, and a Kafka that can go away at once.
struct Scene {
    folder: PathBuf,
    disk: Disk,
    kafka: MockCluster<'static, DefaultProducerContext>,
    _home: TempDir,
}

impl Scene {
    /// Kafka is away.
    fn new() -> Self {
        // Not where temporary files usually go: that may be in memory.
        let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let kafka = MockCluster::new(1).expect("it starts");
        for topic in [TOPIC, DEAD_LETTER_TOPIC] {
            kafka.create_topic(topic, 1, 1).expect("it can be created");
        }
        let scene = Self {
            folder: home.path().join("spool"),
            disk: Disk::new(home.path()),
            kafka,
            _home: home,
        };
        scene.kafka_goes();
        scene
    }

    fn kafka_goes(&self) {
        broker_down(&self.kafka, 1);
    }

    fn kafka_comes(&self) {
        self.kafka.broker_up(1).expect("there is one");
    }

    fn start(&self, more: &[(&str, &str)]) -> Service {
        self.start_on(&self.disk, &self.folder, more)
    }

    fn start_on(&self, disk: &Disk, folder: &Path, more: &[(&str, &str)]) -> Service {
        self.begin_on("127.0.0.1:0", disk, folder, more).listening()
    }

    /// Starts a service with callbacks at this address, and does not wait for it.
    fn begin(&self, callbacks: &str) -> Starting {
        self.begin_on(callbacks, &self.disk, &self.folder, &[])
    }

    fn begin_on(
        &self,
        callbacks: &str,
        disk: &Disk,
        folder: &Path,
        more: &[(&str, &str)],
    ) -> Starting {
        self.begin_by(callbacks, disk, folder, more, |command| command)
    }

    fn begin_by(
        &self,
        callbacks: &str,
        disk: &Disk,
        folder: &Path,
        more: &[(&str, &str)],
        by: impl FnOnce(Command) -> Command,
    ) -> Starting {
        let brokers = self.kafka.bootstrap_servers();
        let mut variables = vec![
            ("ZIM2KAFKA_KAFKA_BROKERS", brokers.as_str()),
            ("ZIM2KAFKA_TOPIC", TOPIC),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", DEAD_LETTER_TOPIC),
            ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
            ("ZIM2KAFKA_DRAIN_DELAY", "0s"),
        ];
        variables.extend(disk.variables());
        variables.extend(more);
        Service::begin_by(callbacks, &[], &variables, by)
    }

    /// The users whose joins are in the topic, in order, once there are so many.
    fn published(&self, count: usize) -> Vec<String> {
        let kafka = Kafka::at(&self.kafka.bootstrap_servers());
        kafka.read_until(TOPIC, count, PATIENCE);
        let records = kafka.read_all(TOPIC);
        let user = |value: &[u8]| -> String {
            let event: Value = serde_json::from_slice(value).expect("JSON");
            event["new_user_ids"][0].as_str().expect("text").to_owned()
        };
        records.iter().map(|record| user(&record.value)).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[test]
fn a_timestamp_of_0_is_published_as_1970_from_the_spool_too() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    let answer = service.post(callback(json!({"timestamp": "0000000000"})));
    assert!(answer.contains("\"spooled\""), "{answer}");
    scene.kafka_comes();
    let kafka = Kafka::at(&scene.kafka.bootstrap_servers());
    kafka.read_until(TOPIC, 1, PATIENCE);
    let times: Vec<_> = (kafka.read_all(TOPIC).iter())
        .map(|record| record.timestamp)
        .collect();
    assert_eq!(times, [1]);
}

fn join(user: &str) -> Vec<u8> {
    callback(json!({"group_id": "g", "new_user_ids": [user]}))
}

/// Sends one join, which must be answered like this, within the time that the sender is promised.
#[track_caller]
fn send(service: &Service, user: &str, answer: &str) {
    let began = Instant::now();
    let answered = service.post(join(user));
    let took = began.elapsed();
    let log = service.process.stderr();
    assert!(answered.contains(answer), "{user}: {answered}\n{log}");
    assert!(took < ANSWERED, "{user}: {took:?}\n{log}");
}

#[track_caller]
fn spool_all(service: &Service, users: &[String]) {
    for user in users {
        send(service, user, "\"spooled\"");
    }
}

fn users(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("u{number:03}")).collect()
}

#[track_caller]
fn wait_until(service: &Service, what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        let log = service.process.stderr();
        assert!(Instant::now() < deadline, "waited in vain: {what}\n{log}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_ready(service: &Service) -> bool {
    service.admin("/readyz").starts_with("HTTP/1.1 200")
}

/// Ends the service in order.
#[track_caller]
fn stop(service: Service) -> Ended {
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

#[test]
fn nothing_is_written_while_kafka_is_in_time() {
    let scene = Scene::new();
    scene.kafka_comes();
    // So long that no machine is too busy for it.
    let service = scene.start(&[
        ("ZIM2KAFKA_SPOOL_AFTER", "30s"),
        ("ZIM2KAFKA_ANSWER_DEADLINE", "60s"),
        ("ZIM2KAFKA_STOP_DEADLINE", "90s"),
    ]);
    service.ready();
    let files = || {
        let names = ["spool.db", "spool.db-wal", "ballast"];
        let length = |name| fs::metadata(scene.file(name)).map_or(0, |file| file.len());
        (scene.disk.syncs_begun(), names.map(length))
    };
    let before = files();
    let logged = service.process.stderr().len();
    // Whatever it tries to write fails from here on.
    scene.disk.fail_writes(Some(EIO));
    for user in users(0..200) {
        assert!(service.post(join(&user)).contains("\"published\""));
    }
    assert_eq!(files(), before);
    assert_eq!(service.metric("zim2kafka_spool_syncs_total"), 0.0);
    assert_eq!(service.metric("zim2kafka_spool_records"), 0.0);
    assert_eq!(scene.published(200), users(0..200));
    let ended = stop(service);
    assert!(
        !ended.stderr[logged..].contains("spool"),
        "{}",
        ended.stderr
    );
}

#[test]
fn no_answer_says_spooled_before_a_sync_has_ended() {
    let scene = Scene::new();
    let service = scene.start(&[
        ("ZIM2KAFKA_ANSWER_DEADLINE", "60s"),
        ("ZIM2KAFKA_STOP_DEADLINE", "90s"),
    ]);
    for user in users(0..20) {
        let before = scene.disk.syncs();
        send(&service, &user, "\"spooled\"");
        assert!(
            scene.disk.syncs() > before,
            "{user} is answered, and not synced"
        );
    }

    let delay = Duration::from_millis(700);
    scene.disk.delay_syncs(delay);
    let began = Instant::now();
    send(&service, "delayed", "\"spooled\"");
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    scene.disk.delay_syncs(Duration::ZERO);

    let (begun, ended) = (scene.disk.syncs_begun(), scene.disk.syncs());
    scene.disk.hang_syncs(true);
    thread::scope(|scope| {
        let answer = scope.spawn(|| service.post(join("held up")));
        wait_until(&service, "a sync begins", || {
            scene.disk.syncs_begun() > begun
        });
        // Not a wait for anything: an answer that did not wait would come in this time.
        thread::sleep(Duration::from_millis(300));
        assert!(!answer.is_finished(), "it is answered while its sync hangs");
        assert_eq!(scene.disk.syncs(), ended);
        scene.disk.hang_syncs(false);
        let answer = answer.join().expect("it is answered");
        assert!(answer.contains("\"spooled\""), "{answer}");
    });
    assert!(scene.disk.syncs() > ended);

    drop(service);
    scene.kafka_comes();
    let service = scene.start(&[]);
    let mut all = users(0..20);
    all.extend(["delayed", "held up"].map(str::to_owned));
    assert_eq!(scene.published(22), all);
    stop(service);
}

#[test]
fn an_ordered_stop_leaves_everything_in_one_file_and_the_next_start_publishes_it_once() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    spool_all(&service, &users(0..30));
    for entry in fs::read_dir(&scene.folder).expect("it is there") {
        let entry = entry.expect("it can be read");
        let mode = entry.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    stop(service);
    let log = fs::metadata(scene.file("spool.db-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0);

    scene.kafka_comes();
    let service = scene.start(&[]);
    wait_until(&service, "the spool is empty", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
    assert_eq!(
        service.metric("zim2kafka_spool_replayed_records_total"),
        30.0
    );
    send(&service, "new", "HTTP/1.1 200");
    let mut all = users(0..30);
    all.push("new".to_owned());
    assert_eq!(scene.published(31), all);
    stop(service);
}
