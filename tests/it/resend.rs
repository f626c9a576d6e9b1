//! What comes again: the same callback, and another under the same signature.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use zim2kafka::kafka::EmbeddedKafka;

use crate::support::answers::{assert_status, outcome};
use crate::support::app::{App, SECRET, Settings, callback};
use crate::support::kafka::{Kafka, TestRecord};

/// All that stands in the topic now; every record of an answered callback is among it.
async fn all_records(app: &App) -> Vec<TestRecord> {
    let (kafka, topic) = (Kafka::at(app.kafka.brokers()), app.topic.clone());
    let read = move || kafka.read_all(&topic);
    tokio::task::spawn_blocking(read).await.expect("it reads")
}

#[tokio::test]
async fn a_resend_is_a_duplicate_and_published_once() {
    let app = App::embedded(|settings| settings);
    let body = callback(json!({"new_user_ids": ["u1", "u2"]}));
    let event_id = assert_status(&app.post(body.clone()).await, "published");
    for _ in 0..3 {
        assert_eq!(
            assert_status(&app.post(body.clone()).await, "duplicate"),
            event_id
        );
    }
    let lost = callback(json!({"event": "group_exit"}));
    let letter_id = assert_status(&app.post(lost.clone()).await, "dead_lettered");
    assert_eq!(assert_status(&app.post(lost).await, "duplicate"), letter_id);

    assert_eq!(all_records(&app).await.len(), 1);
    for (series, count) in [
        (outcome("published").as_str(), 1.0),
        (&outcome("dead_lettered"), 1.0),
        (&outcome("duplicate"), 4.0),
        ("zim2kafka_group_joins_total{join_type=\"Apply\"}", 1.0),
        ("zim2kafka_users_joined_total", 2.0),
        (
            "zim2kafka_dead_letters_total{reason=\"unsupported_event\"}",
            1.0,
        ),
        ("zim2kafka_reused_signatures_total", 0.0),
        ("zim2kafka_callbacks_in_flight", 0.0),
    ] {
        assert_eq!(app.metric(series).await, count, "{series}");
    }
}

/// A Kafka behind a gate: its brokers are reached from when the gate is opened, and not before.
async fn gated() -> (EmbeddedKafka, String, oneshot::Sender<()>) {
    let kafka = EmbeddedKafka::start(&["joined", "dead"], 1).expect("it starts");
    let gate = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = gate.local_addr().expect("it is bound").to_string();
    let (open, opened) = oneshot::channel();
    let brokers = kafka.brokers().to_owned();
    tokio::spawn(async move {
        opened.await.ok();
        while let Ok((mut client, _)) = gate.accept().await {
            let brokers = brokers.clone();
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(brokers).await.expect("it listens");
                // It ends with either side, which is no news.
                tokio::io::copy_bidirectional(&mut client, &mut broker)
                    .await
                    .ok();
            });
        }
    });
    (kafka, address, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_of_an_event_on_its_way_gets_the_same_answer_and_no_record_of_its_own() {
    let (_kafka, gate, open) = gated().await;
    let mut settings = Settings::on(&gate, "joined", "dead");
    settings.0.callbacks.answer_deadline = Duration::from_secs(30);
    let app = settings.start();
    let body = callback(json!({}));
    let (first, second, third, ()) = tokio::join!(
        app.post(body.clone()),
        app.post(body.clone()),
        app.post(body.clone()),
        async {
            app.wait_for("all three wait", async || {
                app.metric("zim2kafka_callbacks_in_flight").await == 3.0
            })
            .await;
            open.send(()).expect("the gate is there");
        },
    );
    let event_id = assert_status(&first, "published");
    assert_eq!(assert_status(&second, "published"), event_id);
    assert_eq!(assert_status(&third, "published"), event_id);
    assert_eq!(assert_status(&app.post(body).await, "duplicate"), event_id);
    assert_eq!(all_records(&app).await.len(), 1);
    assert_eq!(
        app.metric("zim2kafka_group_joins_total{join_type=\"Apply\"}")
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_answered_503_keeps_its_number_and_its_resend_is_matched_to_it() {
    let (_kafka, gate, open) = gated().await;
    let mut settings = Settings::on(&gate, "joined", "dead");
    settings.0.callbacks.answer_deadline = Duration::from_millis(200);
    let app = settings.start();
    let body = callback(json!({}));
    for _ in 0..2 {
        let answer = app.post(body.clone()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    open.send(()).expect("the gate is there");
    app.records(1).await;
    app.wait_for("its acknowledgement has come", async || {
        app.metric("zim2kafka_users_joined_total").await == 1.0
    })
    .await;
    assert_status(&app.post(body).await, "duplicate");
    assert_eq!(all_records(&app).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_published_even_if_its_sender_disconnects() {
    let (_kafka, gate, open) = gated().await;
    let app = Settings::on(&gate, "joined", "dead").start();
    let body = callback(json!({"group_id": "left alone"}));
    let in_flight = "zim2kafka_callbacks_in_flight";
    tokio::select! {
        answer = app.post(body) => panic!("it is answered: {answer:?}"),
        () = app.wait_for("it waits", async || app.metric(in_flight).await == 1.0) => {}
    }
    app.wait_for("nobody waits", async || app.metric(in_flight).await == 0.0)
        .await;
    open.send(()).expect("the gate is there");
    let records = app.records(1).await;
    let keys: Vec<_> = records.iter().map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [Some(b"left alone".as_slice())]);
}

#[tokio::test]
async fn another_body_under_the_same_signature_is_published_and_marked() {
    let app = App::embedded(|settings| settings);
    let body = |group_id: &str| callback(json!({"group_id": group_id, "nonce": "350176"}));
    let first = assert_status(&app.post(body("g1")).await, "published");
    let second = assert_status(&app.post(body("g2")).await, "published");
    assert_ne!(first, second);
    assert_reused(&app, "g1", "g2").await;
}

#[tokio::test]
async fn two_splits_of_the_same_digits_are_a_reuse_and_no_forgery() {
    let vectors = include_str!("../fixtures/vectors/signatures.json");
    let vectors: Value = serde_json::from_str(vectors).expect("the vectors");
    let pairs = vectors["same_signature"]["pairs"]
        .as_array()
        .expect("pairs");
    assert!(!pairs.is_empty());
    for pair in pairs {
        let app = App::embedded(|settings| settings);
        for (split, group_id) in [(&pair[0], "one"), (&pair[1], "other")] {
            assert_eq!(split["secret"], SECRET);
            let (timestamp, nonce) = (&split["timestamp"], &split["nonce"]);
            let fields = json!({"timestamp": timestamp, "nonce": nonce, "group_id": group_id});
            let body = callback(fields);
            let sent: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(sent["signature"], pair[2]);
            assert_status(&app.post(body).await, "published");
        }
        assert_reused(&app, "one", "other").await;
    }
}

/// Both are published, and the later one is marked and counted.
async fn assert_reused(app: &App, first: &str, second: &str) {
    let records = app.records(2).await;
    let mark = |group_id: &str| {
        let of_group = |record: &&TestRecord| record.key.as_deref() == Some(group_id.as_bytes());
        let record = records.iter().find(of_group).expect("it is published");
        record.header("ce_signaturereused").map(<[u8]>::to_vec)
    };
    assert_eq!(mark(first), None);
    assert_eq!(mark(second), Some(b"true".to_vec()));
    assert_eq!(app.metric("zim2kafka_reused_signatures_total").await, 1.0);
}
