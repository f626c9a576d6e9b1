//! A real Apache Kafka for the tests.
//!
//! [`kafka`] is the one that the tests of a run share; [`Cluster::exclusive`] is one that a test
//! has to itself, to be stopped, frozen and started again. All are gone at the end, in whatever way
//! the end comes (`tests/kafka/leash.sh`).
//!
//! Kafka comes from `ZIM2KAFKA_TEST_BROKERS` (the bootstrap servers of a plain cluster that tests
//! may fill; it replaces the shared one), else from its jars by Maven, else from its image by
//! Docker. Where there is none of them, the tests that need it fail and say how to provide one;
//! only
//! `ZIM2KAFKA_TEST_KAFKA=off` leaves them out, and says so at the end.

mod broker;
mod cluster;
mod distribution;
mod left_out;
mod machine;
mod pool;
mod publish;
mod records;
mod security;
mod topics;

use std::env;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

#[allow(unused_imports, reason = "only the benchmarks use `Setup`")]
pub(crate) use cluster::{Cluster, Setup};
pub(crate) use distribution::{distribution, said_by};
pub(crate) use left_out::is_wanted;
pub(crate) use machine::Jvm;
use machine::Machine;
pub(crate) use pool::Exclusive;
pub(crate) use publish::{now, publish};
pub(crate) use records::TestRecord;
pub(crate) use security::SaslSsl;
pub(crate) use topics::Partition;

/// For what a healthy cluster does at once, and a busy machine some time later.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, ours or not, by its plain listener.
pub(crate) struct Kafka {
    brokers: String,
}

/// The cluster that all tests share. None only where `ZIM2KAFKA_TEST_KAFKA=off`; the test is then
/// named at the end of the run.
///
/// # Panics
///
/// When there is none to be had (the message says how to provide one), or it does not start or
/// answer.
#[track_caller]
pub(crate) fn kafka() -> Option<&'static Kafka> {
    static GIVEN: OnceLock<Option<Result<Kafka, String>>> = OnceLock::new();
    if !left_out::is_wanted() {
        return None;
    }
    match GIVEN.get_or_init(given) {
        None => shared_cluster().map(|cluster| &**cluster),
        Some(Ok(kafka)) => Some(kafka),
        Some(Err(error)) => panic!("{error}"),
    }
}

/// The shared cluster of our own, for tests that log in or set ACLs: never the one of
/// `ZIM2KAFKA_TEST_BROKERS`, of whose other listeners we know nothing. Else the same as [`kafka`].
///
/// # Panics
///
/// As [`kafka`]. A failed start is remembered: each further test fails at once.
#[track_caller]
pub(crate) fn shared_cluster() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
    if !left_out::is_wanted() {
        return None;
    }
    match SHARED.get_or_init(|| Cluster::try_start(1, Jvm::QuickStart)) {
        Ok(cluster) => Some(cluster),
        Err(error) => panic!("{error}"),
    }
}

/// Runs a program of `tests/kafka`, a Java source file, with Kafka's jars, and returns what it
/// says. None only where `ZIM2KAFKA_TEST_KAFKA=off`.
///
/// # Panics
///
/// When there is no Kafka to be had, and when the program fails, with what it said.
#[track_caller]
pub(crate) fn run_java(source: &str, arguments: &[&str]) -> Option<String> {
    if !left_out::is_wanted() {
        return None;
    }
    match Machine::start(Jvm::QuickStart, &[])
        .and_then(|machine| run_java_on(&machine, source, arguments))
    {
        Ok(said) => Some(said),
        Err(error) => panic!("{error}"),
    }
}

fn run_java_on(machine: &Machine, source: &str, arguments: &[&str]) -> Result<String, String> {
    let mut java = machine.java();
    java.arg(Path::new(distribution::FILES).join(source))
        .args(arguments);
    distribution::said_by(&mut java)
}

fn given() -> Option<Result<Kafka, String>> {
    let brokers = env::var("ZIM2KAFKA_TEST_BROKERS")
        .ok()
        .filter(|brokers| !brokers.is_empty())?;
    let kafka = Kafka::at(&brokers);
    let client: BaseConsumer = kafka.client().create().expect("the settings are sound");
    let answer = client.fetch_metadata(None, PATIENCE);
    Some(
        answer.map(|_| kafka).map_err(|error| {
            format!("ZIM2KAFKA_TEST_BROKERS: these brokers do not answer: {error}")
        }),
    )
}

impl Kafka {
    /// A cluster by its bootstrap servers, such as the embedded one.
    pub(crate) fn at(brokers: &str) -> Self {
        let brokers = brokers.to_owned();
        Self { brokers }
    }

    /// The plain bootstrap servers.
    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The settings of a client of this cluster, to add to.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        // Every consumer of rdkafka wants a group; these commit nothing and never join it.
        client
            .set("group.id", "zim2kafka-tests")
            .set("enable.auto.commit", "false");
        // After an outage a test waits for this; the default goes up to ten seconds.
        client.set("reconnect.backoff.max.ms", "200");
        client
    }

    /// A topic's name that no other test and no other run uses.
    pub(crate) fn unique_topic(&self, purpose: &str) -> String {
        format!("{purpose}-{:016x}", rand::random::<u64>())
    }
}

/// Waits for a future of rdkafka on a thread of its own, since the caller may be inside a runtime.
fn wait_for<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let on_its_own = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime can be built").block_on(future)
    };
    thread::scope(|scope| scope.spawn(on_its_own).join()).expect("nothing in there panics")
}

/// Asks about a topic until there is an answer, each time for a part of the patience: a broker that
/// has just come back may not lead its partitions yet, and librdkafka may wait to the end for the
/// answer of a broker that was killed.
fn patiently<T>(
    topic: &str,
    patience: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask(PATIENCE / 10) {
            Ok(answer) => return answer,
            Err(error) if Instant::now() > deadline => panic!("{topic} cannot be read: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
