//! `tail`: subscribes to topics and prints their records.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::send::events::known_event;
use super::subscriber::{Records, is_event, pretty, subscribe};
use super::{Failure, Stop, output, read_settings};
use crate::callback::{Json, RawCallback};
use crate::config::{Faults, KafkaArgs};
use crate::event::EVENTS;
use crate::kafka::{Consumed, StartFrom};

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Read the dead-letter topic; its records contain live signatures
    #[arg(long)]
    dead_letter: bool,
    /// Print the records of this event only, such as group_join; of dead letters, those whose body
    /// names this event
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
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

/// How often `tail` checks whether stdout is closed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The most records that are printed at once.
const MAX_BATCH: usize = 100;

pub(super) async fn run(args: Args, mut faults: Faults, stop: &Stop) -> Result<(), Failure> {
    let kafka = args.kafka.clone();
    if let Some(event) = &args.event
        && !args.dead_letter
    {
        let names = EVENTS.map(|kind| kind.name);
        faults.take(known_event(event, &names));
    }
    let read = move || {
        let settings = faults.take(kafka.settings(None));
        faults.finish(settings)
    };
    let Some(settings) = read_settings(stop, read).await? else {
        return Ok(());
    };
    let topics = match args.dead_letter {
        true => vec![settings.routes.dead_letter_topic().to_owned()],
        false => args.kafka.topics_to_read(&settings.routes),
    };
    if topics.is_empty() {
        return Err(Failure::Usage(
            "ZIM2KAFKA_TOPICS: no event has a topic; write --dead-letter to read the dead letters, or --topic"
                .to_owned(),
        ));
    }
    let start = match args.from_beginning {
        true => StartFrom::Beginning,
        false => StartFrom::End,
    };
    let records = subscribe(&settings, &topics, start);
    tokio::select! {
        printed = print(&args, records, topics.len()) => printed,
        () = stop.first() => Ok(()),
    }
}

/// Prints the records until the requested number is reached, or no topic can be read any more.
async fn print(args: &Args, mut records: Records, topics: usize) -> Result<(), Failure> {
    let mut topics_left = topics;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut batch = Vec::new();
    while left > 0 {
        let received = records.recv_many(&mut batch, MAX_BATCH);
        // On a timeout, nothing was received.
        let _ = tokio::time::timeout(CHECK_INTERVAL, received).await;
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for record in batch.drain(..) {
            match record {
                Err(failure) => failed.push(failure),
                Ok(record) if left > 0 && args.is_wanted(&record) => {
                    lines.push(match args.pretty {
                        true => pretty(&record),
                        false => line(&record),
                    });
                    left -= 1;
                }
                Ok(_) => {}
            }
        }
        if !lines.is_empty() {
            output::print(lines.join("\n")).await?;
        } else if output::is_stdout_closed() {
            return Err(Failure::StdoutClosed);
        }
        for failure in failed {
            topics_left = topics_left.saturating_sub(1);
            if topics_left == 0 && left > 0 {
                return Err(failure);
            }
            for message in failure.messages() {
                tracing::warn!(
                    "{message}; its records are not printed, those of the other topics are"
                );
            }
        }
    }
    Ok(())
}

impl Args {
    fn is_wanted(&self, record: &Consumed) -> bool {
        let Some(wanted) = &self.event else {
            return true;
        };
        let raw = RawCallback {
            body: Bytes::copy_from_slice(&record.value),
            content_type: None,
            received_at: 0,
        };
        // The body of a dead letter has any encoding of callbacks, and a record is JSON.
        let json = raw.json();
        let names = |json: &Json<'_>| json.decode().is_ok_and(|read| read.names_event(wanted));
        json.as_ref().is_ok_and(names)
    }
}

/// One JSON object on one line. Keys, headers and dead letters are strings; the value of an event
/// is embedded as JSON, with its digits unchanged.
fn line(record: &Consumed) -> String {
    let headers: serde_json::Map<String, Value> = (record.headers.iter())
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let value = match std::str::from_utf8(&record.value) {
        Ok(json) if is_event(record) => on_one_line(json),
        _ => text(&record.value).to_string(),
    };
    format!(
        r#"{{"topic":{},"partition":{},"offset":{},"timestamp":{},"key":{},"headers":{},"value":{value}}}"#,
        Value::from(record.topic.as_str()),
        record.partition,
        record.offset,
        Value::from(record.timestamp),
        record.key.as_deref().map_or(Value::Null, text),
        Value::from(headers),
    )
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
    use clap::Parser;
    use tokio::sync::mpsc;

    use super::*;
    use crate::commands::{Cli, Command};
    use crate::kafka::Error;

    fn record(header: &str, value: &[u8]) -> Consumed {
        Consumed {
            topic: "t".to_owned(),
            partition: 3,
            offset: 7,
            timestamp: Some(1_757_577_600_123),
            key: Some(b"g\"1".to_vec()),
            headers: vec![(header.to_owned(), b"x".to_vec())],
            value: value.to_vec(),
        }
    }

    /// What `tail` of two topics ends with, when `count` records are wanted and these are received.
    async fn ended(count: &str, received: Vec<Result<Consumed, Failure>>) -> Option<String> {
        let line = ["zim2kafka", "tail", "--kafka-brokers=b:1", "--count", count];
        let Command::Tail(args) = Cli::parse_from(line).command else {
            panic!("it is tail");
        };
        let (send, records) = mpsc::channel(received.len());
        for record in received {
            send.send(record).await.expect("there is room");
        }
        let ended = print(&args, records, 2).await;
        ended.err().map(|failure| failure.messages().concat())
    }

    #[tokio::test]
    async fn a_topic_that_cannot_be_read_ends_it_only_if_no_other_is_read() {
        let forbidden = |topic: &str| {
            Err(Failure::Topic {
                topic: topic.to_owned(),
                source: Error::Thread(std::io::Error::other("forbidden")),
            })
        };
        let read = || Ok(record("ce_type", b"{}"));
        let wanted = ended("2", vec![read(), forbidden("a"), read()]).await;
        assert_eq!(wanted, None);
        let wanted = ended("2", vec![read(), forbidden("a"), forbidden("b")]).await;
        let wanted = wanted.expect("nothing is left to read");
        assert!(wanted.contains("the topic b"), "{wanted}");
        // All that was wanted is printed.
        let wanted = ended("1", vec![read(), forbidden("a"), forbidden("b")]).await;
        assert_eq!(wanted, None);
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_digits_unchanged() {
        let line = line(&record(
            "ce_type",
            b"{\"extra\":{\"n\":1e400,\n\"a\":\"b\"}}",
        ));
        assert_eq!(
            line,
            r#"{"topic":"t","partition":3,"offset":7,"timestamp":1757577600123,"key":"g\"1","headers":{"ce_type":"x"},"value":{"extra":{"n":1e400,"a":"b"}}}"#
        );
    }

    #[test]
    fn a_dead_letter_is_a_string_whatever_its_bytes() {
        let line = line(&record("event_id", b"{\"a\":\xff}\n"));
        assert!(
            line.ends_with("\"value\":\"{\\\"a\\\":\u{fffd}}\\n\"}"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}
