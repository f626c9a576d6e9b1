//! A row of format 1, which is only read.

use bytes::Bytes;
use rusqlite::types::ValueRef;
use uuid::Uuid;

use super::{Checksum, Stored, flag, optional_bytes};
use crate::event::{Record, Times};

/// The only event that format 1 knows.
const EVENT: &str = "group_join";

pub(super) const COLUMNS: &str = "number, lane, kind, event_id, record_key, timestamp, \
     callback_timestamp, received_at, headers, value, crc, refused";

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

/// Reads the columns; `None` if they have been altered. The lane names the event, and `kind` is only
/// needed for the checksum.
pub(super) fn decode<'a>(
    number: u64,
    column: impl Fn(usize) -> Option<ValueRef<'a>>,
) -> Option<Stored> {
    let lane = column(1)?.as_i64().ok()?;
    let kind = column(2)?.as_str().ok()?;
    let headers = column(8)?.as_blob().ok()?;
    let record = Record {
        event: match lane {
            0 => Some(EVENT.into()),
            1 => None,
            _ => return None,
        },
        event_id: Uuid::from_slice(column(3)?.as_blob().ok()?).ok()?,
        key: optional_bytes(column(4)?)?,
        timestamp: column(5)?.as_i64().ok()?,
        headers: super::decode(headers)?,
        value: Bytes::copy_from_slice(column(9)?.as_blob().ok()?),
        counted: None,
        times: Times {
            callback: column(6)?.as_i64().ok()?,
            received: column(7)?.as_i64().ok()?,
        },
    };
    let crc = checksum(number, lane, kind, &record, headers);
    let refused = flag(column(11)?);
    (column(10)?.as_i64().ok()? == i64::from(crc)).then_some(Stored { record, refused })
}

pub(in crate::spool) fn checksum(
    number: u64,
    lane: i64,
    kind: &str,
    record: &Record,
    headers: &[u8],
) -> u32 {
    let mut columns = Checksum::default();
    let Times { callback, received } = record.times;
    for integer in [number as i64, lane, record.timestamp, callback, received] {
        columns.add(&integer.to_le_bytes());
    }
    columns.add(kind.as_bytes());
    columns.add(record.event_id.as_bytes());
    columns.add_optional(record.key.as_deref());
    columns.add(headers);
    columns.add(&record.value);
    columns.finish()
}
