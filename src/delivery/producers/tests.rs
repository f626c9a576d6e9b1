use std::sync::atomic::AtomicUsize;

use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as E};

use super::super::lanes::Lanes;
use super::super::queue::{MAX_VOLATILE_RECORDS, Queue, Sequence};
use super::super::ticket::{Durability, Settled, Ticket};
use super::super::wakeup::Wakeups;
use super::*;
use crate::event::{Record, Routes, Times};
use crate::kafka::{BrokerStatus, KafkaSettings, Properties};
use crate::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(60);
const SHARD: Via = Via::Shard(0);

/// A broker with the topics "good", "bad" and "dead".
fn broker() -> MockCluster<'static, impl ClientContext> {
    let cluster = MockCluster::new(1).expect("it starts");
    // From version 10 on, the mock's response names the leader, and the mock crashes if a partition
    // has none.
    let (least, most) = (Some(0), Some(9));
    (cluster.apiversion(RDKafkaApiKey::Produce, least, most)).expect("it knows the request");
    for topic in ["good", "bad", "dead"] {
        cluster.create_topic(topic, 1, 1).expect("it is created");
    }
    cluster
}

/// Producers for its topics, and their lanes.
fn producers(brokers: String, properties: &str) -> (Producers, Arc<Lanes>) {
    let settings = KafkaSettings {
        brokers,
        properties: Properties::parse_list(properties).expect("they are sound"),
        routes: Routes::new([("good", "good"), ("bad", "bad")], "dead"),
        create_topics: None,
        schema_ids: None,
    };
    let sequence = Arc::new(Sequence::from(1));
    let (metrics, status) = (Arc::new(Metrics::new()), Arc::new(BrokerStatus::new(None)));
    let wakeups = Arc::new(Wakeups::default());
    let queue = |_: usize, dead_letters: Option<Arc<Queue>>| {
        Queue::new(
            MAX_VOLATILE_RECORDS,
            Arc::clone(&sequence),
            Arc::clone(&metrics),
            Arc::clone(&status),
            Arc::clone(&wakeups),
            dead_letters,
        )
    };
    let lanes = Arc::new(Lanes::new(&settings.routes, queue));
    let producers = Producers::new(Shared {
        settings,
        lanes: Arc::clone(&lanes),
        status,
        metrics,
        wakeups,
        has_spool: false,
        batch_bytes: AtomicUsize::new(usize::MAX),
    });
    (producers.expect("the settings are sound"), lanes)
}

fn record() -> Record {
    Record {
        event: Some("bad".into()),
        event_id: uuid::Uuid::nil(),
        key: Some("group".into()),
        timestamp: 1_757_577_600_000,
        headers: Vec::new(),
        value: "value".into(),
        counted: None,
        times: Times {
            callback: 1_757_577_600_000,
            received: 1_757_577_600_000,
        },
    }
}

/// Polls until the condition holds, and requires that the topic "good" has a producer all the time.
fn poll_until(producers: &mut Producers, mut condition: impl FnMut(&mut Producers) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(producers) {
        let now = Instant::now();
        assert!(now < deadline, "it takes too long");
        producers.poll(now);
        assert!(producers.route("good", SHARD, now).is_some());
        thread::yield_now();
    }
}

/// Hands over what waits in the lane, to this producer or that of its shard.
fn send(producers: &mut Producers, lane: &Lane, to: Option<ProducerId>) {
    let now = Instant::now();
    let route = |via| to.or_else(|| producers.route(&lane.topic, via, now));
    let batch = lane.queue.hand_over(now, Pacing::NONE, route);
    producers.send(lane, batch, now);
}

fn is_published(ticket: &Arc<Ticket>) -> bool {
    let published = Settled::Durable(Durability::Published, record().event_id);
    ticket.get() == Some(&published)
}

#[test]
fn the_partitions_of_all_topics_are_known_before_a_record_comes() {
    let cluster = MockCluster::new(1).expect("it starts");
    for (topic, partitions) in [("good", 3), ("bad", 2), ("dead", 4)] {
        (cluster.create_topic(topic, partitions, 1)).expect("it is created");
    }
    let (mut producers, lanes) = producers(cluster.bootstrap_servers(), "");
    let partitions = || lanes.queues().map(|queue| queue.partitions());
    poll_until(&mut producers, |_| partitions().eq([3, 2, 4]));
    producers.stop();
}

#[test]
fn only_the_topic_that_rejects_large_batches_waits_for_a_producer_with_smaller_ones() {
    let cluster = broker();
    let too_large = E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    // Two records that are handed over together are one batch.
    let (mut producers, lanes) = producers(cluster.bootstrap_servers(), "linger.ms=200");
    let [_, bad] = lanes.events() else {
        panic!("there are two");
    };
    let route = |producers: &mut Producers| producers.route("bad", SHARD, Instant::now());

    poll_until(&mut producers, |producers| producers.shared.status.is_up());
    let no_connection = [E::RD_KAFKA_RESP_ERR__TRANSPORT; 1000];
    cluster.request_errors(RDKafkaApiKey::ApiVersion, &no_connection);
    let tickets = [(); 2].map(|()| bad.queue.enqueue(record()).expect("there is space"));
    let first = route(&mut producers);
    assert!(first.is_some());
    send(&mut producers, bad, None);
    poll_until(&mut producers, |producers| route(producers).is_none());

    // Its successor does not connect, so it goes on for the other topics.
    let is_being_created = |producers: &Producers| producers.all[MAIN].is_being_created;
    poll_until(&mut producers, |producers| is_being_created(producers));
    poll_until(&mut producers, |producers| !is_being_created(producers));
    assert_eq!(producers.route("good", SHARD, Instant::now()), first);
    assert_eq!(route(&mut producers), None);

    cluster.clear_request_errors(RDKafkaApiKey::ApiVersion);
    poll_until(&mut producers, |producers| route(producers).is_some());
    assert_ne!(route(&mut producers), first);
    send(&mut producers, bad, None);
    poll_until(&mut producers, |producers| {
        producers.retired.is_empty() && tickets.iter().all(is_published)
    });
    producers.stop();
}

#[test]
fn the_rows_of_a_run_are_never_with_two_producers() {
    let cluster = broker();
    let (mut producers, lanes) = producers(cluster.bootstrap_servers(), "");
    let [good, bad] = lanes.events() else {
        panic!("there are two");
    };
    let route = |producers: &mut Producers, via| producers.route("bad", via, Instant::now());
    let has_new = |producers: &mut Producers, via, old: Option<ProducerId>| {
        route(producers, via).is_some_and(|new| Some(new) != old)
    };
    poll_until(&mut producers, |producers| {
        has_new(producers, Via::Run, None) && has_new(producers, Via::Side, None)
    });
    let [run, side] = [Via::Run, Via::Side].map(|via| route(&mut producers, via));

    // It keeps a row while the others are replaced, because Kafka is far away now.
    (cluster.partition_leader("bad", 0, None)).expect("there is the partition");
    let row = bad.queue.enqueue(record()).expect("there is space");
    send(&mut producers, bad, run);
    (cluster.broker_round_trip_time(1, Duration::from_millis(50))).expect("there is the broker");
    let mut measurement = None;
    poll_until(&mut producers, |producers| {
        if measurement.as_ref().is_none_or(is_published) {
            measurement = Some(good.queue.enqueue(record()).expect("there is space"));
            send(producers, good, None);
        }
        has_new(producers, Via::Side, side)
    });
    assert_eq!(route(&mut producers, Via::Run), run);

    (cluster.partition_leader("bad", 0, Some(1))).expect("there is the partition");
    poll_until(&mut producers, |producers| {
        is_published(&row) && has_new(producers, Via::Run, run)
    });
    producers.stop();
}
