//! Records that come back from a producer.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

#[cfg(test)]
use super::keys::BrokenGuard;
use super::partition::Source;
use super::state::{Entry, QueueState, Stage};
use super::{ProducerId, Via};

impl QueueState {
    /// Takes back a record that this producer did not deliver; false if it is not with it.
    pub(super) fn take_back(&mut self, producer: ProducerId, number: u64) -> bool {
        let is_fresh = self.fresh.contains_key(&number);
        let entries = if is_fresh {
            &mut self.fresh
        } else {
            &mut self.spooled
        };
        let Some(mut entry) = entries.remove(&number) else {
            return false;
        };
        let is_with = entry.is_with(producer);
        if is_with {
            self.leave_flight(&entry);
            let at = self.partitions.of(entry.hash);
            entry.stage = Stage::Waiting;
            if !is_fresh {
                self.partitions.loaded(at, entry.record.size());
            }
            // Suspects may be rows of a key, which must stay in their order.
            if entry.via == Via::Suspect || is_fresh || !self.is_ordered {
                self.partitions.push_front(at, entry.via, number);
            } else {
                entry.stage = Stage::Held;
                self.keys.take_back(entry.hash, number);
                if entry.via == Via::Run {
                    self.recall_run(entry.hash);
                }
            }
        }
        let hash = entry.hash;
        let is_held = entry.stage == Stage::Held;
        let entries = if is_fresh {
            &mut self.fresh
        } else {
            &mut self.spooled
        };
        entries.insert(number, entry);
        if is_with && is_held {
            self.advance(hash);
        }
        is_with
    }

    /// Takes back the rows of a run that are not handed over yet: they must not go before the one
    /// that has failed.
    fn recall_run(&mut self, hash: u32) {
        #[cfg(test)]
        if matches!(self.keys.broken, Some(BrokenGuard::GoOnWithARun)) {
            return;
        }
        let at = self.partitions.of(hash);
        let Self {
            spooled,
            keys,
            partitions,
            ..
        } = self;
        partitions.at(at).waiting(Source::Runs).retain(|number| {
            let entry = spooled.get_mut(number).filter(|entry| {
                entry.hash == hash && entry.via == Via::Run && entry.stage == Stage::Waiting
            });
            let Some(entry) = entry else {
                return true;
            };
            entry.stage = Stage::Held;
            keys.take_back(hash, *number);
            false
        });
    }

    /// Takes back everything that a producer has.
    pub(super) fn take_back_all(&mut self, producer: ProducerId) -> usize {
        let with = |entries: &BTreeMap<u64, Entry>| -> Vec<u64> {
            let with = entries.iter().filter(|(_, entry)| entry.is_with(producer));
            with.map(|(number, _)| *number).collect()
        };
        let numbers = [with(&self.spooled), with(&self.fresh)].concat();
        // From the last to the first, because each goes to the front. A key's rows are ordered
        // again only when all are back.
        for number in numbers.iter().rev() {
            self.take_back(producer, *number);
        }
        numbers.len()
    }

    /// Kafka has rejected a batch with this record and has not named it: it is sent again alone.
    pub(super) fn suspect(&mut self, producer: ProducerId, number: u64) -> bool {
        let (entry, on_disk) = match self.fresh.get_mut(&number) {
            Some(entry) => (Some(entry), false),
            None => (self.spooled.get_mut(&number), true),
        };
        let Some(entry) = entry.filter(|entry| entry.is_with(producer)) else {
            return false;
        };
        let was_in_run = entry.via == Via::Run;
        let (hash, size, was_suspect) =
            (entry.hash, entry.record.size(), entry.via == Via::Suspect);
        entry.stage = Stage::Waiting;
        entry.via = Via::Suspect;
        let at = self.partitions.of(hash);
        self.partitions.left_flight(at, producer, size);
        if on_disk {
            self.partitions.loaded(at, size);
        }
        if was_suspect {
            self.partitions.suspect_left_flight(at);
        }
        if was_in_run {
            self.recall_run(hash);
        }
        self.partitions.push(at, Via::Suspect, number);
        true
    }

    /// Takes note that Kafka has acknowledged a record, if it is of a run and Kafka remembers its
    /// producer.
    pub(super) fn note_run(&mut self, producer: ProducerId, number: u64, now: Instant) {
        let entry = self.spooled.get(&number);
        let of_a_run = entry.filter(|entry| {
            let is_remembered = entry.is_remembered(self.remembered_from);
            entry.via == Via::Run && entry.is_with(producer) && is_remembered
        });
        if let Some(hash) = of_a_run.map(|entry| entry.hash) {
            let at = self.partitions.of(hash);
            self.partitions.at(at).run_acked(producer, now);
        }
    }

    /// Pauses the partition of a record that has failed.
    pub(super) fn pause_partition(&mut self, number: u64, now: Instant) {
        let entry = self
            .fresh
            .get(&number)
            .or_else(|| self.spooled.get(&number));
        if let Some(hash) = entry.map(|entry| entry.hash) {
            let at = self.partitions.of(hash);
            self.partitions.at(at).pause(now);
        }
    }

    /// Marks a record that Kafka rejects and that is not on disk yet, so that it is written there
    /// and not handed over again. Returns the id of its event; `None` if it is on disk.
    pub(super) fn keep_refused(&mut self, number: u64) -> Option<Uuid> {
        let mut entry = self.fresh.remove(&number)?;
        self.leave_flight(&entry);
        entry.stage = Stage::Held;
        entry.refused = true;
        let event_id = entry.record.event_id;
        self.urgent.insert(number);
        self.fresh.insert(number, entry);
        Some(event_id)
    }
}
