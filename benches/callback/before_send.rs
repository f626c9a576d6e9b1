//! The latency of `before_send_msg` while other callbacks and clients use up memory and
//! connections.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use super::load::{Load, Outcome, Pace};
use super::subjects::{self, Subject};

/// Other callbacks per second.
const OTHERS: f64 = 5_000.0;
const QUESTIONS: f64 = 100.0;
const WARM_UP: Duration = Duration::from_secs(2);

/// The longest p99 that the contract allows. It allows no 5xx either.
const P99_MS: f64 = 100.0;

/// The connection limit of the service for the row in which all connections are in use.
const FEW_CONNECTIONS: usize = 1_000;

/// Runs each row. Ends with an error if a target is missed.
pub(crate) fn measure(usual: &Load) {
    let others = Load {
        connections: 256,
        ..*usual
    };
    let questions = Load {
        connections: 4,
        path: "/callbacks/zim/before-send",
        event: "before_send_msg",
        ..*usual
    };
    println!("| meanwhile | answers | p50 / p99 / p99.9 ms | not 2xx | others/s | target |");
    println!("| --- | ---: | ---: | ---: | ---: | --- |");
    let mut reached = true;
    let mut row = |what: &str, subject: &Subject, others: Option<(Load, Pace)>| {
        let target = subject.target().expect("it takes callbacks");
        let run = others.map(|(load, pace)| behind(load, target, pace));
        std::thread::sleep(WARM_UP);
        let asked = questions
            .connect(target)
            .run_open(QUESTIONS, usual.duration);
        let others = run.map_or(0.0, |run| run.join().expect("no panic").per_second());
        let [p50, p99, p999] = asked.percentiles();
        let is_reached = asked.not_2xx == 0 && p99 < P99_MS;
        reached &= is_reached;
        println!(
            "| {what} | {} | {p50:.2} / {p99:.2} / {p999:.2} | {} | {others:.0} | {} |",
            asked.answered(),
            asked.not_2xx,
            if is_reached { "reached" } else { "**missed**" }
        );
    };

    let (broker, brokers) = subjects::embedded(usual);
    let subject = Subject::service(&brokers, &[]);
    let at_rate = Some((others, Pace::Rate(OTHERS)));
    row("nothing", &subject, None);
    row("5,000/s of other callbacks", &subject, at_rate);
    let strangers = crowd(subject.target().expect("it takes callbacks"), 4_000);
    row(
        "the same, and 4,000 connections of strangers, half of them with an unfinished body of 500 kB",
        &subject,
        at_rate,
    );
    drop((strangers, subject));

    let connections = FEW_CONNECTIONS.to_string();
    let variables = [("ZIM2KAFKA_MAX_CONNECTIONS", connections.as_str())];
    let subject = Subject::service(&brokers, &variables);
    drop(broker);
    let waiting = Load {
        connections: FEW_CONNECTIONS,
        ..others
    };
    row(
        "Kafka away, no spool, and a callback that waits for it on each of 1,000 connections",
        &subject,
        Some((waiting, Pace::Saturation)),
    );
    if !reached {
        eprintln!("a target is missed: p99 below {P99_MS} ms, every answer 2xx");
        std::process::exit(1);
    }
}

/// Runs a load for as long as a row takes.
fn behind(load: Load, target: SocketAddr, pace: Pace) -> JoinHandle<Outcome> {
    let mut connected = load.connect(target);
    std::thread::spawn(move || connected.run(pace, load.duration + 2 * WARM_UP))
}

/// Connections of clients that hold them: every other one has sent a part of a large body.
fn crowd(target: SocketAddr, count: usize) -> Vec<TcpStream> {
    let head = "POST /callbacks/zim HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n";
    let part = [head.as_bytes(), &[b'x'; 50_000]].concat();
    let open = |number: usize| {
        let mut stream = TcpStream::connect(target).expect("it listens");
        if number.is_multiple_of(2) {
            // The service may have closed it for a newer one.
            stream.write_all(&part).ok();
        }
        stream
    };
    (0..count).map(open).collect()
}
