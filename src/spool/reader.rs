//! The connection that only reads.
//!
//! It may live on another thread than [`super::Spool`], and waits for nothing that the spool does:
//! a reader of SQLite's WAL takes only locks in memory, which no write, sync or checkpoint holds
//! while it waits for the disk. Only to let a checkpoint in, a read begins up to 5 ms later. It
//! writes nothing, so it also works on a disk that takes no writes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow};

use super::connection::{VFS, configure, connect_read_only};
use super::error::Error;
use super::folder::Folder;
use super::gap::Gap;
use super::scan::{LIMITS, Limits, Scan};
use super::store::Store;
use super::{DATABASE_FILE, WAL_FILE, row};

/// Reads the records of an open spool. To be dropped before it: only the last connection that
/// closes can truncate the WAL, and this one never writes.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    connection: Connection,
    gap: Gap,
    // Last, so that the lock outlives the connection.
    folder: Arc<Folder>,
}

/// The columns of a row that can be read without its value and headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowHead<'a> {
    pub(crate) number: u64,
    /// The name of the event; `None` for a dead letter.
    pub(crate) event: Option<&'a str>,
    pub(crate) key: Option<&'a [u8]>,
}

impl SpoolReader {
    /// Opens a second connection to the file of this store.
    pub(super) fn open(folder: &Arc<Folder>, store: &Store) -> Result<Self, Error> {
        let file = folder.file(DATABASE_FILE);
        let connection = match store.is_read_only()? {
            true => connect_read_only(&file, &folder.file(WAL_FILE))?,
            false => connect(&file)?,
        };
        let reader = Self {
            connection,
            gap: store.gap(),
            folder: Arc::clone(folder),
        };
        // Opens the WAL and reads the schema now, not while the disk may hang.
        let one_row = Limits {
            time: Duration::ZERO,
            ..LIMITS
        };
        reader.scan_within(None, one_row, |_| false)?;
        Ok(reader)
    }

    /// Looks at the rows that follow a number, in the order of their numbers, and
    /// reads those that are `wanted`. Ends at the limits of a read, at the end of a time slice, or
    /// at the end of the table, but looks at one row at least. Refused rows are skipped.
    ///
    /// `wanted` runs within a read transaction, which delays checkpoints: it must not block.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if a wanted row has been altered, else SQLite's.
    pub(crate) fn scan(
        &mut self,
        after: Option<u64>,
        wanted: impl FnMut(RowHead<'_>) -> bool,
    ) -> Result<Scan, Error> {
        self.scan_within(after, LIMITS, wanted)
    }

    /// Lets the next start recover the spool, because it is damaged.
    pub(crate) fn mark_damaged(&self) {
        self.folder.mark_damaged();
    }

    /// Like [`SpoolReader::scan`], with other limits.
    pub(super) fn scan_within(
        &self,
        after: Option<u64>,
        limits: Limits,
        mut wanted: impl FnMut(RowHead<'_>) -> bool,
    ) -> Result<Scan, Error> {
        self.gap.leave();
        let began = Instant::now();
        // The condition on `refused` is not in SQL, because then a long run of refused rows could
        // not be interrupted.
        let mut heads = self.connection.prepare_cached(
            "SELECT number, event, record_key, refused FROM records NOT INDEXED
             WHERE number > ?1 ORDER BY number",
        )?;
        let mut whole = self.connection.prepare_cached(&format!(
            "SELECT {} FROM records NOT INDEXED WHERE number = ?1",
            row::COLUMNS
        ))?;
        let mut scan = Scan::default();
        let mut size = 0;
        // The read transaction lasts until these rows are dropped, so both statements read the same
        // state of the file.
        let mut rows = heads.query([after.map_or(-1, |number| number as i64)])?;
        loop {
            let Some(next) = rows.next()? else {
                scan.complete = true;
                break;
            };
            let number = next.get::<_, i64>(0)? as u64;
            scan.end = Some(number);
            let altered = || Error::Damaged(format!("record {number} has been altered").into());
            let (head, refused) = read_head(next, number).ok_or_else(altered)?;
            if !refused && wanted(head) {
                let found = whole.query_row([number as i64], row::read).optional()?;
                let record = found.and_then(|(_, stored)| stored.ok());
                let record = record.ok_or_else(altered)?.record;
                size += record.size();
                scan.records.push((number, record));
            }
            if limits.are_reached(&scan, size, began) {
                break;
            }
        }
        Ok(scan)
    }
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let mut connection =
        Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_ONLY, VFS)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    configure(&mut connection)?;
    Ok(connection)
}

/// The head of a row, and whether the row is refused. `None` if a column has been altered.
fn read_head<'a>(row: &'a SqlRow<'_>, number: u64) -> Option<(RowHead<'a>, bool)> {
    let event = row.get_ref(1).ok()?.as_str_or_null().ok()?;
    let key = row.get_ref(2).ok()?.as_blob_or_null().ok()?;
    let refused = row::flag(row.get_ref(3).ok()?)?;
    Some((RowHead { number, event, key }, refused))
}
