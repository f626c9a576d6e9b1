"""Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.

    pip install -r requirements.txt
    python consumer.py localhost:9092 zim.group members.db
    sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"

README.md beside this file has the rules that consumer.py, consumer.rs and Consumer.java follow.
"""

import json
import re
import sqlite3
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException

# How long an event_id is remembered, measured by the records' received_at.
DEDUP_MINUTES = 60

# At most this many records are in one transaction.
BATCH = 500

# The types that this program reads, with the field of their users. A breaking change of an event
# gets a new type, which is skipped and counted until this program is changed.
CREATED = b"com.zegocloud.zim.group.created.v1"
JOINED = b"com.zegocloud.zim.group.joined.v1"
LEFT = b"com.zegocloud.zim.group.left.v1"
DESTROYED = b"com.zegocloud.zim.group.destroyed.v1"
USERS = {CREATED: "user_ids", JOINED: "new_user_ids", LEFT: "exit_user_ids", DESTROYED: "user_ids"}

SCHEMA = """
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
"""


class Unreadable(Exception):
    """A record that is skipped, with the reason."""


def read(message):
    """Returns the type, the event and its users; the users are None if they are unknown."""
    if message.value() is None:
        raise Unreadable("no value")
    kind = dict(message.headers() or []).get("ce_type")
    if kind not in USERS:
        raise Unreadable("unknown type")
    try:
        event = json.loads(message.value().decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None
    if not isinstance(event, dict):
        raise Unreadable("not an object")
    texts = [event.get(name) for name in ("event_id", "appid", "group_id")]
    times = [event.get(name) for name in ("timestamp", "received_at")]
    users = event.get(USERS[kind])
    if isinstance(users, list):
        texts += users
    elif users is not None or kind in (JOINED, LEFT):
        raise Unreadable("invalid field")
    if not all(map(is_text, texts)) or not all(map(is_time, times)):
        raise Unreadable("invalid field")
    return kind, event, users


def refuse(constant):
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(constant)


def is_text(value):
    # Lone surrogates are no text for SQLite.
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def is_time(value):
    return type(value) is int and 0 <= value < 10**13


def apply(store, message):
    """Applies a record to the store. Returns the group that it may have changed, or None."""
    partition = f"{message.topic()}/{message.partition()}"
    try:
        kind, event, users = read(message)
    except Unreadable as reason:
        advance(store, partition, message.offset(), 0)
        total = count(store, f"skipped: {reason}")
        print(f"{partition}@{message.offset()} skipped: {reason} ({total} so far)", file=sys.stderr)
        return None

    # A time in the future must not stop the clock until then.
    advance(store, partition, message.offset(), min(event["received_at"], time.time_ns() // 10**6))
    if is_duplicate(store, partition, event["event_id"]):
        count(store, "duplicates")
        return None
    count(store, "events")

    group, timestamp = (event["appid"], event["group_id"]), event["timestamp"]
    if kind == DESTROYED:
        note_group(store, group, destroyed_at=timestamp)
        store.execute(
            "DELETE FROM members WHERE appid = ? AND group_id = ? AND changed_at <= ?",
            (*group, timestamp))
    elif timestamp > destroyed_at(store, group):
        if kind == CREATED and users is not None:
            note_group(store, group, listed_at=timestamp)
        # The newest timestamp wins, and of equal ones the record that is later in Kafka.
        store.executemany(
            """INSERT INTO members VALUES (?, ?, ?, ?, ?)
               ON CONFLICT DO UPDATE
               SET is_member = excluded.is_member, changed_at = excluded.changed_at
               WHERE excluded.changed_at >= changed_at""",
            [(*group, user, kind != LEFT, timestamp) for user in users or []])
    return group


def advance(store, partition, offset, received_at):
    store.execute(
        """INSERT INTO partitions VALUES (?, ?, ?)
           ON CONFLICT DO UPDATE
           SET next_offset = excluded.next_offset, clock = max(clock, excluded.clock)""",
        (partition, offset + 1, received_at))


def is_duplicate(store, partition, event_id):
    """Remembers the id. Each statement is one search of an index, however many ids there are."""
    (clock,) = store.execute("SELECT clock FROM partitions WHERE name = ?", (partition,)).fetchone()
    store.execute(
        "DELETE FROM seen WHERE partition = ? AND seen_at < ?",
        (partition, clock - DEDUP_MINUTES * 60_000))
    return store.execute(
        "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (event_id, partition, clock)).rowcount == 0


def destroyed_at(store, group):
    row = store.execute(
        "SELECT destroyed_at FROM groups WHERE appid = ? AND group_id = ?", group).fetchone()
    return row[0] if row else -1


def note_group(store, group, destroyed_at=-1, listed_at=-1):
    store.execute(
        """INSERT INTO groups VALUES (?, ?, ?, ?)
           ON CONFLICT DO UPDATE
           SET destroyed_at = max(destroyed_at, excluded.destroyed_at),
               listed_at = max(listed_at, excluded.listed_at)""",
        (*group, destroyed_at, listed_at))


def count(store, name):
    store.execute(
        "INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (name,))
    return store.execute("SELECT count FROM counts WHERE name = ?", (name,)).fetchone()[0]


def describe(store, group):
    (members,) = store.execute(
        "SELECT count(*) FROM members WHERE appid = ? AND group_id = ? AND is_member",
        group).fetchone()
    is_complete = store.execute(
        "SELECT 1 FROM groups WHERE appid = ? AND group_id = ? AND listed_at > destroyed_at",
        group).fetchone()
    # Without the list of its creation, a group may have members that no record has named.
    known = "" if is_complete else "known "
    return f"app {group[0]} group {group[1]}: {members} {known}members"


def main(brokers="localhost:9092", topic="zim.group", path="members.db"):
    # isolation_level=None leaves the transactions to this program. With WAL, others can read the
    # file meanwhile.
    store = sqlite3.connect(path, isolation_level=None, timeout=30)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = NORMAL")
    store.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    (instance,) = store.execute("SELECT id FROM instance").fetchone()
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "members-python",
        # The store's own name: after a restart, this instance gets its partitions back at once,
        # and a second process with the same store ends the first.
        "group.instance.id": instance,
        "auto.offset.reset": "earliest",
    })

    def on_assign(consumer, partitions):
        # Only the store's offsets belong to the store's lists. Those of the consumer group are for
        # tools that show the lag.
        for partition in partitions:
            row = store.execute(
                "SELECT next_offset FROM partitions WHERE name = ?",
                (f"{partition.topic}/{partition.partition}",)).fetchone()
            partition.offset = row[0] if row else OFFSET_BEGINNING
        consumer.assign(partitions)
        print(f"reads {len(partitions)} partitions of {topic}", file=sys.stderr)

    consumer.subscribe([topic], on_assign=on_assign)
    pending, changed = 0, set()
    try:
        while True:
            message = consumer.poll(0 if pending else 1)
            if message is not None and message.error():
                print(f"kafka: {message.error()}", file=sys.stderr)
                if message.error().code() == KafkaError._FATAL:
                    raise KafkaException(message.error())
            elif message is not None:
                if pending == 0:
                    store.execute("BEGIN IMMEDIATE")
                pending += 1
                changed.add(apply(store, message))
            # Lists, ids, counts and offsets change together or, after a crash, not at all.
            if pending == BATCH or pending and message is None:
                store.execute("COMMIT")
                for group in sorted(changed - {None}):
                    print(describe(store, group), flush=True)
                pending, changed = 0, set()
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
