//! Reads the rows of a damaged spool without the pages that lead to them.
//!
//! Without this, one damaged byte in the root page of the table would lose the whole spool.
//! Figures, with one damaged page at each position of eight files, are in the message of the commit
//! that moved the module here.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use rusqlite::{Connection, OpenFlags};

use super::copies::WorkingCopy;
use crate::spool::Row;
use crate::spool::connection::PAGE_BYTES;
use crate::spool::error::{Error, readable};
use crate::spool::format::Format;

/// The first byte of a page that holds rows of a table.
const LEAF_PAGE: u8 = 0x0d;

/// Reads every leaf page of the table, including those that no intact page refers to: each is put
/// in the place of the root page, so that SQLite takes it for the whole table. A parser of our own
/// could disagree with SQLite.
pub(super) fn read_leaves(
    copy: &WorkingCopy,
    format: Format,
    mut found: impl FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = Error::io("cannot copy the damaged file");
    let file = OpenOptions::new().read(true).write(true).open(&copy.path);
    let file = file.map_err(failed)?;
    let view = Connection::open_with_flags(&copy.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let root = view.query_row(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'records'",
        [],
        |row| row.get::<_, u32>(0),
    )?;
    let offset = |page: u32| u64::from(page - 1) * PAGE_BYTES;
    let read = |page: u32| -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        file.read_exact_at(&mut bytes, offset(page))
            .map_err(failed)?;
        Ok(bytes)
    };
    let mut counter: u32 = 0;
    let mut page_of_root = Some(read(root)?);
    let pages = (file.metadata().map_err(failed)?.len() / PAGE_BYTES) as u32;
    for page in std::iter::once(root).chain(2..=pages) {
        let bytes = match page_of_root.take() {
            Some(bytes) => bytes,
            None => read(page)?,
        };
        if bytes.first() != Some(&LEAF_PAGE) || copy.unused.contains(&page) {
            continue;
        }
        file.write_all_at(&bytes, offset(root)).map_err(failed)?;
        // By this counter SQLite notices that its cache of the file is outdated.
        counter += 1;
        let changed = u32::MAX - counter;
        file.write_all_at(&changed.to_be_bytes(), 24)
            .map_err(failed)?;
        for order in ["ASC", "DESC"] {
            let walk = || {
                let sql = format!(
                    "SELECT {} FROM records NOT INDEXED ORDER BY number {order}",
                    format.columns()
                );
                let mut statement = view.prepare_cached(&sql)?;
                let mut rows = statement.query([])?;
                let mut records = Vec::new();
                let ended = loop {
                    match rows.next() {
                        Ok(Some(row)) => records.extend(format.read(row).ok()),
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                Ok((records, ended))
            };
            let Some((records, ended)) = readable(walk())? else {
                continue;
            };
            for (number, stored) in records {
                if let Ok(stored) = stored {
                    found(Row::stored(number, stored))?;
                }
            }
            // Damaged in the middle: read the rest from the other end.
            if readable(ended)?.is_some() {
                break;
            }
        }
    }
    Ok(())
}
