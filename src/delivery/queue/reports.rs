//! Handles delivery reports: resolves tickets, sends records again, makes dead letters.

use std::sync::Arc;

use super::state::{QueueState, Removed, STALL_TIMEOUT};
use super::{MAX_UNDELETED_ROWS, Queue};
use crate::delivery::ticket::{Durability, Settled, settle};
use crate::event::Lane;
use crate::kafka::Report;

impl Queue {
    /// Takes a producer's report about one record. Tickets are resolved
    /// [later](Queue::notify_acked), many at once.
    pub(in crate::delivery) fn report(&self, generation: u64, number: u64, report: Report<'_>) {
        let mut state = self.lock();
        let is_current = generation == state.generation;
        let is_alone = state.entry(number).is_some_and(|entry| entry.alone);
        if is_current {
            state.in_flight = state.in_flight.saturating_sub(1);
            self.metrics.left_flight(1);
        }
        let mut acked = None;
        let mut refused = None;
        match report {
            Report::Acked => {
                state.stall_timeout = STALL_TIMEOUT;
                if let Some(removed) = state.settle(number) {
                    acked = Some(removed.handed_over);
                    if removed.on_disk {
                        state.deletable.push(number);
                        self.metrics.spool().replayed();
                    }
                    let ticket = removed.ticket;
                    (state.acked).extend(ticket.map(|ticket| (removed.record, ticket)));
                }
            }
            Report::Rejected(reason) | Report::Failed(reason) if is_current => {
                // A rejection is fatal to a gapless producer, even of a batch of one record.
                state.failure.get_or_insert_with(|| reason.to_owned());
                if matches!(report, Report::Rejected(_)) {
                    if is_alone {
                        refused = self
                            .refuse_in(&mut state, number)
                            .map(|removed| (removed, reason));
                    } else if let Some(entry) = state.entry(number) {
                        entry.suspect = true;
                    }
                }
            }
            Report::Rejected(_) | Report::Failed(_) => {}
        }
        let deletions_due = state.deletable.len() >= MAX_UNDELETED_ROWS;
        drop(state);
        if deletions_due && let Some(disk) = &self.disk {
            disk.wakeup.wake();
        }
        if let Some(handed_over) = acked {
            self.metrics.delivered(handed_over.elapsed());
        }
        if let Some((removed, reason)) = refused {
            self.dead_letter(removed, reason);
        }
    }

    /// Removes a record that no producer accepts.
    pub(in crate::delivery) fn refuse(&self, generation: u64, number: u64, reason: &str) {
        let mut state = self.lock();
        if generation == state.generation {
            state.in_flight -= 1;
            self.metrics.left_flight(1);
        }
        let removed = self.refuse_in(&mut state, number);
        drop(state);
        if let Some(removed) = removed {
            self.dead_letter(removed, reason);
        }
    }

    /// Takes out a record that Kafka rejects permanently. With a disk, a dead letter that is not on
    /// it yet stays in the queue until it is, because no further topic would take it.
    fn refuse_in(&self, state: &mut QueueState, number: u64) -> Option<Removed> {
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

    /// Resolves the tickets of records acknowledged since the last call. Not under the lock,
    /// because whatever this notifies may enter another queue.
    pub(in crate::delivery) fn notify_acked(&self) {
        let acked = std::mem::take(&mut self.lock().acked);
        for (record, ticket) in acked {
            let durability = match record.lane() {
                Lane::Events => Durability::Published,
                Lane::DeadLetters => Durability::DeadLettered,
            };
            self.notify(&record, &ticket, durability);
        }
    }

    /// Makes a dead letter of a record that Kafka rejects permanently. A rejected dead letter stays
    /// in the spool, or is refused if there is none.
    fn dead_letter(&self, refused: Removed, reason: &str) {
        self.metrics.rejected();
        let row = refused.on_disk.then_some(refused.number);
        // An event on disk has been answered and has no ticket; its dead letter needs one to be
        // counted.
        let ticket = refused.ticket.unwrap_or_default();
        let event_id = refused.record.event_id;
        if let Some(dead_letters) = &self.dead_letters {
            tracing::warn!("Kafka rejects record {event_id} ({reason}); it becomes a dead letter");
            let letter = refused.record.rejected(reason);
            // The event's row is deleted once the dead letter is durable, not before.
            let enqueued = dead_letters.enqueue_with(letter, Arc::clone(&ticket), row);
            if enqueued.is_ok() {
                return;
            }
        }
        match row {
            Some(number) => {
                tracing::error!(
                    "Kafka rejects record {event_id} permanently ({reason}); it stays in the spool and is tried again at the next start. Check max.message.bytes of the dead-letter topic"
                );
                self.lock().unmarked_refused.push(number);
            }
            None => settle(&ticket, Settled::Refused),
        }
    }
}
