//! What every setting is when nothing is set, how its values are written, and what is refused. That
//! the variables are read at all is tried on the program itself, in `tests/it/commands.rs`.

mod omit;
mod topics;

use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::environment::unknown_names;
use super::*;
use crate::callback::TimestampUnit;
use crate::http::{BeforeSend, CallbackSettings};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Reads flags only, whatever is set where the tests run.
fn read(arguments: &[&str]) -> Result<Line, clap::Error> {
    let command = Line::command().mut_args(|arg| arg.env(None::<&'static str>));
    let arguments = [&["zim2kafka"], arguments].concat();
    Line::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn read_well(arguments: &[&str]) -> Line {
    read(arguments).expect("the flags are taken")
}

/// The variable of the only fault.
fn variable_of(errors: ConfigErrors) -> String {
    let variables: Vec<_> = errors.into_iter().map(|error| error.variable).collect();
    assert_eq!(variables.len(), 1, "{variables:?}");
    variables.concat()
}

fn callback_settings(serve: &ServeArgs) -> Result<CallbackSettings, ConfigErrors> {
    serve
        .callback
        .callback_settings(&serve.deadlines, &serve.connections)
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let Line { serve, log } = read_well(&[]);
    let ServeArgs {
        listen,
        callback,
        connections,
        kafka,
        topics,
        registry,
        spool,
        deadlines,
    } = serve;
    assert_eq!(listen.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(listen.admin.admin_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(callback.callback_path, "/callbacks/zim");
    assert_eq!(callback.secrets.callback_secrets_file, None);
    assert_eq!(callback.timestamp_unit, TimestampUnit::Auto);
    let ten_minutes = Duration::from_secs(600);
    assert_eq!(callback.timestamp_tolerance, Some(ten_minutes));
    assert_eq!(callback.body_limit, 512 * 1024);
    assert_eq!(callback.omit, None);
    assert_eq!(callback.before_send, BeforeSend::Neutral);
    assert_eq!(callback.before_send_reason, None);
    assert_eq!(connections.max_connections, 4096);
    assert_eq!(connections.max_connections_per_address, None);
    assert_eq!(connections.idle_timeout, Duration::from_secs(75));
    assert_eq!((connections.tls_cert, connections.tls_key), (None, None));
    assert_eq!(connections.allowed_networks, None);
    assert_eq!(connections.trusted_proxies, None);
    assert_eq!(kafka.kafka_brokers, None);
    assert_eq!(kafka.kafka_properties_file, None);
    assert_eq!(kafka.topic.name, "zim.group-joined");
    assert!(!kafka.topic.is_given);
    assert_eq!(kafka.topics, None);
    assert_eq!(kafka.dead_letter_topic, "zim.dead-letter");
    assert!(!topics.create_topics);
    assert_eq!(
        (topics.topic_partitions, topics.topic_replication),
        (12, None)
    );
    assert_eq!(registry.schema_registry, None);
    assert_eq!(registry.schema_registry_auth_file, None);
    assert_eq!(registry.schema_registry_ca, None);
    assert!(registry.schema_registry_register);
    assert_eq!(spool.spool_dir, None);
    assert_eq!(spool.spool_max_bytes, 1 << 30);
    assert_eq!(spool.spool_after, Duration::from_millis(250));
    assert_eq!(deadlines.answer_deadline, Duration::from_secs(2));
    assert_eq!(deadlines.drain_delay, Duration::from_secs(3));
    assert_eq!(deadlines.stop_deadline, Duration::from_secs(8));
    assert_eq!(
        (log.log.as_str(), log.log_format),
        ("info", LogFormat::Text)
    );
}

#[test]
fn the_defaults_can_be_taken() {
    let Line { serve, .. } = read_well(&["--kafka-brokers", "b:9092"]);
    let settings = callback_settings(&serve).expect("valid");
    assert_eq!(
        (settings.path.as_str(), settings.body_limit),
        ("/callbacks/zim", 512 * 1024)
    );
    let kafka = serve.kafka.settings(Some(&serve.topics)).expect("valid");
    assert_eq!(kafka.brokers, "b:9092");
    assert!(kafka.create_topics.is_none());
}

#[test]
fn every_setting_of_the_contract_is_a_flag_with_its_variable() {
    const SETTINGS: &[&str] = &[
        "LISTEN",
        "ADMIN_LISTEN",
        "CALLBACK_PATH",
        "CALLBACK_SECRETS",
        "CALLBACK_SECRETS_FILE",
        "TIMESTAMP_UNIT",
        "TIMESTAMP_TOLERANCE",
        "BODY_LIMIT",
        "OMIT",
        "BEFORE_SEND",
        "BEFORE_SEND_REASON",
        "KAFKA_BROKERS",
        "KAFKA_PROPERTIES",
        "KAFKA_PROPERTIES_FILE",
        "TOPIC",
        "TOPICS",
        "DEAD_LETTER_TOPIC",
        "CREATE_TOPICS",
        "TOPIC_PARTITIONS",
        "TOPIC_REPLICATION",
        "SCHEMA_REGISTRY",
        "SCHEMA_REGISTRY_AUTH",
        "SCHEMA_REGISTRY_CA",
        "SPOOL_DIR",
        "SPOOL_MAX_BYTES",
        "SPOOL_AFTER",
        "ANSWER_DEADLINE",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "IDLE_TIMEOUT",
        "TLS_CERT",
        "TLS_KEY",
        "DRAIN_DELAY",
        "STOP_DEADLINE",
        "LOG",
        "LOG_FORMAT",
        // Not in the contract's table: who may send is named in its answers only.
        "ALLOWED_NETWORKS",
        "TRUSTED_PROXIES",
        // Nor these: a secret may be in a file, and some registries are written to by one program.
        "SCHEMA_REGISTRY_AUTH_FILE",
        "SCHEMA_REGISTRY_REGISTER",
        // No settings.
        "SERVICE_HOST",
        "PORT",
    ];
    let command = Line::command();
    for setting in SETTINGS {
        let name = format!("ZIM2KAFKA_{setting}");
        let value = "tcp://10.0.0.1:8080".to_owned();
        let unknown = unknown_names([(name.clone(), value)].into_iter(), &command);
        assert_eq!(unknown, [], "{name}");
    }
    for (_, variable) in variables(&command) {
        let setting = variable.trim_start_matches("ZIM2KAFKA_");
        assert!(
            SETTINGS.contains(&setting),
            "{variable} is not in the contract"
        );
    }
}

#[test]
fn a_body_limit_beyond_a_record_is_refused() {
    let limit = |size: &str| {
        let line = read(&["--body-limit", size]).ok()?;
        Some(callback_settings(&line.serve).expect("valid").body_limit)
    };
    assert_eq!(limit("900000"), Some(900_000));
    assert_eq!(limit("1KiB"), Some(1024));
    for size in ["900001", "1MiB", "1023", "512", "0"] {
        assert_eq!(limit(size), None, "{size}");
    }
}

#[test]
fn a_reason_belongs_to_a_refusal() {
    let policy = |arguments: &[&str]| {
        let Line { serve, .. } = read_well(arguments);
        let settings = callback_settings(&serve).map(|settings| settings.before_send);
        settings.map_err(variable_of)
    };
    let refusal = |reason: Option<&str>| {
        Ok(BeforeSend::Refuse {
            reason: reason.map(str::to_owned),
        })
    };
    assert_eq!(policy(&[]), Ok(BeforeSend::Neutral));
    assert_eq!(policy(&["--before-send=neutral"]), Ok(BeforeSend::Neutral));
    assert_eq!(policy(&["--before-send=send"]), Ok(BeforeSend::Send));
    assert_eq!(policy(&["--before-send=refuse"]), refusal(None));
    const REASON: &str = "--before-send-reason=Closed \"for\" maintenance";
    assert_eq!(
        policy(&["--before-send=refuse", REASON]),
        refusal(Some("Closed \"for\" maintenance"))
    );
    for arguments in [
        &[REASON][..],
        &["--before-send=neutral", REASON],
        &["--before-send=send", REASON],
    ] {
        let variable = "ZIM2KAFKA_BEFORE_SEND_REASON".to_owned();
        assert_eq!(policy(arguments), Err(variable), "{arguments:?}");
    }
}

#[test]
fn a_reason_is_one_line_of_limited_length() {
    let is_read = |reason: &str| read(&[&format!("--before-send-reason={reason}")]).is_ok();
    assert!(is_read(&"\u{1f512}".repeat(256)));
    for reason in [&"x".repeat(257), "", "a\nb", "a\u{7f}b", "a\tb"] {
        assert!(!is_read(reason), "{reason:?}");
    }
}

#[test]
fn deadlines_that_contradict_each_other_are_refused() {
    let refused = |arguments: &[&str]| {
        let Line { serve, .. } = read_well(arguments);
        callback_settings(&serve).err().map(variable_of)
    };
    let stop = Some("ZIM2KAFKA_STOP_DEADLINE".to_owned());
    assert_eq!(refused(&["--drain-delay=8s"]), stop);
    assert_eq!(refused(&["--stop-deadline=2s"]), stop);
    assert_eq!(refused(&["--drain-delay=7999ms"]), None);
    assert_eq!(refused(&["--drain-delay=0s"]), None);
    let spool = |arguments: &[&str]| {
        let Line { serve, .. } = read_well(&[&["--spool-dir=/tmp"], arguments].concat());
        let settings = serve.spool.settings(&serve.deadlines);
        settings.err().map(|error| error.to_string())
    };
    assert_eq!(spool(&["--spool-after=1999ms"]), None);
    assert_eq!(
        spool(&["--spool-after=2s"]).as_deref(),
        Some(
            "ZIM2KAFKA_SPOOL_AFTER: 2s must be shorter than ZIM2KAFKA_ANSWER_DEADLINE (2s), or callbacks are answered 503 before the spool is used; write 250ms"
        )
    );
}

#[test]
fn a_callback_path_that_no_request_can_have_is_refused_and_not_shown() {
    const ENCODE: &str = "has a character that a URL cannot have; write it percent-encoded";
    let settings = |path: &str| callback_settings(&read_well(&["--callback-path", path]).serve);
    for path in ["/", "/zim", "/zim/0f%2F9a", "/~a/b.c-d_e", "/a:b@c"] {
        assert_eq!(
            settings(path).map(|settings| settings.path),
            Ok(path.to_owned())
        );
    }
    for (path, problem) in [
        ("geheim", "does not begin with /; write a path"),
        ("", "does not begin with /; write a path"),
        ("https://h.example/geheim", "is a URL; write only its path"),
        (
            "/geheim?x",
            "has a query or a fragment; write only the path",
        ),
        (
            "/geheim#x",
            "has a query or a fragment; write only the path",
        ),
        ("/geheim x", ENCODE),
        ("/geheim\nx", ENCODE),
        ("/{geheim}", ENCODE),
        ("/gehé1m", ENCODE),
    ] {
        let errors = settings(path).map(|_| ()).expect_err(path);
        assert_eq!(
            errors.to_string(),
            format!("ZIM2KAFKA_CALLBACK_PATH: {problem}, as in /callbacks/zim")
        );
    }
    let line = format!("{:?}", read_well(&["--callback-path", "/geheim"]));
    assert!(!line.contains("geheim"), "{line}");
}

#[test]
fn brokers_that_librdkafka_would_ignore_are_refused() {
    let brokers = |list: &str| {
        let kafka = read_well(&["--kafka-brokers", list]).serve.kafka;
        kafka.settings(None).map(|kafka| kafka.brokers)
    };
    for list in [
        "b:9092",
        "10.0.0.1:9092,\n\t b-2.example:9093",
        "PLAINTEXT://b:9092",
    ] {
        // librdkafka would take the blanks for parts of hosts.
        let given = list.replace(char::is_whitespace, "");
        assert_eq!(brokers(list), Ok(given));
    }
    for list in ["", "b:9092,", "tcp://b:9092", "SASL_SSL://b:9092", "9092"] {
        let errors = brokers(list).expect_err(list);
        assert_eq!(variable_of(errors), "ZIM2KAFKA_KAFKA_BROKERS");
    }
    let errors = brokers("b:0,b,,c").expect_err("two faults").to_string();
    let expected = [
        "ZIM2KAFKA_KAFKA_BROKERS: entry 1 (b:0): ",
        "ZIM2KAFKA_KAFKA_BROKERS: entry 3: ",
    ];
    assert_eq!(errors.lines().count(), 2, "{errors}");
    for (line, expected) in errors.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn a_property_whose_file_is_not_read_in_time_is_named() {
    let error = unread((Place::Line(3), "ssl.ca.location".to_owned())).to_string();
    let begin =
        "line 3: the value of ssl.ca.location is not valid; its file was not read within 10s";
    assert!(error.starts_with(begin), "{error}");
}

#[test]
fn names_that_no_topic_can_have_are_refused() {
    let topics = |topic: &str, dead_letters: &str| {
        let flags = ["--topic", topic, "--dead-letter-topic", dead_letters];
        let kafka = read_well(&flags).serve.kafka.settings_with("b:9092", None);
        kafka.err().map(variable_of)
    };
    let long = "t".repeat(249);
    for topic in ["a", "A.b_c-9", "__a", long.as_str()] {
        assert_eq!(topics(topic, "dead"), None);
        assert_eq!(topics("alive", topic), None);
    }
    let too_long = "t".repeat(250);
    let illegal = ["", ".", "..", "a b", "a/b", "ä", "__consumer_offsets"];
    for topic in illegal.into_iter().chain([too_long.as_str()]) {
        let refused = topics(topic, "dead");
        assert_eq!(refused.as_deref(), Some("ZIM2KAFKA_TOPIC"), "{topic}");
        let refused = topics("alive", topic);
        let variable = Some("ZIM2KAFKA_DEAD_LETTER_TOPIC");
        assert_eq!(refused.as_deref(), variable, "{topic}");
    }
    let refused = topics("same", "same");
    assert_eq!(refused.as_deref(), Some("ZIM2KAFKA_DEAD_LETTER_TOPIC"));
}

#[test]
fn topics_are_created_only_if_that_is_enabled() {
    let create = |arguments: &[&str]| {
        let Line { serve, .. } = read_well(&[&["--kafka-brokers=b:9092"], arguments].concat());
        let kafka = serve.kafka.settings(Some(&serve.topics)).expect("valid");
        kafka
            .create_topics
            .map(|create| (create.partitions, create.replication))
    };
    assert_eq!(create(&[]), None);
    assert_eq!(create(&["--create-topics"]), Some((12, None)));
    assert_eq!(
        create(&["--create-topics=true", "--topic-partitions=3"]),
        Some((3, None))
    );
    assert_eq!(
        create(&["--create-topics", "--topic-replication=3"]),
        Some((12, Some(3)))
    );
    assert_eq!(
        create(&["--create-topics=false", "--topic-partitions=3"]),
        None
    );
}

#[test]
fn an_unknown_variable_is_reported_with_the_setting_that_it_may_mean() {
    let unknown = |name: &str, value: &str| {
        let set = [(name.to_owned(), value.to_owned())].into_iter();
        unknown_names(set, &Line::command())
    };
    for (typed, meant) in [
        ("ZIM2KAFKA_SECRETS", "ZIM2KAFKA_CALLBACK_SECRETS"),
        ("ZIM2KAFKA_BROKERS", "ZIM2KAFKA_KAFKA_BROKERS"),
        ("ZIM2KAFKA_KAFKA_PROPERTEIS", "ZIM2KAFKA_KAFKA_PROPERTIES"),
        ("ZIM2KAFKA_PORT", "ZIM2KAFKA_LISTEN"),
        ("ZIM2KAFKA_listen", "ZIM2KAFKA_LISTEN"),
        ("zim2kafka_topic", "ZIM2KAFKA_TOPIC"),
        ("ZIM2KAFA_TOPIC", "ZIM2KAFKA_TOPIC"),
        ("ZIM2KAFA_BROKERS", "ZIM2KAFKA_KAFKA_BROKERS"),
    ] {
        let expected = (typed.to_owned(), Some(meant.to_owned()));
        assert_eq!(unknown(typed, "x"), [expected]);
    }
    let meant = Some("ZIM2KAFKA_TOPIC".to_owned());
    for (typed, shown) in [
        ("ZIM2KAFKA_TOPIC ", r#""ZIM2KAFKA_TOPIC ""#),
        ("\u{feff}ZIM2KAFKA_TOPIC", r#""\u{feff}ZIM2KAFKA_TOPIC""#),
    ] {
        let expected = (shown.to_owned(), meant.clone());
        assert_eq!(unknown(typed, "x"), [expected]);
    }
    let quux = "ZIM2KAFKA_QUUX".to_owned();
    assert_eq!(unknown(&quux, "x"), [(quux.clone(), None)]);
    for other in [
        "PATH",
        "KAFKA_BROKERS",
        "ZIM2KAFKA",
        // Another program's, for all we know.
        "ZIM2KAFA_QUUX",
        "ZIM2KAFKA_ADMIN_SERVICE_HOST",
        "ZIM2KAFKA_ADMIN_PORT",
        // Refused, see below.
        "ZIM2KAFKA_TOPICS",
    ] {
        assert_eq!(unknown(other, "tcp://10.0.0.1:1"), [], "{other}");
    }
}

#[test]
fn limits_of_connections_are_numbers_and_off_is_none() {
    let limits = |arguments: &[&str]| {
        let line = read(arguments).ok()?;
        Some(line.serve.connections.limits())
    };
    let limit = |value: &str| {
        let limits = limits(&["--max-connections-per-address", value])?;
        Some(limits.per_address)
    };
    assert_eq!(limit("off"), Some(None));
    assert_eq!(limit("1"), Some(Some(1)));
    for value in ["0", "-1", "none", ""] {
        assert_eq!(limit(value), None, "{value}");
    }
    for value in ["0", "1000001", "many"] {
        assert!(limits(&["--max-connections", value]).is_none(), "{value}");
    }
    for value in ["0s", "61m"] {
        assert!(limits(&["--idle-timeout", value]).is_none(), "{value}");
    }
    assert!(limits(&["--idle-timeout", "60m"]).is_some());
}

#[test]
fn a_certificate_without_its_key_is_refused_and_so_is_the_reverse() {
    for (given, missing) in [
        ("--tls-cert", "ZIM2KAFKA_TLS_KEY"),
        ("--tls-key", "ZIM2KAFKA_TLS_CERT"),
    ] {
        let Line { serve, .. } = read_well(&[given, "/dev/null"]);
        let error = serve.connections.certificate().map(|_| ());
        let errors = error.expect_err("refused");
        let variables: Vec<_> = errors.iter().map(|error| error.variable.as_str()).collect();
        assert_eq!(variables, [missing]);
    }
}
