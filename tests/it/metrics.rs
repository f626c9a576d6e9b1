//! What Prometheus sees: every series of the contract, and what moves them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::support::app::{App, PATIENCE, Settings, callback};
use crate::support::kafka::kafka;
use crate::support::scraped::Scraped;

/// The labels of a series and its value at the start; none where that is Kafka's affair.
type Start = (&'static str, Option<f64>);

/// Every family of the contract: its name, its type, and its series.
const FAMILIES: [(&str, &str, &[Start]); 36] = [
    ("zim2kafka_callbacks_total", "counter", &OUTCOMES),
    (
        "zim2kafka_callback_duration_seconds",
        "histogram",
        &OUTCOMES,
    ),
    ("zim2kafka_callbacks_in_flight", "gauge", &ZERO),
    (
        "zim2kafka_before_send_total",
        "counter",
        &[
            ("{outcome=\"answered\"}", Some(0.0)),
            ("{outcome=\"unauthorized\"}", Some(0.0)),
        ],
    ),
    (
        "zim2kafka_group_joins_total",
        "counter",
        &[
            ("{join_type=\"Apply\"}", Some(0.0)),
            ("{join_type=\"Invited\"}", Some(0.0)),
        ],
    ),
    ("zim2kafka_users_joined_total", "counter", &ZERO),
    (
        "zim2kafka_dead_letters_total",
        "counter",
        &[
            ("{reason=\"invalid_event\"}", Some(0.0)),
            ("{reason=\"rejected_by_kafka\"}", Some(0.0)),
            ("{reason=\"stale\"}", Some(0.0)),
            ("{reason=\"unsupported_event\"}", Some(0.0)),
        ],
    ),
    ("zim2kafka_event_lag_seconds", "histogram", &ZERO),
    ("zim2kafka_reused_signatures_total", "counter", &ZERO),
    ("zim2kafka_last_callback_timestamp_seconds", "gauge", &ZERO),
    (
        "zim2kafka_kafka_deliveries_total",
        "counter",
        &[
            ("{result=\"acked\"}", Some(0.0)),
            ("{result=\"rejected\"}", Some(0.0)),
        ],
    ),
    (
        "zim2kafka_kafka_delivery_duration_seconds",
        "histogram",
        &ZERO,
    ),
    ("zim2kafka_kafka_up", "gauge", &[("", None)]),
    ("zim2kafka_kafka_brokers_up", "gauge", &[("", None)]),
    ("zim2kafka_kafka_round_trip_seconds", "gauge", &[("", None)]),
    ("zim2kafka_kafka_in_flight_records", "gauge", &ZERO),
    ("zim2kafka_producer_recreations_total", "counter", &ZERO),
    ("zim2kafka_spool_records", "gauge", &ZERO),
    ("zim2kafka_spool_refused_records", "gauge", &ZERO),
    ("zim2kafka_spool_bytes", "gauge", &ZERO),
    ("zim2kafka_spool_max_bytes", "gauge", &ZERO),
    ("zim2kafka_spool_oldest_record_age_seconds", "gauge", &ZERO),
    ("zim2kafka_spool_syncs_total", "counter", &ZERO),
    ("zim2kafka_spool_replayed_records_total", "counter", &ZERO),
    ("zim2kafka_spool_lost_records_total", "counter", &ZERO),
    ("zim2kafka_spool_corruptions_total", "counter", &ZERO),
    ("zim2kafka_log_lines_dropped_total", "counter", &ZERO),
    ("zim2kafka_ready", "gauge", &[("", None)]),
    ("zim2kafka_degraded", "gauge", &ZERO),
    (
        "zim2kafka_config_last_reload_successful",
        "gauge",
        &[("", Some(1.0))],
    ),
    (
        "zim2kafka_tls_certificate_not_after_timestamp_seconds",
        "gauge",
        &ZERO,
    ),
    ("zim2kafka_connections", "gauge", &ZERO),
    (
        "zim2kafka_connections_cut_total",
        "counter",
        &[
            ("{reason=\"displaced\"}", Some(0.0)),
            ("{reason=\"idle\"}", Some(0.0)),
            ("{reason=\"per_address\"}", Some(0.0)),
            ("{reason=\"slow_head\"}", Some(0.0)),
        ],
    ),
    ("zim2kafka_tls_handshake_failures_total", "counter", &ZERO),
    (
        "zim2kafka_app_callbacks_total",
        "counter",
        &[
            ("{appid=\"1\",outcome=\"accepted\"}", Some(0.0)),
            ("{appid=\"1\",outcome=\"unauthorized\"}", Some(0.0)),
            ("{appid=\"other\",outcome=\"accepted\"}", Some(0.0)),
            ("{appid=\"other\",outcome=\"unauthorized\"}", Some(0.0)),
        ],
    ),
    (
        "zim2kafka_requests_refused_total",
        "counter",
        &[
            ("{reason=\"http\"}", Some(0.0)),
            ("{reason=\"method\"}", Some(0.0)),
            ("{reason=\"not_found\"}", Some(0.0)),
            ("{reason=\"tls\"}", Some(0.0)),
        ],
    ),
];
const ZERO: [Start; 1] = [("", Some(0.0))];
const OUTCOMES: [Start; 13] = [
    ("{outcome=\"dead_lettered\"}", Some(0.0)),
    ("{outcome=\"discarded\"}", Some(0.0)),
    ("{outcome=\"duplicate\"}", Some(0.0)),
    ("{outcome=\"failed\"}", Some(0.0)),
    ("{outcome=\"forbidden\"}", Some(0.0)),
    ("{outcome=\"malformed\"}", Some(0.0)),
    ("{outcome=\"passed\"}", Some(0.0)),
    ("{outcome=\"published\"}", Some(0.0)),
    ("{outcome=\"spooled\"}", Some(0.0)),
    ("{outcome=\"timed_out\"}", Some(0.0)),
    ("{outcome=\"too_large\"}", Some(0.0)),
    ("{outcome=\"unauthorized\"}", Some(0.0)),
    ("{outcome=\"unavailable\"}", Some(0.0)),
];

/// The bounds of every histogram, in seconds.
const BUCKETS: [&str; 13] = [
    "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2", "5",
    "+Inf",
];

#[tokio::test]
async fn every_series_of_the_contract_exists_from_the_start_and_no_other() {
    let app = App::embedded(|settings| settings);
    let answer = app.admin("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let scraped = Scraped::of(answer.text());

    let mut expected = BTreeMap::new();
    for (name, kind, series) in FAMILIES {
        assert_eq!(
            scraped.types.get(name).map(String::as_str),
            Some(kind),
            "{name}"
        );
        for (labels, value) in series {
            match kind {
                "histogram" => expected.extend(histogram(name, labels)),
                _ => drop(expected.insert(format!("{name}{labels}"), *value)),
            }
        }
    }
    let ours: Vec<_> = scraped
        .series
        .iter()
        .filter(|(name, _)| is_ours(name))
        .collect();
    let names = |series: &[(&String, &f64)]| -> Vec<String> {
        series.iter().map(|(name, _)| (*name).clone()).collect()
    };
    assert_eq!(names(&ours), expected.keys().cloned().collect::<Vec<_>>());
    for (name, value) in ours {
        if let Some(expected) = expected[name] {
            assert_eq!(*value, expected, "{name}");
        }
    }
    app.stop().await.expect("it stops in order");
}

/// The series of an empty histogram.
fn histogram(name: &str, labels: &str) -> Vec<(String, Option<f64>)> {
    let inner = labels.trim_matches(['{', '}']);
    let with = |bound: &str| match inner {
        "" => format!("{name}_bucket{{le=\"{bound}\"}}"),
        inner => format!("{name}_bucket{{{inner},le=\"{bound}\"}}"),
    };
    let buckets = BUCKETS.map(|bound| (with(bound), Some(0.0)));
    let rest = ["_count", "_sum"].map(|part| (format!("{name}{part}{labels}"), Some(0.0)));
    buckets.into_iter().chain(rest).collect()
}

/// `event_metrics` knows the series of events, and another test those of the build.
fn is_ours(series: &str) -> bool {
    series.starts_with("zim2kafka_")
        && !series.starts_with("zim2kafka_build_info")
        && !series.starts_with("zim2kafka_events_total")
}

#[tokio::test]
async fn build_and_process_metrics_exist_and_every_metric_has_a_help_text() {
    let app = App::embedded(|settings| settings);
    let scraped = Scraped::of(app.admin("/metrics").await.text());
    let build = format!(
        "zim2kafka_build_info{{revision=\"{}\",version=\"{}\"}}",
        env!("ZIM2KAFKA_REVISION"),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(scraped.series.get(&build), Some(&1.0));
    assert_eq!(scraped.types["zim2kafka_build_info"], "gauge");
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
    ] {
        assert!(scraped.series.contains_key(name), "{name}");
    }
    let start = scraped.series["process_start_time_seconds"];
    assert!((0.0..=3600.0).contains(&(now() - start)), "{start}");
    for name in scraped.types.keys() {
        let help = scraped
            .help
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no help"));
        assert!(help.len() > 10, "{name}: {help}");
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn joins_are_counted_once_a_durable_record_and_users_by_number() {
    let app = App::embedded(|settings| settings);
    let before = now();
    let two = callback(json!({"new_user_ids": ["u1", "u2"]}));
    for status in ["published", "duplicate", "duplicate"] {
        assert_eq!(app.post(two.clone()).await.json()["status"], status);
    }
    let invited = json!({
        "join_type": "Invited", "operator_account": "o", "new_user_ids": ["a", "b", "c"],
    });
    app.post(callback(invited)).await;
    for group in ["g1", "g2"] {
        let reused = callback(json!({"nonce": "7", "group_id": group}));
        assert_eq!(app.post(reused).await.json()["status"], "published");
    }
    app.shows(&[
        ("zim2kafka_group_joins_total{join_type=\"Apply\"}", 3.0),
        ("zim2kafka_group_joins_total{join_type=\"Invited\"}", 1.0),
        ("zim2kafka_users_joined_total", 7.0),
        ("zim2kafka_reused_signatures_total", 1.0),
        ("zim2kafka_callbacks_total{outcome=\"published\"}", 4.0),
        ("zim2kafka_callbacks_total{outcome=\"duplicate\"}", 2.0),
        (
            "zim2kafka_callback_duration_seconds_count{outcome=\"published\"}",
            4.0,
        ),
        (
            "zim2kafka_callback_duration_seconds_count{outcome=\"duplicate\"}",
            2.0,
        ),
        ("zim2kafka_kafka_deliveries_total{result=\"acked\"}", 4.0),
        ("zim2kafka_kafka_deliveries_total{result=\"rejected\"}", 0.0),
        ("zim2kafka_kafka_delivery_duration_seconds_count", 4.0),
        ("zim2kafka_kafka_in_flight_records", 0.0),
        ("zim2kafka_callbacks_in_flight", 0.0),
        (
            "zim2kafka_dead_letters_total{reason=\"invalid_event\"}",
            0.0,
        ),
    ])
    .await;
    let last = app
        .metric("zim2kafka_last_callback_timestamp_seconds")
        .await;
    assert!((before - 0.001..=now()).contains(&last), "{last}");
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn dead_letters_are_counted_by_reason_and_not_as_joins() {
    let app = App::embedded(|settings| settings.tolerance(Duration::from_secs(600)));
    let fresh = (now() * 1000.0) as u64;
    for (fields, times) in [
        (json!({}), 1),
        (json!({"event": "group_exit", "timestamp": fresh}), 2),
        (json!({"new_user_ids": [], "timestamp": fresh}), 3),
    ] {
        for _ in 0..times {
            assert_eq!(
                app.post(callback(fields.clone())).await.json()["status"],
                "dead_lettered"
            );
        }
    }
    app.shows(&[
        ("zim2kafka_dead_letters_total{reason=\"stale\"}", 1.0),
        (
            "zim2kafka_dead_letters_total{reason=\"unsupported_event\"}",
            2.0,
        ),
        (
            "zim2kafka_dead_letters_total{reason=\"invalid_event\"}",
            3.0,
        ),
        (
            "zim2kafka_dead_letters_total{reason=\"rejected_by_kafka\"}",
            0.0,
        ),
        ("zim2kafka_callbacks_total{outcome=\"dead_lettered\"}", 6.0),
        ("zim2kafka_kafka_deliveries_total{result=\"acked\"}", 6.0),
        ("zim2kafka_group_joins_total{join_type=\"Apply\"}", 0.0),
        ("zim2kafka_users_joined_total", 0.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn a_record_that_kafka_refuses_counts_as_rejected_and_as_one_dead_letter() {
    let Some(kafka) = kafka() else { return };
    let (topic, dead_letter_topic) = (kafka.unique_topic("narrow"), kafka.unique_topic("dead"));
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "2000")]);
    kafka.create_topic(&dead_letter_topic, 1, &[]);
    let mut settings = Settings::on(kafka.brokers(), &topic, &dead_letter_topic);
    // It takes a second producer and its connection.
    settings.0.callbacks.answer_deadline = PATIENCE;
    let app = settings.start();
    app.ready().await;
    // Of digits without a pattern, so that compression does not make it fit.
    let long: String = (0..600_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_string())
        .collect();
    let answer = app.post(callback(json!({"new_user_ids": [long]}))).await;
    assert_eq!(answer.json()["status"], "dead_lettered");
    app.shows(&[
        ("zim2kafka_kafka_deliveries_total{result=\"rejected\"}", 1.0),
        ("zim2kafka_kafka_deliveries_total{result=\"acked\"}", 1.0),
        (
            "zim2kafka_dead_letters_total{reason=\"rejected_by_kafka\"}",
            1.0,
        ),
        ("zim2kafka_group_joins_total{join_type=\"Apply\"}", 0.0),
        ("zim2kafka_users_joined_total", 0.0),
        ("zim2kafka_kafka_in_flight_records", 0.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn refused_callbacks_are_counted_by_outcome_and_other_requests_are_not() {
    let app = App::embedded(|settings| settings);
    app.post("nonsense").await;
    app.post(callback(json!({"appid": "unknown"}))).await;
    app.post(callback(json!({"event": "before_send_msg"})))
        .await;
    app.post(vec![b' '; 512 * 1024 + 1]).await;
    app.post_with(&[("content-encoding", "gzip")], callback(json!({})))
        .await;
    let elsewhere = [
        (Method::GET, "/callbacks/zim"),
        (Method::POST, "/elsewhere"),
        (Method::GET, "/metrics"),
    ];
    for (method, path) in elsewhere {
        let uri = format!("http://{}{path}", app.callbacks);
        let request = Request::builder().method(method).uri(uri);
        app.ask(request.body(Full::default()).expect("valid")).await;
    }
    let counted: f64 = app.outcomes().await.values().sum();
    assert_eq!(counted, 5.0, "only callbacks count");
    app.shows(&[
        ("zim2kafka_callbacks_total{outcome=\"malformed\"}", 2.0),
        ("zim2kafka_callbacks_total{outcome=\"unauthorized\"}", 1.0),
        ("zim2kafka_callbacks_total{outcome=\"passed\"}", 1.0),
        ("zim2kafka_callbacks_total{outcome=\"too_large\"}", 1.0),
        (
            "zim2kafka_app_callbacks_total{appid=\"1\",outcome=\"accepted\"}",
            1.0,
        ),
        (
            "zim2kafka_app_callbacks_total{appid=\"other\",outcome=\"unauthorized\"}",
            1.0,
        ),
        ("zim2kafka_requests_refused_total{reason=\"method\"}", 1.0),
        (
            "zim2kafka_requests_refused_total{reason=\"not_found\"}",
            2.0,
        ),
        ("zim2kafka_kafka_deliveries_total{result=\"acked\"}", 0.0),
        ("zim2kafka_callbacks_in_flight", 0.0),
    ])
    .await;
    app.stop().await.expect("it stops in order");
}

impl App {
    /// How many callbacks ended how.
    async fn outcomes(&self) -> BTreeMap<String, f64> {
        let mut series = Scraped::of(self.admin("/metrics").await.text()).series;
        series.retain(|name, _| name.starts_with("zim2kafka_callbacks_total{"));
        series
    }
}

/// Seconds since 1970-01-01 UTC.
fn now() -> f64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.expect("the clock is set").as_secs_f64()
}
