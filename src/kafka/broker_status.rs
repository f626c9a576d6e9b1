//! Whether Kafka can be reached, and how far away it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::types::RDKafkaErrorCode;

use super::statistics::Statistics;
use crate::log::LogThrottle;
use crate::metrics::Metrics;

/// What the main producer knows of its brokers. It outlives that producer.
#[derive(Debug)]
pub struct BrokerStatus {
    /// One of the constants below.
    reachability: AtomicU8,
    errors: LogThrottle<RDKafkaErrorCode>,
    /// `None` in tests.
    metrics: Option<Arc<Metrics>>,
    round_trips: Mutex<RoundTrips>,
}

/// Measurements of the time from a request to its response.
#[derive(Debug, Default)]
struct RoundTrips {
    /// That of the first producer, to one broker. It counts until there are others.
    first: Option<Duration>,
    /// The last ones, to the broker that is farthest away.
    last: VecDeque<Duration>,
}

/// The number of measurements of which the shortest counts: a Kafka that is busy for some seconds is
/// not far away.
const ROUND_TRIPS: usize = 4;

/// The round trip from which on Kafka is distant. Below half of it, Kafka is near.
const DISTANT: Duration = Duration::from_millis(25);

/// No connection has been up or has failed yet.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl BrokerStatus {
    pub(crate) fn new(metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            reachability: AtomicU8::new(UNKNOWN),
            errors: LogThrottle::default(),
            metrics,
            round_trips: Mutex::default(),
        }
    }

    /// Whether a connection to a broker is up.
    pub fn is_up(&self) -> bool {
        self.reachability.load(Ordering::Relaxed) == UP
    }

    /// Whether no broker can be reached. False until the first attempt has ended.
    pub fn is_down(&self) -> bool {
        self.reachability.load(Ordering::Relaxed) == DOWN
    }

    /// The time from a request to its response when Kafka is not busy; zero until it was measured.
    pub fn round_trip(&self) -> Duration {
        let round_trips = self.round_trips.lock();
        let shortest = round_trips.last.iter().min().copied();
        shortest.or(round_trips.first).unwrap_or_default()
    }

    /// Whether Kafka is distant, as far as that is known.
    pub(super) fn seems_distant(&self) -> bool {
        self.round_trip() >= DISTANT
    }

    /// Whether Kafka is distant; `None` while the measurements leave that open.
    pub(crate) fn is_distant(&self) -> Option<bool> {
        let round_trips = &self.round_trips.lock().last;
        let shortest = *round_trips.iter().min()?;
        if round_trips.len() < ROUND_TRIPS || (DISTANT / 2..DISTANT).contains(&shortest) {
            return None;
        }
        Some(shortest >= DISTANT)
    }

    /// Takes the statistics of the main producer, which notes here whether it was up before: a new one
    /// that is still connecting says nothing about Kafka.
    pub(super) fn take_statistics(&self, statistics: &Statistics, was_up: &AtomicBool) {
        if let Some(round_trip) = statistics.round_trip {
            let round_trips = &mut self.round_trips.lock().last;
            round_trips.push_back(round_trip);
            if round_trips.len() > ROUND_TRIPS {
                round_trips.pop_front();
            }
        }
        if let Some(metrics) = &self.metrics {
            metrics.set_kafka_connection(statistics.brokers_up, self.round_trip());
        }
        let up = statistics.brokers_up > 0;
        if up || was_up.load(Ordering::Relaxed) {
            self.set_up(up);
        }
        was_up.fetch_or(up, Ordering::Relaxed);
    }

    /// Takes a measurement that counts until the statistics have one.
    pub(super) fn take_first_round_trip(&self, round_trip: Duration) {
        self.round_trips.lock().first = Some(round_trip);
    }

    /// Takes an error of the client, as opposed to one of a record.
    pub(super) fn take_error(&self, code: RDKafkaErrorCode, reason: &str) {
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.set_up(false),
            // Only one broker, or one address of a name: the others may work.
            RDKafkaErrorCode::BrokerTransportFailure => {
                tracing::debug!("Kafka broker cannot be reached: {reason}");
            }
            // librdkafka repeats an error with every attempt to connect.
            code if self.errors.is_due_for(code) => {
                tracing::warn!(
                    "Kafka client error {code}: {reason}; librdkafka retries. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS and ZIM2KAFKA_KAFKA_PROPERTIES"
                );
            }
            code => tracing::debug!("Kafka client error {code}: {reason}"),
        }
    }

    fn set_up(&self, up: bool) {
        let reachability = if up { UP } else { DOWN };
        let changed = self.reachability.swap(reachability, Ordering::Relaxed) != reachability;
        if changed && let Some(metrics) = &self.metrics {
            metrics.set_kafka_up(up);
            if up {
                tracing::info!("connected to Kafka");
            } else {
                tracing::warn!(
                    "no Kafka broker can be reached; retrying. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS, the network and the listeners that the brokers advertise"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(brokers_up: usize, milliseconds: u64) -> Statistics {
        Statistics {
            brokers_up,
            round_trip: Some(Duration::from_millis(milliseconds)),
            partitions: Vec::new(),
        }
    }

    #[test]
    fn kafka_is_distant_once_all_measurements_say_so() {
        let status = BrokerStatus::new(None);
        let was_up = AtomicBool::new(false);
        let is_distant = |measured: &[u64]| {
            for milliseconds in measured {
                status.take_statistics(&statistics(1, *milliseconds), &was_up);
            }
            status.is_distant()
        };
        assert_eq!(is_distant(&[]), None);
        assert_eq!(is_distant(&[50, 50, 50]), None);
        assert!(status.seems_distant());
        assert_eq!(is_distant(&[50]), Some(true));
        assert_eq!(is_distant(&[20]), None);
        assert_eq!(is_distant(&[12]), Some(false));
        assert_eq!(is_distant(&[50, 50, 50]), Some(false));
        assert_eq!(is_distant(&[50]), Some(true));
    }

    #[test]
    fn the_first_measurement_counts_until_the_statistics_have_one() {
        let status = BrokerStatus::new(None);
        assert!(status.round_trip().is_zero());
        status.take_first_round_trip(Duration::from_millis(40));
        assert!(status.seems_distant() && status.is_distant().is_none());
        status.take_statistics(&statistics(1, 50), &AtomicBool::new(false));
        assert_eq!(status.round_trip(), Duration::from_millis(50));
    }

    #[test]
    fn a_new_main_producer_that_still_connects_does_not_say_that_kafka_is_down() {
        let status = BrokerStatus::new(None);
        let (first, second) = (AtomicBool::new(false), AtomicBool::new(false));
        status.take_statistics(&statistics(0, 1), &first);
        assert!(!status.is_up() && !status.is_down());
        status.take_statistics(&statistics(1, 1), &first);
        status.take_statistics(&statistics(0, 1), &second);
        assert!(status.is_up());
        status.take_statistics(&statistics(1, 1), &second);
        status.take_statistics(&statistics(0, 1), &second);
        assert!(status.is_down());
    }
}
