//! The records on disk, in SQLite: append a batch, read forward, delete.
//!
//! The only connection that writes, used by one thread at a time. Every commit syncs the write-ahead
//! log (WAL) once (`synchronous=FULL`) and returns only after that.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::error::Error;
use super::gap::Gap;
use super::keys::KeyRows;
use super::{Backlog, Row, gap, row};
use crate::event::Lane;

/// The file's format: what it is, and the version of its tables. The version is in two of the four
/// bytes, so that one damaged byte never looks like a newer version.
const fn format(version: u8) -> i64 {
    0x7a00_6b00 | (version as i64) << 16 | version as i64
}

const FORMAT: i64 = format(1);

/// The version, if this is the format of a newer program.
fn newer_version(format_found: i64) -> Option<u8> {
    (2..=u8::MAX).find(|version| format(*version) == format_found)
}

/// SQLite's access to the system with which only this process can use the file. Its connections
/// share the index of the WAL in memory. The default shares it with other processes in a mapped
/// file, `spool.db-shm`, which cannot grow on a full disk and ends the process if the disk cannot
/// read it.
pub(super) const VFS: &str = "unix-excl";

/// A longer WAL is copied into the file and truncated.
const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The pause after a checkpoint that a read has prevented.
const CHECKPOINT_RETRY_PAUSE: Duration = Duration::from_secs(1);

const DELETE_SQL: &str = "DELETE FROM records WHERE number = ?1";

/// SQLite's page size.
pub(super) const PAGE_BYTES: u64 = 4096;

/// An open spool file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    wal: PathBuf,
    records: i64,
    /// When a read prevented a checkpoint, until one succeeds.
    checkpoint_prevented: Cell<Option<Instant>>,
    gap: Gap,
}

/// The contents of the file when it was opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By lane.
    pub(super) backlogs: [Backlog; 2],
    /// Rows that Kafka has rejected.
    pub(super) refused: i64,
    pub(super) keys: KeyRows,
}

impl Store {
    /// Opens the file and, if it is new, creates its tables. Checks nothing else.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
        let journal: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // SQLite's own checkpoint would restart the WAL at its beginning and overwrite what is
        // there. A crash in between leaves old and new frames side by side, which looks like
        // damage.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // For the same reason: pages that do not fit into the cache would be written to the WAL
        // early, and again when they change once more.
        connection.pragma_update(None, "cache_spill", false)?;
        configure(&mut connection)?;
        let synchronous = pragma(&connection, "synchronous")?;
        if (journal.as_str(), synchronous) != ("wal", 2) {
            let found = format!("journal {journal}, synchronous {synchronous}");
            return Err(Error::Failed(
                "SQLite cannot sync each commit on this disk",
                found.into(),
            ));
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
                return Err(match newer_version(other) {
                    Some(version) => Error::Newer(version),
                    None => Error::Damaged(format!("unknown format {other:x}").into()),
                });
            }
        }
        let wal = PathBuf::from(format!("{}-wal", path.display()));
        Ok(Self {
            connection,
            wal,
            records: 0,
            checkpoint_prevented: Cell::new(None),
            gap: Gap::default(),
        })
    }

    /// Reads everything, so that damage is found now and not during an outage, and clears the marks
    /// of refused rows, which are then tried again.
    pub(super) fn examine(&mut self) -> Result<Contents, Error> {
        let verdict: String =
            (self.connection).query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Error::Damaged(verdict.replace('\n', " ").into()));
        }
        let mut contents = self.contents()?;
        if contents.refused > 0 {
            let cleared =
                (self.connection).execute("UPDATE records SET refused = 0 WHERE refused = 1", []);
            match cleared.map_err(Error::from) {
                Ok(_) => contents = self.contents()?,
                // They stay marked until a start that finds free space.
                Err(Error::Unwritable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let rows = (contents.backlogs.each_ref()).map(|backlog| backlog.rows as i64);
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
                return Err(Error::Damaged("a record has been altered".into()));
            };
            let [events, dead_letters] = &mut contents.backlogs;
            let backlog = match record.lane() {
                Lane::Events => events,
                Lane::DeadLetters => dead_letters,
            };
            backlog.last = Some(number);
            if next.get::<_, bool>(11)? {
                contents.refused += 1;
                continue;
            }
            backlog.rows += 1;
            if let (Lane::Events, Some(key)) = (record.lane(), &record.key) {
                contents.keys.add(key);
            }
        }
        Ok(contents)
    }

    /// Appends rows and deletes those that they replace, in one transaction. Returns once that is
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
            let mut statement = transaction.prepare_cached(DELETE_SQL)?;
            for number in rows.iter().filter_map(|row| row.replaces) {
                deleted += statement.execute([number as i64])? as i64;
            }
        }
        transaction.commit()?;
        self.records += appended - deleted;
        self.limit_wal();
        Ok(())
    }

    /// Deletes rows in one transaction: one at least, and no further one after this time. Returns
    /// how many of the numbers are done, once that is synced.
    pub(super) fn delete(&mut self, numbers: &[u64], time: Duration) -> Result<usize, Error> {
        let began = Instant::now();
        let (mut done, mut deleted) = (0, 0);
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(DELETE_SQL)?;
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
        self.limit_wal();
        Ok(done)
    }

    /// Marks rows that Kafka rejects permanently. They are skipped by reads and delay nothing.
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
        self.limit_wal();
        Ok(())
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
            let wal = OpenOptions::new().write(true).open(&self.wal);
            wal.and_then(|wal| wal.set_len(end))
                .map_err(Error::io(TRUNCATE))?;
        }
        Ok(())
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

    /// How many rows there are.
    pub(super) fn records(&self) -> i64 {
        self.records
    }

    /// Bytes of the pages in use and of the WAL.
    pub(super) fn used_bytes(&self) -> Result<u64, Error> {
        Ok(self.used_pages()?.unsigned_abs() * PAGE_BYTES + self.wal_bytes())
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

    /// When the oldest record that is not refused arrived, in ms since 1970-01-01 UTC.
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

/// Reads a file once in large pieces, so that it is in the system's cache as far as it fits. SQLite
/// reads page by page, which is many times slower on a disk.
pub(super) fn read_ahead(path: &Path) {
    const PIECE_BYTES: usize = 1024 * 1024;
    let Ok(mut file) = File::open(path) else {
        return;
    };
    let mut piece = vec![0; PIECE_BYTES];
    // SQLite will meet and report a read error too.
    while file.read(&mut piece).is_ok_and(|read| read > 0) {}
}

/// The settings that both connections need.
pub(super) fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    gap::wait_for_locks(connection)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
