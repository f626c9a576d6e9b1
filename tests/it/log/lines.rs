//! What a reader of the log finds after lines were lost, and at the end.

use std::io::{BufRead, BufReader, PipeReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use super::{DROPPED, wait_until};
use crate::support::app::{PATIENCE, callback};
use crate::support::process::{Process, Service, run, taken, zim2kafka};
use crate::support::unwritable::{small_pipe, stalled};

/// The lines of a log as they come, until its end.
fn lines(log: PipeReader) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let all = BufReader::new(log).lines().map_while(Result::ok);
        for line in all.filter(|line| !line.is_empty()) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// How many lines were dropped before this one, if it reports that.
fn reported(line: &str) -> Option<f64> {
    let (before, _) =
        line.split_once(" log lines were dropped here, because stderr was not read")?;
    before.rsplit([' ', '"']).next()?.parse().ok()
}

/// Everything that is logged after a stop begins, by a service whose log has stalled so far.
fn after_a_stall(format: &str) -> Vec<String> {
    let (reader, stderr) = stalled();
    let variables = [
        ("ZIM2KAFKA_LOG_FORMAT", format),
        // Some kilobytes for each callback; nothing else logs without a limit.
        ("ZIM2KAFKA_TEST_PANIC", "handler"),
        ("RUST_BACKTRACE", "1"),
        ("ZIM2KAFKA_DRAIN_DELAY", "1s"),
    ];
    let service = Service::unread(stderr, &["--embedded-kafka"], &variables);
    service.ready();
    wait_until("lines are dropped", || {
        let answer = service.post(callback(json!({})));
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer:?}");
        service.metric(DROPPED) > 0.0
    });
    let dropped = service.metric(DROPPED);
    service.process.signal("TERM");
    let lines = lines(reader);
    let lines: Vec<String> = lines.iter().collect();
    assert_eq!(service.process.end().code, Some(0));

    let reported: f64 = lines.iter().filter_map(|line| reported(line)).sum();
    assert!(reported >= dropped, "{reported} of {dropped}");
    let last = lines.last().expect("it is not empty");
    assert!(last.contains("stopped"), "{last}");
    lines
}

#[test]
fn a_reader_that_comes_back_gets_the_last_lines_and_how_many_are_missing() {
    let lines = after_a_stall("text");
    let is_warning = |line: &String| line.contains("  WARN zim2kafka::log: ");
    let found: Vec<_> = lines
        .iter()
        .filter(|line| reported(line).is_some())
        .collect();
    assert!(found.iter().all(|line| is_warning(line)), "{found:?}");
}

#[test]
fn a_log_for_machines_stays_one_when_lines_are_lost() {
    for line in after_a_stall("json") {
        let line: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["message"]
            .as_str()
            .is_some_and(|text| reported(text).is_some())
        {
            assert_eq!(line["level"], "WARN", "{line}");
            assert_eq!(line["target"], "zim2kafka::log", "{line}");
            assert!(line["timestamp"].is_string(), "{line}");
        }
    }
}

/// Slower than the service logs, but it reads.
#[test]
fn a_slow_reader_gets_the_last_line_of_a_stop() {
    let (reader, stderr) = small_pipe();
    let service = Service::unread(
        stderr,
        &["--embedded-kafka"],
        &[("ZIM2KAFKA_LOG", "debug"), ("ZIM2KAFKA_DRAIN_DELAY", "1s")],
    );
    let (sender, read) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::with_capacity(512, reader)
            .lines()
            .map_while(Result::ok)
        {
            if sender.send(line).is_err() {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    service.ready();
    service.process.signal("TERM");
    assert_eq!(service.process.end().code, Some(0));
    let last = read.iter().last().expect("it is not empty");
    assert!(last.contains("stopped"), "{last}");
}

#[test]
fn a_panic_in_a_log_for_machines_is_one_object() {
    let (reader, stderr) = small_pipe();
    let lines = lines(reader);
    let variables = [
        ("ZIM2KAFKA_TEST_PANIC", "publisher"),
        ("ZIM2KAFKA_LOG_FORMAT", "json"),
        // It passes every filter.
        ("ZIM2KAFKA_LOG", "off"),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("RUST_BACKTRACE", "1"),
    ];
    let service = Service::unread(stderr, &["--embedded-kafka"], &variables);
    service.ready();
    service.post(callback(json!({})));
    let line = lines.recv_timeout(PATIENCE).expect("the panic is logged");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let message = line["message"].as_str().expect("text");
    let begin = "the thread 'publisher' panicked at src/failpoint.rs:";
    assert!(message.starts_with(begin), "{message}");
    assert!(
        message.contains("ZIM2KAFKA_TEST_PANIC is set\n"),
        "{message}"
    );
    assert_eq!(line["level"], "ERROR", "{line}");
    assert_eq!(service.process.end().code, None, "it has aborted");
    assert_eq!(lines.iter().next(), None, "one line is all");
}

#[test]
fn a_failed_start_is_reported_in_the_format_of_the_log() {
    let (_port, address) = taken();
    let secrets = ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret");
    let arguments = ["serve", "--embedded-kafka", "--listen", &address];
    let ended = run(&arguments, &[secrets, ("ZIM2KAFKA_LOG_FORMAT", "json")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().expect("it is reported");
    let line: Value = serde_json::from_str(last).expect("JSON");
    let message = line["message"].as_str().expect("text");
    assert!(message.starts_with("cannot listen on"), "{line}");
    assert_eq!(line["level"], "ERROR", "{line}");
    let ended = run(&arguments, &[secrets]);
    let last = ended.stderr.lines().last().expect("it is reported");
    assert!(last.starts_with("error: cannot listen on"), "{last}");
}

#[test]
fn colours_are_for_terminals() {
    let service = Service::embedded(&["--drain-delay=0s"], &[("ZIM2KAFKA_LOG", "debug")]);
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped"), "{ended:?}");
    assert!(!ended.stderr.contains('\x1b'), "{ended:?}");
    for (arguments, code) in [(&["--help"][..], 0), (&["serve", "--spool"], 2)] {
        let command = zim2kafka(arguments, &[]);
        let ended = Process::start_on(command, Stdio::piped(), Stdio::piped()).end();
        assert_eq!(ended.code, Some(code));
        assert!(!(ended.stdout + &ended.stderr).contains('\x1b'));
    }
}
