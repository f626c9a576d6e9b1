//! The queue of lines for stderr, and the thread that writes them.
//!
//! stderr may block for ever (a collector that does not read), or fail (a collector that has ended,
//! a full disk). No thread but this one may notice that: the others only append to the queue. If it
//! is full, the oldest lines are dropped, because the newest explain the present state.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use tracing::Level;

use crate::log::descriptor::write_some;
use crate::log::line::Format;

/// The most bytes of lines that wait for stderr.
pub const MAX_QUEUED_BYTES: usize = 256 * 1024;

/// The memory of a line, apart from its text.
const LINE_OVERHEAD_BYTES: usize = 64;

/// How long the end of the process waits for a reader of stderr.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// In the second half of that time, only the newest lines are written: the last one, and others if
/// all have at most this many bytes.
const FLUSH_BYTES: usize = 4096;

/// Nobody reads stderr if a line waits for as long as this. The end of the process does not wait
/// then.
const STALL_TIME: Duration = Duration::from_secs(3);

/// Lines for one file.
pub(super) struct Log {
    queue: Mutex<Queue>,
    /// Notified when a line arrives.
    filled: Condvar,
    /// Notified when everything has been written.
    emptied: Condvar,
    /// Here, because lines are dropped before there are metrics too.
    dropped: LazyLock<IntCounter>,
}

struct Queue {
    format: Format,
    has_thread: bool,
    lines: VecDeque<Box<[u8]>>,
    /// Of all lines, with their overhead.
    bytes: usize,
    /// Lines that were dropped and that no line in the log has reported.
    unreported: u64,
    /// When the write that is under way began.
    writing_since: Option<Instant>,
}

impl Log {
    pub(super) const fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                format: Format::Text,
                has_thread: false,
                lines: VecDeque::new(),
                bytes: 0,
                unreported: 0,
                writing_since: None,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: LazyLock::new(|| {
                let help = "Log lines that were dropped because stderr was not read in time or could not be written.";
                IntCounter::new("zim2kafka_log_lines_dropped_total", help)
                    .expect("a constant name is valid")
            }),
        }
    }

    pub(super) fn dropped(&self) -> &IntCounter {
        &self.dropped
    }

    pub(super) fn format(&self) -> Format {
        self.queue.lock().format
    }

    pub(super) fn set_format(&self, format: Format) {
        self.queue.lock().format = format;
    }

    /// A thread is about to call [`Self::run`].
    pub(super) fn set_has_thread(&self) {
        self.queue.lock().has_thread = true;
    }

    /// Appends a line. Never waits for more than the queue's lock.
    pub(super) fn push(&self, line: &[u8]) {
        let line = Box::from(line);
        let dropped = self.queue.lock().push(line);
        self.filled.notify_one();
        if dropped > 0 {
            self.dropped.inc_by(dropped);
        }
    }

    /// Writes lines as they arrive, for ever.
    pub(super) fn run(&self, sink: &mut Sink<impl AsFd>) {
        loop {
            let mut queue = self.queue.lock();
            while queue.lines.is_empty() {
                self.emptied.notify_all();
                self.filled.wait(&mut queue);
            }
            drop(queue);
            self.write_next(sink);
        }
    }

    /// Writes the oldest line, if there is one; before it, how many were dropped.
    fn write_next(&self, sink: &mut Sink<impl AsFd>) -> bool {
        let mut queue = self.queue.lock();
        let Some(line) = queue.pop() else {
            return false;
        };
        let format = queue.format;
        let unreported = std::mem::take(&mut queue.unreported);
        queue.writing_since = Some(Instant::now());
        drop(queue);
        let mut lost = 0;
        if unreported > 0 && sink.report(format, unreported).is_err() {
            lost = unreported;
        }
        // A report that cannot be written means that the line cannot be either.
        let is_written = lost == 0 && sink.write_line(&line).is_ok();
        if !is_written {
            lost += 1;
            self.dropped.inc();
        }
        let mut queue = self.queue.lock();
        queue.writing_since = None;
        queue.unreported += lost;
        true
    }

    /// Waits until everything is written, unless stderr blocks.
    pub(super) fn flush(&self, sink: impl FnOnce() -> Sink<io::Stderr>) {
        if !self.queue.lock().has_thread {
            // The process has no threads to spare and is about to end.
            let mut sink = sink();
            while self.write_next(&mut sink) {}
            return;
        }
        let began = Instant::now();
        if self.is_empty_by(began + FLUSH_TIME / 2) {
            return;
        }
        let dropped = self.queue.lock().shrink_to(FLUSH_BYTES, 1);
        self.dropped.inc_by(dropped);
        self.is_empty_by(began + FLUSH_TIME);
    }

    fn is_empty_by(&self, deadline: Instant) -> bool {
        let mut queue = self.queue.lock();
        while !queue.lines.is_empty() || queue.writing_since.is_some() {
            let stalled = queue.writing_since.map(|since| since + STALL_TIME);
            let until = stalled.map_or(deadline, |stalled| stalled.min(deadline));
            if Instant::now() >= until {
                return false;
            }
            self.emptied.wait_until(&mut queue, until);
        }
        true
    }
}

impl Queue {
    /// Returns how many lines were dropped for it.
    fn push(&mut self, line: Box<[u8]>) -> u64 {
        let bytes = cost(&line);
        if bytes > MAX_QUEUED_BYTES {
            self.unreported += 1;
            return 1;
        }
        let dropped = self.shrink_to(MAX_QUEUED_BYTES - bytes, 0);
        self.bytes += bytes;
        self.lines.push_back(line);
        dropped
    }

    fn pop(&mut self) -> Option<Box<[u8]>> {
        let line = self.lines.pop_front()?;
        self.bytes -= cost(&line);
        Some(line)
    }

    /// Drops the oldest lines until at most `bytes` or `lines` are left. Returns their number.
    fn shrink_to(&mut self, bytes: usize, lines: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > bytes && self.lines.len() > lines && self.pop().is_some() {
            dropped += 1;
        }
        self.unreported += dropped;
        dropped
    }
}

fn cost(line: &[u8]) -> usize {
    line.len() + LINE_OVERHEAD_BYTES
}

/// The file that lines are written to.
pub(super) struct Sink<F> {
    file: F,
    /// Whether the last write ended in the middle of a line.
    is_mid_line: bool,
    /// Why a line was dropped last; `None` if it waited for too long.
    problem: Option<io::Error>,
}

impl<F: AsFd> Sink<F> {
    pub(super) fn new(file: F) -> Self {
        Self {
            file,
            is_mid_line: false,
            problem: None,
        }
    }

    fn write_line(&mut self, line: &[u8]) -> Result<(), ()> {
        let written = if self.is_mid_line {
            self.write(b"\n").and_then(|()| self.write(line))
        } else {
            self.write(line)
        };
        written.map_err(|error| self.problem = Some(error))
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = write_some(&self.file, bytes)?;
            let (written, rest) = bytes.split_at(written);
            self.is_mid_line = written.last() != Some(&b'\n');
            bytes = rest;
        }
        Ok(())
    }

    fn report(&mut self, format: Format, dropped: u64) -> Result<(), ()> {
        let reason = match &self.problem {
            Some(problem) => format!("could not be written ({problem})"),
            None => "was not read in time".to_owned(),
        };
        let message = format!(
            "{dropped} log lines were dropped here, because stderr {reason}; check its reader or its disk"
        );
        let line = format.line(Level::WARN, "zim2kafka::log", &message);
        self.write_line(line.as_bytes())?;
        self.problem = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
