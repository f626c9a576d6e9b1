//! The place of one producer: the producer in use, and when another one is created.

use std::time::{Duration, Instant};

use super::STALL_TIMEOUT;
use super::current::Current;

/// The pause before a new producer, doubled with each failure until a record is acknowledged.
pub(super) const RECREATE_BACKOFF_MIN: Duration = Duration::from_millis(100);
const RECREATE_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One producer, or the place for it.
pub(super) struct Managed {
    pub(super) current: Option<Current>,
    /// Whether it has been needed.
    pub(super) is_wanted: bool,
    pub(super) is_being_created: bool,
    pub(super) not_before: Instant,
    pub(super) backoff: Duration,
    pub(super) stall_timeout: Duration,
}

impl Managed {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            current: None,
            is_wanted: false,
            is_being_created: false,
            not_before: now,
            backoff: RECREATE_BACKOFF_MIN,
            stall_timeout: STALL_TIMEOUT,
        }
    }

    /// Postpones the next attempt to create one. The pause doubles each time, and is returned.
    pub(super) fn back_off(&mut self, now: Instant) -> Duration {
        let pause = self.backoff;
        self.not_before = now + pause;
        self.backoff = (pause * 2).min(RECREATE_BACKOFF_MAX);
        pause
    }

    pub(super) fn creation_failed(&mut self, now: Instant) {
        self.is_being_created = false;
        if self.current.is_some() {
            self.not_before = now + RECREATE_BACKOFF_MAX;
        } else {
            self.back_off(now);
        }
    }

    /// Whether it is to get a producer: its first one, or another one.
    pub(super) fn lacks_producer(&self) -> bool {
        match &self.current {
            Some(current) => current.successor_wanted().is_some(),
            None => self.is_wanted,
        }
    }
}
