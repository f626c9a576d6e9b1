//! A produce request that fails while later ones of its producer are under way.
//!
//! The spool answers nearly every record while its first request is under way, and the few groups
//! have many records each. If anything overtakes a refused record, the auditor finds it. A broker
//! that remembers nothing of a producer takes what overtakes, so producers and topics are new.

mod memory;
mod mock;
mod requests;
mod shards;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaRespErr as E;

use super::{Run, blocking};
use crate::audit::{Report, Sender};
use crate::support::kafka::Kafka;
use crate::support::proxy::{Fault, Faults, Injection};

const RATE: u32 = 300;
/// As many as there may be requests under way, or fewer: with more, a group's next callback would
/// not be in any of them.
const GROUPS: u32 = 4;

/// How late the client learns of the fault. Meanwhile, some records of each group follow.
const LATE: Duration = Duration::from_millis(50);

/// A run that answers from the spool, on topics of so few partitions that requests follow each
/// other closely.
fn run_on(kafka: &Kafka, brokers: &str) -> Run {
    let topics = ["joined", "dead"].map(|purpose| kafka.unique_topic(purpose));
    for topic in &topics {
        kafka.create_topic(topic, 1, &[]);
    }
    spooling(Run::on(brokers, topics))
}

fn spooling(mut run: Run) -> Run {
    run.set("ZIM2KAFKA_SPOOL_AFTER", "1ms");
    run
}

fn load(run: &Run) -> Sender {
    run.load_of(0..GROUPS, RATE)
}

/// Kills the service, if it runs, and starts it. Begins the load with the first start. Returns once
/// the service has answered.
fn start_again(run: &mut Run, sender: &mut Option<Sender>) {
    blocking(|| {
        run.kill();
        run.start();
        run.service().ready();
    });
    let sender = sender.get_or_insert_with(|| load(run));
    let before = sender.answered();
    blocking(|| run.wait_for("it answers", |_| sender.answered() > before));
}

/// For the first request from now on of each producer.
fn not_enough_replicas() -> Faults {
    let fault = Fault::Refuse(E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    fault.first_of_each_producer().after(LATE)
}

fn sum(of: impl Fn(&Injection) -> usize, injections: &[Arc<Injection>]) -> usize {
    injections.iter().map(|injection| of(injection)).sum()
}

fn record(run: &Run, fault: &str, injections: &[Arc<Injection>], report: &Report) {
    let injected = sum(Injection::injected, injections);
    let overtaken = sum(Injection::overtaken, injections);
    println!("{fault}: {injected} requests met it, {overtaken} overtook one");
    assert!(injected > 0, "{fault}");
    record_times(run, fault, injected, report);
}

fn record_times(run: &Run, fault: &str, injected: usize, report: &Report) {
    assert_eq!(report.answered_5xx, 0, "{report}");
    let fault = format!("produce request: {fault}");
    run.record(&fault, &injected, report, Duration::ZERO, None);
}
