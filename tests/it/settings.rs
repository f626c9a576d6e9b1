//! Every setting, by variable and by flag: what is taken, what is refused, and what is said of it.

use std::collections::BTreeSet;

use clap::CommandFactory;
use serde_json::json;
use zim2kafka::commands::Cli;
use zim2kafka::config::variables;

use crate::support::app::callback;
use crate::support::process::{Ended, Service, request, run, taken};

/// `serve` up to the point where it would listen: the admin port is taken, so that every setting
/// has been judged when it ends with exit code 1.
fn serve(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let (_port, address) = taken();
    let always = [
        ("ZIM2KAFKA_LISTEN", "127.0.0.1:0"),
        ("ZIM2KAFKA_ADMIN_LISTEN", &address),
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
    ];
    run(
        &[&["serve"], arguments].concat(),
        &[&always, variables].concat(),
    )
}

#[track_caller]
fn is_taken(ended: &Ended) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot listen on"), "{ended:?}");
}

/// Ended with exit code 2, naming this variable, and showing nothing on stdout.
#[track_caller]
fn is_refused(ended: &Ended, variable: &str) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let names = |line: &str| line.starts_with("error: ") && line.contains(variable);
    assert!(
        ended.stderr.lines().any(names),
        "{variable} is not named: {ended:?}"
    );
    assert_eq!(ended.stdout, "");
}

/// Settings, with a value that is refused and one that is taken.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("LISTEN", "8080", "127.0.0.1:0"),
    ("CALLBACK_PATH", "geheim", "/zim"),
    ("TIMESTAMP_UNIT", "us", "ms"),
    ("TIMESTAMP_TOLERANCE", "10", "off"),
    ("BODY_LIMIT", "900001", "500kB"),
    ("OMIT", "group_id", "content,user_name"),
    ("BEFORE_SEND", "allow", "refuse"),
    ("KAFKA_BROKERS", ":", "b:9092"),
    ("KAFKA_PROPERTIES_FILE", "/no/such/file", "/dev/null"),
    ("TOPIC", "a b", "t"),
    ("TOPICS", "grup=g", "all,message=discard"),
    ("DEAD_LETTER_TOPIC", "a b", "d"),
    ("CREATE_TOPICS", "maybe", "true"),
    ("TOPIC_PARTITIONS", "0", "1"),
    ("TOPIC_REPLICATION", "many", "1"),
    (
        "SCHEMA_REGISTRY",
        "registry:8081",
        "http://registry:8081,https://other/api",
    ),
    ("SCHEMA_REGISTRY_REGISTER", "maybe", "false"),
    ("ANSWER_DEADLINE", "soon", "1s"),
    ("DRAIN_DELAY", "1 parsec", "1s"),
    ("STOP_DEADLINE", "1s", "1m"),
    ("MAX_CONNECTIONS", "0", "10"),
    ("MAX_CONNECTIONS_PER_ADDRESS", "few", "off"),
    ("IDLE_TIMEOUT", "0s", "1m"),
    ("ALLOWED_NETWORKS", "10.0.0.1/8", "10.0.0.0/8,::1"),
    ("TRUSTED_PROXIES", "balancer", "10.0.0.1"),
    ("LOG", "a=b=c", "warn"),
    ("LOG_FORMAT", "xml", "json"),
    ("ADMIN_LISTEN", "localhost", ""),
];

/// Settings that other tests try, because they need files or each other.
const TRIED_ELSEWHERE: [&str; 9] = [
    "BEFORE_SEND_REASON",
    "CALLBACK_SECRETS_FILE",
    "SCHEMA_REGISTRY_AUTH_FILE",
    "SCHEMA_REGISTRY_CA",
    "SPOOL_DIR",
    "SPOOL_MAX_BYTES",
    "SPOOL_AFTER",
    "TLS_CERT",
    "TLS_KEY",
];

#[test]
fn every_setting_of_the_command_line_is_tried() {
    let tried = SETTINGS.iter().map(|(name, ..)| *name);
    let tried = tried.chain(TRIED_ELSEWHERE);
    let tried: BTreeSet<_> = tried.map(|name| format!("ZIM2KAFKA_{name}")).collect();
    let flags = variables(&Cli::command()).into_iter();
    let known: BTreeSet<_> = flags.map(|(_, variable)| variable).collect();
    assert_eq!(tried, known);
}

#[test]
fn every_setting_is_taken_by_variable_and_by_flag_and_the_flag_wins() {
    let (_port, address) = taken();
    for &(name, bad, good) in SETTINGS {
        let variable = format!("ZIM2KAFKA_{name}");
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let good = if name == "ADMIN_LISTEN" {
            &address
        } else {
            good
        };
        let (bad_flag, good_flag) = (format!("{flag}={bad}"), format!("{flag}={good}"));
        is_refused(&serve(&[], &[(&variable, bad)]), &variable);
        is_refused(&serve(&[&bad_flag], &[]), &variable);
        is_refused(&serve(&[&bad_flag], &[(&variable, good)]), &variable);
        is_taken(&serve(&[&good_flag], &[(&variable, bad)]));
        is_taken(&serve(&[], &[(&variable, good)]));
        // As compose files leave a variable that is not set.
        if !["ADMIN_LISTEN", "LISTEN", "KAFKA_BROKERS"].contains(&name) {
            is_taken(&serve(&[], &[(&variable, "")]));
        }
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    is_refused(
        &serve(&[], &[("ZIM2KAFKA_KAFKA_BROKERS", "")]),
        "ZIM2KAFKA_KAFKA_BROKERS",
    );
    // The default of the admin port may be free or not here; that of the callbacks is not reached.
    let ended = run(&["healthcheck"], &[("ZIM2KAFKA_ADMIN_LISTEN", "")]);
    assert!(!ended.stderr.contains("invalid value"), "{ended:?}");
    let unbuilt = [
        ("ZIM2KAFKA_SPOOL_DIR", ""),
        ("ZIM2KAFKA_TLS_CERT", ""),
        ("ZIM2KAFKA_TYPO", ""),
    ];
    let ended = serve(&[], &unbuilt);
    is_taken(&ended);
    assert!(!ended.stderr.contains("TYPO"), "{ended:?}");
}

#[test]
fn secrets_that_cannot_be_taken_are_refused_without_being_shown() {
    const LIST: &str = "ZIM2KAFKA_CALLBACK_SECRETS";
    const FILE: &str = "ZIM2KAFKA_CALLBACK_SECRETS_FILE";
    let folder = tempfile::tempdir().expect("a folder for files");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    };
    for list in [
        "",
        " ",
        "geheim",
        "1=geheim,",
        "1=geheim,,2=x",
        "=geheim",
        "1=",
        "1=geheim,geheim2",
    ] {
        let ended = serve(&[], &[(LIST, list)]);
        is_refused(&ended, LIST);
        assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    }
    let good = file("good", "# ours\n\n1=geheim\r\n1=neu,mit=komma\n");
    is_refused(&serve(&[], &[(FILE, &good)]), LIST);
    is_taken(&serve(&[], &[(LIST, ""), (FILE, &good)]));
    is_taken(&serve(&["--callback-secrets-file", &good], &[(LIST, "")]));
    for (name, text) in [
        ("empty", ""),
        ("comments", "# 1=geheim\n"),
        ("bare", "1=x\ngeheim\n"),
    ] {
        let ended = serve(&[], &[(LIST, ""), (FILE, &file(name, text))]);
        is_refused(&ended, FILE);
        assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    }
    is_refused(&serve(&[], &[(LIST, ""), (FILE, "/no/such/file")]), FILE);
    for command in ["send", "serve"] {
        is_refused(
            &run(&[command], &[("ZIM2KAFKA_KAFKA_BROKERS", "b:1")]),
            LIST,
        );
    }
}

#[test]
fn kafka_properties_that_the_promises_rest_on_are_refused() {
    const REFUSED: [&str; 16] = [
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "retries",
        "message.send.max.retries",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "message.max.bytes",
        "partitioner",
        "transactional.id",
        "allow.auto.create.topics",
        "delivery.report.only.error",
        "bootstrap.servers",
    ];
    const LIST: &str = "ZIM2KAFKA_KAFKA_PROPERTIES";
    for name in REFUSED {
        let ended = serve(&[], &[(LIST, &format!("linger.ms=5;{name}=geheim"))]);
        is_refused(&ended, LIST);
        assert!(ended.stderr.contains(name), "{ended:?}");
        assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    }
    let ended = serve(&[], &[(LIST, "linger.ms=5;no.such.property=geheim")]);
    is_refused(&ended, LIST);
    assert!(ended.stderr.contains("entry 2"), "{ended:?}");
    assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    is_refused(&serve(&[], &[(LIST, "linger.ms")]), LIST);
    is_taken(&serve(
        &["--kafka-properties-file=/dev/null"],
        &[(LIST, "linger.ms=5")],
    ));
    is_taken(&serve(
        &[],
        &[(LIST, "linger.ms=5\nclient.id=a;sasl.password=b=c")],
    ));
    is_refused(
        &run(&["tail", "--kafka-brokers=b:1"], &[(LIST, "acks=1")]),
        LIST,
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    is_refused(
        &serve(&["--topic=same", "--dead-letter-topic=same"], &[]),
        "ZIM2KAFKA_DEAD_LETTER_TOPIC",
    );
    is_refused(
        &serve(&["--topics=all", "--timestamp-unit=ms"], &[]),
        "ZIM2KAFKA_TIMESTAMP_UNIT",
    );
    is_refused(
        &serve(&["--drain-delay=5s", "--stop-deadline=5s"], &[]),
        "ZIM2KAFKA_STOP_DEADLINE",
    );
    let ended = serve(&["--callback-path=geheim"], &[]);
    is_refused(&ended, "ZIM2KAFKA_CALLBACK_PATH");
    assert!(!ended.stderr.contains("geheim"), "{ended:?}");
}

/// Whether ZIM2KAFKA_TOPIC is set decides, and not its value.
#[test]
fn the_topic_of_group_join_is_open_only_if_no_setting_names_it() {
    let group = ("ZIM2KAFKA_TOPICS", "group=zim.group");
    let default = ("ZIM2KAFKA_TOPIC", "zim.group-joined");
    for (arguments, variables) in [
        (&[][..], &[group][..]),
        (&[], &[group, ("ZIM2KAFKA_TOPIC", "")]),
        (&["--topics=group=discard"], &[]),
    ] {
        let ended = serve(arguments, variables);
        is_refused(&ended, "ZIM2KAFKA_TOPICS");
        assert!(ended.stderr.contains(",group_join="), "{ended:?}");
    }
    is_taken(&serve(&[], &[group, default]));
    is_taken(&serve(&["--topic=zim.group-joined"], &[group]));
    is_taken(&serve(&["--topics=group=g,group_join=g"], &[group]));
    // A consequence is not reported.
    let ended = serve(&["--topic='t'"], &[group]);
    is_refused(&ended, "ZIM2KAFKA_TOPIC");
    assert!(!ended.stderr.contains("group_join="), "{ended:?}");
}

#[test]
fn probable_mistakes_cause_warnings() {
    let warnings = |variables: &[(&str, &str)]| {
        let ended = serve(&[], variables);
        is_taken(&ended);
        let lines = ended.stderr.lines().filter(|line| line.contains("WARN"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (topic, unit) = (("ZIM2KAFKA_TOPIC", "t"), ("ZIM2KAFKA_TIMESTAMP_UNIT", "ms"));
    let found = warnings(&[topic, ("ZIM2KAFKA_TOPICS", "group_join=j"), unit]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("ZIM2KAFKA_TOPIC is t, but ZIM2KAFKA_TOPICS has group_join=j"));
    assert!(found[1].contains("ZIM2KAFKA_TIMESTAMP_UNIT is ms"));
    assert_eq!(warnings(&[topic, ("ZIM2KAFKA_TOPICS", "all")]), [""; 0]);
}

#[test]
fn an_unknown_variable_is_warned_of_and_those_of_kubernetes_are_not() {
    let ended = serve(
        &[],
        &[
            ("ZIM2KAFKA_BROKERS", "b:1"),
            ("ZIM2KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("ZIM2KAFKA_SERVICE_PORT", "8080"),
            ("ZIM2KAFKA_PORT", "tcp://10.0.0.1:8080"),
            ("ZIM2KAFKA_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("ZIM2KAFKA_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("ZIM2KAFKA_ADMIN_PORT", "tcp://10.0.0.1:9464"),
            ("ZIM2KAFKA_ADMIN_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ],
    );
    is_taken(&ended);
    let warnings: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("WARN"))
        .collect();
    assert_eq!(warnings.len(), 1, "{ended:?}");
    let warning = "ZIM2KAFKA_BROKERS is not a setting; did you mean ZIM2KAFKA_KAFKA_BROKERS?";
    assert!(warnings[0].contains(warning), "{ended:?}");
}

#[test]
fn the_help_shows_variables_and_never_their_values() {
    let all = SETTINGS
        .iter()
        .map(|(name, ..)| format!("ZIM2KAFKA_{name}"))
        .collect::<Vec<_>>();
    let taken = SETTINGS
        .iter()
        .map(|(_, _, good)| *good)
        .collect::<Vec<_>>();
    let mut variables: Vec<_> = all.iter().map(String::as_str).zip(taken).collect();
    variables.extend([
        ("ZIM2KAFKA_CALLBACK_PATH", "/wert-4711"),
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=wert-4711"),
        ("ZIM2KAFKA_CALLBACK_SECRETS_FILE", "/wert-4711"),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", "sasl.password=wert-4711"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "wert-4711:9092"),
        ("ZIM2KAFKA_TOPIC", "wert-4711"),
        ("ZIM2KAFKA_LOG", "wert-4711"),
    ]);
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["serve", "-h"],
        &["help", "demo"],
        &["send", "--help"],
    ] {
        let ended = run(arguments, &variables);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stdout.contains("4711"), "{}", ended.stdout);
        assert_eq!(ended.stderr, "");
    }
    let help = run(&["serve", "--help"], &[]).stdout;
    for variable in all {
        assert!(help.contains(&variable), "{variable} is not explained");
    }
}

#[test]
fn the_flags_of_the_log_win_over_its_variables() {
    let log = |flags: &[&str], variables: &[(&str, &str)]| {
        serve(flags, &[&[("ZIM2KAFKA_TYPO", "x")], variables].concat()).stderr
    };
    assert!(log(&["--log-format=json"], &[("ZIM2KAFKA_LOG_FORMAT", "text")]).starts_with('{'));
    assert!(!log(&["--log-format=text"], &[("ZIM2KAFKA_LOG_FORMAT", "json")]).starts_with('{'));
    assert!(log(&["--log=warn"], &[("ZIM2KAFKA_LOG", "error")]).contains("TYPO"));
    assert!(!log(&["--log=error"], &[("ZIM2KAFKA_LOG", "warn")]).contains("TYPO"));
}

#[test]
fn the_service_follows_its_variables() {
    let service = Service::embedded(
        &[],
        &[
            ("ZIM2KAFKA_CALLBACK_PATH", "/a/b%20c"),
            ("ZIM2KAFKA_CALLBACK_SECRETS", "9=other,1=secret"),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
            ("ZIM2KAFKA_TIMESTAMP_UNIT", "ms"),
            ("ZIM2KAFKA_BODY_LIMIT", "1KiB"),
            ("ZIM2KAFKA_TOPIC", "joined"),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", "dead"),
            ("ZIM2KAFKA_TOPIC_PARTITIONS", "1"),
        ],
    );
    let old = callback(json!({"timestamp": 1_470_820_198_000_u64}));
    assert!(
        service.post(&old).starts_with("HTTP/1.1 200"),
        "{}",
        service.post(&old)
    );
    assert!(
        service
            .post(callback(json!({"event": "x"})))
            .contains("dead_lettered")
    );
    let seconds = callback(json!({"timestamp": 1_470_820_198}));
    assert!(service.post(seconds).starts_with("HTTP/1.1 401"));
    assert!(service.post([b' '; 1025]).starts_with("HTTP/1.1 413"));
    assert!(service.post([b' '; 1024]).starts_with("HTTP/1.1 400"));
    let elsewhere = request(service.callbacks, "POST", "/callbacks/zim", &old);
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let read = |flags: &[&str]| service.tail(&[&["--count=1"], flags].concat());
    let joined = &read(&["--topic=joined"])[0];
    assert_eq!(joined["topic"], "joined");
    assert_eq!(joined["partition"], 0);
    let dead = &read(&["--dead-letter", "--dead-letter-topic=dead"])[0];
    assert_eq!(dead["topic"], "dead");
}
