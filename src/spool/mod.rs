//! The spool: records on disk that Kafka has not taken in time. The only module that knows SQLite.
//!
//! SQLite, because it is very well tested, an operator can open the file with `sqlite3`, and using
//! it takes few lines. An event that Kafka takes in time never touches the spool, so its cost does
//! not matter much.

mod connection;
mod contents;
mod error;
mod folder;
mod format;
mod gap;
mod identity;
mod inspection;
mod keys;
mod migration;
mod new_file;
mod opening;
mod progress;
mod reader;
mod recovery;
mod refused;
mod row;
mod scan;
mod snapshot;
mod space;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connection::PAGE_BYTES;
pub use error::Error;
pub use folder::RESERVE_BYTES;
use folder::{Folder, LOCK_TIMEOUT};
use identity::Named;
pub use inspection::{inspect, inspect_folder};
pub(crate) use keys::KeyRows;
pub use keys::MAX_TRACKED_KEYS;
use progress::folder_failed;
pub use progress::{OpenStage, wait_until_released};
pub(crate) use reader::SpoolReader;
pub(crate) use recovery::RecoveryReport;
use row::Stored;
use scan::Scan;
pub use snapshot::{
    Damage, Group, Leftover, Reading, Snapshot, SnapshotError, Spooled, Summary, User, leftovers,
    user_of,
};
pub(crate) use space::Share;
use store::Store;

use crate::event::Record;

/// The database file, and SQLite's write-ahead log beside it.
const DATABASE_FILE: &str = "spool.db";
const WAL_FILE: &str = "spool.db-wal";

/// The most records that are read from disk at once.
pub const MAX_READ_RECORDS: usize = 1000;
/// The bytes after which a read takes no further record.
pub const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// A read or deletion ends after this time and continues after what is due to be written by then:
/// rows that are no longer in the system's cache come from the disk page by page.
const TIME_SLICE: Duration = Duration::from_millis(50);

/// On a full disk this many rows are deleted or marked at once. The pages they change are written to
/// the WAL, which must fit into the space of the reserve file: up to two pages per row, the table's
/// and the index's.
const FULL_DISK_ROWS: usize = RESERVE_BYTES / PAGE_BYTES as usize / 4;

/// Where the spool is and how it is used.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// Its folder.
    pub folder: PathBuf,
    /// Bytes that it may use on disk.
    pub max_bytes: u64,
    /// How long Kafka may take before an event is also written to disk.
    pub after: Duration,
}

/// The records that earlier runs left of an event, of all events of a topic, or of dead letters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Records to be published.
    pub(crate) rows: usize,
    /// The highest number, that of a refused row included.
    pub(crate) last: Option<u64>,
    /// The keys of the events among the records.
    pub(crate) keys: KeyRows,
}

impl Backlog {
    /// Adds that of another event.
    pub(crate) fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.last = self.last.max(other.last);
        self.keys.merge(other.keys);
    }
}

/// A record to be written.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) number: u64,
    pub(crate) record: Arc<Record>,
    /// Kafka rejects it permanently: it stays on disk and is not read again in this run.
    pub(crate) refused: bool,
    /// The row of the event whose dead letter this is; deleted in the same transaction.
    pub(crate) replaces: Option<u64>,
}

impl Row {
    pub(crate) fn new(number: u64, record: impl Into<Arc<Record>>) -> Self {
        Self {
            number,
            record: record.into(),
            refused: false,
            replaces: None,
        }
    }

    /// A row as it was on disk. A mark that has been altered counts as none.
    fn stored(number: u64, stored: Stored) -> Self {
        Self {
            refused: stored.refused.unwrap_or_default(),
            ..Self::new(number, stored.record)
        }
    }
}

/// An open spool. It belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    // Before the store, which truncates the WAL when it is the last to close.
    reader: Option<SpoolReader>,
    store: Store,
    /// Whether the reserve file is allocated; if not, when that was last tried.
    reserve: Result<(), Instant>,
    /// Whether the WAL holds what an earlier run wrote and this run could not sync again. A later
    /// sync would not make that durable, nor anything written behind it.
    wal_in_doubt: bool,
    /// Whether the WAL may hold the remains of a failed write.
    wal_has_remains: bool,
    /// Whether the names of the files are durable.
    names_synced: bool,
    /// The names that must still lead to the open files; empty if nothing is written.
    names: Vec<Named>,
    /// Whether anything was written since the last [`Spool::tidy`].
    written: bool,
    contents: contents::Contents,
    recovery: Option<RecoveryReport>,
    // Last, so that the lock outlives the file.
    folder: Arc<Folder>,
}

impl Spool {
    /// Opens the spool with the contents that earlier runs have left, and reads all of it once. One
    /// of an earlier version gets the current format, which takes as much free space as it uses.
    /// Waits up to 30 s for another process to release it. Damaged files are moved aside, and every
    /// record that can still be read is kept. In a folder that can only be read, what is there is
    /// opened and nothing is ever written. Blocks, and reports what it is doing: ten million
    /// records take minutes. A process that ends meanwhile damages nothing, as with any crash.
    ///
    /// # Errors
    ///
    /// If another process holds the lock, a newer version wrote it, or it cannot be read or
    /// written.
    pub fn open(settings: &SpoolSettings, report: &dyn Fn(OpenStage)) -> Result<Self, Error> {
        Self::open_reporting(settings, LOCK_TIMEOUT, report)
    }

    /// Like [`Spool::open`], with another time limit for the lock and without reports.
    ///
    /// # Errors
    ///
    /// As [`Spool::open`].
    pub fn open_within(settings: &SpoolSettings, lock_timeout: Duration) -> Result<Self, Error> {
        Self::open_reporting(settings, lock_timeout, &|_| {})
    }

    fn open_reporting(
        settings: &SpoolSettings,
        lock_timeout: Duration,
        report: &dyn Fn(OpenStage),
    ) -> Result<Self, Error> {
        let failed = folder_failed(lock_timeout);
        let folder = match Folder::claim(&settings.folder, Duration::ZERO) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                report(OpenStage::Waiting);
                Folder::claim(&settings.folder, lock_timeout)
            }
            claimed => claimed,
        };
        let folder = Arc::new(folder.map_err(failed)?);
        // A newer program's files are not touched.
        migration::format_on_disk(&folder)?;
        report(OpenStage::Checking);
        if folder.read_only().is_none() {
            recovery::finish(&folder).map_err(failed)?;
        }
        let (mut store, contents, recovery) = opening::open(&folder, report)?;
        let reader = SpoolReader::open(&folder, &store)?;
        let (reserve, names, names_synced) = match folder.read_only() {
            Some(reason) => {
                let (records, _) = store.records();
                tracing::error!(
                    "the spool in {} can only be read ({reason}): its {records} records are published and cannot be deleted, so the next start publishes them again. New events depend on Kafka alone. Make the folder writable, then start again",
                    settings.folder.display()
                );
                (Err(Instant::now()), Vec::new(), false)
            }
            None => {
                let reserve = match folder.allocate_reserve() {
                    true => Ok(()),
                    false => Err(Instant::now()),
                };
                let names = store.names(folder.file(DATABASE_FILE)).map_err(failed)?;
                (reserve, names.into(), folder.sync().is_ok())
            }
        };
        Ok(Self {
            settings: settings.clone(),
            wal_in_doubt: store.wal_bytes() > 0,
            reader: Some(reader),
            store,
            reserve,
            // On a full disk, opening may have been a write that failed.
            wal_has_remains: true,
            names_synced,
            names,
            written: true,
            contents,
            recovery,
            folder,
        })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &SpoolSettings {
        &self.settings
    }

    /// What was recovered, if the spool was found damaged at its opening.
    pub(crate) fn recovery(&self) -> Option<&RecoveryReport> {
        self.recovery.as_ref()
    }

    /// Writes nothing more, not even when dropped.
    pub(crate) fn abandon(&self) {
        self.store.keep_wal();
    }

    /// Lets the next start recover the spool, because it is damaged.
    pub(crate) fn mark_damaged(&self) {
        self.folder.mark_damaged();
    }

    /// Whether nothing can be written in this run.
    pub(crate) fn is_read_only(&self) -> bool {
        self.folder.read_only().is_some()
    }

    /// Requires that the files are still under their names. Otherwise another process may use the
    /// folder, and what is written is lost when this one ends.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`], or another one if that cannot be found out now.
    pub(crate) fn verify(&self) -> Result<(), Error> {
        self.folder.verify()?;
        self.names.iter().try_for_each(Named::verify)
    }

    /// The first number that this run may give to a record: above every number that was ever on
    /// disk, those of deleted rows included, and never 0. A recovery may still find a deleted row,
    /// which must not pass for another record.
    pub(crate) fn next_number(&self) -> u64 {
        self.store.last() + 1
    }

    /// The backlog of each event, by its name, and of dead letters. This version may not know a
    /// name. To be taken once: empty after that.
    pub(crate) fn take_backlogs(&mut self) -> BTreeMap<Option<String>, Backlog> {
        std::mem::take(&mut self.contents.backlogs)
    }

    /// The connection that reads, for another thread; to be dropped before the spool. `None` if it
    /// was taken before.
    pub(crate) fn take_reader(&mut self) -> Option<SpoolReader> {
        self.reader.take()
    }

    /// Events with numbers above `after`, in order, up to the limits of a read. They are marked,
    /// because Kafka has rejected them permanently and their dead letters found no space. They stay
    /// on disk until their dead letters [replace](Row::replaces) them. Reads skip them, so none is
    /// sent again out of the order of its key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if one has been altered, else SQLite's.
    pub(crate) fn refused_events(&self, after: u64) -> Result<Scan, Error> {
        self.store.refused_events(after)
    }

    /// How many records are on disk, and how many of them Kafka rejects permanently.
    pub fn records(&self) -> (i64, i64) {
        self.store.records()
    }

    /// Bytes of the pages in use and of the WAL.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn used_bytes(&self) -> Result<u64, Error> {
        self.store.used_bytes()
    }

    /// When the oldest record that is not refused arrived, in ms since 1970-01-01 UTC.
    pub(crate) fn oldest(&self) -> Result<Option<i64>, Error> {
        self.store.oldest()
    }

    /// Writes rows and deletes those that they replace, in one transaction. The rows are synced to
    /// disk when this returns. They are durable once the files are [verified](Self::verify): then the
    /// next start will find them.
    pub(crate) fn write(&mut self, rows: &[Row]) -> Result<(), Error> {
        self.ensure_appendable()?;
        let written = self.store.append(rows);
        self.note_write(written.is_err());
        written
    }

    /// Deletes rows: the first of them at least, and as many as there is time for. Returns how many
    /// are gone. Rows that are not there any more are ignored.
    pub(crate) fn delete(&mut self, numbers: &[u64]) -> Result<usize, Error> {
        let deleted = self.ensure_reserve();
        let deleted = match deleted.and_then(|()| self.store.delete(numbers, TIME_SLICE)) {
            Err(Error::Unwritable(_)) => {
                self.release_reserve();
                let few = numbers.get(..FULL_DISK_ROWS).unwrap_or(numbers);
                self.store.delete(few, TIME_SLICE)
            }
            deleted => deleted,
        };
        self.note_write(deleted.is_err());
        deleted
    }

    /// Marks rows that Kafka rejects permanently: all of them, or on a full disk the first ones.
    /// Returns how many.
    pub(crate) fn mark_refused(&mut self, numbers: &[u64]) -> Result<usize, Error> {
        let marked = match self.store.mark_refused(numbers) {
            Err(Error::Unwritable(_)) => {
                self.release_reserve();
                let few = numbers.get(..FULL_DISK_ROWS).unwrap_or(numbers);
                self.store.mark_refused(few).map(|()| few.len())
            }
            marked => marked.map(|()| numbers.len()),
        };
        self.note_write(marked.is_err());
        marked
    }

    /// Writes and syncs something that changes nothing, to see whether a write would succeed.
    pub(crate) fn probe(&mut self) -> Result<(), Error> {
        self.ensure_appendable()?;
        let written = self.store.probe();
        self.note_write(written.is_err());
        written.and_then(|()| self.verify())
    }

    /// Marks that a write happened. If it failed, truncates its remains in the WAL.
    fn note_write(&mut self, failed: bool) {
        self.written = true;
        if self.wal_has_remains || failed {
            self.wal_has_remains = self.store.truncate_wal().is_err();
        }
    }

    /// Requires a synced WAL and an allocated reserve file before appending.
    fn ensure_appendable(&mut self) -> Result<(), Error> {
        self.ensure_reserve()?;
        if !self.names_synced {
            let failed = Error::io("cannot sync the folder");
            self.folder.sync().map_err(failed)?;
            self.names_synced = true;
        }
        if self.wal_in_doubt {
            self.store.empty_wal()?;
            self.wal_in_doubt = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
