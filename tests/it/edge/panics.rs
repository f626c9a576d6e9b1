//! What a panic costs: a request, or the process where less would be a silent half of a service.

use serde_json::json;

use crate::support::app::callback;
use crate::support::process::Service;

fn panicking(place: &str, more: &[(&str, &str)]) -> Service {
    let asked = [
        ("ZIM2KAFKA_TEST_PANIC", place),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
    ];
    let service = Service::embedded(&["--drain-delay=0s"], &[&asked, more].concat());
    service.ready();
    service
}

#[test]
fn a_panic_in_a_handler_costs_one_request() {
    let service = panicking("handler", &[]);
    for count in [1.0, 2.0] {
        let answer = service.post(callback(json!({})));
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        let failed = service.metric("zim2kafka_callbacks_total{outcome=\"failed\"}");
        assert_eq!(failed, count);
    }
    assert_eq!(service.metric("zim2kafka_callbacks_in_flight"), 0.0);
    assert!(service.admin("/readyz").starts_with("HTTP/1.1 200"));
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("ZIM2KAFKA_TEST_PANIC is set"),
        "{ended:?}"
    );
}

#[test]
fn a_panic_on_the_admin_port_is_answered_with_the_headers_of_that_port() {
    let asked = [("ZIM2KAFKA_TEST_PANIC", "admin")];
    let service = Service::embedded(&[], &asked);
    for path in ["/", "/status.json", "/livez", "/metrics"] {
        let answer = service.admin(path);
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        for header in [
            "content-type: application/problem+json",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        ] {
            assert!(answer.contains(&format!("\r\n{header}\r\n")), "{answer}");
        }
    }
}

/// The process is gone at once, by a signal of its own, and has said why.
#[track_caller]
fn ends_the_process(service: Service) {
    let answer = service.post(callback(json!({})));
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    let ended = service.process.end();
    assert_eq!(ended.code, None, "a signal: {ended:?}");
    assert!(
        ended.stderr.contains("ZIM2KAFKA_TEST_PANIC is set"),
        "{ended:?}"
    );
}

#[test]
fn a_panic_in_the_publisher_ends_the_process() {
    ends_the_process(panicking("publisher", &[]));
}

#[test]
fn a_panic_in_a_delivery_report_ends_the_process() {
    ends_the_process(panicking("reports", &[]));
}

#[test]
fn a_panic_on_the_spool_thread_ends_the_process() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let spool = folder.path().join("spool");
    // Everything is late.
    let variables = [
        ("ZIM2KAFKA_SPOOL_DIR", spool.to_str().expect("text")),
        ("ZIM2KAFKA_SPOOL_AFTER", "0s"),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", "linger.ms=900"),
    ];
    ends_the_process(panicking("spooler", &variables));
}
