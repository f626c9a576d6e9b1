//! `check` of a Kafka that cannot be reached: which step of the connection fails.

use std::net::TcpListener;
use std::thread;

use super::folder;
use crate::check::report::{finding, report};
use crate::support::kafka::shared_cluster;
use crate::support::process::{Ended, taken};

/// The line that is about the connection to Kafka.
#[track_caller]
pub(super) fn error_of(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let is_error = |line: &&str| line.starts_with("error ") && line.contains(" Kafka ");
    let line = ended.stdout.lines().find(is_error);
    line.unwrap_or_else(|| panic!("no error: {ended:?}"))
}

/// `check` names the step of the connection that fails, with librdkafka's reason and what to check.
#[track_caller]
fn fails(brokers: &str, properties: &str, step: &str, reason: &str, advice: &str) {
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
        ("ZIM2KAFKA_KAFKA_BROKERS", brokers),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", properties),
    ];
    let (ended, report) = report(&[], &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let begin = format!("does not answer ({step}: {brokers}: ");
    let found = finding(&report, "error", "Kafka", &begin);
    assert_eq!(found["step"], step.to_lowercase(), "{report:#}");
    let text = found["text"].as_str().expect("text");
    assert!(
        text.contains(reason) && text.contains(advice),
        "{reason} {advice}: {text}"
    );
}

#[test]
fn check_names_the_step_of_the_connection_that_fails() {
    let (_refused, address) = taken();
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let nobody = closed.local_addr().expect("it is bound").to_string();
    drop(closed);
    let own = "ZIM2KAFKA_KAFKA_BROKERS";
    let security = "check security.protocol";
    let login =
        "security.protocol=SASL_PLAINTEXT;sasl.mechanism=PLAIN;sasl.username=u;sasl.password=p";
    // Most of them wait for a timeout, so they run side by side.
    thread::scope(|scope| {
        scope.spawn(|| {
            fails(
                "nosuch.invalid:9092",
                "",
                "resolve",
                "Failed to resolve",
                own,
            )
        });
        scope.spawn(|| fails(&nobody, "", "connect", "Connection refused", own));
        scope.spawn(|| fails(&nobody, login, "connect", "Connection refused", own));
        scope.spawn(|| {
            fails(
                &address,
                "",
                "connect",
                "timed out in state APIVERSION",
                own,
            )
        });
        let tls = "security.protocol=SSL";
        scope.spawn(|| {
            fails(
                &address,
                tls,
                "TLS",
                "timed out in state SSL_HANDSHAKE",
                security,
            )
        });
    });
}

#[test]
fn check_names_the_step_of_security_that_fails() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let sasl = cluster.sasl_ssl();
    let properties = |changed: &[(&str, &str)]| {
        let properties = sasl.properties("SCRAM-SHA-512").map(|(key, value)| {
            let change = changed.iter().find(|(name, _)| *name == key);
            let value = change.map_or(value.as_str(), |(_, value)| value);
            format!("{key}={value}")
        });
        properties.join("\n")
    };
    let home = folder();
    let other_ca = home.path().join("other.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&other_ca, made.cert.pem()).expect("it can be written");
    let other_ca = other_ca.to_str().expect("text");
    let security = "check security.protocol";
    let cases = [
        (
            cluster.brokers(),
            "security.protocol=SSL".to_owned(),
            "TLS",
            // By the end of the connection or of the handshake, whichever librdkafka sees first.
            "Disconnected: ",
        ),
        (
            sasl.brokers.as_str(),
            String::new(),
            "TLS",
            "closed by peer",
        ),
        (
            sasl.brokers.as_str(),
            properties(&[("ssl.ca.location", other_ca)]),
            "TLS",
            "certificate",
        ),
        (
            sasl.brokers.as_str(),
            properties(&[("sasl.password", "wrong")]),
            "SASL",
            "invalid credentials",
        ),
        (
            sasl.brokers.as_str(),
            properties(&[("sasl.mechanism", "PLAIN")]),
            "SASL",
            "Unsupported SASL mechanism",
        ),
        (
            sasl.brokers.as_str(),
            properties(&[("sasl.username", "nobody")]),
            "SASL",
            "invalid credentials",
        ),
        (
            sasl.brokers.as_str(),
            format!(
                "security.protocol=SSL\nssl.ca.location={}",
                sasl.ca_pem.display()
            ),
            "SASL",
            "Disconnected",
        ),
    ];
    thread::scope(|scope| {
        for (brokers, properties, step, reason) in &cases {
            scope.spawn(move || fails(brokers, properties, step, reason, security));
        }
    });
}
