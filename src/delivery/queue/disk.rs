//! The spooler's side: what is to be written to disk, what is there, and what can be deleted again.

use std::time::Instant;

use super::Queue;
use crate::delivery::spool::Row;
use crate::delivery::ticket::Safe;
use crate::event::{Kind, Record};

impl Queue {
    /// When the oldest record that is not safe is to be written to disk; none where all are safe.
    pub(in crate::delivery) fn spool_at(&self) -> Option<Instant> {
        let state = self.lock();
        let oldest = state.oldest_unsafe()?;
        match &self.disk {
            Some(disk) if !self.is_late(&state) && !state.finishing => {
                oldest.checked_add(disk.after)
            }
            _ => Some(oldest),
        }
    }

    /// What is not safe, in order, or as much of it as fits into so many bytes.
    pub(in crate::delivery) fn rows(&self, limit: usize) -> Vec<Row> {
        self.lock().rows(limit)
    }

    /// These rows are on disk, synced.
    pub(in crate::delivery) fn spooled(&self, rows: &[Row]) {
        let mut state = self.lock();
        let safe = state.spooled(rows);
        self.wake(&mut state);
        drop(state);
        for (record, ticket) in safe {
            let safe = match record.kind {
                Kind::GroupJoined { .. } => Safe::Spooled,
                Kind::DeadLetter(_) => Safe::DeadLettered,
            };
            self.tell(&record, &ticket, safe);
        }
    }

    /// Rows on disk that can be deleted, in the order in which they came to that. They stay in here until
    /// they are [deleted](Self::deleted): they bound what is read.
    pub(in crate::delivery) fn done(&self) -> Vec<u64> {
        self.lock().done.clone()
    }

    pub(in crate::delivery) fn has_done(&self) -> bool {
        !self.lock().done.is_empty()
    }

    /// The first so many of them are deleted.
    pub(in crate::delivery) fn deleted(&self, count: usize) {
        let mut state = self.lock();
        let count = count.min(state.done.len());
        state.done.drain(..count);
        // The feeder may read on.
        self.wake(&mut state);
    }

    /// Rows on disk that are to be marked as refused.
    pub(in crate::delivery) fn take_refused(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().refused)
    }

    /// The disk did not take the marks.
    pub(in crate::delivery) fn give_back_refused(&self, refused: &[u64]) {
        self.lock().refused.extend(refused);
    }

    /// Takes in what was read from disk, in order.
    pub(in crate::delivery) fn loaded(&self, records: Vec<(u64, Record)>) {
        self.lock().loaded(records);
    }
}
