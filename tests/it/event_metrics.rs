//! The metrics of each event.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use zim2kafka::callback::sign;
use zim2kafka::event::{EVENTS, GROUP_JOIN, Routes};
use zim2kafka::spool::SpoolSettings;

use crate::support::app::{APPID, Answer, App, SECRET, Settings};
use crate::support::scraped::Scraped;

/// The events of the contract. Series of further events appear without a change here.
const CONTRACT: [&str; 19] = [
    "before_send_msg",
    "bot_msg",
    "call_accept",
    "call_cancel",
    "call_create",
    "call_invite",
    "call_reject",
    "call_timeout",
    "group_create",
    "group_destroy",
    "group_exit",
    "group_join",
    "other",
    "room_create",
    "room_destroy",
    "room_enter",
    "room_exit",
    "send_msg",
    "user_action",
];

const OUTCOMES: [&str; 7] = [
    "dead_lettered",
    "discarded",
    "duplicate",
    "passed",
    "published",
    "spooled",
    "unavailable",
];

/// How often an event had an outcome.
type Counts = BTreeMap<(String, String), f64>;

impl App {
    /// All series of `zim2kafka_events_total`.
    async fn events(&self) -> Counts {
        let series = Scraped::of(self.admin("/metrics").await.text()).series;
        let values = series.into_iter().filter_map(|(name, value)| {
            let labels = name.strip_prefix("zim2kafka_events_total{event=\"")?;
            let (event, outcome) = labels.split_once("\",outcome=\"").expect("two labels");
            let outcome = outcome.strip_suffix("\"}").expect("the last label");
            Some(((event.to_owned(), outcome.to_owned()), value))
        });
        values.collect()
    }

    /// These are the series that are not zero.
    async fn counts(&self, expected: &[(&str, &str, f64)]) {
        let text = |(event, outcome): (&str, &str)| (event.to_owned(), outcome.to_owned());
        let expected: Counts = (expected.iter())
            .map(|(event, outcome, count)| (text((event, outcome)), *count))
            .collect();
        let mut counted = self.events().await;
        counted.retain(|_, count| *count != 0.0);
        assert_eq!(counted, expected);
    }

    async fn send(&self, fields: &Value) -> Answer {
        self.post(signed(fields)).await
    }
}

/// A signed callback with these fields and no others.
fn signed(fields: &Value) -> Vec<u8> {
    let nonce = rand::random::<u64>().to_string();
    let mut body = json!({"appid": APPID, "nonce": nonce, "timestamp": now_ms().to_string()});
    let members = body.as_object_mut().expect("an object");
    members.extend(fields.as_object().expect("an object").clone());
    let text = |name: &str| body[name].as_str().expect("a string").to_owned();
    let signature = sign(SECRET, &text("timestamp"), &text("nonce"));
    body["signature"] = signature.to_hex().into();
    body.to_string().into_bytes()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is set").as_millis() as u64
}

/// Publishes all events.
fn all_routed(mut settings: Settings) -> Settings {
    let topic = settings.0.kafka.routes.event_topics().concat();
    let dead_letters = settings.0.kafka.routes.dead_letter_topic().to_owned();
    let events = EVENTS.iter().map(|kind| (kind.name, topic.as_str()));
    settings.0.kafka.routes = Routes::new(events, &dead_letters);
    settings
}

/// The first example of each event.
fn examples() -> Vec<(&'static str, Value)> {
    let example = |text: &&str| serde_json::from_str(text).expect("an example is JSON");
    let first = EVENTS.iter().map(|kind| {
        let example = kind.examples.first().map(example);
        (kind.name, example.expect("every event has an example"))
    });
    first.collect()
}

#[tokio::test]
async fn every_event_of_the_contract_has_its_series_from_the_start_at_zero() {
    let app = App::embedded(|settings| settings);
    let counted = app.events().await;
    assert!(counted.values().all(|count| *count == 0.0), "{counted:?}");
    let found: Vec<_> = counted.keys().cloned().collect();
    let mut names: Vec<_> = EVENTS.iter().map(|kind| kind.name).collect();
    names.extend(["before_send_msg", "other"]);
    names.sort_unstable();
    assert!(CONTRACT.iter().all(|event| names.contains(event)));
    let expected = names
        .iter()
        .flat_map(|event| OUTCOMES.map(|outcome| ((*event).to_owned(), outcome.to_owned())));
    assert_eq!(found, expected.collect::<Vec<_>>());
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn every_event_is_counted_under_its_own_name_by_outcome() {
    let app = App::embedded(all_routed);
    let mut expected = Vec::new();
    for (event, example) in examples() {
        let body = signed(&example);
        for status in ["published", "duplicate", "duplicate"] {
            assert_eq!(
                app.post(body.clone()).await.json()["status"],
                status,
                "{event}"
            );
        }
        // Without any field, each is invalid.
        let answer = app.send(&json!({ "event": event })).await;
        assert_eq!(answer.json()["status"], "dead_lettered", "{event}");
        expected.extend([
            (event, "published", 1.0),
            (event, "duplicate", 2.0),
            (event, "dead_lettered", 1.0),
        ]);
        app.counts(&expected).await;
    }
    app.shows(&[
        ("zim2kafka_event_lag_seconds_count", EVENTS.len() as f64),
        ("zim2kafka_group_joins_total{join_type=\"Invited\"}", 1.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn what_is_not_one_of_the_events_is_counted_as_other_and_what_is_not_authentic_is_not() {
    let app = App::embedded(all_routed);
    for fields in [
        json!({}),
        json!({"event": "msg_recall"}),
        json!({"event": 7}),
        json!({"event": ["group_join"]}),
        json!({"event": "Group_Join"}),
        // Of ZEGOCLOUD's product for video.
        json!({"event": "room_create", "room_id": "r", "room_session_id": 858012925204410400_u64}),
    ] {
        let answer = app.send(&fields).await;
        assert_eq!(answer.json()["status"], "dead_lettered", "{fields}");
    }
    let twice = String::from_utf8(signed(&json!({"event": "group_join"}))).expect("JSON");
    let twice = twice.replacen('{', r#"{"event":"group_join","#, 1);
    assert_eq!(
        app.post(twice.clone()).await.json()["status"],
        "dead_lettered"
    );
    assert_eq!(app.post(twice).await.json()["status"], "duplicate");
    for (event, nonce) in [("group_join", "1"), ("before_send_msg", "2")] {
        let forged = String::from_utf8(signed(&json!({"event": event, "nonce": nonce})));
        let forged = forged
            .expect("JSON")
            .replace("\"nonce\":\"", "\"nonce\":\"9");
        assert_eq!(app.post(forged).await.status, 401);
    }
    assert_eq!(app.post("nonsense").await.status, 400);
    app.counts(&[("other", "dead_lettered", 7.0), ("other", "duplicate", 1.0)])
        .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn names_that_pages_have_used_count_as_the_event_that_they_mean() {
    let app = App::embedded(all_routed);
    for (name, event) in [
        ("Apply_join_group", GROUP_JOIN),
        ("create_group", "group_create"),
        ("destroy_group", "group_destroy"),
        ("zim_send_msg", "send_msg"),
    ] {
        let examples = examples();
        let (_, example) = (examples.iter().find(|(name, _)| *name == event)).expect("known");
        let mut example = example.clone();
        example["event"] = name.into();
        assert_eq!(
            app.send(&example).await.json()["status"],
            "published",
            "{name}"
        );
    }
    let slip = json!({"event": "group_destroy", "group_id": "g", "exit_type": "Quit", "exit_user_ids": ["u"]});
    assert_eq!(app.send(&slip).await.json()["status"], "published");
    app.counts(&[
        (GROUP_JOIN, "published", 1.0),
        ("group_create", "published", 1.0),
        ("group_destroy", "published", 1.0),
        ("group_exit", "published", 1.0),
        ("send_msg", "published", 1.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn what_is_discarded_or_only_answered_is_counted_by_event() {
    let app = App::embedded(|settings| {
        let mut settings = all_routed(settings);
        let routes = settings
            .0
            .kafka
            .routes
            .discarding(["send_msg", "call_create"]);
        settings.0.kafka.routes = routes;
        settings
    });
    for event in ["send_msg", "send_msg", "call_create"] {
        let answer = app.send(&json!({ "event": event })).await;
        assert_eq!(answer.json()["status"], "discarded");
    }
    assert_eq!(
        app.send(&json!({"event": "before_send_msg"})).await.status,
        200
    );
    app.counts(&[
        ("before_send_msg", "passed", 1.0),
        ("call_create", "discarded", 1.0),
        ("send_msg", "discarded", 2.0),
    ])
    .await;
    assert_eq!(app.metric("zim2kafka_event_lag_seconds_count").await, 0.0);
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn an_event_that_is_not_durable_in_time_is_unavailable() {
    let mut settings = all_routed(Settings::on("127.0.0.1:1", "events", "dead"));
    settings.0.callbacks.answer_deadline = Duration::from_millis(50);
    settings.0.inspect_topics = false;
    settings.0.stop_deadline = Duration::from_millis(50);
    let app = settings.start();
    let answer = app.send(&json!({"event": "user_action"})).await;
    assert_eq!(answer.status, 503);
    for (_, example) in examples() {
        assert_eq!(app.send(&example).await.status, 503);
    }
    let mut expected: Vec<_> = (EVENTS.iter())
        .map(|kind| (kind.name, "unavailable", 1.0))
        .collect();
    expected[0].2 = 2.0;
    app.counts(&expected).await;
    app.shows(&[
        ("zim2kafka_ready", 0.0),
        ("zim2kafka_degraded", 0.0),
        ("zim2kafka_event_lag_seconds_count", 0.0),
    ])
    .await;
}

#[tokio::test]
async fn an_event_in_the_spool_is_spooled_and_the_service_degraded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = all_routed(Settings::on("127.0.0.1:1", "events", "dead"));
    settings.0.spool = Some(SpoolSettings {
        folder: folder.path().to_owned(),
        max_bytes: 1 << 30,
        after: Duration::ZERO,
    });
    settings.0.inspect_topics = false;
    let app = settings.start();
    app.ready().await;
    let example = json!({"event": "call_create", "call_id": "1", "caller": "a", "user_ids": ["b"]});
    let body = signed(&example);
    for status in ["spooled", "duplicate"] {
        assert_eq!(app.post(body.clone()).await.json()["status"], status);
    }
    let answer = app.send(&json!({"event": "call_create"})).await;
    assert_eq!(answer.json()["status"], "dead_lettered");
    app.counts(&[
        ("call_create", "dead_lettered", 1.0),
        ("call_create", "duplicate", 1.0),
        ("call_create", "spooled", 1.0),
    ])
    .await;
    app.shows(&[
        ("zim2kafka_ready", 1.0),
        ("zim2kafka_degraded", 1.0),
        ("zim2kafka_event_lag_seconds_count", 1.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn the_lag_is_from_the_time_of_an_event_to_its_durability_once_a_record() {
    let app = App::embedded(all_routed);
    let ago = |seconds: u64| (now_ms() - 1000 * seconds).to_string();
    let message = json!({
        "event": "send_msg", "from_user_id": "a", "conv_type": 2, "conv_id": "g", "msg_type": 1,
        "msg_id": "1", "msg_time": now_ms() - 400_000, "timestamp": (now_ms() / 1000).to_string(),
    });
    let late = signed(
        &json!({"event": "user_action", "user_id": "u", "action": 0, "timestamp": ago(300)}),
    );
    let ahead = json!({"event": "room_destroy", "room_id": "r", "timestamp": (now_ms() + 60_000).to_string()});
    let sum = async || app.metric("zim2kafka_event_lag_seconds_sum").await;
    let count = async |count: f64| {
        app.shows(&[("zim2kafka_event_lag_seconds_count", count)])
            .await;
    };

    assert_eq!(app.send(&ahead).await.json()["status"], "published");
    count(1.0).await;
    assert_eq!(sum().await, 0.0);
    let at_once = "zim2kafka_event_lag_seconds_bucket{le=\"0.001\"}";
    assert_eq!(app.metric(at_once).await, 1.0);

    for status in ["published", "duplicate"] {
        assert_eq!(app.post(late.clone()).await.json()["status"], status);
    }
    count(2.0).await;
    let signed_time = sum().await;
    assert!((300.0..400.0).contains(&signed_time), "{signed_time}");

    // The lag is measured from the message's own time, not from the signed one.
    assert_eq!(app.send(&message).await.json()["status"], "published");
    count(3.0).await;
    let own_time = sum().await - signed_time;
    assert!((400.0..500.0).contains(&own_time), "{own_time}");

    let dead = json!({"event": "user_action", "timestamp": ago(300)});
    assert_eq!(app.send(&dead).await.json()["status"], "dead_lettered");
    let reason = "zim2kafka_dead_letters_total{reason=\"invalid_event\"}";
    app.shows(&[(reason, 1.0)]).await;
    count(3.0).await;
    app.stop().await.expect("it stops in order");
}
