//! Callbacks while Kafka is a round trip away, at a rate that does not wait for answers.

mod drain;
mod memory;
mod rows;
mod table;

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use super::load::{Load, Pace};
use super::subjects::{Kind, Subject, spool_in};
use super::support::kafka::{Cluster, Jvm, SaslSsl, Setup};
pub(crate) use drain::Drain;
pub(crate) use memory::Memory;
use rows::Row;
pub(crate) use rows::Selection;
use table::Figures;

/// The load before each measurement. Afterwards every partition has a record, so its leader is
/// known, its connection is open, and Kafka knows the sequence numbers of the producer.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long the records of the warm-up may take to leave the service.
const PATIENCE: Duration = Duration::from_secs(60);

/// For the row with TLS. Cloud providers close idle connections after minutes; the row need not
/// wait that long.
const BROKER_CLOSES_IDLE: &str = "connections.max.idle.ms=10000";

/// Longer than that. A broker closes idle connections one by one, up to 300 ms apart.
const QUIET: Duration = Duration::from_secs(25);

/// Nobody answers there.
const NOWHERE: &str = "127.0.0.1:1";

/// Measures the selected rows in turn, round after round, and prints the table.
pub(crate) fn measure(selection: &Selection, load: &Load, rounds: usize) {
    raise_the_limit_of_open_files();
    let mut all = Vec::new();
    for is_tls in [false, true] {
        let rows = selection.rows(is_tls);
        if rows.is_empty() {
            continue;
        }
        let kafka = start_kafka(selection.brokers, is_tls, load);
        let mut runs: Vec<Vec<Figures>> = rows.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (row, runs) in rows.iter().zip(&mut runs) {
                let figures = measure_once(*row, &kafka, load, selection.has_spool(*row));
                eprintln!("round {round} of {rounds}: {row}: {figures}");
                runs.push(figures);
            }
        }
        all.extend(rows.into_iter().zip(runs));
    }
    assert!(!all.is_empty(), "no row has these values");
    table::print_header(selection.brokers, load, rounds);
    for (row, runs) in all {
        table::print_row(row, &Figures::median(&runs), selection.has_spool(row));
    }
}

/// Starts a cluster of its own for the rows with TLS, or for all others, and puts load on it until
/// Java has compiled its hot paths.
fn start_kafka(brokers: usize, is_tls: bool, load: &Load) -> Cluster {
    eprintln!(
        "starting Kafka, then {} s of load",
        Kind::Real.warm_up().as_secs()
    );
    let kafka = Cluster::try_start_as(&Setup {
        brokers,
        jvm: Jvm::Server,
        is_distant: true,
        settings: if is_tls { BROKER_CLOSES_IDLE } else { "" },
    });
    let kafka = kafka.unwrap_or_else(|error| panic!("{error}"));
    let topics = Topics::create(&kafka, 12);
    let subject = Subject::service(kafka.brokers(), &topics.variables());
    let mut connected = load.connect(subject.target().expect("it takes callbacks"));
    connected.run(Pace::Saturation, Kind::Real.warm_up());
    drop(subject);
    topics.delete(&kafka);
    kafka
}

struct Topics([String; 2]);

impl Topics {
    fn create(kafka: &Cluster, partitions: i32) -> Self {
        Self::create_with(kafka, partitions, &[])
    }

    /// With these settings of the topic of events.
    fn create_with(kafka: &Cluster, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let topics = ["joined", "dead"].map(|purpose| kafka.unique_topic(purpose));
        kafka.create_topic(&topics[0], partitions, settings);
        kafka.create_topic(&topics[1], 1, &[]);
        Self(topics)
    }

    fn variables(&self) -> [(&'static str, &str); 2] {
        [
            ("ZIM2KAFKA_TOPIC", self.0[0].as_str()),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &self.0[1]),
        ]
    }

    /// Waits until every partition has a record.
    fn wait_until_warm(&self, kafka: &Cluster, partitions: i32) {
        let client: BaseConsumer = kafka.client().create().expect("valid");
        let deadline = Instant::now() + PATIENCE;
        for partition in 0..partitions {
            loop {
                let watermarks = client.fetch_watermarks(&self.0[0], partition, PATIENCE);
                if watermarks.expect("Kafka answers").1 > 0 {
                    break;
                }
                if Instant::now() > deadline {
                    eprintln!("not warm: partition {partition} has no record");
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// The partitions of all rows and rounds together would slow Kafka down.
    fn delete(&self, kafka: &Cluster) {
        for topic in &self.0 {
            kafka.delete_topic(topic);
        }
    }
}

/// Measures a row once, with topics and a service of its own.
fn measure_once(row: Row, kafka: &Cluster, load: &Load, has_spool: bool) -> Figures {
    kafka.set_round_trip(Duration::from_millis(row.round_trip));
    let sasl = kafka.sasl_ssl();
    let brokers = match row {
        Row { is_tls: true, .. } => sasl.brokers.clone(),
        Row { round_trip: 0, .. } => kafka.brokers().to_owned(),
        _ => kafka.distant(),
    };
    let topics = Topics::create(kafka, row.partitions);
    let mut variables = topics.variables().to_vec();
    // The load keeps its free connections, however many a slow service made it open.
    variables.push(("ZIM2KAFKA_IDLE_TIMEOUT", "1h"));
    variables.push(("ZIM2KAFKA_MAX_CONNECTIONS", "16384"));
    // Not in the usual folder of temporary files, which may be in memory.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    if has_spool {
        variables.extend(spool_in(folder.path()));
    }
    if row.round_trip >= 200 {
        // The default of 250 ms is hardly longer than the round trip, so it would also spool
        // events that are not late.
        variables.push(("ZIM2KAFKA_SPOOL_AFTER", "1s"));
    }
    let properties = properties(&sasl);
    if row.is_tls {
        variables.push(("ZIM2KAFKA_KAFKA_PROPERTIES", &properties));
    }
    let connections_before = kafka.distant_connections();
    let subject = Subject::service(&brokers, &variables);
    let mut connected = load.connect(subject.target().expect("it takes callbacks"));
    let rate = row.rate as f64;
    connected.run_open(rate, WARM_UP);
    topics.wait_until_warm(kafka, row.partitions);
    wait_until_empty(&subject);
    let connections = kafka.distant_connections() - connections_before;
    assert_eq!(
        connections > 0,
        row.round_trip > 0,
        "the wrong way to Kafka"
    );
    if row.is_tls {
        thread::sleep(QUIET);
        let again = kafka.distant_connections() - connections_before - connections;
        eprintln!("{connections} connections to Kafka, {again} more in the quiet time");
    }
    let cpu = subject.process().cpu();
    let outcome = connected.run_open(rate, load.duration);
    let cpu = subject.process().cpu() - cpu;
    drop(subject);
    topics.delete(kafka);
    let answers = outcome.answers;
    let answered = outcome.answered();
    let counted = [
        answers.published,
        answers.spooled,
        answers.duplicate,
        answers.unavailable,
    ];
    Figures {
        latency: outcome.percentiles(),
        cpu_us: cpu.as_secs_f64() * 1e6 / answered as f64,
        answers,
        other: answered - counted.iter().sum::<u64>(),
    }
}

/// The properties of a client with TLS and SASL.
fn properties(sasl: &SaslSsl) -> String {
    let properties = sasl.properties(SaslSsl::MECHANISMS[1]);
    let properties = properties.map(|(name, value)| format!("{name}={value}"));
    properties.join(";")
}

/// Waits until Kafka has all records of the warm-up, so that the measurement does not begin with a
/// backlog.
fn wait_until_empty(subject: &Subject) {
    let deadline = Instant::now() + PATIENCE;
    let records = || {
        let names = [
            "zim2kafka_spool_records",
            "zim2kafka_kafka_in_flight_records",
        ];
        names.map(|name| subject.metric(name)).iter().sum::<f64>()
    };
    while records() > 0.0 {
        if Instant::now() > deadline {
            eprintln!("not valid: {} records of the warm-up are left", records());
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The load opens a connection for each callback that waits for its answer.
fn raise_the_limit_of_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be as high as the hard one");
}
