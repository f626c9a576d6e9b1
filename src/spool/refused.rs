//! The events that Kafka has rejected permanently.

use std::time::Instant;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::contents::whole;
use super::error::Error;
use super::row;
use super::scan::{LIMITS, Scan};

/// The events with numbers above `after` that are marked as refused, in order.
pub(super) fn events(connection: &Connection, after: u64) -> Result<Scan, Error> {
    let began = Instant::now();
    // Dead letters are filtered here and not in SQL, so that the time limit also holds while many
    // of them are skipped.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM records INDEXED BY records_by_refused
         WHERE refused = 1 AND number > ?1 ORDER BY number",
        row::COLUMNS
    ))?;
    let mut rows = statement.query([after as i64])?;
    let (mut scan, mut size) = (Scan::default(), 0);
    loop {
        let Some(next) = rows.next()? else {
            scan.complete = true;
            return Ok(scan);
        };
        scan.end = Some(next.get::<_, i64>(0)? as u64);
        let is_dead_letter = next.get_ref(1)? == ValueRef::Null;
        if !is_dead_letter {
            let (number, record, _) = whole(row::read(next)?)?;
            size += record.size();
            scan.records.push((number, record));
        }
        if LIMITS.are_reached(&scan, size, began) {
            return Ok(scan);
        }
    }
}
