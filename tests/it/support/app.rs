//! The service, started in the test's own runtime on free ports, and what a test asks of it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, header::HeaderMap};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zim2kafka::callback::{Secrets, TimestampUnit, sign};
use zim2kafka::event::{GROUP_JOIN, Omit, Routes};
use zim2kafka::http::{BeforeSend, CallbackSettings, ConnectionLimits, SenderSettings};
use zim2kafka::intake::IntakeSettings;
use zim2kafka::kafka::{CreateTopics, EmbeddedKafka, KafkaSettings, Properties};
use zim2kafka::reload::Reload;
use zim2kafka::server::{self, Listeners, ServerError, ServerSettings};
use zim2kafka::spool::{Spool, SpoolSettings};

use super::kafka::{Kafka, TestRecord};

/// For what a healthy service does at once, and a busy machine some time later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For a line that is logged once a minute, and may just have been.
pub(crate) const ONCE_A_MINUTE: Duration = Duration::from_secs(60).saturating_add(PATIENCE);

/// The application and the secret that tests sign with.
pub(crate) const APPID: &str = "1";
pub(crate) const SECRET: &str = "secret";

/// Opens a spool with the program's defaults.
pub(crate) fn open_spool(folder: &Path) -> Spool {
    let settings = SpoolSettings {
        folder: folder.to_owned(),
        max_bytes: 1 << 30,
        after: Duration::from_millis(250),
    };
    Spool::open_within(&settings, PATIENCE).expect("it opens")
}

/// A running service. It stops when it is dropped, without waiting.
pub(crate) struct App {
    pub(crate) callbacks: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) kafka: Kafka,
    pub(crate) topic: String,
    pub(crate) dead_letter_topic: String,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), ServerError>>,
    /// Keeps the embedded Kafka, where the service runs on one.
    _embedded: Option<EmbeddedKafka>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer's body is JSON")
    }

    /// A header as text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer's body is UTF-8")
    }
}

/// The settings of a service under test: the defaults of the contract, but for what a test changes.
pub(crate) struct Settings(pub(crate) ServerSettings);

impl Settings {
    /// On these brokers and topics.
    pub(crate) fn on(brokers: &str, topic: &str, dead_letter_topic: &str) -> Self {
        Self(ServerSettings {
            callbacks: CallbackSettings {
                path: "/callbacks/zim".to_owned(),
                body_limit: 512 * 1024,
                answer_deadline: Duration::from_secs(2),
                senders: SenderSettings::default(),
                before_send: BeforeSend::Neutral,
            },
            connections: ConnectionLimits {
                connections: 4096,
                reserved: 256,
                per_address: None,
                idle: Duration::from_secs(75),
            },
            certificate: None,
            reload: Reload::default(),
            intake: IntakeSettings {
                secrets: Secrets::parse_list(&format!("{APPID}={SECRET}")).expect("valid"),
                timestamp_unit: TimestampUnit::Auto,
                timestamp_tolerance: None,
                omit: Omit::default(),
            },
            kafka: KafkaSettings {
                brokers: brokers.to_owned(),
                properties: Properties::default(),
                routes: Routes::new([(GROUP_JOIN, topic)], dead_letter_topic),
                create_topics: None,
                schema_ids: None,
            },
            registry: None,
            spool: None,
            inspect_topics: true,
            shown: Vec::new(),
            drain_delay: Duration::ZERO,
            stop_deadline: Duration::from_secs(8),
        })
    }

    pub(crate) fn secrets(mut self, list: &str) -> Self {
        self.0.intake.secrets = Secrets::parse_list(list).expect("valid secrets");
        self
    }

    pub(crate) fn tolerance(mut self, tolerance: Duration) -> Self {
        self.0.intake.timestamp_tolerance = Some(tolerance);
        self
    }

    pub(crate) fn properties(mut self, list: &str) -> Self {
        self.0.kafka.properties = Properties::parse_list(list).expect("valid properties");
        self
    }

    pub(crate) fn create_topics(mut self, partitions: i32) -> Self {
        let replication = None;
        self.0.kafka.create_topics = Some(CreateTopics {
            partitions,
            replication,
        });
        self
    }

    /// Starts the service. It may not be ready yet.
    pub(crate) fn start(self) -> App {
        App::run(self.0, None)
    }
}

impl App {
    /// A service on an embedded Kafka of its own, with a change to the settings.
    pub(crate) fn embedded(change: impl FnOnce(Settings) -> Settings) -> Self {
        let (topic, dead_letter_topic) = ("zim.group-joined", "zim.dead-letter");
        let kafka = EmbeddedKafka::start(&[topic, dead_letter_topic], 12).expect("it starts");
        let mut settings = change(Settings::on(kafka.brokers(), topic, dead_letter_topic)).0;
        settings.inspect_topics = false;
        Self::run(settings, Some(kafka))
    }

    /// A service on the real Kafka, with two topics of its own; ready.
    pub(crate) async fn real(kafka: &Kafka, change: impl FnOnce(Settings) -> Settings) -> Self {
        let (topic, dead_letter_topic) = (kafka.unique_topic("joined"), kafka.unique_topic("dead"));
        kafka.create_topic(&topic, 12, &[]);
        kafka.create_topic(&dead_letter_topic, 3, &[]);
        let app = change(Settings::on(kafka.brokers(), &topic, &dead_letter_topic)).start();
        app.ready().await;
        app
    }

    fn run(settings: ServerSettings, embedded: Option<EmbeddedKafka>) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let listeners = Listeners {
            callbacks: bind(),
            admin: bind(),
        };
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let (callbacks, admin) = (address(&listeners.callbacks), address(&listeners.admin));
        let (stop, stopped) = oneshot::channel::<()>();
        let kafka = Kafka::at(&settings.kafka.brokers);
        let routes = &settings.kafka.routes;
        let topic = routes.event_topics().concat();
        let dead_letter_topic = routes.dead_letter_topic().to_owned();
        let server = tokio::spawn(server::run(settings, listeners, || {}, async {
            // A message and a dropped sender both stop it.
            stopped.await.ok();
        }));
        Self {
            callbacks,
            admin,
            kafka,
            topic,
            dead_letter_topic,
            client: Client::builder(TokioExecutor::new()).build_http(),
            stop: Some(stop),
            server,
            _embedded: embedded,
        }
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&self) {
        self.wait_for("the service is ready", async || {
            self.admin("/readyz").await.status == StatusCode::OK
        })
        .await;
    }

    /// Polls until it is so.
    pub(crate) async fn wait_for(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so().await {
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited in vain: {what}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Posts a body to the callback path.
    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Answer {
        self.post_with(&[("content-type", "application/json")], body)
            .await
    }

    /// Posts a body with these headers to the callback path.
    pub(crate) async fn post_with(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = format!("http://{}/callbacks/zim", self.callbacks);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::new(body.into())).expect("valid"))
            .await
    }

    /// Its HTTP client, for requests beside one another.
    pub(crate) fn client(&self) -> Client<HttpConnector, Full<Bytes>> {
        self.client.clone()
    }

    /// Any request to any port.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self
            .client
            .request(request)
            .await
            .expect("the service answers");
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("the answer is whole")
            .to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// Asks the admin port.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        let uri = format!("http://{}{path}", self.admin);
        self.ask(Request::get(uri).body(Full::default()).expect("valid"))
            .await
    }

    /// The value of one series, as `/metrics` shows it: name and labels as there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await;
        let value = text
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("there is no series {series}"))
            .parse()
            .expect("a number")
    }

    /// Waits until these series have these values. The answer may come before what it counts for.
    pub(crate) async fn shows(&self, series: &[(&str, f64)]) {
        for (series, value) in series {
            let what = format!("{series} is {value}");
            self.wait_for(&what, async || self.metric(series).await == *value)
                .await;
        }
    }

    /// Everything in the topic of events, once `count` are there.
    pub(crate) async fn records(&self, count: usize) -> Vec<TestRecord> {
        let records = self.read(&self.topic, count).await;
        for record in &records {
            // Only with this header, it was checked against the schema of its event.
            assert!(record.header("ce_dataschema").is_some(), "{record:?}");
        }
        records
    }

    /// Everything in the dead-letter topic, once `count` are there.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<TestRecord> {
        self.read(&self.dead_letter_topic, count).await
    }

    async fn read(&self, topic: &str, count: usize) -> Vec<TestRecord> {
        let (kafka, topic) = (Kafka::at(self.kafka.brokers()), topic.to_owned());
        let read = move || kafka.read_until(&topic, count, PATIENCE);
        tokio::task::spawn_blocking(read).await.expect("it reads")
    }

    /// Asks the service to stop, and does not wait until it has.
    pub(crate) fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the service in order, and returns how it ended.
    pub(crate) async fn stop(mut self) -> Result<(), ServerError> {
        self.begin_stop();
        self.server.await.expect("the service does not panic")
    }
}

/// A signed group-joined callback, with whatever else a test puts in.
pub(crate) fn callback(fields: Value) -> Vec<u8> {
    callback_of(APPID, SECRET, fields)
}

/// The same, of this application and signed with this secret.
#[expect(
    clippy::needless_pass_by_value,
    reason = "tests write the fields in place"
)]
pub(crate) fn callback_of(appid: &str, secret: &str, fields: Value) -> Vec<u8> {
    let mut body = serde_json::json!({
        "appid": appid,
        "event": "group_join",
        "group_id": "g1",
        "join_type": "Apply",
        "new_user_ids": ["u1"],
        "nonce": format!("{}", rand::random::<u64>()),
        "timestamp": 1_757_577_600_123_u64,
    });
    let members = body.as_object_mut().expect("an object");
    members.extend(fields.as_object().expect("an object").clone());
    let text = |name: &str| match &body[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let signature = sign(secret, &text("timestamp"), &text("nonce"));
    body["signature"] = signature.to_hex().into();
    body.to_string().into_bytes()
}
