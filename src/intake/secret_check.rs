//! Detects that the configured secrets are probably wrong.
//!
//! A wrong secret loses every event: the sender is refused six times and drops it. That is easy to
//! get wrong, because ZEGOCLOUD's console shows a ServerSecret beside the CallbackSecret, and one
//! of its pages names the wrong one.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The time in which failures are counted, in ms: about as long as the sender retries one event.
const WINDOW_MS: i64 = 60_000;

/// The failures that cause a warning. The sender tries one event five times within the window, so
/// one lost event is enough.
const FAILURES_MIN: u32 = 5;

/// Counts callbacks that fail the signature check since the last authentic one.
#[derive(Debug, Default)]
pub(super) struct SecretCheck {
    /// Whether the window holds anything. Keeps the lock off the path of authentic callbacks.
    is_counting: AtomicBool,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: i64,
    unauthorized: u32,
    malformed: u32,
    has_warned: bool,
}

impl SecretCheck {
    /// A callback was authentic, so the secrets are right.
    pub(super) fn record_authentic(&self) {
        if self.is_counting.load(Ordering::Relaxed) {
            let mut window = self.window.lock();
            *window = Window::default();
            self.is_counting.store(false, Ordering::Relaxed);
        }
    }

    /// A callback could not be parsed, which shows nothing about the secrets.
    pub(super) fn record_malformed(&self, now: i64) {
        self.count(now, |window| window.malformed += 1);
    }

    /// A callback failed the signature check. Returns whether to log a warning: once, until a
    /// callback is authentic.
    pub(super) fn record_unauthorized(&self, now: i64) -> bool {
        self.count(now, |window| {
            window.unauthorized += 1;
            let is_suspicious =
                window.unauthorized >= FAILURES_MIN && window.unauthorized > window.malformed;
            let warn = is_suspicious && !window.has_warned;
            window.has_warned |= warn;
            warn
        })
    }

    fn count<T>(&self, now: i64, count: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.window.lock();
        self.is_counting.store(true, Ordering::Relaxed);
        if (now - window.began).abs() > WINDOW_MS {
            *window = Window {
                began: now,
                has_warned: window.has_warned,
                ..Window::default()
            };
        }
        count(&mut window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_every_callback_fails_one_warning_is_due() {
        let check = SecretCheck::default();
        let warnings = (0..100).filter(|second| check.record_unauthorized(second * 1000));
        assert_eq!(warnings.count(), 1);
    }

    #[test]
    fn the_attempts_of_one_event_are_enough() {
        let check = SecretCheck::default();
        let attempts = [0, 2, 6, 14, 30, 62].map(|second| check.record_unauthorized(second * 1000));
        assert_eq!(attempts, [false, false, false, false, true, false]);
    }

    #[test]
    fn an_authentic_callback_resets_the_count() {
        let check = SecretCheck::default();
        for second in 0..100 {
            assert!(!check.record_unauthorized(second * 1000));
            if second % 4 == 3 {
                check.record_authentic();
            }
        }
    }

    #[test]
    fn failures_that_are_rare_or_among_malformed_callbacks_cause_no_warning() {
        let check = SecretCheck::default();
        assert!((0..100).all(|minute| !check.record_unauthorized(minute * 61_000)));
        let check = SecretCheck::default();
        for second in 0..50 {
            check.record_malformed(second * 1000);
            assert!(!check.record_unauthorized(second * 1000));
        }
    }
}
