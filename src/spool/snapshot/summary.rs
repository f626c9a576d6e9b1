//! How many records there are, and of when.

use std::collections::BTreeMap;

use super::Spooled;

/// The records of a spool.
#[derive(Debug, Default)]
pub struct Summary {
    /// By the name of the event; `None` for dead letters.
    pub groups: BTreeMap<Option<String>, Group>,
}

/// The records of an event, or several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub records: u64,
    /// How many of them Kafka has rejected permanently.
    pub refused: u64,
    /// Bytes of keys, headers and values.
    pub bytes: u64,
    /// When the first and the last of them was received, in milliseconds since 1970-01-01 UTC.
    pub received: Option<(i64, i64)>,
}

impl Summary {
    /// Counts a record.
    pub fn add(&mut self, spooled: &Spooled) {
        let record = &spooled.record;
        let event = record.event.as_deref().map(str::to_owned);
        let received = record.times.received;
        self.groups.entry(event).or_default().merge(&Group {
            records: 1,
            refused: u64::from(spooled.refused),
            bytes: record.size() as u64,
            received: Some((received, received)),
        });
    }

    /// All records together.
    pub fn total(&self) -> Group {
        let mut total = Group::default();
        self.groups.values().for_each(|group| total.merge(group));
        total
    }
}

impl Group {
    /// Adds other records.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.refused += other.refused;
        self.bytes += other.bytes;
        self.received = match (self.received, other.received) {
            (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
            (received, other) => received.or(other),
        };
    }
}
