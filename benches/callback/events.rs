//! The cost of a callback of each event, and how messages slow down the events of groups.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, sign};
use zim2kafka::event::{self, EVENTS, Kind};

use super::load::{APPID, Content, Load, Outcome, Pace, SECRET};
use super::stages::record;
use super::subjects::{Subject, spool_in};
use super::support::kafka::{Cluster, Jvm};

const CALLBACKS: usize = 20_000;
const ROUNDS: usize = 9;

/// Callbacks per second.
const GROUP_RATE: f64 = 100.0;
pub(crate) const MESSAGE_RATE: f64 = 5_000.0;

/// The most times that messages may make the p99 of the events of groups longer.
const MAX_RATIO: f64 = 2.0;

/// Prints what each event costs: from bytes to an authentic callback, and from that to a record.
pub(crate) fn costs() {
    let secrets = Secrets::parse_list(&format!("{APPID}={SECRET}")).expect("valid");
    let mut rows: Vec<(&Kind, Vec<[f64; 2]>)> =
        EVENTS.iter().map(|kind| (*kind, Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (kind, times) in &mut rows {
            times.push(cost(&secrets, &body_of(kind)));
        }
    }
    let medians = rows.iter().map(|(kind, times)| {
        let median = |at: usize| {
            let mut times: Vec<f64> = times.iter().map(|times| times[at]).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        (*kind, [median(0), median(1)])
    });
    let medians: Vec<_> = medians.collect();
    let join = medians
        .iter()
        .find(|(kind, _)| kind.name == event::GROUP_JOIN);
    let (_, join) = join.expect("it is an event");
    println!(
        "| event | body, bytes | record, bytes | authenticate, µs | make the record, µs | both, µs | of `group_join` |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (kind, [authenticated, both]) in &medians {
        let body = body_of(kind);
        println!(
            "| `{}` | {} | {} | {authenticated:.2} | {:.2} | {both:.2} | {:.2} |",
            kind.name,
            body.body.len(),
            record(&secrets, &body).size(),
            both - authenticated,
            both / join[1]
        );
    }
}

/// The times of a callback until it is authentic, and until it is a record, in µs.
fn cost(secrets: &Secrets, body: &RawCallback) -> [f64; 2] {
    let authenticated = |raw: &RawCallback| {
        let json = raw.json().expect("JSON");
        let callback = json.decode().expect("a callback");
        black_box(secrets.authenticate(callback, TimestampUnit::Auto)).expect("authentic");
    };
    let made = |raw: &RawCallback| {
        black_box(record(secrets, raw));
    };
    let stages: [&dyn Fn(&RawCallback); 2] = [&authenticated, &made];
    stages.map(|stage| {
        let began = Instant::now();
        (0..CALLBACKS).for_each(|_| stage(black_box(body)));
        began.elapsed().as_secs_f64() * 1e6 / CALLBACKS as f64
    })
}

/// The first example of an event, signed.
fn body_of(kind: &Kind) -> RawCallback {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock that was set").as_millis();
    let signature = sign(SECRET, &now.to_string(), "350176").to_hex();
    let example = kind.examples[0].strip_prefix('{').expect("an object");
    let body = format!(
        r#"{{"appid":"{APPID}","timestamp":"{now}","nonce":"350176","signature":"{signature}",{example}"#
    );
    RawCallback {
        body: Bytes::from(body),
        content_type: Some(Bytes::from_static(b"application/json")),
        trace: None,
        received_at: i64::try_from(now).expect("before the year 292,000,000"),
    }
}

/// Measures the events of groups on a real Kafka: alone, then beside messages that another instance
/// takes, which shows what the machine and Kafka alone make of it, then beside messages of their own
/// instance. Panics if these make them slower than they may, or a callback is refused.
pub(crate) fn messages(load: &Load, minutes: u64, rate: f64) {
    let duration = Duration::from_secs(60 * minutes);
    let kafka = Cluster::try_start(1, Jvm::Server).unwrap_or_else(|error| panic!("{error}"));
    let topics = ["group", "message", "dead"].map(|purpose| kafka.unique_topic(purpose));
    for topic in &topics {
        kafka.create_topic(topic, load.partitions, &[]);
    }
    let [group, message, dead] = &topics;
    let routes = format!("group_join={group},message={message}");
    let folders =
        [(); 2].map(|()| tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"));
    let [subject, other] = folders.each_ref().map(|folder| {
        let mut variables = vec![
            ("ZIM2KAFKA_TOPICS", routes.as_str()),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", dead.as_str()),
        ];
        variables.extend(spool_in(folder.path()));
        Subject::service(kafka.brokers(), &variables)
    });
    let target = subject.target().expect("it takes callbacks");
    let other_target = other.target().expect("it takes callbacks");
    let groups = Load {
        connections: 16,
        ..*load
    };
    let messages = Load {
        content: Content::Message,
        ..*load
    };
    // Java compiles its hot paths.
    messages
        .connect(target)
        .run(Pace::Saturation, Duration::from_secs(40));
    let mut joins = groups.connect(target);
    let shorter = duration.min(Duration::from_secs(120));
    let alone = joins.run_open(GROUP_RATE, shorter);
    let mut beside = |target, duration| {
        let messages = thread::spawn(move || messages.connect(target).run_open(rate, duration));
        let joins = joins.run_open(GROUP_RATE, duration);
        (joins, messages.join().expect("no panic"))
    };
    let (apart, sent_apart) = beside(other_target, shorter);
    drop(other);
    let (together, sent) = beside(target, duration);
    println!(
        "| load | callbacks/s | p50 / p99 / p99.9, ms | spooled | 503 | other than 2xx |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    print("events of groups alone", &alone);
    print("beside messages of another instance", &apart);
    print("these messages", &sent_apart);
    print("beside messages of the same instance", &together);
    print("these messages", &sent);
    let p99 = |outcome: &Outcome| outcome.percentiles()[1];
    let ratio = p99(&together) / p99(&alone);
    println!(
        "\np99 of the events of groups, beside messages to alone: {ratio:.2}; to beside those of another instance: {:.2}",
        p99(&together) / p99(&apart)
    );
    println!(
        "signatures used again: {}",
        subject.metric("zim2kafka_reused_signatures_total ")
    );
    let refused = [&alone, &apart, &sent_apart, &together, &sent].map(|outcome| outcome.not_2xx);
    assert_eq!(refused, [0; 5], "callbacks were refused");
    assert!(
        ratio <= MAX_RATIO,
        "messages slow down the events of groups"
    );
}

fn print(name: &str, outcome: &Outcome) {
    let [p50, p99, p999] = outcome.percentiles();
    println!(
        "| {name} | {:.0} | {p50:.2} / {p99:.2} / {p999:.2} | {} | {} | {} |",
        outcome.per_second(),
        outcome.answers.spooled,
        outcome.answers.unavailable,
        outcome.not_2xx
    );
}
