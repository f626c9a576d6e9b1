//! From the bytes of a request to a record in its queue.

mod apps;
mod dedup;
mod problems;
mod secret_check;
mod stale_check;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tracing::field::{self, DisplayValue};
use uuid::Uuid;

use crate::callback::{
    Malformed, RawCallback, Secrets, TimestampUnit, TraceContext, TraceId, Unauthorized,
    UnverifiedCallback, VerifiedCallback,
};
use crate::delivery::{Delivery, Full, Ticket};
use crate::event::{
    self, Judged, Label, Omit, Policy, Reason, Record, Rules, Unpublishable, Verdict,
};
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
    malformed: Tally<Example>,
    unauthorized: Tally<Example>,
}

/// A callback that is not authentic, as an example for the log.
struct Example {
    text: String,
    trace_id: Option<TraceId>,
}

/// An authentic callback.
pub struct Authentic {
    /// Which event it is of.
    pub event: Label,
    /// Its application, if that has a secret of its own.
    pub appid: Option<Arc<str>>,
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
    #[error("{why}")]
    Unauthorized {
        /// What is missing or wrong.
        why: Unauthorized,
        /// The application that it names, if that has a secret of its own.
        appid: Option<Arc<str>>,
    },
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
        let (callback, appid) = self.authenticate(raw, unverified)?;
        let rules = self.rules();
        let judged = rules.judge(&callback);
        Ok(Authentic {
            event: judged.event(),
            result: self.accept_judged(&rules, &callback, appid.as_deref(), judged),
            appid,
        })
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            routes: self.delivery.routes(),
            policy: &self.policy,
            age_limit: self.policy.tolerance,
        }
    }

    fn accept_judged(
        &self,
        rules: &Rules<'_>,
        callback: &VerifiedCallback<'_>,
        appid: Option<&str>,
        judged: Judged,
    ) -> Result<Accepted, Full> {
        match judged.verdict {
            Verdict::Question => {
                self.metrics.before_send(BeforeSendOutcome::Answered);
                Ok(Accepted::Passed)
            }
            Verdict::Discarded => Ok(Accepted::Discarded),
            Verdict::Event(record) => {
                self.stale_check.record_fresh();
                self.enqueue_once(callback, appid, record, || ())
            }
            Verdict::DeadLetter(why) => {
                self.record_age(callback, &why);
                let letter = rules.dead_letter(callback, judged.kind, &why);
                let list = || self.list_dead_letter(appid, judged.kind, &why);
                self.enqueue_once(callback, appid, letter, list)
            }
        }
    }

    /// The authentic callback, and its application if that has a secret of its own.
    fn authenticate<'a>(
        &self,
        raw: &RawCallback,
        unverified: UnverifiedCallback<'a>,
    ) -> Result<(VerifiedCallback<'a>, Option<Arc<str>>), Refusal> {
        let apps = self.apps.load();
        let app = unverified.app_in(&apps.named).unwrap_or(&apps.other);
        let is_before_send = unverified.names_event(event::BEFORE_SEND_MESSAGE);
        match apps.secrets.authenticate(unverified, self.timestamp_unit) {
            Ok(callback) => {
                self.metrics.authentic_callback(raw.received_at);
                app.counters.accepted.inc();
                app.secret_check.record_accepted(raw.received_at);
                Ok((callback, app.appid.clone()))
            }
            Err(why) => {
                app.counters.unauthorized.inc();
                if is_before_send {
                    self.metrics.before_send(BeforeSendOutcome::Unauthorized);
                }
                self.log_unauthorized(raw, app, why);
                let appid = app.appid.clone();
                Err(Refusal::Unauthorized { why, appid })
            }
        }
    }

    /// Takes note of the age of a callback that becomes a dead letter.
    fn record_age(&self, callback: &VerifiedCallback<'_>, why: &Unpublishable) {
        let now = callback.raw().received_at;
        match why.reason {
            Reason::Stale => self.log_stale(now, now - callback.timestamp()),
            _ => self.stale_check.record_fresh(),
        }
    }

    /// Adds the record to its queue and calls `on_first`, unless the same callback has been accepted
    /// before.
    ///
    /// Lookup, numbering and insertion happen under one lock; otherwise a concurrent resend could
    /// be numbered too. The record is therefore made first, even for the rare resend that does not
    /// need it. Earlier steps change neither the window nor the queue.
    fn enqueue_once(
        &self,
        callback: &VerifiedCallback<'_>,
        appid: Option<&str>,
        record: Record,
        on_first: impl FnOnce(),
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
            self.list_reused_signature(appid);
        }
        on_first();
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
        self.list_malformed(why);
        let example = || Example {
            text: format!("{why} ({})", raw.shape(&event::field_names())),
            trace_id: trace_id(raw),
        };
        let due = self.malformed.add(Instant::now(), example);
        due.into_iter().for_each(report_malformed);
    }

    fn log_unauthorized(&self, raw: &RawCallback, app: &App, why: Unauthorized) {
        self.list_unauthorized(app, why);
        tracing::debug!(
            trace_id = trace_id(raw).map(field::display),
            "callback is not authentic: {why:?}"
        );
        let example = || {
            let appid = app.appid.as_ref();
            let appid = appid.map(|appid| format!(", appid {appid}"));
            let text = format!(
                "{}{} ({})",
                why.failed_check(),
                appid.unwrap_or_default(),
                raw.shape(&event::field_names())
            );
            let trace_id = trace_id(raw);
            Example { text, trace_id }
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
                event::describe_age(all.age)
            );
        }
    }
}

fn trace_id(raw: &RawCallback) -> Option<TraceId> {
    raw.trace.as_ref().map(TraceContext::trace_id)
}

fn report_malformed(due: Due<Example>) {
    let (example, trace_id) = for_example(due.example);
    tracing::warn!(
        trace_id,
        "{} malformed and answered 400 in the last minute{example}; the sender drops each after 62 s. Its format may have changed, or a third party sends",
        callbacks(due.count),
    );
}

fn report_unauthorized(due: Due<Example>) {
    let (example, trace_id) = for_example(due.example);
    tracing::warn!(
        trace_id,
        "{} answered 401 in the last minute{example}; the sender drops each after 62 s. Check ZIM2KAFKA_CALLBACK_SECRETS; if it is right, a third party sends",
        callbacks(due.count),
    );
}

fn callbacks(count: u64) -> String {
    match count {
        1 => "1 callback was".to_owned(),
        _ => format!("{count} callbacks were"),
    }
}

/// The part of a line that gives the example, and the line's field `trace_id`.
fn for_example(example: Option<Example>) -> (String, Option<DisplayValue<TraceId>>) {
    let Some(Example { text, trace_id }) = example else {
        return (String::new(), None);
    };
    (
        format!(", for example: {text}"),
        trace_id.map(field::display),
    )
}

#[cfg(test)]
mod tests;
