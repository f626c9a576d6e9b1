//! The spool of the last version that published one event: what this version publishes of it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zim2kafka::kafka::EmbeddedKafka;

use super::*;
use crate::support::process::Service;

/// A folder of the program of the golden records: stopped once, started again and killed.
const STACK: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/spool/format-2/stack"
);

/// Starts a service on that folder, with these settings, and compares everything that it publishes
/// with the golden records of what the folder holds. Joins go to the topic `joins`.
#[track_caller]
fn is_published(variables: &[(&str, &str)], joins: &str, others: &[&str]) {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for file in ["spool.db", "spool.db-wal"] {
        fs::copy(Path::new(STACK).join(file), home.path().join(file)).expect("it can be copied");
    }
    let expected = expected(joins);
    let topics = [&[joins, DEAD_LETTER_TOPIC], others].concat();
    let kafka = EmbeddedKafka::start(&topics, 12).expect("it starts");
    let always = [
        ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ("ZIM2KAFKA_SPOOL_DIR", home.path().to_str().expect("text")),
    ];
    let service = Service::start(&[], &[&always, variables].concat());
    let deadline = Instant::now() + PATIENCE;
    while service.metric("zim2kafka_spool_records") != 0.0 {
        let log = service.process.stderr();
        assert!(Instant::now() < deadline, "the spool is never empty\n{log}");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(service.metric("zim2kafka_spool_lost_records_total"), 0.0);
    let broker = Kafka::at(kafka.brokers());
    for topic in [joins, DEAD_LETTER_TOPIC] {
        let expected: Vec<_> = (expected.iter())
            .filter(|(_, record)| record.topic == topic)
            .collect();
        assert!(expected.len() > 50, "{} in {topic}", expected.len());
        let found = broker.read_until(topic, expected.len(), PATIENCE);
        let found: Vec<_> = (found.into_iter())
            .map(|record| with_golden_arrival(topic, record, RECEIVED_AT..=i64::MAX))
            .collect();
        let mut lines = Vec::new();
        for key in keys(&expected) {
            let of_key = expected.iter().filter(|(_, record)| record.key == key);
            let mut found: Vec<_> = found.iter().filter(|record| record.key == key).collect();
            // Dead letters have no order.
            if topic == DEAD_LETTER_TOPIC {
                found.sort_by_key(|found| {
                    let place = expected.iter().position(|(_, record)| record == *found);
                    place.unwrap_or(usize::MAX)
                });
            }
            let mut found = found.into_iter();
            for (name, record) in of_key {
                let lines_of = match found.next() {
                    Some(found) => differences(record, found),
                    None => vec!["  it is not published".to_owned()],
                };
                if !lines_of.is_empty() {
                    lines.push(format!("{name}:\n{}", lines_of.join("\n")));
                }
            }
        }
        report(&lines, expected.len());
        assert_eq!(found.len(), expected.len(), "nothing else is in {topic}");
    }
    for topic in others {
        assert_eq!(broker.read_all(topic).len(), 0, "{topic}");
    }
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// The golden records of the rows, by the names of their cases and in the order of the rows.
fn expected(joins: &str) -> Vec<(String, Found)> {
    let names = fs::read_to_string(Path::new(STACK).join("cases.txt")).expect("the list");
    let mut cases: HashMap<String, Case> = (cases().into_iter())
        .map(|case| (case.name.clone(), case))
        .collect();
    let expected = names.lines().map(|name| {
        let case = cases.remove(name).expect("each is a case, and once");
        let mut record = case.expected().expect("it has a record");
        if record.topic == TOPIC {
            record.topic = joins.to_owned();
        }
        record.timestamp = record.timestamp.max(1);
        (name.to_owned(), record)
    });
    expected.collect()
}

/// Each key once.
fn keys(records: &[&(String, Found)]) -> Vec<Option<Vec<u8>>> {
    let mut keys: Vec<_> = records
        .iter()
        .map(|(_, record)| record.key.clone())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

#[test]
fn with_nothing_configured_all_rows_are_published_where_they_were() {
    is_published(&[], TOPIC, &[]);
}

/// What `all` stands for, apart from the topic of groups.
const OTHERS: [&str; 4] = ["zim.room", "zim.message", "zim.call", "zim.user"];

#[test]
fn with_a_topic_for_each_family_joins_in_the_spool_go_to_the_topic_of_groups() {
    is_published(&[("ZIM2KAFKA_TOPICS", "all")], "zim.group", &OTHERS);
}

#[test]
fn joins_in_the_spool_stay_in_a_topic_of_their_own() {
    let variables = [("ZIM2KAFKA_TOPICS", "all"), ("ZIM2KAFKA_TOPIC", TOPIC)];
    let others = [&OTHERS[..], &["zim.group"]].concat();
    is_published(&variables, TOPIC, &others);
    let variables = [("ZIM2KAFKA_TOPICS", "all,group_join=joins")];
    is_published(&variables, "joins", &others);
}
