//! `send` as the sender: what the service answers in each scenario, over HTTP and HTTPS.

use rcgen::CertificateParams;
use serde_json::Value;

use crate::support::process::{Service, run};
use crate::support::schema::conforms;
use crate::support::tls::{self, Authority};

const SECRETS: (&str, &str) = ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret");

/// The exit code and the summary of `send --json` with these flags.
#[track_caller]
fn summary(url: &str, more: &[&str]) -> (Option<i32>, Value) {
    let ended = run(
        &[&["send", "--json", "--url", url], more].concat(),
        &[SECRETS],
    );
    let summary = serde_json::from_str(&ended.stdout);
    let summary = summary.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.stdout.lines().count(), 1);
    conforms("urn:zim2kafka:schema:send-summary:v1", &summary);
    (ended.code, summary)
}

/// How many of the posts were answered with each name, or failed for each reason.
fn counts(summary: &Value, kind: &str) -> Vec<(String, u64)> {
    let counts = summary[kind].as_object().expect("an object").iter();
    let count = |value: &Value| value.as_u64().expect("a number");
    counts
        .map(|(name, value)| (name.clone(), count(value)))
        .collect()
}

/// A scenario, the answers with their numbers, and the number of posts.
type Expected<'a> = (&'a str, &'a [(&'a str, u64)], u64);

#[test]
fn every_scenario_is_answered_as_its_help_says() {
    let service = Service::embedded(&[], &[("ZIM2KAFKA_TOPICS", "all")]);
    service.ready();
    let url = service.url();
    // A mix has 17 events in 93 of 101 callbacks, and 8 questions.
    const QUESTIONS: (&str, u64) = ("result 0", 8);
    let expected: [Expected<'_>; 6] = [
        (
            "resend",
            &[("duplicate", 93), ("published", 93), ("result 0", 16)],
            202,
        ),
        ("reuse", &[("published", 186), ("result 0", 16)], 202),
        ("stale", &[("dead_lettered", 93), QUESTIONS], 101),
        ("invalid", &[("dead_lettered", 93), QUESTIONS], 101),
        ("form", &[("published", 93), QUESTIONS], 101),
        ("percent", &[("published", 93), QUESTIONS], 101),
    ];
    for (scenario, answers, sent) in expected {
        let flags = ["--event=mix", "--count=101", "--scenario", scenario];
        let (code, summary) = summary(&url, &flags);
        assert_eq!(code, Some(0), "{scenario}: {summary}");
        let answers = answers
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        assert_eq!(
            counts(&summary, "answers"),
            Vec::from_iter(answers),
            "{scenario}"
        );
        assert_eq!(summary["sent"], sent, "{scenario}");
        assert_eq!(summary["succeeded"], sent, "{scenario}");
        assert_eq!(counts(&summary, "failures"), [], "{scenario}");
    }

    // In the topics: one of each resend, both of each reuse, forms, percent-encoded ones.
    let records = service.tail(&["--topics=all", "--count=465"]);
    let is_reuse = |record: &&Value| record["headers"]["ce_signaturereused"] == "true";
    assert_eq!(records.iter().filter(is_reuse).count(), 93);
    for reason in ["stale", "invalid_event"] {
        let dead = service.tail(&["--dead-letter", "--reason", reason, "--count=93"]);
        let is_of = |record: &Value| record["headers"]["dead_letter_reason"] == reason;
        assert!(dead.iter().all(is_of), "{dead:?}");
    }
}

#[test]
fn a_wrong_secret_is_refused_once_and_ends_with_1() {
    let service = Service::embedded(&[], &[]);
    service.ready();
    let flags = ["--scenario=wrong-secret", "--count=3"];
    let (code, summary) = summary(&service.url(), &flags);
    assert_eq!(code, Some(1), "{summary}");
    let refused = ("answer 401 Unauthorized".to_owned(), 3);
    assert_eq!(counts(&summary, "failures"), [refused]);
    for (name, count) in [
        ("sent", 3),
        ("succeeded", 0),
        ("given_up", 3),
        ("retried", 0),
    ] {
        assert_eq!(summary[name], count, "{name}");
    }
}

#[test]
fn the_appid_chooses_the_secret_that_signs() {
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=one,2=two")];
    let service = Service::embedded(&[], &secrets);
    service.ready();
    let url = service.url();
    for flags in [&[][..], &["--appid=2"]] {
        let flags = [&["send", "--url", &url], flags].concat();
        assert_eq!(run(&flags, &secrets).code, Some(0));
    }
    let records = service.tail(&["--count=2"]);
    let appids = records.iter().map(|record| &record["value"]["appid"]);
    let mut appids: Vec<_> = appids.filter_map(Value::as_str).collect();
    appids.sort_unstable();
    assert_eq!(appids, ["1", "2"]);
}

/// A service that speaks HTTPS, with a certificate of this authority for localhost.
fn https(authority: &Authority) -> Service {
    let localhost = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let (cert, key) = authority.issue_with(2100, |params| {
        params.subject_alt_names = localhost.subject_alt_names;
    });
    tls::write(&authority.cert(), &cert);
    tls::write(&authority.key(), &key);
    let files = authority.variables();
    let files = [&files[0], &files[1]].map(|(name, file)| (*name, file.as_str()));
    let service = Service::embedded(&[], &files);
    service.ready();
    service
}

#[test]
fn https_is_posted_to_a_server_with_a_certificate_of_a_trusted_authority() {
    let authority = Authority::new();
    let service = https(&authority);
    let port = service.callbacks.port();
    let url = format!("https://localhost:{port}/callbacks/zim");
    let ca = authority.ca();
    let ca = ca.to_str().expect("text");
    let (code, summary) = summary(&url, &["--ca", ca, "--count=20", "--scenario=resend"]);
    assert_eq!(code, Some(0), "{summary}");
    let answers = [("duplicate".to_owned(), 20), ("published".to_owned(), 20)];
    assert_eq!(counts(&summary, "answers"), answers);
    // The system's list of authorities is where this variable says.
    let system = [SECRETS, ("SSL_CERT_FILE", ca)];
    assert_eq!(run(&["send", "--url", &url], &system).code, Some(0));
    let printed = run(&["send", "--print", "--url", &url, "--ca", ca], &[SECRETS]);
    assert!(
        printed
            .stdout
            .contains(&format!("curl -sS --cacert '{ca}' ")),
        "{printed:?}"
    );
}

#[test]
fn a_server_that_cannot_be_verified_gets_no_callback_and_the_reason_is_reported() {
    let (authority, other) = (Authority::new(), Authority::new());
    let service = https(&authority);
    let port = service.callbacks.port();
    let [ca, other] = [&authority, &other].map(|authority| {
        let file = authority.ca();
        file.to_str().expect("text").to_owned()
    });
    let named = |host: &str| format!("https://{host}:{port}/callbacks/zim");
    let plain = Service::embedded(&[], &[]);
    let no_tls = format!("https://127.0.0.1:{}/", plain.callbacks.port());
    for (url, ca, reason) in [
        (
            named("localhost"),
            &other,
            "name the file of its authority with --ca",
        ),
        (named("127.0.0.1"), &ca, "not valid for name"),
        (
            no_tls,
            &ca,
            "the server does not answer with TLS; write http:// in the URL",
        ),
    ] {
        // Without retries.
        let (code, summary) = summary(&url, &["--ca", ca, "--scenario=wrong-secret"]);
        assert_eq!(code, Some(1), "{summary}");
        let failures = counts(&summary, "failures");
        let [(found, 1)] = &failures[..] else {
            panic!("{failures:?}");
        };
        assert!(found.contains(reason), "{found}");
        assert!(
            !found.contains("callbacks/zim"),
            "the path may be a secret: {found}"
        );
    }
    assert_eq!(service.metric(UNAUTHORIZED), 0.0);
}

const UNAUTHORIZED: &str = r#"zim2kafka_callbacks_total{outcome="unauthorized"}"#;

#[test]
fn a_file_without_an_authority_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.to_str().expect("text").to_owned()
    };
    let empty = file("empty.pem", "no certificate");
    let broken = file(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let missing = folder.path().join("missing.pem");
    let missing = missing.to_str().expect("text");
    for (url, ca, problem) in [
        ("https://h/", empty.as_str(), "has no certificate; write"),
        ("https://h/", &broken, "CERTIFICATE PEM block"),
        ("https://h/", missing, "missing.pem"),
        ("http://h/", &broken, "write https:// there"),
    ] {
        let ended = run(&["send", "--url", url, "--ca", ca], &[SECRETS]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let line = ended.stderr.trim_end();
        assert!(
            line.contains("--ca: ") && line.contains(problem),
            "{ended:?}"
        );
        assert_eq!(line.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn equal_seeds_send_equal_contents() {
    let print = |seed: &str| {
        let flags = ["send", "--print", "--event=mix", "--seed", seed];
        let ended = run(&flags, &[SECRETS]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let body = ended.stdout.lines().next().unwrap_or_default();
        let mut body: Value = serde_json::from_str(body).expect("JSON");
        let body = body.as_object_mut().expect("an object");
        body.retain(|name, _| name != "signature" && !name.contains("time"));
        body.clone()
    };
    let one = print("1");
    assert_eq!(print("1"), one);
    assert_ne!(print("2"), one);
}

#[test]
fn every_body_of_a_scenario_is_printed_with_its_command() {
    for (scenario, posts, content_type) in [
        ("reuse", 2, "application/json"),
        ("form", 1, "application/x-www-form-urlencoded"),
    ] {
        let ended = run(&["send", "--print", "--scenario", scenario], &[SECRETS]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let parts: Vec<_> = ended.stdout.trim_end().split("\n\n").collect();
        assert_eq!(parts.len(), 2 * posts, "{ended:?}");
        for [body, line] in parts.as_chunks().0 {
            let header = format!("curl -sS -H 'content-type: {content_type}' -d '{body}' ");
            assert!(line.starts_with(&header), "{ended:?}");
        }
    }
}

#[test]
fn without_a_terminal_a_line_every_ten_seconds_shows_the_progress() {
    let service = Service::embedded(&[], &[]);
    service.ready();
    let url = service.url();
    let flags = ["send", "--url", &url, "--rate=2", "--duration=11s"];
    let ended = run(&flags, &[SECRETS]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("{ended:?}");
    };
    assert!(line.contains(" INFO ") && line.contains(", 2xx "), "{line}");
    assert!(line.contains("retried 0, given up 0"), "{line}");
    assert!(ended.stdout.starts_with("sent        22 in "), "{ended:?}");
}
