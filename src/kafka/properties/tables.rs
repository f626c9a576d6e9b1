//! Names of properties: those that are refused and librdkafka's own, with the words that they accept.

/// The refused properties and why: promises depend on their values. A `*` stands for any rest of the
/// name.
pub const REFUSED: [(&str, &str); 18] = [
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    (
        "enable.idempotence",
        "without it, retries reorder and repeat records; leave it out",
    ),
    (
        "enable.gapless.guarantee",
        "the service sets it when the order of records needs it; leave it out",
    ),
    (
        "max.in.flight*",
        "the order of records depends on it; leave it out",
    ),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    (
        "message.max.bytes",
        "every body within ZIM2KAFKA_BODY_LIMIT must fit; leave it out",
    ),
    (
        "partitioner",
        "records of a group must be in the partition that Kafka's Java clients compute; leave it out",
    ),
    (
        "transactional.id",
        "the service does not use transactions; leave it out",
    ),
    (
        "allow.auto.create.topics",
        "a misspelled topic would be created; set ZIM2KAFKA_CREATE_TOPICS instead",
    ),
    (
        "delivery.report.only.error",
        "answers depend on the reports of success; leave it out",
    ),
    (
        "statistics.interval.ms",
        "zim2kafka_kafka_up and /readyz depend on it; leave it out",
    ),
    (
        "test.mock*",
        "records would go to a Kafka in memory; use --embedded-kafka to try the service out",
    ),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
];
const BROKERS: &str = "it differs from ZIM2KAFKA_KAFKA_BROKERS; set only that variable";
const ACKS: &str = "an answer of 200 depends on acks=all; leave it out";
const RETRIES: &str = "a record is retried until Kafka has it; leave it out";
const TIMEOUT: &str = "a record must never be given up because of a timeout; leave it out";

/// Why a property is refused.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    let found = REFUSED.iter().find(|(refused, _)| matches(refused, name));
    found.map(|(_, reason)| *reason)
}

/// librdkafka's aliases, with the name that is kept. If both names were set, it would be undefined
/// which one counts.
const ALIASES: [(&str, &str); 12] = [
    ("request.required.acks", "acks"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("auto.commit.enable", "enable.auto.commit"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
];

/// The name under which a property is kept.
pub(super) fn canonical(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, name)| name)
}

/// All names that librdkafka can read from text.
const NAMES: &str = include_str!("names.txt");

/// Whether librdkafka has a property of this name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.lines().any(|known| known == name)
}

/// librdkafka's name that is most like this one, if any is.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = plain(name);
    let distance = |known: &str| strsim::damerau_levenshtein(known, &name);
    let nearest = NAMES.lines().min_by_key(|known| distance(known))?;
    (distance(nearest) <= (name.len() / 4).max(1)).then_some(nearest)
}

/// Whether the value may be a secret. It may then hold any character.
pub(super) fn is_secret(name: &str) -> bool {
    let words = [
        "password",
        "passphrase",
        "secret",
        "jaas",
        ".key.pem",
        "oauthbearer.config",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Whether the value is a PEM text.
pub(super) fn is_pem(name: &str) -> bool {
    name.ends_with(".pem")
}

/// The words that a property accepts.
pub(super) fn words(name: &str) -> Option<&'static str> {
    let found = WORDS.iter().find(|(known, _)| *known == name);
    found.map(|(_, words)| *words)
}

const WORDS: [(&str, &str); 8] = [
    (
        "security.protocol",
        "plaintext, ssl, sasl_plaintext or sasl_ssl",
    ),
    ("sasl.mechanism", MECHANISMS),
    ("compression.type", "none, gzip, snappy, lz4 or zstd"),
    (
        "ssl.endpoint.identification.algorithm",
        "none (where Java has an empty value) or https",
    ),
    (
        "client.dns.lookup",
        "use_all_dns_ips or resolve_canonical_bootstrap_servers_only",
    ),
    ("broker.address.family", "any, v4 or v6"),
    ("metadata.recovery.strategy", "rebootstrap or none"),
    ("isolation.level", "read_committed or read_uncommitted"),
];

/// The SASL mechanisms that this build has and Kafka knows.
pub(super) const MECHANISMS: &str = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";

/// Whether this build has the mechanism.
pub(super) fn is_mechanism(value: &str) -> bool {
    ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&value)
}

/// What is missing for a mechanism, or for a property that belongs to it.
pub(super) fn missing_mechanism(name_or_value: &str) -> Option<&'static str> {
    let text = name_or_value.to_ascii_lowercase();
    if text.contains("oauthbearer") || text.contains("aws_msk_iam") {
        Some(
            "this build can fetch no token (OAUTHBEARER); write sasl.mechanism=PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        )
    } else if text.contains("gssapi") || text.contains("kerberos") {
        Some(
            "this build has no Kerberos (GSSAPI); write sasl.mechanism=PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        )
    } else {
        None
    }
}

/// The name as a client would write it: without the prefixes of frameworks, and with dots.
pub(super) fn plain(name: &str) -> String {
    let mut name = name.trim().to_ascii_lowercase().replace(['_', '-'], ".");
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        // `topic.` begins names of librdkafka too.
        if is_known(&name) {
            break;
        }
        name = rest.to_owned();
    }
    match name.as_str() {
        "log.level" => "log_level".to_owned(),
        _ => name,
    }
}

/// Prefixes of names in the settings of Spring, Kafka Connect, containers and librdkafka's own
/// topics.
const PREFIXES: [&str; 13] = [
    "spring.",
    "kafka.",
    "zim2kafka.",
    "properties.",
    "producer.",
    "consumer.",
    "admin.",
    "client.properties.",
    "connect.",
    "override.",
    "cluster.",
    "librdkafka.",
    "topic.",
];

/// Whether the name is that of the pattern, in which a `*` stands for any characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter_map(|at| rest.get(at..))
                .any(|rest| matches(tail, rest))
        }),
    }
}

/// Whether the librdkafka that is linked has this property.
#[cfg(test)]
pub(super) fn is_of_librdkafka(name: &str) -> bool {
    super::values::read(name, "x") != Err(super::values::Misread::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_librdkafka_that_is_linked() {
        assert!(NAMES.lines().count() > 150);
        for name in NAMES.lines() {
            assert!(is_of_librdkafka(name), "{name}");
        }
        for (alias, name) in ALIASES {
            assert!(is_of_librdkafka(alias) && is_of_librdkafka(name), "{alias}");
        }
        for (name, _) in WORDS {
            assert!(is_of_librdkafka(name), "{name}");
        }
    }

    #[test]
    fn a_pattern_may_begin_hold_or_end_with_any_characters() {
        assert!(matches("a.*", "a.b") && matches("*.b", "a.b") && matches("a*c", "abc"));
        assert!(matches("*.s.*", "x.s.y") && matches("a*", "a") && matches("a", "a"));
        assert!(!matches("a", "ab") && !matches("*.b", "a.bc") && !matches("a*c", "ab"));
    }

    #[test]
    fn the_nearest_name_is_found_only_if_it_is_near() {
        for (name, meant) in [
            ("sasl.mechansim", Some("sasl.mechanism")),
            ("sasl.passwort", Some("sasl.password")),
            ("linger", None),
            ("ssl.ca.locations", Some("ssl.ca.location")),
            ("security_protokoll", Some("security.protocol")),
            ("geheim", None),
            ("", None),
        ] {
            assert_eq!(nearest(name), meant, "{name}");
        }
    }
}
