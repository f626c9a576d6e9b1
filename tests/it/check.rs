//! `check`: what it finds, and how it ends.

use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::app::PATIENCE;
use crate::support::kafka::{kafka, shared_cluster};
use crate::support::process::{Ended, run};

/// There is a line that begins with this level, and is about this.
#[track_caller]
fn has(ended: &Ended, level: &str, subject: &str, text: &str) {
    let is = |line: &str| line.starts_with(level) && line.contains(subject) && line.contains(text);
    assert!(
        ended.stdout.lines().any(is),
        "{level} {subject} {text}\n{}",
        ended.stdout
    );
}

#[test]
fn it_reports_what_to_do_if_no_kafka_answers() {
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
    ];
    let ended = run(&["check"], &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended
        .stdout
        .lines()
        .find(|line| line.starts_with("error "))
        .expect("an error");
    assert!(
        line.contains("Kafka") && line.contains("check ZIM2KAFKA_KAFKA_BROKERS"),
        "{line}"
    );
    assert!(
        ended.stdout.lines().any(|line| line.starts_with("ok ")),
        "{}",
        ended.stdout
    );
}

#[test]
fn it_judges_the_topics_of_a_real_kafka() {
    let Some(kafka) = kafka() else { return };
    let names = ["good", "small", "dead"].map(|purpose| kafka.unique_topic(purpose));
    let [good, small, dead] = names.each_ref().map(String::as_str);
    kafka.create_topic(good, 3, &[]);
    kafka.create_topic(
        small,
        3,
        &[
            ("max.message.bytes", "999999"),
            ("unclean.leader.election.enable", "true"),
        ],
    );
    let check = |topic: &str, more: &[&str]| {
        let arguments = ["check", "--topic", topic, "--dead-letter-topic", dead];
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ];
        run(&[&arguments, more].concat(), &variables)
    };
    let ended = check(good, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    has(&ended, "error", dead, "does not exist");
    has(&ended, "error", dead, "ZIM2KAFKA_CREATE_TOPICS=true");
    has(&ended, "ok", good, "3 partitions");
    has(&ended, "ok", good, "is writable");

    kafka.create_topic(dead, 1, &[]);
    let ended = check(good, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    has(&ended, "ok", "configuration", "valid");
    has(&ended, "ok", "Kafka", "answers");
    has(&ended, "warning", "spool", "none");
    has(&ended, "", good, "replication factor");
    has(&ended, "", good, "min.insync.replicas");
    assert_eq!(
        check(good, &["--strict"]).code,
        Some(1),
        "no spool is a warning"
    );

    let ended = check(small, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    has(&ended, "error", small, "max.message.bytes is 999999");
    has(&ended, "warning", small, "unclean.leader.election.enable");
}

#[test]
fn a_topic_without_the_right_to_write_is_an_error() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let names = ["check", "check-dead"].map(|purpose| cluster.unique_topic(purpose));
    names
        .iter()
        .for_each(|name| cluster.create_topic(name, 1, &[]));
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties
        .map(|(key, value)| format!("{key}={value}"))
        .join("\n");
    let check = || {
        let [topic, dead] = names.each_ref().map(String::as_str);
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", sasl.brokers.as_str()),
            ("ZIM2KAFKA_KAFKA_PROPERTIES", properties.as_str()),
            ("ZIM2KAFKA_TOPIC", topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
        ];
        run(&["check"], &variables)
    };
    // Brokers follow within moments, not at once.
    let becomes = |code| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = check();
            if ended.code == Some(code) {
                return ended;
            }
            assert!(Instant::now() < deadline, "{ended:?}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let ended = becomes(0);
    for name in &names {
        has(&ended, "ok", name, "is writable");
    }
    for name in &names {
        cluster.deny(name, "WRITE");
        let ended = becomes(1);
        has(&ended, "error", name, "the right Write");
        cluster.allow_again(name, "WRITE");
        becomes(0);
    }
    // It only looked.
    for name in &names {
        assert!(cluster.read_all(name).is_empty());
    }
}

#[test]
fn a_mistyped_variable_is_a_warning() {
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
        ("ZIM2KAFKA_DLQ_TOPIC", "dead"),
    ];
    let ended = run(&["check"], &variables);
    let warning = "ZIM2KAFKA_DLQ_TOPIC is not a setting; did you mean ZIM2KAFKA_DEAD_LETTER_TOPIC?";
    has(&ended, "warning", "variables", warning);
}

#[test]
fn an_unsuitable_spool_folder_is_reported() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let check = |folder: &str, bytes: &str| {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
            ("ZIM2KAFKA_SPOOL_DIR", folder),
            ("ZIM2KAFKA_SPOOL_MAX_BYTES", bytes),
        ];
        let ended = run(&["check"], &variables);
        assert_eq!(ended.code, Some(1), "Kafka does not answer: {ended:?}");
        ended
    };
    let (folder, file) = (home.path().join("spool"), home.path().join("file"));
    std::fs::write(&file, "").expect("it can be written");
    let [folder_path, file] = [&folder, &file].map(|path| path.to_str().expect("text"));
    let checks = [
        (folder_path, "4MiB"),
        (folder_path, "900TiB"),
        (file, "4MiB"),
        // Every Linux has it.
        ("/dev/shm/zim2kafka-check", "4MiB"),
    ];
    // Each waits for a Kafka that does not answer, so they run side by side.
    let [sound, too_large, not_a_folder, in_memory] = thread::scope(|scope| {
        let check = &check;
        let running = checks.map(|(path, bytes)| scope.spawn(move || check(path, bytes)));
        running.map(|check| check.join().expect("no panic"))
    });
    has(&sound, "ok", "spool", "will be created");
    has(&sound, "ok", "spool", "MiB are free");
    assert!(!folder.exists(), "it only looks");
    has(&too_large, "warning", "spool", "free space on the disk");
    has(
        &not_a_folder,
        "error",
        "spool",
        "not a folder; set ZIM2KAFKA_SPOOL_DIR",
    );
    has(&in_memory, "error", "spool", "tmpfs is in memory");
}
