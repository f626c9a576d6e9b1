//! Which keys have rows on disk.

use hashbrown::HashMap;

use crate::event::key_hash;

/// The most distinct keys of rows on disk that are tracked, for each event and each topic.
pub const MAX_TRACKED_KEYS: usize = 500_000;

/// The keys of the events on disk that are not refused.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct KeyRows {
    /// The number of rows by [`key_hash`]. Rows without a key are not counted.
    pub(crate) rows: HashMap<u32, u32>,
    /// The number of rows whose keys are beyond the first [`MAX_TRACKED_KEYS`].
    pub(crate) untracked: usize,
}

impl KeyRows {
    pub(super) fn add(&mut self, key: &[u8]) {
        self.add_within(MAX_TRACKED_KEYS, key_hash(key), 1);
    }

    /// Adds the rows of another event.
    pub(super) fn merge(&mut self, other: Self) {
        self.untracked += other.untracked;
        for (hash, rows) in other.rows {
            self.add_within(MAX_TRACKED_KEYS, hash, rows);
        }
    }

    fn add_within(&mut self, limit: usize, hash: u32, more: u32) {
        if let Some(rows) = self.rows.get_mut(&hash) {
            *rows = rows.saturating_add(more);
        } else if self.rows.len() < limit {
            self.rows.insert(hash, more);
        } else {
            self.untracked += more as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_beyond_the_limit_are_only_counted() {
        let mut keys = KeyRows::default();
        for hash in [1, 2, 1, 3, 2, 4, 3] {
            keys.add_within(2, hash, 1);
        }
        assert_eq!(keys.rows, HashMap::from([(1, 2), (2, 2)]));
        assert_eq!(keys.untracked, 3);
        keys.merge(keys.clone());
        assert_eq!(keys.rows, HashMap::from([(1, 4), (2, 4)]));
        assert_eq!(keys.untracked, 6);
    }
}
