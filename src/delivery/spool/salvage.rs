//! What is done with a damaged spool: it is moved aside, and every record that can still be read goes
//! into a new one, in order.
//!
//! A crash in the middle costs nothing: until the new file is whole and synced, the damaged one stays
//! where it was, and the next start begins again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::copies::{COPIES, Copy, copies, read_log};
use super::folder::Folder;
use super::leaves::leaves;
use super::log::Log;
use super::store::{Error, Store};
use super::{FILE, LOG, Lane, Row, row};

/// The new spool while it is being filled.
const NEW: &str = "spool.new";
const NEW_LOG: &str = "spool.new-wal";

/// Rows are copied in transactions of so many, or of so many bytes.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What was saved of a damaged spool, and what was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Salvage {
    /// Records that could be read.
    pub saved: usize,
    /// The numbers of those that are known to have been there and could not.
    pub lost: Vec<u64>,
    /// Where the damaged files are now.
    pub aside: PathBuf,
}

/// Whether SQLite would pass over something in the log, because that is damaged or has lost its file.
/// Writes the log to disk again before it is believed: after a sync that failed, the system's memory may
/// hold what the disk does not, and call it synced.
pub(super) fn log_is_damaged(folder: &Folder) -> io::Result<bool> {
    let (bytes, is_whole) = read_log(folder)?;
    if is_whole && !bytes.is_empty() {
        let file = OpenOptions::new().write(true).open(folder.file(LOG))?;
        match file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()) {
            // Where each write takes new room, a full disk is still no reason not to start.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) => {}
            done => done?,
        }
    }
    let log = Log::read(&bytes, is_whole);
    let file_is_empty = fs::metadata(folder.file(FILE))?.len() == 0;
    Ok(log.is_damaged() || file_is_empty && !log.sound.is_empty())
}

/// Ends what a crash in the middle of [`salvage`] has left. Comes before anything else is opened.
pub(super) fn finish(folder: &Folder) -> io::Result<()> {
    if folder.file(NEW).exists() && !folder.file(FILE).exists() {
        // The damaged file has been moved, and its log may not have been.
        replace(folder, &aside(folder)?)?;
    }
    for name in [NEW, NEW_LOG] {
        remove(fs::remove_file(folder.file(name)))?;
    }
    remove(fs::remove_dir_all(folder.file(COPIES)))
}

/// Moves the damaged spool aside and puts a new one in its place.
pub(super) fn salvage(folder: &Folder) -> Result<Salvage, Error> {
    let failed = |error: io::Error| {
        Error::Failed(format!("the damaged spool could not be salvaged: {error}"))
    };
    remove(fs::remove_dir_all(folder.file(COPIES))).map_err(failed)?;
    let copies = copies(folder).map_err(failed)?;
    let views: Vec<Connection> = copies.iter().map(Copy::open).collect::<Result<_, _>>()?;
    let mut numbers = BTreeSet::new();
    // Where the log is damaged, an index that looks whole may be an old one.
    let mut is_listed = views.len() == 1;
    for view in &views {
        is_listed &= list(view, &mut numbers)?;
    }
    let mut saved = Saved::into(&folder.create(NEW).map_err(failed)?)?;
    for number in &numbers {
        for view in &views {
            if let Some(row) = find(view, *number)? {
                saved.push(row)?;
                break;
            }
        }
    }
    drop(views);
    if !is_listed || saved.lacks_any(&numbers) {
        for copy in &copies {
            leaves(copy, |row| {
                let is_wanted = !is_listed || numbers.contains(&row.number);
                if is_wanted { saved.push(row) } else { Ok(()) }
            })?;
        }
    }
    let saved = saved.end()?;
    let salvage = Salvage {
        saved: saved.len(),
        lost: numbers.difference(&saved).copied().collect(),
        aside: aside(folder).map_err(failed)?,
    };
    // Before anything is replaced: whatever may happen to this start, it has been said.
    salvage.log();
    replace(folder, &salvage.aside).map_err(failed)?;
    remove(fs::remove_dir_all(folder.file(COPIES))).map_err(failed)?;
    Ok(salvage)
}

impl Salvage {
    fn log(&self) {
        let numbers: Vec<String> = self.lost.iter().take(20).map(u64::to_string).collect();
        tracing::error!(
            saved = self.saved,
            lost = self.lost.len(),
            numbers = numbers.join(" "),
            "the spool was damaged: what could be read is published, the rest is lost. The damaged files are in {}; check the disk",
            self.aside.display()
        );
    }
}

/// The new spool while it is being filled.
struct Saved {
    store: Store,
    batch: Vec<Row>,
    bytes: usize,
    numbers: BTreeSet<u64>,
}

impl Saved {
    fn into(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open(path)?,
            batch: Vec::new(),
            bytes: 0,
            numbers: BTreeSet::new(),
        })
    }

    /// Takes a row, unless it has it.
    fn push(&mut self, row: Row) -> Result<(), Error> {
        if self.numbers.insert(row.number) {
            self.bytes += row.record.size();
            self.batch.push(row);
        }
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.store.append(&self.batch)?;
            self.batch.clear();
            self.bytes = 0;
        }
        Ok(())
    }

    fn lacks_any(&self, numbers: &BTreeSet<u64>) -> bool {
        numbers.iter().any(|number| !self.numbers.contains(number))
    }

    /// All of them are on disk, in one file.
    fn end(mut self) -> Result<BTreeSet<u64>, Error> {
        self.store.append(&self.batch)?;
        self.store.checkpoint()?;
        Ok(self.numbers)
    }
}

/// Lists the numbers of all rows that the index or the table knows of: either may be misread without
/// an error. Whether the index could be read, so that it names nearly all there are.
fn list(view: &Connection, numbers: &mut BTreeSet<u64>) -> Result<bool, Error> {
    let mut is_listed = true;
    for source in ["INDEXED BY records_by_lane", "NOT INDEXED"] {
        for lane in [Lane::Events, Lane::DeadLetters] {
            // From both ends, since a damaged page ends a walk.
            for order in ["ASC", "DESC"] {
                let mut walk = || -> rusqlite::Result<()> {
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
                is_listed &= readable(walk())?.is_some() || source == "NOT INDEXED";
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

/// None where that is damaged, or is not there. Any other trouble is no damage, and must end the salvage:
/// what could be read another time must not be given up.
pub(super) fn readable<T>(read: rusqlite::Result<T>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.sqlite_error_code().is_none() => Ok(None),
        Err(error) => match Error::from(error) {
            Error::Damaged(_) => Ok(None),
            error => Err(error),
        },
    }
}

/// A folder for the damaged files, which stay for whoever wants to look at them.
fn aside(folder: &Folder) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let path = folder.file(&format!("damaged-{}", now.as_millis()));
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// The order is such that a crash between any two steps leaves what [`finish`] knows.
fn replace(folder: &Folder, aside: &Path) -> io::Result<()> {
    File::open(folder.file(NEW))?.sync_all()?;
    folder.sync()?;
    for name in [FILE, LOG] {
        remove(fs::rename(folder.file(name), aside.join(name)))?;
    }
    folder.sync()?;
    fs::rename(folder.file(NEW), folder.file(FILE))?;
    folder.sync()
}

/// What is not there need not be removed.
fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
