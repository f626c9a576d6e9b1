//! What becomes of an authentic callback, by the operator's settings. `serve` decides with it when
//! a callback arrives, and `redrive` when it reads a dead letter again.

use std::time::Duration;

use super::{
    BEFORE_SEND_MESSAGE, Kind, Label, Policy, Reason, Record, Routes, Target, Unpublishable,
    kind_of, name, unsupported,
};
use crate::callback::VerifiedCallback;

/// The operator's settings for authentic callbacks.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Where each event goes.
    pub routes: &'a Routes,
    /// How records are made.
    pub policy: &'a Policy,
    /// How far a callback's timestamp may be from its arrival, in either direction; `None` accepts
    /// any.
    pub age_limit: Option<Duration>,
}

/// A callback, judged.
#[derive(Debug)]
pub struct Judged {
    /// The event that it reports, if that is one of [`super::EVENTS`].
    pub kind: Option<&'static Kind>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a callback.
#[derive(Debug)]
pub enum Verdict {
    /// It asks whether a message may be sent. It is answered and not stored.
    Question,
    /// The operator discards its event. It is not stored.
    Discarded,
    /// It is published as this record.
    Event(Record),
    /// It cannot be published.
    DeadLetter(Unpublishable),
}

/// What the order of the checks needs to know.
pub(super) struct Facts<U, R> {
    pub(super) kind: Result<&'static Kind, Unpublishable>,
    /// Its signed timestamp, in milliseconds since 1970-01-01 UTC.
    pub(super) timestamp: i64,
    pub(super) received_at: i64,
    /// Why it is unsupported, if its event has no topic.
    pub(super) unsupported: U,
    pub(super) record: R,
}

impl Judged {
    /// The label of its event.
    pub fn event(&self) -> Label {
        match (&self.verdict, self.kind) {
            (Verdict::Question, _) => Label::BEFORE_SEND_MESSAGE,
            (_, Some(kind)) => Label::of(kind),
            (_, None) => Label::OTHER,
        }
    }
}

impl Rules<'_> {
    /// Judges an authentic callback.
    pub fn judge(&self, callback: &VerifiedCallback<'_>) -> Judged {
        if name(callback).as_deref() == Some(BEFORE_SEND_MESSAGE) {
            return Judged {
                kind: None,
                verdict: Verdict::Question,
            };
        }
        self.check(Facts {
            kind: kind_of(callback),
            timestamp: callback.timestamp(),
            received_at: callback.raw().received_at,
            unsupported: || unsupported(callback),
            record: |kind: &Kind| kind.record(callback, self.policy),
        })
    }

    /// The checks, in their order: an event that is discarded is discarded whatever else is wrong
    /// with it, and a stale one is stale whatever its fields are.
    pub(super) fn check<U, R>(&self, facts: Facts<U, R>) -> Judged
    where
        U: FnOnce() -> Unpublishable,
        R: FnOnce(&'static Kind) -> Result<Record, Unpublishable>,
    {
        let kind = facts.kind.as_ref().ok().copied();
        let target = kind.map(|kind| self.routes.target_of(kind.name));
        if target == Some(Target::Discard) {
            return Judged {
                kind,
                verdict: Verdict::Discarded,
            };
        }
        let record = self
            .check_age(facts.received_at - facts.timestamp)
            .and_then(|()| match (facts.kind, target) {
                (Ok(kind), Some(Target::Topic(_))) => (facts.record)(kind),
                (Ok(_), _) => Err((facts.unsupported)()),
                (Err(why), _) => Err(why),
            });
        Judged {
            kind,
            verdict: record.map_or_else(Verdict::DeadLetter, Verdict::Event),
        }
    }

    /// Finds stale callbacks. The sender retries for 62 s and may or may not sign each attempt
    /// anew, so the tolerance is a matter of minutes.
    fn check_age(&self, age: i64) -> Result<(), Unpublishable> {
        match self.age_limit {
            Some(limit) if u128::from(age.unsigned_abs()) > limit.as_millis() => {
                Err(Unpublishable {
                    reason: Reason::Stale,
                    detail: format!("its timestamp is {}", describe_age(age)).into(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The dead letter of a callback, with the key of its event if events like it have a topic.
    pub fn dead_letter(
        &self,
        callback: &VerifiedCallback<'_>,
        kind: Option<&Kind>,
        why: &Unpublishable,
    ) -> Record {
        let kind = kind.filter(|kind| self.routes.has_family(kind.family));
        Record::dead_letter(callback, kind, why)
    }
}

/// An age in milliseconds, for people: negative if it is in the future.
pub fn describe_age(age: i64) -> String {
    let seconds = age.unsigned_abs() / 1000;
    match age {
        0.. => format!("{seconds} s old"),
        _ => format!("{seconds} s in the future"),
    }
}
