//! Structured-random bodies over real HTTP: nothing panics, nothing fails, and nothing without a
//! valid signature is answered 2xx.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rdkafka::mocking::MockCluster;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::app::callback;
use crate::support::bytes::{files, mutated};
use crate::support::process::Service;
use crate::support::scale::{alone, size};
use crate::support::wire::Wire;

/// More than this a run does not cost.
const MEMORY: f64 = 20e6;

/// The run is the same each time.
const SEED: u64 = 4;

/// What bodies are made of: every quirk of the sender that we know, and what stands in events.
fn seeds() -> Vec<Vec<u8>> {
    let folders = ["tests/fixtures/callbacks", "fuzz/corpus/event"];
    let all = folders.into_iter().flat_map(files);
    let seeds: Vec<_> = all.map(|(_, content)| content).collect();
    assert!(seeds.len() > 20);
    seeds
}

/// A body, and whether it carries a signature that is valid: then any answer but a 5xx will do.
fn body(seeds: &[Vec<u8>], random: &mut StdRng) -> (Vec<u8>, bool) {
    if random.random_ratio(1, 20) {
        // Signed, with members that are anything.
        let values = [
            json!(null),
            json!([]),
            json!({}),
            json!("x"),
            json!(7),
            json!(["a", 1]),
        ];
        let mut fields = json!({"appid": "7", "nonce": random.random::<u64>().to_string()});
        for name in [
            "group_id",
            "join_type",
            "new_user_ids",
            "event",
            "operator_account",
        ] {
            if random.random_bool(0.3) {
                fields[name] = values.choose(random).expect("there are some").clone();
            }
        }
        return (callback(fields), true);
    }
    let mut body = seeds.choose(random).expect("there are some").clone();
    for _ in 0..random.random_range(1..6) {
        body = mutated(body, seeds, random);
    }
    (body, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bodies_cause_no_failure_and_no_unsigned_2xx() {
    let count: u64 = size(20_000, 1_000_000);
    // Outside of the service, whose memory is measured.
    let kafka = MockCluster::new(1).expect("it starts");
    for topic in ["joined", "dead"] {
        kafka.create_topic(topic, 12, 1).expect("it can be created");
    }
    let brokers = kafka.bootstrap_servers();
    let variables = [
        ("ZIM2KAFKA_KAFKA_BROKERS", brokers.as_str()),
        ("ZIM2KAFKA_TOPIC", "joined"),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", "dead"),
        // The fixtures are of application 1, for which there is none.
        ("ZIM2KAFKA_CALLBACK_SECRETS", "7=secret"),
        ("ZIM2KAFKA_TIMESTAMP_TOLERANCE", "off"),
        ("ZIM2KAFKA_DRAIN_DELAY", "0s"),
    ];
    let service = Service::start(&[], &variables);
    // The mock cluster does not answer all that is asked of it, so this takes 20 seconds.
    service.ready();
    let _alone = alone().await;
    let seeds = Arc::new(seeds());
    let run = async |from: u64, to: u64| {
        let (tasks, next) = (16, Arc::new(AtomicU64::new(from)));
        let mut workers = JoinSet::new();
        for _ in 0..tasks {
            let (next, seeds, address) = (Arc::clone(&next), Arc::clone(&seeds), service.callbacks);
            workers.spawn(async move {
                let mut statuses = BTreeMap::new();
                let mut wire = Wire::at(address).await;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= to {
                        return statuses;
                    }
                    let mut random = StdRng::seed_from_u64(SEED << 32 | number);
                    let (body, is_signed) = body(&seeds, &mut random);
                    let answer = wire.post(&body).await;
                    let status = answer.status.as_u16();
                    let shown = String::from_utf8_lossy(&body);
                    assert!(status < 500, "{number}: {answer:?} to {shown}");
                    assert!(
                        is_signed || status >= 400,
                        "{number}: {answer:?} to {shown}"
                    );
                    *statuses.entry(status).or_insert(0_u64) += 1;
                }
            });
        }
        let mut all = BTreeMap::new();
        for (status, times) in workers.join_all().await.into_iter().flatten() {
            *all.entry(status).or_insert(0) += times;
        }
        all
    };
    // What the first callbacks take is no growth.
    run(0, count / 10).await;
    let memory = || service.metric("process_resident_memory_bytes");
    let before = memory();
    let statuses = run(count / 10, count).await;
    let grown = memory() - before;
    println!("{statuses:?}, and {grown} bytes of memory");
    for status in [200, 400, 401] {
        assert!(
            statuses
                .get(&status)
                .is_some_and(|times| *times > count / 100),
            "{statuses:?}"
        );
    }
    assert!(grown < MEMORY, "{grown} bytes");
    assert_eq!(
        service.metric("zim2kafka_callbacks_total{outcome=\"failed\"}"),
        0.0
    );
    assert!(service.admin("/readyz").starts_with("HTTP/1.1 200"));
}
