//! `tail`: subscribes to topics and prints their records.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::filter::Filter;
use super::subscriber::{Range, Read, Records, is_event, pretty, subscribe};
use super::{Failure, Stop, output, read_settings};
use crate::config::{ConfigError, Faults, KafkaArgs, Origin, Setting};
use crate::kafka::{Consumed, StartFrom};

/// The end of `tail --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  zim2kafka tail --kafka-brokers localhost:9092 --topics all --pretty
  zim2kafka tail --kafka-brokers localhost:9092 --dead-letter \\
      --reason stale --since 1h --until 0s";

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("topic", |topic| {
    let help = "Read this topic only [default: all topics of events, by the settings of the service]";
    topic.help(help).hide_default_value(true).hide_env(true)
}))]
pub(super) struct Args {
    /// Read the dead-letter topic and no topics of events, so not with --topic or --topics; its
    /// records contain live signatures
    #[arg(long)]
    dead_letter: bool,
    /// Begin with the oldest record, not with the next one. --since begins with the first record of
    /// its time, --until alone with the oldest one
    #[arg(long)]
    from_beginning: bool,
    /// End after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print several lines per record, for people
    #[arg(long)]
    pretty: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// How often `tail` checks whether stdout is closed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The most records that are printed at once.
const MAX_BATCH: usize = 100;

pub(super) async fn run(
    args: Args,
    mut faults: Faults,
    in_force: &[Setting],
    stop: &Stop,
) -> Result<(), Failure> {
    let kafka = args.kafka.clone();
    args.check(&mut faults);
    args.check_topics(in_force, &mut faults);
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
    if args.dead_letter {
        for warning in args.filter.warnings() {
            tracing::warn!("{warning}");
        }
    }
    tracing::info!("reading {} {}", topics.join(", "), args.selection());
    let records = subscribe(&settings, &topics, args.range());
    tokio::select! {
        printed = print(&args, records, &topics) => printed,
        () = stop.first() => Ok(()),
    }
}

/// Prints the records until the requested number is reached, or no topic has another one.
async fn print(args: &Args, mut records: Records, topics: &[String]) -> Result<(), Failure> {
    let mut topics_left = topics.len();
    // Those of which records may follow at once.
    let mut behind: BTreeSet<_> = topics.iter().cloned().collect();
    let mut has_failed = false;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut batch = Vec::new();
    while left > 0 {
        let received = records.recv_many(&mut batch, MAX_BATCH);
        // On a timeout, nothing was received.
        let _ = tokio::time::timeout(CHECK_INTERVAL, received).await;
        let (mut lines, mut over) = (Vec::new(), Vec::new());
        let was_behind = !behind.is_empty();
        for read in batch.drain(..) {
            match read {
                Read::AtEnd(topic) => {
                    behind.remove(&topic);
                }
                Read::Done => over.push(None),
                Read::Failed(failure) => {
                    if let Failure::Topic { topic, .. } = &failure {
                        behind.remove(topic);
                    }
                    over.push(Some(failure));
                }
                Read::Record(record) if left > 0 && args.filter.matches(&record) => {
                    lines.push(match args.pretty {
                        true => pretty(&record),
                        false => line(&record),
                    });
                    left -= 1;
                }
                Read::Record(_) => {}
            }
        }
        if !lines.is_empty() {
            output::print(lines.join("\n")).await?;
        } else if output::is_stdout_closed() {
            return Err(Failure::StdoutClosed);
        }
        for failure in over {
            topics_left = topics_left.saturating_sub(1);
            let is_last = topics_left == 0 && left > 0;
            match failure {
                Some(failure) if is_last => return Err(failure),
                None if is_last && has_failed => return Err(Failure::Reported),
                None if is_last => return Ok(()),
                None => {}
                Some(failure) => {
                    has_failed = true;
                    for message in failure.messages() {
                        tracing::warn!(
                            "{message}; its records are not printed, those of the other topics are"
                        );
                    }
                }
            }
        }
        if was_behind && behind.is_empty() && left > 0 {
            tracing::info!("all records so far are read; waiting for new ones; ctrl-c ends");
        }
    }
    Ok(())
}

impl Args {
    /// Adds the faults that no flag has alone.
    fn check(&self, faults: &mut Faults) {
        self.filter.check(faults);
        if !self.dead_letter {
            let instead = "add --dead-letter to read those, or leave it out";
            self.filter.check_events(instead, faults);
        }
        if self.from_beginning && self.filter.since.is_some() {
            faults.add(ConfigError::of_flag(
                "--from-beginning",
                "begins with the oldest record, but --since with a later one; leave out one of them",
            ));
        }
    }

    /// Refuses flags that name topics which are not read. The variables of the service may name them.
    fn check_topics(&self, in_force: &[Setting], faults: &mut Faults) {
        const OF_EVENTS: &str = "names topics of events, but --dead-letter reads none of them; leave out one of the two. --dead-letter-topic names another topic of dead letters";
        const OF_DEAD_LETTERS: &str =
            "has no effect without --dead-letter; add that, or leave this out";
        let is_flag = |name: &str| {
            let mut settings = in_force.iter();
            settings.any(|setting| setting.name == name && setting.origin == Origin::Flag)
        };
        for (name, flag, is_of_dead_letters, problem) in [
            ("ZIM2KAFKA_TOPIC", "--topic", false, OF_EVENTS),
            ("ZIM2KAFKA_TOPICS", "--topics", false, OF_EVENTS),
            (
                "ZIM2KAFKA_DEAD_LETTER_TOPIC",
                "--dead-letter-topic",
                true,
                OF_DEAD_LETTERS,
            ),
        ] {
            if is_of_dead_letters != self.dead_letter && is_flag(name) {
                faults.add(ConfigError::of_flag(flag, problem));
            }
        }
    }

    /// Which part of the topics is read. With `until` alone, the records before it are wanted.
    fn range(&self) -> Range {
        let start = match &self.filter.since {
            Some(since) => StartFrom::Time(since.at),
            None if self.from_beginning || self.filter.until.is_some() => StartFrom::Beginning,
            None => StartFrom::End,
        };
        Range {
            start,
            until: self.filter.until.as_ref().map(|until| until.at),
        }
    }

    /// What is printed, in words.
    fn selection(&self) -> String {
        let start = match self.range().start {
            StartFrom::Beginning => "from the oldest record on",
            StartFrom::Time(_) => "from that time on",
            StartFrom::End => "from the next record on",
        };
        match self.filter.to_string() {
            filter if filter.is_empty() => start.to_owned(),
            filter => format!("{start}, only {filter}"),
        }
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
    async fn ended(count: &str, received: Vec<Read>) -> Option<String> {
        let line = ["zim2kafka", "tail", "--kafka-brokers=b:1", "--count", count];
        let Command::Tail(args) = Cli::parse_from(line).command else {
            panic!("it is tail");
        };
        let (send, records) = mpsc::channel(received.len());
        for read in received {
            assert!(send.send(read).await.is_ok(), "there is room");
        }
        let topics = ["a", "b"].map(str::to_owned);
        let ended = print(&args, records, &topics).await;
        ended.err().map(|failure| failure.messages().concat())
    }

    #[tokio::test]
    async fn a_topic_that_cannot_be_read_ends_it_only_if_no_other_is_read() {
        let forbidden = |topic: &str| {
            Read::Failed(Failure::Topic {
                topic: topic.to_owned(),
                source: Error::Thread(std::io::Error::other("forbidden")),
            })
        };
        let read = || Read::Record(record("ce_type", b"{}"));
        let wanted = ended("2", vec![read(), forbidden("a"), read()]).await;
        assert_eq!(wanted, None);
        let wanted = ended("2", vec![read(), forbidden("a"), forbidden("b")]).await;
        let wanted = wanted.expect("nothing is left to read");
        assert!(wanted.contains("the topic b"), "{wanted}");
        // One is read to its end, and the other is not.
        let wanted = ended("2", vec![read(), Read::Done, forbidden("b")]).await;
        let wanted = wanted.expect("not all is read");
        assert!(wanted.contains("the topic b"), "{wanted}");
        let wanted = ended("2", vec![read(), forbidden("a"), Read::Done]).await;
        assert_eq!(wanted.as_deref(), Some(""), "it is reported already");
        let wanted = ended(
            "2",
            vec![Read::AtEnd("a".to_owned()), Read::Done, Read::Done],
        )
        .await;
        assert_eq!(wanted, None);
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
