//! `check`: what it finds, and how it ends.

pub(crate) mod report;
mod steps;

use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::app::PATIENCE;
use crate::support::kafka::{Cluster, kafka, shared_cluster};
use crate::support::process::{Ended, Service, run};

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

    let ended = check(good, &["--create-topics", "--topic-partitions=5"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    has(
        &ended,
        "ok",
        dead,
        "does not exist; serve creates it with 5 partitions",
    );
    let ended = check(good, &["--create-topics", "--topic-replication=100"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    has(
        &ended,
        "error",
        dead,
        "cannot create the topic (topic: Broker: Invalid replication factor); set ZIM2KAFKA_TOPIC_REPLICATION",
    );
    assert!(kafka.partitions(dead).is_empty(), "it only looks");

    kafka.create_topic(dead, 1, &[]);
    let ended = check(good, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    has(&ended, "ok", "configuration", "valid");
    has(&ended, "ok", "Kafka", "answers");
    has(&ended, "warning", "spool", "there is none");
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
fn settings_that_delete_change_or_reject_records_are_found_and_logged_once() {
    let Some(kafka) = kafka() else { return };
    let [topic, dead] = ["forgets", "forgets-dead"].map(|purpose| kafka.unique_topic(purpose));
    let mut of_events = vec![
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "1000"),
        ("retention.bytes", "1000"),
        ("message.timestamp.before.max.ms", "60000"),
        ("message.timestamp.after.max.ms", "60000"),
    ];
    let of_dead_letters = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "7200000"),
        ("min.insync.replicas", "4"),
    ];
    kafka.create_topic(&topic, 1, &of_events);
    kafka.create_topic(&dead, 1, &of_dead_letters);
    let found = [
        (
            "error",
            &topic,
            "cleanup.policy is compact,delete: Kafka keeps only the last record of each key; set cleanup.policy=delete",
        ),
        ("error", &topic, "retention.ms is 1000 (1 s): "),
        (
            "error",
            &topic,
            "retention.bytes is 1000 for each partition: ",
        ),
        (
            "error",
            &topic,
            "message.timestamp.before.max.ms is 60000 (1 min), below ZIM2KAFKA_TIMESTAMP_TOLERANCE (10 min): ",
        ),
        (
            "error",
            &topic,
            "message.timestamp.after.max.ms is 60000 (1 min), below ZIM2KAFKA_TIMESTAMP_TOLERANCE",
        ),
        ("error", &dead, "cleanup.policy is compact: "),
        (
            "warning",
            &dead,
            "message.timestamp.type is LogAppendTime: ",
        ),
        ("warning", &dead, "retention.ms is 7200000 (2 h): "),
        (
            "error",
            &dead,
            "min.insync.replicas is 4, more than the replication factor ",
        ),
    ];
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ("ZIM2KAFKA_TOPIC", &topic),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &dead),
    ];
    let ended = run(&["check"], &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (level, subject, text) in found {
        has(&ended, level, subject, text);
    }

    let mut service = Service::start(&[], &variables);
    service.process.logs(found[8].2);
    // With this one, the next inspection has a finding that is new.
    of_events.push(("unclean.leader.election.enable", "true"));
    kafka.change_topic(&topic, &of_events);
    let log = service
        .process
        .logs("unclean.leader.election.enable is true");
    for (level, subject, text) in found {
        let is = |line: &&str| line.contains(&format!("{subject}: {text}"));
        let lines: Vec<_> = log.lines().filter(is).collect();
        assert_eq!(lines.len(), 1, "{text}: {log}");
        let level = level.to_uppercase();
        assert!(lines[0].contains(&level[..4]), "{lines:?}");
    }

    kafka.change_topic(&topic, &[]);
    kafka.change_topic(&dead, &[]);
    let ended = run(&["check"], &variables);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_topic_whose_settings_may_not_be_read_is_one_warning() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let names = ["hidden", "hidden-dead"].map(|purpose| cluster.unique_topic(purpose));
    names
        .iter()
        .for_each(|name| cluster.create_topic(name, 1, &[]));
    cluster.deny(&names[0], "DESCRIBE_CONFIGS");
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties
        .map(|(key, value)| format!("{key}={value}"))
        .join("\n");
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", sasl.brokers.as_str()),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", properties.as_str()),
        ("ZIM2KAFKA_TOPIC", names[0].as_str()),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", names[1].as_str()),
    ];
    // Brokers follow within moments, not at once.
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        let ended = run(&["check"], &variables);
        if ended.stdout.contains("the right DescribeConfigs") {
            break ended;
        }
        assert!(Instant::now() < deadline, "{ended:?}");
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(ended.code, Some(0), "{ended:?}");
    has(
        &ended,
        "warning",
        &names[0],
        "Kafka does not return its settings, so it is not known whether they delete, change or reject acknowledged records; grant the right DescribeConfigs",
    );
    has(&ended, "ok", &names[0], "is writable");
    assert_eq!(
        ended.stdout.matches("DescribeConfigs").count(),
        1,
        "{ended:?}"
    );
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

#[test]
fn brokers_that_are_not_reached_and_partitions_that_take_no_records_are_named() {
    let Some(cluster) = Cluster::exclusive(3) else {
        return;
    };
    let [single, strict] = ["single", "strict"].map(|purpose| cluster.unique_topic(purpose));
    cluster.create_unreplicated_topic(&single, 3);
    cluster.create_topic(&strict, 3, &[("min.insync.replicas", "3")]);
    let check = |brokers: &str| {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", brokers),
            ("ZIM2KAFKA_TOPIC", single.as_str()),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", strict.as_str()),
        ];
        run(&["check"], &variables)
    };
    // The one that is asked first.
    cluster.proxy(1).refuse();
    let ended = check(&cluster.proxied());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let refused = format!("connect: {}: ", cluster.proxy(1).address());
    has(&ended, "error", "Kafka", &refused);
    has(&ended, "error", "Kafka", "check its advertised.listeners");
    for topic in [&single, &strict] {
        has(&ended, "ok", topic, "3 partitions");
    }
    assert!(!ended.stdout.contains("without a leader"), "{ended:?}");

    let gone = cluster.leader(&single, 1).expect("it has a leader");
    cluster.stop(gone);
    cluster.wait_until(&single, |partitions| partitions[1].leader.is_none());
    cluster.wait_until(&strict, |partitions| {
        let mut partitions = partitions.iter();
        partitions.all(|partition| partition.leader.is_some() && partition.in_sync.len() == 2)
    });
    let ended = check(cluster.brokers());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let leaderless = "partitions without a leader, for which Kafka takes no records: 1; ";
    has(&ended, "error", &single, leaderless);
    let lagging = "min.insync.replicas is 3, but these partitions have fewer replicas in sync, and Kafka rejects their records: 0, 1, 2; ";
    has(&ended, "error", &strict, lagging);
}
