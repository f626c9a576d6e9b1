//! `tail`: subscribes to a topic and prints its records.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Failure, Stop, blocking, output, read_settings};
use crate::config::{Faults, KafkaArgs};
use crate::kafka::{Consumed, StartFrom, Subscription};

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Read the dead-letter topic; its records contain live signatures
    #[arg(long)]
    dead_letter: bool,
    /// Begin with the oldest record instead of the next one
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print several lines per record, for people
    #[arg(long)]
    pretty: bool,
}

/// The time for Kafka's first answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(args: Args, mut faults: Faults, stop: &Stop) -> Result<(), Failure> {
    let kafka = args.kafka.clone();
    let read = move || {
        let settings = faults.take(kafka.settings(None));
        faults.finish(settings)
    };
    let Some(settings) = read_settings(stop, read).await? else {
        return Ok(());
    };
    let topic = if args.dead_letter {
        settings.routes.dead_letter_topic()
    } else {
        args.kafka.main_topic(&settings.routes)
    }
    .to_owned();
    let start = if args.from_beginning {
        StartFrom::Beginning
    } else {
        StartFrom::End
    };
    let is_stopping = Arc::new(AtomicBool::new(false));
    let should_stop = Arc::clone(&is_stopping);
    let printing = blocking(move || {
        let unreadable = |source| Failure::Topic {
            topic: topic.clone(),
            source,
        };
        let mut subscription =
            Subscription::start(&settings, &topic, start, START_TIMEOUT).map_err(unreadable)?;
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0 && !should_stop.load(Ordering::Relaxed) {
            if let Some(record) = subscription
                .next(Duration::from_millis(200))
                .map_err(unreadable)?
            {
                let text = if args.pretty {
                    pretty(&topic, &record)
                } else {
                    line(&topic, &record)
                };
                output::write(&format!("{text}\n"))?;
                left -= 1;
            } else if output::is_stdout_closed() {
                return Err(Failure::StdoutClosed);
            }
        }
        Ok(())
    });
    tokio::select! {
        result = printing => result?,
        () = stop.first() => {
            is_stopping.store(true, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// One JSON object on one line. Keys, headers and dead letters are strings; the value of an event
/// is embedded as JSON, with its digits unchanged.
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

/// Several lines for people.
pub(super) fn pretty(topic: &str, record: &Consumed) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let key = record.key.as_deref().map_or("(none)".to_owned(), lossy);
    let mut text = format!(
        "{topic} partition {} offset {} key {key}",
        record.partition, record.offset
    );
    for (name, value) in &record.headers {
        write!(text, "\n  {name}: {}", lossy(value)).expect("writing to a string cannot fail");
    }
    let value = String::from_utf8_lossy(&record.value);
    write!(text, "\n  {value}\n").expect("writing to a string cannot fail");
    text
}

fn is_event(record: &Consumed) -> bool {
    record.headers.iter().any(|(name, _)| name == "ce_type")
}

fn text(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

/// Removes the line breaks between the tokens of a JSON text. Fields that are published as received
/// may hold some; strings cannot.
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
    fn an_event_is_one_line_of_json_with_its_digits_unchanged() {
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
    fn a_dead_letter_is_a_string_whatever_its_bytes() {
        let line = line("t", &record("event_id", b"{\"a\":\xff}\n"));
        assert!(
            line.ends_with("\"value\":\"{\\\"a\\\":\u{fffd}}\\n\"}"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}
