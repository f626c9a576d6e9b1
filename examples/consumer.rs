//! Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.
//!
//! ```sh
//! cargo run --example consumer -- localhost:9092 zim.group members.db
//! sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"
//! ```
//!
//! README.md beside this file has the rules that consumer.py, consumer.rs and Consumer.java follow.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext};
use rusqlite::{Connection, OptionalExtension, Params, params};
use serde_json::Value;

/// How long an `event_id` is remembered, measured by the records' `received_at`.
const DEDUP_MINUTES: i64 = 60;

/// At most this many records are in one transaction.
const BATCH: usize = 500;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS instance (id TEXT NOT NULL);
    INSERT INTO instance SELECT hex(randomblob(8)) WHERE NOT EXISTS (SELECT 1 FROM instance);
    -- Where to continue each partition, and its newest received_at.
    CREATE TABLE IF NOT EXISTS partitions (
        name TEXT PRIMARY KEY, next_offset INTEGER NOT NULL, clock INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS seen (
        event_id TEXT PRIMARY KEY, partition TEXT NOT NULL, seen_at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS seen_by_age ON seen (partition, seen_at);
    -- The last destroy, and the last create with a known list of members; -1 if there was none.
    CREATE TABLE IF NOT EXISTS groups (
        appid TEXT, group_id TEXT, destroyed_at INTEGER NOT NULL, listed_at INTEGER NOT NULL,
        PRIMARY KEY (appid, group_id)) WITHOUT ROWID;
    -- A user who has left keeps a row, so that an older join that arrives later changes nothing.
    CREATE TABLE IF NOT EXISTS members (
        appid TEXT, group_id TEXT, user_id TEXT, is_member INTEGER NOT NULL,
        changed_at INTEGER NOT NULL, PRIMARY KEY (appid, group_id, user_id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
";

/// The types that this program reads. A breaking change of an event gets a new type, which is
/// skipped and counted until this program is changed.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Created,
    Joined,
    Left,
    Destroyed,
}

impl Type {
    fn of(ce_type: &[u8]) -> Option<Type> {
        match ce_type {
            b"com.zegocloud.zim.group.created.v1" => Some(Type::Created),
            b"com.zegocloud.zim.group.joined.v1" => Some(Type::Joined),
            b"com.zegocloud.zim.group.left.v1" => Some(Type::Left),
            b"com.zegocloud.zim.group.destroyed.v1" => Some(Type::Destroyed),
            _ => None,
        }
    }

    /// The field of the users.
    fn users(self) -> &'static str {
        match self {
            Type::Created | Type::Destroyed => "user_ids",
            Type::Joined => "new_user_ids",
            Type::Left => "exit_user_ids",
        }
    }
}

/// Group IDs are unique within an application.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    appid: String,
    id: String,
}

struct Event {
    of: Type,
    id: String,
    group: Group,
    timestamp: i64,
    received_at: i64,
    /// None if they are unknown.
    users: Option<Vec<String>>,
}

/// Reads a record. The error is the reason for which it is skipped.
fn read(message: &BorrowedMessage<'_>) -> Result<Event, &'static str> {
    const INVALID: &str = "invalid field";
    let value = message.payload().ok_or("no value")?;
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let ce_type = headers.filter(|header| header.key == "ce_type").last();
    let ce_type = ce_type.and_then(|header| header.value);
    let of = ce_type.and_then(Type::of).ok_or("unknown type")?;
    let event: Value = serde_json::from_slice(value).map_err(|_| "not JSON")?;
    let event = event.as_object().ok_or("not an object")?;

    let text = |value: &Value| {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or(INVALID)
    };
    let text_of = |name| event.get(name).ok_or(INVALID).and_then(text);
    let time_of = |name| {
        let time = event.get(name).and_then(Value::as_i64);
        time.filter(|time| (0..10_000_000_000_000).contains(time))
            .ok_or(INVALID)
    };
    let users = match event.get(of.users()).unwrap_or(&Value::Null) {
        Value::Array(users) => Some(users.iter().map(text).collect::<Result<_, _>>()?),
        Value::Null if matches!(of, Type::Created | Type::Destroyed) => None,
        _ => return Err(INVALID),
    };
    Ok(Event {
        of,
        id: text_of("event_id")?,
        group: Group {
            appid: text_of("appid")?,
            id: text_of("group_id")?,
        },
        timestamp: time_of("timestamp")?,
        received_at: time_of("received_at")?,
        users,
    })
}

/// The consumer's context, because a new assignment starts where the store says.
struct Store(Mutex<Connection>);

impl Store {
    fn open(path: &str) -> rusqlite::Result<Store> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        // With WAL, others can read the file meanwhile.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
        Ok(Store(Mutex::new(connection)))
    }

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
            let next = query(&self.lock(), next, [name]).expect("the store can be read");
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            partition.set_offset(offset).expect("a valid offset");
        }
        let assigned = consumer.assign(partitions);
        assigned.expect("the assignment is the one that was offered");
        eprintln!("reads {} partitions", partitions.count());
    }
}

/// Applies a record to the store. Returns the group that it may have changed.
fn apply(store: &Connection, message: &BorrowedMessage<'_>) -> rusqlite::Result<Option<Group>> {
    let partition = format!("{}/{}", message.topic(), message.partition());
    let event = match read(message) {
        Ok(event) => event,
        Err(reason) => {
            advance(store, &partition, message.offset(), 0)?;
            let total = count(store, &format!("skipped: {reason}"))?;
            let offset = message.offset();
            eprintln!("{partition}@{offset} skipped: {reason} ({total} so far)");
            return Ok(None);
        }
    };

    // A time in the future must not stop the clock until then.
    let received_at = event.received_at.min(now());
    advance(store, &partition, message.offset(), received_at)?;
    if is_duplicate(store, &partition, &event.id)? {
        count(store, "duplicates")?;
        return Ok(None);
    }
    count(store, "events")?;

    let (group, timestamp) = (&event.group, event.timestamp);
    if event.of == Type::Destroyed {
        note_group(store, group, timestamp, -1)?;
        execute(
            store,
            "DELETE FROM members WHERE appid = ? AND group_id = ? AND changed_at <= ?",
            params![group.appid, group.id, timestamp],
        )?;
    } else if timestamp > destroyed_at(store, group)? {
        if event.of == Type::Created && event.users.is_some() {
            note_group(store, group, -1, timestamp)?;
        }
        let is_member = event.of != Type::Left;
        for user in event.users.iter().flatten() {
            // The newest timestamp wins, and of equal ones the record that is later in Kafka.
            execute(
                store,
                "INSERT INTO members VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE
                 SET is_member = excluded.is_member, changed_at = excluded.changed_at
                 WHERE excluded.changed_at >= changed_at",
                params![group.appid, group.id, user, is_member, timestamp],
            )?;
        }
    }
    Ok(Some(event.group))
}

fn advance(
    store: &Connection,
    partition: &str,
    offset: i64,
    received_at: i64,
) -> rusqlite::Result<usize> {
    execute(
        store,
        "INSERT INTO partitions VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE
         SET next_offset = excluded.next_offset, clock = max(clock, excluded.clock)",
        params![partition, offset + 1, received_at],
    )
}

/// Remembers the id. Each statement is one search of an index, however many ids there are.
fn is_duplicate(store: &Connection, partition: &str, event_id: &str) -> rusqlite::Result<bool> {
    let clock = "SELECT clock FROM partitions WHERE name = ?";
    let clock = query(store, clock, [partition])?.unwrap_or(0);
    execute(
        store,
        "DELETE FROM seen WHERE partition = ? AND seen_at < ?",
        params![partition, clock - DEDUP_MINUTES * 60_000],
    )?;
    let added = execute(
        store,
        "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)",
        params![event_id, partition, clock],
    )?;
    Ok(added == 0)
}

fn destroyed_at(store: &Connection, group: &Group) -> rusqlite::Result<i64> {
    let time = query(
        store,
        "SELECT destroyed_at FROM groups WHERE appid = ? AND group_id = ?",
        [&group.appid, &group.id],
    )?;
    Ok(time.unwrap_or(-1))
}

fn note_group(
    store: &Connection,
    group: &Group,
    destroyed_at: i64,
    listed_at: i64,
) -> rusqlite::Result<usize> {
    execute(
        store,
        "INSERT INTO groups VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE
         SET destroyed_at = max(destroyed_at, excluded.destroyed_at),
             listed_at = max(listed_at, excluded.listed_at)",
        params![group.appid, group.id, destroyed_at, listed_at],
    )
}

fn count(store: &Connection, name: &str) -> rusqlite::Result<i64> {
    execute(
        store,
        "INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
        [name],
    )?;
    let count = query(store, "SELECT count FROM counts WHERE name = ?", [name])?;
    Ok(count.unwrap_or(0))
}

fn describe(store: &Connection, group: &Group) -> rusqlite::Result<String> {
    let members = "SELECT count(*) FROM members WHERE appid = ? AND group_id = ? AND is_member";
    let members = query(store, members, [&group.appid, &group.id])?.unwrap_or(0);
    let is_complete = query(
        store,
        "SELECT 1 FROM groups WHERE appid = ? AND group_id = ? AND listed_at > destroyed_at",
        [&group.appid, &group.id],
    )?;
    // Without the list of its creation, a group may have members that no record has named.
    let known = is_complete.map_or("known ", |_| "");
    let Group { appid, id } = group;
    Ok(format!("app {appid} group {id}: {members} {known}members"))
}

fn execute(store: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<usize> {
    store.prepare_cached(sql)?.execute(values)
}

/// The number in the first row, if there is one.
fn query(store: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Option<i64>> {
    let mut statement = store.prepare_cached(sql)?;
    statement.query_row(values, |row| row.get(0)).optional()
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis().try_into().unwrap_or(i64::MAX))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or(default.to_owned());
    let brokers = argument("localhost:9092");
    let topic = argument("zim.group");
    let store = Store::open(&argument("members.db"))?;
    let instance: String = {
        let id = "SELECT id FROM instance";
        store.lock().query_row(id, [], |row| row.get(0))?
    };
    let consumer: BaseConsumer<Store> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "members-rust")
        // The store's own name: after a restart, this instance gets its partitions back at once,
        // and a second process with the same store ends the first.
        .set("group.instance.id", instance)
        .set("auto.offset.reset", "earliest")
        .create_with_context(store)?;
    consumer.subscribe(&[&topic])?;

    let (mut pending, mut changed) = (0, BTreeSet::new());
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
                pending += 1;
                changed.extend(apply(&store, &message)?);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => eprintln!("kafka: {error}"),
            None => {}
        }
        // Lists, ids, counts and offsets change together or, after a crash, not at all.
        if pending == BATCH || pending > 0 && is_idle {
            store.execute_batch("COMMIT")?;
            for group in std::mem::take(&mut changed) {
                println!("{}", describe(&store, &group)?);
            }
            pending = 0;
        }
    }
}
