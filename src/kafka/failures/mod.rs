//! Why brokers cannot be reached, in librdkafka's words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

use crate::finding::Step;
use crate::log::Ago;

/// The most brokers whose failure is kept. The name of each is one that Kafka or the settings gave.
const KEPT_BROKERS: usize = 32;

/// How many reasons a text lists, and how many brokers for each of them.
const LISTED: usize = 8;

/// The most characters of one failure. librdkafka's texts are shorter.
const REASON_CHARS: usize = 300;

/// A broker that requires a login closes a connection without one within this time.
const HINT_TIME: Duration = Duration::from_secs(2);

/// A failure that is older than this is listed with its age.
const RECENT: Duration = Duration::from_secs(5);

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
        // librdkafka's own rules for its hints, with those that it lacks. A broker that expects TLS
        // closes the connection; "POLLHUP" instead of "receive 0" is a reset.
        let wants_tls = is_closed
            && has("closed by peer: receive 0")
            && !has_tls
            && state == "APIVERSION_QUERY";
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

    /// What to check. The address is one that Kafka advertises, or one of the settings.
    pub fn advice(self, is_advertised: bool) -> &'static str {
        match self {
            Self::Resolve if is_advertised => {
                "check its advertised.listeners and the name resolution of this machine"
            }
            Self::Resolve => {
                "check the name in ZIM2KAFKA_KAFKA_BROKERS and the name resolution of this machine"
            }
            Self::Connect if is_advertised => {
                "check its advertised.listeners and the network, and that the broker runs and listens there"
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
            Self::Authorization | Self::Topic => {
                "check the topics, and the rights of the service's user on them"
            }
        }
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

    /// The step and its reason, for a list of brokers.
    pub(super) fn without_broker(&self) -> String {
        format!("{}: {}", self.step, self.reason)
    }

    /// The reason without the address, which differs from broker to broker.
    fn cause(&self) -> &str {
        let parts = match self.step {
            Step::Resolve => self.reason.split_once("': "),
            Step::Connect if self.reason.starts_with("Connect to ") => {
                self.reason.split_once(" failed: ")
            }
            _ => None,
        };
        parts.map_or(&self.reason, |(_, cause)| cause)
    }

    fn has_same_cause(&self, other: &Self) -> bool {
        self.step == other.step && self.cause() == other.cause()
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

    /// The failure of this broker.
    pub(super) fn of(&self, broker: &str) -> Option<&Failure> {
        self.0.get(broker).map(|(failure, _)| failure)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.0.values().map(|(failure, _)| failure)
    }

    /// Their reasons as one text for people, the latest first, each with its brokers; empty if there
    /// is none.
    pub(super) fn text(&self, is_listed: impl Fn(&Failure) -> bool, now: Instant) -> String {
        let failures = self.0.values().filter(|(failure, _)| is_listed(failure));
        let mut failures: Vec<_> = failures.collect();
        failures.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let age =
            |at: Instant| Some(now.saturating_duration_since(at)).filter(|age| *age >= RECENT);
        let is_old = |at| age(at).is_some();
        // The latest failure of each reason, and its brokers.
        let mut reasons: Vec<(&Failure, Instant, Vec<&str>)> = Vec::new();
        for (failure, at) in failures {
            let same = reasons.iter_mut().find(|(latest, then, _)| {
                failure.has_same_cause(latest) && is_old(*at) == is_old(*then)
            });
            match same {
                Some((_, _, brokers)) => brokers.push(&failure.broker),
                None => reasons.push((failure, *at, vec![&failure.broker])),
            }
        }
        let mut texts = Vec::new();
        for (latest, at, all) in reasons.iter().take(LISTED) {
            let brokers: Vec<_> = all.iter().take(LISTED).copied().collect();
            let mut brokers = brokers.join(", ");
            if all.len() > LISTED {
                brokers = format!("{brokers} {}", more_brokers(all.len() - LISTED));
            }
            let mut text = match all.len() {
                1 => latest.to_string(),
                _ => format!("{}: {brokers}: {}", latest.step, latest.cause()),
            };
            if let Some(age) = age(*at) {
                text.push_str(&format!(", {} ago", Ago(age)));
            }
            texts.push(text);
        }
        let more = reasons
            .iter()
            .skip(LISTED)
            .map(|(_, _, all)| all.len())
            .sum();
        if more > 0 {
            texts.push(more_brokers(more));
        }
        texts.join("; ")
    }
}

fn more_brokers(more: usize) -> String {
    match more {
        1 => "and 1 more broker".to_owned(),
        more => format!("and {more} more brokers"),
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
mod tests;
