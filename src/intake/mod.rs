//! The order of the steps, from a request's bytes to a record on its way.

mod memory;
mod suspicion;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::callback::{
    Malformed, RawCallback, Secrets, TimestampUnit, Unauthorized, UnverifiedCallback,
    VerifiedCallback,
};
use crate::delivery::{Delivery, Full, Ticket};
use crate::event::{self, Reason, Record, Unpublishable};
use crate::metrics::Metrics;
use memory::Memory;
pub use memory::REMEMBERED_EVENTS;
use suspicion::Suspicion;

/// Whose callbacks are accepted, and how old they may be.
#[derive(Debug)]
pub struct IntakeSettings {
    /// The callback secrets.
    pub secrets: Secrets,
    /// What the sender's timestamps must be.
    pub timestamp_unit: TimestampUnit,
    /// How far a timestamp may be from now, to either side; none accepts any.
    pub timestamp_tolerance: Option<Duration>,
}

/// Takes callbacks in.
pub struct Intake {
    secrets: ArcSwap<Secrets>,
    timestamp_unit: TimestampUnit,
    timestamp_tolerance: Option<Duration>,
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
    suspicion: Mutex<Suspicion>,
}

/// What was done with a callback that is authentic.
pub enum Accepted {
    /// It asks whether a message may be sent. We have no opinion, and store nothing.
    Passed,
    /// It is on its way, now or since an earlier request; the ticket tells when it is safe.
    OnItsWay(Arc<Ticket>),
    /// It is safe already, since an earlier request; the ticket holds where.
    Duplicate(Arc<Ticket>),
}

/// Why a callback was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is not authentic.
    #[error(transparent)]
    Unauthorized(#[from] Unauthorized),
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
}

impl Intake {
    /// An intake that remembers nothing yet.
    pub fn new(settings: IntakeSettings, delivery: Arc<Delivery>, metrics: Arc<Metrics>) -> Self {
        let IntakeSettings {
            secrets,
            timestamp_unit,
            timestamp_tolerance,
        } = settings;
        Self {
            secrets: ArcSwap::from_pointee(secrets),
            timestamp_unit,
            timestamp_tolerance,
            delivery,
            metrics,
            memory: Mutex::new(Memory::default()),
            suspicion: Mutex::new(Suspicion::default()),
        }
    }

    /// From the next callback on, these secrets count.
    pub fn replace_secrets(&self, secrets: Secrets) {
        self.secrets.store(Arc::new(secrets));
    }

    /// Takes in one callback: decoded, authenticated, and unless it is a question that only wants an
    /// answer, turned into the record that it means, numbered, and on its way to Kafka.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and then nothing of the callback is kept.
    pub fn accept(&self, raw: &RawCallback) -> Result<Accepted, Refusal> {
        let json = raw.json().inspect_err(|_| self.saw_noise(raw))?;
        let unverified = json.decode().inspect_err(|_| self.saw_noise(raw))?;
        let callback = self.authenticate(raw, unverified)?;
        if event::name(&callback).as_deref() == Some(event::BEFORE_SEND_MESSAGE) {
            return Ok(Accepted::Passed);
        }
        let record = self
            .fresh(&callback)
            .and_then(event::read)
            .and_then(|event| event.record())
            .unwrap_or_else(|why| Record::dead_letter(&callback, &why));
        self.enqueue_once(&callback, record)
    }

    fn authenticate<'a>(
        &self,
        raw: &RawCallback,
        unverified: UnverifiedCallback<'a>,
    ) -> Result<VerifiedCallback<'a>, Unauthorized> {
        let secrets = self.secrets.load();
        match secrets.authenticate(unverified, self.timestamp_unit) {
            Ok(callback) => {
                self.metrics.authentic_callback(raw.received_at);
                self.suspicion().authentic();
                Ok(callback)
            }
            Err(unauthorized) => {
                tracing::debug!(reason = ?unauthorized, "a callback is not authentic");
                if self.suspicion().unauthorized(raw.received_at) {
                    tracing::warn!(
                        "callbacks fail the signature check and none passes; the sender gives each up after 62 s. Check that ZIM2KAFKA_CALLBACK_SECRETS holds the project's CallbackSecret (not its ServerSecret), under the right appid"
                    );
                }
                Err(unauthorized)
            }
        }
    }

    /// The sender retries for 62 s and may or may not sign anew, so the tolerance is of minutes.
    fn fresh<'a>(
        &self,
        callback: &'a VerifiedCallback<'a>,
    ) -> Result<&'a VerifiedCallback<'a>, Unpublishable> {
        let age = callback.raw().received_at - callback.timestamp();
        match self.timestamp_tolerance {
            Some(tolerance) if u128::from(age.unsigned_abs()) > tolerance.as_millis() => {
                Err(Unpublishable {
                    reason: Reason::Stale,
                    detail: format!("its timestamp is {}", describe(age)).into(),
                })
            }
            _ => Ok(callback),
        }
    }

    /// Gives the record its number, unless the same callback has been here before.
    ///
    /// Looking up, numbering and remembering are one step under one lock: between two of them a
    /// resend could be numbered too. So the record is made before, also for the rare resend that will
    /// not need it; no step before this one leaves a trace, which makes the resend memory the first.
    fn enqueue_once(
        &self,
        callback: &VerifiedCallback<'_>,
        record: Record,
    ) -> Result<Accepted, Refusal> {
        let body = memory::digest(&callback.raw().body);
        let mut memory = self.memory();
        if let Some(ticket) = memory.find(callback.signature(), body) {
            return Ok(match ticket.get() {
                Some(_) => Accepted::Duplicate(ticket),
                None => Accepted::OnItsWay(ticket),
            });
        }
        let reused = memory.knows_other(callback.signature(), body);
        let record = if reused {
            record.marked_as_reuse()
        } else {
            record
        };
        let ticket = self.delivery.enqueue(record)?;
        memory.remember(callback.signature(), body, Arc::clone(&ticket));
        drop(memory);
        if reused {
            self.metrics.signature_reused();
        }
        Ok(Accepted::OnItsWay(ticket))
    }

    fn saw_noise(&self, raw: &RawCallback) {
        self.suspicion().noise(raw.received_at);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing under this lock panics half-way through a change.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspicion(&self) -> MutexGuard<'_, Suspicion> {
        self.suspicion
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
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
