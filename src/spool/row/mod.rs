//! A record as a row of the spool: its columns, and the checksum that guards them.

pub(super) mod format_1;

use std::borrow::Cow;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Row as SqlRow, Statement, params};
use uuid::Uuid;

use super::format::Format;
use crate::event::{Header, Record, Times};

/// All columns, in the order that [`insert`] and [`read`] use. People can read `event`,
/// `record_key` and `value` too.
pub(super) const COLUMNS: &str = "number, event, event_id, record_key, timestamp, \
     callback_timestamp, received_at, refused, headers, value, crc";

/// The tables and the index. Tables come first, because VACUUM writes them in this order and
/// recovery relies on where they begin.
///
/// `event` is NULL for a dead letter. `sequence` has one row: the last number that was on disk, and
/// its checksum. The index lists the numbers that should be there, if a page of the table is
/// damaged. It has the refused rows first, so new rows are added at its end, where SQLite fills its
/// pages.
const SCHEMA: &str = "
    CREATE TABLE records (
        number             INTEGER PRIMARY KEY,
        event              TEXT,
        event_id           BLOB    NOT NULL,
        record_key         BLOB,
        timestamp          INTEGER NOT NULL,
        callback_timestamp INTEGER NOT NULL,
        received_at        INTEGER NOT NULL,
        refused            INTEGER NOT NULL,
        headers            BLOB    NOT NULL,
        value              BLOB    NOT NULL,
        crc                INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE sequence (last INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
    CREATE INDEX records_by_refused ON records (refused DESC);
";

/// What one row holds beside its number.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    /// Whether Kafka has rejected it permanently; `None` if that has been altered. The checksum
    /// does not cover it, because it changes.
    pub(super) refused: Option<bool>,
}

/// A row whose checksum does not match, or which cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Altered;

impl Format {
    /// The tables and indexes of a new file.
    pub(super) fn schema(self) -> &'static str {
        match self {
            Self::One => format_1::SCHEMA,
            Self::Two => SCHEMA,
        }
    }

    /// The columns of a row, in the order that [`Format::read`] uses.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::One => format_1::COLUMNS,
            Self::Two => COLUMNS,
        }
    }

    /// The index that lists all numbers, and its first column, which is 0 or 1 in every row.
    pub(super) fn index(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("records_by_lane", "lane"),
            Self::Two => ("records_by_refused", "refused"),
        }
    }

    /// Reads one row: its number, and the rest unless that has been altered.
    ///
    /// # Errors
    ///
    /// SQLite's, if the row cannot be read at all.
    pub(super) fn read(self, row: &SqlRow<'_>) -> rusqlite::Result<(u64, Result<Stored, Altered>)> {
        let number = row.get::<_, i64>(0)? as u64;
        Ok((number, self.decode(number, |at| row.get_ref(at).ok())))
    }

    /// The row with this number, from the values of its columns.
    pub(super) fn decode<'a>(
        self,
        number: u64,
        column: impl Fn(usize) -> Option<ValueRef<'a>>,
    ) -> Result<Stored, Altered> {
        let stored = match self {
            Self::One => format_1::decode(number, column),
            Self::Two => decode_columns(number, column),
        };
        stored.ok_or(Altered)
    }
}

/// Writes one row. The statement is `INSERT … VALUES (?1, … ?11)` over [`COLUMNS`].
pub(super) fn insert(
    statement: &mut Statement<'_>,
    number: u64,
    record: &Record,
    refused: bool,
) -> rusqlite::Result<()> {
    let headers = encode(&record.headers);
    let crc = checksum(number, record, &headers);
    statement.execute(params![
        number as i64,
        record.event,
        record.event_id.as_bytes(),
        record.key.as_deref(),
        record.timestamp,
        record.times.callback,
        record.times.received,
        refused,
        headers,
        record.value.as_ref(),
        crc,
    ])?;
    Ok(())
}

/// Reads a row of the current format.
///
/// # Errors
///
/// As [`Format::read`].
pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<(u64, Result<Stored, Altered>)> {
    Format::CURRENT.read(row)
}

/// `None` if a column has another type, or the checksum does not match.
fn decode_columns<'a>(
    number: u64,
    column: impl Fn(usize) -> Option<ValueRef<'a>>,
) -> Option<Stored> {
    let event = column(1)?.as_str_or_null().ok()?;
    let headers = column(8)?.as_blob().ok()?;
    let record = Record {
        event: event.map(|event| Cow::Owned(event.to_owned())),
        event_id: Uuid::from_slice(column(2)?.as_blob().ok()?).ok()?,
        key: optional_bytes(column(3)?)?,
        timestamp: column(4)?.as_i64().ok()?,
        headers: decode(headers)?,
        value: Bytes::copy_from_slice(column(9)?.as_blob().ok()?),
        counted: None,
        times: Times {
            callback: column(5)?.as_i64().ok()?,
            received: column(6)?.as_i64().ok()?,
        },
    };
    let is_intact = column(10)?.as_i64().ok()? == i64::from(checksum(number, &record, headers));
    let refused = flag(column(7)?);
    is_intact.then_some(Stored { record, refused })
}

fn optional_bytes(value: ValueRef<'_>) -> Option<Option<Bytes>> {
    let bytes = value.as_blob_or_null().ok()?;
    Some(bytes.map(Bytes::copy_from_slice))
}

/// The value of a column that holds 0 or 1.
pub(super) fn flag(value: ValueRef<'_>) -> Option<bool> {
    match value {
        ValueRef::Integer(0) => Some(false),
        ValueRef::Integer(1) => Some(true),
        _ => None,
    }
}

fn checksum(number: u64, record: &Record, headers: &[u8]) -> u32 {
    let mut columns = Checksum::default();
    let Times { callback, received } = record.times;
    for integer in [number as i64, record.timestamp, callback, received] {
        columns.add(&integer.to_le_bytes());
    }
    columns.add_optional(record.event.as_deref().map(str::as_bytes));
    columns.add(record.event_id.as_bytes());
    columns.add_optional(record.key.as_deref());
    columns.add(headers);
    columns.add(&record.value);
    columns.finish()
}

/// The checksum of a number in `sequence`.
pub(super) fn checksum_of_last(last: u64) -> u32 {
    let mut columns = Checksum::default();
    columns.add(b"sequence");
    columns.add(&last.to_le_bytes());
    columns.finish()
}

/// Covers every column with its length, so that a byte cannot move from one column to the next
/// unnoticed.
#[derive(Default)]
struct Checksum(crc32fast::Hasher);

impl Checksum {
    fn add(&mut self, column: &[u8]) {
        self.0.update(&(column.len() as u64).to_le_bytes());
        self.0.update(column);
    }

    fn add_optional(&mut self, column: Option<&[u8]>) {
        self.add(&[u8::from(column.is_some())]);
        self.add(column.unwrap_or_default());
    }

    fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Encodes each header as its name and its value, both preceded by their length.
pub(super) fn encode(headers: &[Header]) -> Vec<u8> {
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
