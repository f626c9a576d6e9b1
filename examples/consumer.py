"""Prints the members of each group by its joins: pip install confluent-kafka; python consumer.py localhost:9092"""

import collections
import json
import sys
import time

from confluent_kafka import Consumer

REMEMBERED = 600  # seconds; a duplicate usually arrives within minutes

consumer = Consumer({
    "bootstrap.servers": sys.argv[1] if len(sys.argv) > 1 else "localhost:9092",
    "group.id": "members-python",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
})
consumer.subscribe(["zim.group-joined"])
seen = {}
members = collections.defaultdict(set)
while True:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        print(message.error(), file=sys.stderr)
        continue
    event_id = dict(message.headers())["ce_id"]
    now = time.monotonic()
    seen = {key: when for key, when in seen.items() if now - when < REMEMBERED}
    if event_id not in seen:
        event = json.loads(message.value())
        members[event["group_id"]].update(event["new_user_ids"])  # a set: a repeated join adds nobody
        print(f"{event['group_id']} has {len(members[event['group_id']])} members", flush=True)
    seen.setdefault(event_id, now)
    consumer.commit(message, asynchronous=True)
