//! The messages about invalid settings, word for word: every fault of a run on a line
//! of its own, with what to write, and exit code 2. `check` has them as findings: `check/report.rs`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::process::{Ended, Process, run, taken, zim2kafka};

/// Enough for `serve`.
const BASE: [(&str, &str); 2] = [
    ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
    ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
];

const NO_BROKERS: &str =
    "ZIM2KAFKA_KAFKA_BROKERS: is not set; write the brokers as host:port,host:port";
const NO_SECRETS: &str = "ZIM2KAFKA_CALLBACK_SECRETS: is not set; write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console";
const EVERY_ADDRESS: &str =
    "write 0.0.0.0:8080 for every address of this machine, or 127.0.0.1:8080 for this machine only";
const LEVELS: &str =
    "write error, warn, info, debug, trace or off, or as in info,zim2kafka::delivery=debug";
const QUOTES: &str = "has quotes around it, which count as a part of the value";
const PATH: &str = "write a path such as /etc/zim2kafka/file";
const NETWORKS: &str =
    "write networks as 203.0.113.0/24,2001:db8::/32: an address whose bits beyond the prefix are 0";
const TOPIC: &str = "write 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', as in zim.events";

/// Settings with a value that is refused, what is wrong with it, and what to write.
#[rustfmt::skip]
const VALUES: &[(&str, &str, &str, &str)] = &[
    ("LISTEN", "8080", r#""8080" has no IP address"#, EVERY_ADDRESS),
    ("LISTEN", ":8080", r#"":8080" has no IP address"#, EVERY_ADDRESS),
    ("LISTEN", "*:8080", r#""*:8080" has no valid IP address"#, EVERY_ADDRESS),
    ("LISTEN", "localhost:8080", r#""localhost:8080" has a host name instead of an IP address"#, "write 127.0.0.1:8080"),
    ("LISTEN", "http://0.0.0.0:8080", r#""http://0.0.0.0:8080" is a URL"#, "write 0.0.0.0:8080"),
    ("ADMIN_LISTEN", "0.0.0.0", r#""0.0.0.0" has no port"#, "write 0.0.0.0:9464"),
    ("LISTEN", r#""0.0.0.0:8080""#, QUOTES, "write it without them"),
    ("SPOOL_DIR", "'/var/spool'", QUOTES, "write it without them"),
    ("SCHEMA_REGISTRY", "http://user:geheim@a:8081", "has a user in it", "set ZIM2KAFKA_SCHEMA_REGISTRY_AUTH=user:password instead"),
    ("SCHEMA_REGISTRY", "http://KEY:ge/heim@a:8081", "has a user in it", "set ZIM2KAFKA_SCHEMA_REGISTRY_AUTH=user:password instead"),
    ("SCHEMA_REGISTRY", "http://a:8081#x", "is not a list of HTTP URLs", "write http://host:8081 or https://host:8081, or several, separated by commas"),
    ("SCHEMA_REGISTRY", "http://a:8081,kafka:9092", "is not a list of HTTP URLs", "write http://host:8081 or https://host:8081, or several, separated by commas"),
    ("CALLBACK_SECRETS", r#""1=geheim""#, QUOTES, "write it without them"),
    ("KAFKA_PROPERTIES", "'linger.ms=5'", QUOTES, "write it without them"),
    ("SPOOL_DIR", "~/spool", r#""~/spool" begins with ~ or $, which only a shell expands"#, PATH),
    ("TLS_CERT", "$HOME/tls", r#""$HOME/tls" begins with ~ or $, which only a shell expands"#, PATH),
    ("LISTEN", "0.0.0.0:8080\r", "ends with a carriage return", "save the file that sets it with line ends of Unix (LF)"),
    ("KAFKA_PROPERTIES", "linger.ms=5\r", "ends with a carriage return", "save the file that sets it with line ends of Unix (LF)"),
    ("TOPIC", "zim.joined ", "begins or ends with a blank or a line break", "remove it"),
    ("SPOOL_DIR", "/spool # ours", "has a comment behind it, which counts as a part of the value", "remove the comment"),
    ("TOPIC", " ", "is blank", "write a value, or unset it"),
    ("TOPIC", "..", r#"".." is a name that Kafka reserves"#, TOPIC),
    ("TOPIC", "zim/joined", r#""zim/joined" has a character that no topic may have"#, TOPIC),
    ("DEAD_LETTER_TOPIC", "__consumer_offsets", r#""__consumer_offsets" is a topic of Kafka's own"#, TOPIC),
    ("DEAD_LETTER_TOPIC", "zim.group-joined", "is the same as ZIM2KAFKA_TOPIC", "write another topic, such as zim.dead-letter"),
    ("CALLBACK_PATH", "https://geheim.example/callbacks", "is a URL", "write only its path, as in /callbacks/zim"),
    ("TIMESTAMP_UNIT", "us", r#""us" is not a unit of timestamps"#, "write auto, s or ms"),
    ("TIMESTAMP_TOLERANCE", "forever", r#""forever" is not a duration"#, "write 10m, or off"),
    ("TIMESTAMP_TOLERANCE", "0s", r#""0s" is less than 1ms"#, "write 10m, or off"),
    ("ANSWER_DEADLINE", "forever", r#""forever" is not a duration"#, "write 2s"),
    ("ANSWER_DEADLINE", "2", r#""2" has no unit"#, "write 2s"),
    ("SPOOL_AFTER", "-1s", r#""-1s" is negative"#, "write 250ms"),
    ("IDLE_TIMEOUT", "0s", r#""0s" is less than 1ms"#, "write 75s"),
    ("BODY_LIMIT", "512", r#""512" is not a size from 1024 to 900000 bytes"#, "write 512KiB"),
    ("SPOOL_MAX_BYTES", "1GIGA", r#""1GIGA" is not a size"#, "write 1GiB"),
    ("BEFORE_SEND", "allow", r#""allow" is not an answer to before_send_msg"#, "write neutral, send or refuse"),
    ("BEFORE_SEND_REASON", "closed", "has no effect without ZIM2KAFKA_BEFORE_SEND=refuse", "set that, or unset the reason"),
    ("BEFORE_SEND_REASON", "two\nlines", "has a line break or another control character", "write one line of 1 to 256 characters"),
    ("MAX_CONNECTIONS", "0", r#""0" is not a number from 1 to 1000000"#, "write 4096"),
    ("MAX_CONNECTIONS_PER_ADDRESS", "few", r#""few" is not a number from 1 to 1000000"#, "write 100, or off"),
    ("ALLOWED_NETWORKS", "::1,10.0.0.1/33", r#""10.0.0.1/33" is not a network"#, NETWORKS),
    ("OMIT", "os,room_id", "room_id determines the key of room_create, room_enter, room_exit, room_destroy", "remove it"),
    ("OMIT", "contnet", r#""contnet" is not a field of any event"#, "did you mean content?"),
    ("TOPICS", "grup=g", r#""grup" is neither a family nor an event"#, "did you mean group?"),
    ("TOPICS", "all,user=a/b", r#""user=a/b": "a/b" has a character that no topic may have"#, TOPIC),
    ("TOPICS", "all,before_send_msg=discard", "before_send_msg is a question of the sender, which is answered and not published", "remove it, and set the answer with ZIM2KAFKA_BEFORE_SEND"),
    ("CREATE_TOPICS", "yes", r#""yes" is neither true nor false"#, "write true"),
    ("TOPIC_PARTITIONS", "0", r#""0" is not a number from 1 to 10000"#, "write 12"),
    ("TOPIC_REPLICATION", "101", r#""101" is not a number from 1 to 100"#, "write 3"),
    ("LOG", "warning", r#""warning" is not a level"#, LEVELS),
    ("LOG", "infoo", r#""infoo" is not a level"#, LEVELS),
    ("LOG", "info,3", r#""3" is not a level"#, LEVELS),
    ("LOG", ".x=debug", r#"".x" is not a log target"#, LEVELS),
    ("LOG", "zim2kafka=loud", r#""loud" is not a level"#, LEVELS),
    ("LOG_FORMAT", "xml", r#""xml" is not a log format"#, "write text or json"),
];

/// The faults, without `error: ` in front of each.
#[track_caller]
fn faults(ended: &Ended) -> Vec<&str> {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let lines = ended.stderr.lines();
    let lines = lines.filter(|line| !line.contains(" WARN "));
    lines
        .map(|line| line.strip_prefix("error: ").expect("a fault"))
        .collect()
}

/// Runs a command with the variables of [`BASE`] and these.
fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    run(arguments, &[&BASE, variables].concat())
}

#[test]
fn a_value_that_cannot_be_meant_is_refused_with_what_to_write() {
    for &(name, value, what, write) in VALUES {
        let problem = format!("{what}; {write}");
        let variable = format!("ZIM2KAFKA_{name}");
        let ended = run_with(&["serve"], &[(&variable, value)]);
        assert_eq!(faults(&ended), [format!("{variable}: {problem}")]);
        assert!(!ended.stderr.contains("geheim"), "{ended:?}");
        if ["CALLBACK_SECRETS", "KAFKA_PROPERTIES"].contains(&name) {
            continue;
        }
        // The same by flag, which is named too.
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let ended = run_with(&["serve", &format!("{flag}={value}")], &[]);
        assert_eq!(faults(&ended), [format!("{flag} ({variable}): {problem}")]);
        let ended = run_with(&["serve", &flag, value], &[]);
        if name != "CREATE_TOPICS" {
            assert_eq!(faults(&ended), [format!("{flag} ({variable}): {problem}")]);
        }
    }
}

#[test]
fn every_command_reports_all_faults_in_one_run() {
    let log = ("ZIM2KAFKA_LOG", "verbose");
    let level = format!(r#"ZIM2KAFKA_LOG: "verbose" is not a level; {LEVELS}"#);
    let bad = [
        log,
        ("ZIM2KAFKA_BODY_LIMIT", "x"),
        ("ZIM2KAFKA_SPOOL_AFTER", "y"),
        ("ZIM2KAFKA_TOPIC", "a b"),
        ("ZIM2KAFKA_TOPICS", "room=r,x=y,user"),
    ];
    let body = r#"ZIM2KAFKA_BODY_LIMIT: "x" is not a size; write 512KiB"#;
    let spool = r#"ZIM2KAFKA_SPOOL_AFTER: "y" is not a duration; write 250ms"#;
    let topic =
        format!(r#"ZIM2KAFKA_TOPIC: "a b" has a character that no topic may have; {TOPIC}"#);
    let unknown = r#"ZIM2KAFKA_TOPICS: "x" is neither a family nor an event; write all, or NAME=TOPIC for each of group, room, message, call, user, or of events such as group_exit"#;
    let empty = r#"ZIM2KAFKA_TOPICS: "user" has no topic; write user=zim.user, user=dead-letter or user=discard"#;
    for (command, missing) in [("serve", &[NO_BROKERS, NO_SECRETS][..]), ("demo", &[])] {
        let ended = run(&[command], &bad);
        let mut found = faults(&ended);
        found.sort_unstable();
        let mut expected = vec![level.as_str(), body, spool, &topic, unknown, empty];
        expected.extend(missing);
        expected.sort_unstable();
        assert_eq!(found, expected, "{command}");
    }
    let ended = run(&["tail", "--count=x"], &bad);
    let count = r#"--count: "x" cannot be used (invalid digit found in string); write a number, such as 10"#;
    let expected = [count, &level, NO_BROKERS, &topic, unknown, empty];
    assert_eq!(faults(&ended), expected);
    let ended = run(&["send", "--rate=0", "--url=zim", "--duration=5"], &[log]);
    let url = "--url: is not a URL with a host; write http://host:port/path";
    let rate = "--rate: is not a number from 0.001 on; write 10";
    let duration = r#"--duration: "5" has no unit; write 2s"#;
    assert_eq!(faults(&ended), [duration, &level, url, rate, NO_SECRETS]);
    let file = ("ZIM2KAFKA_CALLBACK_SECRETS_FILE", "~/secrets");
    let path = format!(
        r#"{}: "~/secrets" begins with ~ or $, which only a shell expands; {PATH}"#,
        file.0
    );
    for command in ["serve", "send"] {
        let ended = run(&[command], &[file, BASE[1]]);
        assert_eq!(faults(&ended), [&path], "{command}");
    }
    let admin = ("ZIM2KAFKA_ADMIN_LISTEN", "70000");
    let ended = run(&["healthcheck"], &[log, admin]);
    let port = r#"ZIM2KAFKA_ADMIN_LISTEN: "70000" has the port 70000, which is above 65535; write 0.0.0.0:9464 for every address of this machine, or 127.0.0.1:9464 for this machine only"#;
    assert_eq!(faults(&ended), [port, &level]);
}

#[test]
fn a_contradiction_names_both_settings_and_a_consequence_of_a_fault_is_left_out() {
    let spool = ("ZIM2KAFKA_SPOOL_DIR", "/tmp/spool");
    for (arguments, expected) in [
        (
            &["--spool-after=2s"][..],
            "--spool-after (ZIM2KAFKA_SPOOL_AFTER): 2s must be shorter than ZIM2KAFKA_ANSWER_DEADLINE (2s), or callbacks are answered 503 before the spool is used; write 250ms",
        ),
        (
            &["--drain-delay=8s"],
            "ZIM2KAFKA_STOP_DEADLINE: 8s must be longer than ZIM2KAFKA_DRAIN_DELAY (8s), which it includes; write 13s",
        ),
        (
            &["--admin-listen=127.0.0.1:8080"],
            "--admin-listen (ZIM2KAFKA_ADMIN_LISTEN): 127.0.0.1:8080 is the port of ZIM2KAFKA_LISTEN (0.0.0.0:8080) too; write another port, such as 127.0.0.1:9464",
        ),
        (
            &["--listen=0.0.0.0:9464"],
            "ZIM2KAFKA_ADMIN_LISTEN: 127.0.0.1:9464 is the port of ZIM2KAFKA_LISTEN (0.0.0.0:9464) too; write another port, such as 127.0.0.1:9465",
        ),
        (
            &["--spool-after=3s", "--answer-deadline=x"],
            r#"--answer-deadline (ZIM2KAFKA_ANSWER_DEADLINE): "x" is not a duration; write 2s"#,
        ),
        (
            &["--callback-secrets-file='s'"],
            "--callback-secrets-file (ZIM2KAFKA_CALLBACK_SECRETS_FILE): has quotes around it, which count as a part of the value; write it without them",
        ),
    ] {
        let arguments = [&["serve"], arguments].concat();
        let ended = run_with(&arguments, &[spool]);
        assert_eq!(faults(&ended), [expected]);
    }
    let ended = run_with(&["serve"], &[("ZIM2KAFKA_SPOOL_DIR", "/dev/null")]);
    assert_eq!(
        faults(&ended),
        [
            "ZIM2KAFKA_SPOOL_DIR: /dev/null is not a folder; write the path of a folder, such as /var/lib/zim2kafka"
        ]
    );
}

#[test]
fn a_mistyped_name_gets_the_right_advice_beside_the_setting_that_is_missing() {
    // Also if the log shows no warnings.
    let variables = [
        ("ZIM2KAFKA_LOG", "error"),
        ("ZIM2KAFKA_BROKERS", "b:1"),
        ("ZIM2KAFKA_CALLBACK_SECRET", "1=geheim"),
    ];
    let ended = run(&["serve"], &variables);
    let brokers = "ZIM2KAFKA_KAFKA_BROKERS: is not set, but ZIM2KAFKA_BROKERS is, which is not a setting; write the brokers as host:port,host:port";
    let secrets = "ZIM2KAFKA_CALLBACK_SECRETS: is not set, but ZIM2KAFKA_CALLBACK_SECRET is, which is not a setting; write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console";
    assert_eq!(faults(&ended), [brokers, secrets]);
    // Or for the file of the missing setting.
    let missing = |typed: &str| {
        format!(
            "ZIM2KAFKA_CALLBACK_SECRETS: is not set, but {typed} is, which is not a setting; use ZIM2KAFKA_CALLBACK_SECRETS_FILE instead, or write appid=secret with the project's CallbackSecret from ZEGOCLOUD's console"
        )
    };
    let file = ("ZIM2KAFKA_SECRETS_FILE", "/run/s");
    let ended = run(&["serve"], &[variables[0], BASE[1], file]);
    assert_eq!(faults(&ended), [missing(file.0)]);
    let ended = run(&["serve", "--secrets-file", "/run/s"], &BASE[1..]);
    let flag =
        "--secrets-file: is not a flag of this command; did you mean --callback-secrets-file?";
    assert_eq!(faults(&ended), [flag, &missing("--secrets-file")]);
    for (name, meant) in [
        ("ZIM2KAFKA_SECRETS", "ZIM2KAFKA_CALLBACK_SECRETS"),
        ("ZIM2KAFKA_BROKERS", "ZIM2KAFKA_KAFKA_BROKERS"),
        (
            "ZIM2KAFKA_KAFKA_BOOTSTRAP_SERVERS",
            "ZIM2KAFKA_KAFKA_BROKERS",
        ),
        ("ZIM2KAFKA_PORT", "ZIM2KAFKA_LISTEN"),
        ("zim2kafka_topic", "ZIM2KAFKA_TOPIC"),
        ("ZIM2KAFA_TOPIC", "ZIM2KAFKA_TOPIC"),
    ] {
        let ended = run(&["serve"], &[(name, "8080")]);
        let warning = format!("{name} is not a setting; did you mean {meant}?");
        assert!(ended.stderr.contains(&warning), "{ended:?}");
    }

    let no_flag = "have no flag, because";
    let readable = "every user of the machine can read flags; set the variable";
    for (flag, expected) in [
        (
            "--callback-secrets",
            format!("secrets {no_flag} {readable} ZIM2KAFKA_CALLBACK_SECRETS"),
        ),
        (
            "--secret",
            format!("secrets {no_flag} {readable} ZIM2KAFKA_CALLBACK_SECRETS"),
        ),
        (
            "--kafka-properties",
            format!(
                "Kafka properties {no_flag} they may hold a password and {readable} ZIM2KAFKA_KAFKA_PROPERTIES"
            ),
        ),
        (
            "--brokers",
            "is not a flag of this command; did you mean --kafka-brokers?".to_owned(),
        ),
        (
            "--schema-registry-auth",
            format!("passwords {no_flag} {readable} ZIM2KAFKA_SCHEMA_REGISTRY_AUTH"),
        ),
        (
            "--frobnicate",
            "is not a flag of this command; --help lists them".to_owned(),
        ),
    ] {
        let expected = [format!("{flag}: {expected}")];
        for arguments in [
            &["serve", flag, "geheim"][..],
            &["serve", &format!("{flag}=geheim")],
        ] {
            let ended = run_with(arguments, &[]);
            assert_eq!(faults(&ended), expected);
        }
    }
    for arguments in [
        ["serve", "ZIM2KAFKA_CALLBACK_SECRETS=1=geheim"],
        ["ZIM2KAFKA_CALLBACK_SECRETS=1=geheim", "serve"],
    ] {
        let ended = run(&arguments, &[]);
        let argument = "ZIM2KAFKA_CALLBACK_SECRETS: is a variable and not an argument; write it in front of the command";
        assert_eq!(faults(&ended), [argument, NO_BROKERS]);
    }
}

#[test]
fn a_flag_that_is_used_wrongly_is_named() {
    for (arguments, expected) in [
        (
            &["--topic=a", "serve"][..],
            "--topic (ZIM2KAFKA_TOPIC): is a flag of the command; write it after the command",
        ),
        (
            &["serve", "--topic"],
            "--topic (ZIM2KAFKA_TOPIC): has no value; write one after it",
        ),
        (
            &["serve", "--topic=a", "--topic=b"],
            "--topic (ZIM2KAFKA_TOPIC): is given more than once; write it once",
        ),
        (
            &["serve", "--embedded-kafka=yes"],
            "--embedded-kafka: takes no value; write it alone",
        ),
        (
            &["serve", "--create-topics", "maybe"],
            "maybe: is not expected here; --help lists the flags",
        ),
    ] {
        let ended = run(arguments, &BASE[..1]);
        assert_eq!(faults(&ended), [expected, NO_BROKERS], "{arguments:?}");
    }
    let (_port, address) = taken();
    let arguments = [
        "serve",
        "--create-topics",
        "true",
        "--admin-listen",
        &address,
    ];
    let ended = run_with(&arguments, &[("ZIM2KAFKA_LISTEN", "127.0.0.1:0")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    for name in ["TOPIC", "LOG", "CALLBACK_SECRETS", "KAFKA_PROPERTIES"] {
        let variable = format!("ZIM2KAFKA_{name}");
        let mut command = zim2kafka(&["serve"], &BASE);
        command.env(&variable, OsStr::from_bytes(b"a\xff"));
        let ended = Process::start(command).end();
        let expected = format!("{variable}: is not valid UTF-8; write it in UTF-8");
        assert_eq!(faults(&ended), [expected]);
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_reported_with_what_to_write_for_both_ports() {
    // Addresses for documentation, which no machine has, and a link-local one without a zone.
    let foreign = |ip: &str, write: &str| {
        let problem = format!("{ip} is not an address of this machine (");
        (problem, format!("; write {write} for every address of it"))
    };
    let of_documentation = foreign("192.0.2.1", "0.0.0.0:8080");
    let link_local = foreign("fe80::1", "0.0.0.0:9464");
    for command in ["serve", "demo"] {
        let arguments = [
            command,
            "--listen=192.0.2.1:8080",
            "--admin-listen=[fe80::1]:9464",
            "--spool-after=x",
        ];
        let ended = run_with(&arguments, &[]);
        let found = faults(&ended);
        // With the other faults, which clap finds first.
        assert_eq!(found.len(), 3, "{ended:?}");
        for (fault, name, (problem, write)) in [
            (found[1], "listen (ZIM2KAFKA_LISTEN)", &of_documentation),
            (
                found[2],
                "admin-listen (ZIM2KAFKA_ADMIN_LISTEN)",
                &link_local,
            ),
        ] {
            let beginning = format!("--{name}: {problem}");
            assert!(fault.starts_with(&beginning), "{fault}");
            assert!(fault.ends_with(write), "{fault}");
        }
    }
    let ((_one, callbacks), (_other, admin)) = (taken(), taken());
    let arguments = ["serve", "--listen", &callbacks, "--admin-listen", &admin];
    let ended = run_with(&arguments, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    for (line, address, variable) in [
        (lines[0], callbacks, "ZIM2KAFKA_LISTEN"),
        (lines[1], admin, "ZIM2KAFKA_ADMIN_LISTEN"),
    ] {
        assert!(
            line.starts_with(&format!("error: cannot listen on {address}: ")),
            "{line}"
        );
        let advice = format!("; free the port or set {variable} to another");
        assert!(line.ends_with(&advice), "{line}");
    }
}
