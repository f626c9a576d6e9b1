//! What the log, `/readyz` and `healthcheck` report of an outage of Kafka, and `check` of a Kafka
//! that cannot be reached.

mod check;

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaApiKey;
use serde_json::json;
use tempfile::TempDir;

use self::check::error_of;
use crate::support::app::{ONCE_A_MINUTE, PATIENCE, callback};
use crate::support::kafka::{Cluster, Exclusive, kafka, shared_cluster};
use crate::support::process::{Ended, Service, run, taken};

/// A Kafka that goes away and comes back, and the topics of a service.
struct Scene {
    cluster: Exclusive,
    topics: [String; 2],
}

impl Scene {
    /// `None` if tests with Kafka are left out.
    fn new() -> Option<Self> {
        let cluster = Cluster::exclusive(1)?;
        let topics = ["joined", "dead"].map(|purpose| cluster.unique_topic(purpose));
        (topics.iter()).for_each(|topic| cluster.create_topic(topic, 1, &[]));
        Some(Self { cluster, topics })
    }

    fn kafka_goes(&self) {
        self.cluster.proxy(1).refuse();
    }

    fn kafka_comes(&self) {
        self.cluster.proxy(1).pass();
    }

    fn start(&self, brokers: &str, more: &[(&str, &str)]) -> Service {
        let [topic, dead_letter_topic] = &self.topics;
        let variables = [
            ("ZIM2KAFKA_KAFKA_BROKERS", brokers),
            ("ZIM2KAFKA_TOPIC", topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead_letter_topic),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ];
        Service::start(&[], &[&variables, more].concat())
    }
}

/// A folder that is not in memory.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn stop(service: Service) -> Ended {
    service.process.signal("TERM");
    service.process.end()
}

/// The lines have these texts, in this order.
#[track_caller]
fn in_order(log: &str, texts: &[&str]) {
    let mut lines = log.lines();
    for text in texts {
        let found = lines.any(|line| line.contains(text));
        assert!(found, "{text:?} is missing, or in another place:\n{log}");
    }
}

/// Asks the admin port until its answer contains the text.
#[track_caller]
fn answers(service: &Service, path: &str, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = service.admin(path);
        if answer.contains(text) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{text:?}: {answer}\n{}",
            service.process.stderr()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Polls until it is so.
#[track_caller]
fn until(service: &Service, what: &str, is_so: impl Fn(&Service) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(service) {
        let log = service.process.stderr();
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what}\n{log}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// An event is published, so all connections are there. Each is of another group: one of the same
/// group would wait behind those that went to the spool before, and so would the next one.
#[track_caller]
fn published(service: &Service) {
    let deadline = Instant::now() + PATIENCE;
    let mut groups = (0..).map(|number| format!("group-{number}"));
    let mut post = || service.post(callback(json!({"group_id": groups.next()})));
    while !post().contains("published") {
        assert!(Instant::now() < deadline, "{}", service.process.stderr());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_outage_is_logged_from_its_beginning_to_its_end() {
    let Some(scene) = Scene::new() else { return };
    let home = folder();
    let spool = home.path().to_str().expect("text");
    let brokers = scene.cluster.proxied();
    let mut service = scene.start(&brokers, &[("ZIM2KAFKA_SPOOL_DIR", spool)]);
    service.process.logs("connected to Kafka");
    published(&service);
    // With records that wait already, the connection is not logged alone.
    let in_spool = |service: &Service| service.metric("zim2kafka_spool_records");
    until(&service, "the spool is empty", |service| {
        in_spool(service) == 0.0
    });
    scene.kafka_goes();
    service.process.logs("Kafka unreachable since");
    assert!(service.post(callback(json!({}))).contains("spooled"));
    service
        .process
        .logs_within(ONCE_A_MINUTE, "events go to the spool: Kafka unreachable");
    let reason = format!("degraded: Kafka cannot be reached (connect: {brokers}: ");
    answers(&service, "/readyz", &reason);
    let admin = service.admin.to_string();
    let probed = run(&["healthcheck", "--admin-listen", &admin], &[]);
    assert!(probed.stdout.starts_with(&reason), "{probed:?}");
    scene.kafka_comes();
    service.process.logs("the spool is drained");
    answers(&service, "/readyz", "\r\n\r\nready");
    const ROUND_TRIP: &str = "zim2kafka_kafka_round_trip_seconds";
    // By the next statistics.
    let brokers_up = |service: &Service| service.metric("zim2kafka_kafka_brokers_up");
    until(&service, "a broker is up", |service| {
        brokers_up(service) >= 1.0
    });
    until(&service, "its distance", |service| {
        service.metric(ROUND_TRIP) > 0.0
    });
    // Again, until a stop.
    scene.kafka_goes();
    for series in ["zim2kafka_kafka_up", "zim2kafka_kafka_brokers_up"] {
        until(&service, series, |service| service.metric(series) == 0.0);
    }
    assert!(
        service.metric(ROUND_TRIP).is_nan(),
        "of a Kafka that is gone"
    );
    for group in ["a", "b"] {
        let answer = service.post(callback(json!({"group_id": group})));
        assert!(answer.contains("spooled"), "{answer}");
    }
    let first = stop(service);
    assert_eq!(first.code, Some(0), "{first:?}");
    let stay = format!("2 records stay in the spool in {spool}");
    in_order(
        &first.stderr,
        &[
            " INFO zim2kafka::delivery::watch: connected to Kafka",
            " WARN zim2kafka::delivery::watch: Kafka unreachable since",
            "events go to the spool: Kafka unreachable since",
            " INFO zim2kafka::delivery::watch: connected to Kafka after",
            "the spool is drained: 1 record published in",
            " INFO zim2kafka::server: stopping",
            &stay,
        ],
    );
    // The next start begins with them.
    scene.kafka_comes();
    let mut service = scene.start(&brokers, &[("ZIM2KAFKA_SPOOL_DIR", spool)]);
    service
        .process
        .logs("the spool is drained: 2 records published in");
    let second = stop(service);
    in_order(
        &second.stderr,
        &[
            "the spool holds 2 records of an earlier run",
            "the spool is drained: 2 records",
        ],
    );
    assert!(!second.stderr.contains("stay in the spool"), "{second:?}");
}

#[test]
fn without_a_spool_an_outage_is_logged_with_its_consequence() {
    let Some(scene) = Scene::new() else { return };
    let mut service = scene.start(&scene.cluster.proxied(), &[]);
    service.process.logs("connected to Kafka");
    published(&service);
    scene.kafka_goes();
    let answer = service.post(callback(json!({})));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    service.process.logs_within(
        ONCE_A_MINUTE,
        "events wait for Kafka: Kafka unreachable since",
    );
    scene.kafka_comes();
    service.process.logs("Kafka takes events again after");
    let log = stop(service).stderr;
    let (_, log) = log.split_once("is listening").expect("it listened");
    in_order(
        log,
        &[
            "connected to Kafka",
            "events are answered 503, and the sender drops each after 62 s",
            "connected to Kafka after",
        ],
    );
    let mentioned = log.lines().filter(|line| line.contains("spool"));
    let mentioned: Vec<_> = mentioned
        .filter(|line| !line.contains("so there is no spool"))
        .collect();
    assert_eq!(mentioned, [""; 0]);
}

#[test]
fn dead_letters_that_wait_for_their_topic_are_not_an_outage_of_events() {
    let Some(scene) = Scene::new() else { return };
    let home = folder();
    let missing = scene.cluster.unique_topic("missing");
    let brokers = scene.cluster.proxied();
    let mut service = Service::start(
        &[],
        &[
            ("ZIM2KAFKA_KAFKA_BROKERS", brokers.as_str()),
            ("ZIM2KAFKA_TOPIC", scene.topics[0].as_str()),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", missing.as_str()),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
            ("ZIM2KAFKA_SPOOL_DIR", home.path().to_str().expect("text")),
        ],
    );
    published(&service);
    let answer = service.post(callback(json!({"event": "unknown"})));
    assert!(answer.contains("dead_lettered"), "{answer}");
    let log = service.process.logs("dead letters go to the spool: ");
    let line = format!("dead letters go to the spool: the topic {missing} ");
    assert!(log.contains(&line), "{log}");
    published(&service);
    answers(&service, "/readyz", "\r\n\r\nready");
    let log = stop(service).stderr;
    assert!(!log.contains("events go to the spool"), "{log}");
    assert!(log.contains("1 record stays in the spool in "), "{log}");
}

#[test]
fn a_kafka_that_takes_connections_and_does_not_answer_is_logged() {
    // The system accepts connections for it.
    let (listener, address) = taken();
    let mut service = Service::start(&["--kafka-brokers", &address], &[]);
    let log = service.process.logs("no broker reached since the start");
    // librdkafka itself gives up after ten seconds too.
    let reasons = [
        format!("({address}: no answer in state APIVERSION_QUERY)"),
        format!("(connect: {address}: ApiVersionRequest failed: Local: Timed out"),
    ];
    assert!(reasons.iter().any(|reason| log.contains(reason)), "{log}");
    answers(&service, "/readyz", &format!("{address}: "));
    drop(listener);
}

#[test]
fn a_stop_without_a_spool_names_the_kafka_that_it_has_waited_for() {
    let (listener, address) = taken();
    let arguments = [
        "--kafka-brokers",
        &address,
        "--drain-delay=0s",
        "--answer-deadline=1s",
        "--stop-deadline=2s",
    ];
    let service = Service::start(&arguments, &[("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off")]);
    let answer = service.post(callback(json!({})));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let log = stop(service).stderr;
    let begin = format!(
        "shutdown was not complete within ZIM2KAFKA_STOP_DEADLINE: Kafka cannot be reached ({address}: "
    );
    assert!(log.contains(&begin), "{log}");
    assert!(log.contains("; set ZIM2KAFKA_SPOOL_DIR, so that"), "{log}");
    assert!(!log.contains("raise the deadline"), "{log}");
    drop(listener);
}

#[test]
fn addresses_that_kafka_advertises_and_nobody_reaches_are_reported() {
    let Some(scene) = Scene::new() else { return };
    scene.kafka_goes();
    let bootstrap = scene.cluster.behind_proxies();
    let reason = format!("connect: {}: ", scene.cluster.proxied());
    let advice = "advertised.listeners";
    let home = folder();
    let spool = home.path().to_str().expect("text");
    let mut service = scene.start(&bootstrap, &[("ZIM2KAFKA_SPOOL_DIR", spool)]);
    assert!(service.post(callback(json!({}))).contains("spooled"));
    let log = service.process.logs("events go to the spool: ");
    assert!(log.contains(&reason), "{log}");
    assert!(log.contains(advice), "{log}");
    answers(&service, "/readyz", &reason);
    answers(&service, "/readyz", advice);
    // Whether its topics exist or not.
    for topic in [scene.topics[0].as_str(), "missing"] {
        let variables = [
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
            ("ZIM2KAFKA_KAFKA_BROKERS", bootstrap.as_str()),
            ("ZIM2KAFKA_TOPIC", topic),
        ];
        let checked = run(&["check"], &variables);
        let line = error_of(&checked);
        assert!(line.contains("check its advertised.listeners"), "{line}");
        assert!(line.contains(&reason), "{line}");
    }
}

/// An event that a broker does not take goes to the spool, and the log and `/readyz` give the reason.
#[track_caller]
fn waits_because(brokers: &str, [topic, dead]: [&str; 2], properties: &str, reason: &str) {
    let home = folder();
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", brokers),
        ("ZIM2KAFKA_KAFKA_PROPERTIES", properties),
        ("ZIM2KAFKA_TOPIC", topic),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_SPOOL_DIR", home.path().to_str().expect("text")),
    ];
    let mut service = Service::start(&[], &variables);
    let answer = service.post(callback(json!({})));
    assert!(answer.contains("spooled"), "{answer}");
    let expected = format!("events go to the spool: the topic {topic} {reason}");
    let log = service.process.logs("events go to the spool: ");
    assert!(log.contains(&expected), "{expected}: {log}");
    let expected = format!("degraded: the topic {topic} {reason}; events go to the spool");
    answers(&service, "/readyz", &expected);
}

#[test]
fn the_reason_why_a_connected_broker_takes_no_events_is_given() {
    let kafka = MockCluster::new(1).expect("it starts");
    // From version 10 on, the mock's response names the leader, and the mock crashes if a partition
    // has none.
    let (least, most) = (Some(0), Some(9));
    (kafka.apiversion(RDKafkaApiKey::Produce, least, most)).expect("it knows the request");
    for topic in ["joined", "dead"] {
        (kafka.create_topic(topic, 2, 1)).expect("it can be created");
    }
    for partition in [0, 1] {
        (kafka.partition_leader("joined", partition, None)).expect("there is the partition");
    }
    let leaderless = "has no leader for partitions 0, 1";
    waits_because(
        &kafka.bootstrap_servers(),
        ["joined", "dead"],
        "",
        leaderless,
    );
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let topics = ["denied", "denied-dead"].map(|purpose| cluster.unique_topic(purpose));
    (topics.iter()).for_each(|topic| cluster.create_topic(topic, 1, &[]));
    cluster.deny(&topics[0], "WRITE");
    let sasl = cluster.sasl_ssl();
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties.map(|(key, value)| format!("{key}={value}"));
    let denied = "is not writable; grant the service's user the right Write on it";
    let topics = topics.each_ref().map(String::as_str);
    waits_because(&sasl.brokers, topics, &properties.join("\n"), denied);
}

#[test]
fn a_first_start_that_creates_its_topics_logs_each_once_and_no_advice() {
    let Some(kafka) = kafka() else { return };
    let names = ["first", "first-dead"].map(|purpose| kafka.unique_topic(purpose));
    let [topic, dead] = names.each_ref().map(String::as_str);
    let start = || {
        let variables = [
            ("ZIM2KAFKA_KAFKA_BROKERS", kafka.brokers()),
            ("ZIM2KAFKA_TOPIC", topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead),
            ("ZIM2KAFKA_CREATE_TOPICS", "true"),
        ];
        Service::start(&[], &variables)
    };
    // Several instances may start at once.
    let services = thread::scope(|scope| {
        let starting = [(); 2].map(|()| scope.spawn(start));
        starting.map(|service| service.join().expect("it starts"))
    });
    services.iter().for_each(Service::ready);
    let log = services.map(|service| stop(service).stderr).concat();
    for name in names {
        let created = format!("{name}: created with 12 partitions");
        assert_eq!(log.matches(&created).count(), 1, "{log}");
    }
    for advice in ["does not exist", "ZIM2KAFKA_CREATE_TOPICS", "ERROR"] {
        assert!(!log.contains(advice), "{advice}: {log}");
    }
}
