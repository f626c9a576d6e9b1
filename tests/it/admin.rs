//! The admin port: health, the headers of its answers, and nothing of it elsewhere.

use std::net::{TcpListener, TcpStream};
use std::{io, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::support::app::{Answer, App, PATIENCE, Settings, callback};
use crate::support::wire::Wire;

#[tokio::test]
async fn the_service_is_ready_once_kafka_answers_and_not_before() {
    // A Kafka whose door stays shut at first: it listens, and nobody lets the connections in.
    let door = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = door.local_addr().expect("it is bound").to_string();
    let behind = App::embedded(|settings| settings);
    let mut settings = Settings::on(&address, &behind.topic, &behind.dead_letter_topic);
    settings.0.inspect_topics = false;
    let app = settings.start();
    let answer = app.admin("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.admin("/livez").await.status, StatusCode::OK);
    assert_eq!(app.metric("zim2kafka_ready").await, 0.0);
    assert_eq!(app.metric("zim2kafka_kafka_up").await, 0.0);
    let round_trip = app.metric("zim2kafka_kafka_round_trip_seconds").await;
    assert!(round_trip.is_nan(), "not measured yet: {round_trip}");

    let brokers = behind.kafka.brokers().to_owned();
    thread::spawn(move || open(&door, &brokers));
    app.ready().await;
    app.shows(&[
        ("zim2kafka_ready", 1.0),
        ("zim2kafka_kafka_up", 1.0),
        ("zim2kafka_kafka_brokers_up", 1.0),
    ])
    .await;
    let round_trip = app.metric("zim2kafka_kafka_round_trip_seconds").await;
    assert!(round_trip > 0.0 && round_trip < 5.0, "{round_trip}");
    app.stop().await.expect("it stops in order");
    behind.stop().await.expect("it stops in order");
}

/// Lets everybody in, as long as the test's process lives.
fn open(door: &TcpListener, to: &str) {
    for guest in door.incoming().flatten() {
        let host = TcpStream::connect(to).expect("the embedded Kafka listens");
        for (mut from, mut to) in [(clone(&guest), clone(&host)), (host, guest)] {
            thread::spawn(move || io::copy(&mut from, &mut to));
        }
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be cloned")
}

#[tokio::test]
async fn while_it_stops_the_service_is_unready_and_still_takes_callbacks() {
    let mut app = App::embedded(|mut settings| {
        settings.0.drain_delay = PATIENCE;
        settings.0.stop_deadline = 2 * PATIENCE;
        settings
    });
    app.ready().await;
    app.begin_stop();
    app.wait_for("it is unready", async || {
        app.admin("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(app.admin("/livez").await.status, StatusCode::OK);
    assert_eq!(app.metric("zim2kafka_ready").await, 0.0);
    let answer = app.post(callback(json!({}))).await;
    assert_eq!(answer.json()["status"], "published");
}

#[tokio::test]
async fn the_admin_port_answers_get_and_head_and_404_or_405_otherwise() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    for path in ["/", "/status.json", "/livez", "/readyz", "/metrics"] {
        let head = app.admin_with(Method::HEAD, path).await;
        assert_eq!(
            (head.status, head.body.len()),
            (StatusCode::OK, 0),
            "{path}"
        );
        let get = app.admin(path).await;
        assert_eq!(get.header("content-type"), head.header("content-type"));
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer = app.admin_with(method, path).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.header("allow"), "GET, HEAD");
            is_problem(&answer, 405);
            is_protected(&answer);
        }
        is_protected(&get);
        is_protected(&head);
    }
    for path in ["/callbacks/zim", "/metrics/", "/nothing", "/readyz/x"] {
        let answer = app.admin(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        is_problem(&answer, 404);
        is_protected(&answer);
        let posted = app.admin_with(Method::POST, path).await;
        assert_eq!(posted.status, StatusCode::NOT_FOUND);
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn what_the_http_library_answers_on_the_admin_port_has_no_body() {
    let app = App::embedded(|settings| settings);
    let large = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(30_000));
    for (request, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET /livez HTTP/1.1\r\na b: c\r\n\r\n", "400 Bad Request"),
        (&large, "431 Request Header Fields Too Large"),
    ] {
        let mut wire = Wire::at(app.admin).await;
        wire.try_say(request).await;
        let answer = wire.hear_all().await;
        let answer = String::from_utf8(answer).expect("text");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    // Each other request gets an answer of the service.
    for request in [
        "OPTIONS * HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
        "GET /livez HTTP/1.0",
    ] {
        let mut wire = Wire::at(app.admin).await;
        wire.say(format!("{request}\r\nConnection: close\r\n\r\n"))
            .await;
        let answer = String::from_utf8(wire.hear_all().await).expect("text");
        assert!(
            answer.contains("\r\ncache-control: no-store\r\n"),
            "{answer}"
        );
    }
    app.stop().await.expect("it stops in order");
}

#[tokio::test]
async fn nothing_of_the_admin_port_is_on_the_callback_port() {
    let app = App::embedded(|settings| settings);
    for path in ["/", "/status.json", "/livez", "/readyz", "/metrics"] {
        let uri = format!("http://{}{path}", app.callbacks);
        let answer = app
            .ask(Request::get(uri).body(Full::default()).expect("valid"))
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    app.stop().await.expect("it stops in order");
}

/// No cache keeps the answer, no browser takes it for another type, and nothing inline runs.
#[track_caller]
fn is_protected(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
}

#[track_caller]
fn is_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(
        (&problem["type"], &problem["status"]),
        (&json!("about:blank"), &json!(status))
    );
    assert!(
        problem["title"].is_string() && problem["detail"].is_string(),
        "{problem}"
    );
}

impl App {
    async fn admin_with(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin));
        self.ask(request.body(Full::<Bytes>::default()).expect("valid"))
            .await
    }
}
