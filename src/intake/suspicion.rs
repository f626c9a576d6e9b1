//! Whether the configured secrets look like the wrong ones.
//!
//! A wrong secret costs every event: the sender is refused six times and forgets it. ZEGOCLOUD's
//! console shows a ServerSecret beside the CallbackSecret, and one of its pages names the wrong one.

/// Failures are counted within so many milliseconds: about as long as the sender retries one event.
const WINDOW: i64 = 60_000;

/// The sender tries one event five times within the window, so one lost event is enough.
const ENOUGH: u32 = 5;

/// What has come since the last authentic callback.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    window_began: i64,
    unauthorized: u32,
    noise: u32,
    warned: bool,
}

impl Suspicion {
    /// One passed, so the secrets are right.
    pub(super) fn authentic(&mut self) {
        *self = Self::default();
    }

    /// One could not even be read, which says nothing of secrets.
    pub(super) fn noise(&mut self, now: i64) {
        self.roll(now);
        self.noise += 1;
    }

    /// One failed. True where it is time to warn: once, until one passes.
    pub(super) fn unauthorized(&mut self, now: i64) -> bool {
        self.roll(now);
        self.unauthorized += 1;
        let warn = !self.warned && self.unauthorized >= ENOUGH && self.unauthorized > self.noise;
        self.warned |= warn;
        warn
    }

    fn roll(&mut self, now: i64) {
        if (now - self.window_began).abs() > WINDOW {
            *self = Self {
                window_began: now,
                warned: self.warned,
                ..Self::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_every_callback_fails_one_warning_is_given() {
        let mut suspicion = Suspicion::default();
        let warnings = (0..100).filter(|second| suspicion.unauthorized(second * 1000));
        assert_eq!(warnings.count(), 1);
    }

    #[test]
    fn the_attempts_of_one_event_are_enough() {
        let mut suspicion = Suspicion::default();
        let attempts = [0, 2, 6, 14, 30, 62].map(|second| suspicion.unauthorized(second * 1000));
        assert_eq!(attempts, [false, false, false, false, true, false]);
    }

    #[test]
    fn one_that_passes_clears_the_suspicion() {
        let mut suspicion = Suspicion::default();
        for second in 0..100 {
            assert!(!suspicion.unauthorized(second * 1000));
            if second % 4 == 3 {
                suspicion.authentic();
            }
        }
    }

    #[test]
    fn failures_that_are_rare_or_among_noise_raise_none() {
        let mut suspicion = Suspicion::default();
        assert!((0..100).all(|minute| !suspicion.unauthorized(minute * 61_000)));
        let mut suspicion = Suspicion::default();
        for second in 0..50 {
            suspicion.noise(second * 1000);
            assert!(!suspicion.unauthorized(second * 1000));
        }
    }
}
