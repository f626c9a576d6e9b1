//! A process that may open few files.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::{PATIENCE, callback};
use crate::support::process::{Process, Service, zim2kafka};
use crate::support::wire::Wire;

/// Runs the command with this soft and hard limit of open files, and with no other than its standard
/// streams: what librdkafka opens in other tests of this process is inherited.
fn with_open_files(limit: u32) -> impl FnOnce(Command) -> Command {
    move |command| {
        let mut shell = Command::new("bash");
        let close =
            "for fd in /proc/$$/fd/*; do ((${fd##*/} < 3)) || eval \"exec ${fd##*/}>&-\"; done";
        let line = format!("{close}; ulimit -n {limit} && exec \"$0\" \"$@\"");
        shell.args(["-c", &line]).arg(command.get_program());
        shell.args(command.get_args()).env_clear();
        let set = command.get_envs();
        shell.envs(set.filter_map(|(name, value)| Some((name, value?))));
        shell
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_256_open_files_64_connections_are_served_at_once() {
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let folder = folder.path().join("spool");
    let variables = [
        ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_DRAIN_DELAY", "0s"),
    ];
    let starting = Service::begin_by(
        "127.0.0.1:0",
        &["--embedded-kafka"],
        &variables,
        with_open_files(256),
    );
    let service = starting.listening();
    service.ready();
    let log = service.process.stderr();
    assert!(log.contains("only 72 connections are allowed"), "{log}");
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(Wire::at(service.callbacks).await);
    }
    // Each is served while all others are open, twice, as a sender does: it tries again after 503.
    let mut tasks = JoinSet::new();
    for (number, mut wire) in all.into_iter().enumerate() {
        tasks.spawn(async move {
            for _ in 0..2 {
                let body = callback(json!({"group_id": format!("g{number}")}));
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let answer = wire.post(&body).await;
                    if answer.status == 200 {
                        break;
                    }
                    assert_eq!(answer.status, 503, "{number}: {answer:?}");
                    assert!(Instant::now() < deadline, "{number}: {answer:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            wire
        });
    }
    let all = tasks.join_all().await;
    assert_eq!(service.metric("zim2kafka_connections"), 64.0);
    // What is left is enough for Kafka, the spool and the admin port.
    let files = service.metric("process_open_fds");
    assert!(
        (65.0..=256.0 - 64.0).contains(&files),
        "{files} files are open"
    );
    let log = service.process.stderr();
    assert!(!log.contains("cannot accept connections"), "{log}");
    drop(all);
}

#[test]
fn with_too_few_open_files_the_service_does_not_start() {
    let variables = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let command = zim2kafka(&["serve", "--embedded-kafka"], &variables);
    let ended = Process::start(with_open_files(100)(command)).end();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for part in ["only 100 files and needs at least 200", "ulimit -n 8192"] {
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}
