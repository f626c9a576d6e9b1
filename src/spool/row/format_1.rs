//! A row of format 1, which is only read.

use bytes::Bytes;
use rusqlite::Row as SqlRow;
use uuid::Uuid;

use super::{Checksum, Stored, decode, flag};
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
pub(super) fn read(row: &SqlRow<'_>, number: u64) -> rusqlite::Result<Option<Stored>> {
    let lane: i64 = row.get(1)?;
    let kind: String = row.get(2)?;
    let event_id = Uuid::from_slice(&row.get::<_, Vec<u8>>(3)?);
    let headers: Vec<u8> = row.get(8)?;
    let (Ok(event_id), Some(decoded)) = (event_id, decode(&headers)) else {
        return Ok(None);
    };
    let event = match lane {
        0 => Some(EVENT.into()),
        1 => None,
        _ => return Ok(None),
    };
    let record = Record {
        event,
        event_id,
        key: row.get::<_, Option<Vec<u8>>>(4)?.map(Bytes::from),
        timestamp: row.get(5)?,
        headers: decoded,
        value: row.get::<_, Vec<u8>>(9)?.into(),
        counted: None,
        times: Times {
            callback: row.get(6)?,
            received: row.get(7)?,
        },
    };
    let crc = checksum(number, lane, &kind, &record, &headers);
    let refused = flag(row.get_ref(11)?);
    Ok((row.get::<_, u32>(10)? == crc).then_some(Stored { record, refused }))
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
