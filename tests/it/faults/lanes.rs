//! Several topics of events, of which some are missing, forbidden or reject records.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;
use zim2kafka::delivery::{Delivery, Durability, Settled, Ticket};
use zim2kafka::event::{Record, Routes, Times};
use zim2kafka::kafka::{KafkaSettings, Properties};
use zim2kafka::metrics::Metrics;

use super::{PATIENCE, blocking};
use crate::support::app::open_spool;
use crate::support::kafka::{Kafka, TestRecord, shared_cluster};
use crate::support::process::{Process, zim2kafka};
use crate::support::scale::light_load;

/// Records of each event and each start.
const RECORDS: u64 = 60;

/// Records of an event that are sent together. Only the records of different waves have an order:
/// the earlier ones are answered when the later ones come.
const WAVE: u64 = 10;

/// Longer than a refusing topic takes.
const LONG: usize = 5000;

/// Events with a topic each, by what is the matter with it.
const EVENTS: [&str; 4] = ["good", "missing", "forbidden", "rejecting"];

fn record(event: &'static str, number: u64) -> Record {
    let length = match event == "rejecting" && number.is_multiple_of(3) {
        true => LONG,
        false => 100,
    };
    // Random, so that compression does not shrink it.
    let mut value: Vec<u8> = (0..length).map(|_| rand::random()).collect();
    value[..8].copy_from_slice(&number.to_be_bytes());
    Record {
        event: Some(event.into()),
        event_id: Uuid::from_u128(number.into()),
        key: Some(Bytes::from(format!("group {}", number % 5))),
        timestamp: 1_757_577_600_000,
        headers: vec![("event".into(), Bytes::from(event))],
        value: value.into(),
        counted: None,
        times: Times {
            callback: 1_757_577_600_000,
            received: 1_757_577_600_000,
        },
    }
}

/// Sends records of all events in turn, wave after wave, and returns what became of them, by event.
async fn send(delivery: &Delivery, numbers: Range<u64>) -> Vec<Vec<Settled>> {
    let mut settled = vec![Vec::new(); EVENTS.len()];
    for first in numbers.step_by(WAVE as usize) {
        let mut tickets: Vec<(usize, Arc<Ticket>)> = Vec::new();
        for number in first..first + WAVE {
            for (index, event) in EVENTS.into_iter().enumerate() {
                let ticket = delivery.enqueue(record(event, number));
                tickets.push((index, ticket.expect("there is space")));
            }
        }
        for (index, ticket) in tickets {
            let waited = tokio::time::timeout(PATIENCE, ticket.wait()).await;
            settled[index].push(*waited.expect("it is settled in time"));
        }
    }
    settled
}

/// Requires that Kafka has taken records of the good topic in time, that those of the missing and
/// the forbidden one are on disk, and that only long ones of the one that rejects them are dead
/// letters.
fn judge(settled: &[Vec<Settled>]) {
    let of = |settled: &[Settled]| -> Vec<Durability> {
        let durability = |settled: &Settled| match settled {
            Settled::Durable(durability, _) => *durability,
            Settled::Refused => panic!("it is refused"),
        };
        settled.iter().map(durability).collect()
    };
    let [good, missing, forbidden, rejecting] = settled else {
        panic!("there are {} events", settled.len());
    };
    // Some are on disk if the machine does other work.
    assert!(of(good).contains(&Durability::Published), "{good:?}");
    for settled in [missing, forbidden] {
        assert!(
            of(settled).iter().all(|how| *how == Durability::Spooled),
            "{settled:?}"
        );
    }
    let letters = of(rejecting);
    let letters = letters
        .iter()
        .filter(|how| **how == Durability::DeadLettered);
    // A long one is on disk first if Kafka takes long to reject it.
    assert!(
        letters.count() <= rejecting.len().div_ceil(3),
        "{rejecting:?}"
    );
}

fn number(record: &TestRecord) -> u64 {
    let number = record.value.first_chunk();
    u64::from_be_bytes(*number.expect("it begins with its number"))
}

/// The records of a topic, once it has this many different ones.
fn read_all_of(kafka: &Kafka, topic: &str, count: usize) -> Vec<TestRecord> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let records = kafka.read_all(topic);
        let different: BTreeSet<u64> = records.iter().map(number).collect();
        if different.len() >= count {
            return records;
        }
        let missing = count - different.len();
        assert!(
            Instant::now() < deadline,
            "{missing} of {topic} are missing"
        );
    }
}

/// The numbers in a topic must be complete, and the waves of a group in order.
fn judge_topic(records: &[TestRecord], event: &str, expected: impl Fn(u64) -> bool) {
    let mut numbers = Vec::new();
    for record in records {
        let of = record.header("event");
        assert_eq!(of, Some(event.as_bytes()), "in the topic of {event}");
        numbers.push((record.key.clone(), number(record)));
    }
    for group in 0..5 {
        let key = Some(format!("group {group}").into_bytes());
        let mut of_group: Vec<u64> = numbers
            .iter()
            .filter(|(found, _)| *found == key)
            .map(|(_, number)| *number)
            .collect();
        // What was not deleted from disk before the restart is published again, in order.
        let mut seen = Vec::new();
        of_group.retain(|number| {
            let is_new = !seen.contains(number);
            seen.push(*number);
            is_new
        });
        let has_order = of_group.is_sorted_by_key(|number| number / WAVE);
        assert!(has_order, "{event}, group {group}: {of_group:?}");
        of_group.sort_unstable();
        let wanted: Vec<u64> = (0..2 * RECORDS)
            .filter(|number| number % 5 == group && expected(*number))
            .collect();
        assert_eq!(of_group, wanted, "{event}, group {group}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_fails_and_keeps_events_in_the_spool_that_have_no_topic() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let settings = KafkaSettings {
        brokers: "127.0.0.1:1".to_owned(),
        properties: Properties::default(),
        routes: Routes::new(
            ["good", "group_exit", "send_msg"].map(|event| (event, "events")),
            "dead",
        ),
        create_topics: None,
        schema_ids: None,
    };
    let start = || Delivery::start(&settings, Some(open_spool(folder.path())), &Arc::default());
    let delivery = blocking(start).expect("it starts");
    for number in 0..6 {
        let event = ["good", "group_exit", "group_exit", "send_msg"][number as usize % 4];
        let ticket = delivery.enqueue(record(event, number)).expect("space");
        ticket.wait().await;
    }
    blocking(|| delivery.stop());
    drop(delivery);

    let of_good = "start the version that stored good, which this one does not know";
    let beside = "in ZIM2KAFKA_TOPICS, with the topics that they had, in place of entries with the same names and beside all others";
    for (topics, rows, step) in [
        (
            "",
            r#"(2 of "good", 3 of "group_exit", 1 of "send_msg")"#,
            format!("set group_exit=TOPIC,send_msg=TOPIC {beside}; {of_good}"),
        ),
        (
            "all,group_exit=discard",
            r#"(2 of "good", 3 of "group_exit")"#,
            format!("set group_exit=TOPIC {beside}; {of_good}"),
        ),
        (
            "all,message=dead-letter",
            r#"(2 of "good", 1 of "send_msg")"#,
            format!("set send_msg=TOPIC {beside}; {of_good}"),
        ),
        ("all", r#"(2 of "good")"#, of_good.to_owned()),
    ] {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
            ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
            ("ZIM2KAFKA_SPOOL_DIR", folder.path().to_str().expect("text")),
            ("ZIM2KAFKA_TOPICS", topics),
        ];
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let arguments = [&["serve"][..], &ports].concat();
        let ended = blocking(|| Process::start(zim2kafka(&arguments, &variables)).end());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let says = format!(
            "the spool holds records of events that have no topic {rows}; nothing was changed. To publish them, {step}"
        );
        assert!(ended.stderr.contains(&says), "{says}: {ended:?}");
        assert_eq!(open_spool(folder.path()).records(), (6, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_topics_holds_up_its_own_records_only() {
    let _load = light_load().await;
    let Some(cluster) = blocking(shared_cluster) else {
        return;
    };
    let kafka: &Kafka = cluster;
    let topics = EVENTS.map(|event| kafka.unique_topic(event));
    let [good, missing, forbidden, rejecting] = &topics;
    let dead_letters = kafka.unique_topic("dead");
    blocking(|| {
        kafka.create_topic(&dead_letters, 1, &[]);
        kafka.create_topic(good, 3, &[]);
        kafka.create_topic(forbidden, 3, &[]);
        kafka.create_topic(rejecting, 3, &[("max.message.bytes", "3000")]);
        cluster.deny(forbidden, "WRITE");
    });
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties
        .map(|(key, value)| format!("{key}={value}"))
        .join("\n");
    let settings = KafkaSettings {
        brokers: sasl.brokers.clone(),
        properties: Properties::parse_list(&properties).expect("sound properties"),
        routes: Routes::new(
            EVENTS.into_iter().zip(topics.iter().map(String::as_str)),
            &dead_letters,
        ),
        create_topics: None,
        schema_ids: None,
    };
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let start = || {
        let metrics = Arc::new(Metrics::new());
        Delivery::start(&settings, Some(open_spool(folder.path())), &metrics).expect("it starts")
    };
    let warm = |delivery: &Delivery| {
        let deadline = Instant::now() + PATIENCE;
        while !delivery.state().kafka_is_up {
            assert!(Instant::now() < deadline, "Kafka is not found");
            std::thread::sleep(Duration::from_millis(10));
        }
    };

    let delivery = blocking(start);
    blocking(|| warm(&delivery));
    judge(&send(&delivery, 0..RECORDS).await);
    blocking(|| delivery.stop());
    // Also what the earlier run has left does not hold up the other topics.
    let delivery = blocking(start);
    blocking(|| warm(&delivery));
    judge(&send(&delivery, RECORDS..2 * RECORDS).await);

    blocking(|| {
        let all = 2 * RECORDS as usize;
        // All that the other topics do not hold up arrives while these have their faults.
        read_all_of(kafka, good, all);
        read_all_of(kafka, rejecting, all - all.div_ceil(3));
        kafka.create_topic(missing, 3, &[]);
        cluster.allow_again(forbidden, "WRITE");
        for (topic, event) in topics.iter().zip(EVENTS) {
            let is_short = |number: u64| event != "rejecting" || !number.is_multiple_of(3);
            let count = (0..2 * RECORDS).filter(|number| is_short(*number)).count();
            let records = read_all_of(kafka, topic, count);
            judge_topic(&records, event, is_short);
        }
        let letters = read_all_of(kafka, &dead_letters, all.div_ceil(3));
        for letter in letters {
            assert_eq!(number(&letter) % 3, 0);
        }
        delivery.stop();
    });
}
