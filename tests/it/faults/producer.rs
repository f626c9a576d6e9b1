//! What a producer can meet, one after the other, from librdkafka's mock cluster: it can be made to
//! answer with any error, and to lose leaders and brokers at once.
//!
//! It keeps the last 5 MiB of a partition, so these runs are small.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as E};

use super::{Run, blocking, load_for};
use crate::support::kafka::Kafka;
use crate::support::proxy::Forwarder;
use crate::support::scale::{is_full, light_load};
use crate::support::start::broker_down;

const PARTITIONS: i32 = 6;

/// Three brokers, and a run on them that is ready.
pub(super) fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
    let cluster = MockCluster::new(3).expect("it starts");
    // From version 10 on, the mock's response names the leader, and the mock crashes if a partition
    // has none.
    let (least, most) = (Some(0), Some(9));
    (cluster.apiversion(RDKafkaApiKey::Produce, least, most)).expect("it knows the request");
    for topic in topics() {
        (cluster.create_topic(&topic, PARTITIONS, 3)).expect("it can be created");
    }
    cluster
}

pub(super) fn topics() -> [String; 2] {
    ["joined", "dead"].map(str::to_owned)
}

/// Sets every partition of the events' leader; none for no leader.
fn lead<C: rdkafka::ClientContext>(cluster: &MockCluster<'_, C>, broker: Option<i32>) {
    for partition in 0..PARTITIONS {
        cluster
            .partition_leader("joined", partition, broker)
            .expect("there is the partition");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_of_a_produce_request_loses_or_inverts_anything() {
    let _load = light_load().await;
    let cluster = cluster();
    let mut run = Run::on(&cluster.bootstrap_servers(), topics());
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(150);
    for (error, times) in [
        // Of the leader: the client is to look for another one.
        (E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 5),
        (E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, 5),
        (E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, 5),
        (E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 5),
        (E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, 5),
        (E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, 5),
        // The line breaks, perhaps after the append.
        (E::RD_KAFKA_RESP_ERR__TRANSPORT, 5),
        // Fatal to an idempotent producer.
        (E::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, 3),
        (E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, 3),
        (E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, 3),
        // Rights that are taken away and given back: an outage.
        (E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 3),
        (E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, 3),
        (E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, 3),
        (E::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, 3),
        // Final. If it is said of a batch, its members are sent alone and taken. Once, since a
        // second one would hit a record that is alone, which then becomes a dead letter. A dead
        // letter that is alone stays in the spool until the next start.
        (E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 1),
        (E::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, 1),
        (E::RD_KAFKA_RESP_ERR_INVALID_RECORD, 1),
        (E::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, 1),
        // None that we know.
        (E::RD_KAFKA_RESP_ERR_UNKNOWN, 3),
        (E::RD_KAFKA_RESP_ERR_INVALID_MSG, 3),
    ] {
        println!("{error:?}");
        // Together, so that a refused batch is one of several.
        blocking(|| run.wait_until_drained_to(20.0));
        cluster.request_errors(RDKafkaApiKey::Produce, &vec![error; times]);
        load_for(Duration::from_millis(500)).await;
        // On a busy machine some could still wait when the next ones are added.
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
    }
    let log = sender.stop().await;
    blocking(|| send_refused_again(&mut run));
    let kafka = Kafka::at(&cluster.bootstrap_servers());
    let contents = blocking(|| run.take(&kafka).judge(&log));
    let report = run.judge_these(&log, &contents);
    assert_eq!(report.answered_5xx, 0, "{report}");
}

/// Starts the service again if the spool holds dead letters that Kafka has rejected, and waits
/// until all of them are published.
fn send_refused_again(run: &mut Run) {
    const REFUSED: &str = "zim2kafka_spool_refused_records";
    run.wait_for("only rejected dead letters are left in the spool", |run| {
        run.metric("zim2kafka_spool_records") == run.metric(REFUSED)
    });
    let refused = run.metric(REFUSED);
    if refused > 0.0 {
        println!("{refused} rejected dead letters are sent again");
        let log = run.stop();
        assert!(log.contains("Kafka rejects dead letter"), "{log}");
        run.start();
        run.service().ready();
    }
    run.wait_until_drained();
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_and_brokers_that_come_and_go_lose_or_invert_nothing() {
    let _load = light_load().await;
    let cluster = cluster();
    let mut run = Run::on(&cluster.bootstrap_servers(), topics());
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(150);
    let moment = Duration::from_millis(700);
    for leader in [1, 2, 3, 1] {
        lead(&cluster, Some(leader));
        load_for(moment).await;
    }
    // One partition without a leader holds the others up only in the end, and all are safe.
    cluster
        .partition_leader("joined", 0, None)
        .expect("there is one");
    load_for(2 * moment).await;
    lead(&cluster, None);
    load_for(2 * moment).await;
    lead(&cluster, Some(2));
    load_for(moment).await;
    for broker in 1..=3 {
        broker_down(&cluster, broker);
    }
    load_for(3 * moment).await;
    for broker in 1..=3 {
        cluster.broker_up(broker).expect("there is one");
    }
    load_for(moment).await;
    // Longer than the broker may take, and shorter than the client waits.
    for broker in 1..=3 {
        cluster
            .broker_round_trip_time(broker, Duration::from_secs(2))
            .expect("there is one");
    }
    load_for(4 * moment).await;
    for broker in 1..=3 {
        cluster
            .broker_round_trip_time(broker, Duration::ZERO)
            .expect("there is one");
    }
    for error in [
        E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    ] {
        cluster.topic_error("joined", error).expect("there is one");
        load_for(2 * moment).await;
        let well = E::RD_KAFKA_RESP_ERR_NO_ERROR;
        cluster.topic_error("joined", well).expect("there is one");
        load_for(moment).await;
    }
    let report = run
        .judge(&Kafka::at(&cluster.bootstrap_servers()), sender)
        .await;
    assert_eq!(report.answered_5xx, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_come_back_under_other_addresses_are_found() {
    let (old, new) = (cluster(), cluster());
    // What a name in DNS, or a balancer, is to real clusters.
    let bootstrap = Forwarder::start(&old.bootstrap_servers());
    let mut run = Run::on(&bootstrap.address(), topics());
    if !is_full() {
        // Our own is a minute.
        let soon = "metadata.recovery.rebootstrap.trigger.ms=3000";
        run.set("ZIM2KAFKA_KAFKA_PROPERTIES", soon);
    }
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = run.load(100);
    load_for(Duration::from_secs(1)).await;
    let (was, is) = (
        Kafka::at(&old.bootstrap_servers()),
        Kafka::at(&new.bootstrap_servers()),
    );
    // Nothing more arrives there, and what has is taken.
    lead(&old, None);
    for partition in 0..PARTITIONS {
        old.partition_leader("dead", partition, None)
            .expect("there is one");
    }
    load_for(Duration::from_secs(1)).await;
    lead(&old, Some(1));
    for partition in 0..PARTITIONS {
        old.partition_leader("dead", partition, Some(1))
            .expect("there is one");
    }
    blocking(|| run.wait_until_drained_to(20.0));
    for broker in 1..=3 {
        broker_down(&old, broker);
    }
    bootstrap.lead_to(&new.bootstrap_servers());
    load_for(Duration::from_secs(1)).await;
    let log = sender.stop().await;
    blocking(|| run.wait_until_drained());
    for broker in 1..=3 {
        old.broker_up(broker).expect("there is one");
    }
    let contents = blocking(|| run.take(&is).behind(run.take(&was)).judge(&log));
    run.judge_these(&log, &contents);
}
