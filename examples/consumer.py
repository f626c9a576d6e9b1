"""Keeps the member list of each group in a SQLite file, from the group events of zim2kafka.

    pip install -r requirements.txt
    python consumer.py localhost:9092 zim.group members.db
    sqlite3 members.db "SELECT user_id FROM members WHERE group_id = 'grp-7f3a' AND is_member"

README.md beside this file has the rules that all consumers of this folder follow.
"""

import json
import re
import sqlite3
import sys
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException

# At most this many records are in one transaction.
BATCH = 500

# The types that this program reads, with the field of their users. A breaking change of an event
# gets a new type, which is skipped and counted until this program is changed.
USERS = {
    "com.zegocloud.zim.group.created.v1": "user_ids",
    "com.zegocloud.zim.group.joined.v1": "new_user_ids",
    "com.zegocloud.zim.group.left.v1": "exit_user_ids",
    "com.zegocloud.zim.group.destroyed.v1": "user_ids",
}


class Unreadable(Exception):
    """A record that is skipped, with the reason."""


def read(message):
    """Returns the columns of the view `events`, from the type on."""
    if message.value() is None:
        raise Unreadable("no value")
    kind = (dict(message.headers() or []).get("ce_type") or b"").decode(errors="replace")
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
    may_be_unknown = USERS[kind] == "user_ids"
    if not isinstance(users, list) and not (users is None and may_be_unknown):
        raise Unreadable("invalid field")
    if not all(map(is_text, texts + (users or []))) or not all(map(is_time, times)):
        raise Unreadable("invalid field")
    return kind, *texts, None if users is None else json.dumps(users), *times


def refuse(constant):
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(constant)


def is_text(value):
    # Lone surrogates are no text for SQLite.
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def is_time(value):
    return type(value) is int and 0 <= value < 10**13


def apply(store, message):
    source = (f"{message.topic()}/{message.partition()}", message.offset())
    try:
        event = read(message)
    except Unreadable as reason:
        print(f"{source[0]}@{source[1]} skipped: {reason}", file=sys.stderr)
        store.execute("INSERT INTO skipped VALUES (?, ?, ?)", (*source, str(reason)))
    else:
        store.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*source, *event))


def commit(store):
    changed = store.execute("SELECT line FROM report").fetchall()
    store.execute("DELETE FROM changed")
    store.execute("COMMIT")
    for (line,) in changed:
        print(line, flush=True)


def main(brokers="localhost:9092", topic="zim.group", path="members.db", group="members-python"):
    # isolation_level=None leaves the transactions to this program.
    store = sqlite3.connect(path, isolation_level=None, timeout=30)
    store.executescript(Path(__file__).with_name("members.sql").read_text())
    (instance,) = store.execute("SELECT id FROM instance").fetchone()
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": group,
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
    pending = 0
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
                apply(store, message)
                pending += 1
            # Lists, ids, counts and offsets change together or, after a crash, not at all.
            if pending == BATCH or pending and message is None:
                commit(store)
                pending = 0
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
