//! Whether Kafka can be reached, and how far away it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::types::RDKafkaErrorCode;

use super::failures::{Failure, Failures, parse_name};
use super::listed::{Broker, Listed, shown};
use super::statistics::{Statistics, is_up};
use crate::finding::Step;
use crate::log::LogThrottle;
use crate::metrics::Metrics;

/// What the main producer knows of its brokers. It outlives that producer.
#[derive(Debug)]
pub struct BrokerStatus {
    /// One of the constants below.
    reachability: AtomicU8,
    last_up: Mutex<LastUp>,
    failures: Mutex<Failures>,
    /// Whether a broker has been connected at an address that Kafka advertises.
    advertised_was_up: AtomicBool,
    /// The brokers that the last statistics list.
    listed: Mutex<Vec<Listed>>,
    errors: LogThrottle<Option<RDKafkaErrorCode>>,
    /// `None` in tests.
    metrics: Option<Arc<Metrics>>,
    round_trips: Mutex<RoundTrips>,
}

/// Whether a connection to a broker is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// One is.
    Up,
    /// None has been up since the start, this long ago.
    NeverUp(Duration),
    /// None has been up for this long.
    Lost(Duration),
}

/// When a connection was last up.
#[derive(Debug)]
struct LastUp {
    /// Or the start, if none has been up.
    at: Instant,
    ever: bool,
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

/// How many connections that are being set up a text lists.
const LISTED_ATTEMPTS: usize = 3;

/// No connection has been up or has failed yet.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl BrokerStatus {
    pub(crate) fn new(metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            reachability: AtomicU8::new(UNKNOWN),
            last_up: Mutex::new(LastUp {
                at: Instant::now(),
                ever: false,
            }),
            failures: Mutex::default(),
            advertised_was_up: AtomicBool::new(false),
            listed: Mutex::default(),
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

    /// Whether a connection to a broker is up, and if not, for how long none has been. This is
    /// known by our own clock: librdkafka is silent if it waits for a token, or for a broker that
    /// takes connections and does not answer.
    pub fn connection(&self, now: Instant) -> Connection {
        if self.is_up() {
            return Connection::Up;
        }
        let last_up = self.last_up.lock();
        let since = now.saturating_duration_since(last_up.at);
        match last_up.ever {
            true => Connection::Lost(since),
            false => Connection::NeverUp(since),
        }
    }

    /// The last failure of each broker that cannot be reached, as a text for people. Without a
    /// failure, the brokers that do not answer yet. Empty if there are none.
    pub fn errors(&self) -> String {
        let failures = self.failures.lock();
        let mut text = failures.text(|_| true, Instant::now());
        // librdkafka ends its connection to a bootstrap server once it knows what Kafka advertises.
        let is_misled =
            failures.iter().any(|failure| failure.is_advertised) && !self.advertised_was_up();
        if is_misled {
            text.push_str("; a bootstrap server answers, but no address that Kafka advertises does: check advertised.listeners of the brokers");
        }
        match text.is_empty() && !self.is_up() {
            true => self.attempts_text(|_| true),
            false => text,
        }
    }

    /// The same, of the addresses that Kafka advertises. Kafka is up if a bootstrap server is, but
    /// takes no records if the addresses that it then names cannot be reached.
    pub fn advertised_errors(&self) -> String {
        let failures = self.failures.lock();
        let text = failures.text(|failure| failure.is_advertised, Instant::now());
        match text.is_empty() {
            true => self.attempts_text(|listed| listed.is_advertised),
            false => text,
        }
    }

    /// Whether a broker has been connected at an address that Kafka advertises.
    pub(super) fn advertised_was_up(&self) -> bool {
        self.advertised_was_up.load(Ordering::Relaxed)
    }

    /// The brokers that the client knows, with why they are not connected.
    pub fn brokers(&self) -> Vec<Broker> {
        let (failures, listed) = (self.failures.lock(), self.listed.lock());
        shown(&listed, &failures)
    }

    fn attempts_text(&self, is_listed: impl Fn(&Listed) -> bool) -> String {
        let listed = self.listed.lock();
        let attempts = (listed.iter()).filter(|listed| listed.is_attempt() && is_listed(listed));
        let texts = attempts.take(LISTED_ATTEMPTS).map(|attempt| {
            let Listed { broker, state, .. } = attempt;
            format!("{broker}: no answer in state {state}")
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    /// The steps that failed, with their texts: of all brokers, or only of the addresses that Kafka
    /// advertises.
    pub(super) fn failed_steps(&self, is_advertised: bool) -> Vec<(Step, String)> {
        let failures = self.failures.lock();
        let failures = failures.iter();
        let failures = failures.filter(|failure| failure.is_advertised || !is_advertised);
        failures
            .map(|failure| (failure.step, failure.to_string()))
            .collect()
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
            metrics.set_kafka_connection(statistics.brokers_up(), self.round_trip());
        }
        self.take_states(&statistics.brokers);
        let up = statistics.is_any_up();
        if up || was_up.load(Ordering::Relaxed) {
            self.set_up(up);
        }
        was_up.fetch_or(up, Ordering::Relaxed);
    }

    /// Takes a measurement that counts until the statistics have one.
    pub(super) fn take_first_round_trip(&self, round_trip: Duration) {
        self.round_trips.lock().first = Some(round_trip);
    }

    fn take_states(&self, brokers: &[(String, String)]) {
        let mut failures = self.failures.lock();
        let mut listed = Vec::new();
        for (name, state) in brokers {
            let Some((broker, is_advertised)) = parse_name(name) else {
                continue;
            };
            if is_up(state) {
                failures.remove(broker);
                (self.advertised_was_up).fetch_or(is_advertised, Ordering::Relaxed);
            }
            listed.push(Listed {
                broker: broker.to_owned(),
                is_advertised,
                state: state.clone(),
            });
        }
        *self.listed.lock() = listed;
    }

    /// Takes an error of the client, as opposed to one of a record.
    pub(super) fn take_error(&self, code: RDKafkaErrorCode, reason: &str) {
        if code == RDKafkaErrorCode::AllBrokersDown {
            return self.set_up(false);
        }
        let failure = Failure::parse(reason);
        let is_outage = failure.is_some() && !self.is_up();
        // Only one broker, or one address of a name: the others may work.
        let is_usual = code == RDKafkaErrorCode::BrokerTransportFailure;
        // librdkafka repeats an error with every attempt to connect.
        let key = failure.is_none().then_some(code);
        if !is_outage && !is_usual && self.errors.is_due_for(key) {
            tracing::warn!(
                "Kafka client error {code}: {reason}; librdkafka retries. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS and ZIM2KAFKA_KAFKA_PROPERTIES"
            );
        } else {
            tracing::debug!("Kafka client error {code}: {reason}");
        }
        self.take_failure(failure);
    }

    /// The same, of a client that only finds out whether brokers can be reached.
    pub(super) fn take_probe_error(&self, code: RDKafkaErrorCode, reason: &str) {
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.set_up(false),
            _ => self.take_failure(Failure::parse(reason)),
        }
    }

    /// Takes a line of librdkafka's log. A connection that is closed or does not get ready in time
    /// is in the log only, and not reported as an error.
    pub(super) fn take_log(&self, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.take_failure(Failure::parse(message));
        }
    }

    fn take_failure(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.failures.lock().add(failure, Instant::now());
        }
    }

    fn set_up(&self, up: bool) {
        let reachability = if up { UP } else { DOWN };
        let before = self.reachability.swap(reachability, Ordering::Relaxed);
        if before == reachability {
            return;
        }
        if up || before == UP {
            let mut last_up = self.last_up.lock();
            last_up.at = Instant::now();
            last_up.ever = true;
        }
        if let Some(metrics) = &self.metrics {
            metrics.set_kafka_up(up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(brokers_up: usize, milliseconds: u64) -> Statistics {
        Statistics {
            brokers: vec![("a:1/1".to_owned(), "UP".to_owned()); brokers_up],
            round_trip: Some(Duration::from_millis(milliseconds)),
            topics: Vec::new(),
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
    #[test]
    fn the_time_without_a_connection_is_known_whatever_librdkafka_reports() {
        let status = BrokerStatus::new(None);
        let second = Duration::from_secs(1);
        // A little more than 40 s after its creation.
        let later = Instant::now() + 40 * second;
        let since = |connection| match connection {
            Connection::Up => None,
            Connection::NeverUp(since) => Some((false, since.as_secs())),
            Connection::Lost(since) => Some((true, since.as_secs())),
        };
        assert_eq!(since(status.connection(later)), Some((false, 40)));
        status.take_error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(since(status.connection(later)), Some((false, 40)));
        let was_up = AtomicBool::new(false);
        status.take_statistics(&statistics(1, 1), &was_up);
        assert_eq!(status.connection(later), Connection::Up);
        status.take_statistics(&statistics(0, 1), &was_up);
        let lost = since(status.connection(Instant::now() + 40 * second));
        assert_eq!(lost, Some((true, 40)));
    }

    #[test]
    fn the_reason_of_a_broker_goes_when_it_connects() {
        let status = BrokerStatus::new(None);
        let states = |states: &[(&str, &str)]| {
            let states = states.iter();
            let states = states.map(|(name, state)| ((*name).to_owned(), (*state).to_owned()));
            let statistics = Statistics {
                brokers: states.collect(),
                round_trip: None,
                topics: Vec::new(),
            };
            status.take_statistics(&statistics, &AtomicBool::new(false));
        };
        // No report, as while librdkafka waits for a token.
        states(&[("sasl_ssl://a:1/bootstrap", "TRY_CONNECT")]);
        assert_eq!(status.errors(), "a:1: no answer in state TRY_CONNECT");
        status.take_log("FAIL", "[thrd:a:1/bootstrap]: a:1/bootstrap: Connection setup timed out in state APIVERSION_QUERY (after 5ms in state APIVERSION_QUERY)");
        assert_eq!(
            status.errors(),
            "connect: a:1: Connection setup timed out in state APIVERSION_QUERY"
        );
        assert_eq!(status.advertised_errors(), "");
        // The bootstrap server answers, the address that it advertises does not.
        let refused = "localhost:2/1: Connect to ipv4#127.0.0.1:2 failed: Connection refused (after 0ms in state CONNECT)";
        status.take_error(RDKafkaErrorCode::BrokerTransportFailure, refused);
        states(&[("a:1/bootstrap", "UP"), ("localhost:2/1", "DOWN")]);
        assert!(status.is_up());
        let expected =
            "connect: localhost:2: Connect to ipv4#127.0.0.1:2 failed: Connection refused";
        let text = status.errors();
        assert!(
            text.starts_with(expected) && text.contains("advertised.listeners"),
            "{text}"
        );
        assert_eq!(status.advertised_errors(), expected);
        states(&[("a:1/bootstrap", "UP"), ("localhost:2/1", "UP")]);
        assert_eq!(status.errors(), "");
        // The address is right, so the broker is down.
        status.take_error(RDKafkaErrorCode::BrokerTransportFailure, refused);
        assert_eq!(status.errors(), expected);
    }
}
