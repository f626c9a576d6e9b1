//! `before_send_msg`: its answer, on both paths and in every encoding.

mod reserve;

use std::time::Duration;

use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use zim2kafka::callback::sign;
use zim2kafka::http::BeforeSend;

use crate::support::answers::{assert_status, outcome};
use crate::support::app::{Answer, App, SECRET, Settings, callback, callback_of};
use crate::support::process::Service;
use crate::support::wire::Wire;

/// An address at which nothing listens.
const NO_KAFKA: &str = "127.0.0.1:1";

const MAIN: &str = "/callbacks/zim";
const BEFORE_SEND: &str = "/callbacks/zim/before-send";

/// A signed `before_send_msg` with these additional fields.
fn question(fields: &Value) -> Vec<u8> {
    let mut all = json!({
        "event": "before_send_msg", "request_id": "3501907290370176", "from_user_id": "a",
        "conv_type": 0, "conv_id": "b", "msg_type": 1, "sub_msg_type": 0, "msg_body": "50% + %41",
        "payload": "", "msg_id": "857639062792568832",
    });
    let members = all.as_object_mut().expect("an object");
    members.extend(fields.as_object().expect("an object").clone());
    callback(all)
}

/// The same as a form.
fn question_form(nonce: &str, more: &str) -> Vec<u8> {
    let timestamp = "1757577600";
    let signature = sign(SECRET, timestamp, nonce).to_hex();
    format!(
        "appid=1&%65vent=before_send%5Fmsg&timestamp={timestamp}&nonce={nonce}&signature={signature}&conv_id=b&msg_body=a+b{more}"
    )
    .into_bytes()
}

fn percent_encoded(body: &[u8]) -> Vec<u8> {
    let encoded = body.iter().map(|byte| format!("%{byte:02X}"));
    encoded.collect::<String>().into_bytes()
}

/// Posts on a connection of its own.
async fn post_to(app: &App, path: &str, body: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::to(app).await;
    let length = body.as_ref().len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
    wire.say([head.as_bytes(), body.as_ref()].concat()).await;
    wire.hear().await
}

#[track_caller]
fn assert_answer(answer: &Answer, expected: &Value) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), *expected);
}

#[tokio::test]
async fn it_is_answered_by_the_policy_on_both_paths_and_in_every_encoding() {
    let refuse = |reason: Option<&str>| BeforeSend::Refuse {
        reason: reason.map(str::to_owned),
    };
    let quoted = "\"closed\" \u{2014} \\ until 18:00";
    for (policy, expected) in [
        (BeforeSend::Neutral, json!({"result": 0})),
        (BeforeSend::Send, json!({"result": 1})),
        (refuse(None), json!({"result": 3})),
        (refuse(Some(quoted)), json!({"result": 3, "reason": quoted})),
    ] {
        let mut settings = Settings::on(NO_KAFKA, "joined", "dead");
        settings.0.callbacks.before_send = policy;
        let app = settings.start();
        let mut nonces = 0..;
        for path in [MAIN, BEFORE_SEND] {
            let bodies = [
                question(&json!({})),
                percent_encoded(&question(&json!({}))),
                question_form(&format!("{}", nonces.next().expect("endless")), ""),
            ];
            for body in bodies {
                assert_answer(&post_to(&app, path, &body).await, &expected);
            }
        }
        let answered = "zim2kafka_before_send_total{outcome=\"answered\"}";
        app.shows(&[(answered, 6.0), (&outcome("passed"), 6.0)])
            .await;
        let unauthorized = "zim2kafka_before_send_total{outcome=\"unauthorized\"}";
        assert_eq!(app.metric(unauthorized).await, 0.0);
        assert_eq!(app.metric("zim2kafka_kafka_in_flight_records").await, 0.0);
    }
}

#[tokio::test]
async fn one_that_is_stale_sent_again_or_signed_as_another_one_is_answered_too() {
    let app = App::embedded(|settings| settings.tolerance(Duration::from_secs(600)));
    app.ready().await;
    let allowed = json!({"result": 0});
    // The timestamps of these are years old.
    let stale = question(&json!({}));
    for path in [MAIN, BEFORE_SEND, BEFORE_SEND] {
        assert_answer(&post_to(&app, path, &stale).await, &allowed);
    }
    let reused = |body| question(&json!({"nonce": "350176", "msg_body": body}));
    for body in ["a", "b"] {
        assert_answer(&post_to(&app, BEFORE_SEND, reused(body)).await, &allowed);
    }
    let joined = callback(json!({"nonce": "350176"}));
    assert_status(&post_to(&app, MAIN, joined).await, "dead_lettered");
    let reused = "zim2kafka_reused_signatures_total";
    app.shows(&[(reused, 0.0), (&outcome("passed"), 5.0)]).await;
}

#[tokio::test]
async fn one_that_is_not_authentic_is_counted_by_the_name_that_it_claims() {
    let app = App::embedded(|settings| settings);
    let wrong = |fields| callback_of("1", "another secret", fields);
    let asked = json!({"event": "before_send_msg"});
    let mut form = question_form("1", "");
    let at = form
        .windows(5)
        .position(|part| part == b"once=")
        .expect("it has one");
    form[at + 5] = b'2';
    let bodies = [
        wrong(asked.clone()),
        percent_encoded(&wrong(asked)),
        form,
        callback_of("2", SECRET, json!({"event": "before_send_msg"})),
    ];
    for path in [MAIN, BEFORE_SEND] {
        for body in &bodies {
            let answer = post_to(&app, path, body).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        }
        // These cannot stop the chat.
        for event in ["send_msg", "group_join", "before_send"] {
            let answer = post_to(&app, path, wrong(json!({"event": event}))).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        }
    }
    app.shows(&[
        ("zim2kafka_before_send_total{outcome=\"unauthorized\"}", 8.0),
        ("zim2kafka_before_send_total{outcome=\"answered\"}", 0.0),
        (&outcome("unauthorized"), 14.0),
        (&outcome("passed"), 0.0),
    ])
    .await;
}

#[tokio::test]
async fn with_two_events_it_is_a_dead_letter() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    let whole = question(&json!({}));
    let open = &whole[..whole.len() - 1];
    let json = [open, br#","event":"before_send_msg"}"#].concat();
    let form = question_form("1", "&event=before_send_msg");
    for (path, body) in [(MAIN, json), (BEFORE_SEND, form)] {
        assert_status(&post_to(&app, path, body).await, "dead_lettered");
    }
    assert_eq!(app.dead_letters(2).await.len(), 2);
    let answered = "zim2kafka_before_send_total{outcome=\"answered\"}";
    app.shows(&[(answered, 0.0), (&outcome("passed"), 0.0)])
        .await;
}

#[tokio::test]
async fn the_second_path_takes_every_callback_and_keeps_their_order() {
    let app = App::embedded(|settings| settings);
    app.ready().await;
    for number in 0..20 {
        let path = [MAIN, BEFORE_SEND][number % 2];
        let body = callback(json!({"group_id": "g1", "number": number}));
        assert_status(&post_to(&app, path, body).await, "published");
    }
    let records = app.records(20).await;
    let numbers: Vec<_> = records
        .iter()
        .map(|record| {
            let value: Value = serde_json::from_slice(&record.value).expect("JSON");
            value["extra"]["number"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    // A retry is recognised on either path.
    let body = callback(json!({}));
    assert_status(&post_to(&app, BEFORE_SEND, &body).await, "published");
    assert_status(&post_to(&app, MAIN, &body).await, "duplicate");
    let unsupported = callback(json!({"event": "no_event"}));
    assert_status(
        &post_to(&app, BEFORE_SEND, unsupported).await,
        "dead_lettered",
    );
    let large = vec![b' '; 512 * 1024 + 1];
    let answer = post_to(&app, BEFORE_SEND, large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = post_to(&app, BEFORE_SEND, "nonsense").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_second_path_stands_behind_the_first_without_a_slash_between() {
    for (main, second) in [
        (MAIN, BEFORE_SEND),
        ("/s3cret/", "/s3cret/before-send"),
        ("/", "/before-send"),
    ] {
        let mut settings = Settings::on(NO_KAFKA, "joined", "dead");
        settings.0.callbacks.path = main.to_owned();
        let app = settings.start();
        for path in [main, second] {
            let answer = post_to(&app, path, question(&json!({}))).await;
            assert_answer(&answer, &json!({"result": 0}));
            for method in [Method::GET, Method::HEAD, Method::PUT] {
                let uri = format!("http://{}{path}", app.callbacks);
                let request = Request::builder().method(method).uri(uri);
                let answer = app
                    .ask(request.body(Default::default()).expect("valid"))
                    .await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
                assert_eq!(answer.header("allow"), "POST");
            }
        }
        for path in [
            format!("{second}/"),
            format!("{second}/x"),
            format!("{second}x"),
            second.replace("before-send", "before_send"),
            "/elsewhere/before-send".to_owned(),
        ] {
            let answer = post_to(&app, &path, question(&json!({}))).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_behind_the_second_path_is_logged_as_the_only_difference() {
    let path = ("ZIM2KAFKA_CALLBACK_PATH", "/sesame");
    let mut service = Service::embedded(&["--drain-delay=0s", "--before-send=send"], &[path]);
    service.ready();
    let mut wire = Wire::at(service.callbacks).await;
    wire.say("POST /sesame/before-send/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(wire.hear().await.status, StatusCode::NOT_FOUND);
    let log = service.process.logs("1 request to a path that differs from ZIM2KAFKA_CALLBACK_PATH only by a slash at its end was answered 404");
    assert!(!log.contains("sesame"), "{log}");
    // The start warns of a setting that is a risk.
    let warning = "WARN zim2kafka::commands::serve: ZIM2KAFKA_BEFORE_SEND=send: every before_send_msg is answered with result 1";
    assert_eq!(log.matches(warning).count(), 1, "{log}");
}
