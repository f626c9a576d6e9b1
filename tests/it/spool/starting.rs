//! A start that takes long, because it reads many records or waits for an older process: the admin
//! port answers all the time.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ANSWERED, Scene, is_ready, send, stop};
use crate::support::app::{PATIENCE, callback};
use crate::support::process::{Service, Starting, free_address, request};

/// As Kubernetes probes by default: a probe fails after 1 s, and three in a row end the process.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_FAILURES: usize = 3;

/// More than SQLite's own cache holds, so that a slow disk makes a slow start.
const RECORDS: usize = 1000;

/// Leaves [`RECORDS`] records in the spool.
fn fill(scene: &Scene) {
    const SENDERS: usize = 8;
    let service = scene.start(&[("ZIM2KAFKA_SPOOL_AFTER", "1ms")]);
    let note = "n".repeat(4000);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (service, note) = (&service, &note);
            scope.spawn(move || {
                for number in 0..RECORDS / SENDERS {
                    let user = format!("u{sender}-{number}");
                    let fields = json!({"group_id": "g", "new_user_ids": [user], "note": note});
                    let answer = service.post(callback(fields));
                    assert!(answer.contains("\"spooled\""), "{answer}");
                }
            });
        }
    });
    stop(service);
}

/// What the admin port answers at one moment of a start.
struct Glimpse {
    records: f64,
    ready: f64,
    /// The answer of `/readyz`, asked for last.
    readyz: String,
}

fn look(admin: SocketAddr) -> Glimpse {
    let metrics = request(admin, "GET", "/metrics", b"");
    let metric = |series: &str| -> f64 {
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.expect("it exists").parse().expect("a number")
    };
    Glimpse {
        records: metric("zim2kafka_spool_records"),
        ready: metric("zim2kafka_ready"),
        readyz: request(admin, "GET", "/readyz", b""),
    }
}

/// Waits until `/readyz` gives this reason for not being ready.
#[track_caller]
fn wait_for_reason(starting: &mut Starting, reason: &str) -> Glimpse {
    let admin = starting.admin();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let glimpse = look(admin);
        if glimpse.readyz.contains(reason) {
            return glimpse;
        }
        let log = starting.process.stderr();
        assert!(
            Instant::now() < deadline,
            "never {reason}: {}\n{log}",
            glimpse.readyz
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a start that is not over.
#[track_caller]
fn end(starting: Starting) {
    starting.process.signal("TERM");
    let began = Instant::now();
    let ended = starting.process.end();
    assert!(began.elapsed() < ANSWERED, "{:?}", began.elapsed());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("is listening"), "{}", ended.stderr);
}

#[test]
fn while_a_start_reads_its_spool_it_is_live_and_not_ready_and_counts_records() {
    let scene = Scene::new();
    fill(&scene);
    scene.disk.delay_reads(Duration::from_millis(2));
    let address = free_address();
    let mut starting = scene.begin(&address);
    let admin = starting.admin();
    let (mut counts, mut late) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let began = Instant::now();
        let live = request(admin, "GET", "/livez", b"");
        assert!(live.starts_with("HTTP/1.1 200"), "{live}");
        late = match began.elapsed() < PROBE_TIMEOUT {
            true => 0,
            false => late + 1,
        };
        assert!(late < PROBE_FAILURES, "Kubernetes would end it");
        let connected = TcpStream::connect(&address);
        let Glimpse {
            records,
            ready,
            readyz,
        } = look(admin);
        if readyz.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(readyz.starts_with("HTTP/1.1 503"), "{readyz}");
        assert!(readyz.contains("not ready: "), "{readyz}");
        assert_eq!(ready, 0.0, "{readyz}");
        let page = request(admin, "GET", "/", b"");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        if readyz.contains("reading the spool") {
            // Refused, so that nothing hangs.
            let refused = connected.map_err(|error| error.kind()).err();
            assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
            counts.push(records);
        }
        assert!(Instant::now() < deadline, "{readyz}");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(counts.is_sorted(), "{counts:?}");
    counts.dedup();
    // The first may be 0, and each but the last is less than all.
    assert!(counts.len() > 3, "it grows: {counts:?}");
    scene.disk.delay_reads(Duration::ZERO);

    let service = starting.listening();
    assert_eq!(service.metric("zim2kafka_spool_records"), RECORDS as f64);
    assert!(is_ready(&service));
    send(&service, "new", "\"spooled\"");
    stop(service);
}

#[test]
fn a_start_that_is_stopped_while_it_reads_its_spool_ends_at_once_and_damages_nothing() {
    let scene = Scene::new();
    fill(&scene);
    scene.disk.delay_reads(Duration::from_millis(5));
    for reason in ["checking the file of the spool", "reading the spool, "] {
        let mut starting = scene.begin("127.0.0.1:0");
        wait_for_reason(&mut starting, reason);
        end(starting);
    }
    scene.disk.delay_reads(Duration::ZERO);
    let service = scene.start(&[]);
    assert_eq!(service.metric("zim2kafka_spool_records"), RECORDS as f64);
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
    stop(service);
}

#[test]
fn a_start_waits_for_an_older_process_and_its_admin_port_gives_that_as_the_reason() {
    const REASON: &str = "not ready: waiting for another process to release the spool";
    let scene = Scene::new();
    let old = scene.start(&[]);
    send(&old, "u", "\"spooled\"");
    let mut stopped = scene.begin("127.0.0.1:0");
    wait_for_reason(&mut stopped, REASON);
    end(stopped);

    let mut new = scene.begin("127.0.0.1:0");
    wait_for_reason(&mut new, REASON);
    let live = request(new.admin(), "GET", "/livez", b"");
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
    assert!(is_ready(&old));
    stop(old);
    let new = new.listening();
    assert_eq!(new.metric("zim2kafka_spool_records"), 1.0);
    stop(new);
}

#[test]
fn a_start_takes_over_the_port_of_an_older_process_with_the_same_spool() {
    let scene = Scene::new();
    let address = free_address();
    let old = scene.begin(&address).listening();
    send(&old, "u", "\"spooled\"");
    let mut new = scene.begin(&address);
    new.process.logs("another process uses the spool");
    stop(old);
    let new: Service = new.listening();
    assert_eq!(new.callbacks.to_string(), address);
    assert_eq!(new.metric("zim2kafka_spool_records"), 1.0);
    send(&new, "new", "\"spooled\"");
    stop(new);
}
