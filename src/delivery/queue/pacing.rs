//! When a producer gets more records of a partition.

use std::time::{Duration, Instant};

use super::ProducerId;

/// When a producer that has records of a partition gets more records of that partition. It then gets
/// all that wait, so that they share requests.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Pacing {
    /// A producer with this many records of the partition gets no more,
    pub(in crate::delivery) depth: usize,
    /// until this long after it got the last one: one stuck producer must not stop a partition.
    pub(in crate::delivery) lapse: Duration,
    /// The shortest time after its last record until it gets more.
    pub(in crate::delivery) interval: Duration,
}

impl Pacing {
    /// At once.
    pub(in crate::delivery) const NONE: Self = Self {
        depth: usize::MAX,
        lapse: Duration::ZERO,
        interval: Duration::ZERO,
    };
}

/// The producers that have records of a partition.
#[derive(Debug, Default, Clone)]
pub(super) struct Holders(Vec<Holder>);

#[derive(Debug, Clone, Copy)]
struct Holder {
    producer: ProducerId,
    records: usize,
    /// When it got the last one.
    last: Instant,
    /// Whether it gets nothing in this turn.
    is_paced: bool,
}

impl Holders {
    /// Decides which of them get nothing in the turn that began at `now`. One that already got
    /// records in this turn gets the rest too.
    pub(super) fn pace(&mut self, pacing: Pacing, now: Instant) {
        for holder in self.0.iter_mut().filter(|holder| holder.last != now) {
            let since = now.saturating_duration_since(holder.last);
            holder.is_paced =
                since < pacing.interval || holder.records >= pacing.depth && since < pacing.lapse;
        }
    }

    /// Whether the producer gets nothing in this turn.
    pub(super) fn is_paced(&self, producer: ProducerId) -> bool {
        let mut holders = self.0.iter();
        holders.any(|holder| holder.producer == producer && holder.is_paced)
    }

    /// Whether the producer has records of the partition.
    pub(super) fn has(&self, producer: ProducerId) -> bool {
        self.0.iter().any(|holder| holder.producer == producer)
    }

    /// Whether one of them got its last record at this time or later.
    pub(super) fn got_any_since(&self, time: Instant) -> bool {
        self.0.iter().any(|holder| holder.last >= time)
    }

    pub(super) fn add(&mut self, to: ProducerId, now: Instant) {
        let mut holders = self.0.iter_mut();
        match holders.find(|holder| holder.producer == to) {
            Some(holder) => {
                holder.records += 1;
                holder.last = now;
            }
            None => self.0.push(Holder {
                producer: to,
                records: 1,
                last: now,
                is_paced: false,
            }),
        }
    }

    pub(super) fn remove(&mut self, from: ProducerId) {
        self.0.retain_mut(|holder| {
            holder.records -= usize::from(holder.producer == from);
            holder.records > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACING: Pacing = Pacing {
        depth: 2,
        lapse: Duration::from_millis(100),
        interval: Duration::from_millis(10),
    };

    #[test]
    fn a_producer_gets_all_that_wait_then_nothing_for_the_interval() {
        let now = Instant::now();
        let mut holders = Holders::default();
        holders.pace(PACING, now);
        for _ in 0..9 {
            holders.pace(PACING, now);
            holders.add(1, now);
            assert!(!holders.is_paced(1));
        }
        for _ in 0..8 {
            holders.remove(1);
        }
        let paced_after = |holders: &mut Holders, milliseconds| {
            holders.pace(PACING, now + Duration::from_millis(milliseconds));
            assert!(!holders.is_paced(2), "it has none");
            holders.is_paced(1)
        };
        assert!(paced_after(&mut holders, 9));
        assert!(!paced_after(&mut holders, 10));
    }

    #[test]
    fn a_producer_with_enough_unanswered_gets_nothing_until_the_lapse() {
        let now = Instant::now();
        let mut holders = Holders::default();
        holders.add(1, now);
        holders.add(1, now);
        holders.pace(PACING, now + Duration::from_millis(99));
        assert!(holders.is_paced(1));
        holders.pace(PACING, now + Duration::from_millis(100));
        assert!(!holders.is_paced(1));
        holders.pace(PACING, now + Duration::from_millis(99));
        holders.remove(1);
        holders.pace(PACING, now + Duration::from_millis(99));
        assert!(!holders.is_paced(1), "it has fewer");
    }
}
