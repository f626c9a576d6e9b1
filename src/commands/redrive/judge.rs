//! What becomes of a dead letter by today's settings.

use bytes::Bytes;

use crate::callback::{RawCallback, Secrets, TimestampUnit, TraceContext};
use crate::event::{Judged, Reason, Record, Rules, Verdict};
use crate::kafka::Consumed;

use super::table::Outcome;

/// The settings that a dead letter is judged by.
pub(super) struct Judge<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) timestamp_unit: TimestampUnit,
    pub(super) rules: Rules<'a>,
    /// Whether values without a signature are published.
    pub(super) trust_topic: bool,
}

/// What becomes of a dead letter.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It is published.
    Publish {
        record: Record,
        /// Whether its signature was verified.
        is_authentic: bool,
    },
    /// It stays a dead letter, with the reason for people.
    Stay(Outcome, String),
}

impl Judge<'_> {
    pub(super) fn judge(&self, letter: &Consumed) -> Judgement {
        let rejected = <&str>::from(Reason::RejectedByKafka).as_bytes();
        match letter.header("dead_letter_reason") == Some(rejected) {
            true => self.judge_rejected(letter),
            false => self.judge_callback(letter),
        }
    }

    /// Judges the body of a callback as `serve` would have judged it when it was received.
    fn judge_callback(&self, letter: &Consumed) -> Judgement {
        let raw = RawCallback {
            body: Bytes::copy_from_slice(&letter.value),
            content_type: None,
            trace: trace(letter),
            received_at: received_at(letter),
        };
        let json = match raw.json() {
            Ok(json) => json,
            Err(why) => return Judgement::Stay(Outcome::Malformed, why.to_string()),
        };
        let unverified = match json.decode() {
            Ok(unverified) => unverified,
            Err(why) => return Judgement::Stay(Outcome::Malformed, why.to_string()),
        };
        match self.secrets.authenticate(unverified, self.timestamp_unit) {
            Ok(callback) => judgement(self.rules.judge(&callback), true),
            Err(why) => Judgement::Stay(Outcome::NotAuthentic, why.failed_check().to_string()),
        }
    }

    /// Judges the value of a record that Kafka had rejected. It has no signature.
    fn judge_rejected(&self, letter: &Consumed) -> Judgement {
        if !self.trust_topic {
            let detail = letter.header("dead_letter_detail").unwrap_or_default();
            let detail = String::from_utf8_lossy(detail);
            return Judgement::Stay(Outcome::NotTrusted, detail.into_owned());
        }
        let value = Bytes::copy_from_slice(&letter.value);
        let trace = trace(letter);
        judgement(self.rules.judge_rejected(&value, trace.as_ref()), false)
    }
}

/// The trace context of the callback's request.
fn trace(letter: &Consumed) -> Option<TraceContext> {
    TraceContext::from_headers(|name| {
        let headers = letter.headers.iter();
        let found = headers.filter(move |(header, _)| header == name);
        found.map(|(_, value)| value)
    })
}

/// When the callback was received, by the clock of the service at that time: its age is judged by
/// it, and its record contains it.
fn received_at(letter: &Consumed) -> i64 {
    let header = letter.header("received_at");
    let received = header.and_then(|text| str::from_utf8(text).ok()?.parse().ok());
    let is_time = |time: &i64| *time >= 0;
    (received.filter(is_time).or(letter.timestamp))
        .filter(is_time)
        .unwrap_or_default()
}

fn judgement(judged: Judged, is_authentic: bool) -> Judgement {
    let nothing = String::new();
    match judged.verdict {
        Verdict::Event(record) => Judgement::Publish {
            record: record.marked_as_redriven(),
            is_authentic,
        },
        Verdict::Question => Judgement::Stay(Outcome::Question, nothing),
        Verdict::Discarded => Judgement::Stay(Outcome::Discarded, nothing),
        Verdict::DeadLetter(why) => {
            let outcome = match why.reason {
                Reason::Stale => Outcome::Stale,
                Reason::UnsupportedEvent => Outcome::Unsupported,
                Reason::InvalidEvent | Reason::RejectedByKafka => Outcome::Invalid,
            };
            Judgement::Stay(outcome, why.detail.into_owned())
        }
    }
}
