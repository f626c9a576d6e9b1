//! stdout of every command when it cannot be written, or is not read.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::json;
use tempfile::TempDir;

use crate::support::app::callback;
use crate::support::process::{Ended, Process, Service, run, shell, zim2kafka};
use crate::support::unwritable::{full, read_only, small_pipe, stalled, without_reader};

/// A spool with records, which no command changes.
const SPOOL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/spool/format-1/full"
);

/// A service for the commands to talk to, with two records.
fn service() -> Service {
    let service = Service::embedded(
        &["--drain-delay=0s"],
        &[("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off")],
    );
    service.ready();
    for user in ["u1", "u2"] {
        let answer = service.post(callback(json!({"new_user_ids": [user]})));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    service
}

/// Every command that prints, each with all that it needs for exit code 0.
fn commands(service: &Service) -> Vec<Vec<String>> {
    let (brokers, url, admin) = (&service.brokers, service.url(), service.admin);
    [
        "--help".to_owned(),
        "--version".to_owned(),
        "help".to_owned(),
        "help serve".to_owned(),
        "tail --help".to_owned(),
        "man".to_owned(),
        "completions zsh".to_owned(),
        format!("healthcheck --admin-listen {admin}"),
        "send --print".to_owned(),
        format!("send --url {url}"),
        format!("tail --kafka-brokers {brokers} --from-beginning --count 2"),
        format!("tail --kafka-brokers {brokers} --from-beginning --count 2 --pretty"),
        format!("check --kafka-brokers {brokers}"),
        format!("spool status --spool-dir {SPOOL}"),
        format!("spool list --spool-dir {SPOOL}"),
        format!("spool export --spool-dir {SPOOL}"),
        "demo --count 1 --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0".to_owned(),
    ]
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .to_vec()
}

fn start(arguments: &[impl AsRef<str>], stdout: impl Into<Stdio>) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let variables = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    Process::start_on(zim2kafka(&arguments, &variables), stdout, Stdio::piped())
}

/// The reason is in the last line, and nothing has panicked.
#[track_caller]
fn fails(ended: &Ended, reason: &str, command: &[String]) {
    assert_eq!(ended.code, Some(1), "{command:?}: {ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    let begin = format!("error: cannot write to stdout: {reason} (");
    assert!(last.starts_with(&begin), "{command:?}: {ended:?}");
    assert!(last.contains("; check its disk"), "{last}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn a_closed_stdout_ends_every_command_quietly() {
    let service = service();
    for command in commands(&service) {
        let ended = start(&command, without_reader()).end();
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
        for word in ["error:", "ERROR", "panicked", "stdout"] {
            assert!(!ended.stderr.contains(word), "{command:?}: {ended:?}");
        }
    }
}

#[test]
fn a_full_disk_fails_every_command() {
    let service = service();
    for command in commands(&service) {
        let ended = start(&command, full()).end();
        fails(&ended, "No space left on device", &command);
    }
}

#[test]
fn a_file_that_is_open_for_reading_only_fails_every_command() {
    let service = service();
    for command in commands(&service) {
        let ended = start(&command, read_only()).end();
        fails(&ended, "Bad file descriptor", &command);
    }
}

/// By default the signal of such a write ends the process.
#[test]
fn a_limit_of_file_sizes_fails_every_command() {
    let service = service();
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = home.path().join("out");
    for command in commands(&service) {
        // Not a byte may be written.
        let line = format!(
            "ulimit -f 0; exec zim2kafka {} >'{}'",
            command.join(" "),
            file.display()
        );
        let mut shell = shell(&line);
        shell.env("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret");
        fails(&Process::start(shell).end(), "File too large", &command);
        assert_eq!(fs::metadata(&file).expect("it is there").len(), 0);
    }
}

/// The runtime of Rust opens `/dev/null` in its place.
#[test]
fn a_closed_stdout_changes_no_exit_code() {
    let service = service();
    for command in commands(&service) {
        let mut shell = shell(&format!("exec zim2kafka {} >&-", command.join(" ")));
        shell.env("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret");
        let ended = Process::start(shell).end();
        let is_check = command[0] == "check";
        // The embedded Kafka has no settings to check.
        let codes: &[i32] = if is_check { &[0, 1] } else { &[0] };
        let code = ended.code.expect("no signal");
        assert!(codes.contains(&code), "{command:?}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}

/// `tail` may wait for a record for hours.
#[test]
fn tail_ends_with_its_reader_when_there_is_nothing_to_print() {
    let service = service();
    let tail = ["tail", "--kafka-brokers", &service.brokers];
    let ended = start(&tail, without_reader()).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // It logs what it reads.
    let mut lines = ended.stderr.lines();
    assert!(lines.all(|line| line.contains(" INFO ")), "{ended:?}");
}

#[test]
fn a_reader_that_leaves_in_the_middle_ends_the_command_in_order() {
    let service = service();
    let tail = format!("tail --from-beginning --kafka-brokers {}", service.brokers);
    let demo = "demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    for (command, end) in [(tail.as_str(), ""), (demo, "stopped\n")] {
        let (mut reader, writer) = small_pipe();
        let command: Vec<&str> = command.split(' ').collect();
        let process = start(&command, writer);
        reader.read_exact(&mut [0; 100]).expect("it prints");
        drop(reader);
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.ends_with(end), "{ended:?}");
        assert!(!ended.stderr.contains("ERROR"), "{ended:?}");
    }
}

#[test]
fn a_nonblocking_pipe_is_waited_for() {
    let expected = run(&["serve", "--help"], &[]).stdout;
    assert!(expected.len() > 4096, "it does not fit into the pipe");
    let (mut reader, writer) = small_pipe();
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("it is a pipe");
    let process = start(&["serve", "--help"], writer);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).expect("text");
    assert_eq!(printed, expected);
    assert_eq!(process.end().code, Some(0));
}

/// Waits until it handles signals to stop. A signal before that would end it whatever it does.
#[track_caller]
fn handles_signals(process: &mut Process) {
    const TERM: u64 = 1 << 14;
    let status = format!("/proc/{}/status", process.id());
    process.wait_until("it handles signals", |_| {
        let status = fs::read_to_string(&status).expect("it runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.expect("Linux has it").trim();
        u64::from_str_radix(caught, 16).expect("a number") & TERM != 0
    });
}

#[test]
fn a_reader_that_stalls_does_not_keep_a_signal_from_ending_the_command() {
    let service = service();
    let commands = commands(&service);
    let of = |name: &str| {
        let is_it = |command: &&Vec<String>| command[0] == name && command[1] != "--help";
        let command = commands.iter().find(is_it);
        command.expect("it is one of them").clone()
    };
    for (name, signals, code) in [
        ("demo", &["INT"][..], 0),
        ("tail", &["INT"], 0),
        ("check", &["INT", "TERM"], 1),
        ("spool", &["INT"], 1),
        ("send", &["INT", "TERM"], 1),
    ] {
        let (_reader, writer) = stalled();
        let mut process = start(&of(name), writer);
        handles_signals(&mut process);
        // Of two equal signals in a row, the system may deliver one.
        for signal in signals {
            process.signal(signal);
        }
        let ended = process.end();
        assert_eq!(ended.code, Some(code), "{name}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}
