//! The metrics of each event.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use super::series::{Labelled, register};
use super::{DURATION_BUCKETS_SECONDS, Outcome};
use crate::event::Label;

/// The outcomes of callbacks that are authentic. Only then the event is known.
const OUTCOMES: [Outcome; 7] = [
    Outcome::Published,
    Outcome::Spooled,
    Outcome::Duplicate,
    Outcome::DeadLettered,
    Outcome::Discarded,
    Outcome::Passed,
    Outcome::Unavailable,
];

/// The authentic callbacks by event, and how late events are.
#[derive(Debug)]
pub(super) struct EventMetrics {
    callbacks: Labelled<[IntCounter; OUTCOMES.len()]>,
    lag: Histogram,
}

impl EventMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let options = Opts::new(
            "zim2kafka_events_total",
            "Authentic callbacks answered, by event and outcome. other: the event is unknown or cannot be read.",
        );
        let callbacks = register(registry, IntCounterVec::new(options, &["event", "outcome"]));
        let series = |event: Label| {
            OUTCOMES.map(|outcome| callbacks.with_label_values(&[event.name(), outcome.into()]))
        };
        let lag = HistogramOpts::new(
            "zim2kafka_event_lag_seconds",
            "Time from an event, as given by its callback, until its new record is durable. Up to 1 s too high if the timestamp is in seconds. 0 if the sender's clock is ahead.",
        );
        let lag = lag.buckets(DURATION_BUCKETS_SECONDS.to_vec());
        Self {
            callbacks: Labelled(Label::all().map(series).collect()),
            lag: register(registry, Histogram::with_opts(lag)),
        }
    }

    /// An authentic callback was answered.
    pub(super) fn count(&self, event: Label, outcome: Outcome) {
        let place = OUTCOMES.iter().position(|known| *known == outcome);
        let counters = self.callbacks.of(event.place());
        if let Some(counter) = place.and_then(|place| counters.get(place)) {
            counter.inc();
        }
    }

    /// The record of an event has become durable, for the first time, this long after the event.
    pub(super) fn durable(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }
}
