//! Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//!
//! ```sh
//! cargo run --example consumer -- localhost:9092 zim.group members.db
//! sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//! ```
//!
//! README.md beside this file has the rules that all consumers of this folder follow.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

/// At most this many records are in one transaction.
const BATCH: usize = 500;

/// The types that this program reads, with the field of their users. A breaking change of an event
/// gets a new type, which is skipped and counted until this program is changed.
const USERS: [(&str, &str); 4] = [
    ("com.zegocloud.zim.group.created.v1", "user_ids"),
    ("com.zegocloud.zim.group.joined.v1", "new_user_ids"),
    ("com.zegocloud.zim.group.left.v1", "exit_user_ids"),
    ("com.zegocloud.zim.group.destroyed.v1", "user_ids"),
];

struct Event {
    of_type: &'static str,
    id: String,
    appid: String,
    group_id: String,
    /// A JSON list; `None` if they are unknown.
    users: Option<String>,
    timestamp: i64,
    received_at: i64,
}

/// Reads a record. The error is the reason for which it is skipped.
fn read(message: &BorrowedMessage<'_>) -> Result<Event, &'static str> {
    const INVALID: &str = "invalid field";
    let value = message.payload().ok_or("no value")?;
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let ce_type = headers.filter(|header| header.key == "ce_type").last();
    let ce_type = ce_type.and_then(|header| header.value);
    let known = |(name, _): &&(&str, &str)| ce_type == Some(name.as_bytes());
    let &(of_type, users_field) = USERS.iter().find(known).ok_or("unknown type")?;
    let event: Value = serde_json::from_slice(value).map_err(|_| "not JSON")?;
    let event = event.as_object().ok_or("not an object")?;

    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let text_of = |name| {
        let text = event.get(name).filter(|text| is_text(text));
        text.and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or(INVALID)
    };
    let time_of = |name| {
        let time = event.get(name).and_then(Value::as_i64);
        time.filter(|time| (0..10_000_000_000_000).contains(time))
            .ok_or(INVALID)
    };
    let may_be_unknown = users_field == "user_ids";
    let users = match event.get(users_field).unwrap_or(&Value::Null) {
        Value::Array(users) if users.iter().all(is_text) => Some(json!(users).to_string()),
        Value::Null if may_be_unknown => None,
        _ => return Err(INVALID),
    };
    Ok(Event {
        of_type,
        id: text_of("event_id")?,
        appid: text_of("appid")?,
        group_id: text_of("group_id")?,
        users,
        timestamp: time_of("timestamp")?,
        received_at: time_of("received_at")?,
    })
}

/// The consumer's context, because a new assignment starts where the store says.
struct Store(Mutex<Connection>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Store {}

impl ConsumerContext for Store {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if event != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let unassigned = consumer.unassign();
            return unassigned.expect("a consumer can be unassigned");
        }
        // Only the store's offsets belong to the store's lists. Those of the consumer group are for
        // tools that show the lag.
        for mut partition in partitions.elements() {
            let name = format!("{}/{}", partition.topic(), partition.partition());
            let next = "SELECT next_offset FROM partitions WHERE name = ?";
            let next = self.lock().query_row(next, [name], |row| row.get(0));
            let next = next.optional().expect("the store can be read");
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            partition.set_offset(offset).expect("a valid offset");
        }
        let assigned = consumer.assign(partitions);
        assigned.expect("the assignment is the one that was offered");
        eprintln!("reads {} partitions", partitions.count());
    }
}

fn apply(store: &Connection, message: &BorrowedMessage<'_>) -> rusqlite::Result<()> {
    let partition = format!("{}/{}", message.topic(), message.partition());
    let offset = message.offset();
    let event = match read(message) {
        Ok(event) => event,
        Err(reason) => {
            eprintln!("{partition}@{offset} skipped: {reason}");
            let mut skip = store.prepare_cached("INSERT INTO skipped VALUES (?, ?, ?)")?;
            skip.execute(params![partition, offset, reason])?;
            return Ok(());
        }
    };
    let mut insert =
        store.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    insert.execute(params![
        partition,
        offset,
        event.of_type,
        event.id,
        event.appid,
        event.group_id,
        event.users,
        event.timestamp,
        event.received_at,
    ])?;
    Ok(())
}

fn commit(store: &Connection) -> rusqlite::Result<()> {
    let mut report = store.prepare_cached("SELECT line FROM report")?;
    let changed = report.query_map([], |row| row.get(0))?;
    let changed: Vec<String> = changed.collect::<Result<_, _>>()?;
    store.execute_batch("DELETE FROM changed; COMMIT")?;
    for line in changed {
        println!("{line}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or(default.to_owned());
    let brokers = argument("localhost:9092");
    let topic = argument("zim.group");
    let store = Connection::open(argument("members.db"))?;
    let group = argument("members-rust");
    store.execute_batch(include_str!("members.sql"))?;
    let instance: String = store.query_row("SELECT id FROM instance", [], |row| row.get(0))?;
    let consumer: BaseConsumer<Store> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        // The store's own name: after a restart, this instance gets its partitions back at once,
        // and a second process with the same store ends the first.
        .set("group.instance.id", instance)
        .set("auto.offset.reset", "earliest")
        .create_with_context(Store(Mutex::new(store)))?;
    consumer.subscribe(&[&topic])?;

    let mut pending = 0;
    loop {
        let wait = Duration::from_secs(u64::from(pending == 0));
        let polled = consumer.poll(wait);
        // Not locked while polling, because a rebalance locks it.
        let store = consumer.context().lock();
        let is_idle = polled.is_none();
        match polled {
            Some(Ok(message)) => {
                if pending == 0 {
                    store.execute_batch("BEGIN IMMEDIATE")?;
                }
                apply(&store, &message)?;
                pending += 1;
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => eprintln!("kafka: {error}"),
            None => {}
        }
        // Lists, ids, counts and offsets change together or, after a crash, not at all.
        if pending == BATCH || pending > 0 && is_idle {
            commit(&store)?;
            pending = 0;
        }
    }
}
