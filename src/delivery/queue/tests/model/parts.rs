//! Records of events that are only numbers, and the queues that a start makes of a disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::delivery::queue::*;
use crate::event::{Counted, Times, key_hash};
use crate::spool::KeyRows;

pub(super) fn record(id: u64, group: u8) -> Record {
    Record {
        event: Some("group_join".into()),
        event_id: Uuid::from_u128(id.into()),
        key: Some(vec![group].into()),
        timestamp: if is_old(id, group) { 0 } else { i64::MAX },
        headers: Vec::new(),
        value: Bytes::from(id.to_string()),
        counted: Some(Counted::Event { joined: None }),
        times: Times {
            callback: 0,
            received: 0,
        },
    }
}

/// Whether Kafka does not remember a producer after this record.
pub(super) fn is_old(id: u64, group: u8) -> bool {
    group == 0 || id % 8 == 7
}

/// The event that a record, or the dead letter of one, is about.
pub(super) fn id(record: &Record) -> u64 {
    let text = std::str::from_utf8(&record.value).expect("we wrote it");
    text.parse().expect("we wrote it")
}

pub(super) fn group(record: &Record) -> u8 {
    record.key.as_ref().map_or(0, |key| key[0])
}

/// Longer than a search takes.
pub(super) const SPOOL_AFTER: Duration = Duration::from_secs(3600);

/// The place of the queue of events.
pub(super) const EVENTS: usize = 0;
/// That of dead letters.
pub(super) const DEAD_LETTERS: usize = 1;

/// The queue of a record.
pub(super) fn lane_of(record: &Record) -> usize {
    usize::from(record.is_dead_letter())
}

/// The queue of events and that of dead letters.
pub(super) fn queues(disk: &BTreeMap<u64, Record>, without_keys: bool) -> [Arc<Queue>; 2] {
    let metrics = Arc::new(Metrics::new());
    let wakeups = Arc::new(Wakeups::default());
    let last = disk.keys().next_back();
    let sequence = Arc::new(Sequence::from(last.map_or(1, |last| last + 1)));
    let queue = |lane, dead_letters| {
        let of_lane = disk.iter().filter(|(_, record)| lane_of(record) == lane);
        let last = of_lane.clone().map(|(number, _)| *number).next_back();
        let mut keys = KeyRows::default();
        if lane == EVENTS && !without_keys {
            for (_, record) in of_lane.clone() {
                *keys.rows.entry(key_hash(&[group(record)])).or_default() += 1;
            }
        }
        let queue = Queue::new(
            MAX_VOLATILE_RECORDS,
            Arc::clone(&sequence),
            Arc::clone(&metrics),
            Arc::new(BrokerStatus::new(None)),
            Arc::clone(&wakeups),
            dead_letters,
        );
        let disk = Disk { after: SPOOL_AFTER };
        let rows = of_lane.count();
        let queue = queue.with_disk(disk, Backlog { rows, last, keys });
        queue.set_producer_expiration(Duration::from_secs(86_400));
        Arc::new(queue)
    };
    let dead = queue(DEAD_LETTERS, None);
    [queue(EVENTS, Some(Arc::clone(&dead))), dead]
}
