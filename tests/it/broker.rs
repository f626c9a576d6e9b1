//! The service against a real Apache Kafka.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::app::{App, PATIENCE, Settings, callback};
use crate::support::kafka::{Cluster, Kafka, kafka, shared_cluster};
use crate::support::partitions::Table;

#[tokio::test(flavor = "multi_thread")]
async fn every_key_lands_in_the_partition_where_the_java_client_would_put_it() {
    let Some(kafka) = kafka() else { return };
    let app = App::real(kafka, |settings| settings).await;
    let table = Table::committed();
    // No group has an empty ID; the producer's own test covers the empty key.
    let expected: BTreeMap<_, _> = table
        .of_topic_with(12)
        .into_iter()
        .filter(|(key, _)| !key.is_empty())
        .collect();
    for key in expected.keys() {
        let answer = app.post(callback(json!({"group_id": key}))).await;
        assert_eq!(answer.status, StatusCode::OK, "{key:?}");
    }
    let records = app.records(expected.len()).await;
    let found: BTreeMap<_, _> = (records.iter())
        .map(|record| {
            let key = record.key.as_deref().expect("every event has a key");
            (std::str::from_utf8(key).expect("UTF-8"), record.partition)
        })
        .collect();
    assert_eq!(found, expected);
    app.stop().await.expect("it stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_carries_its_headers_and_its_callbacks_own_time() {
    let Some(kafka) = kafka() else { return };
    let app = App::real(kafka, |settings| settings).await;
    let answer = app.post(callback(json!({"group_id": "g+%25"}))).await;
    let id = answer.json()["event_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let records = app.records(1).await;
    assert_eq!(records[0].timestamp, 1_757_577_600_123);
    let header = |name: &str| {
        let value = records[0]
            .header(name)
            .unwrap_or_else(|| panic!("no header {name}"));
        std::str::from_utf8(value).expect("text").to_owned()
    };
    assert_eq!(header("ce_id"), id);
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_type"), "com.zegocloud.zim.group.joined.v1");
    assert_eq!(header("ce_source"), "/zim/apps/1");
    assert_eq!(header("ce_subject"), "g+%25");
    assert_eq!(header("ce_time"), "2025-09-11T08:00:00.123Z");
    assert_eq!(
        header("ce_dataschema"),
        "urn:zim2kafka:schema:group-joined:v1"
    );
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(records[0].headers.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_created_where_that_is_wanted() {
    let Some(kafka) = kafka() else { return };
    let (topic, dead) = (kafka.unique_topic("made"), kafka.unique_topic("made-dead"));
    let app = Settings::on(kafka.brokers(), &topic, &dead)
        .create_topics(12)
        .start();
    app.ready().await;
    assert_eq!(
        app.post(callback(json!({}))).await.json()["status"],
        "published"
    );
    let unsupported = app.post(callback(json!({"event": "group_exit"}))).await;
    assert_eq!(unsupported.json()["status"], "dead_lettered");
    app.records(1).await;
    app.dead_letters(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_for_a_missing_topic_are_published_once_it_exists() {
    let Some(kafka) = kafka() else { return };
    let (topic, dead) = (kafka.unique_topic("late"), kafka.unique_topic("late-dead"));
    let app = Settings::on(kafka.brokers(), &topic, &dead).start();
    let body = callback(json!({}));
    let refused = app.post(body.clone()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        app.admin("/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    kafka.create_topic(&topic, 3, &[]);
    kafka.create_topic(&dead, 3, &[]);
    app.ready().await;
    app.records(1).await;
    assert_eq!(app.post(body).await.json()["status"], "duplicate");
    assert_eq!(app.records(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafka_refuses_becomes_a_dead_letter_and_its_neighbours_do_not() {
    let Some(kafka) = kafka() else { return };
    let note = "x".repeat(20_000);
    for (config, fields) in [
        (("max.message.bytes", "3000"), json!({"note": note})),
        // The year 2100.
        (
            ("message.timestamp.after.max.ms", "3600000"),
            json!({"timestamp": 4_102_444_800_000_u64}),
        ),
    ] {
        the_topic_takes_all_but(kafka, config, fields).await;
    }
}

async fn the_topic_takes_all_but(kafka: &Kafka, config: (&str, &str), mut fields: Value) {
    let (topic, dead) = (
        kafka.unique_topic("narrow"),
        kafka.unique_topic("narrow-dead"),
    );
    kafka.create_topic(&topic, 1, &[config]);
    kafka.create_topic(&dead, 1, &[]);
    let mut settings = Settings::on(kafka.brokers(), &topic, &dead);
    // Compression would make it fit.
    settings = settings.properties("compression.type=none");
    settings.0.callbacks.answer_deadline = Duration::from_secs(25);
    let app = settings.start();
    app.ready().await;
    fields["group_id"] = "refused".into();
    let refused = callback(fields);
    let others: Vec<_> = (0..8)
        .map(|at| callback(json!({"group_id": format!("taken{at}")})))
        .collect();
    let answers = futures(&app, [vec![refused], others].concat()).await;
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer["status"].as_str().unwrap_or("none"))
        .collect();
    assert_eq!(statuses[0], "dead_lettered", "{answers:?}");
    assert!(
        statuses[1..].iter().all(|status| *status == "published"),
        "{answers:?}"
    );
    let letters = app.dead_letters(1).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].header("dead_letter_reason"),
        Some(b"rejected_by_kafka".as_slice())
    );
    assert_eq!(letters[0].key.as_deref(), Some(b"refused".as_slice()));
    let value: Value = serde_json::from_slice(&letters[0].value).expect("the record's own");
    assert_eq!(value["group_id"], "refused");
    // Each at least once.
    let mut keys = BTreeSet::new();
    for at_least in 8.. {
        let records = app.records(at_least).await;
        keys.extend(records.into_iter().filter_map(|record| record.key));
        if keys.len() == 8 {
            break;
        }
    }
    assert_eq!(
        app.post(callback(json!({"group_id": "after"})))
            .await
            .json()["status"],
        "published"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_is_missing_holds_up_no_event() {
    let Some(kafka) = kafka() else { return };
    let (topic, dead) = (
        kafka.unique_topic("alive"),
        kafka.unique_topic("alive-dead"),
    );
    kafka.create_topic(&topic, 3, &[]);
    let app = Settings::on(kafka.brokers(), &topic, &dead).start();
    app.ready().await;
    let letter = app.post(callback(json!({"event": "group_exit"}))).await;
    assert_eq!(letter.status, StatusCode::SERVICE_UNAVAILABLE);
    for at in 0..20 {
        let answer = app
            .post(callback(json!({"group_id": format!("g{at}")})))
            .await;
        assert_eq!(answer.json()["status"], "published");
    }
    kafka.create_topic(&dead, 1, &[]);
    assert_eq!(app.dead_letters(1).await.len(), 1);
    assert_eq!(app.records(20).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_over_tls_works_and_a_wrong_password_is_not_ready() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let (topic, dead) = (
        cluster.unique_topic("sasl"),
        cluster.unique_topic("sasl-dead"),
    );
    cluster.create_topic(&topic, 3, &[]);
    cluster.create_topic(&dead, 3, &[]);
    let sasl = cluster.sasl_ssl();
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let properties: Vec<_> = sasl
            .properties(mechanism)
            .iter()
            .map(|(key, value)| match (*key, mechanism) {
                ("ssl.ca.location", "SCRAM-SHA-512") => {
                    let pem = std::fs::read_to_string(value).expect("it was written");
                    format!("ssl.ca.pem={pem}")
                }
                (key, _) => format!("{key}={value}"),
            })
            .collect();
        let app = Settings::on(&sasl.brokers, &topic, &dead)
            .properties(&properties.join("\n"))
            .start();
        app.ready().await;
        let answer = app.post(callback(json!({"group_id": mechanism}))).await;
        assert_eq!(answer.json()["status"], "published", "{mechanism}");
    }
    let wrong: Vec<_> = (sasl.properties("SCRAM-SHA-512").iter())
        .map(|(key, value)| match *key {
            "sasl.password" => "sasl.password=wrong".to_owned(),
            key => format!("{key}={value}"),
        })
        .collect();
    let app = Settings::on(&sasl.brokers, &topic, &dead)
        .properties(&wrong.join("\n"))
        .start();
    let answer = app.post(callback(json!({}))).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        app.admin("/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let records = cluster.read_until(&topic, 2, Duration::from_secs(30));
    assert_eq!(records.len(), 2);
}

/// Sends a callback again until it is answered 200, as the sender does: a Kafka that has just started
/// may take longer than the deadline of answers.
async fn post_until_durable(app: &App, body: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = app.post(body.to_vec()).await;
        if answer.status == StatusCode::OK {
            return;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(Instant::now() < deadline, "not durable: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_outage_keeps_events_and_their_order() {
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    let (topic, dead) = (
        cluster.unique_topic("away"),
        cluster.unique_topic("away-dead"),
    );
    cluster.create_topic(&topic, 3, &[]);
    cluster.create_topic(&dead, 3, &[]);
    cluster.stop(1);
    let mut settings = Settings::on(cluster.brokers(), &topic, &dead);
    settings.0.callbacks.answer_deadline = Duration::from_millis(500);
    let app = settings.start();
    assert_eq!(app.admin("/livez").await.status, StatusCode::OK);
    assert_eq!(
        app.admin("/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let bodies: Vec<_> = (0..6)
        .map(|at| callback(json!({"new_user_ids": [format!("u{at}")]})))
        .collect();
    for body in &bodies[..3] {
        let began = Instant::now();
        let answer = app.post(body.clone()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "2");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
    cluster.start_again(1);
    app.ready().await;
    // What was answered 503 kept its number; what comes now stands behind it.
    assert_eq!(app.records(3).await.len(), 3);
    for body in &bodies[..3] {
        assert_eq!(app.post(body.clone()).await.json()["status"], "duplicate");
    }
    // Again, under way: the broker dies between two events, and comes back.
    post_until_durable(&app, &bodies[3]).await;
    cluster.stop(1);
    assert_eq!(
        app.post(bodies[4].clone()).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    cluster.start_again(1);
    app.ready().await;
    app.records(5).await;
    post_until_durable(&app, &bodies[5]).await;
    let records = app.records(6).await;
    let users: Vec<_> = (records.iter())
        .map(|record| {
            let value: serde_json::Value = serde_json::from_slice(&record.value).expect("JSON");
            value["new_user_ids"][0]
                .as_str()
                .expect("a user")
                .to_owned()
        })
        .collect();
    assert_eq!(
        users,
        ["u0", "u1", "u2", "u3", "u4", "u5"],
        "one group, one order, nothing twice"
    );
    app.stop().await.expect("it stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_that_was_answered_2xx() {
    let Some(kafka) = kafka() else { return };
    let mut app = App::real(kafka, |settings| settings).await;
    let bodies: Vec<_> = (0..200)
        .map(|at| callback(json!({"group_id": format!("g{at}")})))
        .collect();
    app.begin_stop();
    let answers = futures(&app, bodies).await;
    let published = answers
        .iter()
        .filter(|answer| answer["status"] == "published")
        .count();
    let topic = app.topic.clone();
    app.stop().await.expect("it stops in order");
    let (brokers, count) = (kafka.brokers(), published);
    let records = crate::support::kafka::Kafka::at(brokers).read_all(&topic);
    assert!(records.len() >= count, "{} of {count}", records.len());
}

/// Posts all at once; the answers' bodies, or null where the connection was refused.
async fn futures(app: &App, bodies: Vec<Vec<u8>>) -> Vec<serde_json::Value> {
    let mut tasks = tokio::task::JoinSet::new();
    let url = format!("http://{}/callbacks/zim", app.callbacks);
    for (at, body) in bodies.into_iter().enumerate() {
        let (client, url) = (app.client(), url.clone());
        tasks.spawn(async move {
            let request = hyper::Request::post(url)
                .body(http_body_util::Full::new(body.into()))
                .expect("valid");
            let Ok(response) = client.request(request).await else {
                return (at, json!(null));
            };
            let body = http_body_util::BodyExt::collect(response.into_body()).await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            (at, serde_json::from_slice(&body).unwrap_or_default())
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
