//! The log when nobody reads it, or when it cannot be written: only log lines are lost.

mod lines;

use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rdkafka::mocking::MockCluster;
use serde_json::json;
use tempfile::TempDir;

use crate::support::app::{PATIENCE, callback, callback_of};
use crate::support::process::{Process, Service, shell, taken, zim2kafka};
use crate::support::start::broker_down;
use crate::support::unwritable::{full, own_address, stalled, without_reader};

/// The default of `ZIM2KAFKA_STOP_DEADLINE`.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

const DROPPED: &str = "zim2kafka_log_lines_dropped_total";

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A callback is answered 2xx: whether it is published or spooled depends on the machine's load.
#[track_caller]
fn accepts(service: &Service) {
    let answer = service.post(callback(json!({})));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert!(service.admin("/livez").starts_with("HTTP/1.1 200 "));
}

#[track_caller]
fn is_ready(service: &Service) {
    let answer = service.admin("/readyz");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
}

/// Everything that a service logs, with a log that cannot be written from the start. Returns how
/// many lines were dropped before the stop.
fn goes_on(stderr: impl Into<Stdio>) -> f64 {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let secrets = home.path().join("secrets");
    fs::write(&secrets, "1=secret\n").expect("it can be written");
    let kafka = MockCluster::new(1).expect("it starts");
    for topic in ["zim.group-joined", "zim.dead-letter"] {
        kafka.create_topic(topic, 1, 1).expect("it can be created");
    }
    let brokers = kafka.bootstrap_servers();
    let spool = home.path().join("spool");
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", ""),
        (
            "ZIM2KAFKA_CALLBACK_SECRETS_FILE",
            secrets.to_str().expect("text"),
        ),
        ("ZIM2KAFKA_KAFKA_BROKERS", &brokers),
        ("ZIM2KAFKA_SPOOL_DIR", spool.to_str().expect("text")),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_DRAIN_DELAY", "100ms"),
        // Every request logs something.
        ("ZIM2KAFKA_LOG", "trace"),
    ];
    let service = Service::unread(stderr, &[], &variables);
    service.ready();
    accepts(&service);

    for _ in 0..6 {
        let answer = service.post(callback_of("1", "wrong", json!({})));
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer:?}");
    }
    accepts(&service);

    broker_down(&kafka, 1);
    wait_until("Kafka is away", || {
        service.metric("zim2kafka_kafka_up") == 0.0
    });
    accepts(&service);
    is_ready(&service);
    wait_until("a record is in the spool", || {
        service.metric("zim2kafka_spool_records") > 0.0
    });
    kafka.broker_up(1).expect("there is one");
    wait_until("the spool is drained", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
    accepts(&service);

    fs::write(&secrets, "1=secret\n2=other\n").expect("it can be written");
    for _ in 0..3 {
        service.process.signal("HUP");
    }
    wait_until("the new secret is known", || {
        let answer = service.post(callback_of("2", "other", json!({})));
        answer.starts_with("HTTP/1.1 200 ")
    });
    is_ready(&service);

    let dropped = service.metric(DROPPED);
    let began = Instant::now();
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0));
    assert!(began.elapsed() < STOP_DEADLINE, "{:?}", began.elapsed());
    dropped
}

#[test]
fn a_reader_that_stalls_holds_up_nothing() {
    let (_reader, stderr) = stalled();
    // The queue has space for more than it logs here; `lines` fills it.
    goes_on(stderr);
}

#[test]
fn a_reader_that_leaves_holds_up_nothing() {
    assert!(goes_on(without_reader()) > 0.0);
}

#[test]
fn a_full_disk_holds_up_nothing() {
    assert!(goes_on(full()) > 0.0);
}

/// A write beyond the limit sends a signal that ends the process by default.
#[test]
fn a_limit_of_file_sizes_holds_up_nothing() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let log = home.path().join("log");
    let [callbacks, admin] = [own_address(), own_address()];
    // In blocks of 512 bytes.
    let line = format!(
        "ulimit -f 1; exec zim2kafka serve --embedded-kafka --listen {callbacks} \
            --admin-listen {admin} --drain-delay 0s 2>'{}'",
        log.display()
    );
    let mut command = shell(&line);
    command
        .env("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")
        .env("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off");
    let service = Service::on(Process::start(command), callbacks, admin);
    service.ready();
    wait_until("lines are dropped", || {
        // Each is a warning.
        service.process.signal("HUP");
        service.metric(DROPPED) > 0.0
    });
    accepts(&service);
    service.process.signal("TERM");
    assert_eq!(service.process.end().code, Some(0));
    assert_eq!(fs::metadata(&log).expect("it is there").len(), 512);
}

/// Most of these are reported before the log has a format and a level.
#[test]
fn a_start_that_fails_ends_whoever_reads_its_reason() {
    let (_port, address) = taken();
    let secrets = &[("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    for (arguments, variables, code) in [
        (&["serve", "--spool"][..], &[][..], 2),
        (&["serve", "--log", "info=x"], secrets, 2),
        (&["serve"], &[], 2),
        (
            &["serve", "--embedded-kafka", "--listen", &address],
            secrets,
            1,
        ),
    ] {
        let (_reader, stalling) = stalled();
        for stderr in [stalling.into(), without_reader(), full().into()] {
            let command = zim2kafka(arguments, variables);
            let ended = Process::start_on(command, Stdio::piped(), stderr).end();
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (Some(code), ""),
                "{arguments:?}"
            );
        }
    }
}

#[test]
fn a_panic_costs_what_it_did_whoever_reads_its_reason() {
    let panicking = |place, stderr: Stdio| {
        let variables = [
            ("ZIM2KAFKA_TEST_PANIC", place),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
            ("ZIM2KAFKA_DRAIN_DELAY", "0s"),
        ];
        let service = Service::unread(stderr, &["--embedded-kafka"], &variables);
        service.ready();
        service
    };
    let (_reader, stalling) = stalled();
    let (_other_reader, also_stalling) = stalled();
    for (first, second) in [
        (stalling.into(), also_stalling.into()),
        (without_reader(), without_reader()),
        (full().into(), full().into()),
    ] {
        let service = panicking("handler", first);
        for _ in 0..3 {
            let answer = service.post(callback(json!({})));
            assert!(answer.starts_with("HTTP/1.1 500 "), "{answer:?}");
        }
        is_ready(&service);
        service.process.signal("TERM");
        assert_eq!(service.process.end().code, Some(0));

        let service = panicking("publisher", second);
        let answer = service.post(callback(json!({})));
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer:?}");
        assert_eq!(service.process.end().code, None, "it has aborted");
    }
}
