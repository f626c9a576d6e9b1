//! Which records are handed over next, and to which producers.

use std::sync::Arc;
use std::time::Instant;

#[cfg(test)]
use super::keys::BrokenGuard;
use super::partition::Source;
use super::state::{QueueState, Stage};
use super::{Outgoing, Pacing, ProducerId, Via};

/// The most records that are handed over under one lock. Few in tests, so that the model check has
/// runs of which a part is handed over.
const BATCH_RECORDS: usize = if cfg!(test) { 2 } else { 500 };

/// The most fresh records of a partition that are tried, if their producers take none now. Of the
/// other sources one is tried: each has a single producer.
const LOOK_AHEAD: usize = if cfg!(test) { 2 } else { 16 };

impl QueueState {
    /// Takes what may be handed over now. `route` names the producer to be used; `None` if it takes
    /// nothing now.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        pacing: Pacing,
        route: &mut dyn FnMut(Via) -> Option<ProducerId>,
    ) -> Vec<Outgoing> {
        let mut batch = Vec::new();
        for _ in 0..self.partitions.unblock(now) {
            let Some(at) = self.partitions.next_ready() else {
                break;
            };
            self.partitions.at(at).pace(pacing, now);
            while batch.len() < BATCH_RECORDS && self.partitions.may_send(at, now) {
                let Some(outgoing) = self.next_of(at, now, route) else {
                    break;
                };
                batch.push(outgoing);
            }
            self.partitions.put_back(at, now);
        }
        batch
    }

    fn next_of(
        &mut self,
        at: usize,
        now: Instant,
        route: &mut dyn FnMut(Via) -> Option<ProducerId>,
    ) -> Option<Outgoing> {
        let partition = self.partitions.at(at);
        // A lane whose suspects go to the same producer as its other records must send nothing
        // beside one.
        let is_alone = !self.is_ordered && partition.has_suspects();
        if is_alone && partition.in_flight() > 0 {
            return None;
        }
        let sources = match is_alone {
            true => &[Source::Suspects][..],
            false => &partition.sources(),
        };
        let mut sources = sources.iter();
        sources.find_map(|source| self.next_from(*source, at, now, route))
    }

    /// Takes the first record of this source whose producer takes it now. Records whose producer
    /// does not are passed over.
    fn next_from(
        &mut self,
        source: Source,
        at: usize,
        now: Instant,
        route: &mut dyn FnMut(Via) -> Option<ProducerId>,
    ) -> Option<Outgoing> {
        let is_suspect = source == Source::Suspects;
        let look_ahead = if source == Source::Fresh {
            LOOK_AHEAD
        } else {
            1
        };
        let mut passed_over = 0;
        while passed_over < look_ahead {
            let partition = self.partitions.at(at);
            if is_suspect && partition.suspect_in_flight {
                return None;
            }
            let number = *partition.waiting(source).get(passed_over)?;
            let (entry, on_disk) = match self.fresh.get_mut(&number) {
                Some(entry) => (Some(entry), false),
                None => (self.spooled.get_mut(&number), true),
            };
            let waiting = entry
                .filter(|entry| entry.stage == Stage::Waiting && Source::of(entry.via) == source);
            let Some(entry) = waiting else {
                // Settled, or on disk only.
                partition.waiting(source).remove(passed_over);
                continue;
            };
            let is_free = |to: &ProducerId| match source {
                Source::Suspects => true,
                Source::Runs => {
                    let is_remembered = entry.is_remembered(self.remembered_from);
                    !partition.is_paced(*to) && partition.may_have_run(*to, is_remembered, now)
                }
                Source::Backlog | Source::Fresh => !partition.is_paced(*to),
            };
            #[cfg(test)]
            let is_free = |to: &ProducerId| {
                is_free(to) || matches!(self.keys.broken, Some(BrokenGuard::WholeRunAtOnce))
            };
            let to = route(entry.via).filter(is_free);
            let Some(to) = to else {
                passed_over += 1;
                continue;
            };
            entry.stage = Stage::Sent { to, at: now };
            let record = Arc::clone(&entry.record);
            partition.waiting(source).remove(passed_over);
            partition.took_turn(source);
            if on_disk {
                self.partitions.unloaded(at, record.size());
            }
            self.partitions.entered_flight(at, to, record.size(), now);
            return Some(Outgoing { to, number, record });
        }
        None
    }
}
