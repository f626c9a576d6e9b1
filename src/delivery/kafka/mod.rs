//! Everything that knows librdkafka: the only room that imports `rdkafka`.

mod connection;
mod consumer;
mod embedded;
mod producer;
mod rights;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

pub use connection::Connection;
pub use consumer::{Consumed, Start, Subscription};
pub use embedded::EmbeddedKafka;
pub(super) use producer::{Producer, SendError};
pub use topics::{Inspection, Topics};

/// The largest message that the producer hands to Kafka, in bytes. A topic must take as much.
const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// Where Kafka is, and which topics are ours.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The operator's librdkafka properties. They may hold passwords.
    pub properties: Properties,
    /// The topic of events.
    pub topic: String,
    /// The topic of dead letters.
    pub dead_letter_topic: String,
    /// How to create topics that are missing, where that is wanted.
    pub create_topics: Option<CreateTopics>,
}

/// How to create topics.
#[derive(Debug, Clone, Copy)]
pub struct CreateTopics {
    /// Partitions a topic.
    pub partitions: i32,
    /// Replicas a partition; the broker's default where none.
    pub replication: Option<i32>,
}

/// What keeps us from making a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka does not accept the settings, or Kafka does not answer.
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    /// No thread could be started.
    #[error("no thread could be started: {0}")]
    Thread(#[source] io::Error),
}

/// librdkafka properties as an operator gives them: checked against those that the promises rest on.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, String>);

/// Why a librdkafka property cannot be taken. Never shows a value, which may be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Not of the form `key=value`.
    #[error("entry {0} is not of the form key=value")]
    Form(usize),
    /// The promises rest on it.
    #[error("{0} cannot be set: {1}")]
    Refused(String, &'static str),
    /// librdkafka does not know it.
    #[error("entry {0} is no property of librdkafka {version}; a value that holds a ; must be in a file", version = librdkafka_version())]
    Unknown(usize),
    /// librdkafka does not take its value.
    #[error("the value of {0} is not one that librdkafka {version} takes", version = librdkafka_version())]
    Value(String),
    /// Each is fine, but no client can be made with them.
    #[error("librdkafka cannot work with these properties: {0}")]
    Unusable(String),
}

/// Which properties are refused, and why: the promises rest on their values.
pub const REFUSED: [(&str, &str); 17] = [
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    (
        "enable.idempotence",
        "without it, retries reorder and repeat records",
    ),
    (
        "enable.gapless.guarantee",
        "without it, a record could overtake an earlier one that failed",
    ),
    ("max.in.flight*", "the order of records rests on it"),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    (
        "message.max.bytes",
        "every body within the limit must fit; see ZIM2KAFKA_BODY_LIMIT",
    ),
    (
        "partitioner",
        "records of a group must be where Kafka's Java clients look for them",
    ),
    ("transactional.id", "the service does not use transactions"),
    (
        "allow.auto.create.topics",
        "a misspelt topic would be created; see ZIM2KAFKA_CREATE_TOPICS",
    ),
    (
        "delivery.report.only.error",
        "the answers rest on the reports of success",
    ),
    (
        "statistics.interval.ms",
        "zim2kafka_kafka_up and /readyz rest on it",
    ),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
];
const BROKERS: &str = "set ZIM2KAFKA_KAFKA_BROKERS instead";
const ACKS: &str = "an answer of 200 rests on acks=all";
const RETRIES: &str = "a record is retried until Kafka has it";
const TIMEOUT: &str = "a record must never be given up by a timer";

/// Second names that librdkafka has for properties that we set too. With both set, which one counts
/// would be left to chance.
const ALIASES: [(&str, &str); 2] = [
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
];

impl Properties {
    /// Reads `key=value` entries, one a line or separated by `;`.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be taken.
    pub fn parse_list(text: &str) -> Result<Self, PropertyError> {
        Self::parse(text.split(['\n', ';']))
    }

    /// Reads a `.properties` file: `key=value` lines, comments with `#` or `!`.
    ///
    /// # Errors
    ///
    /// The first line that cannot be taken.
    pub fn parse_file(text: &str) -> Result<Self, PropertyError> {
        Self::parse(text.lines())
    }

    fn parse<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, PropertyError> {
        let mut properties = BTreeMap::new();
        for (at, entry) in entries.enumerate() {
            let entry = entry.trim();
            if entry.is_empty() || entry.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = entry.split_once('=').ok_or(PropertyError::Form(at + 1))?;
            let (key, value) = (key.trim(), value.trim());
            if let Some(why) = refused(key) {
                return Err(PropertyError::Refused(key.to_owned(), why));
            }
            // librdkafka's own message may quote the value; and what it does not know may be a piece of
            // a value that held a `;`.
            match ClientConfig::new().set(key, value).create_native_config() {
                Ok(_) => {}
                Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
                    return Err(PropertyError::Unknown(at + 1));
                }
                Err(_) => return Err(PropertyError::Value(key.to_owned())),
            }
            let alias = ALIASES.iter().find(|(alias, _)| *alias == key);
            let key = alias.map_or(key, |(_, name)| name);
            properties.insert(key.to_owned(), value.to_owned());
        }
        Self(properties).tried()
    }

    /// Makes a producer, without brokers, to see whether these properties fit each other, ours, this
    /// build of librdkafka and the files they name. Its message names properties and files, and shows
    /// no password.
    fn tried(self) -> Result<Self, PropertyError> {
        let producer: KafkaResult<BaseProducer> = producer::config(self.client()).create();
        match producer {
            Ok(_) => Ok(self),
            Err(error) => Err(PropertyError::Unusable(error.to_string())),
        }
    }

    /// What every client of ours has in common, but for the brokers.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "zim2kafka")
            // NAT tables and balancers drop connections that stay silent.
            .set("socket.keepalive.enable", "true")
            // The OpenSSL that is built in knows no folder of certificates; the system's is looked for.
            .set("ssl.ca.location", "probe")
            // The default of ten seconds would delay what waits after an outage.
            .set("reconnect.backoff.max.ms", "2000")
            .set("enable.metrics.push", "false")
            // Else even looking for a topic would create it, on brokers that allow it.
            .set("allow.auto.create.topics", "false");
        for (key, value) in &self.0 {
            config.set(key, value);
        }
        config
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn refused(key: &str) -> Option<&'static str> {
    let refused = REFUSED
        .iter()
        .find(|(name, _)| match name.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => key == *name,
        });
    refused.map(|(_, why)| *why)
}

impl KafkaSettings {
    /// What every client of ours has in common.
    fn client(&self) -> ClientConfig {
        let mut config = self.properties.client();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

/// The version of librdkafka that is linked.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_from_lines_and_from_lists() {
        let list = Properties::parse_list("linger.ms=7; compression.type = zstd\n").expect("valid");
        let file = Properties::parse_file("# ours\nlinger.ms=7\r\n\n!no\ncompression.type=zstd\n");
        assert_eq!(list.0, file.expect("valid").0);
        assert_eq!(list.0.get("linger.ms").map(String::as_str), Some("7"));
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let properties = Properties::parse_list("sasl.password=a=b==").expect("valid");
        assert_eq!(
            properties.0.get("sasl.password").map(String::as_str),
            Some("a=b==")
        );
    }

    #[test]
    fn every_property_that_the_promises_rest_on_is_refused() {
        for (name, why) in REFUSED {
            let name = name.replace('*', ".requests.per.connection");
            let error = Properties::parse_list(&format!("linger.ms=5;{name}=1")).map(|_| ());
            assert_eq!(error, Err(PropertyError::Refused(name, why)));
        }
        assert!(Properties::parse_list("max.in.flight=1").is_err());
    }

    #[test]
    fn a_property_that_librdkafka_does_not_take_is_pointed_at_without_its_value() {
        let error =
            Properties::parse_list("linger.ms=5;sasl.passwort=geheim").expect_err("misspelt");
        assert_eq!(error, PropertyError::Unknown(2));
        let error = Properties::parse_list("linger.ms=geheim").expect_err("no number");
        assert_eq!(error, PropertyError::Value("linger.ms".to_owned()));
        assert!(!error.to_string().contains("geheim"));
        assert_eq!(
            Properties::parse_list("linger.ms=1\nnonsense").map(|_| ()),
            Err(PropertyError::Form(2))
        );
    }

    #[test]
    fn properties_that_no_client_can_be_made_with_are_refused_at_once() {
        let error = Properties::parse_list(
            "security.protocol=ssl;ssl.ca.location=/no/such/file.pem;ssl.key.password=geheim",
        )
        .expect_err("there is no such file");
        assert!(matches!(error, PropertyError::Unusable(_)), "{error}");
        assert!(error.to_string().contains("ssl.ca.location"), "{error}");
        assert!(!error.to_string().contains("geheim"));
    }

    #[test]
    fn a_second_name_of_a_property_that_we_set_too_counts() {
        let properties = Properties::parse_list("queue.buffering.max.ms=7").expect("valid");
        assert_eq!(
            producer::config(properties.client()).get("linger.ms"),
            Some("7")
        );
    }

    #[test]
    fn properties_that_contradict_our_own_are_refused_at_once() {
        let error = Properties::parse_list("queuing.strategy=lifo").expect_err("reorders");
        assert!(matches!(error, PropertyError::Unusable(_)), "{error}");
    }

    #[test]
    fn the_debug_print_of_properties_shows_no_value() {
        let properties = Properties::parse_list("sasl.password=geheim").expect("valid");
        assert_eq!(format!("{properties:?}"), "{\"sasl.password\"}");
    }
}
