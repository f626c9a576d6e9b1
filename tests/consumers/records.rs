//! Records that the service makes of callbacks, and others, on a topic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext};
use serde_json::{Value, json};
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, sign};
use zim2kafka::event::{Policy, kind_of};

use crate::support::kafka::Kafka;

const SECRET: &str = "not-a-real-secret";
const NONCE: &str = "397690";

const PATIENCE: Duration = Duration::from_secs(60);

/// When the first event was received, unless a test chooses another time: so long ago that a
/// consumer that went by its own clock would have forgotten it.
pub(crate) fn start() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("the clock is right").as_millis();
    i64::try_from(now).expect("it fits") - 5 * HOUR
}

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// An event of a group.
#[derive(Clone)]
pub(crate) struct Event {
    name: &'static str,
    appid: &'static str,
    group: String,
    /// None if the callback had no list.
    users: Option<Vec<String>>,
    timestamp: i64,
    received_at: i64,
    is_redriven: bool,
}

impl Event {
    fn new(name: &'static str, group: &str, users: Option<&[&str]>, timestamp: i64) -> Event {
        Event {
            name,
            appid: "1234567890",
            group: group.to_owned(),
            users: users.map(|users| users.iter().map(|&user| user.to_owned()).collect()),
            timestamp,
            received_at: 0,
            is_redriven: false,
        }
    }

    pub(crate) fn create(group: &str, users: Option<&[&str]>, timestamp: i64) -> Event {
        Event::new("group_create", group, users, timestamp)
    }

    pub(crate) fn join(group: &str, users: &[&str], timestamp: i64) -> Event {
        Event::new("group_join", group, Some(users), timestamp)
    }

    pub(crate) fn exit(group: &str, users: &[&str], timestamp: i64) -> Event {
        Event::new("group_exit", group, Some(users), timestamp)
    }

    pub(crate) fn destroy(group: &str, users: Option<&[&str]>, timestamp: i64) -> Event {
        Event::new("group_destroy", group, users, timestamp)
    }

    pub(crate) fn of_app(mut self, appid: &'static str) -> Event {
        self.appid = appid;
        self
    }

    pub(crate) fn received_at(mut self, time: i64) -> Event {
        self.received_at = time;
        self
    }

    pub(crate) fn redriven(mut self) -> Event {
        self.is_redriven = true;
        self
    }

    /// The record, as the service makes it of a signed callback.
    pub(crate) fn record(&self) -> Record {
        let users = &self.users;
        let mut body = match self.name {
            "group_create" => json!({
                "operator_account": "u_ada", "owner_account": "u_ada", "group_name": "Night shift",
                "attributes": [{"key": "topic", "value": "roster"}], "user_ids": users,
            }),
            "group_join" => json!({"join_type": "Apply", "new_user_ids": users}),
            "group_exit" => json!({
                "exit_type": "Kickout", "operator_account": "u_ada", "exit_user_ids": users,
            }),
            _ => json!({"operator_account": "u_ada", "owner_account": "u_ada", "user_ids": users}),
        };
        let timestamp = self.timestamp.to_string();
        let signature = sign(SECRET, &timestamp, NONCE).to_hex();
        for (name, field) in [
            ("event", self.name),
            ("appid", self.appid),
            ("group_id", self.group.as_str()),
            ("timestamp", timestamp.as_str()),
            ("nonce", NONCE),
            ("signature", signature.as_str()),
        ] {
            body[name] = json!(field);
        }
        let raw = RawCallback {
            body: body.to_string().into(),
            content_type: None,
            trace: None,
            received_at: self.received_at,
        };
        let secrets = Secrets::parse_list(&format!("*={SECRET}")).expect("a secret");
        let json = raw.json().expect("it is JSON");
        let callback = json.decode().expect("it is a callback");
        let callback = secrets.authenticate(callback, TimestampUnit::Auto);
        let callback = callback.expect("it is signed");
        let kind = kind_of(&callback).expect("it is an event");
        let record = kind.record(&callback, &Policy::default());
        let record = record.expect("it is valid");
        let mut headers: Vec<(String, Vec<u8>)> = (record.headers.into_iter())
            .map(|(name, value)| (name.into_owned(), value.to_vec()))
            .collect();
        if self.is_redriven {
            headers.push(("redriven".to_owned(), b"true".to_vec()));
        }
        Record {
            key: record.key.expect("an event has one").to_vec(),
            headers,
            value: Some(record.value.to_vec()),
        }
    }

    pub(crate) fn id(&self) -> String {
        self.value()["event_id"]
            .as_str()
            .expect("a text")
            .to_owned()
    }

    pub(crate) fn value(&self) -> Value {
        let value = self.record().value.expect("an event has one");
        serde_json::from_slice(&value).expect("it is JSON")
    }
}

/// Anything that a topic can hold.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Publishes to a topic, and keeps the end offset of each partition.
pub(crate) struct Topic<'a> {
    kafka: &'a Kafka,
    pub(crate) name: String,
    producer: BaseProducer<Reports>,
}

/// What the brokers have reported: one more than the last offset of each partition, and failures.
#[derive(Default)]
struct Reports(Mutex<(BTreeMap<i32, i64>, Vec<String>)>);

impl ClientContext for Reports {}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let end = reports.0.entry(message.partition()).or_default();
                *end = message.offset() + 1;
            }
            Err((error, _)) => reports.1.push(error.to_string()),
        }
    }
}

impl<'a> Topic<'a> {
    pub(crate) fn create(kafka: &'a Kafka, partitions: i32) -> Topic<'a> {
        let name = kafka.unique_topic("zim.group");
        kafka.create_topic(&name, partitions, &[]);
        Topic {
            kafka,
            producer: producer(kafka, &[("enable.idempotence", "true")]),
            name,
        }
    }

    /// Returns once the brokers have them all.
    pub(crate) fn publish(&self, records: impl IntoIterator<Item = Record>) {
        send(&self.producer, &self.name, records);
    }

    /// Publishes them in a transaction, as records that are published again later (header
    /// `redriven: true`).
    pub(crate) fn publish_in_transaction(&self, records: Vec<Record>, is_committed: bool) {
        let producer = producer(self.kafka, &[("transactional.id", &self.name)]);
        producer.init_transactions(PATIENCE).expect("a coordinator");
        producer.begin_transaction().expect("it is initialised");
        send(&producer, &self.name, records);
        let ended = if is_committed {
            producer.commit_transaction(PATIENCE)
        } else {
            producer.abort_transaction(PATIENCE)
        };
        ended.expect("the transaction ends");
    }

    /// The end of each partition, behind the last record that [`Topic::publish`] wrote.
    pub(crate) fn ends(&self) -> BTreeMap<String, i64> {
        let reports = self.producer.context().0.lock();
        let reports = reports.unwrap_or_else(PoisonError::into_inner);
        let ends = reports.0.iter();
        ends.map(|(partition, end)| (format!("{}/{partition}", self.name), *end))
            .collect()
    }
}

fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> BaseProducer<Reports> {
    let mut client = kafka.client();
    client.set("partitioner", "murmur2_random");
    client.set("queue.buffering.max.messages", "1000000");
    for (name, value) in settings {
        client.set(*name, *value);
    }
    let producer = client.create_with_context(Reports::default());
    producer.expect("the settings are valid")
}

fn send(producer: &BaseProducer<Reports>, topic: &str, records: impl IntoIterator<Item = Record>) {
    for record in records {
        let headers = record.headers.iter();
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
            .key(record.key.as_slice())
            .headers(headers);
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        let sent = producer.send(message).map_err(|(error, _)| error);
        sent.expect("the queue has room");
    }
    producer.flush(PATIENCE).expect("the brokers answer");
    let reports = producer.context().0.lock();
    let reports = reports.unwrap_or_else(PoisonError::into_inner);
    assert!(reports.1.is_empty(), "{:?}", reports.1);
}
