//! Copies of a damaged spool to read from, because SQLite changes the files that it opens.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::io::Errno;

use super::wal::{Page, Wal};
use crate::spool::connection::{PAGE_BYTES, create_tables};
use crate::spool::error::Error;
use crate::spool::folder::Folder;
use crate::spool::format::Format;
use crate::spool::{DATABASE_FILE, WAL_FILE};

/// The folder of the copies. The name is kept for compatibility with earlier versions.
pub(in crate::spool) const COPIES_FOLDER: &str = "salvage";

/// A copy of the file with pages of the WAL applied.
pub(super) struct WorkingCopy {
    pub(super) path: PathBuf,
    /// Pages that are not in use. They hold deleted rows.
    pub(super) unused: BTreeSet<u32>,
}

/// Copies the damaged spool as SQLite reads it and, if the WAL is damaged, also with all of the
/// WAL.
pub(super) fn make_copies(folder: &Folder) -> io::Result<Vec<WorkingCopy>> {
    let (bytes, is_complete) = read_wal(folder)?;
    let wal = Wal::read(&bytes, is_complete);
    // The checksum covers their numbers too.
    let known_pages = wal.sound.iter().map(|(number, _)| *number).max();
    let mut views = vec![wal.sound.clone()];
    if wal.is_damaged() {
        views.push([wal.sound, wal.beyond].concat());
    }
    DirBuilder::new()
        .mode(0o700)
        .create(folder.file(COPIES_FOLDER))?;
    let copy = |(at, pages): (usize, &Vec<Page<'_>>)| {
        WorkingCopy::make(
            folder,
            &folder.file(COPIES_FOLDER).join(at.to_string()),
            pages,
            known_pages.unwrap_or_default(),
        )
    };
    views.iter().enumerate().map(copy).collect()
}

impl WorkingCopy {
    fn make(
        folder: &Folder,
        path: &Path,
        pages: &[Page<'_>],
        known_pages: u32,
    ) -> io::Result<Self> {
        let file = File::open(folder.file(DATABASE_FILE))?;
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .clone();
        let mut copy = options.open(path)?;
        let length = file.metadata()?.len();
        let read = |block: &mut [u8], at| file.read_exact_at(block, at);
        read_blocks(length, read, |block| copy.write_all(block))?;
        apply(pages, known_pages, &copy)?;
        Ok(Self {
            path: path.to_owned(),
            unused: unused_pages(&copy)?,
        })
    }

    /// Opens the copy with a new first page in place of its own. That page lists the tables and
    /// where they begin, which is the same in all spools of a format. Pages that the file is too
    /// short for are empty.
    pub(super) fn open(&self, format: Format) -> Result<Connection, Error> {
        let failed = Error::io("cannot copy the damaged file");
        let template = self.path.with_extension("template");
        // Without a WAL, for which SQLite would look beside the copy.
        create_tables(&mut Connection::open(&template)?, format)?;
        let mut template = fs::read(&template).map_err(failed)?;
        let copy = OpenOptions::new().write(true).open(&self.path);
        let copy = copy.map_err(failed)?;
        let length = copy.metadata().map_err(failed)?.len();
        let length = length
            .next_multiple_of(PAGE_BYTES)
            .max(template.len() as u64);
        let from = copy.metadata().map_err(failed)?.len() / PAGE_BYTES * PAGE_BYTES;
        if let Some(rest) = template.get(from as usize..) {
            copy.write_all_at(rest, from).map_err(failed)?;
        }
        copy.set_len(length).map_err(failed)?;
        template.truncate(PAGE_BYTES as usize);
        if let Some(size) = template.get_mut(28..32) {
            size.copy_from_slice(&((length / PAGE_BYTES) as u32).to_be_bytes());
        }
        copy.write_all_at(&template, 0).map_err(failed)?;
        let view = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        view.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        Ok(view)
    }
}

/// Follows the list of pages that are not in use, as
/// <https://sqlite.org/fileformat2.html#the_freelist> has it; as far as it can be followed.
fn unused_pages(file: &File) -> io::Result<BTreeSet<u32>> {
    let mut unused = BTreeSet::new();
    let pages = file.metadata()?.len() / PAGE_BYTES;
    let word = |at: u64| -> io::Result<u32> {
        let mut word = [0; 4];
        file.read_exact_at(&mut word, at)?;
        Ok(u32::from_be_bytes(word))
    };
    let mut trunk = if pages == 0 { 0 } else { word(32)? };
    while (2..=pages).contains(&u64::from(trunk)) && unused.insert(trunk) {
        let at = u64::from(trunk - 1) * PAGE_BYTES;
        let listed = u64::from(word(at + 4)?).min(PAGE_BYTES / 4 - 2);
        for place in 0..listed {
            unused.insert(word(at + 8 + 4 * place)?);
        }
        trunk = word(at)?;
    }
    Ok(unused)
}

/// Writes the pages into the file, as a checkpoint would. The file is known to have had this many.
fn apply(pages: &[Page<'_>], known_pages: u32, file: &File) -> io::Result<()> {
    // The page number itself may be damaged.
    let most = file.metadata()?.len() / PAGE_BYTES + pages.len() as u64;
    let most = most.max(known_pages.into());
    for (number, page) in pages {
        if let Some(before) = number.checked_sub(1).filter(|_| u64::from(*number) <= most) {
            file.write_all_at(page, u64::from(before) * PAGE_BYTES)?;
        }
    }
    Ok(())
}

/// The bytes of the WAL, and whether all of them could be read. Empty if there is no WAL.
pub(in crate::spool) fn read_wal(folder: &Folder) -> io::Result<(Vec<u8>, bool)> {
    match File::open(folder.file(WAL_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), true)),
        file => read_whole(&file?),
    }
}

/// The bytes of a file, and whether all of them could be read.
pub(in crate::spool) fn read_whole(file: &File) -> io::Result<(Vec<u8>, bool)> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    let read = |block: &mut [u8], at| file.read_exact_at(block, at);
    let is_complete = read_blocks(length, read, |block| {
        bytes.extend(block);
        Ok(())
    })?;
    Ok((bytes, is_complete))
}

/// Reads this many bytes, block by block, with zeros for blocks that the disk cannot read. Returns
/// whether all could be read.
fn read_blocks(
    length: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut block = [0; PAGE_BYTES as usize];
    let mut is_complete = true;
    for at in (0..length).step_by(block.len()) {
        let (block, _) = block.split_at_mut((length - at).min(PAGE_BYTES) as usize);
        match read(block, at) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                block.fill(0);
                is_complete = false;
            }
            done => done?,
        }
        take(block)?;
    }
    Ok(is_complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_the_disk_cannot_read_are_zeros_and_the_others_are_read() {
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
        let (is_complete, copy) = read(0).expect("it reads");
        assert!(is_complete && copy == original);
        let (is_complete, copy) = read(Errno::IO.raw_os_error()).expect("it reads on");
        assert!(!is_complete);
        assert_eq!(copy[..4096], original[..4096]);
        assert_eq!(copy[4096..8192], [0; 4096]);
        assert_eq!(copy[8192..], original[8192..]);
        read(Errno::NOMEM.raw_os_error()).expect_err("that is not damage");
    }
}
