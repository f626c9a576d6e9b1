//! Dead letters of each reason, which the service has written, after the repair of their cause.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use zim2kafka::event::{EVENTS, Reason, Routes};

use super::{Topics, has_row, now};
use crate::support::app::{App, Settings, callback};
use crate::support::dead_letters::dead_letter;
use crate::support::kafka::{Kafka, TestRecord, kafka};

const TOLERANCE: Duration = Duration::from_secs(600);

/// The limit of the topic of events, at first.
const SMALL: &str = "3000";

async fn service(kafka: &Kafka, topics: &Topics, is_repaired: bool) -> App {
    let events: &[&str] = match is_repaired {
        true => &["group_join", "group_exit"],
        false => &["group_join"],
    };
    let settings = Settings::on(kafka.brokers(), &topics.events, &topics.dead);
    let mut settings = match is_repaired {
        true => settings,
        false => settings.tolerance(TOLERANCE),
    };
    let events = events.iter().map(|event| (*event, topics.events.as_str()));
    settings.0.kafka.routes = Routes::new(events, &topics.dead);
    let app = settings.start();
    app.ready().await;
    app
}

/// Posts a callback, and returns the status and the event id of the answer.
async fn post(app: &App, body: &[u8]) -> (String, String) {
    let answer = app.post(body.to_vec()).await;
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("event_id"))
}

type Seen = (i32, i64, String, Vec<(String, Vec<u8>)>, Value);

/// All that subscribers see of a record, but for the time of receipt.
fn seen(record: &TestRecord) -> Seen {
    let mut value: Value = serde_json::from_slice(&record.value).expect("JSON");
    value["received_at"] = Value::Null;
    let mut headers = record.headers.clone();
    headers.retain(|(name, _)| name != "redriven");
    let key = String::from_utf8_lossy(record.key.as_deref().expect("a key")).into_owned();
    (record.partition, record.timestamp, key, headers, value)
}

fn by_key(records: &[TestRecord]) -> BTreeMap<String, Vec<&TestRecord>> {
    let mut by_key = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        by_key.entry(seen(record).2).or_default().push(record);
    }
    by_key
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_repair_each_is_published_as_the_service_would_have_published_it() {
    let Some(kafka) = kafka() else { return };
    let topics = Topics::create_with(kafka, &[("max.message.bytes", SMALL)]);
    let body = |event: &str, group: &str, more: Value| {
        let mut fields = json!({"event": event, "group_id": group, "timestamp": now()});
        let members = fields.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        callback(fields)
    };
    // Compressed, they still exceed the limit.
    let users: Vec<_> = (0..500)
        .map(|_| format!("{:032x}", rand::random::<u128>()))
        .collect();
    let kind = EVENTS.into_iter().find(|kind| kind.name == "group_exit");
    let mut exit: Value = serde_json::from_str(kind.expect("one").examples[0]).expect("JSON");
    for name in ["event", "group_id"] {
        exit.as_object_mut().expect("an object").remove(name);
    }
    let bodies = [
        body(
            "group_join",
            "stale",
            json!({"timestamp": now() - 3_600_000}),
        ),
        body("group_exit", "unsupported", exit),
        body("group_join", "too-large", json!({"new_user_ids": users})),
        body("group_join", "invalid", json!({"join_type": "Scan"})),
    ];
    let app = service(kafka, &topics, false).await;
    for body in &bodies {
        let (status, _) = post(&app, body).await;
        assert_eq!(status, "dead_lettered");
    }
    let letters = app.dead_letters(bodies.len()).await;
    let mut reasons: Vec<_> = letters
        .iter()
        .map(|letter| {
            String::from_utf8_lossy(letter.header("dead_letter_reason").expect("one")).into_owned()
        })
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "invalid_event",
            "rejected_by_kafka",
            "stale",
            "unsupported_event"
        ]
    );
    assert!(app.stop().await.is_ok());
    // Written by someone who can write to the topic, and does not know the secret.
    let forged = body("group_join", "forged", json!({}));
    let forged = String::from_utf8(forged).expect("text");
    let mut letter = dead_letter("secret", forged.as_bytes(), Reason::Stale, now());
    let mut value: Value = serde_json::from_str(&forged).expect("JSON");
    value["nonce"] = "1".into();
    letter.value = value.to_string().into();
    topics.put([letter]);

    // What a service with today's settings makes of the same callbacks.
    let twin = Topics::create(kafka);
    let app = service(kafka, &twin, true).await;
    let mut ids = Vec::new();
    for body in &bodies[..3] {
        let (status, id) = post(&app, body).await;
        assert_eq!(status, "published");
        ids.push(id);
    }
    assert!(app.stop().await.is_ok());
    let expected = kafka.read_all(&twin.events);

    kafka.change_topic(&topics.events, &[]);
    let flags = ["--ignore-age", "--trust-topic"];
    let table = tokio::task::block_in_place(|| topics.redriven(&["--dry-run", flags[0], flags[1]]));
    let rows = |done: &str| {
        [
            (2, format!("{done} to {}", topics.events)),
            (1, format!("{done} to {}, not authenticated", topics.events)),
            (1, "still invalid_event".to_owned()),
            (
                1,
                "not authentic by today's ZIM2KAFKA_CALLBACK_SECRETS".to_owned(),
            ),
        ]
    };
    for (count, row) in rows("to be published") {
        has_row(&table, count, &row);
    }
    assert!(table.contains("this was a dry run"), "{table}");
    assert!(
        table.starts_with(&format!("5 dead letters of {} read\n", topics.dead)),
        "{table}"
    );
    assert!(kafka.read_all(&topics.events).is_empty());

    let real = tokio::task::block_in_place(|| topics.redriven(&flags));
    for (count, row) in rows("published") {
        has_row(&real, count, &row);
    }
    let dry = table.replace("to be published", "published");
    let last = "this was a dry run: nothing is published, and no progress is stored\n";
    assert_eq!(dry.strip_suffix(last), Some(real.as_str()));
    let found = topics.published();
    let (found, expected) = (by_key(&found), by_key(&expected));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["stale", "too-large", "unsupported"]
    );
    for (key, records) in &found {
        assert_eq!(records.len(), 1, "{key}");
        assert_eq!(seen(records[0]), seen(expected[key][0]), "{key}");
    }
    for (group, id) in ["stale", "unsupported", "too-large"].into_iter().zip(ids) {
        assert_eq!(
            found[group][0].header("ce_id"),
            Some(id.as_bytes()),
            "{group}"
        );
    }
}
