//! The spool from outside: what is answered when the disk is slow, fails or is full, what is on disk by
//! then, and what the next start makes of it. Syncs are counted, held up and failed where the program
//! calls them (`support::disk`), because a process that is killed says nothing about them: the system
//! keeps what was written, synced or not.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{PATIENCE, callback};
use crate::support::disk::{Disk, EIO, ENOSPC};
use crate::support::kafka::Kafka;
use crate::support::process::{Ended, Process, Service, zim2kafka};
use crate::support::volume::Volume;

const TOPIC: &str = "joined";
const DEAD_LETTER_TOPIC: &str = "dead";

/// Every callback is answered within so long, whatever the disk does: the deadline's 2 s, and what a
/// busy machine adds.
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
        self.kafka.broker_down(1).expect("there is one");
    }

    fn kafka_comes(&self) {
        self.kafka.broker_up(1).expect("there is one");
    }

    fn start(&self, more: &[(&str, &str)]) -> Service {
        self.start_on(&self.disk, &self.folder, more)
    }

    fn start_on(&self, disk: &Disk, folder: &Path, more: &[(&str, &str)]) -> Service {
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
        Service::start(&[], &variables)
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
    assert!(!ended.stderr.contains("spool"), "{}", ended.stderr);
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
fn a_disk_that_fails_makes_no_answer_untrue_and_needs_no_hand_when_it_works_again() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    let mut spooled = users(0..3);
    spool_all(&service, &spooled);
    type Switch = fn(&Disk, bool);
    let faults: [(&str, Switch); 4] = [
        ("failing syncs", |disk, on| disk.fail_syncs(on)),
        ("failing writes", |disk, on| {
            disk.fail_writes(on.then_some(EIO));
        }),
        ("no room", |disk, on| disk.fail_writes(on.then_some(ENOSPC))),
        ("hanging syncs", |disk, on| disk.hang_syncs(on)),
    ];
    for (fault, switch) in faults {
        let log_before = service.process.stderr().len();
        switch(&scene.disk, true);
        send(&service, fault, "HTTP/1.1 503");
        send(&service, fault, "retry-after: 2");
        assert!(!is_ready(&service), "{fault}");
        let log = service.process.stderr().split_off(log_before);
        if fault != "hanging syncs" {
            assert!(log.contains("ZIM2KAFKA_SPOOL_DIR"), "{fault}: {log}");
            assert_eq!(log.matches("ERROR").count(), 1, "{fault}: {log}");
        }
        switch(&scene.disk, false);
        wait_until(&service, "it is ready again", || is_ready(&service));
        let after = format!("after {fault}");
        send(&service, &after, "\"spooled\"");
        // What was answered 503 kept its place, and is safe by now as well.
        spooled.extend([fault.to_owned(), after]);
    }
    drop(service);
    scene.kafka_comes();
    let service = scene.start(&[]);
    let mut published = scene.published(spooled.len() + 4);
    // Each that was refused was sent twice, as two joins.
    published.dedup();
    assert_eq!(published, spooled);
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
    stop(service);
}

#[test]
fn a_disk_that_fails_matters_to_nobody_while_kafka_is_in_time() {
    let scene = Scene::new();
    scene.kafka_comes();
    let service = scene.start(&[("ZIM2KAFKA_SPOOL_AFTER", "50ms")]);
    wait_until(&service, "Kafka takes records", || {
        service.post(join("first")).contains("\"published\"")
    });
    // Slow enough for the spool to try, fast enough for the answer.
    let delay = Duration::from_millis(400);
    (scene.kafka.broker_round_trip_time(1, delay)).expect("there is one");
    for writes_fail_with in [None, Some(ENOSPC)] {
        scene.disk.fail_syncs(true);
        scene.disk.fail_writes(writes_fail_with);
        let failed = format!("{writes_fail_with:?}");
        send(&service, &failed, "\"published\"");
        // Kafka has to have told of the topic, for which nobody else waits.
        wait_until(&service, "it is ready", || is_ready(&service));
        assert!(service.process.stderr().contains("ZIM2KAFKA_SPOOL_DIR"));
    }
}

#[test]
fn a_kill_after_writes_that_failed_costs_nothing_and_is_not_taken_for_damage() {
    type Switch = fn(&Disk, bool);
    let faults: [Switch; 3] = [
        |disk, on| disk.fail_syncs(on),
        |disk, on| disk.fail_writes(on.then_some(ENOSPC)),
        |disk, on| disk.fail_syncs_from(if on { disk.syncs_begun() + 2 } else { u64::MAX }),
    ];
    for switch in faults {
        let scene = Scene::new();
        let service = scene.start(&[]);
        spool_all(&service, &users(0..5));
        switch(&scene.disk, true);
        let answer = service.post(join("in doubt"));
        let is_refused = answer.starts_with("HTTP/1.1 503");
        assert!(is_refused || answer.contains("\"spooled\""), "{answer}");
        drop(service);
        switch(&scene.disk, false);
        scene.kafka_comes();
        let service = scene.start(&[]);
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
        send(&service, "after", "HTTP/1.1 200");
        stop(service);
        // What was answered 503 may be there or not.
        let mut published = scene.published(0);
        published.retain(|user| user != "in doubt" || !is_refused);
        let mut expected = users(0..5);
        if !is_refused {
            expected.push("in doubt".to_owned());
        }
        expected.push("after".to_owned());
        assert_eq!(published, expected);
    }
}

#[test]
fn a_start_on_a_full_disk_publishes_what_is_there() {
    let scene = Scene::new();
    let volume = Volume::of(24 << 20);
    let folder = volume.path().join("spool");
    let start = || scene.start_on(volume.disk(), &folder, &[]);
    let service = start();
    spool_all(&service, &users(0..10));
    volume.fill();
    // What is left in the file is used up first.
    let mut number = 10;
    loop {
        let user = format!("u{number:03}");
        let answer = service.post(join(&user));
        number += 1;
        if answer.starts_with("HTTP/1.1 503") {
            break;
        }
        assert!(answer.contains("\"spooled\""), "{answer}");
    }
    assert!(!is_ready(&service));
    drop(service);

    let service = start();
    send(&service, "refused", "HTTP/1.1 503");
    scene.kafka_comes();
    let published = scene.published(number as usize - 1);
    let published: BTreeSet<_> = published.into_iter().collect();
    let spooled: BTreeSet<_> = users(0..number - 1).into_iter().collect();
    assert!(published.is_superset(&spooled), "{published:?}");
    wait_until(&service, "the spool is empty", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
    volume.free_up();
    wait_until(&service, "it is ready again", || is_ready(&service));
    scene.kafka_goes();
    send(&service, "room", "\"spooled\"");
    let log = service.process.stderr();
    assert!(log.contains("the spool works again"), "{log}");
}

/// Starts a `serve` that cannot, and returns what it said.
#[track_caller]
fn refused(folder: &Path, by: impl FnOnce(Command) -> Command) -> String {
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
        ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
    ];
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let arguments = [&["serve"][..], &ports].concat();
    let ended = Process::start(by(zim2kafka(&arguments, &variables))).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("ZIM2KAFKA_SPOOL_DIR"), "{ended:?}");
    last
}

/// Without the right of the superuser to write everywhere, where the test has it.
fn without_privilege(program: Command) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| {
        use std::os::unix::fs::MetadataExt;
        process.uid() == 0
    });
    if !is_root {
        return program;
    }
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear();
    let variables = program.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn a_folder_that_cannot_be_used_ends_the_start_and_is_named() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = home.path().join("file");
    fs::write(&file, "").expect("it can be written");
    refused(&file, |command| command);
    refused(&file.join("below"), |command| command);

    let read_only = home.path().join("read-only");
    fs::create_dir(&read_only).expect("its parent is ours");
    let may = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&read_only, mode).expect("it is ours");
    };
    may(0o500);
    refused(&read_only, without_privilege);
    refused(&read_only.join("below"), without_privilege);
    may(0o700);

    let broken = home.path().join("broken");
    fs::create_dir(&broken).expect("its parent is ours");
    let disk = Disk::new(&broken);
    disk.fail_syncs(true);
    refused(&broken, |mut command| {
        disk.apply(&mut command);
        command
    });
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

/// Changes one byte in the middle of what a user's record is stored as, wherever it is in the file: the
/// log repeats a page as often as a row is added to it.
fn damage(file: &Path, user: &str) {
    let bytes = fs::read(file).expect("it can be read");
    let needle = format!("\"new_user_ids\":[\"{user}\"]");
    let all = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes()));
    let open = OpenOptions::new().write(true).open(file);
    let open = open.expect("it can be opened");
    let damaged = all.map(|at| {
        open.write_at(b"X", at as u64 + 5)
            .expect("it can be written")
    });
    assert_ne!(damaged.count(), 0, "{user} is not in {}", file.display());
}

#[test]
fn a_byte_that_the_disk_changed_costs_that_record_alone_and_is_counted_and_named() {
    for (file, in_order) in [("spool.db-wal", false), ("spool.db", true)] {
        let scene = Scene::new();
        let service = scene.start(&[]);
        spool_all(&service, &users(0..20));
        if in_order {
            stop(service);
        } else {
            drop(service);
        }
        damage(&scene.file(file), "u007");
        scene.kafka_comes();
        let mut service = scene.start(&[]);
        let mut left = users(0..20);
        left.remove(7);
        assert_eq!(scene.published(19), left, "{file}");
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 1.0);
        assert_eq!(service.metric("zim2kafka_spool_lost_records_total"), 1.0);
        service.process.logs("the spool is damaged");
        let kept = fs::read_dir(&scene.folder).expect("it is there");
        let is_kept = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.expect("it can be read").file_name();
            name.to_string_lossy().starts_with("damaged-")
        };
        assert_eq!(kept.map(is_kept).filter(|kept| *kept).count(), 1);
        stop(service);
    }
}

#[test]
fn damage_that_is_found_while_the_service_runs_ends_it_for_the_next_start_to_salvage() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    // More than the producer is given at once, so that the rest is only on disk.
    let note = "n".repeat(400 * 1024);
    let large = |number: u32| {
        callback(json!({"group_id": "g", "new_user_ids": [format!("u{number:03}")], "note": note}))
    };
    let count = 100;
    for number in 0..count {
        let answer = service.post(large(number));
        assert!(answer.contains("\"spooled\""), "{answer}");
    }
    // Behind the first pages, so that something can be saved.
    for name in ["spool.db", "spool.db-wal"] {
        let path = scene.file(name);
        let length = fs::metadata(&path).expect("it is there").len();
        let open = OpenOptions::new().write(true).open(&path);
        let file = open.expect("it can be opened");
        let from = length.min(1 << 20);
        let garbage = vec![0x5a; (length - from) as usize];
        file.write_all_at(&garbage, from)
            .expect("it can be written");
    }
    scene.kafka_comes();
    let ended = service.process.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("damaged"), "{}", ended.stderr);

    let service = scene.start(&[]);
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 1.0);
    assert!(service.metric("zim2kafka_spool_lost_records_total") > 0.0);
    send(&service, "new", "HTTP/1.1 200");
    stop(service);
}
