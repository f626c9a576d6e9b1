//! Brokers that have forgotten a producer, or never knew it.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaRespErr as E;

use super::{LATE, load, not_enough_replicas, record, run_on};
use crate::faults::{Run, blocking, load_for};
use crate::support::kafka::Cluster;
use crate::support::proxy::Fault;
use crate::support::scale::{light_load, size};

/// Takes 15 seconds, most of them for what it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_kafka_has_forgotten_is_not_overtaken() {
    const EXPIRATION: &str = "producer.id.expiration.ms";
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let _load = light_load().await;
    let mut run = run_on(&cluster, &cluster.proxied());
    let proxy = cluster.proxy(1);
    let other = Other::start(&cluster);
    blocking(|| {
        cluster.change_setting(EXPIRATION, "10000");
        run.start();
        run.service().ready();
    });
    let sender = load(&run);
    load_for(Duration::from_secs(1)).await;
    blocking(|| other.send());
    let mut injections = Vec::new();
    for _ in 0..size(1, 5) {
        sender.pause();
        blocking(|| run.wait_until_drained());
        // As long as Kafka remembers, and a second or two until it looks again.
        load_for(Duration::from_millis(12_500)).await;
        let injection = proxy.inject(not_enough_replicas().of(&run.topics[0], None));
        sender.resume();
        let of_other = proxy.inject(not_enough_replicas().of(&other.topic, None));
        blocking(|| {
            other.send();
            run.wait_for("a first request meets the fault", |_| {
                injection.injected() > 0
            });
        });
        assert!(of_other.overtaken() > 0, "Kafka has not forgotten");
        load_for(Duration::from_secs(1)).await;
        proxy.pass();
        injections.push(injection);
    }
    let report = run.judge(&cluster, sender).await;
    let a_day = "86400000";
    blocking(|| cluster.change_setting(EXPIRATION, a_day));
    record(&run, "first after Kafka forgot", &injections, &report);
}

/// A producer with no guard, to see whether Kafka still knows it.
struct Other {
    topic: String,
    producer: BaseProducer,
}

impl Other {
    fn start(cluster: &Cluster) -> Self {
        let topic = cluster.unique_topic("other");
        cluster.create_topic(&topic, 1, &[]);
        let mut client = cluster.client();
        client
            .set("bootstrap.servers", cluster.proxied())
            .set("enable.idempotence", "true")
            .set("batch.num.messages", "1");
        let producer = client.create().expect("the settings are sound");
        Self { topic, producer }
    }

    /// Three requests, one behind the other.
    fn send(&self) {
        for key in ["1", "2", "3"] {
            let record = BaseRecord::to(&self.topic).key(key).payload("value");
            self.producer.send(record).expect("the queue has room");
        }
        (self.producer.flush(Duration::from_secs(30))).expect("Kafka answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_again_at_once_is_not_overtaken() {
    made_again(Duration::ZERO, "first to a topic made again at once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_again_later_is_not_overtaken() {
    made_again(Duration::from_secs(2), "first to a topic made again later").await;
}

async fn made_again(gone: Duration, name: &str) {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let proxy = cluster.proxy(1);
    let mut run = run_on(&cluster, &cluster.proxied());
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = load(&run);
    let (mut earlier, mut injections) = (None, Vec::new());
    let is_up = |run: &Run| run.metric("zim2kafka_kafka_up") == 1.0;
    for _ in 0..size(1, 10) {
        load_for(Duration::from_secs(1)).await;
        blocking(|| {
            // What is in them goes with them, so it is taken while nothing more can arrive.
            proxy.refuse();
            run.wait_for("the line is cut", |run| !is_up(run));
            let taken = run.take(&cluster);
            earlier = Some(match earlier.take() {
                Some(earlier) => taken.behind(earlier),
                None => taken,
            });
            run.topics
                .iter()
                .for_each(|topic| cluster.delete_topic(topic));
        });
        if !gone.is_zero() {
            proxy.carry();
            blocking(|| run.wait_for("Kafka is there", is_up));
            load_for(gone).await;
        }
        let injection = proxy.inject(not_enough_replicas());
        blocking(|| {
            for topic in &run.topics {
                cluster.create_topic(topic, 1, &[]);
            }
            proxy.carry();
            run.wait_for("a first request meets the fault", |_| {
                injection.injected() > 0
            });
        });
        load_for(Duration::from_secs(1)).await;
        proxy.pass();
        injections.push(injection);
    }
    let log = sender.stop().await;
    blocking(|| run.wait_until_drained());
    let earlier = earlier.expect("it was deleted");
    let contents = blocking(|| run.take(&cluster).behind(earlier).judge(&log));
    let report = run.judge_these(&log, &contents);
    record(&run, name, &injections, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_move_let_nothing_be_overtaken() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(3)) else {
        return;
    };
    let mut run = run_on(&cluster, &cluster.proxied());
    let fault = Fault::Refuse(E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    let mut injections = Vec::new();
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = load(&run);
    for _ in 0..size(2, 20) {
        // Each new leader sees each producer for the first time.
        let first = || fault.first_of_each_producer().after(LATE);
        injections.extend((1..=3).map(|broker| cluster.proxy(broker).inject(first())));
        blocking(|| {
            run.topics
                .iter()
                .for_each(|topic| cluster.move_leaders(topic))
        });
        load_for(Duration::from_millis(500)).await;
        injections.iter().for_each(|injection| injection.end());
    }
    let report = run.judge(&cluster, sender).await;
    record(
        &run,
        "not the leader, leaders that move",
        &injections,
        &report,
    );
}
