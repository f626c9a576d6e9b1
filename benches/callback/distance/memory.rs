//! Memory while all producers are in use: a Kafka of several brokers, a round trip away, with a
//! bootstrap name that no broker advertises.

use std::time::Duration;

use tempfile::TempDir;

use super::super::load::{Load, Pace};
use super::super::subjects::{Subject, spool_in};
use super::{NOWHERE, Topics, WARM_UP, start_kafka};

/// A connection has memory of its own, so their number is fixed. It is enough for the callbacks that
/// are answered within 50 ms at the usual rate.
const CONNECTIONS: usize = 256;

/// The load whose memory is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Memory {
    minutes: u64,
    /// Callbacks per second
    #[arg(long, default_value = "5000")]
    rate: u64,
    /// In ms
    #[arg(long, default_value = "10")]
    round_trip: u64,
    /// Brokers of the Kafka; each replicates all partitions
    #[arg(long, default_value = "3")]
    brokers: usize,
}

impl Memory {
    /// Prints the memory after each minute.
    pub(crate) fn measure(self, load: &Load) {
        let load = &Load {
            connections: CONNECTIONS,
            ..*load
        };
        let kafka = start_kafka(self.brokers, false, load);
        kafka.set_round_trip(Duration::from_millis(self.round_trip));
        // The brokers advertise 127.0.0.1, so this is a name that none of them advertises.
        let bootstrap = kafka.distant().replacen("127.0.0.1", "localhost", 1);
        let (bootstrap, _) = bootstrap.split_once(',').unwrap_or((&bootstrap, ""));
        let topics = Topics::create(&kafka, load.partitions);
        // Not in the usual folder of temporary files, which may be in memory.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut variables = topics.variables().to_vec();
        variables.extend(spool_in(folder.path()));
        // The producer for runs of one group is created for such a backlog only.
        let one_group = Load { groups: 1, ..*load };
        let down = Subject::service(NOWHERE, &variables);
        let mut connected = one_group.connect(down.target().expect("it takes callbacks"));
        connected.run(Pace::Saturation, Duration::from_secs(1));
        drop((connected, down));
        let subject = Subject::service(bootstrap, &variables);
        let mut connected = load.connect(subject.target().expect("it takes callbacks"));
        let rate = Pace::Rate(self.rate as f64);
        connected.run(rate, WARM_UP);
        println!(
            "| minute | callbacks/s | p50 / p99 / p99.9 ms | published | spooled | 503 | RSS MB |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let mut most = 0.0_f64;
        for minute in 1..=self.minutes {
            let outcome = connected.run(rate, Duration::from_secs(60));
            let [p50, p99, p999] = outcome.percentiles();
            let memory = subject.process().rss_mb();
            most = most.max(memory);
            println!(
                "| {minute} | {:.0} | {p50:.1} / {p99:.1} / {p999:.1} | {} | {} | {} | {memory:.1} |",
                outcome.per_second(),
                outcome.answers.published,
                outcome.answers.spooled,
                outcome.answers.unavailable,
            );
        }
        println!(
            "at most {most:.1} MB, {} threads",
            subject.process().threads()
        );
    }
}
