//! Two hash tables over the entries of the window, with a fixed number of buckets. A table that
//! grows, or clears the traces of removed entries, does so at once: tens of milliseconds under the
//! lock.

use std::hash::{BuildHasher, RandomState};

use super::chunks::{Chunks, Place};
use super::{Entry, Key};

/// The buckets of each table. A full window has about two entries for each.
const BUCKETS: usize = 1 << 18;

/// What a table looks up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The callback.
    Key,
    /// The signature alone.
    Signature,
}

/// Something of each table.
#[derive(Clone, Copy)]
pub(super) struct ForEach<T> {
    key: T,
    signature: T,
}

impl<T> ForEach<T> {
    fn get(&self, by: By) -> &T {
        match by {
            By::Key => &self.key,
            By::Signature => &self.signature,
        }
    }

    fn get_mut(&mut self, by: By) -> &mut T {
        match by {
            By::Key => &mut self.key,
            By::Signature => &mut self.signature,
        }
    }
}

/// The next entries in the buckets of an entry.
pub(super) type Next = ForEach<Place>;

impl Next {
    pub(super) const NONE: Self = Self {
        key: Place::NONE,
        signature: Place::NONE,
    };
}

/// Both tables. An entry is linked into its buckets by its own [`Next`]. Of several entries that
/// are equal to a table, only the last one linked is in it, so no number of bodies under one
/// signature makes a bucket longer.
pub(super) struct Index {
    buckets: ForEach<Box<[Place]>>,
    hasher: RandomState,
}

impl Index {
    pub(super) const BYTES: usize = 2 * BUCKETS * size_of::<Place>();

    pub(super) fn find<'a>(
        &self,
        entries: &'a Chunks<Entry>,
        by: By,
        key: &Key,
    ) -> Option<&'a Entry> {
        let mut entry = entries.get(*self.buckets.get(by).get(self.bucket(by, key))?)?;
        while !entry.key.is_equal(by, key) {
            entry = entries.get(*entry.next.get(by))?;
        }
        Some(entry)
    }

    /// Links the entry at this place, instead of an equal one.
    pub(super) fn link(&mut self, entries: &mut Chunks<Entry>, by: By, place: Place) {
        let Some(&Entry { key, .. }) = entries.get(place) else {
            return;
        };
        self.unlink(entries, by, &key, |_, entry| entry.key.is_equal(by, &key));
        let bucket = self.bucket(by, &key);
        if let Some(first) = self.buckets.get_mut(by).get_mut(bucket)
            && let Some(entry) = entries.get_mut(place)
        {
            *entry.next.get_mut(by) = *first;
            *first = place;
        }
    }

    /// Unlinks the entry in the key's bucket of which this holds, if there is one.
    pub(super) fn unlink(
        &mut self,
        entries: &mut Chunks<Entry>,
        by: By,
        key: &Key,
        is_it: impl Fn(Place, &Entry) -> bool,
    ) {
        let bucket = self.bucket(by, key);
        let Some(first) = self.buckets.get_mut(by).get_mut(bucket) else {
            return;
        };
        let (mut previous, mut place) = (None, *first);
        while let Some(entry) = entries.get(place) {
            let next = *entry.next.get(by);
            if is_it(place, entry) {
                match previous.and_then(|previous| entries.get_mut(previous)) {
                    Some(previous) => *previous.next.get_mut(by) = next,
                    None => *first = next,
                }
                return;
            }
            (previous, place) = (Some(place), next);
        }
    }

    fn bucket(&self, by: By, key: &Key) -> usize {
        let hash = match by {
            By::Key => self.hasher.hash_one(key.callback),
            By::Signature => self.hasher.hash_one(key.signature),
        };
        hash as usize % BUCKETS
    }

    /// How many entries are in a table, and in its longest bucket.
    #[cfg(test)]
    pub(super) fn measure(&self, entries: &Chunks<Entry>, by: By) -> (usize, usize) {
        let used = self.buckets.get(by).iter();
        let used = used.filter(|first| **first != Place::NONE);
        let lengths = used.map(|&first| {
            let next = |entry: &&Entry| entries.get(*entry.next.get(by));
            std::iter::successors(entries.get(first), next).count()
        });
        lengths.fold((0, 0), |(sum, longest), length| {
            (sum + length, longest.max(length))
        })
    }
}

impl Default for Index {
    fn default() -> Self {
        let buckets = || vec![Place::NONE; BUCKETS].into_boxed_slice();
        Self {
            buckets: ForEach {
                key: buckets(),
                signature: buckets(),
            },
            hasher: RandomState::new(),
        }
    }
}
