use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Seek, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::fcntl_setpipe_size;

use super::*;

/// For what happens at once on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log and the thread that writes it to this file. Neither ends.
fn log_to(file: impl Into<OwnedFd>) -> &'static Log {
    let log: &Log = Box::leak(Box::new(Log::new()));
    log.set_has_thread();
    let file = file.into();
    thread::spawn(move || log.run(&mut Sink::new(file)));
    log
}

/// A pipe that holds a page.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("there are files to open");
    fcntl_setpipe_size(&writer, 4096).expect("a page is allowed");
    (reader, writer)
}

fn flush(log: &Log) {
    log.flush(|| unreachable!("it has a thread"));
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many dropped lines a line reports, if it does.
fn reported(line: &str) -> Option<u64> {
    let (count, _) = line
        .split_once("zim2kafka::log: ")?
        .1
        .split_once(" log lines were dropped here")?;
    count.parse().ok()
}

#[test]
fn a_reader_that_stalls_gets_the_newest_lines_and_how_many_are_missing() {
    const LINES: u64 = 30_000;
    let (reader, writer) = small_pipe();
    let log = log_to(writer);
    let text = "x".repeat(100);
    for number in 0..LINES {
        log.push(format!("{number} {text}\n").as_bytes());
        assert!(log.queue.lock().bytes <= MAX_QUEUED_BYTES);
    }
    let dropped = log.dropped().get();
    assert!((1..LINES).contains(&dropped), "{dropped}");

    let mut lines = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("text"));
    let mut expected = 0;
    let mut lost = 0;
    while expected < LINES {
        let line = lines.next().expect("the log goes on");
        if let Some(count) = reported(&line) {
            assert!(
                line.contains("  WARN ") && line.contains("was not read in time"),
                "{line}"
            );
            lost += count;
            expected += count;
        } else {
            assert_eq!(
                line,
                format!("{expected} {text}"),
                "in order, without a gap"
            );
            expected += 1;
        }
    }
    assert_eq!(lost, dropped);
    assert_eq!(log.dropped().get(), dropped);
}

#[test]
fn a_line_that_is_larger_than_the_queue_costs_itself_only() {
    let (mut reader, writer) = pipe().expect("there are files to open");
    let log = log_to(writer);
    log.push(b"before\n");
    log.push(&vec![b'x'; MAX_QUEUED_BYTES]);
    log.push(b"after\n");
    flush(log);
    let mut text = [0; 4096];
    let length = reader.read(&mut text).expect("it was written");
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| reported(line) != Some(1))
        .collect();
    assert_eq!((lines, text.lines().count()), (vec!["before", "after"], 3));
    assert_eq!(log.dropped().get(), 1);
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_the_log_goes_on() {
    let (reader, writer) = pipe().expect("there are files to open");
    drop(reader);
    let full = OpenOptions::new().write(true).open("/dev/full");
    let read_only = OpenOptions::new().read(true).open("/dev/null");
    for file in [
        OwnedFd::from(writer),
        full.expect("Linux has it").into(),
        read_only.expect("unix has it").into(),
    ] {
        let log = log_to(file);
        for count in 1..=3 {
            log.push(b"line\n");
            wait_until("it is dropped", || log.dropped().get() == count);
        }
        let began = Instant::now();
        flush(log);
        assert!(began.elapsed() < FLUSH_TIME / 2, "nothing is left to write");
    }
}

#[test]
fn a_line_that_was_cut_off_is_ended_before_the_next() {
    let mut file = tempfile::tempfile().expect("a file");
    let sink = &mut Sink::new(file.try_clone().expect("a file"));
    // As after a write that the disk had only some bytes left for.
    sink.write(b"half a li").expect("it is a file");
    sink.problem = Some(io::ErrorKind::StorageFull.into());
    let log = Log::new();
    log.queue.lock().unreported = 7;
    log.push(b"whole\n");
    log.push(b"next\n");
    while log.write_next(sink) {}
    file.rewind().expect("it is a file");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(
        (lines[0], lines[2], lines[3]),
        ("half a li", "whole", "next")
    );
    assert_eq!(reported(lines[1]), Some(7), "{text}");
    assert!(lines[1].contains("no storage space"), "{text}");
}

#[test]
fn a_report_in_a_log_for_machines_is_one_object() {
    let (reader, writer) = pipe().expect("there are files to open");
    let log = log_to(writer);
    log.set_format(Format::Json);
    log.queue.lock().unreported = 3;
    log.push(b"{}\n");
    let line = BufReader::new(reader).lines().next();
    let line = line.expect("a line").expect("text");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let message = line["message"].as_str().expect("text");
    assert!(message.starts_with("3 log lines were dropped"), "{line}");
}

/// Another program that shares the file may have made it nonblocking.
#[test]
fn a_nonblocking_file_is_waited_for() {
    let (reader, mut writer) = small_pipe();
    writer.write_all(&[b'\n'; 4096]).expect("it holds a page");
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("it is a pipe");
    let log = log_to(writer);
    log.push(b"line\n");
    wait_until("the thread writes", || {
        let queue = log.queue.lock();
        queue.lines.is_empty() && queue.writing_since.is_some()
    });
    let mut lines = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("text"));
    assert_eq!(lines.find(|line| !line.is_empty()), Some("line".to_owned()));
    assert_eq!(log.dropped().get(), 0);
}

#[test]
fn the_end_waits_for_a_slow_reader_who_gets_the_newest_lines() {
    let (mut reader, writer) = small_pipe();
    let log = log_to(writer);
    let text = "x".repeat(1000);
    for _ in 0..2000 {
        log.push(format!("{text}\n").as_bytes());
    }
    // As a panic with its backtrace.
    log.push(format!("{} last\n", "x".repeat(2 * FLUSH_BYTES)).as_bytes());
    let (sender, pages) = mpsc::channel();
    let (slow, is_over) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut page = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut page) {
            if sender.send(page[..length].to_vec()).is_err() {
                return;
            }
            // The whole queue takes more than a second.
            is_over.recv_timeout(Duration::from_millis(20)).ok();
        }
    });
    let began = Instant::now();
    flush(log);
    assert!(began.elapsed() >= FLUSH_TIME / 2, "there is more to read");
    let queue = log.queue.lock();
    assert!(
        queue.lines.is_empty() && queue.writing_since.is_none(),
        "all is in the pipe"
    );
    drop(queue);
    // What a process leaves in a pipe can be read after its end.
    drop(slow);
    let mut read = Vec::new();
    while !read.ends_with(b"last\n") {
        read.extend(pages.recv_timeout(PATIENCE).expect("the last line comes"));
    }
}

#[test]
fn the_end_does_not_wait_for_a_reader_who_does_not_come() {
    let (_reader, mut writer) = small_pipe();
    writer.write_all(&[b'\n'; 4096]).expect("it holds a page");
    let log = log_to(writer);
    log.push(b"line\n");
    wait_until("the thread writes", || {
        log.queue.lock().writing_since.is_some()
    });
    let began = Instant::now();
    flush(log);
    assert!(
        (FLUSH_TIME..PATIENCE).contains(&began.elapsed()),
        "a second"
    );
    log.queue.lock().writing_since = Instant::now().checked_sub(STALL_TIME);
    let began = Instant::now();
    flush(log);
    assert!(began.elapsed() < FLUSH_TIME / 2, "at once");
}
