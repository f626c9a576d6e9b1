//! The trace id in the answer and in the log line of a problem, and the line of each callback.

use serde_json::{Value, json};

use super::{TRACE_ID, TRACEPARENT};
use crate::support::app::{callback, callback_of};
use crate::support::process::{Service, request};

/// The answer to a request with this header field, as it came.
fn post(service: &Service, method: &str, path: &str, field: &str, body: &[u8]) -> String {
    let line = format!("{path} HTTP/1.1\r\n{field}\r\nx-rest:");
    request(service.callbacks, method, &line, body)
}

/// The lines of a log for machines.
fn lines(log: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines.collect()
}

/// Sends each request with a trace, then without one. Each is answered with this status and logged.
#[track_caller]
fn are_refused(
    service: Service,
    cases: &[(&str, &str, &str, Vec<u8>, u16)],
    logged: &str,
) -> String {
    for (method, path, field, body, status) in cases {
        for traced in [true, false] {
            let trace = match traced {
                true => format!("traceparent: {TRACEPARENT}\r\n"),
                // An invalid one is as good as none.
                false => format!("traceparent: {}\r\n", TRACEPARENT.to_uppercase()),
            };
            let field = format!("{trace}x: y{field}");
            let answer = post(&service, method, path, &field, body);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{status}: {answer}"
            );
            let member = format!(r#","trace_id":"{TRACE_ID}"}}"#);
            assert_eq!(answer.ends_with(&member), traced, "{answer}");
            assert_eq!(answer.contains("trace_id"), traced, "{answer}");
        }
    }
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let of_refusals = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains(logged)
    };
    let lines = lines(&ended.stderr);
    let lines: Vec<_> = lines.iter().filter(|line| of_refusals(line)).collect();
    let with_trace = lines.iter().filter(|line| line["trace_id"] == TRACE_ID);
    // The first of each kind is logged at once, and the second at the stop.
    assert_eq!(with_trace.count(), cases.len(), "{lines:#?}");
    let without = lines.iter().filter(|line| line["trace_id"].is_null());
    assert_eq!(without.count(), lines.len() - cases.len(), "{lines:#?}");
    ended.stderr
}

const IN_JSON: (&str, &str) = ("ZIM2KAFKA_LOG_FORMAT", "json");

#[test]
fn the_answer_and_the_log_line_of_a_problem_have_the_trace_id() {
    let path = "/callbacks/zim";
    let service = Service::embedded(&["--drain-delay=0s", "--body-limit=1024"], &[IN_JSON]);
    service.ready();
    let large = format!("\r\ny: {}", "x".repeat(17_000));
    let large = large.as_str();
    let forged = callback_of("1", "wrong", json!({}));
    let before_send = format!("{path}/before-send");
    let cases = [
        ("POST", path, "", b"{".to_vec(), 400),
        ("POST", before_send.as_str(), "", forged, 401),
        ("POST", "/elsewhere", "", Vec::new(), 404),
        ("GET", "/elsewhere", "", Vec::new(), 404),
        ("GET", path, "", Vec::new(), 405),
        ("PUT", path, "", Vec::new(), 405),
        ("POST", path, "", vec![b'x'; 2000], 413),
        ("POST", path, "\r\ncontent-encoding: gzip", Vec::new(), 415),
        ("POST", path, large, Vec::new(), 431),
    ];
    are_refused(service, &cases, "in the last minute");

    let variables = [IN_JSON, ("ZIM2KAFKA_ALLOWED_NETWORKS", "203.0.113.0/24")];
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    let cases = [("POST", path, "", callback(json!({})), 403)];
    are_refused(service, &cases, "in the last minute");

    let deadlines = [
        "--answer-deadline=50ms",
        "--drain-delay=0s",
        "--stop-deadline=1s",
    ];
    let variables = [
        IN_JSON,
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
    ];
    let service = Service::start(&deadlines, &variables);
    let cases = [("POST", path, "", callback(json!({})), 503)];
    are_refused(service, &cases, "in the last minute");

    let variables = [
        IN_JSON,
        ("ZIM2KAFKA_TEST_PANIC", "handler"),
        ("ZIM2KAFKA_LOG", "info,zim2kafka::access=debug"),
    ];
    let service = Service::embedded(&["--drain-delay=0s"], &variables);
    service.ready();
    let cases = [("POST", path, "", callback(json!({})), 500)];
    let log = are_refused(service, &cases, "was answered 500");
    let unanswered = lines(&log)
        .into_iter()
        .filter(|line| line["target"] == "zim2kafka::access");
    let unanswered: Vec<_> = unanswered.map(|line| line["trace_id"].clone()).collect();
    assert_eq!(unanswered, [Value::from(TRACE_ID), Value::Null], "{log}");
}

#[test]
fn the_log_has_a_line_for_each_callback_if_its_level_is_enabled() {
    let secrets = "17=secret,18=another,*=any";
    let path = "/callbacks/sesame";
    let variables = |log| {
        [
            IN_JSON,
            ("ZIM2KAFKA_LOG", log),
            ("ZIM2KAFKA_CALLBACK_SECRETS", secrets),
            ("ZIM2KAFKA_CALLBACK_PATH", path),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ]
    };
    let traced = format!("traceparent: {TRACEPARENT}");
    let traced = traced.as_str();
    let join = callback_of("17", "secret", json!({"group_id": "sesame"}));
    let of = |appid: &str, secret: &str, event: &str| {
        callback_of(appid, secret, json!({"event": event, "group_id": "sesame"}))
    };
    // Callback, header field, event, appid, outcome, whether it has an event id.
    let cases = [
        (join.clone(), traced, "group_join", "17", "published", true),
        (join, "x: y", "group_join", "17", "duplicate", true),
        (
            of("18", "another", "group_exit"),
            "x: y",
            "group_exit",
            "18",
            "dead_lettered",
            true,
        ),
        (
            of("18", "another", "sesame"),
            traced,
            "other",
            "18",
            "dead_lettered",
            true,
        ),
        (
            of("17", "secret", "before_send_msg"),
            traced,
            "before_send_msg",
            "17",
            "passed",
            false,
        ),
        (
            of("sesame", "any", "group_join"),
            "x: y",
            "group_join",
            "",
            "published",
            true,
        ),
        (
            of("17", "sesame", "group_join"),
            traced,
            "",
            "17",
            "unauthorized",
            false,
        ),
        (
            of("sesame", "sesame", "group_join"),
            traced,
            "",
            "",
            "unauthorized",
            false,
        ),
        (b"{\"sesame\"".to_vec(), traced, "", "", "malformed", false),
    ];
    for (log, is_logged) in [
        ("info,zim2kafka::access=debug", true),
        ("zim2kafka=debug", true),
        ("debug", true),
        ("info", false),
        ("debug,zim2kafka::access=info", false),
    ] {
        let service = Service::embedded(&["--drain-delay=0s"], &variables(log));
        service.ready();
        for (body, field, ..) in &cases {
            post(&service, "POST", path, field, body);
        }
        service.process.signal("TERM");
        let log = service.process.end().stderr;
        let found = lines(&log).into_iter();
        let found: Vec<_> = found
            .filter(|line| line["target"] == "zim2kafka::access")
            .collect();
        if !is_logged {
            assert_eq!(found, Vec::<Value>::new());
            continue;
        }
        assert!(
            !found.iter().any(|line| line.to_string().contains("sesame")),
            "{found:#?}"
        );
        assert_eq!(found.len(), cases.len(), "{log}");
        for (line, (_, field, event, appid, outcome, has_id)) in found.iter().zip(&cases) {
            let mut line = line.as_object().expect("an object").clone();
            line.remove("timestamp").expect("a time");
            let ms = line.remove("ms").and_then(|ms| ms.as_f64());
            assert!(
                ms.is_some_and(|ms| (0.001..60_000.0).contains(&ms)),
                "{ms:?}"
            );
            let id = line.remove("event_id");
            let is_id = |id: &Value| id.as_str().is_some_and(|id| id.len() == 36);
            assert_eq!(id.as_ref().is_some_and(is_id), *has_id, "{id:?}");
            let mut expected = json!({
                "level": "DEBUG",
                "target": "zim2kafka::access",
                "message": "callback answered",
                "outcome": outcome,
            });
            for (name, value) in [("event", event), ("appid", appid)] {
                if !value.is_empty() {
                    expected[name] = (*value).into();
                }
            }
            if *field == traced {
                expected["trace_id"] = TRACE_ID.into();
            }
            assert_eq!(Value::from(line), expected);
        }
    }
}
