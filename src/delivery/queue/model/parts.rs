//! Records of events that are only numbers, and the queues that a start makes of a disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::delivery::queue::*;
use crate::delivery::spool::Lane;
use crate::event::{JoinType, Times};

pub(super) fn record(id: u64, group: u8) -> Record {
    Record {
        event_id: Uuid::from_u128(id.into()),
        key: Some(vec![group].into()),
        timestamp: 0,
        headers: Vec::new(),
        value: Bytes::from(id.to_string()),
        kind: Kind::GroupJoined {
            join_type: JoinType::Apply,
            users: 1,
        },
        times: Times {
            callback: 0,
            received: 0,
        },
    }
}

/// The event that a record, or the dead letter of one, is about.
pub(super) fn id(record: &Record) -> u64 {
    let text = std::str::from_utf8(&record.value).expect("we wrote it");
    text.parse().expect("we wrote it")
}

pub(super) fn queues(disk: &BTreeMap<u64, (Lane, Record)>, hidden: bool) -> [Arc<Queue>; 2] {
    let metrics = Arc::new(Metrics::new());
    let last = disk.keys().next_back().copied();
    let numbers = Arc::new(Numbers::after(last, UNIX_EPOCH));
    let queue = |lane, dead_letters| {
        let left = disk.values().filter(|(of, _)| *of == lane).count();
        let connection = Arc::new(Connection::new(None));
        let queue = Queue::new(
            Arc::clone(&numbers),
            Arc::clone(&metrics),
            connection,
            dead_letters,
        );
        let disk = Disk {
            doorbell: Arc::default(),
            after: Duration::ZERO,
        };
        let queue = Arc::new(queue.with_disk(disk, if hidden { 0 } else { left }, last));
        queue.start_over();
        queue
    };
    let dead = queue(Lane::DeadLetters, None);
    [queue(Lane::Events, Some(Arc::clone(&dead))), dead]
}
