//! Lines that do not come from `tracing`, in the format of those that do.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::thread;

use serde_json::json;
use tracing::Level;

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Format {
    /// One line, which passes every filter.
    pub(super) fn line(self, level: Level, target: &str, message: &str) -> String {
        let level = level.as_str();
        let timestamp = format!("{:.6}", jiff::Timestamp::now());
        match self {
            Self::Text => format!("{timestamp} {level:>5} {target}: {message}\n"),
            Self::Json => {
                let line = json!({
                    "timestamp": timestamp,
                    "level": level,
                    "message": message,
                    "target": target,
                });
                format!("{line}\n")
            }
        }
    }

    /// The last line of a command that failed.
    pub(super) fn failure(self, message: &str) -> String {
        match self {
            Self::Text => format!("error: {message}\n"),
            Self::Json => self.line(Level::ERROR, "zim2kafka", message),
        }
    }
}

/// What the standard library would print about a panic.
pub(super) fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    // It may quote a callback, which must not begin a line of its own.
    let reason = panic.payload_as_str().unwrap_or("without a reason");
    let reason = reason.escape_debug();
    let place = panic.location().map_or(String::new(), ToString::to_string);
    let mut text = format!("the thread '{name}' panicked at {place}: {reason}");
    // Captured if RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text = format!("{text}\n{backtrace}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_of_json_is_one_object_whatever_its_message() {
        let line = Format::Json.line(Level::WARN, "t", "two\n\"lines\"");
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["message"], "two\n\"lines\"");
        assert_eq!(
            (&line["level"], &line["target"]),
            (&"WARN".into(), &"t".into())
        );
        let failure = Format::Json.failure("no port");
        let failure: Value = serde_json::from_str(&failure).expect("JSON");
        assert_eq!(
            (&failure["level"], &failure["message"]),
            (&"ERROR".into(), &"no port".into())
        );
    }

    #[test]
    fn a_line_of_text_looks_like_those_of_tracing() {
        let line = Format::Text.line(Level::WARN, "zim2kafka::log", "text");
        let (timestamp, rest) = line.split_at(27);
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert_eq!(rest, "  WARN zim2kafka::log: text\n");
        assert_eq!(Format::Text.failure("no port"), "error: no port\n");
    }
}
