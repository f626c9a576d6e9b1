//! How long a connection may keep us waiting, and who gives up a place.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::support::app::{App, PATIENCE, Settings, callback};
use crate::support::wire::{Wire, of_length};

/// A head may take so long from its first byte.
const HEAD: Duration = Duration::from_secs(10);

/// What a busy machine adds to a limit.
const LATE: Duration = Duration::from_secs(2);

fn cut(reason: &str) -> String {
    format!("zim2kafka_connections_cut_total{{reason=\"{reason}\"}}")
}

/// How long the service keeps the connection. What begins a limit reaches the service before we
/// know, so a time that must not be too short is counted from before it.
async fn kept(wire: &mut Wire, since: Instant) -> Duration {
    timeout(PATIENCE, wire.end()).await.expect("it ends");
    since.elapsed()
}

#[track_caller]
fn assert_about(took: Duration, limit: Duration) {
    assert!(
        took >= limit && took < limit + LATE,
        "{took:?} for {limit:?}"
    );
}

async fn posts(wire: &mut Wire) -> StatusCode {
    wire.post(callback(json!({}))).await.status
}

fn idle(idle: Duration) -> impl FnOnce(Settings) -> Settings {
    move |mut settings| {
        settings.0.connections.idle = idle;
        settings
    }
}

#[tokio::test]
async fn a_head_has_ten_seconds_from_its_first_byte_and_silence_before_it_does_not_count() {
    let app = App::embedded(|settings| settings);
    let stops = async {
        let mut wire = Wire::to(&app).await;
        // Longer than a busy machine may be late.
        sleep(Duration::from_secs(3)).await;
        let began = Instant::now();
        wire.say("P").await;
        kept(&mut wire, began).await
    };
    // A byte now and then does not lengthen the time for the whole.
    let trickles = async {
        let mut wire = Wire::to(&app).await;
        let began = Instant::now();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        wire.say("POST /callbacks/zim HTTP/1.1\r\nx: ").await;
        loop {
            tokio::select! {
                () = wire.end() => return began.elapsed(),
                _ = second.tick() => {}
            }
            wire.try_say("y").await;
        }
    };
    // The same after an answer.
    let second = async {
        let mut wire = Wire::to(&app).await;
        assert_eq!(posts(&mut wire).await, StatusCode::OK);
        let began = Instant::now();
        wire.say("POST").await;
        kept(&mut wire, began).await
    };
    let silent = async {
        let mut wire = Wire::to(&app).await;
        sleep(HEAD + LATE).await;
        posts(&mut wire).await
    };
    let (stopped, trickled, second, silent) = tokio::join!(stops, trickles, second, silent);
    assert_about(stopped, HEAD);
    assert_about(trickled, HEAD);
    assert_about(second, HEAD);
    assert_eq!(silent, StatusCode::OK);
    assert_eq!(app.metric(&cut("slow_head")).await, 3.0);
    let refused = "zim2kafka_requests_refused_total{reason=\"http\"}";
    assert_eq!(app.metric(refused).await, 3.0);
    assert_eq!(app.metric(&cut("idle")).await, 0.0);
}

#[tokio::test]
async fn a_silent_connection_is_kept_for_the_idle_timeout_from_its_start_and_from_each_answer() {
    const IDLE: Duration = Duration::from_secs(3);
    let app = App::embedded(idle(IDLE));
    // The system takes connections before the service does.
    app.ready().await;
    let new = async {
        let began = Instant::now();
        kept(&mut Wire::to(&app).await, began).await
    };
    let used = async {
        let mut wire = Wire::to(&app).await;
        for _ in 0..3 {
            assert_eq!(posts(&mut wire).await, StatusCode::OK);
            sleep(IDLE / 2).await;
        }
        let began = Instant::now();
        assert_eq!(posts(&mut wire).await, StatusCode::OK);
        kept(&mut wire, began).await
    };
    let (new, used) = tokio::join!(new, used);
    assert_about(new, IDLE);
    assert_about(used, IDLE);
    assert_eq!(app.metric(&cut("idle")).await, 2.0);
    app.wait_for("no connection is counted", async || {
        app.metric("zim2kafka_connections").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected() {
    const IDLE: Duration = Duration::from_secs(2);
    let app = App::embedded(idle(IDLE));
    let mut wire = Wire::to(&app).await;
    let request = "GET /callbacks/zim HTTP/1.1\r\nHost: here\r\n\r\n".repeat(100);
    // The service stops reading when it cannot write, and then nothing more can be sent.
    let all = async { while wire.try_say(&request).await {} };
    timeout(PATIENCE, all).await.expect("it is cut off");
    assert_eq!(app.metric(&cut("idle")).await, 1.0);
}

#[tokio::test]
async fn at_the_connection_limit_the_longest_idle_connection_is_closed() {
    let app = App::embedded(|mut settings| {
        settings.0.connections.connections = 3;
        settings
    });
    let mut first = Wire::to(&app).await;
    assert_eq!(posts(&mut first).await, StatusCode::OK);
    let mut second = Wire::to(&app).await;
    assert_eq!(posts(&mut second).await, StatusCode::OK);
    let mut slow = Wire::to(&app).await;
    slow.say("POST").await;
    // The first second of a silence does not count: a request may be on the line.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(posts(&mut first).await, StatusCode::OK);
    sleep(Duration::from_millis(1100)).await;

    // The second is idle for longer than the first, and the third is not idle although it is slow.
    let mut fourth = Wire::to(&app).await;
    assert_eq!(posts(&mut fourth).await, StatusCode::OK);
    assert!(kept(&mut second, Instant::now()).await < LATE);
    let mut fifth = Wire::to(&app).await;
    assert_eq!(posts(&mut fifth).await, StatusCode::OK);
    assert!(kept(&mut first, Instant::now()).await < LATE);
    // Nobody is idle now but for a moment, so it is the slow one that has kept us waiting longest.
    let mut sixth = Wire::to(&app).await;
    assert_eq!(posts(&mut sixth).await, StatusCode::OK);
    assert!(kept(&mut slow, Instant::now()).await < LATE);
    assert_eq!(app.metric(&cut("displaced")).await, 3.0);
    assert_eq!(posts(&mut fourth).await, StatusCode::OK);
    assert_eq!(app.metric("zim2kafka_connections").await, 3.0);
}

#[tokio::test]
async fn connections_that_closed_before_they_were_displaced_delay_no_request() {
    const PLACES: usize = 60;
    let app = App::embedded(|mut settings| {
        settings.0.connections.connections = PLACES;
        settings
    });
    app.ready().await;
    let mut all = Vec::new();
    for _ in 0..PLACES {
        all.push(Wire::to(&app).await);
    }
    // All are idle; one has to go, and with it the next ones are chosen.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(posts(&mut Wire::to(&app).await).await, StatusCode::OK);
    drop(all);
    let mut again = Vec::new();
    for _ in 0..PLACES {
        again.push(Wire::to(&app).await);
    }
    // Each of those who are gone would cost a look, of 10 ms.
    for wire in &mut again {
        assert_eq!(posts(wire).await, StatusCode::OK);
    }
    assert_eq!(app.metric(&cut("displaced")).await, 1.0);
}

#[tokio::test]
async fn a_client_that_half_closes_still_gets_the_answer() {
    let app = App::embedded(|settings| settings);
    let mut wire = Wire::to(&app).await;
    let body = callback(json!({}));
    wire.say([of_length(body.len()).as_bytes(), &body].concat())
        .await;
    wire.say_no_more().await;
    assert_eq!(wire.hear().await.json()["status"], "published");
    timeout(PATIENCE, wire.end()).await.expect("it ends");
}

#[tokio::test]
async fn a_connection_that_waits_for_its_answer_is_not_displaced() {
    // A Kafka that is not there: every answer takes as long as it may.
    let mut settings = Settings::on("127.0.0.1:1", "joined", "dead");
    settings.0.connections.connections = 2;
    settings.0.connections.reserved = 0;
    let app = settings.start();
    let waits = async || {
        let mut wire = Wire::to(&app).await;
        posts(&mut wire).await
    };
    // Two wait for the answer deadline of 2 s, and the third for one of their places.
    let asked = Instant::now();
    let third = async {
        app.wait_for("two wait", async || {
            app.metric("zim2kafka_callbacks_in_flight").await == 2.0
        })
        .await;
        (waits().await, asked.elapsed())
    };
    let (one, two, (three, took)) = tokio::join!(waits(), waits(), third);
    assert_eq!([one, two, three], [StatusCode::SERVICE_UNAVAILABLE; 3]);
    assert!(took > 2 * Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_it_may() {
    let app = App::embedded(|mut settings| {
        settings.0.connections.per_address = Some(2);
        settings
    });
    let mut first = Wire::to(&app).await;
    let mut second = Wire::to(&app).await;
    assert_eq!(posts(&mut first).await, StatusCode::OK);
    assert_eq!(posts(&mut second).await, StatusCode::OK);
    assert!(kept(&mut Wire::to(&app).await, Instant::now()).await < LATE);
    assert_eq!(app.metric(&cut("per_address")).await, 1.0);
    drop(first);
    app.wait_for("its place is free", async || {
        app.metric("zim2kafka_connections").await == 1.0
    })
    .await;
    assert_eq!(posts(&mut Wire::to(&app).await).await, StatusCode::OK);

    // A proxy's address stands for many.
    let app = App::embedded(|mut settings| {
        settings.0.connections.per_address = Some(1);
        settings.0.callbacks.senders.trusted_proxies = "127.0.0.0/8".parse().expect("networks");
        settings
    });
    let mut wires = [Wire::to(&app).await, Wire::to(&app).await];
    for wire in &mut wires {
        assert_eq!(posts(wire).await, StatusCode::OK);
    }
}
