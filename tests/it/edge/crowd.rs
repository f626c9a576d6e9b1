//! A thousand who are slow and a thousand who are silent, and the honest sender between them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::app::{PATIENCE, callback};
use crate::support::process::Service;
use crate::support::scale::{alone, is_full, size};
use crate::support::wire::{Wire, post};

const EACH: usize = 1000;
const HEAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(8);

/// More than this a crowd of 2,000 does not cost.
const MEMORY: f64 = 50e6;

/// Both ends of every connection may be this process's.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
}

const SLOW_HEAD: &str = "POST /callbacks/zim HTTP/1.1\r\nx: ";
const SLOW_BODY: &str =
    "POST /callbacks/zim HTTP/1.1\r\nHost: here\r\nContent-Length: 500000\r\n\r\n";

/// From the first byte until it is cut off, or told that its body was too slow.
async fn slow(to: SocketAddr, beginning: &'static str) -> Duration {
    let (_, stream) = connect(to).await;
    let mut wire = Wire::over(stream);
    let began = Instant::now();
    wire.try_say(beginning).await;
    let mut pause = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            () = wire.end() => return began.elapsed(),
            _ = pause.tick() => {}
        }
        wire.try_say("y").await;
    }
}

async fn silent(to: SocketAddr) -> Duration {
    let (began, stream) = connect(to).await;
    Wire::over(stream).end().await;
    began.elapsed()
}

/// Many connect at once, and the system's queue of those is short. With the moment before it: the
/// service may know of a connection before we do.
async fn connect(to: SocketAddr) -> (Instant, TcpStream) {
    let connecting = async {
        loop {
            let began = Instant::now();
            match TcpStream::connect(to).await {
                Ok(stream) => return (began, stream),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, connecting).await.expect("it listens")
}

/// Posts one callback after another, each on a connection of its own, until it is done. How long
/// each took, in order.
async fn honest(to: SocketAddr, done: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = post(to, callback(json!({}))).await;
        took.push(began.elapsed());
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
        sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    took
}

/// The crowd, the honest sender and the memory that it took.
async fn crowd(service: &Service) -> ([Vec<Duration>; 2], Vec<Duration>) {
    // What the first callbacks take is no cost of the crowd.
    for _ in 0..200 {
        post(service.callbacks, callback(json!({}))).await;
    }
    let memory = || service.metric("process_resident_memory_bytes");
    let before = memory();
    let done = AtomicBool::new(false);
    let come_and_go = async {
        let (mut slows, mut silents) = (JoinSet::new(), JoinSet::new());
        for number in 0..EACH {
            let beginning = [SLOW_HEAD, SLOW_BODY][number % 2];
            slows.spawn(slow(service.callbacks, beginning));
            silents.spawn(silent(service.callbacks));
        }
        let both = async { (slows.join_all().await, silents.join_all().await) };
        let (slows, silents) = timeout(Duration::from_secs(60), both)
            .await
            .expect("all end");
        done.store(true, Ordering::Relaxed);
        [slows, silents]
    };
    let watch = async {
        let mut most = before;
        while !done.load(Ordering::Relaxed) {
            most = most.max(memory());
            sleep(Duration::from_millis(200)).await;
        }
        most
    };
    let (all, took, most) = tokio::join!(come_and_go, honest(service.callbacks, &done), watch);
    let grown = most - before;
    println!("the crowd took {grown} bytes of memory");
    assert!(grown < MEMORY, "{grown} bytes");
    (all, took)
}

fn judge(took: &[Duration]) {
    let at = |share: usize| took[took.len() * share / 1000];
    let (p50, p99, worst) = (at(500), at(990), at(999));
    println!(
        "{} honest callbacks, p50 {p50:?}, p99 {p99:?}, worst {worst:?}",
        took.len()
    );
    assert!(took.len() > 100);
    if is_full() {
        assert!(p99 < Duration::from_millis(100), "p99 {p99:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_and_a_thousand_silent_connections_are_closed_in_time() {
    let _alone = alone().await;
    raise_file_limit();
    let service = Service::embedded(
        &[
            "--idle-timeout=8s",
            "--drain-delay=0s",
            "--timestamp-tolerance=off",
        ],
        &[],
    );
    service.ready();
    let ([slows, silents], took) = crowd(&service).await;
    let late = size(Duration::from_secs(3), Duration::from_secs(1));
    for (cut_off, limit) in [(slows, HEAD), (silents, IDLE)] {
        let (first, last) = (cut_off.iter().min(), cut_off.iter().max());
        println!("for {limit:?}: cut off after {first:?} to {last:?}");
        assert_eq!(cut_off.len(), EACH);
        assert!(
            cut_off
                .iter()
                .all(|took| *took >= limit && *took < limit + late)
        );
    }
    judge(&took);
    let cut = |reason: &str| {
        service.metric(&format!(
            "zim2kafka_connections_cut_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(
        (cut("slow_head"), cut("idle")),
        (EACH as f64 / 2.0, EACH as f64)
    );
    let timed_out = service.metric("zim2kafka_callbacks_total{outcome=\"timed_out\"}");
    assert_eq!(timed_out, EACH as f64 / 2.0);
    assert_eq!(cut("displaced"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_connection_limit_keeps_no_honest_sender_out() {
    let _alone = alone().await;
    raise_file_limit();
    let service = Service::embedded(
        &[
            "--max-connections=500",
            "--idle-timeout=8s",
            "--drain-delay=0s",
            "--timestamp-tolerance=off",
        ],
        &[],
    );
    service.ready();
    let ([slows, silents], took) = crowd(&service).await;
    assert_eq!((slows.len(), silents.len()), (EACH, EACH));
    judge(&took);
    assert!(service.metric("zim2kafka_connections_cut_total{reason=\"displaced\"}") > 1400.0);
}
