//! What follows when the number of partitions becomes known or changes.

use super::Via;
use super::partition::Partition;
use super::partitions::Partitions;
use super::state::{QueueState, Stage};

impl QueueState {
    /// Sets the number of partitions, once it is known or has changed.
    pub(super) fn set_partitions(&mut self, count: usize) {
        if count == self.partitions.count() || count == 0 {
            return;
        }
        let mut partitions = Partitions::new(count);
        let read_to = (self.partitions.iter()).map(Partition::effective_read_to);
        let read_to = read_to.min().unwrap_or(0);
        for partition in partitions.iter_mut() {
            partition.read_to = read_to;
        }
        for (hash, rows) in self.keys.rows() {
            let at = partitions.of(hash);
            partitions.at(at).on_disk += rows as usize;
        }
        let spooled = self
            .spooled
            .iter()
            .map(|(number, entry)| (number, entry, true));
        let fresh = self
            .fresh
            .iter()
            .map(|(number, entry)| (number, entry, false));
        for (number, entry, on_disk) in spooled.chain(fresh) {
            let (at, size) = (partitions.of(entry.hash), entry.record.size());
            if on_disk && self.keys.is_tracked(entry.hash) {
                // A key may have rows beyond those that were tracked.
                let partition = partitions.at(at);
                partition.on_disk = partition.on_disk.saturating_sub(1);
            }
            if on_disk && !entry.is_sent() {
                partitions.loaded(at, size);
            }
            match entry.stage {
                Stage::Waiting => partitions.push(at, entry.via, *number),
                Stage::Sent { to, at: since } => {
                    partitions.entered_flight(at, to, size, since);
                    partitions.at(at).suspect_in_flight |= entry.via == Via::Suspect;
                }
                Stage::Held => {}
            }
        }
        self.partitions = partitions;
    }
}
