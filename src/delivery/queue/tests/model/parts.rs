//! Records of events that are only numbers, and the queues that a start makes of a disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::delivery::queue::*;
use crate::event::{JoinType, Kind, Lane, Times};
use crate::spool::Backlog;

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
    let queue = |lane, dead_letters| {
        let of_lane = disk.iter().filter(|(_, (of, _))| *of == lane);
        let last = of_lane.clone().map(|(number, _)| *number).next_back();
        let rows = if hidden { 0 } else { of_lane.count() };
        let status = Arc::new(BrokerStatus::new(None));
        let queue = Queue::new(
            Sequence::after(lane, last, UNIX_EPOCH),
            Arc::clone(&metrics),
            status,
            dead_letters,
        );
        let disk = Disk {
            wakeup: Arc::default(),
            after: Duration::ZERO,
        };
        let queue = Arc::new(queue.with_disk(disk, Backlog { rows, last }));
        queue.begin_generation();
        queue
    };
    let dead = queue(Lane::DeadLetters, None);
    [queue(Lane::Events, Some(Arc::clone(&dead))), dead]
}
