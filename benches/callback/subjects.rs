//! The subjects, each in its own process.

use std::env;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use clap::ValueEnum;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tempfile::TempDir;
use zim2kafka::callback::{RawCallback, Secrets};
use zim2kafka::event::Record;
use zim2kafka::kafka::EmbeddedKafka;

use super::load::{APPID, Figures, Load, Pace, SECRET};
use super::process::{self, Process};
use super::stages;
use super::support::kafka::{Cluster, Jvm};
use super::support::start::Start;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    #[value(name = "a")]
    Bare,
    #[value(name = "b")]
    Embedded,
    #[value(name = "c")]
    Real,
    #[value(name = "d")]
    Down,
    #[value(name = "e")]
    Producer,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Embedded,
        Self::Real,
        Self::Down,
        Self::Producer,
    ];

    /// The load before a measurement, after which the cost of a callback is stable.
    pub(crate) fn warm_up(self) -> Duration {
        match self {
            // Until Java has compiled Kafka's hot paths.
            Self::Real => Duration::from_secs(40),
            _ => Duration::from_secs(1),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "a: an axum handler that reads the body and answers 200",
            Self::Embedded => "b: the service, librdkafka's in-memory broker",
            Self::Real => "c: the service, Apache Kafka",
            Self::Down => "d: the service, Kafka down: the spool",
            Self::Producer => "e: rdkafka's producer alone",
        })
    }
}

/// A running subject, with everything that it needs.
pub(crate) struct Subject {
    process: Process,
    target: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    _broker: Option<Process>,
    _kafka: Option<Cluster>,
    _spool: Option<TempDir>,
}

impl Subject {
    pub(crate) fn start(kind: Kind, load: &Load) -> Self {
        let (mut broker, mut kafka, mut spool) = (None, None, None);
        let mut brokers = || {
            let (process, brokers) = embedded(load);
            broker = Some(process);
            brokers
        };
        let (process, addresses) = match kind {
            Kind::Bare => {
                let (process, address) = role(&["bare"]);
                let address = address.parse().expect("an address");
                (process, [Some(address), None])
            }
            Kind::Embedded => service(&brokers(), &[]),
            Kind::Real => {
                // Its own cluster, so that it does not slow other subjects.
                let cluster = Cluster::try_start(1, Jvm::Server);
                let kafka = kafka.insert(cluster.unwrap_or_else(|error| panic!("{error}")));
                let topics = ["joined", "dead"].map(|purpose| kafka.unique_topic(purpose));
                for topic in &topics {
                    kafka.create_topic(topic, load.partitions, &[]);
                }
                let topics = [
                    ("ZIM2KAFKA_TOPIC", topics[0].as_str()),
                    ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &topics[1]),
                ];
                service(kafka.brokers(), &topics)
            }
            Kind::Down => {
                // Not in the usual folder of temporary files, which may be in memory.
                let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
                let started = service("127.0.0.1:1", &spool_in(folder.path()));
                spool = Some(folder);
                started
            }
            Kind::Producer => {
                let (bytes, seconds) = (load.bytes, load.duration.as_secs());
                let process = spawn(&[
                    &format!("--bytes={bytes}"),
                    &format!("--seconds={seconds}"),
                    "producer",
                    &brokers(),
                ]);
                (Process(process), [None, None])
            }
        };
        let [target, admin] = addresses;
        Self {
            process,
            target,
            admin,
            _broker: broker,
            _kafka: kafka,
            _spool: spool,
        }
    }

    /// The service, with a persistent spool.
    pub(crate) fn with_spool(brokers: &str, folder: &Path) -> Self {
        Self::service(brokers, &spool_in(folder))
    }

    /// The service, with these variables.
    pub(crate) fn service(brokers: &str, variables: &[(&str, &str)]) -> Self {
        let (process, [target, admin]) = service(brokers, variables);
        Self {
            process,
            target,
            admin,
            _broker: None,
            _kafka: None,
            _spool: None,
        }
    }

    /// One of the service's metrics without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let admin = self.admin.expect("it is the service");
        let text = super::support::process::request(admin, "GET", "/metrics", b"");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("it exists").trim().parse().expect("a number")
    }

    pub(crate) fn target(&self) -> Option<SocketAddr> {
        self.target
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The figures of a subject that takes no callbacks and prints its own figures.
    pub(crate) fn alone(mut self, load: &Load) -> Figures {
        let out = self.process.0.stdout.take().expect("it is a pipe");
        let mut lines = BufReader::new(out).lines();
        let mut number = || -> f64 {
            let line = lines.next().expect("it prints its figures").expect("text");
            line.parse().expect("a number")
        };
        let (records, cpu_us, rss_mb) = (number(), number(), number());
        Figures {
            per_second: records / load.duration.as_secs_f64(),
            cpu_us: cpu_us / records,
            rss_mb,
            ..Figures::default()
        }
    }
}

/// Starts this program in another role.
fn spawn(role: &[&str]) -> Child {
    let program = env::current_exe().expect("it runs");
    let mut command = Command::new(program);
    command
        .args(role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.start().expect("it is this program")
}

/// Like `spawn`, with the line that it prints when it is ready.
fn role(role: &[&str]) -> (Process, String) {
    let mut child = spawn(role);
    let mut line = String::new();
    let out = child.stdout.take().expect("it is a pipe");
    BufReader::new(out).read_line(&mut line).expect("text");
    (Process(child), line.trim().to_owned())
}

/// librdkafka's in-memory broker, in a process of its own.
pub(crate) fn embedded(load: &Load) -> (Process, String) {
    role(&["broker", &load.partitions.to_string()])
}

pub(crate) fn spool_in(folder: &Path) -> [(&'static str, &str); 2] {
    [
        ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
        ("ZIM2KAFKA_SPOOL_MAX_BYTES", "16GiB"),
    ]
}

/// The only variable that the service inherits from the environment of the benchmark.
const TRIED_OUT: &str = "ZIM2KAFKA_KAFKA_PROPERTIES";

/// The service, once it is ready, with its two ports.
fn service(brokers: &str, variables: &[(&str, &str)]) -> (Process, [Option<SocketAddr>; 2]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zim2kafka"));
    command
        .args([
            "serve",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
        ])
        .env_clear()
        .env("ZIM2KAFKA_CALLBACK_SECRETS", format!("{APPID}={SECRET}"))
        .env("ZIM2KAFKA_KAFKA_BROKERS", brokers)
        .env("ZIM2KAFKA_LOG_FORMAT", "json")
        .envs(variables.iter().copied())
        .envs(env::vars().filter(|(name, _)| name == TRIED_OUT))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.start().expect("the service starts");
    let log = child.stderr.take().expect("it is a pipe");
    let mut lines = BufReader::new(log).lines();
    let mut probes = None;
    let listening = lines
        .find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).ok()?;
            let address = |name: &str| line.get(name)?.as_str()?.parse::<SocketAddr>().ok();
            let admin = address("admin")?;
            let callbacks = address("callbacks");
            // Only the admin port answers until it has opened its spool.
            if callbacks.is_none() {
                probes = Some(Probes::start(admin));
            }
            Some((callbacks?, admin))
        })
        .expect("it logs its addresses");
    if let Some(probes) = probes {
        probes.report();
    }
    // Discard the rest: a full pipe would block the service.
    std::thread::spawn(move || lines.for_each(drop));
    let (callbacks, admin) = listening;
    while !super::support::process::request(admin, "GET", "/readyz", b"").contains("200 OK") {
        std::thread::sleep(Duration::from_millis(20));
    }
    (Process(child), [Some(callbacks), Some(admin)])
}

/// Liveness probes during a start that reads a spool.
struct Probes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Probes {
    const INTERVAL: Duration = Duration::from_millis(100);

    fn start(admin: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut answers, mut slowest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = super::support::process::request(admin, "GET", "/livez", b"");
                assert!(answer.contains("200 OK"), "it is not live: {answer}");
                slowest = slowest.max(began.elapsed());
                answers += 1;
                std::thread::sleep(Self::INTERVAL);
            }
            (answers, slowest)
        });
        Self { stop, thread }
    }

    /// Prints what a start that took longer than a moment has answered.
    fn report(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (answers, slowest) = self.thread.join().expect("it is live");
        if answers > 10 {
            println!(
                "until it listened: {answers} liveness probes answered, the slowest after {:.1} ms",
                slowest.as_secs_f64() * 1000.0
            );
        }
    }
}

/// Measures one subject once: at saturation, then at half of that rate.
pub(crate) fn measure(kind: Kind, load: &Load) -> Figures {
    let subject = Subject::start(kind, load);
    let Some(target) = subject.target() else {
        return subject.alone(load);
    };
    let mut connected = load.connect(target);
    connected.run(Pace::Saturation, kind.warm_up());
    let cpu = subject.process().cpu();
    let saturation = connected.run(Pace::Saturation, load.duration);
    let cpu = subject.process().cpu() - cpu;
    let half_load = Pace::Rate(saturation.per_second() / 2.0);
    let half = connected.run(half_load, load.duration);
    Figures {
        per_second: saturation.per_second(),
        cpu_us: cpu.as_secs_f64() * 1e6 / saturation.answered() as f64,
        saturation: saturation.percentiles(),
        half_load: half.percentiles(),
        rss_mb: subject.process().rss_mb(),
        not_2xx: saturation.not_2xx + half.not_2xx,
    }
}

/// The baseline handler.
pub(crate) fn bare() {
    async fn answer(_body: Bytes) -> StatusCode {
        StatusCode::OK
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        println!("{}", listener.local_addr().expect("it is bound"));
        let router = Router::new().route("/callbacks/zim", post(answer));
        axum::serve(listener, router).await.expect("it listens");
    });
}

/// librdkafka's in-memory broker, until the parent process has ended.
pub(crate) fn broker(partitions: i32) {
    let topics = ["zim.group-joined", "zim.dead-letter"];
    let kafka = EmbeddedKafka::start(&topics, partitions).expect("it starts");
    println!("{}", kafka.brokers());
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}

#[derive(Default)]
struct Reports(AtomicU64);

impl ClientContext for &'static Reports {}

impl ProducerContext for &'static Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // At the end, records in flight are purged and reported as failed.
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Publishes the service's records for the given time, with those settings of the service that
/// affect its cost. Prints the number of acknowledged records, the CPU time in µs and the memory in
/// MB.
pub(crate) fn producer(brokers: &str, load: &Load) {
    let reports: &'static Reports = Box::leak(Box::default());
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("bootstrap.servers", brokers),
        ("enable.idempotence", "true"),
        ("max.in.flight.requests.per.connection", "1"),
        ("linger.ms", "0"),
        ("compression.type", "lz4"),
        ("partitioner", "murmur2_random"),
    ] {
        config.set(name, value);
    }
    let producer: ThreadedProducer<&'static Reports> =
        config.create_with_context(reports).expect("valid");
    let secrets = Secrets::parse_list(&format!("{APPID}={SECRET}")).expect("valid");
    let record = |group| {
        let raw = RawCallback {
            body: Bytes::from(load.body(0, group)),
            content_type: None,
            trace: None,
            received_at: 0,
        };
        stages::record(&secrets, &raw)
    };
    let records: Vec<_> = (0..load.groups).map(record).collect();
    let mut records = records.iter().cycle();
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < load.duration {
        // As many records in flight as the service allows.
        if sent - reports.0.load(Ordering::Relaxed) >= 10_000 {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        let Record {
            key,
            value,
            headers,
            ..
        } = records.next().expect("there is a group");
        let mut all = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            let value = Some(value.as_ref());
            all = all.insert(Header { key, value });
        }
        let message = BaseRecord::to("zim.group-joined")
            .key(key.as_deref().expect("events have one"))
            .payload(value.as_ref())
            .headers(all);
        if producer.send(message).is_ok() {
            sent += 1;
        }
    }
    let records = reports.0.load(Ordering::Relaxed);
    println!(
        "{records}\n{}\n{}",
        process::cpu("self").as_micros(),
        process::rss_mb("self")
    );
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
}
