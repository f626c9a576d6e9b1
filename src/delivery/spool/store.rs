//! The records on disk, in SQLite: append a batch, read forward, delete.
//!
//! One connection, used by one thread at a time. Every commit is one sync of the write-ahead log
//! (`synchronous=FULL`), and returns only after it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi, params};

use super::{Backlog, Lane, Row, row};
use crate::event::Record;

/// Written into each file: whose it is, and what its tables mean: the version, in two of the four bytes,
/// so that no single damaged byte looks like a later version.
const fn format(version: u8) -> i64 {
    0x7a00_6b00 | (version as i64) << 16 | version as i64
}

const FORMAT: i64 = format(1);

/// The version of a format that is not ours yet.
fn later(format_found: i64) -> Option<u8> {
    (2..=u8::MAX).find(|version| format(*version) == format_found)
}

/// The log is copied into the file and cut once it is longer than this.
const LOG_BYTES: u64 = 4 * 1024 * 1024;

const DELETE: &str = "DELETE FROM records WHERE number = ?1";

/// What SQLite's pages take.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Why the spool could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk takes no writes now: it is full, a quota on it is reached, or it fails. SQLite does not
    /// tell the second from the third, and full may also show at a sync.
    #[error("{0}")]
    Unwritable(String),
    /// What is on disk is not what was written.
    #[error("the spool is damaged: {0}")]
    Damaged(String),
    /// A later version wrote it.
    #[error(
        "the spool was written by a later version (format {0}); use that version, or one that follows it"
    )]
    Later(u8),
    /// Anything else that the system or SQLite says.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match (error.sqlite_error_code(), extended) {
            (Some(ErrorCode::DiskFull), _) => Self::Unwritable("the disk is full".to_owned()),
            (_, Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_FSYNC)) => {
                Self::Unwritable(format!("the disk takes no writes ({error})"))
            }
            // Read-only by its own header, since the file has been opened for writing; and what SQLite
            // calls unknown is an SQL error, while our SQL fits the tables that we made.
            (
                Some(
                    ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ReadOnly
                    // Nothing of ours is: a length is damaged.
                    | ErrorCode::TooBig
                    | ErrorCode::Unknown,
                ),
                _,
            )
            // What the disk does not give back is damaged as well.
            | (
                _,
                Some(
                    ffi::SQLITE_IOERR_READ
                    | ffi::SQLITE_IOERR_SHORT_READ
                    | ffi::SQLITE_IOERR_DATA
                    | ffi::SQLITE_IOERR_CORRUPTFS,
                ),
            ) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// An open spool file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    log: PathBuf,
    records: i64,
}

/// What is in the file at its opening.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// By lane.
    pub(super) backlogs: [Backlog; 2],
    /// Rows that Kafka has refused.
    pub(super) refused: i64,
}

impl Store {
    /// Opens the file, and makes its tables where it is new. Looks at nothing else.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags(path, flags)?;
        // Without it, SQLite shares an index of the log with other processes in a mapped file.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let journal: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // SQLite's own would begin the log at the front again and write over what is there: a crash
        // in between leaves old and new side by side, which looks like damage.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // For the same reason: pages that do not fit into its memory would be written to the log early,
        // and again when they change once more.
        connection.pragma_update(None, "cache_spill", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let synchronous = pragma(&connection, "synchronous")?;
        if (journal.as_str(), synchronous) != ("wal", 2) {
            return Err(Error::Failed(format!(
                "SQLite would not sync each commit here (journal {journal}, synchronous {synchronous})"
            )));
        }
        match pragma(&connection, "user_version")? {
            0 => {
                let new = connection.transaction()?;
                new.execute_batch(row::SCHEMA)?;
                new.pragma_update(None, "user_version", FORMAT)?;
                new.commit()?;
            }
            FORMAT => {}
            other => {
                return Err(match later(other) {
                    Some(version) => Error::Later(version),
                    None => Error::Damaged(format!("format {other:x} is none of ours")),
                });
            }
        }
        let log = PathBuf::from(format!("{}-wal", path.display()));
        Ok(Self {
            connection,
            log,
            records: 0,
        })
    }

    /// Reads everything, so that damage is found now and not in the middle of an outage, and lets rows
    /// that Kafka refused in an earlier run be tried again.
    pub(super) fn examine(&mut self) -> Result<Contents, Error> {
        let verdict: String =
            (self.connection).query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Error::Damaged(verdict));
        }
        let mut contents = self.contents()?;
        if contents.refused > 0 {
            let tried_again =
                (self.connection).execute("UPDATE records SET refused = 0 WHERE refused = 1", []);
            match tried_again.map_err(Error::from) {
                Ok(_) => contents = self.contents()?,
                // They wait until a start that has room.
                Err(Error::Unwritable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let rows = contents.backlogs.map(|backlog| backlog.rows as i64);
        self.records = rows.iter().sum::<i64>() + contents.refused;
        Ok(contents)
    }

    fn contents(&self) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let mut statement = (self.connection).prepare(&format!(
            "SELECT {}, refused FROM records ORDER BY number",
            row::COLUMNS
        ))?;
        let mut rows = statement.query([])?;
        while let Some(next) = rows.next()? {
            let (number, Ok(record)) = row::read(next)? else {
                return Err(Error::Damaged(
                    "a record is not what was written".to_owned(),
                ));
            };
            let [events, dead_letters] = &mut contents.backlogs;
            let backlog = match Lane::of(&record) {
                Lane::Events => events,
                Lane::DeadLetters => dead_letters,
            };
            backlog.last = Some(number);
            match next.get::<_, bool>(11)? {
                true => contents.refused += 1,
                false => backlog.rows += 1,
            }
        }
        Ok(contents)
    }

    /// Appends rows and deletes those that they replace, in one transaction, and returns when that is
    /// synced.
    pub(super) fn append(&mut self, rows: &[Row]) -> Result<(), Error> {
        let (mut appended, mut deleted) = (0, 0);
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(&format!(
                "INSERT INTO records ({}, refused) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                row::COLUMNS
            ))?;
            for Row {
                number,
                lane,
                record,
                refused,
                ..
            } in rows
            {
                row::insert(&mut statement, *number, *lane, record, *refused)?;
                appended += 1;
            }
            let mut statement = transaction.prepare_cached(DELETE)?;
            for number in rows.iter().filter_map(|row| row.replaces) {
                deleted += statement.execute([number as i64])? as i64;
            }
        }
        transaction.commit()?;
        self.records += appended - deleted;
        self.limit_log();
        Ok(())
    }

    /// Deletes rows in one transaction, one at least and no further one after so long. Returns, when that
    /// is synced, how many of these numbers it came to.
    pub(super) fn delete(&mut self, numbers: &[u64], time: Duration) -> Result<usize, Error> {
        let began = Instant::now();
        let (mut done, mut deleted) = (0, 0);
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(DELETE)?;
            for number in numbers {
                deleted += statement.execute([*number as i64])? as i64;
                done += 1;
                if began.elapsed() >= time {
                    break;
                }
            }
        }
        transaction.commit()?;
        self.records -= deleted;
        self.limit_log();
        Ok(done)
    }

    /// Marks rows that Kafka refuses for good, so that they wait and hold up nothing.
    pub(super) fn mark_refused(&mut self, numbers: &[u64]) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        {
            let mut statement =
                transaction.prepare_cached("UPDATE records SET refused = 1 WHERE number = ?1")?;
            for number in numbers {
                statement.execute([*number as i64])?;
            }
        }
        transaction.commit()?;
        self.limit_log();
        Ok(())
    }

    /// Writes the format again, where it stands already.
    pub(super) fn probe(&self) -> Result<(), Error> {
        Ok(self
            .connection
            .pragma_update(None, "user_version", FORMAT)?)
    }

    /// Reads the rows of a lane that follow a number, in order: so many at most, and no further one
    /// once they hold so many bytes, or after so long.
    pub(super) fn read(
        &self,
        lane: Lane,
        after: Option<u64>,
        (limit, bytes, time): (usize, usize, Duration),
    ) -> Result<Vec<(u64, Record)>, Error> {
        let began = Instant::now();
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {} FROM records INDEXED BY records_by_lane
             WHERE lane = ?1 AND number > ?2 AND refused = 0 ORDER BY number LIMIT ?3",
            row::COLUMNS
        ))?;
        let after = after.map_or(-1, |number| number as i64);
        let mut rows = statement.query(params![lane as i64, after, limit as i64])?;
        let (mut records, mut size) = (Vec::new(), 0);
        while let Some(next) = rows.next()? {
            let (number, record) = row::read(next)?;
            let record = record
                .map_err(|_| Error::Damaged(format!("record {number} is not what was written")))?;
            size += record.size();
            records.push((number, record));
            if size >= bytes || began.elapsed() >= time {
                break;
            }
        }
        Ok(records)
    }

    /// What is committed is safe in the log as well; where it cannot be copied now, that is tried again
    /// after the next commit.
    fn limit_log(&self) {
        if self.log_bytes() > LOG_BYTES {
            drop(self.checkpoint());
        }
    }

    /// Cuts off what a write that failed has left behind the last commit, where the next start would take
    /// it for damage. Needs no room.
    pub(super) fn cut_log(&self) -> Result<(), Error> {
        const HEADER: u64 = 32;
        const FRAME: u64 = 24 + PAGE_BYTES;
        // This checkpoint does nothing but tell how many frames the log has.
        let frames: i64 =
            (self.connection).query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
        let end = match u64::try_from(frames) {
            Ok(0) => 0,
            Ok(frames) => HEADER + frames * FRAME,
            Err(_) => return Err(Error::Failed("there is no log".to_owned())),
        };
        if self.log_bytes() > end {
            let log = OpenOptions::new().write(true).open(&self.log);
            log.and_then(|log| log.set_len(end))
                .map_err(|error| Error::Failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Leaves the log as it is when this is dropped: for what a salvage can make of it.
    pub(super) fn keep_log(&self) {
        let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        drop(self.connection.set_db_config(setting, true));
    }

    /// Copies the log into the file and cuts it.
    pub(super) fn checkpoint(&self) -> Result<(), Error> {
        let busy: i64 =
            (self.connection).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        match busy {
            0 => Ok(()),
            _ => Err(Error::Failed("the log could not be cut".to_owned())),
        }
    }

    /// Gives room that is not used any more back to the disk. Takes as long as copying what is left.
    pub(super) fn compact(&self) -> Result<(), Error> {
        self.connection.execute_batch("VACUUM")?;
        self.checkpoint()
    }

    /// How many rows there are.
    pub(super) fn records(&self) -> i64 {
        self.records
    }

    /// Bytes in use: pages that hold something, and the log.
    pub(super) fn used_bytes(&self) -> Result<u64, Error> {
        Ok(self.used_pages()?.unsigned_abs() * PAGE_BYTES + self.log_bytes())
    }

    /// Of SQLite's log; none once it is copied into the file.
    pub(super) fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |file| file.len())
    }

    /// Pages of the file that hold something.
    pub(super) fn used_pages(&self) -> Result<i64, Error> {
        Ok(pragma(&self.connection, "page_count")? - self.free_pages()?)
    }

    /// Pages of the file that hold nothing.
    pub(super) fn free_pages(&self) -> Result<i64, Error> {
        Ok(pragma(&self.connection, "freelist_count")?)
    }

    /// When the oldest record arrived, in ms since 1970-01-01 UTC.
    pub(super) fn oldest(&self) -> Result<Option<i64>, Error> {
        let mut statement = (self.connection).prepare_cached(
            "SELECT received_at FROM records INDEXED BY records_by_lane
             WHERE lane = ?1 AND refused = 0 ORDER BY number LIMIT 1",
        )?;
        let mut oldest = |lane: Lane| {
            let oldest = statement.query_row([lane as i64], |row| row.get(0));
            oldest.optional()
        };
        let lanes = [oldest(Lane::Events)?, oldest(Lane::DeadLetters)?];
        Ok(lanes.into_iter().flatten().min())
    }
}

/// Brings a file into the system's memory, as far as it fits. SQLite reads page by page, which a disk that
/// is asked for large pieces does many times faster.
pub(super) fn read_ahead(path: &Path) {
    const PIECE: usize = 1024 * 1024;
    let Ok(mut file) = File::open(path) else {
        return;
    };
    let mut piece = vec![0; PIECE];
    // What cannot be read, SQLite will meet too, and say.
    while file.read(&mut piece).is_ok_and(|read| read > 0) {}
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
