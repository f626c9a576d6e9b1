//! A callback on its way to its answer.

use std::time::{Duration, Instant};

use super::{Metrics, Outcome, Problem};
use crate::event::Label;

/// A callback that has arrived and is not yet answered. If the sender closes the connection before
/// the answer, it has no outcome.
#[derive(Debug)]
pub struct Arrival<'a> {
    metrics: &'a Metrics,
    when: Instant,
    /// Known once the callback is authentic.
    event: Option<Label>,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            when: Instant::now(),
            event: None,
        }
    }

    /// The callback is authentic, and of this event.
    pub fn set_event(&mut self, event: Label) {
        self.event = Some(event);
    }

    /// The callback was answered. Returns how long that took.
    pub fn finished(self, outcome: Outcome) -> Duration {
        self.count(outcome)
    }

    fn count(&self, outcome: Outcome) -> Duration {
        let elapsed = self.when.elapsed();
        self.metrics.callbacks.of(outcome as usize).inc();
        let duration = self.metrics.callback_duration.of(outcome as usize);
        duration.observe(elapsed.as_secs_f64());
        if let Some(event) = self.event {
            self.metrics.events.count(event, outcome);
        }
        elapsed
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.metrics.callbacks_in_flight.dec();
        if std::thread::panicking() {
            self.count(Outcome::Failed);
            let event = self.event.filter(|event| *event != Label::OTHER);
            let problem = Problem {
                event: event.map(Label::name),
                reason: "internal error",
                ..Problem::of_service("answered 500")
            };
            let problems = self.metrics.problems();
            problems.add(problem, || "a bug; the log has the panic".to_owned());
        }
    }
}
