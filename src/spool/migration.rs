//! Takes over a spool of an earlier format.
//!
//! All rows are copied to a new file, which then replaces the old one by its name alone. So a crash
//! at any point leaves either the old spool, and the next start begins again, or the new one. Until
//! the end nothing of the old file changes but that its WAL is copied into it, so the earlier
//! version can still be started.
//!
//! This takes as much free space as the rows take, because both files exist for a moment. To change
//! the rows in place would take a WAL as large, or leave a file that no version can read if the
//! space runs out. The reserve file is deleted first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use rusqlite::Connection;

use super::connection::{check_integrity, connect};
use super::error::Error;
use super::folder::Folder;
use super::format::{Format, newer_version};
use super::new_file::{self, NEW_FILE, NewFile};
use super::recovery::{read_wal, wal::Wal};
use super::{DATABASE_FILE, Row, WAL_FILE};

/// Where SQLite's header of the file has `user_version`.
const USER_VERSION_AT: usize = 60;

/// The format of the spool in the folder; `None` if there is none yet, or if damage hides it. Reads
/// only bytes that are the same in all formats, and changes nothing.
///
/// # Errors
///
/// [`Error::Newer`] if a newer program wrote it.
pub(super) fn format_on_disk(folder: &Folder) -> Result<Option<Format>, Error> {
    let failed = Error::io("cannot read spool.db or its WAL; check the disk and the permissions");
    // A crash may have left a complete new file without its final name.
    let name = match folder.file(DATABASE_FILE).exists() {
        true => DATABASE_FILE,
        false => NEW_FILE,
    };
    let mut found = Vec::new();
    match File::open(folder.file(name)) {
        Ok(file) => {
            let mut version = [0; 4];
            // A file that is too short, or that the disk cannot read, is recovered later.
            if let Ok(()) = file.read_exact_at(&mut version, USER_VERSION_AT as u64) {
                found.push(i32::from_be_bytes(version));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Headers in the WAL are newer than that of the file.
    let (bytes, is_complete) = read_wal(folder).map_err(failed)?;
    let wal = Wal::read(&bytes, is_complete);
    found.extend(wal.first_pages().filter_map(version_in));
    format_among(&found).map_err(Error::Newer)
}

/// The format that the last of these versions names: those of the file's first page, as it was and
/// as it is.
///
/// # Errors
///
/// The version of a newer program, if one of them is that.
pub(super) fn format_among(versions: &[i32]) -> Result<Option<Format>, u8> {
    match versions.iter().copied().find_map(newer_version) {
        Some(version) => Err(version),
        None => Ok(versions.last().copied().and_then(Format::of)),
    }
}

/// The version in the file's first page.
pub(super) fn version_in(page: &[u8]) -> Option<i32> {
    let version = page.get(USER_VERSION_AT..)?.first_chunk()?;
    Some(i32::from_be_bytes(*version))
}

/// Replaces an undamaged spool of format 1 by one of the current format.
///
/// # Errors
///
/// [`Error::Damaged`] if recovery has to read it instead. Any other error leaves the spool as it
/// was.
pub(super) fn migrate(folder: &Folder) -> Result<(), Error> {
    folder.release_reserve();
    let migrated = copy(folder).and_then(|()| {
        new_file::move_into_place(folder).map_err(Error::io("cannot replace spool.db"))
    });
    match migrated {
        Err(error @ Error::Damaged(_)) => Err(error),
        Err(error) => {
            drop(new_file::remove(folder));
            folder.allocate_reserve();
            Err(Error::Failed(
                "cannot take over the spool of an earlier version, which is unchanged; this takes as much free space as the spool uses: free space on the disk and start again",
                error.into(),
            ))
        }
        Ok(()) => Ok(()),
    }
}

/// Copies all rows to the new file, and closes the old one without a WAL.
fn copy(folder: &Folder) -> Result<(), Error> {
    let old = connect(&folder.file(DATABASE_FILE))?;
    check_integrity(&old)?;
    let busy: i64 = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(Error::Failed(
            "cannot checkpoint the WAL",
            "it is in use".into(),
        ));
    }
    let count: i64 = old.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
    tracing::info!("the spool has an earlier format; rewriting its {count} records");
    let mut new = NewFile::create(folder)?;
    copy_rows(&old, &mut new)?;
    new.complete(0)?;
    old.close().map_err(|(_, error)| error)?;
    let failed = Error::io("cannot remove the WAL of the earlier format");
    // SQLite has removed it. An old WAL would be applied to the new file, so this must be durable
    // before that has the name.
    new_file::ignore_missing(empty(folder)).map_err(failed)?;
    folder.sync().map_err(failed)?;
    tracing::info!("the spool has the current format now");
    Ok(())
}

fn copy_rows(old: &Connection, new: &mut NewFile) -> Result<(), Error> {
    // SQLite has no unsigned integers: the highest numbers are negative there.
    for part in ["number >= 0", "number < 0"] {
        let mut statement = old.prepare(&format!(
            "SELECT {} FROM records NOT INDEXED WHERE {part} ORDER BY number",
            Format::One.columns()
        ))?;
        let mut rows = statement.query([])?;
        while let Some(next) = rows.next()? {
            let (number, stored) = Format::One.read(next)?;
            let Ok(stored) = stored else {
                return Err(Error::Damaged(
                    format!("record {number} has been altered").into(),
                ));
            };
            new.push(Row::stored(number, stored))?;
        }
    }
    Ok(())
}

fn empty(folder: &Folder) -> io::Result<()> {
    let wal = folder.file(WAL_FILE);
    let file = OpenOptions::new().write(true).open(&wal)?;
    file.set_len(0)?;
    file.sync_all()?;
    fs::remove_file(wal)
}
