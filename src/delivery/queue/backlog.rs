//! The queue as the reader uses it: which rows to read from disk.
//!
//! One scan over the disk serves all partitions. Each has read all its rows up to a number of its
//! own, so a partition that is stuck does not stop the others, and its rows are read later.

use std::sync::Arc;

use super::partition::Partition;
use super::state::{Entry, QueueState, key_hash};
use super::{Queue, Via};
use crate::event::Record;

/// Which rows of a lane the next scan takes.
#[derive(Debug)]
pub(in crate::delivery) struct ReadPlan {
    /// Rows up to this number are not wanted.
    pub(in crate::delivery) after: u64,
    partitions: Vec<PlannedPartition>,
    writes: u64,
}

#[derive(Debug, Clone, Copy)]
struct PlannedPartition {
    read_to: u64,
    /// How many rows it still takes.
    room: usize,
    state: Planned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planned {
    /// Takes no part in this scan.
    Closed,
    /// Takes what comes.
    Open,
    /// Was full at this row.
    FullAt(u64),
}

/// Rows that the disk should hold are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) struct Missing;

impl ReadPlan {
    /// Whether this row is to be read.
    pub(in crate::delivery) fn wants(&mut self, number: u64, key: Option<&[u8]>) -> bool {
        let at = key_hash(number, key) as usize % self.partitions.len();
        let Some(partition) = self.partitions.get_mut(at) else {
            return false;
        };
        if partition.state != Planned::Open || number <= partition.read_to {
            return false;
        }
        if partition.room == 0 {
            partition.state = Planned::FullAt(number);
            return false;
        }
        partition.room -= 1;
        true
    }
}

impl Queue {
    /// Plans the next read; `None` if nothing is to be read now.
    pub(in crate::delivery) fn plan_read(&self) -> Option<ReadPlan> {
        self.lock().plan_read()
    }

    /// Adds the rows that a plan wanted. `end` is the last row that the scan has looked at, and
    /// `complete` tells whether there is none behind it.
    pub(in crate::delivery) fn add_from_disk(
        &self,
        plan: &ReadPlan,
        records: Vec<(u64, Record)>,
        end: u64,
        complete: bool,
    ) -> Result<(), Missing> {
        let added = self.lock().add_from_disk(plan, records, end, complete);
        self.wakeups.publisher.wake();
        added
    }

    pub(super) fn wake_reader(&self) {
        if self.disk.is_some() && self.lock().wants_rows() {
            self.wakeups.reader.wake();
        }
    }
}

impl QueueState {
    fn has_rows_to_read(&self) -> bool {
        self.untracked_on_disk > 0
            || self
                .partitions
                .iter()
                .any(|partition| partition.on_disk > 0)
    }

    /// Whether a partition has few rows in memory and more on disk.
    pub(super) fn wants_rows(&self) -> bool {
        let wants =
            |partition| self.has_unread_rows(partition) && self.partitions.runs_low(partition);
        self.has_rows_to_read() && self.may_read() && self.partitions.iter().any(wants)
    }

    fn has_unread_rows(&self, partition: &Partition) -> bool {
        let read_to = partition.effective_read_to();
        (partition.on_disk > 0 || self.untracked_on_disk > 0) && read_to < self.last_row
    }

    fn plan_read(&mut self) -> Option<ReadPlan> {
        if !self.wants_rows() {
            return None;
        }
        let mut after = None;
        let planned: Vec<_> = (self.partitions.iter())
            .map(|partition| {
                let read_to = partition.effective_read_to();
                let room = self.partitions.room_to_load(partition);
                let is_open = self.has_unread_rows(partition) && room > 0;
                if is_open {
                    after = Some(after.map_or(read_to, |after: u64| after.min(read_to)));
                }
                PlannedPartition {
                    read_to,
                    room,
                    state: if is_open {
                        Planned::Open
                    } else {
                        Planned::Closed
                    },
                }
            })
            .collect();
        for partition in self.partitions.iter_mut() {
            partition.read_to = partition.effective_read_to();
            partition.dropped = None;
        }
        self.is_reading = true;
        self.deleted_meanwhile.clear();
        Some(ReadPlan {
            after: after?,
            partitions: planned,
            writes: self.writes,
        })
    }

    fn add_from_disk(
        &mut self,
        plan: &ReadPlan,
        records: Vec<(u64, Record)>,
        end: u64,
        complete: bool,
    ) -> Result<(), Missing> {
        self.is_reading = false;
        if plan.partitions.len() != self.partitions.count() {
            // Their number has changed meanwhile. What was read is read again.
            return Ok(());
        }
        for (number, record) in records {
            self.add_row(number, record);
        }
        let mut is_missing = false;
        let is_ordered = self.is_ordered;
        for (partition, planned) in self.partitions.iter_mut().zip(&plan.partitions) {
            match planned.state {
                Planned::Closed => {}
                Planned::Open => {
                    partition.read_to = planned.read_to.max(end);
                    // A plan whose number of partitions is not known yet cannot tell.
                    is_missing |= is_ordered && partition.on_disk > 0;
                }
                Planned::FullAt(number) => partition.read_to = planned.read_to.max(number - 1),
            }
        }
        match is_missing && complete && self.writes == plan.writes {
            true => Err(Missing),
            false => Ok(()),
        }
    }

    fn add_row(&mut self, number: u64, record: Record) {
        let is_known = self.fresh.contains_key(&number)
            || self.spooled.contains_key(&number)
            || self.writing.contains(&number)
            || self.deletable.contains(&number)
            || self.deleted_meanwhile.contains(&number)
            || self.replaced.contains(&number)
            || self.unmarked_refused.contains(&number);
        if is_known {
            return;
        }
        let hash = key_hash(number, record.key.as_deref());
        let at = self.partitions.of(hash);
        // An earlier row was written after the plan, which passes it over. The next one wants both.
        if self
            .partitions
            .at(at)
            .dropped
            .is_some_and(|dropped| dropped < number)
        {
            return;
        }
        let size = record.size();
        let via = self.via(hash);
        let entry = Entry::new(Arc::new(record), hash, via);
        let on_disk = self.rows_on_disk(at, hash);
        *on_disk = on_disk.saturating_sub(1);
        self.partitions.loaded(at, size);
        self.spooled.insert(number, entry);
        if self.is_ordered {
            self.keys.load(hash, number);
            self.advance(hash);
        } else {
            self.release_row(at, number, Via::Side);
        }
    }
}
