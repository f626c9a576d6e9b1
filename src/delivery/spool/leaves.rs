//! The table of a damaged spool without the pages that lead to its leaves.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

use rusqlite::{Connection, OpenFlags};

use super::copies::Copy;
use super::salvage::readable;
use super::store::{Error, PAGE_BYTES};
use super::{Row, row};

/// How a page begins that holds rows of a table.
const LEAF: u8 = 0x0d;

/// Reads every leaf of the table, also those that no way leads to any more: each is put in the place of
/// the root, where SQLite takes it for the whole table. Not by our own reader of its pages, which could
/// be wrong where SQLite's is right.
pub(super) fn leaves(
    copy: &Copy,
    mut found: impl FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Failed(error.to_string());
    let file = OpenOptions::new().read(true).write(true).open(&copy.path);
    let file = file.map_err(failed)?;
    // Without a log, which would have to be looked into: version 1 of the format, for both directions.
    file.write_all_at(&[1, 1], 18).map_err(failed)?;
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
        if bytes.first() != Some(&LEAF) || copy.unused.contains(&page) {
            continue;
        }
        file.write_all_at(&bytes, offset(root)).map_err(failed)?;
        // By this count SQLite sees that what it remembers of the file is outdated.
        counter += 1;
        let changed = u32::MAX - counter;
        file.write_all_at(&changed.to_be_bytes(), 24)
            .map_err(failed)?;
        for order in ["ASC", "DESC"] {
            let walk = || {
                let sql = format!(
                    "SELECT {} FROM records NOT INDEXED ORDER BY number {order}",
                    row::COLUMNS
                );
                let mut statement = view.prepare_cached(&sql)?;
                let mut rows = statement.query([])?;
                let mut records = Vec::new();
                let ended = loop {
                    match rows.next() {
                        Ok(Some(row)) => records.extend(row::read(row).ok()),
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                Ok((records, ended))
            };
            let Some((records, ended)) = readable(walk())? else {
                continue;
            };
            for (number, record) in records {
                if let Ok(record) = record {
                    found(Row::new(number, record))?;
                }
            }
            // Damaged in the middle: the rest is read from the other end.
            if readable(ended)?.is_some() {
                break;
            }
        }
    }
    Ok(())
}
