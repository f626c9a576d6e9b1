//! The records on disk, in SQLite: append a batch, read forward, delete.
//!
//! The only connection that writes, used by one thread at a time. Every commit syncs the write-ahead
//! log (WAL) once (`synchronous=FULL`) and returns only after that.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Statement};

use super::connection::PAGE_BYTES;
use super::connection::{
    check_integrity, connect, connect_read_only, create_tables, last, pragma, write_last,
};
use super::contents::{self, Contents, event_bytes};
use super::error::Error;
use super::format::{Format, newer_version};
use super::gap::Gap;
use super::identity::{Identity, Named};
use super::scan::Scan;
use super::{OpenStage, Row, refused, row};

/// A longer WAL is copied into the file and truncated.
const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The pause after a checkpoint that a read has prevented.
const CHECKPOINT_RETRY_PAUSE: Duration = Duration::from_secs(1);

const FORMAT: i32 = Format::CURRENT.user_version();

/// Returns the mark and the [`event_bytes`] of the row.
const DELETE_SQL: &str = "DELETE FROM records WHERE number = ?1 RETURNING refused, \
     CASE WHEN event IS NULL THEN 0 ELSE length(value) + ifnull(length(record_key), 0) END";

/// An open spool file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    wal: PathBuf,
    /// Which file the WAL is, once [`Store::names`] was called.
    wal_identity: Option<Identity>,
    records: i64,
    /// How many of them are marked as refused.
    refused: i64,
    /// The [`event_bytes`] of all of them.
    event_bytes: i64,
    /// The highest number that was ever on disk, also of a row that is deleted; 0 if there was none.
    last: u64,
    /// When a read prevented a checkpoint, until one succeeds.
    checkpoint_prevented: Cell<Option<Instant>>,
    gap: Gap,
}

impl Store {
    /// Opens the file and, if it is new, creates its tables. Checks nothing else.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut connection = connect(path)?;
        if format(&connection)? == 0 {
            create_tables(&mut connection, Format::CURRENT)?;
        }
        Self::new(connection, wal_of(path))
    }

    /// Opens a file that can only be read. Checks nothing else, and nothing can be written.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, Error> {
        let wal = wal_of(path);
        Self::new(connect_read_only(path, &wal)?, wal)
    }

    fn new(connection: Connection, wal: PathBuf) -> Result<Self, Error> {
        match format(&connection)? {
            FORMAT => {}
            other => {
                return Err(match newer_version(other) {
                    Some(version) => Error::Newer(version),
                    None => Error::Damaged(format!("unknown format {other:x}").into()),
                });
            }
        }
        let last = last(&connection)?;
        Ok(Self {
            last: last.ok_or_else(|| Error::Damaged("the last number has been altered".into()))?,
            connection,
            wal,
            wal_identity: None,
            records: 0,
            refused: 0,
            event_bytes: 0,
            checkpoint_prevented: Cell::new(None),
            gap: Gap::default(),
        })
    }

    /// Reads everything, so that damage is found now and not during an outage, and clears the marks
    /// of refused dead letters, which are then tried again: they have no order. Reports how many
    /// rows it has read.
    pub(super) fn examine(&mut self, report: &dyn Fn(OpenStage)) -> Result<Contents, Error> {
        const CLEAR: &str = "UPDATE records SET refused = 0 WHERE refused = 1 AND event IS NULL";
        check_integrity(&self.connection)?;
        let mut contents = contents::read(&self.connection, report)?;
        if contents.refused_letters > 0 && !self.is_read_only()? {
            match self.connection.execute(CLEAR, []).map_err(Error::from) {
                // Not reported: the number of records would fall.
                Ok(_) => contents = contents::read(&self.connection, &|_| {})?,
                // They stay marked until a start that finds free space.
                Err(Error::Unwritable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let rows = (contents.backlogs.values()).map(|backlog| backlog.rows as i64);
        self.refused = contents.refused;
        self.event_bytes = contents.event_bytes;
        self.records = rows.sum::<i64>() + self.refused;
        let last = contents
            .backlogs
            .values()
            .filter_map(|backlog| backlog.last);
        self.last = last.fold(self.last, u64::max);
        Ok(contents)
    }

    /// The events with numbers above `after` that are marked as refused, in order.
    pub(super) fn refused_events(&self, after: u64) -> Result<Scan, Error> {
        refused::events(&self.connection, after)
    }

    /// Appends rows and deletes those that they replace, in one transaction. Returns once that is
    /// synced.
    pub(super) fn append(&mut self, rows: &[Row]) -> Result<(), Error> {
        let mut changed = Changed::default();
        let last = rows.iter().map(|row| row.number).fold(self.last, u64::max);
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(&format!(
                "INSERT INTO records ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                row::COLUMNS
            ))?;
            for row in rows {
                row::insert(&mut statement, row.number, &row.record, row.refused)?;
                changed.records += 1;
                changed.refused += i64::from(row.refused);
                changed.event_bytes += event_bytes(&row.record);
            }
            let mut statement = transaction.prepare_cached(DELETE_SQL)?;
            for number in rows.iter().filter_map(|row| row.replaces) {
                changed.delete(&mut statement, number)?;
            }
            if last > self.last {
                write_last(&transaction, last)?;
            }
        }
        transaction.commit()?;
        self.last = last;
        self.note(changed);
        Ok(())
    }

    /// Deletes rows in one transaction: one at least, and no further one after this time. Returns
    /// how many of the numbers are done, once that is synced.
    pub(super) fn delete(&mut self, numbers: &[u64], time: Duration) -> Result<usize, Error> {
        let began = Instant::now();
        let mut changed = Changed::default();
        let mut done = 0;
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(DELETE_SQL)?;
            for number in numbers {
                changed.delete(&mut statement, *number)?;
                done += 1;
                if began.elapsed() >= time {
                    break;
                }
            }
        }
        transaction.commit()?;
        self.note(changed);
        Ok(done)
    }

    /// Marks rows that Kafka rejects permanently. They are skipped by reads and delay nothing.
    pub(super) fn mark_refused(&mut self, numbers: &[u64]) -> Result<(), Error> {
        const MARK: &str = "UPDATE records SET refused = 1 WHERE number = ?1 AND refused = 0";
        let mut changed = Changed::default();
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(MARK)?;
            for number in numbers {
                changed.refused += statement.execute([*number as i64])? as i64;
            }
        }
        transaction.commit()?;
        self.note(changed);
        Ok(())
    }

    /// Raises the number that counts as the last one.
    pub(super) fn raise_last(&mut self, last: u64) -> Result<(), Error> {
        if last > self.last {
            write_last(&self.connection, last)?;
            self.last = last;
        }
        Ok(())
    }

    /// Takes note of a commit.
    fn note(&mut self, changed: Changed) {
        self.records += changed.records;
        self.refused += changed.refused;
        self.event_bytes += changed.event_bytes;
        self.limit_wal();
    }

    /// Writes the format again, which changes nothing.
    pub(super) fn probe(&self) -> Result<(), Error> {
        (self.connection).pragma_update(None, "user_version", FORMAT)?;
        self.limit_wal();
        Ok(())
    }

    /// Copies a long WAL into the file, after a commit. If that fails, nothing is lost: commits are
    /// durable in the WAL, and the next commit tries again.
    fn limit_wal(&self) {
        let is_prevented = self.checkpoint_prevented.get().is_some();
        if is_prevented {
            // The WAL may have been copied but not truncated. This commit was then written over the
            // WAL's beginning, and old frames behind it would look like damage after a crash.
            drop(self.truncate_wal());
        }
        if (is_prevented || self.wal_bytes() > WAL_BYTES_MAX) && !self.checkpoint_pauses() {
            drop(self.checkpoint());
        }
    }

    /// Whether a read has prevented a checkpoint a moment ago, so that another attempt would
    /// probably wait in vain.
    pub(super) fn checkpoint_pauses(&self) -> bool {
        (self.checkpoint_prevented.get())
            .is_some_and(|prevented| prevented.elapsed() < CHECKPOINT_RETRY_PAUSE)
    }

    /// Whether a checkpoint was prevented and none has succeeded since.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        self.checkpoint_prevented.get().is_some()
    }

    /// Truncates what a failed write left after the last commit; the next start would treat it as
    /// damage. Needs no free space.
    pub(super) fn truncate_wal(&self) -> Result<(), Error> {
        const HEADER_BYTES: u64 = 32;
        const FRAME_BYTES: u64 = 24 + PAGE_BYTES;
        const TRUNCATE: &str = "cannot truncate the WAL";
        // This kind of checkpoint only reports how many frames the WAL has.
        let frames: i64 =
            (self.connection).query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
        let end = match u64::try_from(frames) {
            Ok(0) => 0,
            Ok(frames) => HEADER_BYTES + frames * FRAME_BYTES,
            Err(_) => return Err(Error::Failed(TRUNCATE, "there is none".into())),
        };
        if self.wal_bytes() > end {
            let truncate = || -> io::Result<()> {
                let wal = OpenOptions::new().write(true).open(&self.wal)?;
                let found = Some(Identity::of(&wal.metadata()?));
                match self.wal_identity.is_none() || found == self.wal_identity {
                    true => wal.set_len(end),
                    false => Err(io::Error::other("it was replaced")),
                }
            };
            truncate().map_err(Error::io(TRUNCATE))?;
        }
        Ok(())
    }

    /// Whether nothing can be written.
    pub(super) fn is_read_only(&self) -> Result<bool, Error> {
        Ok(self.connection.is_readonly("main")?)
    }

    /// The names of the files that are open. From now on the WAL is only truncated if it is this
    /// one.
    pub(super) fn names(&mut self, file: PathBuf) -> io::Result<[Named; 2]> {
        let wal = Named::now(self.wal.clone())?;
        self.wal_identity = Some(wal.identity());
        Ok([Named::now(file)?, wal])
    }

    /// Leaves the WAL as it is when this is dropped, for a later recovery.
    pub(super) fn keep_wal(&self) {
        let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        drop(self.connection.set_db_config(setting, true));
    }

    /// Copies the WAL into the file and truncates it. False if a read did not end in time; nothing
    /// is lost then, and a later attempt completes it.
    pub(super) fn checkpoint(&self) -> Result<bool, Error> {
        const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
        let checkpoint = || (self.connection).query_row(CHECKPOINT, [], |row| row.get(0));
        let busy: i64 = self.gap.during(checkpoint)?;
        self.checkpoint_prevented
            .set((busy != 0).then(Instant::now));
        Ok(busy == 0)
    }

    /// Like [`Store::checkpoint`], if what follows needs an empty WAL.
    pub(super) fn empty_wal(&self) -> Result<(), Error> {
        match self.checkpoint()? {
            true => Ok(()),
            false => Err(Error::Failed(
                "cannot checkpoint the WAL",
                "a read has not ended in time".into(),
            )),
        }
    }

    /// Returns unused space to the disk. Takes as long as copying what is left. False if a read did
    /// not end in time.
    pub(super) fn compact(&self) -> Result<bool, Error> {
        match self.connection.execute_batch("VACUUM") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                return Ok(false);
            }
            done => done?,
        }
        self.checkpoint()
    }

    /// What a reader needs so as not to prevent checkpoints.
    pub(super) fn gap(&self) -> Gap {
        self.gap.clone()
    }

    /// For tests that do what no method does.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How many rows there are, and how many of them are marked as refused.
    pub(super) fn records(&self) -> (i64, i64) {
        (self.records, self.refused)
    }

    /// The highest number that was ever on disk; 0 if there was none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of the pages in use and of the WAL.
    pub(super) fn used_bytes(&self) -> Result<u64, Error> {
        Ok(self.used_pages()?.unsigned_abs() * PAGE_BYTES + self.wal_bytes())
    }

    /// Bytes that events are known to use: less than they do use.
    pub(super) fn event_bytes(&self) -> u64 {
        u64::try_from(self.event_bytes).unwrap_or(0)
    }

    /// Bytes of the WAL; 0 once it is checkpointed.
    pub(super) fn wal_bytes(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |file| file.len())
    }

    /// Pages of the file that are in use.
    pub(super) fn used_pages(&self) -> Result<i64, Error> {
        Ok(pragma(&self.connection, "page_count")? - self.free_pages()?)
    }

    /// Pages of the file that are not in use.
    pub(super) fn free_pages(&self) -> Result<i64, Error> {
        Ok(pragma(&self.connection, "freelist_count")?)
    }

    /// When the oldest record that is not refused arrived, in ms since 1970-01-01 UTC. "Oldest" is
    /// the one with the lowest number. The index finds it behind any number of refused rows.
    pub(super) fn oldest(&self) -> Result<Option<i64>, Error> {
        let mut statement = (self.connection).prepare_cached(
            "SELECT received_at FROM records INDEXED BY records_by_refused
             WHERE refused = 0 ORDER BY number LIMIT 1",
        )?;
        let oldest = statement.query_row([], |row| row.get(0));
        Ok(oldest.optional()?)
    }
}

fn format(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn wal_of(file: &Path) -> PathBuf {
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

/// What a transaction has changed.
#[derive(Debug, Default, Clone, Copy)]
struct Changed {
    records: i64,
    refused: i64,
    event_bytes: i64,
}

impl Changed {
    /// Deletes a row, if it is there.
    fn delete(&mut self, statement: &mut Statement<'_>, number: u64) -> rusqlite::Result<()> {
        let mut deleted = statement.query([number as i64])?;
        while let Some(row) = deleted.next()? {
            self.records -= 1;
            self.refused -= row.get::<_, i64>(0)?;
            self.event_bytes -= row.get::<_, i64>(1)?;
        }
        Ok(())
    }
}
