//! Recovery of a damaged spool: the damaged files are moved aside, and every record that can still
//! be read goes into a new file, in order.
//!
//! A crash during recovery loses nothing: until the new file is complete and synced, the damaged
//! one stays in place, and the next start begins again.

mod copies;
mod leaves;
pub(super) mod wal;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::error::{Error, readable};
use super::folder::Folder;
use super::store::Store;
use super::{DATABASE_FILE, Row, WAL_FILE, row};
use crate::event::Lane;
use copies::{COPIES_FOLDER, WorkingCopy, make_copies, read_wal};
use wal::Wal;

/// The new spool while it is being filled.
const NEW_FILE: &str = "spool.new";
const NEW_WAL_FILE: &str = "spool.new-wal";

/// The limits of the transactions that copy rows.
const COPY_BATCH_ROWS: usize = 1000;
const COPY_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The most numbers of lost records that are logged.
const LOGGED_NUMBERS_MAX: usize = 20;

/// What was recovered of a damaged spool, and what was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveryReport {
    /// How many records could be read.
    pub(crate) recovered: usize,
    /// The numbers of records that are known to have been there and could not be read.
    pub(crate) lost: Vec<u64>,
    /// Whether these are all: the index lists the numbers of all rows, and could be read.
    pub(crate) lost_is_complete: bool,
    /// Where the damaged files are now.
    pub(crate) moved_to: PathBuf,
}

/// Whether SQLite would ignore a part of the WAL, because that part is damaged or because the
/// database file is gone.
///
/// Before it is trusted, the WAL is written to disk again: after a failed sync the system's cache
/// may hold what the disk does not, and report it as synced.
pub(super) fn wal_is_damaged(folder: &Folder) -> io::Result<bool> {
    let (bytes, is_complete) = read_wal(folder)?;
    if is_complete && !bytes.is_empty() {
        let file = OpenOptions::new().write(true).open(folder.file(WAL_FILE))?;
        match file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()) {
            // On file systems where each write takes new space, a full disk must still not prevent
            // a start.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) => {}
            done => done?,
        }
    }
    let wal = Wal::read(&bytes, is_complete);
    let file_is_empty = fs::metadata(folder.file(DATABASE_FILE))?.len() == 0;
    Ok(wal.is_damaged() || file_is_empty && !wal.sound.is_empty())
}

/// Completes what a crash during [`recover`] has left. To be called before anything is opened.
pub(super) fn finish(folder: &Folder) -> io::Result<()> {
    if folder.file(NEW_FILE).exists() && !folder.file(DATABASE_FILE).exists() {
        // The damaged file has been moved, but maybe not its WAL.
        replace(folder, &create_aside(folder)?)?;
    }
    for name in [NEW_FILE, NEW_WAL_FILE] {
        ignore_missing(fs::remove_file(folder.file(name)))?;
    }
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER)))
}

/// Moves the damaged spool aside and puts a new one in its place.
pub(super) fn recover(folder: &Folder) -> Result<RecoveryReport, Error> {
    let failed = Error::io("cannot copy or replace the damaged files");
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER))).map_err(failed)?;
    let copies = make_copies(folder).map_err(failed)?;
    let views: Vec<Connection> = copies
        .iter()
        .map(WorkingCopy::open)
        .collect::<Result<_, _>>()?;
    let mut numbers = BTreeSet::new();
    // If the WAL is damaged, an index that looks intact may be outdated.
    let mut is_listed = views.len() == 1;
    for view in &views {
        is_listed &= list_numbers(view, &mut numbers)?;
    }
    let mut recovered = Recovered::into_file(&folder.create(NEW_FILE).map_err(failed)?)?;
    for number in &numbers {
        for view in &views {
            if let Some(row) = find(view, *number)? {
                recovered.push(row)?;
                break;
            }
        }
    }
    drop(views);
    if !is_listed || recovered.lacks_any(&numbers) {
        for copy in &copies {
            leaves::read_leaves(copy, |row| {
                let is_wanted = !is_listed || numbers.contains(&row.number);
                if is_wanted {
                    recovered.push(row)
                } else {
                    Ok(())
                }
            })?;
        }
    }
    let recovered = recovered.complete()?;
    let report = RecoveryReport {
        recovered: recovered.len(),
        lost: numbers.difference(&recovered).copied().collect(),
        lost_is_complete: is_listed,
        moved_to: create_aside(folder).map_err(failed)?,
    };
    // Logged before anything is replaced, so that it is known whatever happens to this start.
    report.log();
    replace(folder, &report.moved_to).map_err(failed)?;
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER))).map_err(failed)?;
    Ok(report)
}

impl RecoveryReport {
    fn log(&self) {
        let Self {
            recovered, lost, ..
        } = self;
        let at_least = if self.lost_is_complete {
            ""
        } else {
            "at least "
        };
        let numbers = lost.iter().take(LOGGED_NUMBERS_MAX);
        let numbers: String = numbers.map(|number| format!(" {number}")).collect();
        let numbers = match numbers.as_str() {
            "" => numbers,
            _ => format!(" (the first numbers:{numbers})"),
        };
        tracing::error!(
            "the spool was damaged: recovered {recovered} records, lost {at_least}{}{numbers}. The damaged files are in {}; check the disk",
            lost.len(),
            self.moved_to.display()
        );
    }
}

/// The new spool while it is being filled.
struct Recovered {
    store: Store,
    batch: Vec<Row>,
    bytes: usize,
    numbers: BTreeSet<u64>,
}

impl Recovered {
    fn into_file(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open(path)?,
            batch: Vec::new(),
            bytes: 0,
            numbers: BTreeSet::new(),
        })
    }

    /// Adds a row, unless it is there already.
    fn push(&mut self, row: Row) -> Result<(), Error> {
        if self.numbers.insert(row.number) {
            self.bytes += row.record.size();
            self.batch.push(row);
        }
        if self.batch.len() >= COPY_BATCH_ROWS || self.bytes >= COPY_BATCH_BYTES {
            self.store.append(&self.batch)?;
            self.batch.clear();
            self.bytes = 0;
        }
        Ok(())
    }

    fn lacks_any(&self, numbers: &BTreeSet<u64>) -> bool {
        numbers.iter().any(|number| !self.numbers.contains(number))
    }

    /// Writes the last batch, so that all rows are in one synced file.
    fn complete(mut self) -> Result<BTreeSet<u64>, Error> {
        self.store.append(&self.batch)?;
        self.store.empty_wal()?;
        Ok(self.numbers)
    }
}

/// Adds the numbers of all rows that the index or the table lists: either may be misread without an
/// error. Returns whether the index could be read, so that it lists nearly all rows.
fn list_numbers(view: &Connection, numbers: &mut BTreeSet<u64>) -> Result<bool, Error> {
    let mut is_listed = true;
    for source in ["INDEXED BY records_by_lane", "NOT INDEXED"] {
        for lane in [Lane::Events, Lane::DeadLetters] {
            // From both ends, because a damaged page ends a scan.
            for order in ["ASC", "DESC"] {
                let mut scan = || -> rusqlite::Result<()> {
                    let sql = format!(
                        "SELECT number FROM records {source} WHERE lane = ?1 ORDER BY number {order}"
                    );
                    let mut statement = view.prepare(&sql)?;
                    let mut rows = statement.query([lane as i64])?;
                    while let Some(row) = rows.next()? {
                        numbers.insert(row.get::<_, i64>(0)? as u64);
                    }
                    Ok(())
                };
                is_listed &= readable(scan())?.is_some() || source == "NOT INDEXED";
            }
        }
    }
    Ok(is_listed)
}

fn find(view: &Connection, number: u64) -> Result<Option<Row>, Error> {
    let find = || {
        let mut statement = view.prepare_cached(&format!(
            "SELECT {} FROM records NOT INDEXED WHERE number = ?1",
            row::COLUMNS
        ))?;
        statement.query_row([number as i64], row::read)
    };
    let found = readable(find())?;
    Ok(found.and_then(|(found, record)| {
        let record = record.ok().filter(|_| found == number)?;
        Some(Row::new(number, record))
    }))
}

/// Creates a folder for the damaged files, which stay there for an operator to examine.
fn create_aside(folder: &Folder) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let path = folder.file(&format!("damaged-{}", now.as_millis()));
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// The order of these steps is such that [`finish`] completes them after a crash between any two.
fn replace(folder: &Folder, aside: &Path) -> io::Result<()> {
    File::open(folder.file(NEW_FILE))?.sync_all()?;
    folder.sync()?;
    for name in [DATABASE_FILE, WAL_FILE] {
        ignore_missing(fs::rename(folder.file(name), aside.join(name)))?;
    }
    folder.sync()?;
    fs::rename(folder.file(NEW_FILE), folder.file(DATABASE_FILE))?;
    folder.sync()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
