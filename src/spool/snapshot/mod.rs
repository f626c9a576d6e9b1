//! What is in a spool, read without changing anything in its folder: also beside a running service,
//! on a disk that can only be read, and if it is damaged.
//!
//! No lock of the service is taken, and nothing is opened for writing.

mod leaves;
mod leftovers;
mod pages;
mod summary;
mod tree;
mod user;

use std::fmt;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leaves::{Rows, index_root, number_of};
pub use leftovers::{Leftover, leftovers};
use pages::{Broken, Pages, TIMEOUT, View};
pub use summary::{Group, Summary};
use tree::{Trees, values};
pub use user::{User, user_of};

use super::folder::DAMAGE_MARK;
use super::format::Format;
use super::migration::format_among;
use super::row::Stored;
use super::{MAX_READ_BYTES, MAX_READ_RECORDS};
use crate::event::Record;
use crate::log::count;

/// A file up to this size is read into memory as a whole, so that no later change of it matters.
const IN_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the table of the records begins, in all formats.
const TABLE_ROOT: u32 = 2;

/// Why a spool cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no folder.
    #[error(
        "there is no folder {}; set ZIM2KAFKA_SPOOL_DIR to the folder of the service, which creates it at its first start", .0.display()
    )]
    Missing(PathBuf),
    /// The folder, or a file in it, cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), advice(path, source))]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "the spool has format {0}, of a newer version than this one; it was not changed. Use the version that wrote it, or a later one"
    )]
    Newer(u8),
    /// The file has changed at each attempt to read it.
    #[error("the service changes the spool all the time, so it could not be read within {} s; try again", .0.as_secs())]
    Busy(Duration),
}

fn advice(path: &Path, error: &io::Error) -> String {
    let owner = fs::metadata(path).or_else(|_| fs::metadata(path.parent().unwrap_or(path)));
    match (error.kind(), owner) {
        (io::ErrorKind::PermissionDenied, Ok(owner)) => format!(
            "run this as the user of the service (its owner has the user id {}), or as root",
            owner.uid()
        ),
        (io::ErrorKind::PermissionDenied, Err(_)) => {
            "run this as the user of the service, or as root".to_owned()
        }
        (io::ErrorKind::NotADirectory, _) => {
            "set ZIM2KAFKA_SPOOL_DIR to the folder of the service".to_owned()
        }
        _ => "check the disk".to_owned(),
    }
}

/// A spool as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    in_memory_max: u64,
    pages: Pages,
    /// `None` if damage hides it.
    format: Option<Format>,
}

/// A record in the spool.
#[derive(Debug)]
pub struct Spooled {
    /// Records are published in the order of their numbers.
    pub number: u64,
    /// The record.
    pub record: Record,
    /// Whether Kafka has rejected it permanently.
    pub refused: bool,
}

/// What became known while all records were read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The damage that was found.
    pub damage: Option<Damage>,
    /// Whether the service has changed the file meanwhile. Then records that left the spool during
    /// the reading, because they were published, may be missing; no other is.
    pub has_changed: bool,
}

/// Damage of the file or its WAL.
#[derive(Debug)]
pub struct Damage {
    /// What was found first.
    pub cause: String,
    /// The numbers of records that are known to have been there and cannot be read.
    pub lost: Vec<u64>,
    /// Whether these are all.
    pub lost_is_complete: bool,
}

impl Damage {
    /// Whether all records can be read.
    pub fn loses_nothing(&self) -> bool {
        self.lost.is_empty() && self.lost_is_complete
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 20;
        write!(f, "it is damaged ({}): ", self.cause)?;
        match (self.lost.len(), self.lost_is_complete) {
            (0, true) => f.write_str("nothing is lost")?,
            (0, false) => f.write_str("records may be lost")?,
            (lost, is_complete) => {
                let at_least = if is_complete { "" } else { "at least " };
                let lost = count(lost as u64, "record");
                write!(f, "{at_least}{lost} cannot be read (numbers:")?;
                for number in self.lost.iter().take(SHOWN_MAX) {
                    write!(f, " {number}")?;
                }
                f.write_str(match self.lost.len() > SHOWN_MAX {
                    true => " …)",
                    false => ")",
                })?;
            }
        }
        f.write_str("; the next start of the service moves the damaged files aside and keeps what can be read")
    }
}

/// Some records, in order.
struct Batch {
    records: Vec<Spooled>,
    is_last: bool,
}

/// Numbers that were read: how many, and their sum.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, number: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(number);
    }
}

impl Snapshot {
    /// Takes a snapshot of the spool in this folder. It stays the same if the service goes on, but
    /// for a file of more than 64 MiB: see [`Reading::has_changed`].
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]
    pub fn take(folder: &Path) -> Result<Self, SnapshotError> {
        Self::take_within(folder, IN_MEMORY_BYTES_MAX)
    }

    /// Like [`Snapshot::take`], with another limit of what is read into memory.
    pub(super) fn take_within(folder: &Path, in_memory_max: u64) -> Result<Self, SnapshotError> {
        // Also lists it, so that a file that is not found is really not there.
        if let Err(source) = fs::read_dir(folder) {
            let path = folder.to_owned();
            return Err(match source.kind() {
                io::ErrorKind::NotFound => SnapshotError::Missing(path),
                _ => SnapshotError::Unreadable { path, source },
            });
        }
        let pages = Pages::capture(folder, in_memory_max)?;
        let format = format_among(pages.versions()).map_err(SnapshotError::Newer)?;
        Ok(Self {
            folder: folder.to_owned(),
            in_memory_max,
            pages,
            format,
        })
    }

    /// The number of its format; `None` if there is no file, or if damage hides it.
    pub fn format(&self) -> Option<u8> {
        self.format.map(|format| format as u8)
    }

    /// Bytes of the pages in use and of the WAL.
    pub fn used_bytes(&self) -> u64 {
        self.pages.used_bytes()
    }

    /// Reads all records, in the order of their numbers, until `take` breaks. If the spool is
    /// damaged, those that can be read: the same that the next start of the service recovers.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]
    pub fn read(
        mut self,
        take: &mut dyn FnMut(Spooled) -> ControlFlow<()>,
    ) -> Result<Reading, SnapshotError> {
        let mut reading = Reading::default();
        let mut after = None;
        let mut tally = Tally::default();
        // A smaller part is more likely to be read between two changes.
        let (mut part_bytes, mut progressed) = (MAX_READ_BYTES, Instant::now());
        let damage = loop {
            if self.pages.are_none() {
                return Ok(reading);
            }
            if let Some(cause) = self.known_damage() {
                break cause;
            }
            let batch = self.batch(after, part_bytes);
            if !self.pages.is_current() {
                if progressed.elapsed() >= TIMEOUT {
                    return Err(SnapshotError::Busy(TIMEOUT));
                }
                part_bytes /= 2;
                self = Self::take_within(&self.folder, self.in_memory_max)?;
                reading.has_changed = true;
                continue;
            }
            let batch = match batch {
                Ok(batch) => batch,
                Err(Broken(cause)) => break cause.into_owned(),
            };
            (part_bytes, progressed) = (MAX_READ_BYTES, Instant::now());
            for spooled in batch.records {
                after = Some(spooled.number);
                tally.add(spooled.number);
                if take(spooled).is_break() {
                    return Ok(reading);
                }
            }
            if batch.is_last {
                // The index is of the last moment only.
                match self.listed() {
                    _ if reading.has_changed || !self.pages.is_current() => return Ok(reading),
                    Ok(listed) if listed == tally => return Ok(reading),
                    Ok(_) => break "the index lists other records than the table has".to_owned(),
                    Err(Broken(cause)) => break cause.into_owned(),
                }
            }
        };
        let rows = self.recoverable();
        let mut lost = rows.lost;
        let format = self.format.unwrap_or(Format::CURRENT);
        for place in rows.places {
            if after.is_some_and(|after| place.number <= after) {
                continue;
            }
            let taken = match place.read(&self.pages, format) {
                Some(stored) => take(spooled(place.number, stored)),
                None => {
                    lost.push(place.number);
                    ControlFlow::Continue(())
                }
            };
            if taken.is_break() {
                break;
            }
        }
        reading.has_changed |= !self.pages.is_current();
        reading.damage = Some(Damage {
            cause: damage,
            lost,
            lost_is_complete: rows.lost_is_complete,
        });
        Ok(reading)
    }

    /// Damage that is known before anything is read.
    fn known_damage(&self) -> Option<String> {
        if self.folder.join(DAMAGE_MARK).exists() {
            return Some("the service has found damage".to_owned());
        }
        if self.pages.wal_is_damaged() {
            return Some("the WAL has been altered".to_owned());
        }
        match self.format {
            None => Some("the header of the file has been altered".to_owned()),
            Some(_) => None,
        }
    }

    /// Reads the records that follow a number: one at least, if there is one.
    fn batch(&self, after: Option<u64>, bytes_max: usize) -> Result<Batch, Broken> {
        let format = self.format.unwrap_or(Format::CURRENT);
        let trees = Trees::new(&self.pages, View::Sound);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut take = |number: i64, row: &[u8]| -> Result<ControlFlow<()>, Broken> {
            let altered = || Broken(format!("record {} has been altered", number as u64).into());
            let columns = values(row).ok_or_else(altered)?;
            let stored = format.decode(number as u64, |at| columns.get(at).copied());
            let stored = stored.map_err(|_| altered())?;
            bytes += stored.record.size();
            records.push(spooled(number as u64, stored));
            let is_full = records.len() >= MAX_READ_RECORDS || bytes >= bytes_max;
            Ok(match is_full {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        };
        let next = after.map_or(Some(0), |after| after.checked_add(1));
        let Some(next) = next else {
            return Ok(Batch {
                records,
                is_last: true,
            });
        };
        // SQLite has no unsigned integers: the highest numbers are negative there, and come first.
        if let Ok(from) = i64::try_from(next)
            && trees.table(TABLE_ROOT, from, &mut take)?.is_break()
        {
            return Ok(Batch {
                records,
                is_last: false,
            });
        }
        let from = if next > i64::MAX as u64 {
            next as i64
        } else {
            i64::MIN
        };
        let mut is_last = true;
        // Broken off where the others begin, which were read before.
        let _ = trees.table(TABLE_ROOT, from, |number, row| {
            if number >= 0 {
                return Ok(ControlFlow::Break(()));
            }
            let taken = take(number, row)?;
            is_last &= taken.is_continue();
            Ok(taken)
        })?;
        Ok(Batch { records, is_last })
    }

    /// The numbers in the index.
    fn listed(&self) -> Result<Tally, Broken> {
        let format = self.format.unwrap_or(Format::CURRENT);
        let mut tally = Tally::default();
        let mut is_intact = true;
        Trees::new(&self.pages, View::Sound).index(index_root(format), |entry| match number_of(
            entry, format,
        ) {
            Some(number) => tally.add(number),
            None => is_intact = false,
        })?;
        match is_intact {
            true => Ok(tally),
            false => Err(Broken("the index has been altered".into())),
        }
    }

    /// The rows of a damaged spool. If the format is not known, rows that can be read prove it.
    fn recoverable(&mut self) -> Rows {
        if let Some(format) = self.format {
            return leaves::find(&self.pages, format);
        }
        let mut rows = Rows::default();
        for format in [Format::CURRENT, Format::One] {
            rows = leaves::find(&self.pages, format);
            if !rows.places.is_empty() {
                self.format = Some(format);
                return rows;
            }
        }
        rows.lost_is_complete = false;
        rows
    }
}

/// A row with its mark. One that has been altered counts as none.
fn spooled(number: u64, stored: Stored) -> Spooled {
    Spooled {
        number,
        refused: stored.refused.unwrap_or_default(),
        record: stored.record,
    }
}
