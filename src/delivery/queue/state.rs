//! The rules of the queue as plain state: what may be handed over, and what a settled record leaves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MAX_IN_FLIGHT;
use crate::delivery::ticket::Ticket;
use crate::event::Record;

/// What a record costs in memory besides its own bytes: its entry, its ticket and its headers' handles.
pub(super) const COST_OF_A_RECORD: usize = 1024;

/// The feeder takes the lock once for so many records.
const BATCH: usize = 1000;

/// With records waiting and no acknowledgement at all for so long, the producer is replaced: the
/// brokers may have moved to other addresses, and "stuck without an error" is a known state of Kafka
/// clients. One leaderless partition alone is no reason, since others then still acknowledge.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct State {
    pub(super) entries: VecDeque<Entry>,
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) bytes: usize,
    /// Of the current producer. A report of an older one counts only where it says "acked".
    pub(super) generation: u64,
    pub(super) in_flight: usize,
    /// Nothing follows one that travels alone before it has arrived.
    pub(super) last_travels_alone: bool,
    pub(super) failure: Option<String>,
    /// Records below this number go to Kafka one at a time. Kafka refuses whole batches, so only of a
    /// record that was sent alone does one know that it is the record that is refused.
    pub(super) alone_below: u64,
    /// Whether the current producer has settled anything, and when that last happened.
    pub(super) progress: bool,
    pub(super) last_progress: Instant,
    pub(super) patience: Duration,
    pub(super) stopping: bool,
    pub(super) feeder_waits: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// None once it is settled: the entry then only waits for those before it.
    pub(super) record: Option<Arc<Record>>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) accepted: Instant,
    pub(super) handed_over: Instant,
    /// Whether it was handed over with nothing else in flight, and nothing since.
    pub(super) alone: bool,
}

impl State {
    /// Nothing waits, and no producer has begun.
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            generation: 0,
            in_flight: 0,
            last_travels_alone: false,
            failure: None,
            alone_below: 0,
            progress: false,
            last_progress: Instant::now(),
            patience: PATIENCE,
            stopping: false,
            feeder_waits: false,
        }
    }

    /// Takes the next records for the producer, as many as its window lets in.
    pub(super) fn hand_over(&mut self) -> Vec<(u64, Arc<Record>)> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while let Some(entry) = self.entries.get_mut((self.next - self.first) as usize) {
            let Some(record) = &entry.record else {
                self.next += 1;
                continue;
            };
            let full = self.in_flight >= MAX_IN_FLIGHT || batch.len() == BATCH;
            let alone = self.next < self.alone_below;
            if full || self.in_flight > 0 && (alone || self.last_travels_alone) {
                break;
            }
            if self.in_flight == 0 {
                self.last_progress = now;
            }
            entry.alone = alone;
            self.last_travels_alone = alone;
            entry.handed_over = now;
            batch.push((self.next, Arc::clone(record)));
            self.next += 1;
            self.in_flight += 1;
        }
        batch
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.in_flight > 0 && self.last_progress.elapsed() >= self.patience
    }

    pub(super) fn is_alone(&self, number: u64) -> bool {
        let at = number.checked_sub(self.first);
        let entry = at.and_then(|at| self.entries.get(at as usize));
        entry.is_some_and(|entry| entry.alone)
    }

    /// Ends the wait of one record; None where an earlier report has done so.
    pub(super) fn settle(&mut self, number: u64) -> Option<(Arc<Record>, Arc<Ticket>, Instant)> {
        self.last_progress = Instant::now();
        let at = number.checked_sub(self.first)?;
        let entry = self.entries.get_mut(at as usize)?;
        let record = entry.record.take()?;
        self.progress = true;
        let settled = (record, Arc::clone(&entry.ticket), entry.handed_over);
        self.bytes -= settled.0.size();
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.record.is_none())
        {
            // The entry itself takes room until all before it are settled.
            self.entries.pop_front();
            self.bytes -= COST_OF_A_RECORD;
            self.first += 1;
        }
        self.next = self.next.max(self.first);
        Some(settled)
    }
}
