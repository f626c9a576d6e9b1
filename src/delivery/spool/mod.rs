//! The spool: what is on disk because Kafka was late, and the only room that knows SQLite.
//!
//! SQLite, because it is the best-tested storage there is, an operator can open it with `sqlite3`, and
//! few lines use it. It is off the way of an event that Kafka takes in time, so its cost does not
//! matter.

mod copies;
mod folder;
mod inspection;
mod leaves;
mod log;
mod row;
mod salvage;
mod store;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use folder::BALLAST_BYTES;
use folder::{Folder, LOCK_PATIENCE};
pub use inspection::inspect;
pub(super) use salvage::Salvage;
pub use store::Error;
use store::{PAGE_BYTES, Store};

use crate::event::Record;

/// The file, and the log that SQLite keeps beside it.
const FILE: &str = "spool.db";
const LOG: &str = "spool.db-wal";

/// So much is read from disk at once.
pub const MAX_READ_RECORDS: usize = 1000;
/// Or less, where the records are large.
pub const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// Reading and deleting end after so long, and go on after what is to be written by now: rows that have
/// left the system's memory come from the disk page by page.
const TIME_SLICE: Duration = Duration::from_millis(50);

/// After the ballast was given up, it is tried to load it again so often.
const BALLAST_PAUSE: Duration = Duration::from_secs(1);

/// On a full disk so many rows are deleted at once. What they change is written beside what is there, and
/// that must fit into the ballast: up to two pages a row, the table's and the index's.
const FEW: usize = BALLAST_BYTES / PAGE_BYTES as usize / 4;

/// A file with so many unused pages is made smaller once it holds hardly anything, and any file, if that
/// may bring the ballast back.
const SPACIOUS_PAGES: i64 = 4096;
const HARDLY_ANY_PAGES: i64 = 1024;

/// Where the spool is, and how it is used.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// Its folder.
    pub folder: PathBuf,
    /// Bytes that it may use on disk.
    pub max_bytes: u64,
    /// How long Kafka may take before an event is also made safe on disk.
    pub after: Duration,
}

/// Which queue a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Events = 0,
    DeadLetters = 1,
}

impl Lane {
    fn of(record: &Record) -> Self {
        match record.is_dead_letter() {
            true => Self::DeadLetters,
            false => Self::Events,
        }
    }
}

/// What earlier runs have left of a lane.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Records to be published.
    pub(super) rows: usize,
    /// The highest number, also of those that Kafka has refused.
    pub(super) last: Option<u64>,
}

/// A record to be written.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) lane: Lane,
    pub(super) record: Arc<Record>,
    /// Kafka refuses it for good: it stays on disk and is not read again in this run.
    pub(super) refused: bool,
    /// The row of the event whose dead letter this is; it goes in the same transaction.
    pub(super) replaces: Option<u64>,
}

impl Row {
    pub(super) fn new(number: u64, record: impl Into<Arc<Record>>) -> Self {
        let record = record.into();
        Self {
            number,
            lane: Lane::of(&record),
            record,
            refused: false,
            replaces: None,
        }
    }
}

/// An open spool. It belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    store: Store,
    ballast: Result<(), Instant>,
    /// Whether the log holds what an earlier run wrote and this one could not sync again. A later sync
    /// would not make it last, nor what is written behind it.
    log_in_doubt: bool,
    /// Whether the log may hold what a write that failed has left.
    untidy: bool,
    /// Whether anything was written since the last [`Spool::tidy`].
    written: bool,
    refused: i64,
    contents: store::Contents,
    salvage: Option<Salvage>,
    // Last, so that the lock outlives the file.
    folder: Folder,
}

impl Spool {
    /// Opens the spool, with what earlier runs have left in it. Waits up to 30 s for another process
    /// to let go of it, and reads all of it once. What is damaged is moved aside, and what can still be
    /// read of it is kept. Blocks.
    ///
    /// # Errors
    ///
    /// Where another process keeps it, or it cannot be read or written.
    pub fn open(settings: &SpoolSettings) -> Result<Self, Error> {
        Self::open_within(settings, LOCK_PATIENCE)
    }

    /// As [`Spool::open`], with another patience for the lock.
    ///
    /// # Errors
    ///
    /// As [`Spool::open`].
    pub fn open_within(settings: &SpoolSettings, patience: Duration) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            Error::Failed(match error.kind() {
                io::ErrorKind::WouldBlock => format!(
                    "another process still has it after {} s; a spool belongs to one process",
                    patience.as_secs()
                ),
                _ => format!("{error}; the folder must exist or be creatable, and be writable"),
            })
        };
        let folder = Folder::claim(&settings.folder, patience).map_err(failed)?;
        salvage::finish(&folder).map_err(failed)?;
        let (store, contents, salvage) = open(&folder)?;
        let ballast = match folder.load_ballast() {
            true => Ok(()),
            false => Err(Instant::now()),
        };
        folder.sync().map_err(failed)?;
        Ok(Self {
            settings: settings.clone(),
            log_in_doubt: store.log_bytes() > 0,
            store,
            ballast,
            // On a full disk, opening may have been such a write.
            untidy: true,
            written: true,
            refused: contents.refused,
            contents,
            salvage,
            folder,
        })
    }

    /// What the spool is to be like.
    pub fn settings(&self) -> &SpoolSettings {
        &self.settings
    }

    /// What was saved, where the spool was found damaged.
    pub(super) fn salvage(&self) -> Option<&Salvage> {
        self.salvage.as_ref()
    }

    /// Writes nothing more, also not when it is dropped: it is damaged.
    pub(super) fn give_up(&self) {
        self.store.keep_log();
    }

    /// What earlier runs have left of a lane.
    pub(super) fn backlog(&self, lane: Lane) -> Backlog {
        let [events, dead_letters] = self.contents.backlogs;
        match lane {
            Lane::Events => events,
            Lane::DeadLetters => dead_letters,
        }
    }

    /// How many records are on disk, and how many of them Kafka refuses for good.
    pub fn records(&self) -> (i64, i64) {
        (self.store.records(), self.refused)
    }

    /// Bytes in use: pages that hold something, and the log.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn used_bytes(&self) -> Result<u64, Error> {
        self.store.used_bytes()
    }

    /// When the oldest record that is not refused arrived, in ms since 1970-01-01 UTC.
    pub(super) fn oldest(&self) -> Result<Option<i64>, Error> {
        self.store.oldest()
    }

    /// Whether so many bytes more of a lane are within the limit.
    pub(super) fn has_room(&self, lane: Lane, bytes: usize) -> Result<bool, Error> {
        let limit = match lane {
            Lane::Events => self.settings.max_bytes,
            // A dead-letter topic that is missing must not take the room of the events.
            Lane::DeadLetters => self.settings.max_bytes / 4 * 3,
        };
        let fits = |used: u64| used + bytes as u64 <= limit;
        if fits(self.store.used_bytes()?) {
            return Ok(true);
        }
        // The log may hold what is deleted by now.
        match self.store.checkpoint() {
            Err(Error::Unwritable(_)) => Ok(false),
            checkpoint => checkpoint.and_then(|()| Ok(fits(self.store.used_bytes()?))),
        }
    }

    /// Writes rows, and deletes those that they replace, in one transaction. What is written is on disk
    /// when this returns: synced, by SQLite's word and the system's.
    pub(super) fn write(&mut self, rows: &[Row]) -> Result<(), Error> {
        self.wants_sound_ground()?;
        let written = self.store.append(rows);
        self.tidy_after(written.is_err());
        if written.is_ok() {
            self.refused += rows.iter().filter(|row| row.refused).count() as i64;
        }
        written
    }

    /// Deletes rows, the first of these at least, and returns how many of these are gone. Those that were
    /// not there any more do no harm.
    pub(super) fn delete(&mut self, numbers: &[u64]) -> Result<usize, Error> {
        let deleted = self.wants_ballast();
        let deleted = match deleted.and_then(|()| self.store.delete(numbers, TIME_SLICE)) {
            Err(Error::Unwritable(_)) => {
                self.make_room();
                let few = numbers.get(..FEW).unwrap_or(numbers);
                self.store.delete(few, TIME_SLICE)
            }
            deleted => deleted,
        };
        self.tidy_after(deleted.is_err());
        deleted
    }

    /// Marks rows that Kafka refuses for good.
    pub(super) fn mark_refused(&mut self, numbers: &[u64]) -> Result<(), Error> {
        let marked = match self.store.mark_refused(numbers) {
            Err(Error::Unwritable(_)) => {
                self.make_room();
                self.store.mark_refused(numbers)
            }
            marked => marked,
        };
        if marked.is_ok() {
            self.refused += numbers.len() as i64;
        }
        self.tidy_after(marked.is_err());
        marked
    }

    /// Writes and syncs something that means nothing: whether a write would succeed.
    pub(super) fn probe(&mut self) -> Result<(), Error> {
        self.wants_sound_ground()?;
        let written = self.store.probe();
        self.tidy_after(written.is_err());
        written
    }

    /// Reads the next rows of a lane, in order: one at least, where there is one.
    pub(super) fn read(&self, lane: Lane, after: Option<u64>) -> Result<Vec<(u64, Record)>, Error> {
        let limits = (MAX_READ_RECORDS, MAX_READ_BYTES, TIME_SLICE);
        self.store.read(lane, after, limits)
    }

    /// Gives room back to the disk, once there is hardly anything left.
    pub(super) fn tidy(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.written) {
            return Ok(());
        }
        let mut tidied = Ok(());
        if self.store.records() == 0 {
            tidied = self.store.checkpoint();
        }
        let spacious = match self.ballast {
            Ok(()) => SPACIOUS_PAGES,
            Err(_) => 0,
        };
        let hardly_any = self.store.used_pages()? < HARDLY_ANY_PAGES;
        if tidied.is_ok() && hardly_any && self.store.free_pages()? > spacious {
            tidied = self.store.compact();
        }
        self.tidy_after(tidied.is_err());
        self.written = false;
        match tidied {
            // It can wait until there is room.
            Err(Error::Unwritable(_)) => Ok(()),
            tidied => tidied,
        }
    }

    fn tidy_after(&mut self, failed: bool) {
        self.written = true;
        if self.untidy || failed {
            self.untidy = self.store.cut_log().is_err();
        }
    }

    /// Nothing is added behind a log in doubt, nor without the ballast.
    fn wants_sound_ground(&mut self) -> Result<(), Error> {
        self.wants_ballast()?;
        if self.log_in_doubt {
            self.store.checkpoint()?;
            self.log_in_doubt = false;
        }
        Ok(())
    }

    /// Nothing is added while the ballast is gone: its room is for deletions alone, without which a full
    /// disk would stay full, whatever Kafka takes.
    fn wants_ballast(&mut self) -> Result<(), Error> {
        match self.ballast {
            Ok(()) => return Ok(()),
            Err(tried) if tried.elapsed() < BALLAST_PAUSE => {}
            Err(_) if self.folder.load_ballast() => self.ballast = Ok(()),
            Err(_) => self.ballast = Err(Instant::now()),
        }
        self.ballast.map_err(|_| no_room_for_ballast())
    }

    /// Gives up the ballast, so that what Kafka has can be deleted.
    fn make_room(&mut self) {
        if self.ballast.is_ok() {
            self.ballast = Err(Instant::now());
        }
        if self.folder.drop_ballast() {
            tracing::warn!(
                "the disk of the spool is full, or takes no writes; its ballast is given up so that records can still be deleted"
            );
        }
        drop(self.store.cut_log());
        // What the log holds may need room in the file before the log can be used again. Where even that
        // fails, the deletions will say so.
        drop(self.store.checkpoint());
    }
}

fn no_room_for_ballast() -> Error {
    Error::Unwritable("the disk is full: there is no room for the ballast".to_owned())
}

/// Opens the file, and salvages it where it is damaged.
fn open(folder: &Folder) -> Result<(Store, store::Contents, Option<Salvage>), Error> {
    let io = |error: io::Error| Error::Failed(error.to_string());
    let file = folder.create(FILE).map_err(io)?;
    let sound = || -> Result<(Store, store::Contents), Error> {
        if salvage::log_is_damaged(folder).map_err(io)? {
            return Err(Error::Damaged("its log is not what was written".to_owned()));
        }
        store::read_ahead(&file);
        let mut store = Store::open(&file)?;
        let contents = store.examine()?;
        match store.checkpoint() {
            // A full disk is no reason not to start: what is on disk can be published and deleted.
            Err(Error::Unwritable(_)) | Ok(()) => Ok((store, contents)),
            Err(error) => Err(error),
        }
    };
    match sound() {
        Ok((store, contents)) => Ok((store, contents, None)),
        Err(Error::Damaged(what)) => {
            tracing::error!("the spool is damaged ({what}); saving what can be read");
            // Copies take room.
            folder.drop_ballast();
            let salvage = salvage::salvage(folder).map_err(|error| {
                Error::Failed(format!(
                    "{error}. To save what can be read takes up to three times the room of the spool: make room on its disk, and start again"
                ))
            })?;
            let mut store = Store::open(&file)?;
            let contents = store.examine()?;
            Ok((store, contents, Some(salvage)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
