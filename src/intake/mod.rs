//! From the bytes of a request to a record in its queue.

mod apps;
mod dedup;
mod secret_check;
mod stale_check;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::callback::{
    Malformed, RawCallback, Secrets, TimestampUnit, Unauthorized, UnverifiedCallback,
    VerifiedCallback,
};
use crate::delivery::{Delivery, Full, Ticket};
use crate::event::{self, Kind, Label, Omit, Policy, Reason, Record, Target, Unpublishable};
use crate::log::{Due, LogThrottle, Tally};
use crate::metrics::{BeforeSendOutcome, Metrics};
use apps::{App, Apps};
pub use dedup::{DEDUP_WINDOW, DEDUP_WINDOW_EVENTS, MAX_DEDUP_BYTES};
use dedup::{DedupWindow, Key};
use stale_check::StaleCheck;

/// Which callbacks are accepted.
#[derive(Debug)]
pub struct IntakeSettings {
    /// The callback secrets.
    pub secrets: Secrets,
    /// The unit of the sender's timestamps.
    pub timestamp_unit: TimestampUnit,
    /// How far a timestamp may be from now, in either direction; `None` accepts any.
    pub timestamp_tolerance: Option<Duration>,
    /// What is left out of records.
    pub omit: Omit,
}

/// Accepts callbacks.
pub struct Intake {
    apps: ArcSwap<Apps>,
    timestamp_unit: TimestampUnit,
    policy: Policy,
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    dedup: Mutex<DedupWindow>,
    dedup_full: LogThrottle,
    stale_check: StaleCheck,
    malformed: Tally<String>,
    unauthorized: Tally<String>,
}

/// An authentic callback.
pub struct Authentic {
    /// Which event it is of.
    pub event: Label,
    /// What happened to it; [`Full`] if the queue has no space for it. Nothing of it is then kept.
    pub result: Result<Accepted, Full>,
}

/// What happened to an authentic callback.
pub enum Accepted {
    /// It asks whether a message may be sent. It is answered at once and not stored.
    Passed,
    /// The operator discards its event. It is answered and not stored.
    Discarded,
    /// Its record is in the queue, now or since an earlier request. The ticket resolves once it is
    /// durable.
    Pending(Arc<Ticket>),
    /// An earlier request made it durable, with this event id.
    Duplicate(Uuid),
}

/// Why a callback is not authentic.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be parsed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is not authentic.
    #[error(transparent)]
    Unauthorized(#[from] Unauthorized),
}

impl Intake {
    /// An intake with an empty deduplication window.
    pub fn new(settings: IntakeSettings, delivery: Arc<Delivery>, metrics: Arc<Metrics>) -> Self {
        let IntakeSettings {
            secrets,
            timestamp_unit,
            timestamp_tolerance,
            omit,
        } = settings;
        Self {
            apps: ArcSwap::from_pointee(Apps::new(secrets, None, metrics.apps())),
            timestamp_unit,
            policy: Policy {
                omit,
                tolerance: timestamp_tolerance,
            },
            delivery,
            metrics,
            dedup: Mutex::new(DedupWindow::default()),
            dedup_full: LogThrottle::default(),
            stale_check: StaleCheck::default(),
            malformed: Tally::default(),
            unauthorized: Tally::default(),
        }
    }

    /// Uses these secrets from the next callback on.
    pub fn replace_secrets(&self, secrets: Secrets) {
        let apps = Apps::new(secrets, Some(&self.apps.load()), self.metrics.apps());
        self.apps.store(Arc::new(apps));
    }

    /// Accepts one callback: decodes it, authenticates it, turns it into a record and adds that to
    /// its queue, unless it is only a question, is discarded or has been accepted before.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing of the callback is then kept.
    pub fn accept(&self, raw: &RawCallback) -> Result<Authentic, Refusal> {
        let json = raw.json().inspect_err(|why| self.log_malformed(raw, why))?;
        let unverified = json
            .decode()
            .inspect_err(|why| self.log_malformed(raw, why))?;
        let callback = self.authenticate(raw, unverified)?;
        if event::name(&callback).as_deref() == Some(event::BEFORE_SEND_MESSAGE) {
            self.metrics.before_send(BeforeSendOutcome::Answered);
            return Ok(Authentic {
                event: Label::BEFORE_SEND_MESSAGE,
                result: Ok(Accepted::Passed),
            });
        }
        let kind = event::kind_of(&callback);
        Ok(Authentic {
            event: kind.as_ref().map_or(Label::OTHER, |kind| Label::of(kind)),
            result: self.accept_event(&callback, kind),
        })
    }

    /// Accepts an authentic callback that reports an event.
    fn accept_event(
        &self,
        callback: &VerifiedCallback<'_>,
        kind: Result<&'static Kind, Unpublishable>,
    ) -> Result<Accepted, Full> {
        if (kind.as_ref()).is_ok_and(|kind| self.target_of(kind) == Target::Discard) {
            return Ok(Accepted::Discarded);
        }
        let record = self
            .check_age(callback)
            .and_then(|()| self.published(callback, &kind))
            .and_then(|kind| kind.record(callback, &self.policy))
            .unwrap_or_else(|why| self.dead_letter(callback, kind.ok(), &why));
        self.enqueue_once(callback, record)
    }

    fn authenticate<'a>(
        &self,
        raw: &RawCallback,
        unverified: UnverifiedCallback<'a>,
    ) -> Result<VerifiedCallback<'a>, Unauthorized> {
        let apps = self.apps.load();
        let app = unverified.app_in(&apps.named).unwrap_or(&apps.other);
        let is_before_send = unverified.names_event(event::BEFORE_SEND_MESSAGE);
        match apps.secrets.authenticate(unverified, self.timestamp_unit) {
            Ok(callback) => {
                self.metrics.authentic_callback(raw.received_at);
                app.counters.accepted.inc();
                app.secret_check.record_accepted(raw.received_at);
                Ok(callback)
            }
            Err(unauthorized) => {
                app.counters.unauthorized.inc();
                if is_before_send {
                    self.metrics.before_send(BeforeSendOutcome::Unauthorized);
                }
                self.log_unauthorized(raw, app, unauthorized);
                Err(unauthorized)
            }
        }
    }

    /// Finds stale callbacks. The sender retries for 62 s and may or may not sign each attempt
    /// anew, so the tolerance is a matter of minutes.
    fn check_age(&self, callback: &VerifiedCallback<'_>) -> Result<(), Unpublishable> {
        let age = callback.raw().received_at - callback.timestamp();
        match self.policy.tolerance {
            Some(tolerance) if u128::from(age.unsigned_abs()) > tolerance.as_millis() => {
                self.log_stale(callback.raw().received_at, age);
                Err(Unpublishable {
                    reason: Reason::Stale,
                    detail: format!("its timestamp is {}", describe(age)).into(),
                })
            }
            _ => {
                self.stale_check.record_fresh();
                Ok(())
            }
        }
    }

    fn target_of(&self, kind: &Kind) -> Target {
        self.delivery.routes().target_of(kind.name)
    }

    /// The event of the callback, if it has a topic.
    fn published(
        &self,
        callback: &VerifiedCallback<'_>,
        kind: &Result<&'static Kind, Unpublishable>,
    ) -> Result<&'static Kind, Unpublishable> {
        let kind = kind.clone()?;
        match self.target_of(kind) {
            Target::Topic(_) => Ok(kind),
            Target::DeadLetters | Target::Discard => Err(event::unsupported(callback)),
        }
    }

    /// The dead letter of a callback, with the key of its event if events like it have a topic.
    fn dead_letter(
        &self,
        callback: &VerifiedCallback<'_>,
        kind: Option<&Kind>,
        why: &Unpublishable,
    ) -> Record {
        let kind = kind.filter(|kind| self.delivery.routes().has_family(kind.family));
        Record::dead_letter(callback, kind, why)
    }

    /// Adds the record to its queue, unless the same callback has been accepted before.
    ///
    /// Lookup, numbering and insertion happen under one lock; otherwise a concurrent resend could
    /// be numbered too. The record is therefore made first, even for the rare resend that does not
    /// need it. Earlier steps change neither the window nor the queue.
    fn enqueue_once(
        &self,
        callback: &VerifiedCallback<'_>,
        record: Record,
    ) -> Result<Accepted, Full> {
        let key = Key::new(callback.signature(), &callback.raw().body);
        let mut dedup = self.dedup.lock();
        if let Some(known) = dedup.find(&key) {
            return Ok(known);
        }
        let is_reused = dedup.has_other_body(&key);
        let record = if is_reused {
            record.marked_as_reuse()
        } else {
            record
        };
        let ticket = self.delivery.enqueue(record)?;
        let is_full = dedup.insert(key, Arc::clone(&ticket), Instant::now());
        drop(dedup);
        if is_full && self.dedup_full.is_due() {
            tracing::warn!(
                "deduplication window full: its 32 MiB do not hold the events of the last 70 s and the pending ones, so the oldest answered ones are removed; a retry of one is published again, with the same event id. Check that consumers deduplicate, or divide the load (docs/scaling.md)"
            );
        }
        if is_reused {
            self.metrics.signature_reused();
        }
        Ok(Accepted::Pending(ticket))
    }

    /// Logs the refusals of the last minute that are not logged yet; to be called each second.
    pub fn log_refusals(&self, now: Instant) {
        let malformed = self.malformed.take_due(now);
        malformed.into_iter().for_each(report_malformed);
        let unauthorized = self.unauthorized.take_due(now);
        unauthorized.into_iter().for_each(report_unauthorized);
    }

    fn log_malformed(&self, raw: &RawCallback, why: &Malformed) {
        let example = || format!("{why} ({})", raw.shape(&event::field_names()));
        let due = self.malformed.add(Instant::now(), example);
        due.into_iter().for_each(report_malformed);
    }

    fn log_unauthorized(&self, raw: &RawCallback, app: &App, why: Unauthorized) {
        tracing::debug!("callback is not authentic: {why:?}");
        let example = || {
            let appid = app.appid.as_ref();
            let appid = appid.map(|appid| format!(", appid {appid}"));
            format!(
                "{}{} ({})",
                why.failed_check(),
                appid.unwrap_or_default(),
                raw.shape(&event::field_names())
            )
        };
        let due = self.unauthorized.add(Instant::now(), example);
        due.into_iter().for_each(report_unauthorized);
        if let Some(suspicion) = app.secret_check.record_unauthorized(raw.received_at) {
            tracing::warn!("{}", suspicion.warning(&app.whose()));
        }
    }

    fn log_stale(&self, now: i64, age: i64) {
        if let Some(all) = self.stale_check.record_stale(now, age) {
            tracing::warn!(
                "all {} callbacks of the last {} s were stale and become dead letters: a typical timestamp is {}. Check this machine's clock (NTP); if it is right, the sender's clock or the unit of its timestamps is wrong, or its callbacks arrive late",
                all.count,
                all.since / 1000,
                describe(all.age)
            );
        }
    }
}

fn report_malformed(due: Due<String>) {
    tracing::warn!(
        "{} malformed and answered 400 in the last minute{}; the sender drops each after 62 s. Its format may have changed, or a third party sends",
        callbacks(due.count),
        for_example(due.example)
    );
}

fn report_unauthorized(due: Due<String>) {
    tracing::warn!(
        "{} answered 401 in the last minute{}; the sender drops each after 62 s. Check ZIM2KAFKA_CALLBACK_SECRETS; if it is right, a third party sends",
        callbacks(due.count),
        for_example(due.example)
    );
}

fn callbacks(count: u64) -> String {
    match count {
        1 => "1 callback was".to_owned(),
        _ => format!("{count} callbacks were"),
    }
}

fn for_example(example: Option<String>) -> String {
    example.map_or_else(String::new, |example| format!(", for example: {example}"))
}

fn describe(age: i64) -> String {
    let seconds = age.unsigned_abs() / 1000;
    match age {
        0.. => format!("{seconds} s old"),
        _ => format!("{seconds} s in the future"),
    }
}

#[cfg(test)]
mod tests;
