//! `tail` prints the records that its filters select, and ends when it was asked to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::support::app::callback;
use crate::support::kafka::{Kafka, kafka};
use crate::support::process::{Ended, Process, Service, run, zim2kafka};

const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds since 1970-01-01 UTC.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later").as_millis();
    i64::try_from(now).expect("it is not that late")
}

/// Publishes records by their key, partition and time.
fn publish(kafka: &Kafka, topic: &str, records: &[(&str, i32, i64)]) {
    let producer: BaseProducer = kafka.client().create().expect("a producer");
    for (key, partition, time) in records {
        let record = BaseRecord::to(topic).key(*key).payload("{}");
        let record = record.partition(*partition).timestamp(*time);
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("there is room");
    }
    producer.flush(PATIENCE).expect("the broker takes them");
}

fn start(brokers: &str, topic: &str, more: &[&str]) -> Process {
    let always = ["tail", "--kafka-brokers", brokers, "--topic", topic];
    Process::start(zim2kafka(&[&always, more].concat(), &[]))
}

/// The keys that were printed, in the order of the alphabet.
#[track_caller]
fn keys(ended: &Ended) -> Vec<String> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let key = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("one JSON object a line");
        record["key"].as_str().expect("text").to_owned()
    };
    let mut keys: Vec<_> = ended.stdout.lines().map(key).collect();
    keys.sort();
    keys
}

#[test]
fn since_and_until_select_records_that_are_not_in_the_order_of_their_times() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.unique_topic("times");
    kafka.create_topic(&topic, 2, &[]);
    let begin = now() - 3_600_000;
    let records = [
        ("a", 0, begin + 100),
        ("b", 0, begin + 500),
        // A retry, or a record from the spool.
        ("c", 0, begin + 200),
        ("d", 0, begin + 600),
        ("e", 0, begin + 300),
        ("f", 1, begin + 300),
    ];
    publish(kafka, &topic, &records);
    let tail = |since: i64, until: Option<i64>| {
        let since = (begin + since).to_string();
        let until = until.map(|until| (begin + until).to_string());
        let mut flags = vec!["--since", &since];
        flags.extend(until.iter().flat_map(|until| ["--until", until]));
        if until.is_none() {
            flags.push("--until=0s");
        }
        keys(&start(kafka.brokers(), &topic, &flags).end())
    };
    assert_eq!(tail(200, Some(600)), ["b", "c", "e", "f"]);
    assert_eq!(tail(201, Some(501)), ["b", "e", "f"]);
    assert_eq!(tail(550, None), ["d"]);
    assert_eq!(tail(601, None), [""; 0]);
    // Without --since, from the oldest record on.
    let until = (begin + 300).to_string();
    let ended = start(kafka.brokers(), &topic, &["--until", &until]).end();
    assert_eq!(keys(&ended), ["a", "c"]);
    assert!(
        ended.stderr.contains("from the oldest record on"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("waiting"), "{ended:?}");
    // A partition whose records are all older is read from its end.
    let since = (begin + 400).to_string();
    let mut follows = start(kafka.brokers(), &topic, &["--since", &since, "--count=3"]);
    follows.wait_until("the two of partition 0", |tail| {
        tail.stdout().lines().count() == 2
    });
    publish(kafka, &topic, &[("late", 1, begin), ("g", 1, begin + 400)]);
    assert_eq!(keys(&follows.end()), ["b", "d", "g"]);
    // A topic that is missing has no records before now.
    let missing = kafka.unique_topic("missing");
    let ended = start(kafka.brokers(), &missing, &["--until=0s"]).end();
    assert_eq!(keys(&ended), [""; 0]);
}

#[test]
fn until_a_time_to_come_ends_with_what_is_there_then() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.unique_topic("until");
    kafka.create_topic(&topic, 3, &[]);
    let until = now() + 15_000;
    let flags = ["--from-beginning", "--until", &until.to_string()];
    let mut tail = start(kafka.brokers(), &topic, &flags);
    tail.logs("waiting for new ones");
    publish(
        kafka,
        &topic,
        &[("a", 0, now()), ("b", 2, now()), ("later", 1, until)],
    );
    let ended = tail.end();
    assert_eq!(keys(&ended), ["a", "b"]);
    assert!(now() >= until, "it ended early");
}

#[test]
fn records_of_an_aborted_transaction_are_not_printed() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.unique_topic("aborted");
    kafka.create_topic(&topic, 1, &[]);
    let mut client = kafka.client();
    let producer: BaseProducer = (client.set("transactional.id", &topic))
        .create()
        .expect("a producer");
    producer
        .init_transactions(PATIENCE)
        .expect("it is the only one");
    let put = |key: &str| {
        let record = BaseRecord::to(&topic).key(key).payload("{}");
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("there is room");
        producer.flush(PATIENCE).expect("the broker takes it");
    };
    let begin = || producer.begin_transaction().expect("none is open");
    let commit = || {
        producer
            .commit_transaction(PATIENCE)
            .expect("it is committed")
    };
    begin();
    put("committed");
    commit();
    begin();
    put("aborted");
    producer.abort_transaction(PATIENCE).expect("it is aborted");
    begin();
    put("last");
    commit();
    // Also the end is found, although no record stands there.
    let ended = start(kafka.brokers(), &topic, &["--until=0s"]).end();
    assert_eq!(keys(&ended), ["committed", "last"]);
}

#[test]
fn what_is_read_and_that_it_waits_is_logged_once() {
    let service = Service::embedded(&[], &[("ZIM2KAFKA_TOPICS", "group=g,group_join=g,call=c")]);
    service.ready();
    let flags = [
        "tail",
        "--kafka-brokers",
        &service.brokers,
        "--topics=group=g,group_join=g,call=c",
        "--event=group_join",
        "--key=group-1",
        "--since=1h",
    ];
    let mut tail = Process::start(zim2kafka(&flags, &[]));
    tail.logs("waiting");
    for group in ["group-0", "group-1", "group-1"] {
        let body =
            json!({"group_id": group, "timestamp": now(), "new_user_ids": [now().to_string()]});
        let answer = service.post(callback(body));
        assert!(answer.contains("published"), "{answer}");
    }
    tail.wait_until("both records", |tail| tail.stdout().lines().count() == 2);
    tail.signal("INT");
    let ended = tail.end();
    assert_eq!(keys(&ended), ["group-1", "group-1"]);
    let lines: Vec<_> = ended.stderr.lines().collect();
    let [reading, waiting] = lines[..] else {
        panic!("{ended:?}");
    };
    let range = "reading g, c from that time on, only event group_join, key group-1, since 20";
    assert!(reading.contains(range), "{reading}");
    assert!(
        waiting.contains("waiting for new ones; ctrl-c ends"),
        "{waiting}"
    );
}

#[test]
fn the_embedded_kafka_selects_by_time_too() {
    let service = Service::embedded(&["--timestamp-tolerance=off"], &[]);
    service.ready();
    let post = |group: &str, age: i64| {
        let answer = service.post(callback(
            json!({"group_id": group, "timestamp": now() - age}),
        ));
        assert!(answer.contains("published"), "{answer}");
    };
    post("old", 7_200_000);
    post("new", 1000);
    post("older", 10_800_000);
    let tail = |flags: &[&str]| {
        let always = ["tail", "--kafka-brokers", &service.brokers];
        keys(&run(&[&always, flags].concat(), &[]))
    };
    assert_eq!(tail(&["--since=1h", "--until=0s"]), ["new"]);
    assert_eq!(tail(&["--since=150m", "--until=90m"]), ["old"]);
    assert_eq!(tail(&["--until=1h"]), ["old", "older"]);
}

#[test]
fn an_unknown_event_of_dead_letters_is_warned_of() {
    let service = Service::embedded(&[], &[]);
    service.ready();
    let body = json!({"event": "room_renamed", "timestamp": now()});
    let answer = service.post(callback(body));
    assert!(answer.contains("dead_lettered"), "{answer}");
    let flags = [
        "tail",
        "--kafka-brokers",
        &service.brokers,
        "--dead-letter",
        "--until=0s",
    ];
    let ended = run(
        &[&flags[..], &["--event=room_renamed,room_creat"]].concat(),
        &[],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    let warned = |text: &str| ended.stderr.matches(text).count();
    for name in ["room_renamed", "room_creat"] {
        let line = format!(
            "\"{name}\" is not an event, so only dead letters can match it; did you mean room_create?"
        );
        assert_eq!(warned(&line), 1, "{ended:?}");
    }
}

#[test]
fn a_flag_that_names_a_topic_which_is_not_read_is_refused() {
    let refused = |flags: &[&str], expected: &[&str]| {
        let ended = run(&[&["tail", "--kafka-brokers=b:1"], flags].concat(), &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines, expected);
    };
    let of_events = |flag: &str| {
        format!(
            "error: {flag}: names topics of events, but --dead-letter reads none of them; leave out one of the two. --dead-letter-topic names another topic of dead letters"
        )
    };
    let (topic, topics) = (of_events("--topic"), of_events("--topics"));
    refused(&["--dead-letter", "--topic=t"], &[&topic]);
    refused(&["--topics=all", "--dead-letter"], &[&topics]);
    refused(
        &["--dead-letter", "--topic=t", "--topics=all"],
        &[&topic, &topics],
    );
    refused(
        &["--dead-letter-topic=dead"],
        &[
            "error: --dead-letter-topic: has no effect without --dead-letter; add that, or leave this out",
        ],
    );

    // The variables are those of the service.
    let service = Service::embedded(&[], &[("ZIM2KAFKA_DEAD_LETTER_TOPIC", "dead")]);
    service.ready();
    let answer = service.post(callback(json!({"event": "unknown", "timestamp": now()})));
    assert!(answer.contains("dead_lettered"), "{answer}");
    let answer = service.post(callback(json!({"timestamp": now()})));
    assert!(answer.contains("published"), "{answer}");
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", service.brokers.as_str()),
        ("ZIM2KAFKA_TOPIC", "zim.group-joined"),
        ("ZIM2KAFKA_TOPICS", "user=zim.user"),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", "dead"),
    ];
    for (flags, topic) in [
        (&["--dead-letter"][..], "dead"),
        (&["--dead-letter", "--dead-letter-topic=dead"], "dead"),
        (&["--topic=zim.group-joined"], "zim.group-joined"),
    ] {
        let always = ["tail", "--from-beginning", "--count=1"];
        let ended = run(&[&always, flags].concat(), &variables);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let record: Value = serde_json::from_str(&ended.stdout).expect("one record");
        assert_eq!(record["topic"], topic);
    }
}
