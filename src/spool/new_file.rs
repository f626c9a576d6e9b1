//! A new spool file that takes the place of the old one once it is complete and synced.

use std::fs::{self, File};
use std::io;

use super::error::Error;
use super::folder::Folder;
use super::store::Store;
use super::{DATABASE_FILE, Row};

/// The new file while it is being filled, and its WAL.
pub(super) const NEW_FILE: &str = "spool.new";
pub(super) const NEW_WAL_FILE: &str = "spool.new-wal";

/// The limits of the transactions that fill it.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The new file goes on this far behind every number that is known to have been on disk. More may
/// have been there: of rows that are deleted, or that damage has made unreadable. No program gives
/// as many numbers in 80 years, at 100,000 records per second.
const NUMBERS_SKIPPED: u64 = 1 << 48;

/// Higher numbers are replaced by the next ones behind it, in order. Format 1 took them from the
/// clock, and one that is centuries ahead leaves no numbers to go on with, or negative ones.
pub(super) const KEPT_NUMBER_MAX: u64 = (1 << 63) - (1 << 60);

/// The new file while it is being filled.
pub(super) struct NewFile {
    store: Store,
    /// How many rows have got another number.
    renumbered: u64,
    batch: Vec<Row>,
    bytes: usize,
}

impl NewFile {
    /// Creates it, in place of an unfinished one.
    pub(super) fn create(folder: &Folder) -> Result<Self, Error> {
        let failed = Error::io("cannot write spool.new");
        remove(folder).map_err(failed)?;
        Ok(Self {
            store: Store::open(&folder.create(NEW_FILE).map_err(failed)?)?,
            renumbered: 0,
            batch: Vec::new(),
            bytes: 0,
        })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, mut row: Row) -> Result<(), Error> {
        if row.number > KEPT_NUMBER_MAX {
            self.renumbered += 1;
            row.number = KEPT_NUMBER_MAX + self.renumbered;
        }
        self.bytes += row.record.size();
        self.batch.push(row);
        if self.batch.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.store.append(&self.batch)?;
            self.batch.clear();
            self.bytes = 0;
        }
        Ok(())
    }

    /// Writes the last batch, so that all rows are in one synced file, which goes on far behind its
    /// numbers and behind `last`.
    pub(super) fn complete(mut self, last: u64) -> Result<(), Error> {
        self.store.append(&self.batch)?;
        let last = self.store.last().max(last);
        self.store.raise_last(last + NUMBERS_SKIPPED)?;
        self.store.empty_wal()
    }
}

/// Puts the complete file in the place of the old one, whose WAL must be gone.
pub(super) fn move_into_place(folder: &Folder) -> io::Result<()> {
    File::open(folder.file(NEW_FILE))?.sync_all()?;
    folder.sync()?;
    fs::rename(folder.file(NEW_FILE), folder.file(DATABASE_FILE))?;
    folder.sync()
}

/// Removes an unfinished file.
pub(super) fn remove(folder: &Folder) -> io::Result<()> {
    for name in [NEW_FILE, NEW_WAL_FILE] {
        ignore_missing(fs::remove_file(folder.file(name)))?;
    }
    Ok(())
}

/// What is not there need not be removed or moved.
pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
