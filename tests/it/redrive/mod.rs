//! `redrive` with a real Kafka.

mod faults;
mod kills;
mod progress;
mod reasons;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use zim2kafka::event::{Reason, Record};

use crate::support::app::callback;
use crate::support::dead_letters::{dead_letter, put};
use crate::support::kafka::{Kafka, TestRecord};
use crate::support::process::{Ended, Process, zim2kafka};

/// For a run that does little, on a machine that does much.
const PATIENCE: Duration = Duration::from_secs(120);

/// A dead-letter topic, and a topic for `group_join` and all other events of groups.
pub(super) struct Topics {
    pub(super) kafka: &'static Kafka,
    pub(super) dead: String,
    pub(super) events: String,
    /// More variables of `redrive`, such as its properties.
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Topics {
    pub(super) fn create(kafka: &'static Kafka) -> Self {
        Self::create_with(kafka, &[])
    }

    /// With these settings of the topic of events.
    pub(super) fn create_with(kafka: &'static Kafka, settings: &[(&str, &str)]) -> Self {
        let [dead, events] = ["dead", "events"].map(|purpose| kafka.unique_topic(purpose));
        kafka.create_topic(&dead, 3, &[]);
        kafka.create_topic(&events, 12, settings);
        let variables = vec![
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers().to_owned()),
            (
                "ZIM2KAFKA_TOPICS",
                format!("group_join={events},group={events}"),
            ),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead.clone()),
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret".to_owned()),
            ("ZIM2KAFKA_LOG", "info,zim2kafka=debug".to_owned()),
        ];
        Self {
            kafka,
            dead,
            events,
            variables,
        }
    }

    /// Replaces a variable.
    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    pub(super) fn put(&self, letters: impl IntoIterator<Item = Record>) {
        put(self.kafka, &self.dead, letters);
    }

    pub(super) fn start(&self, flags: &[&str]) -> Process {
        let variables: Vec<_> = (self.variables.iter())
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Process::start(zim2kafka(&[&["redrive"], flags].concat(), &variables))
    }

    #[track_caller]
    pub(super) fn redrive(&self, flags: &[&str]) -> Ended {
        self.start(flags).end_within(PATIENCE)
    }

    /// What it prints, if it succeeds.
    #[track_caller]
    pub(super) fn redriven(&self, flags: &[&str]) -> String {
        let ended = self.redrive(flags);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    }

    /// All committed records of events. Each has the header.
    pub(super) fn published(&self) -> Vec<TestRecord> {
        let records = self.kafka.read_all(&self.events);
        for record in &records {
            assert_eq!(record.header("redriven"), Some(&b"true"[..]), "{record:?}");
        }
        records
    }

    /// The keys of all committed records, sorted.
    pub(super) fn keys(&self) -> Vec<String> {
        let records = self.published();
        let keys = records.into_iter().map(|record| {
            let key = record.key.expect("every event has one");
            String::from_utf8(key).expect("text")
        });
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        keys
    }
}

pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("it is later").as_millis()).expect("it is not that late")
}

/// A dead letter of this group that is valid today, but for its age if that is its reason.
pub(super) fn join(group: &str, reason: Reason) -> Record {
    let (now, late) = (now(), 3_600_000);
    let timestamp = match reason {
        Reason::Stale => now - late,
        _ => now - 1_000,
    };
    let body = callback(json!({"group_id": group, "timestamp": timestamp}));
    dead_letter("secret", &body, reason, now)
}

/// One that stays invalid.
pub(super) fn invalid(group: &str) -> Record {
    let body = callback(json!({"group_id": group, "join_type": "Scan", "timestamp": now()}));
    dead_letter("secret", &body, Reason::InvalidEvent, now())
}

/// The table has this row.
#[track_caller]
pub(super) fn has_row(stdout: &str, count: usize, text: &str) {
    let is_row = |line: &str| {
        let row = line.trim_start().split_once("  ");
        row.is_some_and(|(number, row)| number == count.to_string() && row.starts_with(text))
    };
    assert!(
        stdout.lines().any(is_row),
        "no {count} {text:?} in\n{stdout}"
    );
}
