//! Detects that an application's secret is probably wrong.
//!
//! A wrong secret loses every event: the sender is refused six times and drops it. That is easy to
//! get wrong, because ZEGOCLOUD's console shows a ServerSecret beside the CallbackSecret, and one
//! of its pages names the wrong one. Each application is judged alone, so that the callbacks of one
//! hide nothing about another.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// The time in which failures are counted, in ms: about as long as the sender retries one event.
const WINDOW_MS: i64 = 60_000;

/// The failures that cause a warning. The sender tries one event five times within the window, so
/// one lost event is enough.
const FAILURES_MIN: u32 = 5;

/// For how long an authentic callback proves that a secret of the application is right, in ms. A
/// third party that knows no secret can make callbacks fail, but cannot make one pass.
const PROOF_MS: i64 = 15 * 60_000;

/// The pause before the same warning is repeated, in ms.
const REPEAT_MS: i64 = 15 * 60_000;

/// What the failures of an application indicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// No callback is authentic: the secret is wrong.
    AllFail,
    /// Others are authentic, the last one this many ms ago: one of several senders has another
    /// secret, or a third party sends.
    SomeFail { last_accepted: i64 },
}

/// Counts the callbacks of one application that are not authentic.
#[derive(Debug, Default)]
pub(super) struct SecretCheck {
    /// When the last authentic one arrived, in ms since 1970-01-01 UTC; 0 before the first.
    last_accepted: AtomicI64,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    began: i64,
    count: u32,
    /// The last warning: when, and whether it was that all fail.
    warned: Option<(i64, bool)>,
}

impl SecretCheck {
    /// A callback was authentic.
    pub(super) fn record_accepted(&self, now: i64) {
        self.last_accepted.store(now, Ordering::Relaxed);
    }

    /// A callback was not authentic. Returns what to warn of, if a warning is due.
    pub(super) fn record_unauthorized(&self, now: i64) -> Option<Suspicion> {
        let mut failures = self.failures.lock();
        if (now - failures.began).abs() > WINDOW_MS {
            failures.began = now;
            failures.count = 0;
        }
        failures.count += 1;
        if failures.count < FAILURES_MIN {
            return None;
        }
        // A clock that was set back leaves a time in the future.
        let last_accepted = (now - self.last_accepted.load(Ordering::Relaxed)).abs();
        let all_fail = last_accepted > PROOF_MS;
        let is_due = failures.warned.is_none_or(|(when, was)| {
            let pause = if was == all_fail {
                REPEAT_MS
            } else {
                WINDOW_MS
            };
            (now - when).abs() >= pause
        });
        if !is_due {
            return None;
        }
        failures.warned = Some((now, all_fail));
        Some(match all_fail {
            true => Suspicion::AllFail,
            false => Suspicion::SomeFail { last_accepted },
        })
    }

    /// The secrets were replaced, so the next failures are worth a warning again.
    pub(super) fn reset(&self) {
        *self.failures.lock() = Failures::default();
    }
}

impl Suspicion {
    /// The warning about these applications.
    pub(super) fn warning(self, whose: &str) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::AllFail => write!(
                f,
                "callbacks of {whose} fail the signature check and none passes; the sender drops each after 62 s. Check that ZIM2KAFKA_CALLBACK_SECRETS holds the project's CallbackSecret (not its ServerSecret) under the right appid; if the application sends no callbacks, a third party does"
            ),
            Self::SomeFail { last_accepted } => write!(
                f,
                "callbacks of {whose} fail the signature check, while others pass, the last one {} s ago: one of its senders uses another secret, the secret was changed in ZEGOCLOUD's console, or a third party sends. During a rotation, write both secrets to ZIM2KAFKA_CALLBACK_SECRETS",
                last_accepted / 1000
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time at which callbacks arrive.
    const NOW: i64 = 1_757_577_600_000;

    #[test]
    fn when_every_callback_fails_a_warning_is_due_each_quarter_of_an_hour() {
        let check = SecretCheck::default();
        let warned = (0..3600)
            .filter(|second| check.record_unauthorized(NOW + second * 1000).is_some())
            .collect::<Vec<_>>();
        assert_eq!(warned, [4, 904, 1804, 2704]);
    }

    #[test]
    fn the_attempts_of_one_event_are_enough() {
        let check = SecretCheck::default();
        let attempts = [0, 2, 6, 14, 30, 62]
            .map(|second| check.record_unauthorized(NOW + second * 1000).is_some());
        assert_eq!(attempts, [false, false, false, false, true, false]);
    }

    #[test]
    fn failures_beside_authentic_callbacks_are_a_mix_however_many_they_are() {
        let check = SecretCheck::default();
        let mut warned = Vec::new();
        // Somebody sends ten a second for an hour. The sender's own arrive every ten minutes.
        for tenth in 0..36_000 {
            let now = NOW + tenth * 100;
            if tenth % 6000 == 0 {
                check.record_accepted(now);
            }
            warned.extend(check.record_unauthorized(now).map(|what| (tenth, what)));
        }
        let mix = |tenth: i64| {
            let last_accepted = tenth % 6000 * 100;
            (tenth, Suspicion::SomeFail { last_accepted })
        };
        assert_eq!(warned, [4, 9004, 18_004, 27_004].map(mix));
    }

    #[test]
    fn a_secret_that_becomes_wrong_is_a_mix_first_and_then_certain() {
        let check = SecretCheck::default();
        check.record_accepted(NOW);
        let mut warned = Vec::new();
        for second in 1..1200 {
            let now = NOW + second * 1000;
            warned.extend(check.record_unauthorized(now).map(|what| (second, what)));
        }
        let mix = Suspicion::SomeFail {
            last_accepted: 5000,
        };
        assert_eq!(warned, [(5, mix), (901, Suspicion::AllFail)]);
        // New secrets that are wrong too are worth a warning at once.
        check.reset();
        let later =
            (1200..1210).filter_map(|second| check.record_unauthorized(NOW + second * 1000));
        assert_eq!(later.collect::<Vec<_>>(), [Suspicion::AllFail]);
    }

    #[test]
    fn rare_failures_cause_no_warning() {
        let check = SecretCheck::default();
        let rare = (0..100).filter_map(|minute| check.record_unauthorized(NOW + minute * 61_000));
        assert_eq!(rare.count(), 0);
    }

    #[test]
    fn the_warning_names_the_application() {
        assert_eq!(
            Suspicion::AllFail.warning("appid 7").to_string(),
            "callbacks of appid 7 fail the signature check and none passes; the sender drops each after 62 s. Check that ZIM2KAFKA_CALLBACK_SECRETS holds the project's CallbackSecret (not its ServerSecret) under the right appid; if the application sends no callbacks, a third party does"
        );
        let some = Suspicion::SomeFail {
            last_accepted: 41_999,
        };
        let some = some.warning("appid 7").to_string();
        assert!(
            some.starts_with("callbacks of appid 7 fail the signature check, while others pass, the last one 41 s ago:"),
            "{some}"
        );
    }
}
