//! The rules of the queue as plain state: what may be handed over, what must go to disk, and what
//! follows once a record is settled.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::keys::{Keys, Next};
use super::partitions::Partitions;
use super::waiting::Obstacles;
use super::{ProducerId, Via};
use crate::delivery::ticket::Ticket;
use crate::event::Record;
use crate::spool::Backlog;

/// The memory that a record takes besides its own bytes: its entry, its ticket, its headers'
/// handles.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 1024;

/// The state of a lane.
#[derive(Debug)]
pub(super) struct QueueState {
    /// Whether records of a key have an order.
    pub(super) is_ordered: bool,
    /// Records in memory that are not durable, by number.
    pub(super) fresh: BTreeMap<u64, Entry>,
    /// Of these, the ones that are to be written to disk at once: they wait for rows of their key.
    pub(super) urgent: BTreeSet<u64>,
    /// Records on disk that are in memory too, by number.
    pub(super) spooled: BTreeMap<u64, Entry>,
    pub(super) keys: Keys,
    pub(super) partitions: Partitions,

    /// Rows on disk that are not in memory, of keys that are not tracked. Without an order, no key is.
    pub(super) untracked_on_disk: usize,
    /// The highest number on disk.
    pub(super) last_row: u64,
    /// How often rows were written. A read that began before may not have seen them.
    pub(super) writes: u64,
    /// Records that the spooler may be writing. They are on disk before the queue knows it.
    pub(super) writing: HashSet<u64>,
    /// Rows that were deleted or marked as refused while a read was under way, which may still see
    /// them.
    pub(super) deleted_meanwhile: HashSet<u64>,
    pub(super) is_reading: bool,
    /// Rows on disk that are settled and can be deleted.
    pub(super) deletable: BTreeSet<u64>,
    /// When the first of them became deletable, or some were last deleted.
    pub(super) last_deletion: Instant,
    /// Rows on disk whose dead letter is on its way.
    pub(super) replaced: HashSet<u64>,
    /// Rows on disk that Kafka rejects and that are still to be marked so.
    pub(super) unmarked_refused: BTreeSet<u64>,

    /// Why records may wait.
    pub(super) obstacles: Obstacles,

    /// Kafka remembers a producer whose last record has this timestamp or a later one.
    pub(super) remembered_from: i64,
    /// How long Kafka remembers a producer. Zero until that is known.
    pub(super) producer_expiration: Duration,

    /// Bytes of the records that are not durable, overhead included.
    pub(super) bytes: usize,
    /// The service is shutting down: nothing more is read from disk.
    pub(super) finishing: bool,
}

/// A record in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    /// The hash of its key.
    pub(super) hash: u32,
    /// `None` once durable.
    pub(super) ticket: Option<Arc<Ticket>>,
    pub(super) accepted: Instant,
    pub(super) stage: Stage,
    pub(super) via: Via,
    /// Kafka rejects it permanently and no other topic is left. It waits to be written to disk.
    pub(super) refused: bool,
    /// The row of the event whose dead letter this is.
    pub(super) replaces: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for others of its key, or to be written to disk.
    Held,
    /// May be handed over.
    Waiting,
    Sent {
        to: ProducerId,
        at: Instant,
    },
}

/// A record that has been settled and has left the queue.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) number: u64,
    pub(super) record: Arc<Record>,
    pub(super) ticket: Option<Arc<Ticket>>,
    /// When it was handed to a producer.
    pub(super) handed_over: Option<Instant>,
    pub(super) on_disk: bool,
}

impl Entry {
    pub(super) fn new(record: Arc<Record>, hash: u32, via: Via) -> Self {
        Self {
            record,
            hash,
            ticket: None,
            accepted: Instant::now(),
            stage: Stage::Held,
            via,
            refused: false,
            replaces: None,
        }
    }

    pub(super) fn is_with(&self, producer: ProducerId) -> bool {
        matches!(self.stage, Stage::Sent { to, .. } if to == producer)
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. })
    }

    /// Whether Kafka remembers a producer whose last record is this one. `from` is the oldest timestamp
    /// for which it does.
    pub(super) fn is_remembered(&self, from: i64) -> bool {
        self.record.timestamp >= from
    }

    pub(super) fn cost(&self) -> usize {
        self.record.size() + RECORD_OVERHEAD_BYTES
    }
}

impl QueueState {
    /// A queue with these records on disk.
    pub(super) fn new(is_ordered: bool, backlog: Backlog) -> Self {
        let Backlog { rows, last, keys } = backlog;
        let mut state = Self {
            is_ordered,
            fresh: BTreeMap::new(),
            urgent: BTreeSet::new(),
            spooled: BTreeMap::new(),
            untracked_on_disk: match is_ordered {
                true => keys.untracked,
                false => rows,
            },
            keys: Keys::new(keys),
            partitions: Partitions::new(1),
            last_row: last.unwrap_or(0),
            writes: 0,
            writing: HashSet::new(),
            deleted_meanwhile: HashSet::new(),
            is_reading: false,
            deletable: BTreeSet::new(),
            last_deletion: Instant::now(),
            replaced: HashSet::new(),
            unmarked_refused: BTreeSet::new(),
            obstacles: Obstacles::default(),
            remembered_from: if cfg!(test) { i64::MIN } else { i64::MAX },
            producer_expiration: Duration::ZERO,
            bytes: 0,
            finishing: false,
        };
        state.partitions.at(0).on_disk = rows - state.untracked_on_disk;
        state
    }

    /// Adds a record. Returns whether it waits for rows of its key.
    pub(super) fn add(
        &mut self,
        number: u64,
        record: Arc<Record>,
        ticket: Arc<Ticket>,
        replaces: Option<u64>,
    ) -> bool {
        let hash = key_hash(number, record.key.as_deref());
        let is_guarded = self.is_ordered && self.keys.is_guarded(hash);
        let mut entry = Entry::new(record, hash, self.via(hash));
        entry.ticket = Some(ticket);
        entry.replaces = replaces;
        self.bytes += entry.cost();
        if is_guarded {
            self.keys.hold(hash, number);
            self.urgent.insert(number);
        } else {
            entry.stage = Stage::Waiting;
            let at = self.partitions.of(hash);
            self.partitions.push(at, entry.via, number);
        }
        self.fresh.insert(number, entry);
        is_guarded
    }

    /// The producer of a record that is not on disk.
    pub(super) fn via(&self, hash: u32) -> Via {
        if self.is_ordered {
            Via::Shard(hash)
        } else {
            Via::Side
        }
    }

    /// Takes a record out of the queue; `None` if an earlier report has done so.
    pub(super) fn settle(&mut self, number: u64) -> Option<Removed> {
        let (entry, on_disk) = match self.fresh.remove(&number) {
            Some(entry) => (entry, false),
            None => (self.spooled.remove(&number)?, true),
        };
        let handed_over = self.leave_flight(&entry);
        if handed_over.is_some() {
            let at = self.partitions.of(entry.hash);
            self.partitions.at(at).resume();
        }
        if on_disk {
            self.leave_disk(number, &entry, handed_over.is_some());
        } else {
            self.bytes -= entry.cost();
            if self.urgent.remove(&number) {
                self.keys.unhold(entry.hash, number);
            }
            if let Some(replaced) = entry.replaces {
                self.mark_deletable(replaced);
            }
        }
        Some(Removed {
            number,
            record: entry.record,
            ticket: entry.ticket,
            handed_over,
            on_disk,
        })
    }

    fn leave_disk(&mut self, number: u64, entry: &Entry, was_sent: bool) {
        if !was_sent {
            let at = self.partitions.of(entry.hash);
            self.partitions.unloaded(at, entry.record.size());
        }
        if !self.is_ordered {
            return;
        }
        let was_under_way = entry.stage != Stage::Held;
        let is_last_untracked = self.keys.settle(entry.hash, number, was_under_way);
        self.advance(entry.hash);
        if is_last_untracked {
            for hash in self.keys.held_keys() {
                self.advance(hash);
            }
        }
    }

    pub(super) fn mark_deletable(&mut self, number: u64) {
        if self.deletable.is_empty() {
            self.last_deletion = Instant::now();
        }
        self.deletable.insert(number);
    }

    /// Counts that a producer does not have this record any more. Returns since when it had.
    pub(super) fn leave_flight(&mut self, entry: &Entry) -> Option<Instant> {
        let Stage::Sent { to, at: since } = entry.stage else {
            return None;
        };
        let at = self.partitions.of(entry.hash);
        self.partitions.left_flight(at, to, entry.record.size());
        if entry.via == Via::Suspect {
            self.partitions.suspect_left_flight(at);
        }
        Some(since)
    }

    /// Determines what Kafka remembers at this time. It forgets a producer when the timestamp of its
    /// last record has reached an age. Half of that is left for clocks that differ, and for the time
    /// that a record waits in librdkafka.
    pub(super) fn note_time(&mut self, now: SystemTime) {
        if !self.producer_expiration.is_zero() {
            let from = now.checked_sub(self.producer_expiration / 2);
            let from = from.and_then(|from| from.duration_since(UNIX_EPOCH).ok());
            let from = from.unwrap_or_default().as_millis();
            self.remembered_from = i64::try_from(from).unwrap_or(i64::MAX);
        }
    }

    /// Lets go what need not wait any more of this key.
    pub(super) fn advance(&mut self, hash: u32) {
        let at = self.partitions.of(hash);
        let is_remembered = |row| {
            let entry = self.spooled.get(&row);
            entry.is_some_and(|entry| entry.is_remembered(self.remembered_from))
        };
        match self.keys.next(hash, is_remembered) {
            Next::Nothing => {}
            Next::Row(number) => self.release_row(at, number, Via::Backlog),
            Next::Run(numbers) => {
                for number in numbers {
                    self.release_row(at, number, Via::Run);
                }
            }
            Next::Held(numbers) => {
                for number in numbers {
                    self.urgent.remove(&number);
                    if let Some(entry) = self.fresh.get_mut(&number) {
                        entry.stage = Stage::Waiting;
                        self.partitions.push(at, entry.via, number);
                    }
                }
            }
        }
    }

    pub(super) fn release_row(&mut self, at: usize, number: u64, via: Via) {
        if let Some(entry) = self.spooled.get_mut(&number) {
            entry.stage = Stage::Waiting;
            entry.via = via;
            self.partitions.push(at, via, number);
        }
    }

    /// Whether this producer has the record.
    pub(super) fn is_with(&self, producer: ProducerId, number: u64) -> bool {
        let entry = self
            .fresh
            .get(&number)
            .or_else(|| self.spooled.get(&number));
        entry.is_some_and(|entry| entry.is_with(producer))
    }

    /// How many records the producers have.
    pub(super) fn in_flight(&self) -> usize {
        self.partitions.in_flight()
    }

    /// When the oldest record that is not durable was accepted.
    pub(super) fn oldest_volatile(&self) -> Option<Instant> {
        self.fresh.values().next().map(|entry| entry.accepted)
    }
}

/// The hash that decides a record's partition. A record without a key may go to any.
pub(super) fn key_hash(number: u64, key: Option<&[u8]>) -> u32 {
    key.map_or(number as u32 & 0x7fff_ffff, crate::event::key_hash)
}
