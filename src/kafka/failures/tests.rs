use super::*;

#[test]
fn the_text_of_librdkafka_names_the_step_that_failed() {
    for (text, broker, step, reason) in [
        (
            "127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)",
            "127.0.0.1:9",
            Step::Connect,
            "Connect to ipv4#127.0.0.1:9 failed: Connection refused",
        ),
        (
            "[thrd:ssl://SASL-SSL:9092/bootstrap]: ssl://SASL-SSL:9092/bootstrap: Failed to resolve 'SASL-SSL:9092': Name or service not known (after 3ms in state CONNECT, 4 identical error(s) suppressed)",
            "SASL-SSL:9092",
            Step::Resolve,
            "Failed to resolve 'SASL-SSL:9092': Name or service not known",
        ),
        (
            "sasl_ssl://[::1]:9093/1: Connect to ipv6#[::1]:9093 failed: Connection refused (after 0ms in state CONNECT)",
            "[::1]:9093",
            Step::Connect,
            "Connect to ipv6#[::1]:9093 failed: Connection refused",
        ),
        (
            "ssl://a:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            "a:1",
            Step::Tls,
            "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
        ),
        (
            "ssl://a:1/bootstrap: Connection setup timed out in state SSL_HANDSHAKE (after 30000ms in state SSL_HANDSHAKE)",
            "a:1",
            Step::Tls,
            "Connection setup timed out in state SSL_HANDSHAKE",
        ),
        (
            "a:1/bootstrap: Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 2ms in state APIVERSION_QUERY)",
            "a:1",
            Step::Tls,
            "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request)",
        ),
        (
            "a:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 2ms in state APIVERSION_QUERY)",
            "a:1",
            Step::Tls,
            "Disconnected: connection closed by peer: receive 0 after POLLIN",
        ),
        (
            "a:1/1: Disconnected: connection closed by peer: POLLHUP (after 0ms in state APIVERSION_QUERY)",
            "a:1",
            Step::Connect,
            "Disconnected: connection closed by peer: POLLHUP",
        ),
        (
            "a:1/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes (after 2ms in state APIVERSION_QUERY)",
            "a:1",
            Step::Tls,
            "Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes",
        ),
        (
            "a:1/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 12ms in state UP, 3 identical error(s) suppressed)",
            "a:1",
            Step::Sasl,
            "Disconnected: connection closed by peer: receive 0 after POLLIN",
        ),
        (
            "a:1/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 2000ms in state UP)",
            "a:1",
            Step::Connect,
            "Disconnected: connection closed by peer: receive 0 after POLLIN",
        ),
        (
            "a:1/bootstrap: Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication (after 312ms in state UP)",
            "a:1",
            Step::Sasl,
            "Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication",
        ),
        (
            "sasl_ssl://a:1/bootstrap: SASL authentication error: Authentication failed (after 5ms in state AUTH_REQ)",
            "a:1",
            Step::Sasl,
            "SASL authentication error: Authentication failed",
        ),
        (
            "sasl_plaintext://a:1/bootstrap: Connection setup timed out in state AUTH_HANDSHAKE (after 9ms in state AUTH_HANDSHAKE)",
            "a:1",
            Step::Sasl,
            "Connection setup timed out in state AUTH_HANDSHAKE",
        ),
        (
            "a:1/bootstrap: Connection setup timed out in state APIVERSION_QUERY (after 9ms in state APIVERSION_QUERY)",
            "a:1",
            Step::Connect,
            "Connection setup timed out in state APIVERSION_QUERY",
        ),
    ] {
        let failure = Failure::parse(text).expect(text);
        assert_eq!(
            (
                failure.broker.as_str(),
                failure.step,
                failure.reason.as_str()
            ),
            (broker, step, reason)
        );
    }
    for other in ["1/1 brokers are down", "No brokers configured", "a: b", ""] {
        assert_eq!(Failure::parse(other), None, "{other}");
    }
}

#[test]
fn an_address_with_a_number_is_one_that_kafka_advertises() {
    let parse = |name| parse_name(name);
    assert_eq!(parse("a:1/bootstrap"), Some(("a:1", false)));
    assert_eq!(parse("ssl://a:1/7"), Some(("a:1", true)));
    assert_eq!(parse("1/1 brokers are down"), None);
    assert_eq!(parse("GroupCoordinator"), None);
}

#[test]
fn the_last_failure_of_each_broker_is_listed_with_its_age_until_it_connects() {
    let now = Instant::now();
    let mut failures = Failures::default();
    let add = |failures: &mut Failures, name: &str, reason: &str, at| {
        failures.add(
            Failure::parse(&format!("{name}: {reason}")).expect("valid"),
            at,
        );
    };
    add(&mut failures, "a:1/1", "Receive failed", now);
    add(&mut failures, "a:1/1", "Connect to x failed: refused", now);
    add(
        &mut failures,
        "b:1/bootstrap",
        "Connect to y failed: no route",
        now,
    );
    let later = now + Duration::from_secs(12);
    add(
        &mut failures,
        "c:1/2",
        "Connect to z failed: refused",
        later,
    );
    assert_eq!(
        failures.text(|failure| failure.is_advertised, later),
        "connect: c:1: Connect to z failed: refused; connect: a:1: Connect to x failed: refused, 12 s ago"
    );
    failures.remove("a:1");
    failures.remove("c:1");
    assert_eq!(
        failures.text(|_| true, now),
        "connect: b:1: Connect to y failed: no route"
    );
    for port in 0..100 {
        let reason = format!("Receive failed: {port}");
        add(&mut failures, &format!("d:{port}/1"), &reason, later);
    }
    assert_eq!(failures.iter().count(), KEPT_BROKERS);
    let text = failures.text(|_| true, later);
    assert!(text.ends_with("; and 24 more brokers"), "{text}");
    assert!(!text.contains("b:1"), "the oldest one left: {text}");
}

#[test]
fn brokers_that_fail_for_the_same_reason_are_listed_together() {
    let now = Instant::now();
    let text = |brokers: std::ops::Range<usize>, other: &str| {
        let mut failures = Failures::default();
        let texts = brokers.map(|at| {
            format!("b{at}:1/{at}: Connect to ipv4#10.0.0.{at}:1 failed: Connection refused (after 0ms in state CONNECT)")
        });
        for text in texts.chain([other.to_owned()]) {
            failures.add(Failure::parse(&text).expect("valid"), now);
        }
        failures.text(|_| true, now)
    };
    let tls = "ssl://z:1/9: SSL handshake failed: x (after 1ms in state SSL_HANDSHAKE)";
    let tls_text = "TLS: z:1: SSL handshake failed: x";
    let refused = "connect: b1:1, b2:1, b3:1, b4:1, b5:1, b6:1, b7:1, b8:1";
    for (brokers, expected) in [
        (1..3, "connect: b1:1, b2:1: Connection refused".to_owned()),
        (1..9, format!("{refused}: Connection refused")),
        (
            1..10,
            format!("{refused} and 1 more broker: Connection refused"),
        ),
    ] {
        let expected = format!("{expected}; {tls_text}");
        assert_eq!(text(brokers, tls), expected);
    }
    let unknown = "Failed to resolve 'b:1': Name or service not known (after 1ms in state CONNECT)";
    let resolve = text(0..0, &format!("b:1/1: {unknown}"));
    assert_eq!(
        resolve,
        "resolve: b:1: Failed to resolve 'b:1': Name or service not known"
    );
}
