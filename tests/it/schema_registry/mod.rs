//! Values in Confluent's wire format, with the ids of a schema registry.

mod apicurio;
mod fake;
mod settings;

use std::time::Duration;

use axum::http::StatusCode;
use rcgen::SanType;
use serde_json::{Value, json};
use zim2kafka::event::Reason;

use crate::check::report::finding;
use crate::redrive::{Topics, join, now};
use crate::support::app::{PATIENCE, callback};
use crate::support::kafka::{Kafka, TestRecord, is_wanted, kafka};
use crate::support::process::{Process, Service, request, run, zim2kafka};
use crate::support::tls::{Authority, write};
use apicurio::Apicurio;
use fake::{Answers, Fake};

const REGISTRY: &str = "ZIM2KAFKA_SCHEMA_REGISTRY";
const AUTH: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_AUTH";
const REGISTER: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_REGISTER";
const JOINED: &str = "com.zegocloud.zim.group.joined.v1";
const TOPIC: &str = "zim.group-joined";

fn post(service: &Service, group: &str) -> String {
    service.post(callback(json!({"group_id": group, "timestamp": now()})))
}

/// Waits until `/readyz` says this.
#[track_caller]
fn is_said(service: &mut Service, text: &str) {
    let admin = service.admin;
    let ask = || request(admin, "GET", "/readyz", b"");
    service.process.wait_until(text, |_| ask().contains(text));
}

/// The records of the topic, once there are as many.
#[track_caller]
fn records(service: &mut Service, count: usize) -> Vec<TestRecord> {
    let kafka = Kafka::at(&service.brokers);
    let all = || kafka.read_all(TOPIC);
    service
        .process
        .wait_until("all records", |_| all().len() >= count);
    all()
}

/// The id in front of a value, and the JSON behind it.
#[track_caller]
fn framed(record: &TestRecord) -> (u32, Value) {
    let [0, a, b, c, d, json @ ..] = record.value.as_slice() else {
        panic!("not framed: {record:?}");
    };
    let json = serde_json::from_slice(json).expect("JSON");
    (u32::from_be_bytes([*a, *b, *c, *d]), json)
}

#[test]
fn events_wait_for_a_real_registry_and_are_published_with_its_ids() {
    // It needs Maven and Java, as Kafka does.
    if !is_wanted() {
        return;
    }
    let (address, url) = Apicurio::place();
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    let variables = [
        (REGISTRY, url.as_str()),
        ("ZIM2KAFKA_SPOOL_DIR", spool.to_str().expect("text")),
    ];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    is_said(&mut service, "degraded: the schema registry at http://");
    assert!(post(&service, "g1").contains("\"spooled\""));
    // A dead letter has no schema.
    let unknown = callback(json!({"event": "room_rename", "timestamp": now()}));
    assert!(service.post(unknown).contains("\"dead_lettered\""));
    let dead = Kafka::at(&service.brokers).read_all("zim.dead-letter");
    assert_eq!(dead[0].value.first(), Some(&b'{'), "{dead:?}");
    assert_eq!(Kafka::at(&service.brokers).read_all(TOPIC), []);

    let _registry = Apicurio::start_at(&address).expect("it starts");
    let log = service
        .process
        .logs_within(4 * PATIENCE, "the schema registry has answered");
    assert!(log.contains("WARN zim2kafka::schema_registry: the schema registry at"));
    is_said(&mut service, "ready");
    assert!(post(&service, "g2").contains("\"published\""));
    let records = records(&mut service, 2);
    let (id, value) = framed(&records[0]);
    let groups: Vec<_> = records
        .iter()
        .map(|record| framed(record).1["group_id"].clone())
        .collect();
    assert!(
        groups.contains(&json!("g1")) && groups.contains(&json!("g2")),
        "{groups:?}"
    );
    assert!(records.iter().all(|record| framed(record).0 == id));
    assert_eq!(
        records[0].header("content-type"),
        Some(&b"application/json"[..])
    );

    // The registry has the schema under this id, and the value is valid by it.
    let path = format!("/apis/ccompat/v7/schemas/ids/{id}");
    let answer = request(address.parse().expect("an address"), "GET", &path, b"");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let begin = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    let schema: Value = serde_json::from_str(&body[begin..=end]).expect("JSON");
    let schema: Value =
        serde_json::from_str(schema["schema"].as_str().expect("text")).expect("JSON");
    assert_eq!(schema["$id"], "urn:zim2kafka:schema:group-joined:v1");
    crate::support::schema::validator(&schema)
        .validate(&value)
        .expect("it is valid");
    // `tail` reads it, filtered by the event too.
    let printed = service.tail(&["--count=2", "--event=group_join"]);
    assert!(
        printed
            .iter()
            .all(|record| record["value"]["event"] == "group_join"),
        "{printed:?}"
    );

    // The schema is known now, so it is enough to look it up.
    let variables = [(REGISTRY, url.as_str()), (REGISTER, "false")];
    let mut again = Service::embedded(&["--drain-delay=0s"], &variables);
    is_said(&mut again, "ready");
    assert!(post(&again, "g3").contains("\"published\""));
    assert_eq!(framed(&self::records(&mut again, 1)[0]).0, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_lacks_is_named_until_it_has_it() {
    let registry = Fake::start();
    let url = format!("http://{}/", registry.address);
    let elsewhere = StatusCode::NOT_FOUND;
    registry.answer(Answers::With(elsewhere, "<html>".to_owned()));
    let variables = [
        (REGISTRY, url.as_str()),
        (REGISTER, "false"),
        (AUTH, "u:geheim"),
    ];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    is_said(
        &mut service,
        "is not one of a schema registry; check the host and the path",
    );
    // Without a spool, nothing is durable.
    assert!(post(&service, "g0").starts_with("HTTP/1.1 503"));
    let trouble = json!({"error_code": 50004, "message": "no\nleader"}).to_string();
    registry.answer(Answers::With(StatusCode::INTERNAL_SERVER_ERROR, trouble));
    let text = "answers 500 Internal Server Error (no\\nleader); check its log";
    is_said(&mut service, text);
    let refused = json!({"error_code": 409, "message": "incompatible"}).to_string();
    registry.answer(Answers::With(StatusCode::CONFLICT, refused));
    let text = format!("refuses the schema of the subject {JOINED} (409 Conflict: incompatible)");
    is_said(&mut service, &text);
    registry.answer(Answers::Well);
    registry.demand("Basic dTpvdGhlcg==");
    is_said(
        &mut service,
        "answers 401 Unauthorized; check ZIM2KAFKA_SCHEMA_REGISTRY_AUTH",
    );
    registry.demand("Basic dTpnZWhlaW0=");
    is_said(
        &mut service,
        "does not have the schema urn:zim2kafka:schema:group-joined:v1",
    );
    registry.register_all(70_000);
    is_said(&mut service, "ready");
    assert!(post(&service, "g1").contains("\"published\""));
    let found = records(&mut service, 2);
    for record in &found {
        assert_eq!(framed(record).0, registry.id(JOINED));
    }
    let asked = registry.asked();
    assert!(
        asked.iter().all(|path| !path.ends_with("/versions")),
        "{asked:?}"
    );
    // Only this event has a topic.
    assert!(asked.iter().all(|path| path.contains(JOINED)), "{asked:?}");
    service.process.signal("TERM");
    let log = service.process.end().stderr;
    assert!(
        !log.contains("geheim") && !log.contains("dTpnZWhlaW0="),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_schema_holds_up_the_events_of_its_topic_only() {
    let registry = Fake::start();
    let sick = Fake::start();
    let trouble = json!({"error_code": 50001, "message": "a disk"}).to_string();
    sick.answer(Answers::With(StatusCode::SERVICE_UNAVAILABLE, trouble));
    let refused = json!({"error_code": 409, "message": "incompatible"}).to_string();
    let presence = "com.zegocloud.zim.user.presence-changed.v1";
    registry.answer(Answers::WithFor(presence, StatusCode::CONFLICT, refused));
    // A server that answers only with its own trouble is passed over.
    let urls = format!("http://{},http://{}", sick.address, registry.address);
    let arguments = ["--drain-delay=0s", "--topics=all"];
    let mut service = Service::embedded(&arguments, &[(REGISTRY, &urls)]);
    is_said(&mut service, "; events of zim.user wait");
    let ready = service.admin("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(post(&service, "g1").contains("\"published\""));
    let action = callback(json!({
        "event": "user_action", "user_id": "u1", "os": "ANDROID", "action": 0,
        "session_id": "930821637828251648", "timestamp": now(),
    }));
    let answer = service.post(&action);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    // Only what is missing is asked for again, and of the server that has answered.
    assert_eq!(sick.asked().len(), 1);
    registry.answer(Answers::Well);
    is_said(&mut service, "ready");
    let published = service.post(&action);
    assert!(published.starts_with("HTTP/1.1 200"), "{published}");
    let asked = registry.asked();
    let of_joined = asked.iter().filter(|path| path.contains(JOINED)).count();
    assert_eq!(of_joined, 1, "{asked:?}");
}

#[test]
fn a_stop_names_the_registry_that_it_has_waited_for() {
    let (listener, silent) = crate::support::process::taken();
    drop(listener);
    let url = format!("http://{silent}");
    let arguments = [
        "--drain-delay=0s",
        "--answer-deadline=1s",
        "--stop-deadline=2s",
    ];
    let service = Service::embedded(&arguments, &[(REGISTRY, &url)]);
    assert!(post(&service, "g1").starts_with("HTTP/1.1 503"));
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let log = ended.stderr;
    let begin = format!(
        "shutdown was not complete within ZIM2KAFKA_STOP_DEADLINE: the schema registry at {url}/ does not answer ("
    );
    let end = "; check ZIM2KAFKA_SCHEMA_REGISTRY and the network. Callbacks without a 2xx answer depend on the sender's retries; set ZIM2KAFKA_SPOOL_DIR, so that they wait on disk instead";
    let mut lines = log.lines();
    assert!(
        lines.any(|line| line.contains(&begin) && line.ends_with(end)),
        "{log}"
    );
    assert!(!log.contains("raise the deadline"), "{log}");
}

#[test]
fn a_password_without_tls_is_warned_of() {
    const WARNING: &str = "the password is sent unencrypted to http://registry.invalid/, so others on the network path can read it; write https:// in ZIM2KAFKA_SCHEMA_REGISTRY";
    let variables = [(REGISTRY, "http://registry.invalid"), (AUTH, "u:geheim")];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    let log = service.process.logs(WARNING);
    assert!(!log.contains("geheim"), "{log}");

    let always = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:9"),
    ];
    let check = |variables: &[(&str, &str)]| {
        let ended = run(&["check", "--json"], &[&always, variables].concat());
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    let (warned, silent) = (check(&variables), check(&variables[..1]));
    finding(&warned, "warning", "schema registry", WARNING);
    assert!(!silent.to_string().contains("unencrypted"), "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_authority_and_a_file_with_the_password_are_used() {
    let authority = Authority::new();
    let (cert, key) = authority.issue_with(2099, |params| {
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    });
    write(&authority.cert(), &cert);
    write(&authority.key(), &key);
    let registry = Fake::start_with(&authority.cert(), &authority.key());
    registry.demand("Basic dTpnZWhlaW0=");
    let url = format!("https://{}", registry.address);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    write(&file, "u:geheim\n");
    let (ca, file) = (authority.ca(), file.to_str().expect("text").to_owned());
    let password = ("ZIM2KAFKA_SCHEMA_REGISTRY_AUTH_FILE", file.as_str());
    let trusting = ("ZIM2KAFKA_SCHEMA_REGISTRY_CA", ca.to_str().expect("text"));

    let stranger = Authority::new();
    let other = stranger.ca();
    let other = (
        "ZIM2KAFKA_SCHEMA_REGISTRY_CA",
        other.to_str().expect("text"),
    );
    let variables = [(REGISTRY, url.as_str()), password, other];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    is_said(
        &mut service,
        "name the file of its authority with ZIM2KAFKA_SCHEMA_REGISTRY_CA",
    );

    let variables = [(REGISTRY, url.as_str()), password, trusting];
    let mut service = Service::embedded(&["--drain-delay=0s"], &variables);
    is_said(&mut service, "ready");
    assert!(post(&service, "g1").contains("\"published\""));
    assert_eq!(framed(&records(&mut service, 1)[0]).0, registry.id(JOINED));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_url_is_asked_if_one_does_not_answer_and_check_registers_nothing() {
    let registry = Fake::start();
    let (listener, silent) = crate::support::process::taken();
    drop(listener);
    let urls = format!("http://{silent},http://{}", registry.address);
    let check = |register: &str| {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
            // Nothing listens there.
            ("ZIM2KAFKA_KAFKA_BROKERS", silent.as_str()),
            (REGISTRY, urls.as_str()),
            (REGISTER, register),
        ];
        let ended = run(&["check", "--json"], &variables);
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    let subject = "schema registry";
    let (may, may_not) = (check("true"), check("false"));
    finding(
        &may,
        "ok",
        subject,
        "answers and has 0 schemas; `serve` registers 1 more, if it is allowed to",
    );
    let missing = "does not have the schema urn:zim2kafka:schema:group-joined:v1";
    finding(&may_not, "error", subject, missing);
    registry.register_all(1);
    finding(&check("false"), "ok", subject, "has 1 schema");
    let asked = registry.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        asked.iter().all(|path| !path.ends_with("/versions")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_publishes_with_ids_and_finds_what_it_published() {
    let Some(kafka) = kafka() else { return };
    let registry = Fake::start();
    let mut topics = Topics::create(kafka);
    topics.set(REGISTRY, &format!("http://{}", registry.address));
    topics.put(["g1", "g2"].map(|group| join(group, Reason::InvalidEvent)));
    topics.redriven(&[]);
    let published = topics.published();
    assert_eq!(published.len(), 2);
    for record in &published {
        assert_eq!(framed(record).0, registry.id(JOINED));
    }
    topics.redriven(&["--from-beginning"]);
    assert_eq!(topics.published().len(), 2);
    registry.answer(Answers::With(StatusCode::BAD_GATEWAY, String::new()));
    topics.put([join("g3", Reason::InvalidEvent)]);
    let ended = topics.redrive(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("answers 502 Bad Gateway (no reason given); check its log"),
        "{ended:?}"
    );
    assert_eq!(topics.published().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_json_with_a_registry_too() {
    let registry = Fake::start();
    let url = format!("http://{}", registry.address);
    let arguments = [
        "demo",
        "--count=1",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
    ];
    let demo = Process::start(zim2kafka(&arguments, &[(REGISTRY, &url)]));
    let ended = demo.end_within(PATIENCE + Duration::from_secs(10));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("\n  {\"event_id\":\""),
        "{}",
        ended.stdout
    );
    // All events have a topic.
    assert_eq!(registry.asked().len(), 17);
}
