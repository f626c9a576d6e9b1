//! The cost of each stage of a callback alone, on one otherwise idle thread.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit};
use zim2kafka::delivery::Delivery;
use zim2kafka::event::{self, EVENTS, GROUP_JOIN, Label, Omit, Policy, Record, Routes};
use zim2kafka::intake::{Intake, IntakeSettings};
use zim2kafka::kafka::{EmbeddedKafka, KafkaSettings, Properties};
use zim2kafka::metrics::{Metrics, Outcome};

use super::load::{APPID, Load, SECRET};

/// Its name and its function.
type Stage<'a> = (&'a str, &'a dyn Fn(&RawCallback));

const CALLBACKS: u64 = 20_000;
const ROUNDS: usize = 9;

/// The stages in a callback's order, each together with all those before it.
pub(crate) fn measure(load: &Load) {
    let secrets = || Secrets::parse_list(&format!("{APPID}={SECRET}")).expect("valid");
    let known = secrets();
    let kafka = EmbeddedKafka::start(&["joined", "dead"], 12).expect("it starts");
    let settings = KafkaSettings {
        brokers: kafka.brokers().to_owned(),
        properties: Properties::default(),
        routes: Routes::new([(GROUP_JOIN, "joined")], "dead"),
        create_topics: None,
        schema_ids: None,
    };
    let metrics = Arc::new(Metrics::new());
    let delivery = Delivery::start(&settings, None, &metrics).expect("it starts");
    let delivery = Arc::new(delivery);
    let settings = IntakeSettings {
        secrets: secrets(),
        timestamp_unit: TimestampUnit::Auto,
        timestamp_tolerance: Some(Duration::from_secs(600)),
        omit: Omit::default(),
    };
    let intake = Intake::new(settings, Arc::clone(&delivery), Arc::clone(&metrics));

    let run = rand::random::<u32>();
    let mut next = 0;
    let mut bodies = || -> Vec<RawCallback> {
        (0..CALLBACKS)
            .map(|_| {
                next += 1;
                let body = load.body(run, next);
                RawCallback {
                    body: Bytes::from(body),
                    content_type: Some(Bytes::from_static(b"application/json")),
                    trace: None,
                    received_at: now(),
                }
            })
            .collect()
    };
    let decoded = |raw: &RawCallback| {
        black_box(raw.json().expect("JSON").decode().expect("a callback"));
    };
    let authenticated = |raw: &RawCallback| {
        let json = raw.json().expect("JSON");
        let callback = json.decode().expect("a callback");
        black_box(known.authenticate(callback, TimestampUnit::Auto)).expect("authentic");
    };
    let made = |raw: &RawCallback| {
        black_box(record(&known, raw));
    };
    let accepted = |raw: &RawCallback| {
        let authentic = intake.accept(raw).expect("it is authentic");
        black_box(authentic.result.expect("there is room"));
    };
    let counted = |raw: &RawCallback| {
        let mut arrival = metrics.callback_arrived();
        arrival.set_event(Label::of(EVENTS[0]));
        accepted(raw);
        arrival.finished(Outcome::Published);
    };
    let stages: [Stage; 5] = [
        ("decode", &decoded),
        ("authenticate", &authenticated),
        ("read the event, make the record", &made),
        ("deduplicate, number, enqueue", &accepted),
        ("metrics", &counted),
    ];
    let mut times = vec![Vec::new(); stages.len()];
    for _ in 0..ROUNDS {
        for ((_, stage), times) in stages.iter().zip(&mut times) {
            let bodies = bodies();
            let began = Instant::now();
            bodies.iter().for_each(stage);
            times.push(began.elapsed().as_secs_f64() * 1e6 / CALLBACKS as f64);
            delivery.finish();
            while !delivery.is_at_rest() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    println!("| stage | µs | with all before it |\n| --- | ---: | ---: |");
    let mut before = 0.0;
    for ((name, _), mut times) in stages.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!("| {name} | {:.2} | {median:.2} |", median - before);
        before = median;
    }
    assert!(
        metrics
            .text()
            .contains("zim2kafka_dead_letters_total{reason=\"stale\"} 0"),
        "stale dead letters were measured instead of events"
    );
    delivery.stop();
}

/// The record that the service makes of a callback.
pub(crate) fn record(secrets: &Secrets, raw: &RawCallback) -> Record {
    let json = raw.json().expect("JSON");
    let callback = json.decode().expect("a callback");
    let callback = secrets.authenticate(callback, TimestampUnit::Auto);
    let callback = callback.expect("authentic");
    let kind = event::kind_of(&callback).expect("an event");
    kind.record(&callback, &Policy::default())
        .expect("a record")
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock that was set").as_millis();
    i64::try_from(now).expect("before the year 292,000,000")
}
