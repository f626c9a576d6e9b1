//! The report of `check`, as JSON and as a table: all faults in one run, and the settings in force.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Ended, Process, Service, run, shell, zim2kafka};
use crate::support::schema::conforms;

/// What `check --json` prints. It must be what the schema describes, and nothing else.
#[track_caller]
pub(crate) fn report(arguments: &[&str], variables: &[(&str, &str)]) -> (Ended, Value) {
    let ended = run(&[&["check", "--json"], arguments].concat(), variables);
    let report: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {ended:?}"));
    conforms("urn:zim2kafka:schema:check-report:v1", &report);
    let count = |level: &str| json!(findings(&report, level).count());
    assert_eq!(report["errors"], count("error"));
    assert_eq!(report["warnings"], count("warning"));
    (ended, report)
}

/// The findings of this level.
pub(crate) fn findings<'a>(report: &'a Value, level: &str) -> impl Iterator<Item = &'a Value> {
    let all = report["findings"].as_array().expect("a list");
    all.iter().filter(move |finding| finding["level"] == level)
}

/// The one finding of this level and subject whose text contains this.
#[track_caller]
pub(crate) fn finding<'a>(report: &'a Value, level: &str, subject: &str, text: &str) -> &'a Value {
    let has_text = |finding: &&Value| {
        let found = finding["text"].as_str().expect("text");
        finding["subject"] == subject && found.contains(text)
    };
    let mut found = findings(report, level).filter(has_text);
    let first = found.next();
    assert_eq!(found.next(), None, "several: {report:#}");
    first.unwrap_or_else(|| panic!("no {level} {subject} {text}: {report:#}"))
}

/// The setting of this name, as origin, state and value.
#[track_caller]
fn setting<'a>(report: &'a Value, name: &str) -> [&'a Value; 3] {
    let all = report["settings"].as_array().expect("a list");
    let found: Vec<_> = all
        .iter()
        .filter(|setting| setting["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "{name}: {report:#}");
    ["origin", "state", "value"].map(|part| &found[0][part])
}

const NOBODY: (&str, &str) = ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1");
const SECRETS: (&str, &str) = ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim");

#[test]
fn all_faults_are_found_in_one_run() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = home.path().join("file");
    fs::write(&file, "").expect("it can be written");
    let file = file.to_str().expect("text");
    let variables = [
        NOBODY,
        ("ZIM2KAFKA_CALLBACK_SECRETS", "geheim"),
        ("ZIM2KAFKA_TLS_CERT", "/nowhere/cert.pem"),
        ("ZIM2KAFKA_TLS_KEY", "/nowhere/key.pem"),
        ("ZIM2KAFKA_BODY_LIMIT", "x"),
        ("ZIM2KAFKA_OMIT", "contnet"),
        ("ZIM2KAFKA_TOPICS", "grup=g"),
        ("ZIM2KAFKA_BEFORE_SEND", "send"),
        ("ZIM2KAFKA_DLQ_TOPIC", "dead"),
        ("ZIM2KAFKA_SPOOL_DIR", file),
    ];
    let flags = ["--spool-after=2s", "--frobnicate"];
    let (ended, report) = report(&flags, &variables);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), ""));
    assert_eq!(report["is_configuration_valid"], json!(false));
    assert_eq!(report["result"], "error");
    let expected = [
        ("error", "--frobnicate", "is not a flag of this command"),
        (
            "error",
            "ZIM2KAFKA_BODY_LIMIT",
            r#""x" is not a size; write 512KiB"#,
        ),
        (
            "error",
            "ZIM2KAFKA_CALLBACK_SECRETS",
            "entry 1 is not of the form appid=secret",
        ),
        ("error", "ZIM2KAFKA_TLS_CERT", "/nowhere/cert.pem"),
        ("error", "ZIM2KAFKA_TLS_KEY", "/nowhere/key.pem"),
        ("error", "ZIM2KAFKA_OMIT", "did you mean content?"),
        ("error", "ZIM2KAFKA_TOPICS", "did you mean group?"),
        (
            "error",
            "--spool-after (ZIM2KAFKA_SPOOL_AFTER)",
            "2s must be shorter than ZIM2KAFKA_ANSWER_DEADLINE",
        ),
        ("error", "Kafka", "does not answer (connect: 127.0.0.1:1: "),
        ("error", "spool", "is not a folder; set ZIM2KAFKA_SPOOL_DIR"),
        (
            "warning",
            "variables",
            "did you mean ZIM2KAFKA_DEAD_LETTER_TOPIC?",
        ),
        (
            "warning",
            "before_send_msg",
            "overrides ZEGOCLOUD's own content moderation",
        ),
    ];
    for (level, subject, text) in expected {
        finding(&report, level, subject, text);
    }
    assert_eq!(report["errors"], 10, "{report:#}");
    assert_eq!(report["warnings"], 2, "{report:#}");

    // The same as a table, whose last line sums up.
    let ended = run(&[&["check"], &flags[..]].concat(), &variables);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), ""));
    for (level, subject, text) in expected {
        let is = |line: &&str| {
            let rest = line.strip_prefix(level).unwrap_or_default().trim_start();
            rest.starts_with(subject) && line.contains(text)
        };
        assert_eq!(
            ended.stdout.lines().filter(is).count(),
            1,
            "{subject}: {ended:?}"
        );
    }
    assert_eq!(ended.stdout.lines().last(), Some("10 errors, 2 warnings"));
    assert!(!ended.stdout.contains("geheim"), "{ended:?}");
}

#[test]
fn too_few_open_files_for_a_start_are_an_error() {
    let mut shell = shell("ulimit -n 100; exec zim2kafka check");
    shell.envs([NOBODY, SECRETS]);
    let ended = Process::start(shell).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let error =
        "error    open files        this process may open only 100 files and needs at least";
    assert!(ended.stdout.contains(error), "{ended:?}");
}

#[test]
fn what_depends_on_an_invalid_setting_is_not_checked_and_the_rest_is() {
    let kafka = Service::embedded(&[], &[]);
    let brokers = ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers.as_str());
    // Without knowing the topics, the connection is checked.
    let topics = ("ZIM2KAFKA_TOPIC", "a b");
    let (ended, found) = report(&[], &[SECRETS, brokers, topics]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    finding(
        &found,
        "error",
        "ZIM2KAFKA_TOPIC",
        "has a character that no topic may have",
    );
    finding(&found, "ok", "Kafka", "answers");
    finding(&found, "warning", "topics", "were not checked");
    assert_eq!(found["errors"], 1, "{found:#}");

    // Without the properties, there may be no login.
    let properties = ("ZIM2KAFKA_KAFKA_PROPERTIES", "acks=1;sasl.password=geheim");
    let (ended, found) = report(&[], &[SECRETS, brokers, properties]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    finding(&found, "error", "ZIM2KAFKA_KAFKA_PROPERTIES", "acks");
    finding(&found, "warning", "Kafka", "was not checked");
    assert_eq!(found["kafka_properties"], json!([]));
    let [_, state, value] = setting(&found, "ZIM2KAFKA_KAFKA_PROPERTIES");
    assert_eq!((state, value), (&json!("invalid"), &Value::Null));
    assert!(!ended.stdout.contains("geheim"), "{ended:?}");

    // A folder that is not known is not judged, and not reported as missing.
    let spool = ("ZIM2KAFKA_SPOOL_DIR", "~/spool");
    let (ended, found) = report(&[], &[SECRETS, brokers, spool]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let about_spool = |finding: &&Value| finding["subject"] == "spool";
    let all = found["findings"].as_array().expect("a list");
    assert_eq!(all.iter().find(about_spool), None);
}

#[test]
fn the_settings_in_force_are_listed_with_their_origin_and_without_secrets() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).expect("it can be written");
        path.to_str().expect("text").to_owned()
    };
    let secrets = file("secrets", "1=geheim\n*=geheimer\n");
    let properties = file(
        "kafka.properties",
        "sasl.password=geheim\nsecurity.protocol=sasl_plaintext\n",
    );
    let variables = [
        NOBODY,
        ("ZIM2KAFKA_CALLBACK_SECRETS_FILE", secrets.as_str()),
        ("ZIM2KAFKA_KAFKA_PROPERTIES_FILE", properties.as_str()),
        (
            "ZIM2KAFKA_KAFKA_PROPERTIES",
            "sasl.username=u;sasl.mechanism=PLAIN;acks=all",
        ),
        ("ZIM2KAFKA_CALLBACK_PATH", "/callbacks/geheim"),
        ("ZIM2KAFKA_TOPICS", "all"),
        ("ZIM2KAFKA_LISTEN", ""),
        // The flag takes precedence.
        ("ZIM2KAFKA_ANSWER_DEADLINE", "3s"),
    ];
    let flags = ["--answer-deadline", "4s", "--create-topics", "--log=off"];
    let (ended, found) = report(&flags, &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stdout.contains("geheim"), "{ended:?}");
    for (name, expected) in [
        ("KAFKA_BROKERS", json!(["variable", "set", "127.0.0.1:1"])),
        ("ANSWER_DEADLINE", json!(["flag", "set", "4s"])),
        ("CREATE_TOPICS", json!(["flag", "set", "true"])),
        ("LOG", json!(["flag", "set", "off"])),
        ("CALLBACK_SECRETS", json!(["file", "hidden", null])),
        ("CALLBACK_SECRETS_FILE", json!(["variable", "set", secrets])),
        ("KAFKA_PROPERTIES", json!(["variable", "hidden", null])),
        (
            "KAFKA_PROPERTIES_FILE",
            json!(["variable", "set", properties]),
        ),
        ("CALLBACK_PATH", json!(["variable", "hidden", null])),
        ("LISTEN", json!(["default", "set", "0.0.0.0:8080"])),
        ("SPOOL_DIR", json!(["default", "unset", null])),
        ("TOPICS", json!(["variable", "set", "all"])),
        // `all` sends group_join elsewhere.
        ("TOPIC", json!(["default", "unset", null])),
        ("LOG_FORMAT", json!(["default", "set", "text"])),
    ] {
        let setting = setting(&found, &format!("ZIM2KAFKA_{name}"));
        assert_eq!(json!(setting), expected, "{name}");
    }
    assert_eq!(
        found["kafka_properties"],
        json!([
            {"name": "sasl.mechanism", "origin": "variable"},
            {"name": "sasl.password", "origin": "file"},
            {"name": "sasl.username", "origin": "variable"},
            {"name": "security.protocol", "origin": "file"},
        ])
    );

    let ended = run(&[&["check"], &flags[..]].concat(), &variables);
    assert!(!ended.stdout.contains("geheim"), "{ended:?}");
    for row in [
        ["variable", "KAFKA_BROKERS", "127.0.0.1:1"],
        ["flag", "ANSWER_DEADLINE", "4s"],
        ["file", "CALLBACK_SECRETS", "(hidden)"],
        ["variable", "CALLBACK_PATH", "(hidden)"],
        [
            "variable",
            "KAFKA_PROPERTIES",
            "sasl.mechanism, sasl.username",
        ],
        [
            "file",
            "KAFKA_PROPERTIES",
            "sasl.password, security.protocol",
        ],
        ["default", "LISTEN", "0.0.0.0:8080"],
        ["default", "SPOOL_DIR", "not set"],
    ] {
        let [origin, name, value] = row;
        let expected = format!("{origin} ZIM2KAFKA_{name} {value}");
        let is = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == expected;
        assert!(ended.stdout.lines().any(is), "{expected}: {}", ended.stdout);
    }
    // The default of the path is in the documentation.
    let (_, found) = report(&[], &[NOBODY, SECRETS]);
    let path = setting(&found, "ZIM2KAFKA_CALLBACK_PATH");
    assert_eq!(json!(path), json!(["default", "set", "/callbacks/zim"]));
    let topic = setting(&found, "ZIM2KAFKA_TOPIC");
    assert_eq!(json!(topic), json!(["default", "set", "zim.group-joined"]));
}

/// What a terminal of this width gets from `check`.
fn on_a_terminal(columns: u16, variables: &[(&str, &str)]) -> String {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours)
        .and_then(|()| unlockpt(&ours))
        .expect("it is ours");
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).expect("it has a size");
    let path = ptsname(&ours, Vec::new()).expect("it has a name");
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(OsStr::from_bytes(path.as_bytes()))
        .expect("it can be opened");
    let process = Process::start_on(zim2kafka(&["check"], variables), theirs, Stdio::piped());
    let mut ours = File::from(ours);
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    // It ends with an error when the program has closed its end.
    while let Ok(read @ 1..) = ours.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..read]);
    }
    assert_eq!(process.end().code, Some(1));
    String::from_utf8(shown).expect("UTF-8")
}

#[test]
fn a_terminal_gets_colours_and_lines_of_its_width() {
    let variables = [NOBODY, SECRETS, ("TERM", "xterm")];
    let widest = |shown: &str| shown.lines().map(|line| line.chars().count()).max();
    for (columns, width) in [(100, 100), (0, 80)] {
        let coloured = on_a_terminal(columns, &variables);
        assert!(
            coloured.contains("\u{1b}[31merror\u{1b}[0m"),
            "{coloured:?}"
        );
        let plain = on_a_terminal(columns, &[&variables[..], &[("NO_COLOR", "1")]].concat());
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let widest = widest(&plain).expect("lines");
        assert!((width - 15..=width).contains(&widest), "{widest}: {plain}");
    }
}

#[test]
fn elsewhere_lines_are_wrapped_only_to_a_known_width_and_have_no_colours() {
    let variables = [NOBODY, SECRETS];
    let plain = run(&["check"], &variables);
    let wrapped = run(&["check"], &[&variables[..], &[("COLUMNS", "80")]].concat());
    let widest = |ended: &Ended| ended.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest(&plain) > Some(100), "{plain:?}");
    assert!(widest(&wrapped) <= Some(80), "{wrapped:?}");
    let words = |ended: &Ended| -> Vec<String> {
        let words = ended.stdout.split_whitespace();
        words.map(str::to_owned).collect()
    };
    assert_eq!(words(&plain), words(&wrapped));
    for ended in [plain, wrapped] {
        assert!(!ended.stdout.contains('\u{1b}'), "{ended:?}");
        assert_eq!(ended.stdout.lines().last(), Some("1 error, 1 warning"));
    }
}

#[test]
fn a_bootstrap_server_that_does_not_answer_beside_others_is_a_warning() {
    let kafka = Service::embedded(&[], &[]);
    let brokers = format!("nosuch.invalid:9092,{},127.0.0.1:1", kafka.brokers);
    let (_, found) = report(&[], &[SECRETS, ("ZIM2KAFKA_KAFKA_BROKERS", &brokers)]);
    finding(&found, "ok", "Kafka", "answers");
    for (text, step, advice) in [
        (
            "(resolve: nosuch.invalid:9092: Failed to resolve",
            "resolve",
            "check the name in",
        ),
        (
            "(connect: 127.0.0.1:1: Connect to",
            "connect",
            "check ZIM2KAFKA_KAFKA_BROKERS",
        ),
    ] {
        let text = format!("one of ZIM2KAFKA_KAFKA_BROKERS does not answer {text}");
        let finding = finding(&found, "warning", "Kafka", &text);
        assert_eq!(finding["step"], step);
        assert!(
            finding["text"]
                .as_str()
                .is_some_and(|text| text.contains(advice))
        );
    }
}
