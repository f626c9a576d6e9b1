//! What is done with a damaged spool: it is moved aside, and every record that can still be read goes
//! into a new one, in order.
//!
//! A crash in the middle costs nothing: until the new file is whole and synced, the damaged one stays
//! where it was, and the next start begins again.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::folder::Folder;
use super::log::{Log, Page};
use super::store::{Error, PAGE_BYTES, Store};
use super::{FILE, LOG, Lane, Row, row};

/// The new spool while it is being filled.
const NEW: &str = "spool.new";
const NEW_LOG: &str = "spool.new-wal";

/// Copies to read from, since SQLite changes what it opens.
const COPIES: &str = "salvage";

/// Rows are copied in transactions of so many.
const BATCH: usize = 1000;

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

/// Whether the log in this folder is damaged in a way that SQLite would pass over.
pub(super) fn log_is_damaged(folder: &Folder) -> io::Result<bool> {
    match fs::read(folder.file(LOG)) {
        Ok(bytes) => Ok(Log::read(&bytes).is_damaged()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends what a crash in the middle of [`salvage`] has left. Comes before anything else is opened.
pub(super) fn finish(folder: &Folder) -> io::Result<()> {
    if folder.file(NEW).exists() && !folder.file(FILE).exists() {
        // The damaged file has been moved, and its log may not have been.
        return replace(folder, &aside(folder)?);
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
    let views = copies(folder).map_err(failed)?;
    let views: Vec<Connection> = (views.iter().map(|path| open(path))).collect::<Result<_, _>>()?;
    let mut numbers = BTreeSet::new();
    for view in &views {
        list(view, &mut numbers);
    }
    let mut salvage = Salvage {
        saved: 0,
        lost: Vec::new(),
        aside: PathBuf::new(),
    };
    let mut new = Store::open(&folder.create(NEW).map_err(failed)?)?;
    let mut batch = Vec::new();
    for number in numbers {
        match views.iter().find_map(|view| find(view, number)) {
            Some(row) => batch.push(row),
            None => salvage.lost.push(number),
        }
        if batch.len() == BATCH {
            new.write(&batch, &[])?;
            salvage.saved += batch.len();
            batch.clear();
        }
    }
    new.write(&batch, &[])?;
    salvage.saved += batch.len();
    new.checkpoint()?;
    drop((new, views));
    salvage.aside = aside(folder).map_err(failed)?;
    replace(folder, &salvage.aside).map_err(failed)?;
    remove(fs::remove_dir_all(folder.file(COPIES))).map_err(failed)?;
    Ok(salvage)
}

/// The damaged spool as SQLite reads it, and as it is with all of its log.
fn copies(folder: &Folder) -> io::Result<Vec<PathBuf>> {
    remove(fs::remove_dir_all(folder.file(COPIES)))?;
    fs::create_dir(folder.file(COPIES))?;
    let log = match fs::read(folder.file(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        log => log?,
    };
    let log = Log::read(&log);
    let mut views = vec![log.sound.clone()];
    if log.is_damaged() {
        views.push([log.sound, log.beyond].concat());
    }
    let mut copies = Vec::new();
    for (at, pages) in views.iter().enumerate() {
        let path = folder.file(COPIES).join(at.to_string());
        fs::copy(folder.file(FILE), &path)?;
        apply(pages, &path)?;
        copies.push(path);
    }
    Ok(copies)
}

/// Does what a checkpoint would do.
fn apply(pages: &[Page<'_>], path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    // A page number may be what was hit.
    let most = file.metadata()?.len() / PAGE_BYTES + pages.len() as u64;
    for (number, page) in pages {
        if let Some(before) = number.checked_sub(1).filter(|_| u64::from(*number) <= most) {
            file.write_all_at(page, u64::from(before) * PAGE_BYTES)?;
        }
    }
    Ok(())
}

/// Opens a copy, with a first page of ours in place of its own: that page says what tables there are
/// and where they begin, and all spools are made alike.
fn open(path: &Path) -> Result<Connection, Error> {
    let failed = |error: io::Error| Error::Failed(error.to_string());
    let template = path.with_extension("template");
    drop(Store::open(&template)?);
    let mut page = fs::read(&template).map_err(failed)?;
    page.truncate(PAGE_BYTES as usize);
    let copy = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let pages = copy.metadata().map_err(failed)?.len() / PAGE_BYTES;
    if let Some(size) = page.get_mut(28..32) {
        size.copy_from_slice(&(pages as u32).to_be_bytes());
    }
    copy.write_all_at(&page, 0).map_err(failed)?;
    let view = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    view.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(view)
}

/// Lists the numbers of all rows that the table or its index knows of, read from both ends, since a
/// damaged page ends a walk.
fn list(view: &Connection, numbers: &mut BTreeSet<u64>) {
    for source in ["NOT INDEXED", "INDEXED BY records_by_lane"] {
        for lane in [Lane::Events, Lane::DeadLetters] {
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
                if let Err(error) = walk() {
                    tracing::debug!(%error, source, order, "a walk through the damaged spool ended");
                }
            }
        }
    }
}

fn find(view: &Connection, number: u64) -> Option<Row> {
    let find = || {
        let mut statement = view.prepare_cached(&format!(
            "SELECT {} FROM records NOT INDEXED WHERE number = ?1",
            row::COLUMNS
        ))?;
        statement.query_row([number as i64], row::read)
    };
    let (found, record) = find().ok()?;
    let record = record.ok().filter(|_| found == number)?;
    Some(Row::new(number, record))
}

/// A folder for the damaged files, which stay for whoever wants to look at them.
fn aside(folder: &Folder) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let path = folder.file(&format!("damaged-{}", now.as_millis()));
    fs::create_dir(&path)?;
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
