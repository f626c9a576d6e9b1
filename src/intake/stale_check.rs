//! Detects that every callback is stale: a clock is wrong, and no subscriber gets an event.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The stale callbacks in a row that cause a warning. A single one may be a test or a replay.
const STALE_MIN: u64 = 3;

/// The pause before the warning is repeated, in ms.
const REPEAT_MS: i64 = 60_000;

/// The ages of which the typical one is found: those of the last callbacks.
const AGES: usize = 15;

/// Counts stale callbacks since the last one that was not.
#[derive(Debug, Default)]
pub(super) struct StaleCheck {
    /// Whether anything is counted. Keeps the lock off the path of other callbacks.
    is_counting: AtomicBool,
    row: Mutex<Row>,
}

#[derive(Debug, Default)]
struct Row {
    count: u64,
    began: i64,
    /// The last ages, in ms, in the order in which they are overwritten.
    ages: [i64; AGES],
    warned: Option<i64>,
}

/// Every callback is stale.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AllStale {
    /// How many there are in a row.
    pub(super) count: u64,
    /// The time since the first of them, in ms.
    pub(super) since: i64,
    /// A typical age, in ms: negative if the timestamps are in the future.
    pub(super) age: i64,
}

impl StaleCheck {
    /// A callback was not stale.
    pub(super) fn record_fresh(&self) {
        if self.is_counting.load(Ordering::Relaxed) {
            let mut row = self.row.lock();
            row.count = 0;
            self.is_counting.store(false, Ordering::Relaxed);
        }
    }

    /// A callback was stale. Returns what to warn of, if all are and a warning is due.
    pub(super) fn record_stale(&self, now: i64, age: i64) -> Option<AllStale> {
        let mut row = self.row.lock();
        self.is_counting.store(true, Ordering::Relaxed);
        if row.count == 0 {
            row.began = now;
        }
        let place = row.count % AGES as u64;
        if let Some(slot) = row.ages.get_mut(place as usize) {
            *slot = age;
        }
        row.count += 1;
        let is_due = row
            .warned
            .is_none_or(|when| (now - when).abs() >= REPEAT_MS);
        if row.count < STALE_MIN || !is_due {
            return None;
        }
        row.warned = Some(now);
        let mut ages = row.ages;
        let known = ages.len().min(row.count as usize);
        let ages = ages.get_mut(..known)?;
        let (_, age, _) = ages.select_nth_unstable(known / 2);
        Some(AllStale {
            count: row.count,
            since: (now - row.began).max(0),
            age: *age,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_757_577_600_000;

    #[test]
    fn when_every_callback_is_stale_a_warning_is_due_each_minute() {
        let check = StaleCheck::default();
        let warned: Vec<_> = (0..120)
            .filter_map(|second| check.record_stale(NOW + second * 1000, 3_600_000))
            .map(|all| (all.count, all.since, all.age))
            .collect();
        assert_eq!(warned, [(3, 2000, 3_600_000), (63, 62_000, 3_600_000)]);
    }

    #[test]
    fn stale_callbacks_among_others_cause_no_warning() {
        let check = StaleCheck::default();
        for second in 0..600 {
            assert_eq!(check.record_stale(NOW + second * 1000, 3_600_000), None);
            if second % 2 == 1 {
                check.record_fresh();
            }
        }
    }

    #[test]
    fn a_few_other_distances_do_not_change_the_typical_one() {
        let check = StaleCheck::default();
        let ages = [-7_200_000, 1 << 50, -7_200_500];
        let warned: Vec<_> = ages
            .iter()
            .filter_map(|age| check.record_stale(NOW, *age))
            .collect();
        let (count, since, age) = (3, 0, -7_200_000);
        assert_eq!(warned, [AllStale { count, since, age }]);
        // Only the last ones count.
        for _ in 0..AGES {
            check.record_stale(NOW, 900_000);
        }
        let last = check.record_stale(NOW + REPEAT_MS, 900_000);
        assert_eq!(last.map(|all| (all.count, all.age)), Some((19, 900_000)));
    }
}
