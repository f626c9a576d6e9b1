//! The guard of the order per key.
//!
//! With several requests under way, a later record may reach Kafka before an earlier one. That is
//! only wrong if the earlier one was answered before the later one came. A record that Kafka has
//! not acknowledged was answered only if it is on disk. So a record waits while an earlier one of
//! its key is on disk and not settled, and of the records on disk one goes after the other.
//!
//! Keys are known by their hash alone. Two keys with one hash are in one partition, and wait for
//! each other.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::spool::{KeyRows, MAX_TRACKED_KEYS};

/// From this number of rows on, a key's rows go to the strict producer together. Fewer go to the
/// relaxed one, one after the other, together with those of other keys.
const RUN_ROWS_MIN: usize = if cfg!(test) { 3 } else { 16 };

/// The keys of a lane that have rows on disk.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// How many rows of a key are on disk and not settled.
    rows: HashMap<u32, u32>,
    /// Such rows of keys that there is no space for in `rows`. While there are any, every record
    /// waits.
    untracked: usize,
    active: HashMap<u32, Active>,
    #[cfg(test)]
    pub(super) broken: Option<BrokenGuard>,
}

/// A guard that the model check must find to be broken.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) enum BrokenGuard {
    None,
    AnotherKey,
    WithoutTheDisk,
    WithoutOtherProducers,
    GoOnWithARun,
    WholeRunAtOnce,
}

/// A key that has rows in memory, or records that wait for its rows.
#[derive(Debug, Default)]
struct Active {
    /// Rows that are being handed over or with a producer.
    under_way: usize,
    /// Rows that follow them, in order.
    loaded: VecDeque<u64>,
    /// Records that are in memory only and follow all rows, in order.
    held: VecDeque<u64>,
}

/// What may be handed over now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// One row.
    Row(u64),
    /// These rows, in this order, by the strict producer.
    Run(Vec<u64>),
    /// Records that were held.
    Held(VecDeque<u64>),
}

impl Keys {
    /// With the rows that earlier runs have left on disk.
    pub(super) fn new(on_disk: KeyRows) -> Self {
        Self {
            rows: on_disk.rows,
            untracked: on_disk.untracked,
            active: HashMap::new(),
            #[cfg(test)]
            broken: None,
        }
    }

    /// Whether a record of this key that comes now must wait.
    pub(super) fn is_guarded(&self, hash: u32) -> bool {
        #[cfg(test)]
        if let Some(broken) = self.broken {
            let under_way = self.active.get(&hash).map_or(0, |active| active.under_way);
            let rows = self.rows.get(&hash).map_or(0, |rows| *rows as usize);
            return match broken {
                BrokenGuard::None => false,
                BrokenGuard::AnotherKey => self.has_rows(hash ^ 1),
                BrokenGuard::WithoutTheDisk => under_way > 0,
                BrokenGuard::WithoutOtherProducers => rows > under_way,
                BrokenGuard::GoOnWithARun | BrokenGuard::WholeRunAtOnce => self.has_rows(hash),
            };
        }
        self.has_rows(hash)
    }

    fn has_rows(&self, hash: u32) -> bool {
        self.untracked > 0 || !self.rows.is_empty() && self.rows.contains_key(&hash)
    }

    pub(super) fn is_tracked(&self, hash: u32) -> bool {
        self.rows.contains_key(&hash)
    }

    /// The tracked keys and their rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rows.iter().map(|(hash, rows)| (*hash, *rows))
    }

    /// A record waits until all rows of its key are settled.
    pub(super) fn hold(&mut self, hash: u32, number: u64) {
        self.active.entry(hash).or_default().held.push_back(number);
    }

    /// A record has become a row on disk. It may be with a producer.
    pub(super) fn add_row(&mut self, hash: u32, is_under_way: bool) {
        if let Some(rows) = self.rows.get_mut(&hash) {
            *rows += 1;
        } else if self.untracked == 0 && self.rows.len() < MAX_TRACKED_KEYS {
            self.rows.insert(hash, 1);
        } else {
            self.untracked += 1;
        }
        if is_under_way {
            self.active.entry(hash).or_default().under_way += 1;
        }
    }

    /// A row was read from disk, or comes back from a producer.
    pub(super) fn load(&mut self, hash: u32, number: u64) {
        let loaded = &mut self.active.entry(hash).or_default().loaded;
        let at = loaded.partition_point(|before| *before < number);
        loaded.insert(at, number);
    }

    /// A row that was under way comes back from a producer.
    pub(super) fn take_back(&mut self, hash: u32, number: u64) {
        if let Some(active) = self.active.get_mut(&hash) {
            active.under_way -= 1;
        }
        self.load(hash, number);
    }

    /// A row is settled. Returns whether it was the last one that every record waited for.
    pub(super) fn settle(&mut self, hash: u32, number: u64, was_under_way: bool) -> bool {
        let had_untracked = self.untracked > 0;
        match self.rows.get_mut(&hash) {
            Some(1) => {
                self.rows.remove(&hash);
            }
            Some(rows) => *rows -= 1,
            None => self.untracked -= 1,
        }
        if let Some(active) = self.active.get_mut(&hash) {
            if was_under_way {
                active.under_way -= 1;
            } else {
                active.loaded.retain(|loaded| *loaded != number);
            }
        }
        had_untracked && self.untracked == 0
    }

    /// Takes the rows or records of this key that may be handed over next, and counts them as under
    /// way. `may_run` decides whether a row may be part of a run.
    pub(super) fn next(&mut self, hash: u32, may_run: impl Fn(u64) -> bool) -> Next {
        let is_free = !self.has_rows(hash);
        let Some(active) = self.active.get_mut(&hash) else {
            return Next::Nothing;
        };
        let run = || {
            active
                .loaded
                .iter()
                .take_while(|row| may_run(**row))
                .count()
        };
        let next = if active.under_way > 0 {
            Next::Nothing
        } else if let rows @ RUN_ROWS_MIN.. = run() {
            active.under_way = rows;
            Next::Run(active.loaded.drain(..rows).collect())
        } else if let Some(number) = active.loaded.pop_front() {
            active.under_way = 1;
            Next::Row(number)
        } else if is_free {
            Next::Held(std::mem::take(&mut active.held))
        } else {
            Next::Nothing
        };
        if active.under_way == 0 && active.loaded.is_empty() && active.held.is_empty() {
            self.active.remove(&hash);
        }
        next
    }

    /// Removes a record from those that wait: it is on disk now.
    pub(super) fn unhold(&mut self, hash: u32, number: u64) {
        if let Some(active) = self.active.get_mut(&hash) {
            if active.held.front() == Some(&number) {
                active.held.pop_front();
            } else {
                active.held.retain(|held| *held != number);
            }
            if active.under_way == 0 && active.loaded.is_empty() && active.held.is_empty() {
                self.active.remove(&hash);
            }
        }
    }

    /// The keys of which records wait.
    pub(super) fn held_keys(&self) -> Vec<u32> {
        let held = self.active.iter().filter(|(_, key)| !key.held.is_empty());
        held.map(|(hash, _)| *hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_one_after_the_other_and_held_records_after_all_of_them() {
        let mut keys = Keys::default();
        assert!(!keys.is_guarded(7));
        keys.add_row(7, true);
        assert!(keys.is_guarded(7) && !keys.is_guarded(8));
        keys.hold(7, 3);
        keys.add_row(7, false);
        assert_eq!(keys.next(7, |_| true), Next::Nothing);
        keys.settle(7, 1, true);
        assert_eq!(
            keys.next(7, |_| true),
            Next::Nothing,
            "a row is still on disk only"
        );
        keys.load(7, 2);
        assert_eq!(keys.next(7, |_| true), Next::Row(2));
        assert_eq!(keys.next(7, |_| true), Next::Nothing);
        keys.take_back(7, 2);
        assert_eq!(keys.next(7, |_| true), Next::Row(2));
        keys.settle(7, 2, true);
        assert!(!keys.is_guarded(7));
        assert_eq!(keys.next(7, |_| true), Next::Held([3].into()));
        assert!(keys.active.is_empty() && keys.rows.is_empty());
    }

    #[test]
    fn many_rows_of_a_key_are_a_run_in_order() {
        let mut keys = Keys::default();
        let numbers = || 0..RUN_ROWS_MIN as u64;
        for number in numbers().rev() {
            keys.add_row(7, false);
            keys.load(7, number);
        }
        assert_eq!(keys.next(7, |_| true), Next::Run(numbers().collect()));
        numbers().for_each(|number| {
            keys.settle(7, number, true);
        });
        assert!(!keys.is_guarded(7));
    }

    #[test]
    fn a_run_ends_before_the_first_row_that_may_not_be_part_of_one() {
        let mut keys = Keys::default();
        let rows = RUN_ROWS_MIN as u64;
        for number in 0..rows + 2 {
            keys.add_row(7, false);
            keys.load(7, number);
        }
        assert_eq!(keys.next(7, |number| number > 0), Next::Row(0));
        keys.settle(7, 0, true);
        let run = (1..=rows).collect();
        assert_eq!(keys.next(7, |number| number <= rows), Next::Run(run));
    }

    #[test]
    fn with_too_many_keys_every_record_waits_until_the_rest_is_settled() {
        let on_disk = KeyRows {
            rows: [(1, 1)].into_iter().collect(),
            untracked: 2,
        };
        let mut keys = Keys::new(on_disk);
        assert!(keys.is_guarded(5));
        keys.hold(5, 9);
        keys.add_row(6, false);
        keys.settle(2, 3, false);
        keys.settle(6, 4, false);
        assert_eq!(keys.next(5, |_| true), Next::Nothing);
        keys.settle(3, 5, false);
        assert_eq!(keys.held_keys(), [5]);
        assert_eq!(keys.next(5, |_| true), Next::Held([9].into()));
        assert!(keys.is_guarded(1) && !keys.is_guarded(6));
    }
}
