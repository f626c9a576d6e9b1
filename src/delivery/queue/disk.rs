//! The queue as the spooler uses it: what to write to disk, what is there, what to delete.

use std::time::Instant;

use super::Queue;
use crate::delivery::ticket::Durability;
use crate::event::{Lane, Record};
use crate::spool::Row;

impl Queue {
    /// When the oldest record that is not durable is due to be written; `None` if all are durable.
    pub(in crate::delivery) fn spool_due(&self) -> Option<Instant> {
        let state = self.lock();
        let oldest = state.oldest_volatile()?;
        match &self.disk {
            Some(disk) if !self.is_late(&state) && !state.finishing => {
                oldest.checked_add(disk.after)
            }
            _ => Some(oldest),
        }
    }

    /// The records that are not durable, in order, up to about this many bytes.
    pub(in crate::delivery) fn volatile_rows(&self, limit: usize) -> Vec<Row> {
        self.lock().volatile_rows(limit)
    }

    /// Takes note that these rows are on disk, synced.
    pub(in crate::delivery) fn mark_spooled(&self, rows: &[Row]) {
        let mut state = self.lock();
        let durable = state.mark_spooled(rows);
        self.wake_publisher(&mut state);
        drop(state);
        for (record, ticket) in durable {
            let durability = match record.lane() {
                Lane::Events => Durability::Spooled,
                Lane::DeadLetters => Durability::DeadLettered,
            };
            self.notify(&record, &ticket, durability);
        }
    }

    /// The rows that can be deleted, in the order in which they were settled. They stay in this
    /// list until they are [deleted](Self::mark_deleted), because its length bounds what is read.
    pub(in crate::delivery) fn deletable_rows(&self) -> Vec<u64> {
        self.lock().deletable.clone()
    }

    pub(in crate::delivery) fn has_deletable_rows(&self) -> bool {
        !self.lock().deletable.is_empty()
    }

    /// Takes note that the first `count` deletable rows are deleted.
    pub(in crate::delivery) fn mark_deleted(&self, count: usize) {
        let mut state = self.lock();
        let count = count.min(state.deletable.len());
        state.deletable.drain(..count);
        // The publisher may read on now.
        self.wake_publisher(&mut state);
    }

    /// Takes the rows that are to be marked as refused.
    pub(in crate::delivery) fn take_unmarked_refused(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().unmarked_refused)
    }

    /// Returns rows that could not be marked.
    pub(in crate::delivery) fn return_unmarked_refused(&self, refused: &[u64]) {
        self.lock().unmarked_refused.extend(refused);
    }

    /// Adds records that were read from disk, in order.
    pub(in crate::delivery) fn add_from_disk(&self, records: Vec<(u64, Record)>) {
        self.lock().add_from_disk(records);
    }
}
