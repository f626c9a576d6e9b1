//! HTTPS on the callback port.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::app::{PATIENCE, callback};
use crate::support::process::{Ended, Service, run};
use crate::support::tls::{Authority, write};
use crate::support::wire::Wire;

/// A service with the authority's files.
fn serve(authority: &Authority, more: &[(&str, &str)]) -> Service {
    let files = authority.variables();
    let mut variables: Vec<_> = files
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    variables.push(("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"));
    variables.extend(more);
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    service.ready();
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_tls_1_2_or_1_3_and_nothing_else() {
    let authority = Authority::new();
    authority.write(2099);
    let service = serve(&authority, &[]);
    for version in [&TLS12, &TLS13] {
        let stream = authority.connect(service.callbacks, &[version]).await;
        let mut wire = Wire::over(stream.expect("a handshake"));
        for _ in 0..2 {
            let answer = wire.post(callback(json!({}))).await;
            assert_eq!(answer.json()["status"], "published", "{version:?}");
        }
    }
    assert_eq!(
        service.metric("zim2kafka_tls_handshake_failures_total"),
        0.0
    );
    let not_after = service.metric("zim2kafka_tls_certificate_not_after_timestamp_seconds");
    assert_eq!(not_after, 4_102_358_400.0, "2099-12-31T00:00:00Z");

    // Plain HTTP is no handshake, and neither is a ClientHello of TLS 1.1.
    let mut wire = Wire::at(service.callbacks).await;
    wire.try_say("POST /callbacks/zim HTTP/1.1\r\nHost: here\r\n\r\n")
        .await;
    let said = timeout(PATIENCE, wire.hear_all()).await.expect("it ends");
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let mut hello = vec![0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2];
    hello.extend([7; 32]);
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression, no extensions.
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0, 0, 0]);
    let hello = hello.get(..52).expect("its length");
    let mut wire = Wire::at(service.callbacks).await;
    wire.try_say(hello).await;
    let said = timeout(PATIENCE, wire.hear_all()).await.expect("it ends");
    // A fatal alert.
    assert_eq!(said.get(..1), Some(&[0x15][..]), "{said:?}");
    assert_eq!(said.get(5), Some(&2), "{said:?}");
    assert_eq!(
        service.metric("zim2kafka_tls_handshake_failures_total"),
        2.0
    );
    let refused = service.metric("zim2kafka_requests_refused_total{reason=\"tls\"}");
    assert_eq!(refused, 2.0);
    // The admin port stays what it was.
    assert!(service.admin("/livez").starts_with("HTTP/1.1 200"));
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0));
    let plain = "1 connection that began with HTTP instead of TLS was closed in the last minute";
    let failed = "1 TLS handshake was not completed in the last minute";
    for line in [plain, failed] {
        assert_eq!(ended.stderr.matches(line).count(), 1, "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_ten_seconds() {
    let authority = Authority::new();
    authority.write(2099);
    let service = serve(&authority, &[]);
    // The limit begins before our side knows that the connection is there.
    let silent = async {
        let began = Instant::now();
        let mut wire = Wire::at(service.callbacks).await;
        timeout(PATIENCE, wire.end()).await.expect("it ends");
        began.elapsed()
    };
    let stops = async {
        let began = Instant::now();
        let mut wire = Wire::at(service.callbacks).await;
        // A record of 512 bytes, of which the first are here.
        wire.say([0x16, 3, 1, 2, 0, 1]).await;
        timeout(PATIENCE, wire.end()).await.expect("it ends");
        began.elapsed()
    };
    // After it, the connection is idle: its own limit counts, and it is the longer one.
    let idle = async {
        let stream = authority.connect(service.callbacks, &[&TLS13]).await;
        let mut wire = Wire::over(stream.expect("a handshake"));
        tokio::time::sleep(Duration::from_secs(12)).await;
        wire.post(callback(json!({}))).await.status.as_u16()
    };
    let (silent, stops, idle) = tokio::join!(silent, stops, idle);
    for took in [silent, stops] {
        assert!((10..13).contains(&took.as_secs()), "{took:?}");
    }
    assert_eq!(idle, 200);
}

/// What a start needs besides.
const OTHERS: [(&str, &str); 2] = [
    ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
    ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
];

#[test]
fn an_invalid_certificate_or_key_stops_the_start_and_is_not_shown() {
    let authority = Authority::new();
    let (cert, key) = authority.issue(2099);
    let (_, other_key) = authority.issue(2099);
    let refused = |cert: &str, key: &str, variable: &str| {
        write(&authority.cert(), cert);
        write(&authority.key(), key);
        let files = authority.variables();
        let files: Vec<_> = files
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let ended = run(&["serve"], &[&files[..], &OTHERS].concat());
        is_refused(&ended, variable);
        let secret = key.lines().nth(1).unwrap_or("no such line");
        assert!(!ended.stderr.contains(secret), "{ended:?}");
    };
    refused("", &key, "ZIM2KAFKA_TLS_CERT");
    refused("certificate", &key, "ZIM2KAFKA_TLS_CERT");
    refused(&key, &cert, "ZIM2KAFKA_TLS_CERT");
    refused(&cert.replace("MII", "MIJ"), &key, "ZIM2KAFKA_TLS_CERT");
    refused(&cert, "", "ZIM2KAFKA_TLS_KEY");
    refused(&cert, &cert, "ZIM2KAFKA_TLS_KEY");
    refused(&cert, &other_key, "ZIM2KAFKA_TLS_CERT");
    refused(&cert, &key.replace("MI", "MJ"), "ZIM2KAFKA_TLS");

    std::fs::remove_file(authority.key()).expect("it was written");
    let [cert, key] = authority.variables();
    let ended = run(
        &["serve"],
        &[&[(cert.0, cert.1.as_str()), (key.0, &key.1)], &OTHERS[..]].concat(),
    );
    is_refused(&ended, "ZIM2KAFKA_TLS_KEY");
    is_refused(
        &run(
            &["serve"],
            &[&[(cert.0, cert.1.as_str())], &OTHERS[..]].concat(),
        ),
        "ZIM2KAFKA_TLS_KEY",
    );
    is_refused(
        &run(
            &["serve"],
            &[&[(key.0, key.1.as_str())], &OTHERS[..]].concat(),
        ),
        "ZIM2KAFKA_TLS_CERT",
    );
    authority.write(2099);
    let ended = run(
        &["demo", "--count=1"],
        &[(cert.0, &cert.1), (key.0, &key.1)],
    );
    is_refused(&ended, "ZIM2KAFKA_TLS_CERT");
}

#[track_caller]
fn is_refused(ended: &Ended, variable: &str) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(variable), "{ended:?}");
}
