//! The last 15 minutes, second by second, computed from the metrics.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde::Serialize;
use strum::VariantArray;

use crate::health::Level;
use crate::metrics::{OUTCOMES, Outcome, Totals};

/// How many seconds are kept, of some 90 bytes each.
pub const MAX_HISTORY_SECONDS: usize = 15 * 60;

/// The last seconds.
#[derive(Debug, Default)]
pub(super) struct History {
    seconds: VecDeque<Second>,
    /// How many there have been.
    end: u64,
    before: Option<(Instant, Totals)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Second {
    /// When it ended, in ms since 1970-01-01 UTC.
    at: u64,
    level: Level,
    /// Callbacks in each second, by outcome.
    outcomes: [f32; OUTCOMES],
    /// The time for an answer, in seconds; `None` if nothing was answered.
    p50: Option<f32>,
    p99: Option<f32>,
    spool_records: u64,
}

/// Seconds, as the page reads them: the n-th value of each list is of the same second.
#[derive(Debug, Serialize)]
pub(super) struct Columns {
    /// The number of the last second since the start.
    end: u64,
    at: Vec<u64>,
    /// 0 for ready, 1 for degraded, 2 for not ready.
    level: Vec<u8>,
    outcomes: BTreeMap<&'static str, Vec<f32>>,
    p50: Vec<Option<f32>>,
    p99: Vec<Option<f32>>,
    spool_records: Vec<u64>,
}

impl History {
    /// Adds the second that ends now, of which the service spent at least the end at this level. The
    /// first call begins the first second. Returns the totals at its beginning.
    pub(super) fn add(
        &mut self,
        now: Instant,
        at: u64,
        level: Level,
        totals: Totals,
    ) -> Option<Totals> {
        let Some((began, before)) = self.before.take() else {
            self.before = Some((now, totals));
            return None;
        };
        // A busy machine delays this by milliseconds, which are not worth a rate of 0.998.
        let elapsed = now.saturating_duration_since(began).as_secs_f64();
        let seconds = elapsed.round().max(1.0);
        let mut outcomes = [0.0; OUTCOMES];
        for (rate, (now, before)) in
            (outcomes.iter_mut()).zip(totals.outcomes.iter().zip(before.outcomes))
        {
            *rate = (now.saturating_sub(before) as f64 / seconds) as f32;
        }
        let answered = answered(&totals.waited, &before.waited);
        if self.seconds.len() >= MAX_HISTORY_SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(Second {
            at,
            level,
            outcomes,
            p50: quantile(&answered, 0.5),
            p99: quantile(&answered, 0.99),
            spool_records: totals.spool_records,
        });
        self.end += 1;
        self.before = Some((now, totals));
        Some(before)
    }

    /// The seconds after the one with this number. All, if there is none with this number: the page
    /// is from before a restart.
    pub(super) fn after(&self, number: u64) -> Columns {
        let kept = self.seconds.len();
        let new = self
            .end
            .checked_sub(number)
            .and_then(|new| usize::try_from(new).ok());
        let skipped = kept - new.unwrap_or(kept).min(kept);
        let seconds = || self.seconds.iter().skip(skipped);
        let outcome = |outcome: &Outcome| {
            let rate = |second: &Second| second.outcomes.get(*outcome as usize).copied();
            let rates: Vec<f32> = seconds().filter_map(rate).collect();
            (outcome.into(), rates)
        };
        Columns {
            end: self.end,
            at: seconds().map(|second| second.at).collect(),
            level: seconds().map(|second| second.level as u8).collect(),
            outcomes: (Outcome::VARIANTS.iter())
                .map(outcome)
                .filter(|(_, rates)| rates.iter().any(|rate| *rate > 0.0))
                .collect(),
            p50: seconds().map(|second| second.p50).collect(),
            p99: seconds().map(|second| second.p99).collect(),
            spool_records: seconds().map(|second| second.spool_records).collect(),
        }
    }
}

/// How many callbacks were answered within each bound, by cumulative buckets of now and before.
fn answered(now: &[(f64, u64)], before: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let of_before = |at: usize| before.get(at).map_or(0, |(_, count)| *count);
    let buckets = now.iter().enumerate();
    buckets
        .map(|(at, (bound, count))| (*bound, count.saturating_sub(of_before(at))))
        .collect()
}

/// The time within which this share was answered, interpolated within its bucket as Prometheus does.
/// The bound of the last bucket but one, if it took longer.
fn quantile(buckets: &[(f64, u64)], share: f64) -> Option<f32> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0)?;
    let rank = share * *all as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (bound, count) in buckets {
        if *count as f64 >= rank && *count > below {
            if bound.is_infinite() {
                break;
            }
            let part = (rank - below as f64) / (count - below) as f64;
            return Some((lower + (bound - lower) * part) as f32);
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower as f32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn totals(published: u64, waited: &[(f64, u64)]) -> Totals {
        let mut totals = Totals {
            waited: waited.to_vec(),
            spool_records: published * 2,
            ..Totals::default()
        };
        if let Some(count) = totals.outcomes.first_mut() {
            *count = published;
        }
        totals
    }

    #[test]
    fn a_second_has_the_rates_of_that_second() {
        let (mut history, began) = (History::default(), Instant::now());
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let none = history.add(at(0), 1000, Level::NotReady, totals(100, &[]));
        assert_eq!(none, None, "there is nothing to compare with");
        let before = history.add(at(1003), 2003, Level::Ready, totals(107, &[]));
        assert_eq!(before, Some(totals(100, &[])));
        // The machine was suspended.
        history.add(at(5003), 6003, Level::Degraded, totals(127, &[]));
        let columns = history.after(0);
        assert_eq!(columns.at, [2003, 6003]);
        assert_eq!(columns.level, [0, 1]);
        assert_eq!(columns.outcomes["published"], [7.0, 5.0]);
        assert_eq!(
            columns.outcomes.len(),
            1,
            "those that are zero are left out"
        );
        assert_eq!(columns.spool_records, [214, 254]);
        assert_eq!((columns.p50, columns.end), (vec![None, None], 2));
    }

    #[test]
    fn the_oldest_second_gives_way_and_a_page_gets_only_what_it_has_not() {
        let (mut history, began) = (History::default(), Instant::now());
        let seconds = MAX_HISTORY_SECONDS as u64 + 100;
        for second in 0..=seconds {
            let now = began + Duration::from_secs(second);
            history.add(now, second, Level::Ready, totals(second, &[]));
        }
        let all = history.after(0);
        assert_eq!(all.at.len(), MAX_HISTORY_SECONDS);
        assert_eq!(
            (all.at.first(), all.at.last()),
            (Some(&101), Some(&seconds))
        );
        assert_eq!(history.after(seconds - 2).at, [seconds - 1, seconds]);
        assert!(history.after(seconds).at.is_empty());
        assert_eq!(history.after(50).at.len(), MAX_HISTORY_SECONDS);
        // Of another run of the service.
        assert_eq!(history.after(seconds + 1).at.len(), MAX_HISTORY_SECONDS);
        assert_eq!(history.after(u64::MAX).at.len(), MAX_HISTORY_SECONDS);
    }

    #[test]
    fn quantiles_are_those_of_the_callbacks_of_one_second() {
        let bounds = |counts: [u64; 4]| -> Vec<(f64, u64)> {
            [0.1, 0.2, 0.4, f64::INFINITY]
                .into_iter()
                .zip(counts)
                .collect()
        };
        let of = |counts, share| quantile(&bounds(counts), share);
        assert_eq!(of([0, 0, 0, 0], 0.5), None);
        assert_eq!(of([10, 10, 10, 10], 0.5), Some(0.05));
        assert_eq!(of([0, 4, 8, 8], 0.5), Some(0.2));
        assert_eq!(of([0, 4, 8, 8], 0.75), Some(0.3));
        assert_eq!(
            of([0, 0, 0, 3], 0.5),
            Some(0.4),
            "the last bound that is known"
        );
        assert_eq!(of([98, 98, 100, 100], 0.99), Some(0.3));

        let (mut history, began) = (History::default(), Instant::now());
        for (second, counts) in (0..).zip([[500; 4], [500, 504, 508, 508], [500, 504, 508, 508]]) {
            let now = began + Duration::from_secs(second);
            history.add(now, second, Level::Ready, totals(0, &bounds(counts)));
        }
        let columns = history.after(0);
        assert_eq!(columns.p50, [Some(0.2), None]);
        assert_eq!(columns.p99, [Some(0.396), None]);
    }
}
