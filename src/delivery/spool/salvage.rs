//! What is done with a damaged spool: it is moved aside, and every record that can still be read goes
//! into a new one, in order.
//!
//! A crash in the middle costs nothing: until the new file is whole and synced, the damaged one stays
//! where it was, and the next start begins again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use rustix::io::Errno;

use super::folder::Folder;
use super::leaves::leaves;
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

/// Whether SQLite would pass over something in the log, because that is damaged or has lost its file.
/// Writes the log to disk again before it is believed: after a sync that failed, the system's memory may
/// hold what the disk does not, and call it synced.
pub(super) fn log_is_damaged(folder: &Folder) -> io::Result<bool> {
    let (bytes, is_whole) = read_log(folder)?;
    if is_whole && !bytes.is_empty() {
        let file = OpenOptions::new().write(true).open(folder.file(LOG))?;
        match file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()) {
            // Where each write takes new room, a full disk is still no reason not to start.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            done => done?,
        }
    }
    let log = Log::read(&bytes);
    let file_is_empty = fs::metadata(folder.file(FILE))?.len() == 0;
    Ok(log.is_damaged() || file_is_empty && !log.sound.is_empty())
}

/// The log's bytes, and whether all could be read. Empty where there is none.
fn read_log(folder: &Folder) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let file = match File::open(folder.file(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((bytes, true)),
        file => file?,
    };
    let length = file.metadata()?.len();
    let is_whole = read_blocks(
        length,
        |block, at| file.read_exact_at(block, at),
        |block| {
            bytes.extend(block);
            Ok(())
        },
    )?;
    Ok((bytes, is_whole))
}

/// Reads so many bytes, block by block, with zeros for what the disk does not give back. Whether it gave
/// back all.
fn read_blocks(
    length: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut block = [0; PAGE_BYTES as usize];
    let mut is_whole = true;
    for at in (0..length).step_by(block.len()) {
        let (block, _) = block.split_at_mut((length - at).min(PAGE_BYTES) as usize);
        match read(block, at) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                block.fill(0);
                is_whole = false;
            }
            done => done?,
        }
        take(block)?;
    }
    Ok(is_whole)
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
    let copies = copies(folder).map_err(failed)?;
    let views: Vec<Connection> =
        (copies.iter().map(|path| open(path))).collect::<Result<_, _>>()?;
    let (mut numbers, mut whole) = (BTreeSet::new(), false);
    for view in &views {
        whole |= list(view, &mut numbers)?;
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
    let is_missing = |saved: &Saved| numbers.iter().any(|number| !saved.numbers.contains(number));
    if !whole || is_missing(&saved) {
        for copy in &copies {
            leaves(copy, |row| {
                // Pages that are not in use hold what was deleted.
                let is_wanted = !whole || numbers.contains(&row.number);
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
    replace(folder, &salvage.aside).map_err(failed)?;
    remove(fs::remove_dir_all(folder.file(COPIES))).map_err(failed)?;
    Ok(salvage)
}

/// The new spool while it is being filled.
struct Saved {
    store: Store,
    batch: Vec<Row>,
    numbers: BTreeSet<u64>,
}

impl Saved {
    fn into(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open(path)?,
            batch: Vec::new(),
            numbers: BTreeSet::new(),
        })
    }

    /// Takes a row, unless it has it.
    fn push(&mut self, row: Row) -> Result<(), Error> {
        if self.numbers.insert(row.number) {
            self.batch.push(row);
        }
        if self.batch.len() == BATCH {
            self.store.write(&self.batch, &[])?;
            self.batch.clear();
        }
        Ok(())
    }

    /// All of them are on disk, in one file.
    fn end(mut self) -> Result<BTreeSet<u64>, Error> {
        self.store.write(&self.batch, &[])?;
        self.store.checkpoint()?;
        Ok(self.numbers)
    }
}

/// The damaged spool as SQLite reads it, and as it is with all of its log.
fn copies(folder: &Folder) -> io::Result<Vec<PathBuf>> {
    remove(fs::remove_dir_all(folder.file(COPIES)))?;
    DirBuilder::new().mode(0o700).create(folder.file(COPIES))?;
    let (log, _) = read_log(folder)?;
    let log = Log::read(&log);
    let mut views = vec![log.sound.clone()];
    if log.is_damaged() {
        views.push([log.sound, log.beyond].concat());
    }
    let mut copies = Vec::new();
    for (at, pages) in views.iter().enumerate() {
        let path = folder.file(COPIES).join(at.to_string());
        let (file, mut copy) = (File::open(folder.file(FILE))?, File::create_new(&path)?);
        let length = file.metadata()?.len();
        let read = |block: &mut [u8], at| file.read_exact_at(block, at);
        read_blocks(length, read, |block| copy.write_all(block))?;
        apply(pages, &copy)?;
        copies.push(path);
    }
    Ok(copies)
}

/// Does what a checkpoint would do.
fn apply(pages: &[Page<'_>], file: &File) -> io::Result<()> {
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
    Store::open(&template)?.checkpoint()?;
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
/// damaged page ends a walk. Whether the index is whole, so that it names all there are.
fn list(view: &Connection, numbers: &mut BTreeSet<u64>) -> Result<bool, Error> {
    let mut whole = true;
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
                let ended = readable(walk())?.is_some();
                whole &= ended || source == "NOT INDEXED";
            }
        }
    }
    Ok(whole)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_the_disk_does_not_give_back_are_zeros_and_others_are_read() {
        let original: Vec<u8> = (0..10_000_u32).map(|at| at as u8 | 1).collect();
        let read = |bad: i32| {
            let mut copy: Vec<u8> = Vec::new();
            let whole = read_blocks(
                original.len() as u64,
                |block, at| match at {
                    4096 if bad != 0 => Err(io::Error::from_raw_os_error(bad)),
                    at => {
                        block.copy_from_slice(&original[at as usize..][..block.len()]);
                        Ok(())
                    }
                },
                |block| {
                    copy.extend(block);
                    Ok(())
                },
            );
            whole.map(|whole| (whole, copy))
        };
        let (is_whole, copy) = read(0).expect("it reads");
        assert!(is_whole && copy == original);
        let (is_whole, copy) = read(Errno::IO.raw_os_error()).expect("it reads on");
        assert!(!is_whole);
        assert_eq!(copy[..4096], original[..4096]);
        assert_eq!(copy[4096..8192], [0; 4096]);
        assert_eq!(copy[8192..], original[8192..]);
        read(Errno::NOMEM.raw_os_error()).expect_err("that is no damage");
    }
}
