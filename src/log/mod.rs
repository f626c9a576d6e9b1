//! The log on stderr, which no thread waits for, and helpers for its messages: throttles, errors
//! with their causes, times.

mod descriptor;
mod line;
mod tally;
mod writer;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::Level;

pub(crate) use descriptor::write_some;
pub(crate) use line::Format;
pub(crate) use tally::{Due, Tally};
pub use writer::MAX_QUEUED_BYTES;
use writer::{Log, Sink};

static LOG: Log = Log::new();

/// Starts the thread that writes to stderr. Without it, [`flush`] writes.
pub fn start() {
    let write = || LOG.run(&mut Sink::new(io::stderr()));
    if thread::Builder::new()
        .name("log".to_owned())
        .spawn(write)
        .is_ok()
    {
        LOG.set_has_thread();
    }
}

/// Waits a second at most until all lines are written. Does not wait if nobody reads them.
pub fn flush() {
    LOG.flush(|| Sink::new(io::stderr()));
}

/// Appends text as it is. It ends with a line break.
pub fn print(text: &str) {
    LOG.push(text.as_bytes());
}

/// Logs why a command failed, in the format of the log.
pub fn print_failure(message: &str) {
    print(&LOG.format().failure(message));
}

/// Logs a panic. The standard library's hook would write to stderr and wait for it.
pub fn print_panic(panic: &PanicHookInfo<'_>) {
    let text = line::describe(panic);
    print(&LOG.format().line(Level::ERROR, "zim2kafka::panic", &text));
}

/// The format of lines from now on.
pub(crate) fn set_format(format: Format) {
    LOG.set_format(format);
}

/// Whether stderr is a terminal, so that people may read the log as it is written.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Counts the lines that were dropped.
pub(crate) fn dropped_lines() -> &'static IntCounter {
    LOG.dropped()
}

/// Appends to the log; each write is a line. `tracing` writes this way.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A problem that lasts is logged once in this time.
pub(crate) const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Limits a message that every request or every attempt could repeat to one a minute for as long
/// as its key stays the same. A new key is logged at once.
#[derive(Debug)]
pub(crate) struct LogThrottle<K = ()>(Mutex<Option<(K, Instant)>>);

impl<K: PartialEq> LogThrottle<K> {
    /// Whether the message for this key is due. If so, it counts as logged.
    pub(crate) fn is_due_for(&self, key: K) -> bool {
        let mut last = self.0.lock();
        let is_due = match &*last {
            Some((logged, when)) => *logged != key || when.elapsed() >= REPEAT_INTERVAL,
            None => true,
        };
        if is_due {
            *last = Some((key, Instant::now()));
        }
        is_due
    }
}

impl LogThrottle {
    /// Whether the message is due. If so, it counts as logged.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_for(())
    }
}

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

/// Displays a time in the largest unit of which it has at least two: `40 s`, `5 min`, `3 h`.
pub(crate) struct Ago(pub(crate) Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// A number with its noun, in the plural unless it is 1.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Displays an error with its causes, separated by colons. Skips a cause that the text before it
/// contains: some libraries print their source and return it too.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_displayed_in_a_unit_that_people_read() {
        let shown =
            [0, 119, 120, 7199, 7200, 172_800].map(|s| Ago(Duration::from_secs(s)).to_string());
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }

    #[test]
    fn causes_are_displayed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("code 5 ({0})")]
        struct Inner(#[source] std::io::Error);
        let error = Outer(Inner(std::io::ErrorKind::NotFound.into()));
        let shown = Chain(&error).to_string();
        assert_eq!(shown, "cannot read: code 5 (entity not found)");
    }

    #[test]
    fn a_message_is_due_once_a_minute_and_at_once_for_a_new_key() {
        let throttle = LogThrottle::default();
        assert!(throttle.is_due_for("one") && !throttle.is_due_for("one"));
        assert!(throttle.is_due_for("two") && throttle.is_due_for("one"));
        if let Some((_, when)) = &mut *throttle.0.lock() {
            *when -= REPEAT_INTERVAL;
        }
        assert!(throttle.is_due_for("one") && !throttle.is_due_for("one"));
    }
}
