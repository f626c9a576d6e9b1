//! Counts what every request can repeat, for one line a minute.

use std::time::Instant;

use parking_lot::Mutex;

use super::REPEAT_INTERVAL;

/// Counts occurrences since the last line about them, and keeps an example.
///
/// The first occurrence is due at once. Later ones are due together, once the last line is as old as
/// [`REPEAT_INTERVAL`]: with the next occurrence, or when [`Tally::take_due`] is called, which its
/// owner does each second. A line is therefore about the occurrences of the last minute. A flood
/// costs one short lock per occurrence, and one example per line.
#[derive(Debug)]
pub(crate) struct Tally<E = ()>(Mutex<State<E>>);

#[derive(Debug)]
struct State<E> {
    count: u64,
    example: Option<E>,
    last_line: Option<Instant>,
}

/// What a line is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due<E> {
    /// The occurrences since the last line.
    pub(crate) count: u64,
    /// The first of them; `None` if it is only just being described.
    pub(crate) example: Option<E>,
}

impl<E> Tally<E> {
    /// Counts an occurrence. Returns what to log, if a line is due.
    pub(crate) fn add(&self, now: Instant, example: impl FnOnce() -> E) -> Option<Due<E>> {
        let mut state = self.0.lock();
        state.count += 1;
        if state.count == 1 {
            // To describe an example may take long.
            drop(state);
            let example = example();
            state = self.0.lock();
            state.example = Some(example);
        }
        state.take_due(now)
    }

    /// What to log, if something was counted and a line is due.
    pub(crate) fn take_due(&self, now: Instant) -> Option<Due<E>> {
        self.0.lock().take_due(now)
    }
}

impl<E> State<E> {
    fn take_due(&mut self, now: Instant) -> Option<Due<E>> {
        let since = (self.last_line).map(|last| now.saturating_duration_since(last));
        if self.count == 0 || since.is_some_and(|since| since < REPEAT_INTERVAL) {
            return None;
        }
        self.last_line = Some(now);
        Some(Due {
            count: std::mem::take(&mut self.count),
            example: self.example.take(),
        })
    }
}

impl<E> Default for Tally<E> {
    fn default() -> Self {
        Self(Mutex::new(State {
            count: 0,
            example: None,
            last_line: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due<E>(count: u64, example: E) -> Option<Due<E>> {
        let example = Some(example);
        Some(Due { count, example })
    }

    #[test]
    fn the_first_is_due_at_once_and_the_others_of_a_minute_together() {
        let (tally, began) = (Tally::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(tally.take_due(at(0)), None);
        assert_eq!(tally.add(at(0), || "first"), due(1, "first"));
        for second in 1..60 {
            assert_eq!(tally.add(at(second), || second.to_string().leak()), None);
            assert_eq!(tally.take_due(at(second)), None);
        }
        assert_eq!(tally.take_due(at(60)), due(59, "1"));
        assert_eq!(tally.take_due(at(120)), None);
        // After a quiet minute, the next one is due at once again, and counts its own minute.
        assert_eq!(tally.add(at(125), || "later"), due(1, "later"));
        assert_eq!(tally.add(at(184), || "waits"), None);
        assert_eq!(tally.add(at(185), || "unused"), due(2, "waits"));
    }

    #[test]
    fn a_flood_makes_one_example() {
        let (tally, now) = (Tally::default(), Instant::now());
        let mut examples = 0;
        let mut example = || examples += 1;
        let lines = (0..1000).filter_map(|_| tally.add(now, &mut example));
        assert_eq!(lines.count(), 1);
        // That of the line, and that of the next one.
        assert_eq!(examples, 2);
    }
}
