//! Refused requests are counted, and one line is logged for many of them, without their text.

mod callbacks;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use zim2kafka::callback::sign;

use crate::support::app::PATIENCE;
use crate::support::process::{Service, request, say};
use crate::support::tls::Authority;
use crate::support::wire::{Wire, of_length};

/// Stands in everything that a line must not repeat: paths, header fields, bodies.
const MARK: &str = "sesame";
const PATH: (&str, &str) = ("ZIM2KAFKA_CALLBACK_PATH", "/sesame/zim");

/// How often each request is repeated.
const TIMES: usize = 5;

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

/// A callback of this application, signed with this secret at this time.
fn signed(appid: &str, secret: &str, timestamp: u64) -> String {
    let nonce = rand::random::<u32>().to_string();
    let signature = sign(secret, &timestamp.to_string(), &nonce).to_hex();
    let body = json!({
        "appid": appid, "event": "group_join", "group_id": MARK, "join_type": "Apply",
        "new_user_ids": [MARK], "nonce": nonce, "timestamp": timestamp, "signature": signature,
        MARK: MARK,
    });
    body.to_string()
}

/// Ends the service and returns its log, of which no line may contain the mark.
#[track_caller]
fn log_of(service: Service) -> String {
    service.process.signal("TERM");
    let log = service.process.end().stderr;
    assert!(!log.contains(MARK), "{log}");
    log
}

/// This is logged once.
#[track_caller]
fn is_logged_once(log: &str, line: &str) {
    assert_eq!(log.matches(line).count(), 1, "{line}\n{log}");
}

fn refused(service: &Service, reason: &str) -> f64 {
    service.metric(&format!(
        "zim2kafka_requests_refused_total{{reason=\"{reason}\"}}"
    ))
}

fn of_app(service: &Service, appid: &str, outcome: &str) -> f64 {
    service.metric(&format!(
        "zim2kafka_app_callbacks_total{{appid=\"{appid}\",outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn what_ends_before_it_is_a_callback_is_counted_and_logged_once_a_minute() {
    let service = Service::embedded(&["--drain-delay=0s"], &[PATH]);
    service.ready();
    let of_reason = |reason: &str| refused(&service, reason);
    let mut counted = 0.0;
    let mut lines = Vec::new();
    let long_uri = format!(
        "POST /sesame{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "x".repeat(70_000)
    );
    let many_fields = format!(
        "POST /sesame/zim HTTP/1.1\r\n{}\r\n",
        "sesame: x\r\n".repeat(200)
    );
    // The bytes, the status line of the answer if there is one, the reason, and the line.
    for (bytes, status, reason, line) in [
        (
            "POST /sesame/zim/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "404",
            "not_found",
            "1 request to a path that differs from ZIM2KAFKA_CALLBACK_PATH only by a slash at its end was answered 404 in the last minute; correct the URL in ZEGOCLOUD's console",
        ),
        (
            "POST /sesame/other HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "404",
            "not_found",
            "1 request to a path other than ZIM2KAFKA_CALLBACK_PATH was answered 404 in the last minute; compare the URL in ZEGOCLOUD's console (a slash at the end counts)",
        ),
        (
            "GET /sesame HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "404",
            "not_found",
            "1 request to a path other than ZIM2KAFKA_CALLBACK_PATH with a method other than POST was answered 404 in the last minute",
        ),
        (
            "GET /sesame/zim HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "405",
            "method",
            "1 request to ZIM2KAFKA_CALLBACK_PATH with GET or HEAD was answered 405 in the last minute; browsers and health checks send these. The health check of a load balancer should request /livez on the admin port",
        ),
        (
            "PUT /sesame/zim HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "405",
            "method",
            "1 request to ZIM2KAFKA_CALLBACK_PATH with a method other than POST was answered 405 in the last minute",
        ),
        (
            "sesame\r\n\r\n",
            "400",
            "http",
            "1 request that is not valid HTTP/1.1 was answered 400 in the last minute",
        ),
        (
            "POST /sesame/zim HTTP/1.1\r\nsesame\x01: x\r\n\r\n",
            "400",
            "http",
            "",
        ),
        (
            &long_uri,
            "4",
            "http",
            "1 request with a head of more than 24 KiB or 100 fields was answered 431 or 414 in the last minute",
        ),
        (&many_fields, "431", "http", ""),
        (
            "PROXY TCP4 192.0.2.1 192.0.2.2 5 8080\r\nPOST /sesame/zim HTTP/1.1\r\nHost: x\r\n\r\n",
            "400",
            "http",
            "1 connection that began with a PROXY protocol header was closed in the last minute; turn the PROXY protocol off at the load balancer",
        ),
        ("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "400", "http", ""),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03sesame",
            "400",
            "http",
            "1 connection that began with a TLS handshake, on a port without TLS, was closed in the last minute; the URL in ZEGOCLOUD's console begins with https://: set ZIM2KAFKA_TLS_CERT and ZIM2KAFKA_TLS_KEY",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "",
            "http",
            "1 connection that began with HTTP/2 was closed in the last minute",
        ),
    ] {
        let before = of_reason(reason);
        for _ in 0..TIMES {
            let answer = say(service.callbacks, bytes);
            let expected = match status {
                "" => String::new(),
                status => format!("HTTP/1.1 {status}"),
            };
            let is_answered =
                answer.starts_with(&expected) && answer.is_empty() == status.is_empty();
            // An answer to what was not read to its end may be lost.
            assert!(is_answered || bytes.len() > 60_000, "{bytes:?}: {answer:?}");
        }
        assert_eq!(of_reason(reason), before + TIMES as f64, "{bytes:?}");
        counted += TIMES as f64;
        lines.extend((!line.is_empty()).then_some(line));
    }
    assert_eq!(
        ["not_found", "method", "http", "tls"].map(of_reason),
        [15.0, 10.0, counted - 25.0, 0.0]
    );
    let log = log_of(service);
    for line in lines {
        is_logged_once(&log, line);
    }
    // A stop logs the others, which would have waited for their line.
    is_logged_once(
        &log,
        "4 requests to ZIM2KAFKA_CALLBACK_PATH with GET or HEAD were answered 405",
    );
}

#[test]
fn a_request_on_the_admin_port_leaves_no_trace_and_neither_does_a_check_that_only_connects() {
    let service = Service::embedded(&["--drain-delay=0s"], &[PATH]);
    service.ready();
    for _ in 0..TIMES {
        assert!(request(service.admin, "POST", "/sesame", b"").starts_with("HTTP/1.1 404"));
        assert!(say(service.admin, "sesame\r\n\r\n").starts_with("HTTP/1.1 400"));
        drop(std::net::TcpStream::connect(service.callbacks).expect("it listens"));
    }
    // What was used and is closed then is no broken request.
    let body = signed("1", "secret", now());
    assert!(service.post(body).contains("published"));
    for reason in ["not_found", "method", "http", "tls"] {
        assert_eq!(refused(&service, reason), 0.0, "{reason}");
    }
    assert!(!log_of(service).contains("in the last minute"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_within_its_first_head_is_counted_and_later_ones_are_not() {
    let service = Service::embedded(&["--drain-delay=0s"], &[]);
    service.ready();
    let half = "POST /callbacks/zim HTTP/1.1\r\nHo";
    let mut wire = Wire::at(service.callbacks).await;
    let answer = wire.post(signed("1", "secret", now())).await;
    assert_eq!(answer.json()["status"], "published");
    wire.say(half).await;
    wire.say_no_more().await;
    wire.end().await;
    let mut wire = Wire::at(service.callbacks).await;
    wire.say(half).await;
    wire.say_no_more().await;
    wire.end().await;
    // Neither is a first request whose body ends early.
    let mut wire = Wire::at(service.callbacks).await;
    wire.say([of_length(100_000).as_bytes(), &[b' '; 50_000]].concat())
        .await;
    wire.say_no_more().await;
    wire.end().await;
    let log = service.process.stderr();
    assert_eq!(refused(&service, "http"), 1.0, "{log}");
    is_logged_once(
        &log_of(service),
        "1 connection that ended within the head of its first request was closed in the last minute",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_arrive_in_time_is_counted_and_logged() {
    let service = Service::embedded(&["--drain-delay=0s", "--idle-timeout=2s"], &[PATH]);
    service.ready();
    let mut unfinished = Wire::at(service.callbacks).await;
    let head = "POST /sesame/zim HTTP/1.1\r\nHost: sesame\r\n";
    unfinished.say(head).await;
    // A connection that is idle for too long is not refused.
    let mut silent = Wire::at(service.callbacks).await;
    silent.end().await;
    assert_eq!(refused(&service, "http"), 0.0);
    unfinished.end().await;
    let deadline = Instant::now() + PATIENCE;
    while refused(&service, "http") < 1.0 {
        assert!(Instant::now() < deadline, "it is not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = log_of(service);
    is_logged_once(
        &log,
        "1 connection on which the head of a request did not arrive in 10 s was closed in the last minute; clients that send slowly cause these",
    );
    is_logged_once(&log, "in the last minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_handshakes_are_told_apart_by_what_the_client_speaks() {
    let authority = Authority::new();
    authority.write(2099);
    let [cert, key] = authority.variables();
    let variables = [(cert.0, cert.1.as_str()), (key.0, key.1.as_str()), PATH];
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    service.ready();
    for _ in 0..TIMES {
        say(
            service.callbacks,
            "POST /sesame/zim HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        say(
            service.callbacks,
            "PROXY TCP4 192.0.2.1 192.0.2.2 5 8080\r\n",
        );
        say(service.callbacks, "\0sesame");
        // Another authority's client does not accept the certificate.
        let stranger = Authority::new();
        let refused = stranger
            .connect(service.callbacks, &[&rustls::version::TLS13])
            .await;
        assert!(refused.is_err());
        drop(std::net::TcpStream::connect(service.callbacks).expect("it listens"));
    }
    // Within TLS, requests are watched as without it.
    let stream = authority
        .connect(service.callbacks, &[&rustls::version::TLS13])
        .await;
    let mut wire = Wire::over(stream.expect("a handshake"));
    wire.say("sesame\r\n\r\n").await;
    assert!(wire.hear_all().await.starts_with(b"HTTP/1.1 400"));

    let log = service.process.stderr();
    let failures = "zim2kafka_tls_handshake_failures_total";
    let deadline = Instant::now() + PATIENCE;
    while service.metric(failures) < 25.0 {
        assert!(Instant::now() < deadline, "{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refused(&service, "tls"), 20.0, "{log}");
    assert_eq!(refused(&service, "http"), 1.0, "{log}");
    let log = log_of(service);
    for line in [
        "1 connection that began with HTTP instead of TLS was closed in the last minute; the URL in ZEGOCLOUD's console must begin with https://",
        "1 connection that began with a PROXY protocol header instead of TLS was closed in the last minute; turn the PROXY protocol off at the load balancer",
        "1 TLS handshake was not completed in the last minute",
        "1 TLS handshake was ended by the client in the last minute; it probably does not accept the certificate",
        "1 request that is not valid HTTP/1.1 was answered 400 in the last minute",
    ] {
        is_logged_once(&log, line);
    }
}
