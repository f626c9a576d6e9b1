//! A record as a row of the spool: its columns, and the checksum that guards them.

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Row as SqlRow, Statement, params};
use uuid::Uuid;

use crate::event::{Header, Kind, Lane, Record, Times};

/// All columns but `refused`, which may change, in the order that [`insert`] and [`read`] use.
/// People can read `kind`, `record_key` and `value` too.
pub(super) const COLUMNS: &str = "number, lane, kind, event_id, record_key, timestamp, \
     callback_timestamp, received_at, headers, value, crc";

/// The table and its index. If a page of the table is damaged, the index lists the numbers that
/// should be there.
pub(super) const SCHEMA: &str = "
    CREATE TABLE records (
        number             INTEGER PRIMARY KEY,
        lane               INTEGER NOT NULL,
        kind               TEXT    NOT NULL,
        event_id           BLOB    NOT NULL,
        record_key         BLOB,
        timestamp          INTEGER NOT NULL,
        callback_timestamp INTEGER NOT NULL,
        received_at        INTEGER NOT NULL,
        headers            BLOB    NOT NULL,
        value              BLOB    NOT NULL,
        crc                INTEGER NOT NULL,
        refused            INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX records_by_lane ON records (lane, number);
";

/// A row whose checksum does not match, or which cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Altered;

/// Writes one row. The statement is `INSERT … VALUES (?1, … ?12)` over [`COLUMNS`] and `refused`.
pub(super) fn insert(
    statement: &mut Statement<'_>,
    number: u64,
    lane: Lane,
    record: &Record,
    refused: bool,
) -> rusqlite::Result<()> {
    let kind = serde_json::to_string(&record.kind).unwrap_or_default();
    let headers = encode(&record.headers);
    let crc = checksum(number, lane as i64, &kind, record, &headers);
    statement.execute(params![
        number as i64,
        lane as i64,
        kind,
        record.event_id.as_bytes(),
        record.key.as_deref(),
        record.timestamp,
        record.times.callback,
        record.times.received,
        headers,
        record.value.as_ref(),
        crc,
        refused,
    ])?;
    Ok(())
}

/// Reads one row: its number, and its record unless that has been altered.
///
/// # Errors
///
/// SQLite's, if the row cannot be read at all.
pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<(u64, Result<Record, Altered>)> {
    let number = row.get::<_, i64>(0)? as u64;
    Ok((number, record(row, number)?))
}

fn record(row: &SqlRow<'_>, number: u64) -> rusqlite::Result<Result<Record, Altered>> {
    let read = || -> rusqlite::Result<Option<Record>> {
        let lane: i64 = row.get(1)?;
        let kind: String = row.get(2)?;
        let headers: Vec<u8> = row.get(8)?;
        let (Ok(known), Ok(event_id), Some(decoded)) = (
            serde_json::from_str::<Kind>(&kind),
            Uuid::from_slice(&row.get::<_, Vec<u8>>(3)?),
            decode(&headers),
        ) else {
            return Ok(None);
        };
        let record = Record {
            event_id,
            key: row.get::<_, Option<Vec<u8>>>(4)?.map(Bytes::from),
            timestamp: row.get(5)?,
            times: Times {
                callback: row.get(6)?,
                received: row.get(7)?,
            },
            headers: decoded,
            value: row.get::<_, Vec<u8>>(9)?.into(),
            kind: known,
        };
        let crc = checksum(number, lane, &kind, &record, &headers);
        Ok((row.get::<_, u32>(10)? == crc).then_some(record))
    };
    match read() {
        Ok(record) => Ok(record.ok_or(Altered)),
        // A column of another type, or text that is not UTF-8.
        Err(
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(_, Type::Text | Type::Blob, _)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..),
        ) => Ok(Err(Altered)),
        Err(error) => Err(error),
    }
}

/// Covers every column with its length, so that a byte cannot move from one column to the next
/// unnoticed.
fn checksum(number: u64, lane: i64, kind: &str, record: &Record, headers: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut column = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let Times { callback, received } = record.times;
    for integer in [number as i64, lane, record.timestamp, callback, received] {
        column(&integer.to_le_bytes());
    }
    column(kind.as_bytes());
    column(record.event_id.as_bytes());
    column(&[u8::from(record.key.is_some())]);
    column(record.key.as_deref().unwrap_or_default());
    column(headers);
    column(&record.value);
    hasher.finalize()
}

/// Encodes each header as its name and its value, both preceded by their length.
fn encode(headers: &[Header]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Header>> {
    let mut part = || -> Option<Option<&[u8]>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(Some(part))
    };
    let mut headers = Vec::new();
    while let Some(name) = part()? {
        let name = String::from_utf8(name.to_vec()).ok()?;
        headers.push((name.into(), Bytes::copy_from_slice(part()??)));
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_and_cut_ones_do_not() {
        let headers: Vec<Header> = vec![
            ("ce_id".into(), Bytes::from_static(b"1")),
            ("content-type".into(), Bytes::from_static(b"\xff\x00")),
            ("".into(), Bytes::new()),
        ];
        let bytes = encode(&headers);
        assert_eq!(decode(&bytes), Some(headers));
        assert_eq!(decode(&[]), Some(Vec::new()));
        let whole = [8 + 5 + 1, bytes.len() - 8];
        for cut in (1..bytes.len()).filter(|cut| !whole.contains(cut)) {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
    }
}
