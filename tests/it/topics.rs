//! Several topics: which event goes where, what is discarded, and what `check` reports of it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use zim2kafka::callback::sign;
use zim2kafka::event::{EVENTS, Family, Kind};

use crate::support::app::{PATIENCE, SECRET};
use crate::support::kafka::{Kafka, TestRecord, kafka, shared_cluster};
use crate::support::process::{Ended, Service, run};

/// A signed callback with the first example of an event; `fields` are added, and replace what is
/// there.
fn callback(kind: &Kind, fields: &Value) -> Vec<u8> {
    let mut body: Value = serde_json::from_str(kind.examples[0]).expect("JSON");
    let (timestamp, nonce) = ("1757577646123", rand::random::<u32>().to_string());
    let signed = json!({
        "appid": "1",
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": sign(SECRET, timestamp, &nonce).to_hex(),
    });
    let members = body.as_object_mut().expect("an object");
    for more in [&signed, fields] {
        members.extend(more.as_object().expect("an object").clone());
    }
    body.to_string().into_bytes()
}

/// The `status` of the answer to the example of an event.
fn post(service: &Service, kind: &Kind, fields: &Value) -> String {
    let answer = service.post(callback(kind, fields));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    let has_id = body.get("event_id").is_some();
    assert_eq!(has_id, body["status"] != "discarded", "{body}");
    body["status"].as_str().expect("a status").to_owned()
}

fn kind(name: &str) -> &'static Kind {
    let mut kinds = EVENTS.iter();
    kinds.find(|kind| kind.name == name).expect("an event")
}

/// The events of the records in a topic, with how often each is there.
fn events(records: &[TestRecord]) -> BTreeMap<String, usize> {
    let mut events = BTreeMap::new();
    for record in records {
        let value: Value = serde_json::from_slice(&record.value).expect("JSON");
        let event = value["event"].as_str().expect("a name").to_owned();
        *events.entry(event).or_default() += 1;
    }
    events
}

/// Checks that a line has this level, this subject and this text.
#[track_caller]
fn has(ended: &Ended, level: &str, subject: &str, text: &str) {
    let is = |line: &str| {
        let mut words = line.split_whitespace();
        let is_about = words.next() == Some(level) && words.next() == Some(subject);
        is_about && line.contains(text)
    };
    let out = &ended.stdout;
    assert!(out.lines().any(is), "{level} {subject} {text}\n{out}");
}

#[test]
fn each_event_goes_where_the_setting_sends_it_in_topics_that_the_start_creates() {
    let Some(kafka) = kafka() else { return };
    let topics = ["group", "room", "message", "dead"].map(|purpose| kafka.unique_topic(purpose));
    let [group, room, message, dead] = topics.each_ref().map(String::as_str);
    let list = format!(
        "group={group},group_join={group},room={room},message={message},call=discard,call_invite={message},room_exit=dead-letter"
    );
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ("ZIM2KAFKA_TOPICS", &list),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
        ("ZIM2KAFKA_CREATE_TOPICS", "true"),
        ("ZIM2KAFKA_TOPIC_PARTITIONS", "5"),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_OMIT", "content"),
    ];
    let ended = run(&["check"], &variables);
    for topic in [group, room, message, dead] {
        has(
            &ended,
            "ok",
            topic,
            "does not exist; serve creates it with 5 partitions",
        );
    }
    has(
        &ended,
        "ok",
        group,
        "gets group_create, group_join, group_exit, group_destroy",
    );
    has(
        &ended,
        "ok",
        room,
        "gets room_create, room_enter, room_destroy",
    );
    has(&ended, "ok", dead, "and every user_action, room_exit");
    has(
        &ended,
        "ok",
        "ZIM2KAFKA_TOPICS",
        "discards call_create, call_cancel, call_accept, call_reject, call_timeout",
    );
    has(&ended, "warning", message, "share it (message, call)");
    has(&ended, "warning", "ZIM2KAFKA_OMIT", "keep whole bodies");
    assert!(
        !ended.stdout.contains("numbers of partitions"),
        "{}",
        ended.stdout
    );

    let service = Service::start(&[], &variables);
    service.ready();
    for topic in [group, room, message, dead] {
        assert_eq!(kafka.partitions(topic).len(), 5, "{topic}");
    }
    for kind in EVENTS {
        let expected = match (kind.family, kind.name) {
            (_, "call_invite") | (Family::Group | Family::Message, _) => "published",
            (Family::Call, _) => "discarded",
            (Family::User, _) | (_, "room_exit") => "dead_lettered",
            (Family::Room, _) => "published",
        };
        assert_eq!(post(&service, kind, &json!({})), expected, "{}", kind.name);
    }
    // Even if other things are wrong with it.
    let invalid = json!({"call_id": null});
    assert_eq!(post(&service, kind("call_create"), &invalid), "discarded");
    let discarded = r#"zim2kafka_callbacks_total{outcome="discarded"}"#;
    assert_eq!(service.metric(discarded), 6.0);

    let once = |names: &[&str]| -> BTreeMap<String, usize> {
        names.iter().map(|name| ((*name).to_owned(), 1)).collect()
    };
    for (topic, names) in [
        (
            group,
            &["group_create", "group_join", "group_exit", "group_destroy"][..],
        ),
        (room, &["room_create", "room_enter", "room_destroy"]),
        (message, &["send_msg", "bot_msg", "call_invite"]),
    ] {
        let records = kafka.read_until(topic, names.len(), PATIENCE);
        assert_eq!(events(&records), once(names), "{topic}");
        for record in &records {
            let value: Value = serde_json::from_slice(&record.value).expect("JSON");
            let omitted = value.get("omitted").and_then(Value::as_array);
            let omitted = omitted.cloned().unwrap_or_default();
            for name in [
                "msg_body",
                "payload",
                "group_name",
                "room_name",
                "attributes",
                "extra",
            ] {
                assert!(value.get(name).is_none(), "{value}");
            }
            let with_content = ["group_create", "room_create", "send_msg", "bot_msg"];
            let has_content = with_content.contains(&value["event"].as_str().expect("text"));
            assert_eq!(!omitted.is_empty(), has_content, "{value}");
        }
    }
    let letters = kafka.read_until(dead, 2, PATIENCE);
    let details: Vec<_> = letters
        .iter()
        .map(|letter| letter.header("dead_letter_detail"))
        .collect();
    for detail in [
        r#"the event is "user_action""#,
        r#"the event is "room_exit""#,
    ] {
        assert!(details.contains(&Some(detail.as_bytes())), "{details:?}");
    }
    for letter in &letters {
        assert_eq!(
            letter.header("dead_letter_reason"),
            Some(&b"unsupported_event"[..])
        );
    }
    // The key of a family that has a topic.
    let of_room = letters.iter().filter(|letter| letter.key.is_some());
    assert_eq!(of_room.count(), 1);
}

#[test]
fn check_compares_the_topics_and_allows_for_the_own_time_of_messages() {
    let Some(kafka) = kafka() else { return };
    let topics = ["few", "many", "dead"].map(|purpose| kafka.unique_topic(purpose));
    let [few, many, dead] = topics.each_ref().map(String::as_str);
    let limits = [("message.timestamp.after.max.ms", "3600000")];
    kafka.create_topic(few, 2, &limits);
    kafka.create_topic(many, 3, &limits);
    kafka.create_topic(dead, 1, &[]);
    let check = |list: &str| {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
            ("ZIM2KAFKA_TOPICS", list),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
            // Below the limit, and twice of it above.
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "45m"),
        ];
        run(&["check"], &variables)
    };
    let ended = check(&format!("group_join={few},group={few},room={many}"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let numbers = format!("numbers of partitions differ (3 of {many}; 2 of {few})");
    has(&ended, "warning", "topics", &numbers);
    let ended = check(&format!("group_join={few},message={few},group_exit={many}"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let limit = "message.timestamp.after.max.ms is 3600000 (1 h), below twice ZIM2KAFKA_TIMESTAMP_TOLERANCE";
    has(&ended, "error", few, limit);
    has(&ended, "warning", few, "share it (group, message)");
    let errors = ended
        .stdout
        .lines()
        .filter(|line| line.starts_with("error"));
    assert_eq!(errors.count(), 1, "{}", ended.stdout);
    let ended = check(&format!("group_join={few},room={few}"));
    assert!(
        !ended.stdout.contains("numbers of partitions"),
        "{}",
        ended.stdout
    );
    // The topics are also listed if no Kafka answers.
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
    ];
    let ended = run(&["check"], &variables);
    has(&ended, "ok", "zim.group-joined", "gets group_join");
    has(
        &ended,
        "ok",
        "zim.dead-letter",
        "and every user_action, group_create",
    );
}

#[test]
fn the_text_of_messages_is_announced_once_and_only_if_it_is_published() {
    const TEXT: &str = "the text of chat messages is published to";
    for (topics, omit, announced) in [
        ("all", "", Some("zim.message")),
        (
            "all,bot_msg=zim.bots",
            "user_name",
            Some("zim.bots, zim.message"),
        ),
        ("all", "content", None),
        ("all", "msg_body", None),
        ("all,message=discard", "", None),
        ("", "", None),
    ] {
        let variables = [("ZIM2KAFKA_TOPICS", topics), ("ZIM2KAFKA_OMIT", omit)];
        let mut service = Service::embedded(&[], &variables);
        service.ready();
        // The last line of a start.
        let log = service.process.logs("ZIM2KAFKA_SPOOL_DIR is not set");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(TEXT)).collect();
        let expected = announced.map(|topics| format!("{TEXT} {topics}; ZIM2KAFKA_OMIT=content"));
        assert_eq!(lines.len(), usize::from(expected.is_some()), "{log}");
        if let Some(expected) = expected {
            assert!(lines[0].contains(&expected), "{log}");
        }
    }
}

/// How often each event is sent while topics are at fault.
const CALLBACKS: usize = 10;

#[test]
fn a_missing_or_forbidden_topic_of_one_family_does_not_affect_the_others() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let kafka: &Kafka = cluster;
    let topics =
        ["good", "missing", "forbidden", "dead"].map(|purpose| kafka.unique_topic(purpose));
    let [good, missing, forbidden, dead] = topics.each_ref().map(String::as_str);
    for topic in [good, forbidden, dead] {
        kafka.create_topic(topic, 3, &[]);
    }
    cluster.deny(forbidden, "WRITE");
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties
        .map(|(key, value)| format!("{key}={value}"))
        .join("\n");
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let list =
        format!("group_join={good},group={good},room={missing},user={forbidden},call={good}");
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", sasl.brokers.as_str()),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", &properties),
        ("ZIM2KAFKA_TOPICS", &list),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_SPOOL_DIR", folder.path().to_str().expect("text")),
    ];
    let service = Service::start(&[], &variables);
    service.ready();
    let held_up = ["room_enter", "user_action"];
    let others = ["group_join", "group_exit", "call_accept"];
    for _ in 0..CALLBACKS {
        for name in held_up {
            assert_eq!(post(&service, kind(name), &json!({})), "spooled", "{name}");
        }
        for name in others {
            let status = post(&service, kind(name), &json!({}));
            // It is spooled if the machine is busy.
            assert!(
                ["published", "spooled"].contains(&status.as_str()),
                "{name}: {status}"
            );
        }
        // Dead letters too.
        let status = post(&service, kind("send_msg"), &json!({}));
        assert!(
            ["dead_lettered", "spooled"].contains(&status.as_str()),
            "{status}"
        );
    }
    let deadline = Instant::now() + PATIENCE;
    while post(&service, kind("call_reject"), &json!({})) != "published" {
        assert!(Instant::now() < deadline, "{}", service.process.stderr());
    }
    // While the two have their faults.
    let expected = others.map(|name| (name.to_owned(), CALLBACKS));
    let expected = BTreeMap::from(expected);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = events(&kafka.read_all(good));
        found.remove("call_reject");
        if found == expected {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
    kafka.read_until(dead, CALLBACKS, PATIENCE);
    assert!(kafka.partitions(missing).is_empty());

    kafka.create_topic(missing, 3, &[]);
    cluster.allow_again(forbidden, "WRITE");
    for (topic, name) in [(missing, "room_enter"), (forbidden, "user_action")] {
        let records = kafka.read_until(topic, CALLBACKS, PATIENCE);
        let expected = BTreeMap::from([(name.to_owned(), CALLBACKS)]);
        assert_eq!(events(&records), expected);
    }
    let deadline = Instant::now() + PATIENCE;
    while service.metric("zim2kafka_spool_records") > 0.0 {
        assert!(Instant::now() < deadline, "{}", service.process.stderr());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_a_spool_a_missing_topic_degrades_the_service_and_the_others_work() {
    let Some(kafka) = kafka() else { return };
    let topics = ["good", "missing", "dead"].map(|purpose| kafka.unique_topic(purpose));
    let [good, missing, dead] = topics.each_ref().map(String::as_str);
    kafka.create_topic(good, 3, &[]);
    kafka.create_topic(dead, 1, &[]);
    let list = format!("group_join={good},group={good},room={missing}");
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ("ZIM2KAFKA_TOPICS", &list),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
    ];
    let service = Service::start(&[], &variables);
    service.ready();
    let answer = service.post(callback(kind("room_enter"), &json!({})));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let degraded = format!(
        "degraded: events of {missing} have waited longer than ZIM2KAFKA_ANSWER_DEADLINE (the topic {missing} "
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A busy machine may be late with them too.
        let answer = service.post(callback(kind("group_exit"), &json!({})));
        let is_published = answer.contains("published");
        let readiness = service.admin("/readyz");
        if is_published && readiness.contains(&degraded) {
            assert!(readiness.starts_with("HTTP/1.1 200 "), "{readiness}");
            break;
        }
        assert!(Instant::now() < deadline, "{readiness}");
        thread::sleep(Duration::from_millis(50));
    }
    kafka.read_until(good, 1, PATIENCE);
    kafka.create_topic(missing, 3, &[]);
    let records = kafka.read_until(missing, 1, PATIENCE);
    assert_eq!(
        events(&records),
        BTreeMap::from([("room_enter".to_owned(), 1)])
    );
    let deadline = Instant::now() + PATIENCE;
    while !service.admin("/readyz").ends_with("\r\n\r\nready\n") {
        assert!(Instant::now() < deadline, "{}", service.process.stderr());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_service_without_topics_of_events_becomes_ready() {
    let Some(kafka) = kafka() else { return };
    let dead = kafka.unique_topic("dead");
    kafka.create_topic(&dead, 1, &[]);
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
        ("ZIM2KAFKA_TOPICS", "group_join=discard"),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &dead),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
    ];
    let service = Service::start(&[], &variables);
    service.ready();
    assert_eq!(post(&service, kind("group_join"), &json!({})), "discarded");
    // It may be answered before Kafka has acknowledged it, if the machine is busy.
    service.post(callback(kind("group_exit"), &json!({})));
    kafka.read_until(&dead, 1, PATIENCE);
}
