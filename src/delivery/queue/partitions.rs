//! The partitions of a lane's topic: which may hand over records, and how many rows of each may be
//! in memory.
//!
//! A partition that Kafka does not take records for, because it has no leader, say, fills its share
//! of the producers and of the memory for rows from disk, and no more. The share is half of what
//! nobody uses: a single busy partition gets most of it, and many stuck ones leave enough for the
//! rest.

use std::collections::VecDeque;
use std::time::Instant;

use super::partition::{Load, Partition, Source};
use super::{ProducerId, Via};

/// The rows of a lane that are read from disk before they can be handed to a producer.
pub const MAX_LOADED_RECORDS: usize = 5_000;
/// The bytes after which no further row is read.
pub const MAX_LOADED_BYTES: usize = 8 * 1024 * 1024;

/// Small in tests, so that the model check fills it.
const LOADED_MAX: Load = Load {
    records: if cfg!(test) { 12 } else { MAX_LOADED_RECORDS },
    bytes: MAX_LOADED_BYTES,
};

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
        self.at(at).enter_flight(to, bytes, now);
        self.in_flight.add(bytes);
    }

    pub(super) fn left_flight(&mut self, at: usize, from: ProducerId, bytes: usize) {
        self.at(at).leave_flight(from, bytes);
        self.in_flight.remove(bytes);
    }

    pub(super) fn suspect_left_flight(&mut self, at: usize) {
        self.at(at).suspect_in_flight = false;
        self.list(at);
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
    use std::time::Duration;

    use super::super::partition::PAUSE_MIN;
    use super::*;
    use crate::kafka::{MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_RECORDS};

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
        let records = partitions.at(0).in_flight();
        for _ in 0..records {
            partitions.left_flight(0, 1, 1_000_000);
        }
        assert!(partitions.may_send(0, now));
    }

    #[test]
    fn a_failed_partition_pauses_longer_each_time_and_then_tries_one_record() {
        let now = Instant::now();
        let mut partitions = Partitions::new(1);
        partitions.at(0).pause(now);
        partitions.at(0).pause(now);
        assert!(!partitions.may_send(0, now + PAUSE_MIN - Duration::from_millis(1)));
        assert!(partitions.may_send(0, now + PAUSE_MIN));
        partitions.entered_flight(0, 1, 1, now);
        assert!(!partitions.may_send(0, now + PAUSE_MIN));
        partitions.left_flight(0, 1, 1);
        partitions.at(0).pause(now + PAUSE_MIN);
        assert!(!partitions.may_send(0, now + 2 * PAUSE_MIN));
        assert!(partitions.may_send(0, now + 3 * PAUSE_MIN));
        partitions.at(0).resume();
        assert!(partitions.may_send(0, now));
        // Records that a stuck producer had before the pause do not count.
        partitions.entered_flight(0, 1, 1, now);
        let later = now + Duration::from_secs(1);
        partitions.at(0).pause(later);
        assert!(!partitions.may_send(0, later));
        assert!(partitions.may_send(0, later + PAUSE_MIN));
    }
}
