//! What a callback costs, beside an empty handler: one load, every subject in turn, round after round,
//! because on a noisy machine only what was measured together can be compared.
//!
//! `cargo bench` runs all of it; `benches/README.md` says what the figures mean.

#![allow(
    clippy::indexing_slicing,
    reason = "a benchmark that indexes out of bounds ends, as it should"
)]

#[allow(
    dead_code,
    unused_imports,
    reason = "it is the tests', and only its Kafka is used here"
)]
#[path = "../../tests/it/support/mod.rs"]
mod support;

mod growth;
mod load;
mod process;
mod report;
mod stages;
mod subjects;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::{Load, Pace};
use report::Report;
use subjects::Kind;

/// Measures what a callback costs, beside an empty handler
#[derive(Debug, Parser)]
struct Arguments {
    /// How often every subject is measured; the median counts
    #[arg(long, default_value = "3")]
    rounds: usize,
    /// How long one measurement takes, in seconds
    #[arg(long, default_value = "5")]
    seconds: u64,
    #[arg(long, default_value = "64")]
    connections: usize,
    /// Bytes of a body, at least
    #[arg(long, default_value = "220")]
    bytes: usize,
    /// Distinct groups
    #[arg(long, default_value = "1000")]
    groups: u64,
    /// Of the topic
    #[arg(long, default_value = "12")]
    partitions: i32,
    /// Only these subjects, as `a,b`; a is always measured
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Where the figures are written, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Cargo says so, behind everything else
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What runs in a process of its own.
#[derive(Debug, Subcommand)]
enum Role {
    /// The handler that all is compared with
    Bare,
    /// librdkafka's in-memory broker
    Broker { partitions: i32 },
    /// The load alone, on what runs already, for a profiler
    Load {
        target: std::net::SocketAddr,
        /// Callbacks a second; as many as are answered without it
        #[arg(long)]
        rate: Option<f64>,
    },
    /// What each stage of a callback costs by itself, instead
    Stages,
    /// How the cost grows, instead
    Growth,
    /// Half load for so many minutes, and what becomes of the memory, instead
    Endurance { minutes: u64 },
    /// What so many records in the spool cost, instead
    Spool { records: u64 },
    /// rdkafka's producer alone
    Producer { brokers: String },
}

fn main() {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Bare) => subjects::bare(),
        Some(Role::Broker { partitions }) => subjects::broker(*partitions),
        Some(Role::Producer { brokers }) => subjects::producer(brokers, &arguments.load()),
        Some(Role::Load { target, rate }) => {
            let pace = rate.map_or(Pace::Saturation, Pace::Rate);
            let load = arguments.load();
            let outcome = load.connect(*target).run(pace, load.duration);
            println!(
                "{:.0}/s, p50 / p99 / p99.9 {:?} ms, not 2xx {}",
                outcome.per_second(),
                outcome.percentiles(),
                outcome.not_2xx
            );
        }
        Some(Role::Stages) => stages::measure(&arguments.load()),
        Some(Role::Growth) => growth::measure(&arguments.load()),
        Some(Role::Endurance { minutes }) => growth::endurance(&arguments.load(), *minutes),
        Some(Role::Spool { records }) => growth::spool(&arguments.load(), *records),
        None => measure(&arguments),
    }
}

impl Arguments {
    fn load(&self) -> Load {
        Load {
            connections: self.connections,
            bytes: self.bytes,
            groups: self.groups,
            partitions: self.partitions,
            duration: Duration::from_secs(self.seconds),
        }
    }
}

fn measure(arguments: &Arguments) {
    let wanted = |kind: &Kind| {
        *kind == Kind::Bare || arguments.only.is_empty() || arguments.only.contains(kind)
    };
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(wanted).collect();
    let mut report = Report::default();
    let load = arguments.load();
    report.compare_with_wrk(&load);
    for round in 0..arguments.rounds {
        for kind in &kinds {
            eprintln!("round {} of {}: {kind}", round + 1, arguments.rounds);
            report.add(*kind, subjects::measure(*kind, &load));
        }
    }
    report.print(&load);
    if let Some(path) = &arguments.json {
        std::fs::write(path, report.json()).expect("the figures can be written");
    }
    if !report.is_sound() {
        eprintln!("the load generator is more than 15 % away from wrk: the figures are no use");
        std::process::exit(1);
    }
}
