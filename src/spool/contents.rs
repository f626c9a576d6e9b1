//! The contents of the file when it is opened.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::error::Error;
use super::row::{self, Altered, Stored};
use super::{Backlog, OpenStage};
use crate::event::Record;

/// After how many rows their number is reported while they are read.
const REPORT_ROWS: usize = 100;

/// The contents of the file when it was opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By the name of the event; `None` for dead letters.
    pub(super) backlogs: BTreeMap<Option<String>, Backlog>,
    /// How many rows are refused, dead letters included.
    pub(super) refused: i64,
    pub(super) refused_letters: i64,
    /// The [`event_bytes`] of all rows.
    pub(super) event_bytes: i64,
}

/// Reads all rows, and reports how many it has read.
pub(super) fn read(connection: &Connection, report: &dyn Fn(OpenStage)) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let mut read = 0;
    let sql = format!("SELECT {} FROM records ORDER BY number", row::COLUMNS);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(next) = rows.next()? {
        if read % REPORT_ROWS == 0 {
            report(OpenStage::Reading(read));
        }
        read += 1;
        let (number, record, refused) = whole(row::read(next)?)?;
        contents.event_bytes += event_bytes(&record);
        let event = record.event.as_deref().map(str::to_owned);
        let backlog = contents.backlogs.entry(event).or_default();
        backlog.last = Some(number);
        if refused {
            contents.refused += 1;
            contents.refused_letters += i64::from(record.is_dead_letter());
            continue;
        }
        backlog.rows += 1;
        if !record.is_dead_letter() {
            record.key.iter().for_each(|key| backlog.keys.add(key));
        }
    }
    Ok(contents)
}

/// Bytes of a record's value and key; 0 for a dead letter.
pub(super) fn event_bytes(record: &Record) -> i64 {
    match record.is_dead_letter() {
        true => 0,
        false => (record.value.len() + record.key.as_ref().map_or(0, |key| key.len())) as i64,
    }
}

/// A row that must be intact.
pub(super) fn whole(
    (number, stored): (u64, Result<Stored, Altered>),
) -> Result<(u64, Record, bool), Error> {
    match stored {
        Ok(Stored {
            record,
            refused: Some(refused),
        }) => Ok((number, record, refused)),
        _ => Err(Error::Damaged(
            format!("record {number} has been altered").into(),
        )),
    }
}
