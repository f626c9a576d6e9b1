//! Guesses which setting a mistyped name means.

/// The prefix of every variable, and what tests and the build set with this prefix.
pub(super) const PREFIX: &str = "ZIM2KAFKA_";
const NOT_SETTINGS: [&str; 2] = ["TEST_", "REVISION"];

/// Words that people use for each other.
const SYNONYMS: [(&str, &str); 22] = [
    ("BOOTSTRAP", "BROKERS"),
    ("SERVERS", "BROKERS"),
    ("HOSTS", "BROKERS"),
    ("URL", "BROKERS"),
    ("PORT", "LISTEN"),
    ("HOST", "LISTEN"),
    ("BIND", "LISTEN"),
    ("ADDRESS", "LISTEN"),
    ("METRICS", "ADMIN"),
    ("HEALTH", "ADMIN"),
    ("MANAGEMENT", "ADMIN"),
    ("CONFIG", "PROPERTIES"),
    ("DLQ", "DEAD"),
    ("DLT", "DEAD"),
    ("FOLDER", "DIR"),
    ("DIRECTORY", "DIR"),
    ("PATH", "DIR"),
    ("SSL", "TLS"),
    ("CERTIFICATE", "CERT"),
    ("SIZE", "LIMIT"),
    ("TIMEOUT", "DEADLINE"),
    ("SHUTDOWN", "STOP"),
];

/// Words that add nothing to a name.
const FILLERS: [&str; 7] = [
    "ADDR", "ADDRESS", "LEVEL", "NAME", "FACTOR", "ENABLED", "LIST",
];

/// What follows the prefix in the name of a variable, in capitals. `None` if the variable is not
/// ours: it has another prefix, or tests, the build or Kubernetes set it. A prefix with up to two
/// wrong letters counts.
pub(super) fn setting_of(name: &str, value: &str) -> Option<String> {
    if is_of_kubernetes(name, value) {
        return None;
    }
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    // From a file that the shell would read, in a program that does not.
    let name = name.trim().trim_start_matches("EXPORT ");
    if let Some(rest) = name.strip_prefix(PREFIX) {
        let is_setting = !NOT_SETTINGS.iter().any(|other| rest.starts_with(other));
        return is_setting.then(|| rest.to_owned());
    }
    let ours = squeezed(PREFIX);
    let candidates = name.match_indices('_').map(|(at, _)| {
        let (prefix, rest) = name.split_at(at + 1);
        let distance = strsim::damerau_levenshtein(&squeezed(prefix), &ours);
        (distance, rest.to_owned())
    });
    let (distance, rest) = candidates.min()?;
    (distance <= 2).then_some(rest)
}

/// Whether Kubernetes sets this variable for a Service whose name begins with `zim2kafka`.
/// `…_PORT` is Kubernetes' only if its value is a URL: others take it for a setting.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    if !name.starts_with(PREFIX.trim_end_matches('_')) {
        return false;
    }
    let is_port = |rest: &str| {
        let rest = rest.trim_start_matches(|char: char| char.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| rest.starts_with(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name
            .match_indices("_PORT_")
            .any(|(at, port)| name.get(at + port.len()..).is_some_and(is_port))
}

/// The known name that a mistyped one most likely means: words with `_` between them, in the same
/// case, without a prefix that all have. A name that differs in a few letters counts first, then the
/// one with the most words in common.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let ranked = known.into_iter().filter_map(|known| {
        let letters = strsim::damerau_levenshtein(&squeezed(typed), &squeezed(known));
        let rank = if letters <= 2 && letters * 4 <= squeezed(typed).len() {
            (0, letters, false)
        } else {
            let (words, has_other_end) = word_distance(typed, known)?;
            (1, words, has_other_end)
        };
        Some(((rank, letters), known))
    });
    ranked.min().map(|(_, known)| known)
}

/// How many words differ, those that are missing counting half, and whether the last words differ.
/// `None` if no word is common.
fn word_distance(typed: &str, known: &str) -> Option<(usize, bool)> {
    let words = |name: &str| -> Vec<String> {
        let words = name.split('_').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let (typed, mut missing) = (words(typed), words(known));
    let has_other_end = match (typed.last(), missing.last()) {
        (Some(typed), Some(known)) => !is_like(typed, known),
        _ => true,
    };
    let (mut common, mut superfluous) = (0, 0);
    for word in &typed {
        if let Some(at) = missing.iter().position(|known| is_like(word, known)) {
            missing.remove(at);
            common += 1;
        } else if !FILLERS.contains(&word.as_str()) {
            superfluous += 1;
        }
    }
    (common > 0).then_some((2 * superfluous + missing.len(), has_other_end))
}

/// Whether two words are the same but for a typo, or mean the same.
fn is_like(typed: &str, known: &str) -> bool {
    let is_same = |one: &str, other: &str| {
        let distance = strsim::damerau_levenshtein(one, other);
        distance == 0 || (one.len().min(other.len()) >= 4 && distance <= 1)
    };
    let is_synonym = |(word, meaning): &(&str, &str)| *meaning == known && is_same(typed, word);
    is_same(typed, known) || SYNONYMS.iter().any(is_synonym)
}

fn squeezed(name: &str) -> String {
    name.chars().filter(|char| *char != '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 35] = [
        "ADMIN_LISTEN",
        "ALLOWED_NETWORKS",
        "ANSWER_DEADLINE",
        "BODY_LIMIT",
        "CALLBACK_PATH",
        "CALLBACK_SECRETS",
        "CALLBACK_SECRETS_FILE",
        "CREATE_TOPICS",
        "DEAD_LETTER_TOPIC",
        "DRAIN_DELAY",
        "IDLE_TIMEOUT",
        "KAFKA_BROKERS",
        "KAFKA_PROPERTIES",
        "KAFKA_PROPERTIES_FILE",
        "LISTEN",
        "LOG",
        "LOG_FORMAT",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "SPOOL_AFTER",
        "SPOOL_DIR",
        "SPOOL_MAX_BYTES",
        "STOP_DEADLINE",
        "TIMESTAMP_TOLERANCE",
        "TIMESTAMP_UNIT",
        "TLS_CERT",
        "TLS_KEY",
        "OMIT",
        "TOPIC",
        "TOPICS",
        "TOPIC_PARTITIONS",
        "TOPIC_REPLICATION",
        "TRUSTED_PROXIES",
        "COUNT",
        "EMBEDDED_KAFKA",
    ];

    #[test]
    fn the_meaning_of_a_name_counts_before_its_letters() {
        for (typed, meant) in [
            ("SECRETS", "CALLBACK_SECRETS"),
            ("SECRET", "CALLBACK_SECRETS"),
            ("CALLBACK_SECRET", "CALLBACK_SECRETS"),
            ("CALLBACKSECRET", "CALLBACK_SECRETS"),
            ("SERVER_SECRET", "CALLBACK_SECRETS"),
            ("APP_SECRETS", "CALLBACK_SECRETS"),
            ("SECRETS_FILE", "CALLBACK_SECRETS_FILE"),
            ("SECRET_FILE", "CALLBACK_SECRETS_FILE"),
            ("BROKERS", "KAFKA_BROKERS"),
            ("BROKER", "KAFKA_BROKERS"),
            ("KAFKA_BROKER", "KAFKA_BROKERS"),
            ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
            ("BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
            ("KAFKA_SERVER", "KAFKA_BROKERS"),
            ("KAFKA_HOST", "KAFKA_BROKERS"),
            ("KAFKA_URL", "KAFKA_BROKERS"),
            ("PROPERTIES", "KAFKA_PROPERTIES"),
            ("PROPERTIES_FILE", "KAFKA_PROPERTIES_FILE"),
            ("KAFKA_CONFIG", "KAFKA_PROPERTIES"),
            ("KAFKA_PROPERTEIS", "KAFKA_PROPERTIES"),
            ("PORT", "LISTEN"),
            ("HOST", "LISTEN"),
            ("LISTEN_ADDR", "LISTEN"),
            ("LISTEN_ADDRESS", "LISTEN"),
            ("BIND_ADDRESS", "LISTEN"),
            ("ADMIN_PORT", "ADMIN_LISTEN"),
            ("METRICS_PORT", "ADMIN_LISTEN"),
            ("ADMIN", "ADMIN_LISTEN"),
            ("GROUP_TOPIC", "TOPIC"),
            ("KAFKA_TOPIC", "TOPIC"),
            ("TOPIC_NAME", "TOPIC"),
            ("KAFKA_TOPICS", "TOPICS"),
            ("EVENT_TOPICS", "TOPICS"),
            ("TOPCIS", "TOPICS"),
            ("OMMIT", "OMIT"),
            ("OMIT_FIELDS", "OMIT"),
            ("DLQ_TOPIC", "DEAD_LETTER_TOPIC"),
            ("DEADLETTER_TOPIC", "DEAD_LETTER_TOPIC"),
            ("PARTITIONS", "TOPIC_PARTITIONS"),
            ("REPLICATION_FACTOR", "TOPIC_REPLICATION"),
            ("CREATE_TOPIC", "CREATE_TOPICS"),
            ("SPOOL", "SPOOL_DIR"),
            ("SPOOL_PATH", "SPOOL_DIR"),
            ("SPOOL_DIRECTORY", "SPOOL_DIR"),
            ("MAX_BODY_SIZE", "BODY_LIMIT"),
            ("TOLERANCE", "TIMESTAMP_TOLERANCE"),
            ("LOG_LEVEL", "LOG"),
            ("LOGFORMAT", "LOG_FORMAT"),
            ("SSL_CERTIFICATE", "TLS_CERT"),
            ("CERT_FILE", "TLS_CERT"),
            ("TLS_KEY_FILE", "TLS_KEY"),
            ("SHUTDOWN_TIMEOUT", "STOP_DEADLINE"),
            ("TIMEOUT", "IDLE_TIMEOUT"),
            ("MAX_CONNS_PER_ADDRESS", "MAX_CONNECTIONS_PER_ADDRESS"),
            ("_TOPIC", "TOPIC"),
        ] {
            assert_eq!(nearest(typed, KNOWN), Some(meant), "{typed}");
        }
        for typed in ["TYPO", "X", "", "QUUX_FROB"] {
            assert_eq!(nearest(typed, KNOWN), None, "{typed}");
        }
    }

    #[test]
    fn a_prefix_with_a_typo_is_recognised() {
        for name in [
            "ZIM2KAFKA_TOPIC",
            "zim2kafka_topic",
            "Zim2Kafka_Topic",
            "ZIM2KAFKA-TOPIC",
            "ZIM2KAFA_TOPIC",
            "ZIMKAFKA_TOPIC",
            "ZIM2KAKFA_TOPIC",
            "ZIM_2_KAFKA_TOPIC",
            "ZIMTOKAFKA_TOPIC",
            "ZIM2KAFKA_TOPIC ",
            "export ZIM2KAFKA_TOPIC",
            // Behind a byte order mark.
            "\u{feff}ZIM2KAFKA_TOPIC",
        ] {
            assert_eq!(setting_of(name, "x").as_deref(), Some("TOPIC"), "{name}");
        }
        for name in [
            "TOPIC",
            "KAFKA_TOPIC",
            "ZIM_TOPIC",
            "ZIM2KAFKA",
            "PATH",
            "ZIM2KAFKA_TEST_BROKERS",
            "ZIM2KAFKA_REVISION",
        ] {
            assert_eq!(setting_of(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn variables_of_kubernetes_are_those_of_any_service_with_our_name_in_front() {
        for service in [
            "ZIM2KAFKA",
            "ZIM2KAFKA_ADMIN",
            "ZIM2KAFKA2",
            "ZIM2KAFKA_KAFKA_TOPIC",
        ] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_PORT", "8080"),
                ("SERVICE_PORT_HTTP", "8080"),
                ("PORT", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP_PROTO", "tcp"),
                ("PORT_8080_TCP_PORT", "8080"),
                ("PORT_8080_TCP_ADDR", "10.0.0.1"),
                ("PORT_53_UDP_ADDR", "10.0.0.1"),
            ] {
                let name = format!("{service}_{name}");
                assert_eq!(setting_of(&name, value), None, "{name}");
            }
        }
        for (name, value) in [
            ("ZIM2KAFKA_PORT", "8080"),
            ("ZIM2KAFKA_ADMIN_PORT", "9464"),
            ("ZIM2KAFKA_PORT_NUMBER", "8080"),
            ("ZIM2KAFKA_PORTS", "8080"),
        ] {
            assert!(setting_of(name, value).is_some(), "{name}");
        }
    }
}
