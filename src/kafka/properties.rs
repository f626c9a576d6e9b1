//! The librdkafka properties that an operator may set, checked before a client is made from them.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use super::{Ordering, client_config, librdkafka_version};

/// An operator's librdkafka properties, checked against those that the promises depend on.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, String>);

/// Why a librdkafka property is refused. Never shows a value, which may be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Not of the form `key=value`.
    #[error("entry {0} is not of the form key=value")]
    Form(usize),
    /// A promise depends on it.
    #[error("{0} cannot be set: {1}")]
    Refused(String, &'static str),
    /// librdkafka does not know it.
    #[error("entry {0} is not a property of librdkafka {version}; put a value that contains ; into a file", version = librdkafka_version())]
    Unknown(usize),
    /// librdkafka does not accept its value.
    #[error("librdkafka {version} does not accept the value of {0}", version = librdkafka_version())]
    Value(String),
    /// Each is valid, but no client can be created with all of them.
    #[error("librdkafka cannot use these properties: {0}")]
    Unusable(String),
}

/// The refused properties and why: promises depend on their values.
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
    ("max.in.flight*", "the order of records depends on it"),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    (
        "message.max.bytes",
        "every body within ZIM2KAFKA_BODY_LIMIT must fit",
    ),
    (
        "partitioner",
        "records of a group must be in the partition that Kafka's Java clients compute",
    ),
    ("transactional.id", "the service does not use transactions"),
    (
        "allow.auto.create.topics",
        "a misspelled topic would be created; set ZIM2KAFKA_CREATE_TOPICS instead",
    ),
    (
        "delivery.report.only.error",
        "answers depend on the reports of success",
    ),
    (
        "statistics.interval.ms",
        "zim2kafka_kafka_up and /readyz depend on it",
    ),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
];
const BROKERS: &str = "set ZIM2KAFKA_KAFKA_BROKERS instead";
const ACKS: &str = "an answer of 200 depends on acks=all";
const RETRIES: &str = "a record is retried until Kafka has it";
const TIMEOUT: &str = "a record must never be given up because of a timeout";

/// Aliases in librdkafka of properties that we set too. If both names were set, it would be
/// undefined which one counts.
const ALIASES: [(&str, &str); 2] = [
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
];

impl Properties {
    /// Parses `key=value` entries, one per line or separated by `;`.
    ///
    /// # Errors
    ///
    /// The first invalid entry.
    pub fn parse_list(text: &str) -> Result<Self, PropertyError> {
        Self::parse(text.split(['\n', ';']))
    }

    /// Parses a `.properties` file: `key=value` lines, comments with `#` or `!`.
    ///
    /// # Errors
    ///
    /// The first invalid line.
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
            // The message of librdkafka may quote the value, and an unknown key may be a piece of a
            // value that contained a `;`.
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
        Self(properties).validated()
    }

    /// Creates a producer without brokers, to check that these properties are compatible with each
    /// other, with ours, with this build of librdkafka and with the files they name. librdkafka's
    /// message names properties and files and shows no password.
    fn validated(self) -> Result<Self, PropertyError> {
        let producer: KafkaResult<BaseProducer> =
            client_config::of_producer(self.client(), Ordering::Relaxed).create();
        match producer {
            Ok(_) => Ok(self),
            Err(error) => Err(PropertyError::Unusable(error.to_string())),
        }
    }

    /// The configuration that all our clients share, without the brokers.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "zim2kafka")
            // NAT gateways and load balancers drop idle connections.
            .set("socket.keepalive.enable", "true")
            // The bundled OpenSSL has no default folder of certificates, so probe for the system's.
            .set("ssl.ca.location", "probe")
            // The default of 10 s would delay waiting records after an outage.
            .set("reconnect.backoff.max.ms", "2000")
            .set("enable.metrics.push", "false")
            // Otherwise looking up a topic would create it, on brokers that allow that.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_parsed_from_lines_and_from_lists() {
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
    fn every_property_that_a_guarantee_depends_on_is_refused() {
        for (name, why) in REFUSED {
            let name = name.replace('*', ".requests.per.connection");
            let error = Properties::parse_list(&format!("linger.ms=5;{name}=1")).map(|_| ());
            assert_eq!(error, Err(PropertyError::Refused(name, why)));
        }
        assert!(Properties::parse_list("max.in.flight=1").is_err());
    }

    #[test]
    fn an_invalid_property_is_named_without_its_value() {
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
    fn properties_that_no_client_can_be_created_with_are_refused_at_once() {
        let error = Properties::parse_list(
            "security.protocol=ssl;ssl.ca.location=/no/such/file.pem;ssl.key.password=geheim",
        )
        .expect_err("there is no such file");
        assert!(matches!(error, PropertyError::Unusable(_)), "{error}");
        assert!(error.to_string().contains("ssl.ca.location"), "{error}");
        assert!(!error.to_string().contains("geheim"));
    }

    #[test]
    fn an_alias_of_a_property_that_we_set_too_replaces_our_value() {
        let properties = Properties::parse_list("queue.buffering.max.ms=7").expect("valid");
        assert_eq!(
            client_config::of_producer(properties.client(), Ordering::Relaxed).get("linger.ms"),
            Some("7")
        );
    }

    #[test]
    fn properties_that_contradict_our_own_are_refused_at_once() {
        let error = Properties::parse_list("queuing.strategy=lifo").expect_err("reorders");
        assert!(matches!(error, PropertyError::Unusable(_)), "{error}");
    }

    #[test]
    fn the_debug_output_of_properties_shows_no_value() {
        let properties = Properties::parse_list("sasl.password=geheim").expect("valid");
        assert_eq!(format!("{properties:?}"), "{\"sasl.password\"}");
    }
}
