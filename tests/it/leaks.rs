//! Nothing that is a secret is ever shown: not in a log at any level, not in an answer, not in a
//! metric. And nobody who can post can write a line of the log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::support::process::{Ended, Process, Service, request, run, say, shell};

const SECRET: &str = "schluessel-1f0e5c";
const PASSWORD: &str = "passwort-93ab27";
const SEGMENT: &str = "abschnitt-77d2f0";
const NONCE: &str = "nonce4c81e2";
/// Stands in every body: in an ID, in a field of nobody's, in what is no JSON at all.
const MARKER: &str = "inhalt-e5b619";

/// An ID that would begin a line of its own, coloured, where a log printed it as it is.
const CRAFTED: &str =
    r#"g\n2026-01-01T00:00:00Z ERROR crafted\u001b[31m\r\u0085\u2028{\"level\":\"crafted\"}"#;

#[test]
fn no_secret_is_shown_whatever_is_asked_and_however_much_is_logged() {
    for format in ["text", "json"] {
        let shown = [
            with_kafka(format),
            without_kafka(format),
            from_a_network_that_is_not_allowed(format),
        ];
        for (shown, reached) in shown {
            for status in reached {
                assert!(
                    shown.contains(&format!("HTTP/1.1 {status} ")),
                    "{status} is not reached"
                );
            }
            let secrets = [
                SECRET,
                PASSWORD,
                SEGMENT,
                NONCE,
                MARKER,
                &good("").1,
                &bad().1,
            ];
            for secret in secrets {
                let line = shown.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{secret} is shown");
            }
            // An escape is as good as no crafted line; what stands there raw is not.
            assert!(!shown.contains('\u{1b}') && !shown.contains("ERROR crafted\u{1b}"));
            let crafted = |line: &&str| line.starts_with("2026-01-01T00:00:00Z ERROR");
            assert_eq!(shown.lines().find(crafted), None);
        }
    }
}

#[test]
fn the_secrets_are_not_shown_by_a_configuration_that_is_refused() {
    let refused: [(&str, &str); 4] = [
        ("ZIM2KAFKA_KAFKA_BROKERS", ":"),
        ("ZIM2KAFKA_BODY_LIMIT", "1GiB"),
        ("ZIM2KAFKA_SPOOL_DIR", "/tmp"),
        ("ZIM2KAFKA_LISTEN", "nowhere"),
    ];
    for variable in refused {
        let ended = run(&["serve"], &[&variables("text"), &[variable][..]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_shows_none(&ended);
    }
    for arguments in [&["serve", "--help"][..], &["--help"], &["check"]] {
        assert_shows_none(&run(arguments, &variables("text")));
    }
}

#[test]
fn the_content_of_a_file_in_place_of_its_path_is_not_shown() {
    let contents = [
        ("ZIM2KAFKA_CALLBACK_SECRETS_FILE", "1=geheim-content"),
        (
            "ZIM2KAFKA_KAFKA_PROPERTIES_FILE",
            "sasl.password=geheim-content",
        ),
        (
            "ZIM2KAFKA_TLS_KEY",
            "-----BEGIN PRIVATE KEY-----\ngeheim-content\n-----END PRIVATE KEY-----",
        ),
        ("ZIM2KAFKA_TLS_CERT", "first\ngeheim-content"),
    ];
    for (name, content) in contents {
        for arguments in [&["serve"][..], &["check"], &["check", "--json"]] {
            let brokers = ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1");
            let ended = run(arguments, &[brokers, (name, content)]);
            let shown = format!("{ended:?}");
            assert_eq!(ended.code, Some(2), "{shown}");
            assert!(!shown.contains("geheim-content"), "{shown}");
            let told = "is the content of a file and not its path";
            assert!(shown.contains(told), "{name}: {shown}");
        }
    }
}

#[test]
fn mixed_up_secrets_are_warned_of_once() {
    let service = Service::embedded(
        &["--drain-delay=0s"],
        &[("ZIM2KAFKA_CALLBACK_SECRETS", "1=another")],
    );
    for _ in 0..10 {
        assert!(service.post(good("").0).starts_with("HTTP/1.1 401"));
    }
    service.process.signal("TERM");
    let log = service.process.end().stderr;
    let warnings = log.lines().filter(|line| line.contains("ServerSecret"));
    assert_eq!(warnings.count(), 1, "{log}");
}

#[track_caller]
fn assert_shows_none(ended: &Ended) {
    for secret in [SECRET, PASSWORD, SEGMENT] {
        assert!(!ended.stdout.contains(secret), "{ended:?}");
        assert!(!ended.stderr.contains(secret), "{ended:?}");
    }
}

/// All that a service on a Kafka shows, and the status codes that it was brought to.
fn with_kafka(format: &str) -> (String, &'static [u16]) {
    let service = Service::embedded(&["--drain-delay=100ms"], &variables(format));
    service.ready();
    let mut shown = provoke(&service);
    let (body, _) = good("");
    for _ in 0..2 {
        shown += &service.post(&body);
    }
    // The same signature with another body.
    shown += &service.post(good(r#","extra_field":1"#).0);
    shown += &service.post(good(r#","event":"before_send_msg""#).0.replacen(
        r#""event":"group_join","#,
        "",
        1,
    ));
    for (dead, also) in [("group_exit", ""), ("group_join", r#","new_user_ids":[]"#)] {
        let body = good(also).0.replacen("group_join", dead, 1);
        let answer = service.post(body);
        assert!(answer.contains("dead_lettered"), "{answer}");
        shown += &answer;
    }
    (
        shown + &end(service),
        &[200, 400, 401, 404, 405, 413, 415, 431],
    )
}

/// All that a service without a Kafka shows.
fn without_kafka(format: &str) -> (String, &'static [u16]) {
    let variables = [
        &variables(format),
        &[("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1")][..],
    ]
    .concat();
    let deadlines = [
        "--answer-deadline=50ms",
        "--drain-delay=0s",
        "--stop-deadline=1s",
    ];
    let service = Service::start(&deadlines, &variables);
    let mut shown = provoke(&service);
    shown += &service.post(good("").0);
    shown += &service.post(good("").0.replacen("group_join", "group_exit", 1));
    (
        shown + &end(service),
        &[400, 401, 404, 405, 413, 415, 431, 503],
    )
}

/// All that a service shows of requests from where none may come.
fn from_a_network_that_is_not_allowed(format: &str) -> (String, &'static [u16]) {
    let networks = [
        ("ZIM2KAFKA_ALLOWED_NETWORKS", "203.0.113.0/24"),
        ("ZIM2KAFKA_TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    let variables = [&variables(format), &networks[..]].concat();
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    let mut shown = provoke(&service);
    let path = format!("/callbacks/{SEGMENT} HTTP/1.1\r\nx-forwarded-for: {MARKER}\r\nx-rest:");
    shown += &request(service.callbacks, "POST", &path, good("").0.as_bytes());
    (shown + &end(service), &[403])
}

/// Everything loud: all of the log, and librdkafka's own debugging.
fn variables(format: &str) -> [(&'static str, &str); 6] {
    const PROPERTIES: &str = "debug=all;sasl.username=u;sasl.password=passwort-93ab27";
    const PATH: &str = "/callbacks/abschnitt-77d2f0";
    assert!(PROPERTIES.contains(PASSWORD) && PATH.contains(SEGMENT));
    [
        (
            "ZIM2KAFKA_CALLBACK_SECRETS",
            "1=schluessel-1f0e5c,*=schluessel-1f0e5c",
        ),
        ("ZIM2KAFKA_CALLBACK_PATH", PATH),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", PROPERTIES),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_LOG", "trace"),
        ("ZIM2KAFKA_LOG_FORMAT", format),
    ]
}

/// A callback that is authentic, with its signature.
fn good(members: &str) -> (String, String) {
    signed(SECRET, members)
}

/// One that is not.
fn bad() -> (String, String) {
    signed("another", "")
}

fn signed(secret: &str, members: &str) -> (String, String) {
    let signature = zim2kafka::callback::sign(secret, "1470820198", NONCE).to_hex();
    let users = if members.contains("new_user_ids") {
        ""
    } else {
        r#""new_user_ids":["inhalt-e5b619"],"#
    };
    let body = format!(
        r#"{{"event":"group_join","group_id":"{CRAFTED} {MARKER}","join_type":"Apply",{users}"appid":"1","timestamp":1470820198,"nonce":"{NONCE}","signature":"{signature}"{members}}}"#
    );
    (body, signature)
}

/// Requests that are refused, and the admin port's pages.
fn provoke(service: &Service) -> String {
    let mut shown = String::new();
    let path = format!("/callbacks/{SEGMENT}");
    for body in [
        bad().0,
        bad().0.replacen("\"1\"", "\"another-appid\"", 1),
        good("").0.replacen("nonce", "no-nonce", 1),
        good("").0.replacen(NONCE, &format!("{NONCE}-{CRAFTED}"), 1),
        format!("{MARKER} {NONCE}"),
        format!("{{\"{MARKER}\""),
        good("").0.replacen('{', "{\"nonce\":\"x\",", 1),
        format!(
            "appid=1&timestamp=1470820198&nonce={NONCE}&signature={}&group_id=%0A%1B",
            bad().1
        ),
        MARKER.repeat(60_000),
    ] {
        shown += &service.post(body);
    }
    for (method, path) in [
        ("POST", format!("{path}/{MARKER}")),
        ("POST", format!("{path}?{NONCE}")),
        ("POST", "/%0A%1B[31m".to_owned()),
        ("GET", path.clone()),
        ("POST", "/metrics".to_owned()),
    ] {
        shown += &request(service.callbacks, method, &path, good("").0.as_bytes());
    }
    // What the request helper takes for a path may hold a header too.
    for header in [
        "content-encoding: gzip".to_owned(),
        format!("x: {}", NONCE.repeat(2000)),
    ] {
        let path = format!("{path} HTTP/1.1\r\n{header}\r\nx-rest:");
        shown += &request(service.callbacks, "POST", &path, good("").0.as_bytes());
    }
    // What is no HTTP at all, and what is none that we read.
    for broken in [
        format!("{MARKER}\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\n{NONCE} : x\r\n\r\n"),
        format!(
            "POST {path} HTTP/1.1\r\nContent-Length: {MARKER}\r\n\r\n{}",
            good("").0
        ),
        format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{NONCE}"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{MARKER}"),
    ] {
        shown += &say(service.callbacks, &broken);
    }
    for page in [
        "/",
        "/status.json",
        "/metrics",
        "/livez",
        "/readyz",
        "/nothing",
    ] {
        shown += &service.admin(page);
    }
    shown
}

/// The pages once more, the stop, and all of the log.
fn end(service: Service) -> String {
    let mut shown =
        service.admin("/metrics") + &service.admin("/") + &service.admin("/status.json");
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let debugging = ["DEBUG", "TRACE"]
        .iter()
        .any(|level| ended.stderr.contains(level));
    assert!(debugging, "the log tells all: {}", ended.stderr);
    shown += &ended.stdout;
    shown += &ended.stderr;
    shown
}

/// The memory holds the secrets of the callbacks and of Kafka.
#[test]
fn core_dumps_are_off_and_debuggers_are_kept_out() {
    const NOBODY: u32 = 65_534;
    let mut command = shell(
        "ulimit -S -c \"$(ulimit -H -c)\"; \
        exec zim2kafka serve --embedded-kafka --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0",
    );
    command.env("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret");
    let is_root = fs::metadata("/proc/self").expect("Linux has it").uid() == 0;
    let program = Path::new(env!("CARGO_BIN_EXE_zim2kafka"));
    let others_may_run_it = program.ancestors().all(|path| {
        let metadata = fs::metadata(path).expect("it is there");
        metadata.mode() & 0o001 != 0
    });
    if is_root && others_may_run_it {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut process = Process::start(command);
    process.logs("is listening");
    let file = |name| format!("/proc/{}/{name}", process.id());
    let limits = fs::read_to_string(file("limits")).expect("Linux has it");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("there is one").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "soft and hard: {core:?}");
    // The limit is ignored if a program takes the dumps. The owner of this file is root if nobody
    // may dump or trace the process, and its user if not.
    let owner = fs::metadata(file("environ")).expect("Linux has it").uid();
    assert_eq!(owner, 0);
}
