//! The number of threads of the service has a bound, the same for any number of topics.
//!
//! Most threads are librdkafka's. A producer has two, and one for each broker. While it connects, it
//! has one more for a bootstrap name that no broker advertises; librdkafka from 2.10 on ends that
//! one with the first metadata. All producers are in use here, as after an outage of a Kafka that is
//! not near.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;
use zim2kafka::delivery::{Delivery, Durability, Settled};
use zim2kafka::event::{Record, Routes, Times};
use zim2kafka::kafka::{KafkaSettings, Properties};
use zim2kafka::metrics::Metrics;

use crate::support::app::{callback, open_spool};
use crate::support::kafka::Cluster;
use crate::support::process::{Process, Service};
use crate::support::scale::light_load;

/// As in `delivery::distance`. There are three more producers: for the backlog, for runs of one key
/// and for dead letters.
const SHARDS: usize = 8;
const PRODUCERS: usize = SHARDS + 3;

/// The promise for three brokers and one bootstrap name that no broker advertises. One of the
/// threads is tokio's worker, of which machines with more than two cores have more.
const MAX_THREADS: usize = 8 * SHARDS + 26;

/// To the broker, and back. With a round trip below 4 ms, not all shards are in use.
const ONE_WAY: Duration = Duration::from_millis(5);

/// Nobody answers there.
const NOWHERE: &str = "127.0.0.1:1";

/// Records of one key that are published as a run if they are read from the spool.
const RUN: u64 = 50;

/// Enough for each shard to have some.
const GROUPS: u64 = 200;

/// For the producers, which are created one after the other as the load needs them.
const PATIENCE: Duration = Duration::from_secs(90);

/// The threads have settled once all producers exist and nothing has changed for this long. Those
/// that create a producer or fetch metadata have ended by then.
const QUIET: Duration = Duration::from_secs(4);

/// A child of this test: its brokers and its topics, with a comma between two.
const CHILD_BROKERS: &str = "TEST_THREADS_BROKERS";
const CHILD_TOPICS: &str = "TEST_THREADS_TOPICS";

/// Threads by their names, of which the kernel keeps 15 bytes.
type Threads = BTreeMap<String, usize>;

/// The threads of one process.
struct Counted {
    /// When no more came.
    settled: Threads,
    /// When they were most.
    most: Threads,
}

fn sum(threads: &Threads) -> usize {
    threads.values().sum()
}

/// The threads of a process, given by its id or as `self`.
fn threads_of(process: &str) -> Threads {
    let mut threads = Threads::new();
    let folder = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    for thread in folder {
        let name = thread.expect("it can be listed").path().join("comm");
        // It may have ended meanwhile.
        if let Ok(name) = fs::read_to_string(name) {
            *threads.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    threads
}

/// Counts threads while `send` puts load on all shards, until all producers are there.
fn count(process: &str, mut send: impl FnMut(u64)) -> Counted {
    let deadline = Instant::now() + PATIENCE;
    let (mut most, mut before) = (Threads::new(), Threads::new());
    let mut quiet_since = Instant::now();
    for number in 0.. {
        send(number);
        let now = threads_of(process);
        if sum(&now) > sum(&most) {
            most.clone_from(&now);
        }
        if now != before {
            quiet_since = Instant::now();
        }
        let producers = now.get("rdk:main").copied().unwrap_or_default();
        if producers == PRODUCERS && quiet_since.elapsed() >= QUIET {
            return Counted { settled: now, most };
        }
        assert!(Instant::now() < deadline, "not all producers: {now:?}");
        before = now;
    }
    unreachable!("there are enough numbers")
}

/// Counts the threads of the program, whose callbacks have one topic.
fn count_program(brokers: &str, topic: &str, dead_letter_topic: &str) -> Counted {
    let spool = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let start = |brokers: &str| {
        let variables = [
            ("ZIM2KAFKA_KAFKA_BROKERS", brokers),
            ("ZIM2KAFKA_TOPIC", topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead_letter_topic),
            ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
            ("ZIM2KAFKA_SPOOL_DIR", spool.path().to_str().expect("text")),
        ];
        Service::start(&[], &variables)
    };
    let post = |service: &Service, group: &str, status: &str| {
        let event = match status {
            "dead_lettered" => "an unsupported one",
            _ => "group_join",
        };
        let fields = json!({"group_id": group, "event": event, "timestamp": now()});
        let body = callback(fields);
        let answer = service.post(body);
        assert!(answer.contains(status), "{answer}");
    };
    let service = start(NOWHERE);
    thread::scope(|scope| {
        for _ in 0..RUN {
            scope.spawn(|| post(&service, "one", "spooled"));
        }
    });
    service.process.signal("TERM");
    service.process.end();

    let service = start(brokers);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            post(&service, "one", "dead_lettered");
            for number in (0..).take_while(|_: &u64| !is_over.load(Ordering::Relaxed)) {
                // Late ones are in the spool, which does not matter here.
                post(&service, &(number % GROUPS).to_string(), "HTTP/1.1 200");
            }
        });
        let process = service.process.id().to_string();
        let counted = count(&process, |_| thread::sleep(Duration::from_millis(2)));
        is_over.store(true, Ordering::Relaxed);
        counted
    })
}

/// Counts the threads of a child of this test, which delivers records of as many events as there
/// are topics. The program has only one event as yet.
struct Child(Process);

impl Child {
    fn start(brokers: &str, topics: &[String]) -> Self {
        let test = "threads::their_number_is_bounded_for_one_topic_and_for_six";
        let program = std::env::current_exe().expect("it runs");
        let mut command = std::process::Command::new(program);
        command
            .args(["--exact", test, "--nocapture"])
            .env(CHILD_BROKERS, brokers)
            .env(CHILD_TOPICS, topics.join(","));
        Self(Process::start(command))
    }

    /// The threads that delivery has added to those of the child.
    fn count(self) -> Counted {
        let ended = self.0.end_within(2 * PATIENCE);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let threads = |what: &str| {
            let mut lines = ended.stdout.lines();
            let found = lines.find_map(|line| line.strip_prefix(what));
            serde_json::from_str(found.expect("it prints both")).expect("a map")
        };
        Counted {
            settled: threads("settled: "),
            most: threads("most: "),
        }
    }
}

/// [`Child`] runs this.
fn deliver(brokers: &str, topics: &str) {
    let before = threads_of("self");
    let spool_folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let topics: Vec<&str> = topics.split(',').collect();
    let (dead_letter_topic, topics) = topics.split_last().expect("it is the last one");
    let events: Vec<String> = (0..topics.len()).map(|at| format!("event {at}")).collect();
    let start = |brokers: &str| {
        let pairs = events
            .iter()
            .map(String::as_str)
            .zip(topics.iter().copied());
        let settings = KafkaSettings {
            brokers: brokers.to_owned(),
            properties: Properties::default(),
            routes: Routes::new(pairs, dead_letter_topic),
            create_topics: None,
            schema_ids: None,
        };
        let spool = open_spool(spool_folder.path());
        Delivery::start(&settings, Some(spool), &Arc::new(Metrics::new())).expect("it starts")
    };
    let runtime = current_thread();

    let delivery = start(NOWHERE);
    let mut tickets = Vec::new();
    for event in &events {
        for _ in 0..RUN {
            let ticket = delivery.enqueue(record(Some(event), "one"));
            tickets.push(ticket.expect("there is space"));
        }
    }
    for ticket in tickets {
        let settled = runtime.block_on(ticket.wait());
        let is_spooled = matches!(settled, Settled::Durable(Durability::Spooled, _));
        assert!(is_spooled, "{settled:?}");
    }
    delivery.stop();
    drop(delivery);

    let delivery = start(brokers);
    // Without it, no row may be part of a run, and the producer of runs is not created.
    delivery.set_producer_expiration(Duration::from_secs(86_400));
    let counted = count("self", |number| {
        for event in events.iter().map(Some).chain([None]) {
            let record = record(event, &(number % GROUPS).to_string());
            delivery.enqueue(record).expect("there is space");
        }
        thread::sleep(Duration::from_millis(10));
    });
    delivery.stop();
    let added = |threads: Threads| -> Threads {
        let added = threads.into_iter().map(|(name, count)| {
            let count = count - before.get(&name).copied().unwrap_or_default();
            (name, count)
        });
        added.filter(|(_, count)| *count > 0).collect()
    };
    // The name of the test is on a line of its own, or these would follow it.
    for (what, threads) in [("settled", counted.settled), ("most", counted.most)] {
        let threads = serde_json::to_string(&added(threads)).expect("a map of numbers");
        println!("\n{what}: {threads}");
    }
}

/// The present, in milliseconds since 1970-01-01 UTC. Older rows are not part of a run.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis();
    i64::try_from(now).expect("before the year 292,000,000")
}

/// A record of this event, or a dead letter.
fn record(event: Option<&String>, group: &str) -> Record {
    let now = now();
    Record {
        event: event.map(|event| event.clone().into()),
        event_id: Uuid::from_u128(rand::random()),
        key: Some(Bytes::from(group.to_owned())),
        timestamp: now,
        headers: Vec::new(),
        value: vec![0; 100].into(),
        counted: None,
        times: Times {
            callback: now,
            received: now,
        },
    }
}

#[test]
fn their_number_is_bounded_for_one_topic_and_for_six() {
    let given = [CHILD_BROKERS, CHILD_TOPICS].map(std::env::var);
    if let [Ok(brokers), Ok(topics)] = given {
        deliver(&brokers, &topics);
        return;
    }
    let _load = current_thread().block_on(light_load());
    let Some(cluster) = Cluster::exclusive(3) else {
        return;
    };
    for broker in 1..=3 {
        cluster.proxy(broker).delay(ONE_WAY);
    }
    let brokers = format!("localhost:{}", cluster.proxy(1).address().port());
    let topics: Vec<String> = (0..7).map(|_| cluster.unique_topic("threads")).collect();
    for topic in &topics {
        cluster.create_topic(topic, 6, &[]);
    }
    let child = |topics: &[String]| Child::start(&brokers, topics).count();
    let one = child(&topics[5..]);
    let six = child(&topics);
    let program = count_program(&brokers, &topics[5], &topics[6]);
    for (of, Counted { settled, most }) in [
        ("one topic", &one),
        ("six topics", &six),
        ("program", &program),
    ] {
        println!(
            "{of}: {} {settled:?}, at most {} {most:?}",
            sum(settled),
            sum(most)
        );
    }

    assert_eq!(one.settled, six.settled);
    // The program has these of its own.
    let mut delivery = program.settled.clone();
    delivery.retain(|name, _| !["zim2kafka", "log", "worker"].contains(&name.as_str()));
    assert_eq!(delivery, one.settled);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let further_workers = cores.div_ceil(2) - 1;
    for of in [&program, &six] {
        assert!(
            sum(&of.most) <= MAX_THREADS + further_workers,
            "{:?}",
            of.most
        );
    }
}

fn current_thread() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("it needs no thread")
}
