//! Metrics and log lines of refused callbacks, and of applications whose callbacks are all refused.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATH, TIMES, is_logged_once, log_of, now, of_app, signed};
use crate::support::app::{ONCE_A_MINUTE, PATIENCE};
use crate::support::process::{Process, Service, request, say};
use crate::support::scale::alone;
use crate::support::tls::write;
use crate::support::wire::{Wire, of_length, post};

#[test]
fn malformed_and_unauthorized_callbacks_are_logged_once_a_minute_with_their_shape_only() {
    let variables = [
        PATH,
        ("ZIM2KAFKA_CALLBACK_SECRETS", "17=secret,18=another"),
        ("ZIM2KAFKA_TIMESTAMP_UNIT", "ms"),
    ];
    let cases: [(String, &str, &str); 6] = [
        (
            r#"{"sesame": sesame"#.to_owned(),
            "400",
            "1 callback was malformed and answered 400 in the last minute, for example: the body is neither one JSON object nor a form: expected value at line 1 column 12 (a body that begins like JSON, 17 bytes); the sender drops each after 62 s",
        ),
        (
            String::new(),
            "400",
            "1 callback was malformed and answered 400 in the last minute, for example: the body is neither one JSON object nor a form: it is empty (an empty body, 0 bytes)",
        ),
        (
            signed("17", "sesame", now()),
            "401",
            "1 callback was answered 401 in the last minute, for example: wrong signature, appid 17 (a body that begins like JSON, ",
        ),
        (
            signed("sesame", "secret", now()),
            "401",
            "1 callback was answered 401 in the last minute, for example: ZIM2KAFKA_CALLBACK_SECRETS does not name its appid (a body that begins like JSON, ",
        ),
        (
            signed("18", "another", now() / 1000),
            "401",
            "1 callback was answered 401 in the last minute, for example: timestamp is in the unit that ZIM2KAFKA_TIMESTAMP_UNIT excludes, appid 18 (a body that begins like JSON, ",
        ),
        (
            "appid=17&nonce=sesame&sesame=1".to_owned(),
            "401",
            "1 callback was answered 401 in the last minute, for example: timestamp is missing or unusable, appid 17 (a body that begins like a form, 30 bytes, fields appid, nonce and 1 others)",
        ),
    ];
    let variables = &variables;
    std::thread::scope(|scope| {
        for (body, status, line) in &cases {
            scope.spawn(move || {
                let service = Service::embedded(&["--drain-delay=0s"], variables);
                service.ready();
                for _ in 0..TIMES {
                    let answer = service.post(body);
                    assert!(
                        answer.starts_with(&format!("HTTP/1.1 {status}")),
                        "{answer}"
                    );
                }
                let log = log_of(service);
                is_logged_once(&log, line);
                // A stop logs the others, which would have waited for their line.
                is_logged_once(&log, &line.replace("1 callback was", "4 callbacks were"));
                assert_eq!(log.matches("in the last minute").count(), 2, "{log}");
            });
        }
    });
}

#[test]
fn an_encoded_body_counts_as_malformed_and_is_logged() {
    let service = Service::embedded(&["--drain-delay=0s"], &[PATH]);
    service.ready();
    let head = "POST /sesame/zim HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: sesame\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..TIMES {
        assert!(say(service.callbacks, head).starts_with("HTTP/1.1 415"));
    }
    let malformed = service.metric("zim2kafka_callbacks_total{outcome=\"malformed\"}");
    assert_eq!(malformed, TIMES as f64);
    is_logged_once(
        &log_of(service),
        "1 callback with a Content-Encoding was malformed and answered 415 in the last minute; a proxy in front compresses bodies, or the sender writes a charset there, which belongs in Content-Type",
    );
}

#[test]
fn the_wrong_secret_of_one_application_is_seen_beside_a_good_one() {
    let secrets = [PATH, ("ZIM2KAFKA_CALLBACK_SECRETS", "17=secret,18=another")];
    let service = Service::embedded(&["--drain-delay=0s"], &secrets);
    service.ready();
    for _ in 0..20 {
        assert!(
            service
                .post(signed("17", "secret", now()))
                .contains("published")
        );
        assert!(
            service
                .post(signed("18", "wrong", now()))
                .starts_with("HTTP/1.1 401")
        );
    }
    // A third party that knows an appid does not make its secret look wrong.
    for _ in 0..20 {
        assert!(
            service
                .post(signed("17", "wrong", now()))
                .starts_with("HTTP/1.1 401")
        );
    }
    let counts =
        |appid| ["accepted", "unauthorized"].map(|outcome| of_app(&service, appid, outcome));
    assert_eq!(counts("17"), [20.0, 20.0]);
    assert_eq!(counts("18"), [0.0, 20.0]);
    assert_eq!(counts("other"), [0.0, 0.0]);
    let log = log_of(service);
    is_logged_once(
        &log,
        "callbacks of appid 18 fail the signature check and none passes; the sender drops each after 62 s. Check that ZIM2KAFKA_CALLBACK_SECRETS holds the project's CallbackSecret",
    );
    is_logged_once(
        &log,
        "callbacks of appid 17 fail the signature check, while others pass, the last one 0 s ago: one of its senders uses another secret",
    );
    assert_eq!(log.matches("fail the signature check").count(), 2, "{log}");
}

#[test]
fn applications_have_their_series_from_the_start_and_after_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secrets");
    write(&file, "17=secret\n18=another\n*=any\n");
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", ""),
        (
            "ZIM2KAFKA_CALLBACK_SECRETS_FILE",
            file.to_str().expect("text"),
        ),
    ];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    let series = |service: &Service| -> Vec<String> {
        let text = service.admin("/metrics");
        let of_apps = "zim2kafka_app_callbacks_total{appid=\"";
        let lines = text.lines().filter_map(|line| line.strip_prefix(of_apps));
        lines.map(|line| line.replace('"', "")).collect()
    };
    let of = |appids: [&str; 3]| {
        let outcomes = ["accepted", "unauthorized"];
        let of = |appid: &&str| outcomes.map(|outcome| format!("{appid},outcome={outcome}}} 0"));
        appids.iter().flat_map(of).collect::<Vec<_>>()
    };
    assert_eq!(series(&service), of(["17", "18", "other"]));
    write(&file, "18=another\n19=third\n");
    service.process.signal("HUP");
    service.process.logs("secrets of 2 applications");
    assert_eq!(series(&service), of(["18", "19", "other"]));
}

#[test]
fn when_every_callback_is_stale_the_log_gives_direction_and_distance() {
    for (timestamp, distance) in [
        (now() - 7_200_000, "7200 s old"),
        (now() + 7_200_000, "7199 s in the future"),
    ] {
        let tolerance = [PATH, ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "10m")];
        let service = Service::embedded(&["--drain-delay=0s"], &tolerance);
        service.ready();
        for _ in 0..TIMES {
            let answer = service.post(signed("1", "secret", timestamp));
            assert!(answer.contains("dead_lettered"), "{answer}");
        }
        let log = log_of(service);
        is_logged_once(
            &log,
            " s were stale and become dead letters: a typical timestamp is ",
        );
        let line = log
            .lines()
            .find(|line| line.contains("were stale"))
            .expect("it is logged");
        assert!(
            line.contains("all 3 callbacks of the last 0 s were stale"),
            "{line}"
        );
        // The start of the service takes a moment.
        let typical = line
            .split("a typical timestamp is ")
            .nth(1)
            .expect("a distance");
        let seconds = |text: &str| {
            text.split(' ')
                .next()
                .and_then(|text| text.parse::<i64>().ok())
        };
        let (typical_seconds, expected) = (seconds(typical), seconds(distance));
        let difference = typical_seconds.expect("seconds") - expected.expect("seconds");
        assert!(difference.abs() < 60, "{line}");
        let direction = distance.split_once(" s ").expect("a direction").1;
        assert!(typical.contains(direction), "{line}");
        assert!(line.contains("Check this machine's clock (NTP)"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_for_bodies_is_named_in_the_answer_and_in_the_log() {
    let _alone = alone().await;
    let service = Service::embedded(&["--drain-delay=0s"], &[]);
    service.ready();
    let mut slow = Vec::new();
    let unfinished = "x".repeat(500_000 - 1);
    // All but the last byte, of as many as there is room for, and more.
    for _ in 0..150 {
        let mut wire = Wire::at(service.callbacks).await;
        wire.say(of_length(500_000)).await;
        wire.try_say(&unfinished).await;
        slow.push(wire);
    }
    let deadline = Instant::now() + PATIENCE;
    while service.metric("zim2kafka_callbacks_total{outcome=\"unavailable\"}") < 5.0 {
        assert!(Instant::now() < deadline, "there is room for all");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = post(service.callbacks, &unfinished).await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(answer.header("retry-after"), "2");
    let detail: Value = answer.json()["detail"].clone();
    assert_eq!(
        detail,
        "the bodies that are being received fill the memory for bodies; send it again"
    );
    drop(slow);
    service.process.signal("TERM");
    let log = service.process.end().stderr;
    is_logged_once(
        &log,
        "1 callback was answered 503 in the last minute because the bodies that are being received fill the memory for bodies",
    );
    assert!(
        !log.contains("Kafka is slower") && !log.contains("queue is full"),
        "{log}"
    );
}

#[test]
fn an_event_that_is_not_stored_in_time_is_answered_so_and_logged_so() {
    let service = Service::start(
        &[
            "--drain-delay=0s",
            "--answer-deadline=50ms",
            "--stop-deadline=1s",
        ],
        &[PATH, ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1")],
    );
    for _ in 0..TIMES {
        let answer = service.post(signed("1", "secret", now()));
        assert!(
            answer.contains("the event could not be stored durably in time"),
            "{answer}"
        );
    }
    is_logged_once(
        &log_of(service),
        "1 callback was answered 503 in the last minute because the event was not stored durably within ZIM2KAFKA_ANSWER_DEADLINE",
    );
}

#[test]
fn those_after_the_first_are_logged_together_a_minute_later_without_another_request() {
    let mut service = Service::embedded(&["--drain-delay=0s"], &[PATH]);
    service.ready();
    for _ in 0..TIMES {
        let elsewhere = request(service.callbacks, "POST", "/sesame", b"");
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        assert!(service.post("sesame").starts_with("HTTP/1.1 400"));
        assert!(service.post("{}").starts_with("HTTP/1.1 401"));
    }
    let lines = [
        "4 requests to a path other than ZIM2KAFKA_CALLBACK_PATH were answered 404 in the last minute;",
        "4 callbacks were malformed and answered 400 in the last minute, for example: the body is neither one JSON object nor a form: it begins like neither (a body that begins neither like JSON nor like a form, 6 bytes);",
        "4 callbacks were answered 401 in the last minute, for example: appid is missing or unusable (a body that begins like JSON, 2 bytes, no known field);",
    ];
    let logged = |process: &Process| process.stderr().matches("in the last minute").count();
    let first = |process: &Process| logged(process) >= 3;
    service.process.wait_until("the first of each", first);
    assert_eq!(logged(&service.process), 3);
    for line in lines {
        service.process.logs_within(ONCE_A_MINUTE, line);
    }
    let log = log_of(service);
    for line in lines {
        is_logged_once(&log, line);
    }
}
