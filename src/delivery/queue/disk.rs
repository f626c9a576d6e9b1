//! The queue as the spooler uses it: what to write to disk, and what to delete there.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::state::{Entry, QueueState, RECORD_OVERHEAD_BYTES};
use super::{MAX_UNDELETED_ROWS, Queue};
use crate::delivery::ticket::{Durability, Ticket};
use crate::event::Record;
use crate::spool::Row;

/// If no row could be deleted for this long, reading goes on all the same. A disk that deletes
/// nothing must not hold up what is on it; after a crash, more is then published again.
const DELETION_OVERDUE: Duration = Duration::from_secs(2);

impl Queue {
    /// When the first record is due to be written; `None` if all are durable.
    pub(in crate::delivery) fn spool_due(&self) -> Option<Instant> {
        let state = self.lock();
        let oldest = state.oldest_volatile()?;
        match self.disk {
            Some(disk) if state.urgent.is_empty() && !state.finishing && !self.is_late() => {
                oldest.checked_add(disk.after)
            }
            _ => Some(oldest),
        }
    }

    /// The records that are due to be written, in order, up to about this many bytes.
    pub(in crate::delivery) fn due_rows(&self, now: Instant, limit: usize) -> Vec<Row> {
        let mut state = self.lock();
        let after = match self.disk {
            Some(disk) if !state.finishing && !self.is_late() => disk.after,
            _ => Duration::ZERO,
        };
        let rows = state.due_rows(now, after, limit);
        state.writing = rows.iter().map(|row| row.number).collect();
        rows
    }

    /// Takes note that these rows are on disk, synced.
    pub(in crate::delivery) fn mark_spooled(&self, rows: &[Row]) {
        let mut state = self.lock();
        let durable = state.mark_spooled(rows);
        drop(state);
        self.wake_reader();
        let now = SystemTime::now();
        for (record, ticket) in durable {
            let durability = match record.is_dead_letter() {
                false => Durability::Spooled,
                true => Durability::DeadLettered,
            };
            self.notify(&record, &ticket, durability, now);
        }
    }

    /// Some of the rows that can be deleted. They stay in this list until they are
    /// [deleted](Self::mark_deleted), because its length bounds what is read.
    pub(in crate::delivery) fn deletable_rows(&self) -> Vec<u64> {
        let state = self.lock();
        state
            .deletable
            .iter()
            .take(MAX_UNDELETED_ROWS)
            .copied()
            .collect()
    }

    /// How many rows are on disk that Kafka has.
    pub(in crate::delivery) fn undeleted_rows(&self) -> usize {
        self.lock().deletable.len()
    }

    /// The same, if none of them could be deleted for long; else 0.
    pub(in crate::delivery) fn overdue_rows(&self) -> usize {
        let state = self.lock();
        match state.last_deletion.elapsed() >= DELETION_OVERDUE {
            true => state.deletable.len(),
            false => 0,
        }
    }

    pub(in crate::delivery) fn has_deletable_rows(&self) -> bool {
        !self.lock().deletable.is_empty()
    }

    /// Takes note that these rows are not on disk any more. They may be rows of another lane.
    pub(in crate::delivery) fn mark_deleted(&self, rows: &[u64]) {
        let mut state = self.lock();
        for number in rows {
            let is_ours = state.deletable.remove(number);
            if is_ours {
                state.last_deletion = Instant::now();
            }
            if (state.replaced.remove(number) || is_ours) && state.is_reading {
                state.deleted_meanwhile.insert(*number);
            }
        }
        drop(state);
        self.wake_reader();
    }

    /// Some of the rows that are to be marked as refused, the first ones.
    pub(in crate::delivery) fn unmarked_refused(&self) -> Vec<u64> {
        let state = self.lock();
        let refused = state.unmarked_refused.iter().take(MAX_UNDELETED_ROWS);
        refused.copied().collect()
    }

    /// Takes note that these rows are marked as refused: reads that begin now skip them.
    pub(in crate::delivery) fn mark_refused(&self, rows: &[u64]) {
        let mut state = self.lock();
        for number in rows {
            state.unmarked_refused.remove(number);
            if state.is_reading {
                state.deleted_meanwhile.insert(*number);
            }
        }
    }
}

impl QueueState {
    fn due_rows(&self, now: Instant, after: Duration, limit: usize) -> Vec<Row> {
        let is_due = |entry: &Entry| now.saturating_duration_since(entry.accepted) >= after;
        let aged = self.fresh.iter().take_while(|(_, entry)| is_due(entry));
        let aged = aged.map(|(number, entry)| (*number, entry));
        let urgent = self.urgent.iter().filter_map(|number| {
            let entry = self.fresh.get(number)?;
            (!is_due(entry)).then_some((*number, entry))
        });
        let mut bytes = 0;
        let fits = |(_, entry): &(u64, &Entry)| {
            let fits = bytes < limit;
            bytes += entry.cost();
            fits
        };
        // Those that are due by their age come before all others.
        let due = aged.chain(urgent).take_while(fits);
        due.map(|(number, entry)| Row {
            refused: entry.refused,
            replaces: entry.replaces,
            ..Row::new(number, Arc::clone(&entry.record))
        })
        .collect()
    }

    /// Returns the tickets of the records that have become durable with this.
    fn mark_spooled(&mut self, rows: &[Row]) -> Vec<(Arc<Record>, Arc<Ticket>)> {
        self.writes += 1;
        self.writing.clear();
        let mut durable = Vec::new();
        for row in rows {
            self.last_row = self.last_row.max(row.number);
            let Some(mut entry) = self.fresh.remove(&row.number) else {
                // Settled during the write.
                self.mark_deletable(row.number);
                continue;
            };
            self.bytes -= row.record.size() + RECORD_OVERHEAD_BYTES;
            self.urgent.remove(&row.number);
            entry.replaces = None;
            let ticket = entry.ticket.take();
            durable.extend(ticket.map(|ticket| (Arc::clone(&row.record), ticket)));
            if entry.refused {
                if !row.refused {
                    self.unmarked_refused.insert(row.number);
                }
                continue;
            }
            self.put_on_disk(row.number, entry);
        }
        durable
    }

    /// A record with a producer stays in memory. Any other is read back when it is its turn.
    fn put_on_disk(&mut self, number: u64, entry: Entry) {
        let hash = entry.hash;
        if self.is_ordered {
            self.keys.unhold(hash, number);
            self.keys.add_row(hash, entry.is_sent());
        }
        if entry.is_sent() {
            self.spooled.insert(number, entry);
            return;
        }
        let at = self.partitions.of(hash);
        *self.rows_on_disk(at, hash) += 1;
        self.partitions.at(at).drop_to_disk(number);
    }

    /// The number that counts the rows of this key that are on disk only.
    pub(super) fn rows_on_disk(&mut self, at: usize, hash: u32) -> &mut usize {
        match self.keys.is_tracked(hash) {
            true => &mut self.partitions.at(at).on_disk,
            false => &mut self.untracked_on_disk,
        }
    }

    pub(super) fn may_read(&self) -> bool {
        let deletes = self.deletable.len() < MAX_UNDELETED_ROWS
            || self.last_deletion.elapsed() >= DELETION_OVERDUE;
        deletes && !self.finishing
    }
}
