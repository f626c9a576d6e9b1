//! The pages of the file, and those of its WAL, as they were at one moment.
//!
//! SQLite cannot be used for that: it creates and deletes files beside the one that it opens, and
//! its locks would hold up the service. Without locks, this relies on how the service writes:
//! commits are only appended to the WAL, and the file changes only when a checkpoint copies the WAL
//! into it. So a file that has not changed since before the WAL was read belongs to it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::SnapshotError;
use crate::spool::connection::PAGE_BYTES;
use crate::spool::identity::Identity;
use crate::spool::migration::version_in;
use crate::spool::new_file::{NEW_FILE, NEW_WAL_FILE};
use crate::spool::recovery::read_whole;
use crate::spool::recovery::wal::{HEADER, Page, Wal};
use crate::spool::{DATABASE_FILE, WAL_FILE};

/// A change of the file is noticed by its time. Two changes within one tick of the system's clock,
/// at most 10 ms, have the same time. So only a file that has not changed for this long is read.
const QUIET_TIME: Duration = Duration::from_millis(20);

/// The pause between two attempts, and how long to try.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// The place of the file's size in its first page, in pages, and of the list of unused pages and
/// its length.
const SIZE_AT: usize = 28;
const UNUSED_AT: usize = 32;
const UNUSED_COUNT_AT: usize = 36;

/// What SQLite's files begin with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Why a page, or what is on it, cannot be read.
#[derive(Debug)]
pub(super) struct Broken(pub(super) Cow<'static, str>);

/// Which pages of the WAL are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum View {
    /// Those that SQLite reads.
    Sound,
    /// Also those at and behind damage.
    Beyond,
}

/// The pages of the file and its WAL.
#[derive(Debug)]
pub(super) struct Pages {
    path: PathBuf,
    stamp: Option<Stamp>,
    file: Option<File>,
    /// All of a small file.
    memory: Option<Bytes>,
    /// Pages that the file has, with an incomplete one at its end.
    file_pages: u32,
    sound: HashMap<u32, Bytes>,
    beyond: HashMap<u32, Bytes>,
    wal_bytes: u64,
    /// SQLite's `user_version` in the file and in each first page of the WAL.
    versions: Vec<i32>,
}

/// By what a change of a file is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: Identity,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Pages {
    /// Reads the WAL, and all of a file that has no more bytes than this. Waits while a checkpoint
    /// writes the file.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or change all the time.
    pub(super) fn capture(folder: &Path, in_memory_max: u64) -> Result<Self, SnapshotError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut was_damaged = false;
        loop {
            match Self::attempt(folder, in_memory_max)? {
                // Read once more, so that a commit that is just being written is not damage.
                Some(pages) if was_damaged || !pages.wal_is_damaged() => return Ok(pages),
                Some(_) => was_damaged = true,
                None if Instant::now() >= deadline => return Err(SnapshotError::Busy(TIMEOUT)),
                None => {}
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// `None` if the files change at this moment.
    fn attempt(folder: &Path, in_memory_max: u64) -> Result<Option<Self>, SnapshotError> {
        // A crash during a recovery may have left the complete new file without its final name. The
        // old WAL does not belong to it.
        let [name, wal] =
            match folder.join(DATABASE_FILE).exists() || !folder.join(NEW_FILE).exists() {
                true => [DATABASE_FILE, WAL_FILE],
                false => [NEW_FILE, NEW_WAL_FILE],
            };
        let (path, wal) = (folder.join(name), folder.join(wal));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotError::Unreadable { path, source }
        };
        let stamp = Stamp::of(&path).map_err(failed(&path))?;
        if stamp.is_some_and(|stamp| !stamp.is_quiet()) {
            return Ok(None);
        }
        let Some(log) = read_stable(&wal).map_err(failed(&wal))? else {
            return Ok(None);
        };
        let file = optional(File::open(&path)).map_err(failed(&path))?;
        let length = stamp.map_or(0, |stamp| stamp.length);
        let memory = match &file {
            Some(file) if length <= in_memory_max => {
                let Some((bytes, _)) = unless_cut(read_whole(file)).map_err(failed(&path))? else {
                    return Ok(None);
                };
                Some(Bytes::from(bytes))
            }
            _ => None,
        };
        let wal_is_same = log.is_still(&wal).map_err(failed(&wal))?;
        if !wal_is_same || Stamp::of(&path).map_err(failed(&path))? != stamp {
            return Ok(None);
        }
        let wal = Wal::read(&log.bytes, log.is_complete);
        let owned = |pages: &[Page<'_>]| {
            let pages = pages.iter();
            let owned = pages.map(|(number, page)| (*number, log.bytes.slice_ref(page)));
            owned.collect::<HashMap<_, _>>()
        };
        let mut pages = Self {
            path,
            stamp,
            file,
            memory,
            file_pages: u32::try_from(length.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX),
            sound: owned(&wal.sound),
            beyond: owned(&wal.beyond),
            wal_bytes: log.bytes.len() as u64,
            versions: Vec::new(),
        };
        let first = pages.in_file(1).ok();
        let in_wal = wal.first_pages();
        pages.versions = (first.as_deref().into_iter().chain(in_wal))
            .filter_map(version_in)
            .collect();
        Ok(Some(pages))
    }

    /// Whether what is read from now on belongs to the same moment.
    pub(super) fn is_current(&self) -> bool {
        self.memory.is_some() || Stamp::of(&self.path).is_ok_and(|stamp| stamp == self.stamp)
    }

    /// Whether there is neither a file nor a WAL.
    pub(super) fn are_none(&self) -> bool {
        self.stamp.is_none_or(|stamp| stamp.length == 0) && self.wal_bytes == 0
    }

    /// Whether SQLite would ignore a part of the WAL, because that part is damaged or because the
    /// file is gone.
    pub(super) fn wal_is_damaged(&self) -> bool {
        let is_empty = self.stamp.is_none_or(|stamp| stamp.length == 0);
        !self.beyond.is_empty() || is_empty && !self.sound.is_empty()
    }

    pub(super) fn versions(&self) -> &[i32] {
        &self.versions
    }

    /// The views to recover from.
    pub(super) fn views(&self) -> &'static [View] {
        match self.beyond.is_empty() {
            true => &[View::Sound],
            false => &[View::Sound, View::Beyond],
        }
    }

    /// Reads a page. They count from 1.
    pub(super) fn page(&self, view: View, number: u32) -> Result<Bytes, Broken> {
        let beyond = self.beyond.get(&number).filter(|_| view == View::Beyond);
        match beyond.or_else(|| self.sound.get(&number)) {
            Some(page) => Ok(page.clone()),
            None => self.in_file(number),
        }
    }

    fn in_file(&self, number: u32) -> Result<Bytes, Broken> {
        let missing = || Broken(format!("the file has no page {number}").into());
        if !(1..=self.file_pages).contains(&number) {
            return Err(missing());
        }
        let at = u64::from(number - 1) * PAGE_BYTES;
        let length = self.stamp.map_or(0, |stamp| stamp.length);
        let length = length.saturating_sub(at).min(PAGE_BYTES) as usize;
        if let Some(memory) = &self.memory
            && length == PAGE_BYTES as usize
        {
            let page = memory
                .get(at as usize..)
                .and_then(|rest| rest.get(..length));
            return page.map(|page| memory.slice_ref(page)).ok_or_else(missing);
        }
        // What is missing of the last page is zeros.
        let file = self.file.as_ref().ok_or_else(missing)?;
        let mut page = vec![0; PAGE_BYTES as usize];
        let (begin, _) = page.split_at_mut(length);
        (file.read_exact_at(begin, at))
            .map_err(|error| Broken(format!("page {number} cannot be read ({error})").into()))?;
        Ok(page.into())
    }

    /// The numbers of the pages of a view that may hold rows. In the view beyond damage, those that
    /// differ.
    pub(super) fn numbers(&self, view: View) -> Vec<u32> {
        if view == View::Beyond {
            let mut numbers: Vec<u32> = self.beyond.keys().copied().collect();
            numbers.sort_unstable();
            return numbers;
        }
        let in_wal = self.sound.keys().copied().max().unwrap_or(0);
        // Behind its end, a file may have pages that it no longer uses.
        let last = self.size().unwrap_or(self.file_pages.max(in_wal));
        (1..=last).collect()
    }

    /// The size in pages, if the first page is intact.
    fn size(&self) -> Option<u32> {
        let first = self.page(View::Sound, 1).ok()?;
        let in_wal = self.sound.keys().copied().max().unwrap_or(0);
        let size = word(&first, SIZE_AT);
        let is_possible = (1..=self.file_pages.max(in_wal)).contains(&size);
        (first.starts_with(MAGIC) && is_possible).then_some(size)
    }

    /// The most pages that a walk can meet.
    pub(super) fn count_max(&self) -> usize {
        self.file_pages as usize + self.sound.len() + self.beyond.len()
    }

    /// Bytes of the pages in use and of the WAL, as [`super::super::Spool::used_bytes`] counts them.
    pub(super) fn used_bytes(&self) -> u64 {
        let unused = self
            .page(View::Sound, 1)
            .map(|first| word(&first, UNUSED_COUNT_AT));
        let used = match (self.size(), unused) {
            (Some(size), Ok(unused)) => u64::from(size.saturating_sub(unused)) * PAGE_BYTES,
            _ => self.stamp.map_or(0, |stamp| stamp.length),
        };
        used + self.wal_bytes
    }

    /// The pages that are not in use, as far as their list can be followed. They hold deleted rows.
    /// <https://sqlite.org/fileformat2.html#the_freelist>
    pub(super) fn unused(&self, view: View) -> HashSet<u32> {
        let mut unused = HashSet::new();
        let first = self.page(view, 1).ok();
        let mut trunk = first.map_or(0, |first| word(&first, UNUSED_AT));
        while trunk > 1
            && let Ok(page) = self.page(view, trunk)
            && unused.insert(trunk)
        {
            let listed = (word(&page, 4) as usize).min(PAGE_BYTES as usize / 4 - 2);
            unused.extend((0..listed).map(|place| word(&page, 8 + 4 * place)));
            trunk = word(&page, 0);
        }
        unused
    }
}

/// A word, or 0 behind the end of the page.
fn word(page: &[u8], at: usize) -> u32 {
    let word = page.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(word.copied().unwrap_or_default())
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let stamp = |file: Metadata| Self {
            identity: Identity::of(&file),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        };
        optional(fs::metadata(path)).map(|file| file.map(stamp))
    }

    fn is_quiet(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.unsigned_abs(), nanoseconds as u32);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // A change in the future is quiet too: the next one will have another time.
        now.is_ok_and(|now| now.abs_diff(changed) >= QUIET_TIME)
    }
}

/// The bytes of a WAL.
struct Log {
    bytes: Bytes,
    is_complete: bool,
}

/// Reads the WAL; empty if there is none. `None` if it was truncated meanwhile.
fn read_stable(path: &Path) -> io::Result<Option<Log>> {
    let Some(file) = optional(File::open(path))? else {
        return Ok(Some(Log {
            bytes: Bytes::new(),
            is_complete: true,
        }));
    };
    let read = unless_cut(read_whole(&file))?;
    Ok(read.map(|(bytes, is_complete)| Log {
        bytes: bytes.into(),
        is_complete,
    }))
}

impl Log {
    /// Whether the WAL still begins with these bytes. After a checkpoint it has another header.
    fn is_still(&self, path: &Path) -> io::Result<bool> {
        let Some(begin) = self.bytes.get(..HEADER) else {
            return Ok(true);
        };
        let Some(file) = optional(File::open(path))? else {
            return Ok(false);
        };
        let mut header = [0; HEADER];
        let read = match unless_cut(file.read_exact_at(&mut header, 0)) {
            // A block that the disk cannot read.
            Err(_) if !self.is_complete => return Ok(true),
            read => read?,
        };
        let length = file.metadata()?.len();
        Ok(read.is_some() && header == begin && length >= self.bytes.len() as u64)
    }
}

/// `None` if the file is missing.
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// `None` if the file has become shorter.
fn unless_cut<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        result => result.map(Some),
    }
}
