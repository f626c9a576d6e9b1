//! The dead letters of one transaction, and which of them Kafka has rejected.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::table::Outcome;
use crate::event::Record;
use crate::kafka::Stored;

/// The most records of a transaction.
const MAX_BATCH_RECORDS: usize = 500;

/// The bytes after which a transaction takes no further record.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The most dead letters whose progress is stored by one transaction, published or not.
const MAX_BATCH_LETTERS: usize = 20_000;

/// How long a batch waits for more records.
const BATCH_AGE_MAX: Duration = Duration::from_secs(2);

/// The dead letters of a transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) letters: Vec<Letter>,
    records: usize,
    ids: HashSet<Uuid>,
    bytes: usize,
    began: Option<Instant>,
}

/// A dead letter, judged.
pub(super) struct Letter {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// `None` if the filters do not select it.
    pub(super) outcome: Option<(Outcome, String)>,
    pub(super) record: Option<Record>,
}

impl Letter {
    /// The id of its record.
    pub(super) fn event_id(&self) -> Option<Uuid> {
        self.record.as_ref().map(|record| record.event_id)
    }
}

/// Kafka has rejected the records at these places among those that were to be published.
pub(super) fn reject(letters: &mut [Letter], named: Vec<(usize, String)>) {
    let named: BTreeMap<_, _> = named.into_iter().collect();
    let publishing = letters.iter_mut().filter(|letter| letter.record.is_some());
    for (place, letter) in publishing.enumerate() {
        if let Some(reason) = named.get(&place) {
            letter.outcome = Some((Outcome::Rejected, reason.clone()));
            letter.record = None;
        }
    }
}

/// How a transaction ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Aborted,
    Committed,
    /// Another run has stored progress since.
    Unknown,
}

impl Fate {
    /// By the progress that is stored now, that which was stored before, and that which the transaction
    /// was to store. Its mark is new, so it tells also if the offsets are the same.
    pub(super) fn of(stored: &Stored, before: &Stored, attempted: &Stored) -> Self {
        if stored == before {
            Self::Aborted
        } else if stored == attempted && !attempted.is_empty() {
            Self::Committed
        } else {
            Self::Unknown
        }
    }
}

impl Batch {
    pub(super) fn add(&mut self, letter: Letter) {
        self.began.get_or_insert_with(Instant::now);
        if let Some(record) = &letter.record {
            self.records += 1;
            self.ids.insert(record.event_id);
            self.bytes += record.size();
        }
        self.letters.push(letter);
    }

    /// Whether one of them has a record with the same id.
    pub(super) fn has_record_of(&self, letter: &Letter) -> bool {
        letter.event_id().is_some_and(|id| self.ids.contains(&id))
    }

    pub(super) fn is_due(&self) -> bool {
        self.records >= MAX_BATCH_RECORDS
            || self.bytes >= MAX_BATCH_BYTES
            || self.letters.len() >= MAX_BATCH_LETTERS
            || self
                .began
                .is_some_and(|began| began.elapsed() >= BATCH_AGE_MAX)
    }
}
