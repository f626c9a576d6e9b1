//! The status page and its data. `.ci/status-page` runs it in a browser.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use strum::VariantArray;
use zim2kafka::event::{EVENTS, Family};
use zim2kafka::metrics::Outcome;

use crate::support::app::{APPID, App, SECRET, Settings, callback, callback_of};
use crate::support::scraped::Scraped;

#[tokio::test]
async fn the_status_page_is_html_that_needs_nothing_from_elsewhere() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    let page = app.admin("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let html = page.text();
    assert!(html.starts_with("<!doctype html>"));
    assert_eq!(from_elsewhere(html), None);
    // Without its script, it shows the state.
    for shown in [
        "data-level=\"ready\"",
        "<title>ready – zim2kafka",
        ">ready</span>",
        ">events become durable</span>",
    ] {
        assert!(html.contains(shown), "{shown}");
    }
    // Its style and its script have the nonce of this answer, and nothing else is allowed.
    let policy = page.header("content-security-policy");
    let nonce = |text: &str| {
        let (_, rest) = text.split_once("nonce-").expect("a nonce");
        rest.split_once('\'').expect("it ends").0.to_owned()
    };
    assert_eq!(
        html.matches(&format!("nonce=\"{}\"", nonce(policy)))
            .count(),
        2
    );
    assert_eq!(
        html.matches("<script").count() + html.matches("<style").count(),
        2
    );
    assert!(!html.contains(" style=") && !html.contains(" onload="));
    let next = app.admin("/").await;
    assert_ne!(nonce(policy), nonce(next.header("content-security-policy")));
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn the_page_draws_every_outcome_and_reads_only_metrics_that_exist() {
    let app = App::embedded(|settings| settings);
    let page = app.admin("/").await;
    let scraped = Scraped::of(app.admin("/metrics").await.text());
    let names: BTreeSet<_> = (page
        .text()
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
    .filter(|word| word.starts_with("zim2kafka_"))
    .collect();
    assert!(names.contains("zim2kafka_events_total"), "{names:?}");
    for name in names {
        assert!(scraped.types.contains_key(name), "{name}");
    }
    for outcome in Outcome::VARIANTS {
        let name = format!("\"{}\"", <&str>::from(outcome));
        assert!(page.text().contains(&name), "{name}");
    }
    for series in scraped.series.keys() {
        if let Some((_, outcome)) =
            series.split_once("zim2kafka_events_total{event=\"other\",outcome=")
        {
            let column = outcome.trim_end_matches('}');
            assert!(page.text().contains(column), "{column}");
        }
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn the_page_knows_the_family_of_every_event_and_where_it_goes() {
    let app = App::embedded(|settings| settings);
    let data = app.status().await;
    let mut expected: Vec<(&str, &str)> = (EVENTS.iter())
        .map(|kind| (kind.name, kind.family.into()))
        .collect();
    expected.extend([("before_send_msg", "message"), ("other", "not known")]);
    // Each family stands once, and what is not known at the end.
    let order = |family: &str| {
        Family::VARIANTS
            .iter()
            .position(|known| <&str>::from(known) == family)
    };
    expected.sort_by_key(|(_, family)| order(family).unwrap_or(usize::MAX));
    let events = data["events"].as_array().expect("a list");
    let families: Vec<_> = (events.iter())
        .map(|event| {
            let text = |name: &str| event[name].as_str().expect("a text");
            (text("event"), text("family"))
        })
        .collect();
    assert_eq!(families, expected);
    let target = |name: &str| {
        let event = events.iter().find(|event| event["event"] == name);
        event.expect("it is listed")["target"].clone()
    };
    assert_eq!(target("group_join"), "zim.group-joined");
    assert_eq!(target("send_msg"), "dead letters");
    assert_eq!(target("before_send_msg"), "answered only");
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn the_data_shows_what_has_happened_second_by_second() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    for _ in 0..3 {
        let answer = app.post(callback(json!({}))).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let sum = |data: &Value| -> f64 {
        let published = data["history"]["outcomes"]["published"].as_array();
        let rates = published.into_iter().flatten();
        rates.filter_map(Value::as_f64).sum()
    };
    app.wait_for("the callbacks are in the history", async || {
        sum(&app.status().await) > 0.0
    })
    .await;
    let data = app.status().await;
    assert_eq!(data["state"]["level"], "ready");
    assert_eq!(data["kafka"]["is_up"], true);
    let series = |name: &str| data["series"][name].as_f64();
    assert_eq!(
        series("zim2kafka_events_total{event=\"group_join\",outcome=\"published\"}"),
        Some(3.0)
    );
    let topics: Vec<_> = (data["topics"].as_array().expect("a list").iter())
        .map(|topic| (topic["topic"].clone(), topic["in_memory"].clone()))
        .collect();
    assert_eq!(
        topics,
        [
            (json!("zim.group-joined"), json!(0)),
            (json!("zim.dead-letter"), json!(0))
        ]
    );
    assert_eq!(data["spool"], Value::Null);
    let history = &data["history"];
    let p99 = history["p99"].as_array().expect("a list");
    assert!(
        p99.iter()
            .any(|p99| p99.as_f64().is_some_and(|p99| p99 > 0.0))
    );
    // A page that has these seconds gets the next ones only.
    let end = history["end"].as_u64().expect("a number");
    app.wait_for("the next second", async || {
        app.status().await["history"]["end"].as_u64() > Some(end)
    })
    .await;
    let next = app.admin(&format!("/status.json?after={end}")).await.json();
    let new = next["history"]["end"].as_u64().expect("a number") - end;
    assert_eq!(
        next["history"]["at"].as_array().map(Vec::len),
        Some(new as usize)
    );
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn problems_are_listed_once_with_a_count_and_without_text_of_requests() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)>";
    let app = App::embedded(|settings| {
        settings
            .secrets(&format!("{APPID}={SECRET},2={SECRET}"))
            .tolerance(Duration::from_secs(600))
    });
    app.ready().await;
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_millis() as u64
    };
    for _ in 0..2 {
        app.post(callback(json!({}))).await;
    }
    app.post(callback(json!({"timestamp": now(), "join_type": HOSTILE})))
        .await;
    app.post(callback(json!({"timestamp": now(), "event": HOSTILE})))
        .await;
    app.post(callback_of("2", "wrong", json!({"group_id": HOSTILE})))
        .await;
    app.post(callback_of(HOSTILE, SECRET, json!({}))).await;
    app.post(format!("{{{HOSTILE}")).await;
    let data = app.status().await;
    let lines = |name: &str| -> BTreeSet<String> {
        let lines = data[name].as_array().expect("a list").iter();
        // On a busy machine, the service is not ready for long at its start, which is a problem too.
        let of_state = |line: &&Value| line["kind"] == "not ready" || line["kind"] == "degraded";
        lines
            .filter(|line| !of_state(line))
            .map(|line| {
                let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
                let parts = ["kind", "appid", "event", "reason"].map(text).join(" | ");
                format!("{} × {parts}", line["count"])
            })
            .collect()
    };
    let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let problems: BTreeSet<String> = set(&[
        "2 × dead letter | 1 | group_join | stale",
        "1 × dead letter | 1 | group_join | invalid_event",
        "1 × dead letter | 1 | - | unsupported_event",
    ]);
    assert_eq!(lines("problems"), problems);
    let unauthenticated: BTreeSet<String> = set(&[
        "1 × answered 401 | 2 | - | wrong signature",
        "1 × answered 401 | - | - | ZIM2KAFKA_CALLBACK_SECRETS does not name its appid",
        "1 × answered 400 | - | - | the body is neither one JSON object nor a form",
    ]);
    assert_eq!(lines("unauthenticated"), unauthenticated);
    for path in ["/", "/status.json"] {
        let answer = app.admin(path).await;
        assert!(!answer.text().contains("onerror"), "{path}");
        assert!(!answer.text().contains("/callbacks/zim"), "{path}");
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn without_kafka_the_page_gives_the_reason_and_lists_what_was_answered_503() {
    // Nothing listens there.
    let mut settings = Settings::on("127.0.0.1:1", "zim.group-joined", "zim.dead-letter");
    settings.0.callbacks.answer_deadline = Duration::from_millis(200);
    let app = settings.start();
    let answer = app.post(callback(json!({}))).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    app.wait_for("the reason is known", async || {
        let page = app.admin("/").await;
        page.text().contains("data-level=\"not_ready\"") && page.text().contains("127.0.0.1:1")
    })
    .await;
    app.wait_for("the client lists its brokers", async || {
        app.status().await["kafka"]["brokers"][0]["address"] == "127.0.0.1:1"
    })
    .await;
    let data = app.status().await;
    let kafka = &data["kafka"];
    assert_eq!(
        (&kafka["is_up"], &kafka["was_up"]),
        (&json!(false), &json!(false))
    );
    let reason = kafka["brokers"][0]["reason"].as_str().expect("a text");
    assert!(reason.contains("refused"), "{reason}");
    let topic = &data["topics"][0];
    assert_eq!(topic["in_memory"], 1);
    assert!(topic["lag_seconds"].as_f64() > Some(0.19), "{topic}");
    let problems = data["problems"].as_array().expect("a list");
    let answered = problems
        .iter()
        .find(|problem| problem["kind"] == "callback answered 503");
    let answered = answered.expect("it is listed");
    assert_eq!(
        (&answered["appid"], &answered["event"]),
        (&json!(APPID), &json!("group_join"))
    );
    let since = data["state"]["since"].as_u64();
    app.wait_for("the state is listed as a problem", async || {
        let problems = app.status().await["problems"].to_string();
        problems.contains("not ready") && problems.contains("cannot be reached")
    })
    .await;
    assert_eq!(app.status().await["state"]["since"].as_u64(), since);
    app.stop().await.expect("it stops in order");
}

impl App {
    async fn status(&self) -> Value {
        let answer = self.admin("/status.json").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        answer.json()
    }
}

/// The first mention of something that a browser would fetch from another host, or as a further
/// file.
fn from_elsewhere(page: &str) -> Option<String> {
    const FETCHES: [&str; 9] = [
        "http://", "https://", "\"//", "'//", "<link", "<iframe", "<img", "@import", "url(",
    ];
    // A name, and an icon that is in the page.
    let page = page
        .replace("http://www.w3.org/2000/svg", "")
        .replace("<link rel=\"icon\" id=\"icon\" href=\"data:,\">", "");
    let scripts = page.match_indices("<script").find(|(at, _)| {
        page[*at..]
            .split('>')
            .next()
            .is_some_and(|tag| tag.contains("src"))
    });
    let found = FETCHES.iter().find_map(|fetch| page.find(fetch));
    let found = found.or(scripts.map(|(at, _)| at));
    found.map(|at| page[at..].chars().take(80).collect())
}

#[test]
fn a_page_that_needs_something_from_elsewhere_is_noticed() {
    for page in [
        "<script src=app.js></script>",
        "<script type=module src='/app.js'>",
        "<a href=\"https://example.org\">",
        "<p><link rel=stylesheet href=/style.css>",
        "<link rel=\"icon\" id=\"icon\" href=\"/icon.svg\">",
        "<style>@import '/style.css'</style>",
        "fetch('//example.org')",
    ] {
        assert!(from_elsewhere(page).is_some(), "{page}");
    }
    assert_eq!(
        from_elsewhere("<script>fetch('/metrics')</script><a href=/metrics>src</a>"),
        None
    );
}
