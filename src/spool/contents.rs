//! The contents of the file when it is opened.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::error::Error;
use super::keys::KeyRows;
use super::row::{self, Altered, Stored};
use super::{Backlog, OpenStage};
use crate::event::{Lane, Record};

/// After how many rows their number is reported while they are read.
const REPORT_ROWS: usize = 100;

/// The contents of the file when it was opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By lane.
    pub(super) backlogs: [Backlog; 2],
    pub(super) keys: KeyRows,
    /// The number of rows of each event that are not refused.
    pub(super) events: BTreeMap<String, usize>,
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
        let lane = record.lane();
        contents.event_bytes += event_bytes(&record);
        let [events, dead_letters] = &mut contents.backlogs;
        let backlog = match lane {
            Lane::Events => events,
            Lane::DeadLetters => dead_letters,
        };
        backlog.last = Some(number);
        if refused {
            contents.refused += 1;
            contents.refused_letters += i64::from(lane == Lane::DeadLetters);
            continue;
        }
        backlog.rows += 1;
        if let Some(event) = record.event.as_deref() {
            match contents.events.get_mut(event) {
                Some(rows) => *rows += 1,
                None => drop(contents.events.insert(event.to_owned(), 1)),
            }
            record.key.iter().for_each(|key| contents.keys.add(key));
        }
    }
    Ok(contents)
}

/// Bytes of a record's value and key; 0 for a dead letter.
pub(super) fn event_bytes(record: &Record) -> i64 {
    match record.lane() {
        Lane::Events => {
            (record.value.len() + record.key.as_ref().map_or(0, |key| key.len())) as i64
        }
        Lane::DeadLetters => 0,
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
