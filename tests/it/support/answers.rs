//! What tests expect of the service's answers.

use hyper::StatusCode;
use serde_json::json;

use super::app::{Answer, App};

/// The series of one outcome.
pub(crate) fn outcome(name: &str) -> String {
    format!("zim2kafka_callbacks_total{{outcome=\"{name}\"}}")
}

/// It is safe, and so; returns its id.
#[track_caller]
pub(crate) fn assert_status(answer: &Answer, status: &str) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["status"], status);
    json["event_id"].as_str().expect("an event's id").to_owned()
}

/// The answer is a problem of this status by RFC 9457, and tells people something.
#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, title: &str) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let json = answer.json();
    let detail = json["detail"].as_str().expect("a detail");
    assert!(detail.len() > 5, "{detail:?}");
    assert_eq!(
        json,
        json!({"type": "about:blank", "title": title, "status": status, "detail": detail})
    );
}

/// So many callbacks ended so, and no other in any way.
pub(crate) async fn assert_outcomes(app: &App, expected: &[(&str, f64)]) {
    let metrics = app.admin("/metrics").await;
    let outcomes = |name: &str| {
        let found = metrics.text().lines().filter_map(|line| {
            let (outcome, count) = line
                .strip_prefix(name)?
                .strip_prefix("{outcome=\"")?
                .split_once("\"} ")?;
            let count: f64 = count.parse().expect("a count");
            (count > 0.0).then(|| (outcome.to_owned(), count))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    };
    let expected: Vec<_> = expected
        .iter()
        .map(|(outcome, count)| ((*outcome).to_owned(), *count))
        .collect();
    assert_eq!(outcomes("zim2kafka_callbacks_total"), expected);
    assert_eq!(
        outcomes("zim2kafka_callback_duration_seconds_count"),
        expected
    );
    assert_eq!(app.metric("zim2kafka_callbacks_in_flight").await, 0.0);
}
