//! `tail`: subscribes to a topic and prints its records.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Failure, Stop};
use crate::config::KafkaArgs;
use crate::delivery::kafka::{Consumed, Start, Subscription};

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Read the dead-letter topic. Its records hold live signatures
    #[arg(long)]
    dead_letter: bool,
    /// Begin with the oldest record, not with the next
    #[arg(long)]
    from_beginning: bool,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// For people, not one JSON object a line
    #[arg(long)]
    pretty: bool,
}

/// Kafka's first answers are waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(args: Args, stop: &Stop) -> Result<(), Failure> {
    let settings = args.kafka.settings(None)?;
    let topic = if args.dead_letter {
        &settings.dead_letter_topic
    } else {
        &settings.topic
    }
    .clone();
    let start = if args.from_beginning {
        Start::Beginning
    } else {
        Start::End
    };
    let stopped = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stopped);
    let printing = tokio::task::spawn_blocking(move || {
        let subscription = Subscription::start(&settings, &topic, start, PATIENCE)
            .map_err(|error| Failure::Failed(format!("cannot read the topic {topic}: {error}")))?;
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0 && !asked.load(Ordering::Relaxed) {
            if let Some(record) = subscription.next(Duration::from_millis(200))? {
                let text = if args.pretty {
                    pretty(&topic, &record)
                } else {
                    line(&topic, &record)
                };
                if writeln!(io::stdout(), "{text}").is_err() {
                    // Whoever read our output has gone, as `head` does.
                    break;
                }
                left -= 1;
            }
        }
        Ok(())
    });
    tokio::select! {
        result = printing => result.unwrap_or(Err(Failure::Said)),
        () = stop.first() => {
            stopped.store(true, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// One JSON object on one line. Keys, headers and dead letters are text; the value of an event is
/// the JSON it is, to the digit.
fn line(topic: &str, record: &Consumed) -> String {
    let headers: serde_json::Map<String, Value> = (record.headers.iter())
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let value = match std::str::from_utf8(&record.value) {
        Ok(json) if is_event(record) => on_one_line(json),
        _ => text(&record.value).to_string(),
    };
    format!(
        r#"{{"topic":{},"partition":{},"offset":{},"timestamp":{},"key":{},"headers":{},"value":{value}}}"#,
        Value::from(topic),
        record.partition,
        record.offset,
        Value::from(record.timestamp),
        record.key.as_deref().map_or(Value::Null, text),
        Value::from(headers),
    )
}

/// Some lines for people.
pub(super) fn pretty(topic: &str, record: &Consumed) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let key = record.key.as_deref().map_or("(none)".to_owned(), lossy);
    let mut text = format!(
        "{topic} partition {} offset {} key {key}",
        record.partition, record.offset
    );
    for (name, value) in &record.headers {
        write!(text, "\n  {name}: {}", lossy(value)).expect("a string takes all");
    }
    let value = String::from_utf8_lossy(&record.value);
    write!(text, "\n  {value}\n").expect("a string takes all");
    text
}

fn is_event(record: &Consumed) -> bool {
    record.headers.iter().any(|(name, _)| name == "ce_type")
}

fn text(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

/// JSON text without the line breaks between its tokens, which a sender may have put into a field
/// that travels as received. Within a string there are none.
fn on_one_line(json: &str) -> String {
    json.chars()
        .filter(|char| !matches!(char, '\n' | '\r'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(header: &str, value: &[u8]) -> Consumed {
        Consumed {
            partition: 3,
            offset: 7,
            timestamp: Some(1_757_577_600_123),
            key: Some(b"g\"1".to_vec()),
            headers: vec![(header.to_owned(), b"x".to_vec())],
            value: value.to_vec(),
        }
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_digits_kept() {
        let line = line(
            "t",
            &record("ce_type", b"{\"extra\":{\"n\":1e400,\n\"a\":\"b\"}}"),
        );
        assert_eq!(
            line,
            r#"{"topic":"t","partition":3,"offset":7,"timestamp":1757577600123,"key":"g\"1","headers":{"ce_type":"x"},"value":{"extra":{"n":1e400,"a":"b"}}}"#
        );
    }

    #[test]
    fn a_dead_letter_is_a_string_whatever_its_bytes_are() {
        let line = line("t", &record("event_id", b"{\"a\":\xff}\n"));
        assert!(
            line.ends_with("\"value\":\"{\\\"a\\\":\u{fffd}}\\n\"}"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}
