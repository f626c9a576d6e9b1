//! Every answer that is no 2xx, and what the two ports keep from each other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::answers::{assert_outcomes, assert_problem};
use crate::support::app::{App, Settings, callback};
use crate::support::wire::{Wire, of_length};

#[tokio::test]
async fn a_body_that_is_neither_json_nor_a_form_gets_400() {
    let app = App::embedded(|settings| settings);
    for body in ["", "hello", "[]", "{", "{}x", "%7B", "<a href=x>"] {
        assert_problem(&app.post(body).await, 400, "Bad Request");
    }
    let twice = r#"{"appid":"1","appid":"1"}"#;
    let answer = app.post(twice).await;
    assert_problem(&answer, 400, "Bad Request");
    assert!(answer.text().contains("appid"), "{answer:?}");
    assert_outcomes(&app, &[("malformed", 8.0)]).await;
}

#[tokio::test]
async fn a_400_never_repeats_what_it_read() {
    let app = App::embedded(|settings| settings);
    let body = String::from_utf8(callback(json!({}))).expect("JSON is UTF-8");
    let sent: Value = serde_json::from_str(&body).expect("JSON");
    let signature = sent["signature"].as_str().expect("a signature");
    for cut in 1..body.len() {
        let answer = app.post(body[..cut].to_owned()).await;
        assert_problem(&answer, 400, "Bad Request");
        assert!(!answer.text().contains(&signature[..6]), "{answer:?}");
    }
}

#[tokio::test]
async fn every_callback_that_is_not_authentic_gets_the_same_401() {
    let tampered = |fields: Value| {
        let mut body: Value = serde_json::from_slice(&callback(json!({}))).expect("JSON");
        let members = body.as_object_mut().expect("an object");
        members.extend(fields.as_object().expect("an object").clone());
        body.to_string()
    };
    let of_one = [
        json!({"signature": "0".repeat(40)}),
        json!({"signature": "signature"}),
        json!({"signature": null}),
        json!({"timestamp": "now"}),
        json!({"nonce": {}}),
        json!({"appid": "2"}),
    ];
    // Signed with the secret of whoever is not named, and yet nobody's.
    let of_all = [
        json!({"appid": "1"}),
        json!({"appid": ""}),
        json!({"appid": null}),
        json!({"appid": true}),
        json!({"appid": ["2"]}),
    ];
    let mut answers = Vec::new();
    for (secrets, bodies) in [
        ("1=secret", of_one.as_slice()),
        ("1=another,*=secret", &of_all),
    ] {
        let app = App::embedded(|settings| settings.secrets(secrets));
        let bodies = bodies.iter().cloned().map(tampered);
        let bodies: Vec<_> = bodies.chain(["{}".to_owned(), "a=b".to_owned()]).collect();
        let count = bodies.len() as f64;
        for body in bodies {
            let mut answer = app.post(body).await;
            assert_problem(&answer, 401, "Unauthorized");
            assert_eq!(answer.header("www-authenticate"), "ZEGO-Signature");
            answer.headers.remove("date");
            answers.push((answer.headers, answer.body));
        }
        assert_outcomes(&app, &[("unauthorized", count)]).await;
    }
    assert_eq!(answers.len(), 15);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn other_paths_and_methods_get_404_and_405() {
    let app = App::embedded(|settings| settings);
    let ask = async |method: Method, path: &str| {
        let uri = format!("http://{}{path}", app.callbacks);
        let request = Request::builder().method(method).uri(uri);
        app.ask(request.body(callback(json!({})).into()).expect("valid"))
            .await
    };
    for path in [
        "/",
        "/callbacks",
        "/callbacks/zim/",
        "/callbacks/zim/x",
        "//callbacks/zim",
        "/callbacks/%7Aim",
        "/CALLBACKS/ZIM",
    ] {
        assert_problem(&ask(Method::POST, path).await, 404, "Not Found");
        assert_eq!(ask(Method::GET, path).await.status, StatusCode::NOT_FOUND);
    }
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = ask(method, "/callbacks/zim").await;
        assert_problem(&answer, 405, "Method Not Allowed");
        assert_eq!(answer.header("allow"), "POST");
    }
    let answer = ask(Method::HEAD, "/callbacks/zim").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!((answer.header("allow"), answer.text()), ("POST", ""));
    assert_outcomes(&app, &[]).await;
}

#[tokio::test]
async fn the_admin_port_and_the_callback_port_share_nothing() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    for path in ["/", "/metrics", "/livez", "/readyz"] {
        assert_eq!(app.admin(path).await.status, StatusCode::OK, "{path}");
        let uri = format!("http://{}{path}", app.callbacks);
        let answer = app.ask(Request::get(uri).body(Full::default()).expect("valid"));
        assert_problem(&answer.await, 404, "Not Found");

        let uri = format!("http://{}{path}", app.admin);
        let answer = app.ask(Request::post(uri).body(Full::default()).expect("valid"));
        let answer = answer.await;
        assert_problem(&answer, 405, "Method Not Allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
    let uri = format!("http://{}/callbacks/zim", app.admin);
    let request = Request::post(uri).body(callback(json!({})).into());
    let answer = app.ask(request.expect("valid")).await;
    assert_problem(&answer, 404, "Not Found");
    assert_outcomes(&app, &[]).await;
}

#[tokio::test]
async fn an_encoded_body_gets_415() {
    let app = App::embedded(|settings| settings);
    let encodings = ["gzip", "br", "identity, gzip", "unheard-of"];
    for encoding in encodings {
        let headers = [("content-encoding", encoding)];
        let answer = app.post_with(&headers, callback(json!({}))).await;
        assert_problem(&answer, 415, "Unsupported Media Type");
    }
    assert_outcomes(&app, &[("malformed", 4.0)]).await;
}

#[tokio::test]
async fn without_kafka_an_event_gets_503_within_the_deadline() {
    let app = Settings::on("127.0.0.1:1", "joined", "dead").start();
    for fields in [json!({}), json!({"event": "group_exit"})] {
        let began = Instant::now();
        let answer = app.post(callback(fields)).await;
        let took = began.elapsed();
        assert_problem(&answer, 503, "Service Unavailable");
        assert_eq!(answer.header("retry-after"), "2");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    assert_outcomes(&app, &[("unavailable", 2.0)]).await;
    // What can never be accepted is told so at once, Kafka or not.
    let began = Instant::now();
    assert_problem(&app.post("{").await, 400, "Bad Request");
    assert_problem(&app.post("{}").await, 401, "Unauthorized");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_fit_for_the_next() {
    let app = App::embedded(|settings| settings);
    let mut wire = Wire::to(&app).await;
    for (body, status) in [
        (Bytes::from_static(b"{"), 400),
        (Bytes::from_static(b"{}"), 401),
    ] {
        wire.say(of_length(body.len())).await;
        wire.say(body).await;
        assert_eq!(wire.hear().await.status.as_u16(), status);
    }
    let body = callback(json!({}));
    wire.say(of_length(body.len())).await;
    wire.say(body).await;
    assert_eq!(wire.hear().await.json()["status"], "published");
}
