//! Why brokers cannot be reached, in librdkafka's words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

use crate::log::Ago;

/// The most brokers whose failure is kept. The name of each is one that Kafka or the settings gave.
const KEPT_BROKERS: usize = 32;

/// How many failures a text lists.
const LISTED_BROKERS: usize = 3;

/// The most characters of one failure. librdkafka's texts are shorter.
const REASON_CHARS: usize = 300;

/// A broker that requires a login closes a connection without one within this time.
const HINT_TIME: Duration = Duration::from_secs(2);

/// A failure that is older than this is listed with its age.
const RECENT: Duration = Duration::from_secs(5);

/// The part of setting up a connection that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The name of the broker has no address.
    Resolve,
    /// Nothing listens at the address, or what listens there does not answer as a broker.
    Connect,
    /// Encryption, or one side uses it and the other does not.
    Tls,
    /// The login.
    Sasl,
}

/// A failure to connect to one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The broker's `host:port`.
    pub(super) broker: String,
    /// Whether the address is one that Kafka advertises. Otherwise it is one of the settings.
    pub(super) is_advertised: bool,
    /// What failed.
    pub(super) step: Step,
    /// librdkafka's text, without the broker and without what changes with each attempt.
    pub(super) reason: String,
}

/// The last failure of each broker that is not connected.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<String, (Failure, Instant)>);

impl Step {
    /// The step that a text of librdkafka is about. `state` is that of the connection, and how long
    /// it had lasted.
    fn of(text: &str, protocol: &str, (state, lasted): (&str, Duration)) -> Self {
        let has = |word: &str| text.contains(word);
        let is_closed = text.starts_with("Disconnected");
        let has_tls = protocol.contains("ssl");
        // librdkafka's own rules for its hints, with those that it lacks.
        let wants_tls =
            has("closed by peer") && is_closed && !has_tls && state == "APIVERSION_QUERY";
        // The first bytes of a TLS alert, read as a size.
        let wants_tls = wants_tls || has("Invalid response size 35251");
        let wants_login =
            is_closed && !protocol.contains("sasl") && state == "UP" && lasted < HINT_TIME;
        if has("Failed to resolve") {
            Self::Resolve
        } else if text.starts_with("Connect to ") {
            Self::Connect
        } else if has("SASL") || state.starts_with("AUTH_") || wants_login {
            Self::Sasl
        } else if has("SSL") || has("ssl.") || state.starts_with("SSL_") || wants_tls {
            Self::Tls
        } else {
            Self::Connect
        }
    }

    /// What to check.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Resolve => {
                "check the name in ZIM2KAFKA_KAFKA_BROKERS and the name resolution of this machine"
            }
            Self::Connect => {
                "check ZIM2KAFKA_KAFKA_BROKERS and the network, and that the broker runs and listens there"
            }
            Self::Tls => {
                "check security.protocol and the ssl.* properties in ZIM2KAFKA_KAFKA_PROPERTIES, and whether the port uses TLS"
            }
            Self::Sasl => {
                "check security.protocol and the sasl.* properties in ZIM2KAFKA_KAFKA_PROPERTIES, and the user on the brokers"
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Sasl => "SASL",
        })
    }
}

impl Failure {
    /// Reads a text of librdkafka, of its log or of an error: `[thrd:…]: name: reason (after 0ms in
    /// state CONNECT)`. `None` if it does not begin with the name of a broker.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = match text.strip_prefix("[thrd:") {
            Some(rest) => rest.split_once("]: ")?.1,
            None => text,
        };
        let (name, reason) = text.split_once(": ")?;
        let (broker, is_advertised) = parse_name(name)?;
        let protocol = name.split_once("://").map_or("", |(protocol, _)| protocol);
        let (reason, state) = reason.rsplit_once(" (after ").unwrap_or((reason, ""));
        let step = Step::of(reason, protocol, parse_state(state));
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        Some(Self {
            broker: broker.to_owned(),
            is_advertised,
            step,
            reason: reason.trim().to_owned(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            broker,
            step,
            reason,
            ..
        } = self;
        write!(f, "{step}: {broker}: {reason}")
    }
}

/// Reads a broker's name in librdkafka, `host:port/id`, before it the protocol unless it is
/// plaintext. A bootstrap server has the id `bootstrap` until librdkafka knows its number. Returns
/// `host:port`, and whether it has a number.
pub(super) fn parse_name(name: &str) -> Option<(&str, bool)> {
    let (address, id) = name.rsplit_once('/')?;
    let address = address.rsplit_once("//").map_or(address, |(_, rest)| rest);
    let is_address = address.contains(':') && !address.contains(' ');
    is_address.then_some((address, id.parse::<i32>().is_ok()))
}

/// Reads `312ms in state UP)`, where more may follow after a comma.
fn parse_state(text: &str) -> (&str, Duration) {
    let (lasted, state) = text.split_once("ms in state ").unwrap_or_default();
    let state = state.split([',', ')']).next().unwrap_or_default();
    let lasted = lasted.parse().map_or(Duration::MAX, Duration::from_millis);
    (state, lasted)
}

impl Failures {
    /// Takes a failure.
    pub(super) fn add(&mut self, failure: Failure, now: Instant) {
        if self.0.len() >= KEPT_BROKERS && !self.0.contains_key(&failure.broker) {
            let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at);
            let oldest = oldest.map(|(broker, _)| broker.clone());
            self.0.retain(|broker, _| Some(broker) != oldest.as_ref());
        }
        self.0.insert(failure.broker.clone(), (failure, now));
    }

    /// This broker is connected.
    pub(super) fn remove(&mut self, broker: &str) {
        self.0.remove(broker);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.0.values().map(|(failure, _)| failure)
    }

    /// The latest ones as one text for people; empty if there is none.
    pub(super) fn text(&self, is_listed: impl Fn(&Failure) -> bool, now: Instant) -> String {
        let failures = self.0.values().filter(|(failure, _)| is_listed(failure));
        let mut failures: Vec<_> = failures.collect();
        failures.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut text = String::new();
        for (failure, at) in failures.iter().take(LISTED_BROKERS) {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&failure.to_string());
            let age = now.saturating_duration_since(*at);
            if age >= RECENT {
                text.push_str(&format!(", {} ago", Ago(age)));
            }
        }
        if failures.len() > LISTED_BROKERS {
            let more = failures.len() - LISTED_BROKERS;
            text.push_str(&format!("; and {more} more brokers"));
        }
        text
    }
}

/// Why a record was not delivered, and what to do if known. The text follows the topic's name.
pub(super) fn why_not_delivered(code: RDKafkaErrorCode) -> String {
    let known = match code {
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
            "does not exist; create it"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "is not writable; grant the service's user the right Write on it"
        }
        RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "is not writable; grant the service's user the right IdempotentWrite on the cluster"
        }
        RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend => {
            "has fewer replicas in sync than its min.insync.replicas"
        }
        code => return format!("takes no records ({code})"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_librdkafka_names_the_step_that_failed() {
        for (text, broker, step, reason) in [
            (
                "127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)",
                "127.0.0.1:9",
                Step::Connect,
                "Connect to ipv4#127.0.0.1:9 failed: Connection refused",
            ),
            (
                "[thrd:ssl://SASL-SSL:9092/bootstrap]: ssl://SASL-SSL:9092/bootstrap: Failed to resolve 'SASL-SSL:9092': Name or service not known (after 3ms in state CONNECT, 4 identical error(s) suppressed)",
                "SASL-SSL:9092",
                Step::Resolve,
                "Failed to resolve 'SASL-SSL:9092': Name or service not known",
            ),
            (
                "sasl_ssl://[::1]:9093/1: Connect to ipv6#[::1]:9093 failed: Connection refused (after 0ms in state CONNECT)",
                "[::1]:9093",
                Step::Connect,
                "Connect to ipv6#[::1]:9093 failed: Connection refused",
            ),
            (
                "ssl://a:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
                "a:1",
                Step::Tls,
                "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
            ),
            (
                "ssl://a:1/bootstrap: Connection setup timed out in state SSL_HANDSHAKE (after 30000ms in state SSL_HANDSHAKE)",
                "a:1",
                Step::Tls,
                "Connection setup timed out in state SSL_HANDSHAKE",
            ),
            (
                "a:1/bootstrap: Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 2ms in state APIVERSION_QUERY)",
                "a:1",
                Step::Tls,
                "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request)",
            ),
            (
                "a:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 2ms in state APIVERSION_QUERY)",
                "a:1",
                Step::Tls,
                "Disconnected: connection closed by peer: receive 0 after POLLIN",
            ),
            (
                "a:1/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes (after 2ms in state APIVERSION_QUERY)",
                "a:1",
                Step::Tls,
                "Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes",
            ),
            (
                "a:1/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 12ms in state UP, 3 identical error(s) suppressed)",
                "a:1",
                Step::Sasl,
                "Disconnected: connection closed by peer: receive 0 after POLLIN",
            ),
            (
                "a:1/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 2000ms in state UP)",
                "a:1",
                Step::Connect,
                "Disconnected: connection closed by peer: receive 0 after POLLIN",
            ),
            (
                "a:1/bootstrap: Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication (after 312ms in state UP)",
                "a:1",
                Step::Sasl,
                "Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication",
            ),
            (
                "sasl_ssl://a:1/bootstrap: SASL authentication error: Authentication failed (after 5ms in state AUTH_REQ)",
                "a:1",
                Step::Sasl,
                "SASL authentication error: Authentication failed",
            ),
            (
                "sasl_plaintext://a:1/bootstrap: Connection setup timed out in state AUTH_HANDSHAKE (after 9ms in state AUTH_HANDSHAKE)",
                "a:1",
                Step::Sasl,
                "Connection setup timed out in state AUTH_HANDSHAKE",
            ),
            (
                "a:1/bootstrap: Connection setup timed out in state APIVERSION_QUERY (after 9ms in state APIVERSION_QUERY)",
                "a:1",
                Step::Connect,
                "Connection setup timed out in state APIVERSION_QUERY",
            ),
        ] {
            let failure = Failure::parse(text).expect(text);
            assert_eq!(
                (
                    failure.broker.as_str(),
                    failure.step,
                    failure.reason.as_str()
                ),
                (broker, step, reason)
            );
        }
        for other in ["1/1 brokers are down", "No brokers configured", "a: b", ""] {
            assert_eq!(Failure::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_with_a_number_is_one_that_kafka_advertises() {
        let parse = |name| parse_name(name);
        assert_eq!(parse("a:1/bootstrap"), Some(("a:1", false)));
        assert_eq!(parse("ssl://a:1/7"), Some(("a:1", true)));
        assert_eq!(parse("1/1 brokers are down"), None);
        assert_eq!(parse("GroupCoordinator"), None);
    }

    #[test]
    fn the_last_failure_of_each_broker_is_listed_with_its_age_until_it_connects() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let add = |failures: &mut Failures, name: &str, reason: &str, at| {
            failures.add(
                Failure::parse(&format!("{name}: {reason}")).expect("valid"),
                at,
            );
        };
        add(&mut failures, "a:1/1", "Receive failed", now);
        add(&mut failures, "a:1/1", "Connect to x failed: refused", now);
        add(
            &mut failures,
            "b:1/bootstrap",
            "Connect to y failed: no route",
            now,
        );
        let later = now + Duration::from_secs(12);
        add(
            &mut failures,
            "c:1/2",
            "Connect to z failed: refused",
            later,
        );
        assert_eq!(
            failures.text(|failure| failure.is_advertised, later),
            "connect: c:1: Connect to z failed: refused; connect: a:1: Connect to x failed: refused, 12 s ago"
        );
        failures.remove("a:1");
        failures.remove("c:1");
        assert_eq!(
            failures.text(|_| true, now),
            "connect: b:1: Connect to y failed: no route"
        );
        for port in 0..100 {
            add(
                &mut failures,
                &format!("d:{port}/1"),
                "Receive failed",
                later,
            );
        }
        assert_eq!(failures.iter().count(), KEPT_BROKERS);
        let text = failures.text(|_| true, later);
        assert!(text.ends_with("; and 29 more brokers"), "{text}");
        assert!(!text.contains("b:1"), "the oldest one left: {text}");
    }
}
