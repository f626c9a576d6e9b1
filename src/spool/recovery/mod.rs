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
use super::format::Format;
use super::new_file::{self, KEPT_NUMBER_MAX, NEW_FILE, NewFile, ignore_missing};
use super::{DATABASE_FILE, Row, WAL_FILE, connection};
use copies::make_copies;
pub(super) use copies::{COPIES_FOLDER, read_wal, read_whole};
use wal::Wal;

/// How the names of the folders begin that keep damaged files.
pub(super) const ASIDE_PREFIX: &str = "damaged-";

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
/// may hold what the disk does not, and report it as synced. If that fails, what is in the cache can
/// still be published; nothing is appended to such a WAL.
pub(super) fn wal_is_damaged(folder: &Folder) -> io::Result<bool> {
    let (bytes, is_complete) = read_wal(folder)?;
    if is_complete && !bytes.is_empty() && folder.read_only().is_none() {
        let file = OpenOptions::new().write(true).open(folder.file(WAL_FILE))?;
        if let Err(error) = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()) {
            tracing::warn!(
                "cannot write the WAL of the spool to disk again ({error}); its records are published all the same"
            );
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
    new_file::remove(folder)?;
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER)))
}

/// Moves the damaged spool aside and puts a new one in its place, which has the current format.
/// `format` is that of the damaged spool, if it is known.
pub(super) fn recover(folder: &Folder, format: Option<Format>) -> Result<RecoveryReport, Error> {
    let failed = Error::io("cannot copy or replace the damaged files");
    let mut report = match format {
        Some(format) => copy_readable(folder, format)?,
        // Rows of the other format are not read: their checksums do not match.
        None => match copy_readable(folder, Format::CURRENT)? {
            report if report.recovered > 0 => report,
            _ => copy_readable(folder, Format::One)?,
        },
    };
    // Rows that could be read prove the format.
    report.lost_is_complete &= format.is_some() || report.recovered > 0;
    report.moved_to = create_aside(folder).map_err(failed)?;
    // Logged before anything is replaced, so that it is known whatever happens to this start.
    report.log();
    replace(folder, &report.moved_to).map_err(failed)?;
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER))).map_err(failed)?;
    Ok(report)
}

/// Fills the new file with every row that can be read.
fn copy_readable(folder: &Folder, format: Format) -> Result<RecoveryReport, Error> {
    let failed = Error::io("cannot copy or replace the damaged files");
    ignore_missing(fs::remove_dir_all(folder.file(COPIES_FOLDER))).map_err(failed)?;
    let copies = make_copies(folder).map_err(failed)?;
    let views: Vec<Connection> = copies
        .iter()
        .map(|copy| copy.open(format))
        .collect::<Result<_, _>>()?;
    let mut numbers = BTreeSet::new();
    // If the WAL is damaged, an index that looks intact may be outdated.
    let mut is_listed = views.len() == 1;
    let mut last = 0;
    for view in &views {
        is_listed &= list_numbers(view, format, &mut numbers)?;
        if format == Format::CURRENT {
            last = last.max(
                readable(connection::last(view))?
                    .flatten()
                    .unwrap_or_default(),
            );
        }
    }
    let mut recovered = Recovered::into_file(folder)?;
    for number in &numbers {
        for view in &views {
            if let Some(row) = find(view, format, *number)? {
                recovered.push(row)?;
                break;
            }
        }
    }
    drop(views);
    if !is_listed || recovered.lacks_any(&numbers) {
        for copy in &copies {
            leaves::read_leaves(copy, format, |row| {
                let is_wanted = !is_listed || numbers.contains(&row.number);
                if is_wanted {
                    recovered.push(row)
                } else {
                    Ok(())
                }
            })?;
        }
    }
    // What the index lists has no checksum, so a higher number is probably misread.
    let listed = numbers.range(..=KEPT_NUMBER_MAX).next_back();
    let recovered = recovered.complete(last.max(listed.copied().unwrap_or_default()))?;
    Ok(RecoveryReport {
        recovered: recovered.len(),
        lost: numbers.difference(&recovered).copied().collect(),
        lost_is_complete: is_listed,
        moved_to: PathBuf::new(),
    })
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

/// The new spool while it is being filled, and the numbers in it.
struct Recovered {
    file: NewFile,
    numbers: BTreeSet<u64>,
}

impl Recovered {
    fn into_file(folder: &Folder) -> Result<Self, Error> {
        Ok(Self {
            file: NewFile::create(folder)?,
            numbers: BTreeSet::new(),
        })
    }

    /// Adds a row, unless it is there already.
    fn push(&mut self, row: Row) -> Result<(), Error> {
        match self.numbers.insert(row.number) {
            true => self.file.push(row),
            false => Ok(()),
        }
    }

    fn lacks_any(&self, numbers: &BTreeSet<u64>) -> bool {
        numbers.iter().any(|number| !self.numbers.contains(number))
    }

    fn complete(self, last: u64) -> Result<BTreeSet<u64>, Error> {
        self.file.complete(last)?;
        Ok(self.numbers)
    }
}

/// Adds the numbers of all rows that the index or the table lists: either may be misread without an
/// error. Returns whether the index could be read, so that it lists nearly all rows.
fn list_numbers(
    view: &Connection,
    format: Format,
    numbers: &mut BTreeSet<u64>,
) -> Result<bool, Error> {
    let mut is_listed = true;
    let (index, column) = format.index();
    let of_index = |value| format!("INDEXED BY {index} WHERE {column} = {value}");
    for (source, is_index) in [
        (of_index(0), true),
        (of_index(1), true),
        ("NOT INDEXED".to_owned(), false),
    ] {
        // From both ends, because a damaged page ends a scan.
        for order in ["ASC", "DESC"] {
            let mut scan = || -> rusqlite::Result<()> {
                let sql = format!("SELECT number FROM records {source} ORDER BY number {order}");
                let mut statement = view.prepare(&sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    numbers.insert(row.get::<_, i64>(0)? as u64);
                }
                Ok(())
            };
            is_listed &= readable(scan())?.is_some() || !is_index;
        }
    }
    Ok(is_listed)
}

fn find(view: &Connection, format: Format, number: u64) -> Result<Option<Row>, Error> {
    let find = || {
        let mut statement = view.prepare_cached(&format!(
            "SELECT {} FROM records NOT INDEXED WHERE number = ?1",
            format.columns()
        ))?;
        statement.query_row([number as i64], |row| format.read(row))
    };
    let found = readable(find())?;
    Ok(found.and_then(|(found, stored)| {
        let stored = stored.ok().filter(|_| found == number)?;
        Some(Row::stored(number, stored))
    }))
}

/// Creates a folder for the damaged files, which stay there for an operator to examine.
fn create_aside(folder: &Folder) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let path = folder.file(&format!("{ASIDE_PREFIX}{}", now.as_millis()));
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
    new_file::move_into_place(folder)?;
    folder.clear_damage_mark()
}
