//! The space that the spool may use, and how it gives space back.

use std::time::{Duration, Instant};

use super::Spool;
use super::error::Error;

/// The pause before the reserve file is allocated again after it was released.
const RESERVE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A file with more unused pages than this is compacted once few of its pages are in use. While the
/// reserve is missing any unused page is enough, because compacting may make space for it.
const COMPACT_FREE_PAGES: i64 = 4096;
const COMPACT_USED_PAGES_MAX: i64 = 1024;

/// What the limit is shared by. Each has a part that the other cannot use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// The events of all topics.
    Events,
    /// The dead letters.
    DeadLetters,
}

impl Spool {
    /// Whether this many more bytes of a share are within the limit. A topic that is missing must not
    /// use up the space of dead letters, nor the other way round.
    pub(crate) fn has_space(&self, share: Share, bytes: usize) -> Result<bool, Error> {
        let max = self.settings.max_bytes;
        let bytes = bytes as u64;
        let fits = |used: u64| match share {
            Share::Events => used + bytes <= max / 8 * 7,
            // What is not known to be used by events counts as used by dead letters.
            Share::DeadLetters => {
                let by_dead_letters = used.saturating_sub(self.store.event_bytes());
                used + bytes <= max && by_dead_letters + bytes <= max / 4 * 3
            }
        };
        if fits(self.store.used_bytes()?) {
            return Ok(true);
        }
        // The WAL may hold what is deleted by now.
        match self.store.checkpoint() {
            Err(Error::Unwritable(_)) => Ok(false),
            checkpoint => checkpoint.and_then(|_| Ok(fits(self.store.used_bytes()?))),
        }
    }

    /// Returns space to the disk once the spool is nearly empty.
    pub(crate) fn tidy(&mut self) -> Result<(), Error> {
        if self.store.checkpoint_pauses() || !std::mem::take(&mut self.written) {
            return Ok(());
        }
        let mut tidied = Ok(true);
        if self.store.records().0 == 0 || self.store.checkpoint_is_due() {
            tidied = self.store.checkpoint();
        }
        let tolerated_free_pages = match self.reserve {
            Ok(()) => COMPACT_FREE_PAGES,
            Err(_) => 0,
        };
        let is_nearly_empty = self.store.used_pages()? < COMPACT_USED_PAGES_MAX;
        let is_due = matches!(tidied, Ok(true)) && is_nearly_empty;
        if is_due && self.store.free_pages()? > tolerated_free_pages {
            tidied = self.store.compact();
        }
        self.note_write(tidied.is_err());
        // After a read that prevented it, or without free space for it, a later call tries again.
        self.written = matches!(tidied, Ok(false) | Err(Error::Unwritable(_)));
        match tidied {
            // It can wait until there is free space.
            Err(Error::Unwritable(_)) => Ok(()),
            tidied => tidied.map(drop),
        }
    }

    /// Nothing is appended while the reserve file is missing. Its space is only for deletions;
    /// otherwise a full disk would stay full.
    pub(super) fn ensure_reserve(&mut self) -> Result<(), Error> {
        match self.reserve {
            Ok(()) => return Ok(()),
            Err(tried) if tried.elapsed() < RESERVE_RETRY_PAUSE => {}
            Err(_) if self.folder.allocate_reserve() => self.reserve = Ok(()),
            Err(_) => self.reserve = Err(Instant::now()),
        }
        self.reserve
            .map_err(|_| Error::Unwritable("no space for the reserve file".into()))
    }

    /// Frees the space of the reserve file, so that rows that Kafka has can be deleted.
    pub(super) fn release_reserve(&mut self) {
        if self.reserve.is_ok() {
            self.reserve = Err(Instant::now());
        }
        if self.folder.release_reserve() {
            tracing::warn!(
                "the spool's disk is full or takes no writes; deleted the reserve file so that published records can still be deleted"
            );
        }
        drop(self.store.truncate_wal());
        // The contents of the WAL may need space in the file before the WAL can be used again. If
        // even that fails, the deletions will report it.
        drop(self.store.checkpoint());
    }
}
