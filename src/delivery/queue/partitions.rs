//! The partitions of a lane's topic: what waits for each, what the producers hold of it, and how
//! far its rows on disk have been read.
//!
//! A partition that Kafka does not take records for, because it has no leader, say, fills its share
//! of the producers and of the memory for rows from disk, and no more. The share is half of what
//! nobody uses: a single busy partition gets most of it, and many stuck ones leave enough for the
//! rest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Pacing, ProducerId, Via};
use crate::kafka::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_RECORDS};

/// The rows of a lane that are read from disk before they can be handed to a producer.
pub const MAX_LOADED_RECORDS: usize = 5_000;
/// The bytes after which no further row is read.
pub const MAX_LOADED_BYTES: usize = 8 * 1024 * 1024;

/// A partition may always have this many records with the producers and as many from disk.
const SHARE_MIN: usize = if cfg!(test) { 2 } else { 16 };

/// The pause of a partition after a record of it has failed, doubled with each further failure
/// until Kafka acknowledges a record. Until then one record is tried at a time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Records and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) records: usize,
    bytes: usize,
}

const IN_FLIGHT_MAX: Load = Load {
    records: MAX_IN_FLIGHT_RECORDS,
    bytes: MAX_IN_FLIGHT_BYTES,
};
/// Small in tests, so that the model check fills it.
const LOADED_MAX: Load = Load {
    records: if cfg!(test) { 12 } else { MAX_LOADED_RECORDS },
    bytes: MAX_LOADED_BYTES,
};

impl Load {
    fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.records -= 1;
        self.bytes -= bytes;
    }

    /// How many more records a partition with this load may have.
    fn room(self, total: Self, max: Self) -> usize {
        let free = (max.records.saturating_sub(total.records) / 2).max(SHARE_MIN);
        let free_bytes = max.bytes.saturating_sub(total.bytes) / 2;
        if self.records > 0 && self.bytes >= free_bytes {
            return 0;
        }
        free.saturating_sub(self.records)
    }
}

/// All partitions of a topic. Until their number is known, one stands for all.
#[derive(Debug)]
pub(super) struct Partitions {
    all: Vec<Partition>,
    /// Those that have something to hand over and are not blocked.
    ready: VecDeque<usize>,
    /// Those that have something to hand over, but pause or have used up their share.
    blocked: Vec<usize>,
    in_flight: Load,
    loaded: Load,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Partition {
    /// Records to be handed over.
    waiting: [VecDeque<u64>; 3],
    /// Whether the next one comes from the fresh ones, if there are any.
    pub(super) is_turn_of_fresh: bool,
    pub(super) suspect_in_flight: bool,
    in_flight: Load,
    /// The producers that have those in flight.
    holders: Vec<Holder>,
    loaded: Load,
    pause: Option<Pause>,
    /// Whether it is in `ready` or `blocked`.
    is_listed: bool,
    /// Rows that are on disk only.
    pub(super) on_disk: usize,
    /// All rows up to this number have been read.
    pub(super) read_to: u64,
    /// The lowest number that was put on disk only since the last plan of a read.
    pub(super) dropped: Option<u64>,
}

/// A producer that has records of a partition.
#[derive(Debug, Clone, Copy)]
struct Holder {
    producer: ProducerId,
    records: usize,
    /// When it got the last one.
    last: Instant,
}

/// Which of the waiting records of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Those that are to be handed over alone, one after the other.
    Suspects,
    /// Those from disk, through the producers for them.
    Rows,
    /// All others.
    Fresh,
}

impl Source {
    pub(super) fn of(via: Via) -> Self {
        match via {
            Via::Suspect => Self::Suspects,
            Via::Backlog | Via::Run => Self::Rows,
            Via::Shard(_) | Via::Side => Self::Fresh,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Partition {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.records
    }

    /// The producers that get nothing more of it for now.
    pub(super) fn full_producers(&self, pacing: Pacing, now: Instant) -> Vec<ProducerId> {
        let is_full = |holder: &&Holder| {
            let since = now.saturating_duration_since(holder.last);
            since < pacing.interval || holder.records >= pacing.depth && since < pacing.lapse
        };
        let full = self.holders.iter().filter(is_full);
        full.map(|holder| holder.producer).collect()
    }

    /// All rows up to this number have been read and are still in memory or settled.
    pub(super) fn effective_read_to(&self) -> u64 {
        let dropped = self.dropped.map(|number| number.saturating_sub(1));
        dropped.map_or(self.read_to, |dropped| dropped.min(self.read_to))
    }

    /// The records that wait in one of the sources, in order.
    pub(super) fn waiting(&mut self, source: Source) -> &mut VecDeque<u64> {
        let [suspects, rows, fresh] = &mut self.waiting;
        match source {
            Source::Suspects => suspects,
            Source::Rows => rows,
            Source::Fresh => fresh,
        }
    }

    /// Whether a record is to be handed over alone, or is being tried so.
    pub(super) fn has_suspects(&self) -> bool {
        let [suspects, ..] = &self.waiting;
        !suspects.is_empty() || self.suspect_in_flight
    }

    fn has_work(&self) -> bool {
        let [suspects, rows, fresh] = &self.waiting;
        !fresh.is_empty() || !rows.is_empty() || !suspects.is_empty() && !self.suspect_in_flight
    }

    /// Whether a record may be handed over. After a pause it may be one.
    fn may_send(&self, total: Load, now: Instant) -> bool {
        let allowed = match self.pause {
            // Records handed over before the pause may be with a producer that is stuck.
            Some(pause) => {
                let mut holders = self.holders.iter();
                now >= pause.until && holders.all(|holder| holder.last < pause.until - pause.length)
            }
            None => true,
        };
        allowed && self.in_flight.room(total, IN_FLIGHT_MAX) > 0
    }
}

impl Partitions {
    pub(super) fn new(count: usize) -> Self {
        Self {
            all: vec![Partition::default(); count.max(1)],
            ready: VecDeque::new(),
            blocked: Vec::new(),
            in_flight: Load::default(),
            loaded: Load::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The partition of a key, as Kafka's clients compute it.
    pub(super) fn of(&self, hash: u32) -> usize {
        hash as usize % self.all.len()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`of` returns indices of this list, which never shrinks"
    )]
    pub(super) fn at(&mut self, at: usize) -> &mut Partition {
        &mut self.all[at]
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.all.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.all.iter()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.records
    }

    /// Adds a record to be handed over.
    pub(super) fn push(&mut self, at: usize, via: Via, number: u64) {
        self.at(at).waiting(Source::of(via)).push_back(number);
        self.list(at);
    }

    /// Adds a record to be handed over before the others of its source.
    pub(super) fn push_front(&mut self, at: usize, via: Via, number: u64) {
        self.at(at).waiting(Source::of(via)).push_front(number);
        self.list(at);
    }

    /// A record that was waiting is on disk only.
    pub(super) fn drop_to_disk(&mut self, at: usize, number: u64) {
        let partition = self.at(at);
        let lowest = partition
            .dropped
            .map_or(number, |dropped| dropped.min(number));
        partition.dropped = Some(lowest);
        for queue in &mut partition.waiting {
            if queue.front() == Some(&number) {
                queue.pop_front();
            }
        }
    }

    fn list(&mut self, at: usize) {
        let partition = self.at(at);
        if partition.has_work() && !partition.is_listed {
            partition.is_listed = true;
            self.ready.push_back(at);
        }
    }

    /// Makes those ready again that are not blocked any more. Returns how many are ready.
    pub(super) fn unblock(&mut self, now: Instant) -> usize {
        let total = self.in_flight;
        for at in std::mem::take(&mut self.blocked) {
            if self.at(at).may_send(total, now) {
                self.ready.push_back(at);
            } else {
                self.blocked.push(at);
            }
        }
        self.ready.len()
    }

    /// Takes the next partition that is ready. It is to be [returned](Self::put_back).
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.ready.pop_front()
    }

    pub(super) fn may_send(&mut self, at: usize, now: Instant) -> bool {
        let total = self.in_flight;
        self.at(at).may_send(total, now)
    }

    pub(super) fn put_back(&mut self, at: usize, now: Instant) {
        let total = self.in_flight;
        let partition = self.at(at);
        if !partition.has_work() {
            partition.is_listed = false;
        } else if partition.may_send(total, now) {
            self.ready.push_back(at);
        } else {
            self.blocked.push(at);
        }
    }

    pub(super) fn entered_flight(&mut self, at: usize, to: ProducerId, bytes: usize, now: Instant) {
        let partition = self.at(at);
        partition.in_flight.add(bytes);
        let mut holders = partition.holders.iter_mut();
        match holders.find(|holder| holder.producer == to) {
            Some(holder) => {
                holder.records += 1;
                holder.last = now;
            }
            None => partition.holders.push(Holder {
                producer: to,
                records: 1,
                last: now,
            }),
        }
        self.in_flight.add(bytes);
    }

    pub(super) fn left_flight(&mut self, at: usize, from: ProducerId, bytes: usize) {
        let partition = self.at(at);
        partition.in_flight.remove(bytes);
        partition.holders.retain_mut(|holder| {
            holder.records -= usize::from(holder.producer == from);
            holder.records > 0
        });
        self.in_flight.remove(bytes);
    }

    pub(super) fn suspect_left_flight(&mut self, at: usize) {
        self.at(at).suspect_in_flight = false;
        self.list(at);
    }

    /// Pauses a partition of which a record has failed.
    pub(super) fn pause(&mut self, at: usize, now: Instant) {
        let partition = self.at(at);
        let length = match partition.pause {
            Some(pause) if now < pause.until => return,
            Some(pause) => (pause.length * 2).min(PAUSE_MAX),
            None => PAUSE_MIN,
        };
        let until = now + length;
        partition.pause = Some(Pause { until, length });
    }

    /// Ends the pauses of a partition, because Kafka has acknowledged a record of it.
    pub(super) fn resume(&mut self, at: usize) {
        self.at(at).pause = None;
    }

    pub(super) fn loaded(&mut self, at: usize, bytes: usize) {
        self.at(at).loaded.add(bytes);
        self.loaded.add(bytes);
    }

    pub(super) fn unloaded(&mut self, at: usize, bytes: usize) {
        self.at(at).loaded.remove(bytes);
        self.loaded.remove(bytes);
    }

    /// How many more rows may be read from disk for this partition.
    pub(super) fn room_to_load(&self, partition: &Partition) -> usize {
        partition.loaded.room(self.loaded, LOADED_MAX)
    }

    /// Whether so few rows of this partition are in memory that more should be read.
    pub(super) fn runs_low(&self, partition: &Partition) -> bool {
        self.room_to_load(partition) > partition.loaded.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_partition_gets_a_third_and_many_stuck_ones_leave_room() {
        let fill = |stuck: usize| {
            let now = Instant::now();
            let mut partitions = Partitions::new(192);
            loop {
                let before = partitions.in_flight();
                for at in 0..stuck {
                    if partitions.may_send(at, now) {
                        partitions.entered_flight(at, 1, 100, now);
                    }
                }
                if partitions.in_flight() == before {
                    return partitions;
                }
            }
        };
        assert_eq!(fill(1).in_flight(), MAX_IN_FLIGHT_RECORDS / 3);
        let now = Instant::now();
        let mut partitions = fill(64);
        let mut healthy = 0;
        while partitions.may_send(191, now) {
            partitions.entered_flight(191, 1, 100, now);
            healthy += 1;
        }
        assert!(healthy > 100, "{healthy}");
        assert!(fill(191).may_send(191, Instant::now()));
    }

    #[test]
    fn bytes_count_too_but_one_record_always_fits() {
        let now = Instant::now();
        let mut partitions = Partitions::new(2);
        while partitions.may_send(0, now) {
            partitions.entered_flight(0, 1, 1_000_000, now);
        }
        assert!(partitions.in_flight() <= MAX_IN_FLIGHT_BYTES / 1_000_000 / 2);
        partitions.entered_flight(1, 1, MAX_IN_FLIGHT_BYTES, now);
        assert!(!partitions.may_send(0, now));
        let records = partitions.at(0).in_flight.records;
        for _ in 0..records {
            partitions.left_flight(0, 1, 1_000_000);
        }
        assert!(partitions.may_send(0, now));
    }

    #[test]
    fn a_failed_partition_pauses_longer_each_time_and_then_tries_one_record() {
        let now = Instant::now();
        let mut partitions = Partitions::new(1);
        partitions.pause(0, now);
        partitions.pause(0, now);
        assert!(!partitions.may_send(0, now + PAUSE_MIN - Duration::from_millis(1)));
        assert!(partitions.may_send(0, now + PAUSE_MIN));
        partitions.entered_flight(0, 1, 1, now);
        assert!(!partitions.may_send(0, now + PAUSE_MIN));
        partitions.left_flight(0, 1, 1);
        partitions.pause(0, now + PAUSE_MIN);
        assert!(!partitions.may_send(0, now + 2 * PAUSE_MIN));
        assert!(partitions.may_send(0, now + 3 * PAUSE_MIN));
        partitions.resume(0);
        assert!(partitions.may_send(0, now));
        // Records that a stuck producer had before the pause do not count.
        partitions.entered_flight(0, 1, 1, now);
        let later = now + Duration::from_secs(1);
        partitions.pause(0, later);
        assert!(!partitions.may_send(0, later));
        assert!(partitions.may_send(0, later + PAUSE_MIN));
    }
}
