//! The dead letters of one transaction, and which of them Kafka has rejected.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::table::Outcome;
use crate::event::Record;

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

/// The sizes of records that Kafka has rejected for their size, by event, with their number. Each
/// rejection costs a new producer, so after a few of them, no larger record of the event is tried.
#[derive(Default)]
pub(super) struct TooLarge(BTreeMap<String, (usize, usize)>);

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

impl TooLarge {
    /// After this many rejections.
    const LEARNED: usize = 5;

    pub(super) fn learn(&mut self, letters: &[Letter], named: &[(usize, String)]) {
        let records: Vec<_> = (letters.iter())
            .filter_map(|letter| letter.record.as_ref())
            .collect();
        let is_size = |reason: &str| reason.contains("MessageSizeTooLarge");
        for (place, _) in named.iter().filter(|(_, reason)| is_size(reason)) {
            if let Some(record) = records.get(*place)
                && let Some(event) = &record.event
            {
                let known = self.0.entry(event.to_string()).or_insert((usize::MAX, 0));
                *known = (record.size().min(known.0), known.1 + 1);
            }
        }
    }

    /// Rejects the records that are not tried.
    pub(super) fn reject_untried(&self, letters: &mut [Letter]) {
        let records = letters.iter().filter_map(|letter| letter.record.as_ref());
        let untried = records.enumerate().filter(|(_, record)| {
            let known = record.event.as_deref().and_then(|event| self.0.get(event));
            known.is_some_and(|(least, count)| *count >= Self::LEARNED && record.size() >= *least)
        });
        let reason = "not tried, because Kafka has rejected smaller ones: message size too large";
        let untried = untried.map(|(place, _)| (place, reason.to_owned()));
        let untried: Vec<_> = untried.collect();
        reject(letters, untried);
    }
}

impl Batch {
    pub(super) fn add(&mut self, letter: Letter) {
        self.began.get_or_insert_with(Instant::now);
        if let Some(record) = &letter.record {
            self.records += 1;
            self.bytes += record.size();
        }
        self.letters.push(letter);
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
