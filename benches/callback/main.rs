//! Compares the cost of a callback with that of an empty handler: one load, every subject in turn,
//! round after round. On a noisy machine only measurements taken together can be compared.
//!
//! `cargo bench` runs everything; `benches/README.md` explains the figures.

#![allow(
    clippy::indexing_slicing,
    reason = "a benchmark that indexes out of bounds should end"
)]

#[allow(
    dead_code,
    unused_imports,
    reason = "it belongs to the tests, and only its Kafka is used here"
)]
#[path = "../../tests/it/support/mod.rs"]
mod support;

#[allow(
    dead_code,
    unused_imports,
    reason = "it belongs to the tests, and only a part of it is used here"
)]
#[path = "../../tests/it/audit/mod.rs"]
mod audit;

mod before_send;
mod distance;
mod events;
mod forms;
mod growth;
mod load;
mod process;
mod redrive;
mod report;
mod stages;
mod subjects;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use load::{Content, Load, Pace};
use report::Report;
use subjects::Kind;

/// Measure the cost of a callback against an empty handler
#[derive(Debug, Parser)]
struct Arguments {
    /// Measurements of every subject or row; the median is reported [default: 3; `distance`: 5]
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Seconds of one measurement [default: 5; `distance`: 60]
    #[arg(long, global = true)]
    seconds: Option<u64>,
    #[arg(long, default_value = "64")]
    connections: usize,
    /// Least bytes of a body
    #[arg(long, default_value = "220")]
    bytes: usize,
    /// Distinct groups [default: 1000; `distance`: 2000]
    #[arg(long, global = true)]
    groups: Option<u64>,
    /// Partitions of the topic
    #[arg(long, default_value = "12")]
    partitions: i32,
    /// Only these subjects, as `a,b`; a is always measured
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Write the figures as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed by Cargo, as the last argument
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What to run in place of the comparison.
#[derive(Debug, Subcommand)]
enum Role {
    /// The baseline handler
    Bare,
    /// librdkafka's in-memory broker
    Broker { partitions: i32 },
    /// Only send the load, to a service that already runs, for a profiler
    Load {
        target: std::net::SocketAddr,
        /// Callbacks per second [default: as fast as they are answered]
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Measure the cost of each stage of a callback alone
    Stages,
    /// Measure the cost of a callback of each event
    Events,
    /// Measure events of groups beside messages, for the given minutes, on a real Kafka
    Messages {
        minutes: u64,
        /// Messages per second
        #[arg(long, default_value_t = events::MESSAGE_RATE)]
        rate: f64,
    },
    /// Measure what a form costs before authentication, beside JSON of its size
    Forms,
    /// Measure before_send_msg while other callbacks and clients use up memory and connections
    BeforeSend,
    /// Measure how the cost grows
    Growth,
    /// Measure callbacks while Kafka is a round trip away
    Distance(distance::Selection),
    /// Measure a backlog that leaves the spool while Kafka is a round trip away
    Drain(distance::Drain),
    /// Measure memory during the given minutes while Kafka is a round trip away
    Memory(distance::Memory),
    /// Measure memory during the given minutes of half load
    Endurance { minutes: u64 },
    /// Measure the cost of the given number of records in the spool
    Spool { records: u64 },
    /// Measure `redrive` of the given number of dead letters on a real Kafka, and what is published
    /// if it is killed again and again
    Redrive {
        letters: usize,
        #[arg(long, default_value_t = 20)]
        kills: u32,
    },
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
        Some(Role::Events) => events::costs(),
        Some(Role::Messages { minutes, rate }) => {
            events::messages(&arguments.load(), *minutes, *rate);
        }
        Some(Role::Forms) => forms::measure(),
        Some(Role::BeforeSend) => before_send::measure(&arguments.load()),
        Some(Role::Growth) => growth::measure(&arguments.load()),
        Some(Role::Distance(selection)) => {
            let load = Load {
                groups: arguments.groups.unwrap_or(2_000),
                duration: Duration::from_secs(arguments.seconds.unwrap_or(60)),
                ..arguments.load()
            };
            distance::measure(selection, &load, arguments.rounds.unwrap_or(5));
        }
        Some(Role::Drain(drain)) => drain.measure(&arguments.load()),
        Some(Role::Memory(memory)) => memory.measure(&arguments.load()),
        Some(Role::Redrive { letters, kills }) => {
            let groups = arguments.groups.unwrap_or(1_000);
            redrive::measure(*letters, *kills, u32::try_from(groups).unwrap_or(u32::MAX));
        }
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
            groups: self.groups.unwrap_or(1_000),
            prefix: "group",
            content: Content::Join,
            partitions: self.partitions,
            duration: Duration::from_secs(self.seconds.unwrap_or(5)),
            aged_each: 0,
            age: Duration::ZERO,
            path: "/callbacks/zim",
            event: "group_join",
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
    let rounds = arguments.rounds.unwrap_or(3);
    for round in 0..rounds {
        for kind in &kinds {
            eprintln!("round {} of {rounds}: {kind}", round + 1);
            report.add(*kind, subjects::measure(*kind, &load));
        }
    }
    report.print(&load);
    if let Some(path) = &arguments.json {
        std::fs::write(path, report.json()).expect("the figures can be written");
    }
    if !report.is_sound() {
        eprintln!("the load generator and wrk differ by more than 15 %: the figures are not valid");
        std::process::exit(1);
    }
}
