//! The metrics of the connection to Kafka.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Gauge, IntGauge, Registry};

use super::series::{gauge, register};

/// The client library reports each second. Without a report for this long, the last one says nothing
/// about now.
const REPORT_LIFETIME: Duration = Duration::from_secs(10);

/// The connection to Kafka: that of the main producer, which stands for the others.
#[derive(Debug)]
pub(super) struct KafkaMetrics {
    up: IntGauge,
    brokers_up: Gauge,
    round_trip: Gauge,
    last: Mutex<Option<Report>>,
}

/// What the client library has reported.
#[derive(Debug, Clone, Copy)]
struct Report {
    at: Instant,
    brokers_up: usize,
    /// `None` until it was measured.
    round_trip: Option<Duration>,
}

impl KafkaMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            up: gauge(
                registry,
                "zim2kafka_kafka_up",
                "1 while a connection to a broker is up, else 0.",
            ),
            brokers_up: register(
                registry,
                Gauge::new(
                    "zim2kafka_kafka_brokers_up",
                    "Brokers, at the addresses that Kafka advertises, to which the main producer has a connection. It connects only to those that it needs. NaN if the client library has reported nothing for 10 s.",
                ),
            ),
            round_trip: register(
                registry,
                Gauge::new(
                    "zim2kafka_kafka_round_trip_seconds",
                    "From a request of the main producer to Kafka's response: the shortest of the last four seconds with responses, of the broker that is farthest away. NaN while no broker is connected, or none has answered yet.",
                ),
            ),
            last: Mutex::new(None),
        };
        metrics.update(Instant::now());
        metrics
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.set(up.into());
    }

    /// The client library has reported this.
    pub(super) fn report(&self, at: Instant, brokers_up: usize, round_trip: Duration) {
        *self.last.lock() = Some(Report {
            at,
            brokers_up,
            round_trip: (!round_trip.is_zero()).then_some(round_trip),
        });
    }

    /// Sets the gauges to the last report, if it is recent.
    pub(super) fn update(&self, now: Instant) {
        let last = *self.last.lock();
        let last = last.filter(|last| now.saturating_duration_since(last.at) < REPORT_LIFETIME);
        let brokers_up = last.map_or(f64::NAN, |last| last.brokers_up as f64);
        self.brokers_up.set(brokers_up);
        let connected = last.filter(|last| last.brokers_up > 0);
        let round_trip = connected.and_then(|last| last.round_trip);
        self.round_trip
            .set(round_trip.map_or(f64::NAN, |round_trip| round_trip.as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauges_are_nan_without_a_recent_report_and_the_round_trip_without_a_broker() {
        let registry = Registry::new();
        let metrics = KafkaMetrics::new(&registry);
        let shown = |now: Instant| {
            metrics.update(now);
            (metrics.brokers_up.get(), metrics.round_trip.get())
        };
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let (brokers_up, round_trip) = shown(start);
        assert!(brokers_up.is_nan() && round_trip.is_nan());

        metrics.report(start, 3, Duration::from_millis(5));
        assert_eq!(shown(start), (3.0, 0.005));
        assert_eq!(shown(after(9_999)), (3.0, 0.005));
        let (brokers_up, round_trip) = shown(after(10_000));
        assert!(brokers_up.is_nan() && round_trip.is_nan());

        // Connected, and nothing was answered yet.
        metrics.report(after(20_000), 1, Duration::ZERO);
        let (brokers_up, round_trip) = shown(after(20_000));
        assert!(brokers_up == 1.0 && round_trip.is_nan());
        // All connections are lost: the last round trip says nothing any more.
        metrics.report(after(21_000), 0, Duration::from_millis(5));
        let (brokers_up, round_trip) = shown(after(21_000));
        assert!(brokers_up == 0.0 && round_trip.is_nan());
    }
}
