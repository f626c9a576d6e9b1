//! Handles delivery reports: resolves tickets, sends records again, makes dead letters.

use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::state::Removed;
use super::{Full, MAX_QUEUE_BYTES, MAX_UNDELETED_ROWS, ProducerId, Queue};
use crate::delivery::ticket::{Durability, Settled, Ticket, settle};
use crate::event::{EVENTS, Reason, Record};
use crate::kafka::Report;
use crate::metrics::Problem;

/// What the reports on some records have changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) struct Reported {
    pub(in crate::delivery) acked: usize,
    pub(in crate::delivery) failed: usize,
    /// In batches that Kafka has rejected.
    pub(in crate::delivery) rejected: usize,
}

impl AddAssign for Reported {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.rejected += other.rejected;
    }
}

/// A record that Kafka rejects permanently.
#[derive(Debug)]
enum Refused {
    /// A dead letter, which waits in the queue until it is in the spool.
    Kept(Uuid),
    /// It has left the queue.
    Removed(Removed),
}

impl Queue {
    /// Takes a producer's reports, and resolves the tickets of what is acknowledged. Of a producer
    /// that a record is not with any more, only an acknowledgement counts.
    pub(in crate::delivery) fn report(
        &self,
        producer: ProducerId,
        reports: Vec<(u64, Report)>,
    ) -> Reported {
        let (mut acked, mut rejected) = (Vec::new(), Vec::new());
        let mut reported = Reported::default();
        let now = Instant::now();
        let mut state = self.lock();
        let before = state.in_flight();
        for (number, report) in reports {
            match report {
                Report::Acked => {
                    reported.acked += 1;
                    state.note_run(producer, number, now);
                    if let Some(removed) = state.settle(number) {
                        if removed.on_disk {
                            state.mark_deletable(number);
                        }
                        acked.push(removed);
                    }
                }
                Report::Rejected(reason) => {
                    reported.rejected += 1;
                    if state.is_with(producer, number) {
                        let refused = self.refuse(&mut state, number);
                        rejected.extend(refused.map(|refused| (refused, reason)));
                    }
                }
                Report::Suspect(_) => {
                    reported.rejected += 1;
                    state.suspect(producer, number);
                }
                Report::Bystander => {
                    reported.rejected += 1;
                    state.take_back(producer, number);
                }
                Report::Failed(reason) => {
                    if state.take_back(producer, number) {
                        reported.failed += 1;
                        state.obstacles.note_failure(reason, now);
                        state.pause_partition(number, now);
                    }
                }
            }
        }
        self.count_flight(before, state.in_flight());
        let deletions_due = state.deletable.len() >= MAX_UNDELETED_ROWS;
        let wants_rows = self.disk.is_some() && state.wants_rows();
        drop(state);
        if deletions_due {
            self.wakeups.spooler.wake();
        }
        if wants_rows {
            self.wakeups.reader.wake();
        }
        // One time for all, because they were acknowledged together.
        let now = SystemTime::now();
        for removed in acked {
            self.resolve_acked(removed, now);
        }
        for (refused, reason) in rejected {
            self.metrics.rejected();
            match refused {
                Refused::Kept(event_id) => self.log_kept(event_id, &reason),
                Refused::Removed(removed) => self.dead_letter(removed, &reason),
            }
        }
        reported
    }

    /// Takes back everything that a producer has: it has ended.
    pub(in crate::delivery) fn producer_lost(&self, producer: ProducerId) -> usize {
        let mut state = self.lock();
        let before = state.in_flight();
        let lost = state.take_back_all(producer);
        self.count_flight(before, state.in_flight());
        lost
    }

    /// Takes back a record that a producer did not take, because its queue is full.
    pub(in crate::delivery) fn return_unsent(&self, producer: ProducerId, number: u64) {
        let mut state = self.lock();
        let before = state.in_flight();
        state.take_back(producer, number);
        self.count_flight(before, state.in_flight());
    }

    fn resolve_acked(&self, removed: Removed, now: SystemTime) {
        if let Some(handed_over) = removed.handed_over {
            self.metrics.delivered(handed_over.elapsed());
        }
        if removed.on_disk {
            self.metrics.spool().replayed();
        }
        let durability = match removed.record.is_dead_letter() {
            false => Durability::Published,
            true => Durability::DeadLettered,
        };
        if let Some(ticket) = removed.ticket {
            self.notify(&removed.record, &ticket, durability, now);
        }
    }

    /// Takes out a record that Kafka rejects permanently. With a disk, a dead letter that is not on
    /// it yet stays in the queue until it is, because no further topic would take it.
    fn refuse(&self, state: &mut super::QueueState, number: u64) -> Option<Refused> {
        let is_last = self.dead_letters.is_none() && self.disk.is_some();
        if is_last && let Some(event_id) = state.keep_refused(number) {
            return Some(Refused::Kept(event_id));
        }
        let removed = state.settle(number)?;
        if removed.on_disk {
            state.replaced.insert(number);
        }
        Some(Refused::Removed(removed))
    }

    /// Whether at least half of its space is free, and it is not shutting down.
    pub(in crate::delivery) fn has_space(&self) -> bool {
        let state = self.lock();
        let has_space =
            state.bytes < MAX_QUEUE_BYTES / 2 && state.fresh.len() < self.max_records / 2;
        has_space && !state.finishing
    }

    /// The rows of events whose dead letters are in this queue, or are durable.
    pub(in crate::delivery) fn replaced_rows(&self) -> HashSet<u64> {
        let state = self.lock();
        let replaced = state.fresh.values().filter_map(|entry| entry.replaces);
        replaced.chain(state.deletable.iter().copied()).collect()
    }

    /// Adds the dead letter of an event in a row that is marked as refused.
    pub(in crate::delivery) fn enqueue_letter_of(
        &self,
        number: u64,
        record: &Record,
    ) -> Result<(), Full> {
        let letter = record.rejected("Kafka rejected the record earlier");
        self.enqueue_with(letter, Arc::default(), Some(number))
    }

    /// Makes a dead letter of a record that Kafka rejects permanently. A rejected dead letter stays
    /// in the spool, or is refused if there is none.
    fn dead_letter(&self, refused: Removed, reason: &str) {
        let row = refused.on_disk.then_some(refused.number);
        // An event on disk has been answered and has no ticket; its dead letter needs one to be
        // counted.
        let ticket = refused.ticket.unwrap_or_default();
        let event_id = refused.record.event_id;
        let Some(dead_letters) = &self.dead_letters else {
            return self.keep_or_refuse(row, event_id, &ticket, reason);
        };
        let event = refused.record.event.as_deref();
        let event = EVENTS.iter().find(|kind| Some(kind.name) == event);
        let problem = Problem {
            kind: "dead letter",
            appid: None,
            event: event.map(|kind| kind.name),
            reason: Reason::RejectedByKafka.into(),
        };
        self.metrics.problems().add(problem, || reason.to_owned());
        if self.rejections.is_due() {
            tracing::warn!(
                "Kafka rejects record {event_id} ({reason}); it becomes a dead letter. Further rejected records are counted in zim2kafka_kafka_deliveries_total"
            );
        }
        let letter = refused.record.rejected(reason);
        // The event's row is deleted once the dead letter is durable, not before.
        let enqueued = dead_letters.enqueue_with(letter, Arc::clone(&ticket), row);
        match (enqueued, row) {
            (Ok(()), _) => {}
            (Err(Full), Some(number)) => {
                tracing::debug!(
                    "record {event_id} stays in the spool until there is space for its dead letter"
                );
                self.lock().unmarked_refused.insert(number);
            }
            (Err(Full), None) => settle(&ticket, Settled::Refused),
        }
    }

    /// Kafka has rejected a dead letter: it stays in the spool, or is refused if it is not there.
    fn keep_or_refuse(&self, row: Option<u64>, event_id: Uuid, ticket: &Ticket, reason: &str) {
        match row {
            Some(number) => {
                self.log_kept(event_id, reason);
                self.lock().unmarked_refused.insert(number);
            }
            None => settle(ticket, Settled::Refused),
        }
    }

    /// Logs that Kafka rejects a dead letter that is in the spool or will be written there.
    fn log_kept(&self, event_id: Uuid, reason: &str) {
        let problem = Problem {
            reason: "check max.message.bytes of the dead-letter topic",
            ..Problem::of_service("dead letter rejected by Kafka")
        };
        self.metrics.problems().add(problem, || reason.to_owned());
        if self.rejections.is_due() {
            tracing::error!(
                "Kafka rejects dead letter {event_id} permanently ({reason}); it stays in the spool, and the next start sends it again. Check max.message.bytes of the dead-letter topic. Further ones are counted in zim2kafka_spool_refused_records"
            );
        }
    }
}
