//! What follows from the producers' reports: who is safe, who is sent again, who becomes a dead letter.

use std::sync::Arc;

use super::state::{Left, PATIENCE, State};
use super::{MAX_DONE, Queue, Report};
use crate::delivery::ticket::{Safe, Settled, settle};
use crate::event::Kind;

impl Queue {
    /// Takes down what a producer says of one record. Those who wait are [told](Queue::tell_acked) later,
    /// many at once.
    pub(in crate::delivery) fn report(&self, generation: u64, number: u64, report: Report<'_>) {
        let mut state = self.lock();
        let current = generation == state.generation;
        let alone = state.entry(number).is_some_and(|entry| entry.alone);
        if current {
            state.in_flight = state.in_flight.saturating_sub(1);
            self.metrics.left_flight(1);
        }
        let mut acked = None;
        let mut refused = None;
        match report {
            Report::Acked => {
                state.patience = PATIENCE;
                if let Some(left) = state.settle(number) {
                    acked = Some(left.handed_over);
                    if left.on_disk {
                        state.done.push(number);
                        self.metrics.spool().replayed();
                    }
                    (state.acked).extend(left.ticket.map(|ticket| (left.record, ticket)));
                }
            }
            Report::Unacceptable(reason) | Report::Failed(reason) if current => {
                // Of a refused batch each is suspect. A refusal is fatal to a gapless producer, also
                // where the batch held one record.
                state.failure.get_or_insert_with(|| reason.to_owned());
                if matches!(report, Report::Unacceptable(_)) {
                    if alone {
                        refused = self
                            .refuse_last(&mut state, number)
                            .map(|left| (left, reason));
                    } else if let Some(entry) = state.entry(number) {
                        entry.suspect = true;
                    }
                }
            }
            Report::Unacceptable(_) | Report::Failed(_) => {}
        }
        let deletions_due = state.done.len() >= MAX_DONE;
        drop(state);
        if deletions_due && let Some(disk) = &self.disk {
            disk.doorbell.ring();
        }
        if let Some(handed_over) = acked {
            self.metrics.delivered(handed_over.elapsed());
        }
        if let Some((left, reason)) = refused {
            self.bury(left, reason);
        }
    }

    /// The record could not even be given to the producer, and never will be.
    pub(in crate::delivery) fn refuse(&self, generation: u64, number: u64, reason: &str) {
        let mut state = self.lock();
        if generation == state.generation {
            state.in_flight -= 1;
            self.metrics.left_flight(1);
        }
        let left = self.refuse_last(&mut state, number);
        drop(state);
        if let Some(left) = left {
            self.bury(left, reason);
        }
    }

    /// Takes out a record that Kafka refuses for good. A dead letter that is not on disk yet stays
    /// until it is there, where there is a disk: no other topic would take it.
    fn refuse_last(&self, state: &mut State, number: u64) -> Option<Left> {
        let is_last = self.dead_letters.is_none() && self.disk.is_some();
        if is_last
            && let Some(entry) = state.entry(number)
            && entry.record.is_some()
            && !entry.on_disk
        {
            entry.refused = true;
            self.metrics.rejected();
            return None;
        }
        state.settle(number)
    }

    /// Tells those who wait for records that have been acknowledged since the last time. Not under the
    /// lock, as all that tells others: it may enter another queue's.
    pub(in crate::delivery) fn tell_acked(&self) {
        let acked = std::mem::take(&mut self.lock().acked);
        for (record, ticket) in acked {
            let safe = match record.kind {
                Kind::GroupJoined { .. } => Safe::Published,
                Kind::DeadLetter(_) => Safe::DeadLettered,
            };
            self.tell(&record, &ticket, safe);
        }
    }

    /// A record that Kafka refuses for good becomes a dead letter; a dead letter stays where it is.
    fn bury(&self, left: Left, reason: &str) {
        self.metrics.rejected();
        let on_disk = left.on_disk.then_some(left.number);
        // An event on disk has been answered; its dead letter is counted all the same.
        let ticket = left.ticket.unwrap_or_default();
        if let Some(dead_letters) = &self.dead_letters {
            tracing::warn!(event_id = %left.record.event_id, reason, "Kafka refuses a record; it becomes a dead letter");
            let letter = left.record.rejected(reason);
            // The row on disk goes when the dead letter is safe, and not before.
            let enqueued = dead_letters.enqueue_for(letter, Arc::clone(&ticket), on_disk);
            if enqueued.is_ok() {
                return;
            }
        }
        match on_disk {
            Some(number) => {
                tracing::error!(event_id = %left.record.event_id, reason, "Kafka refuses a record for good; it stays in the spool, and is tried again at the next start. Look at the limits of the dead-letter topic");
                self.lock().refused.push(number);
            }
            None => settle(&ticket, Settled::Refused),
        }
    }
}
