//! The errors and the silence with which a broker may answer a request.

use std::time::Duration;

use rdkafka::types::RDKafkaRespErr as E;

use super::{LATE, load, record, record_times, run_on, start_again};
use crate::faults::{blocking, load_for};
use crate::support::kafka::{Cluster, shared_cluster};
use crate::support::proxy::Fault;
use crate::support::scale::{light_load, size};

/// Restarts the service again and again, so that its producers are new to every partition, and lets
/// requests meet the fault: the first of each producer, then single ones.
async fn meets(cluster: &Cluster, name: &str, fault: Fault) {
    let proxy = cluster.proxy(1);
    let mut run = run_on(cluster, &cluster.proxied());
    let mut sender = None;
    let (mut first, mut single) = (Vec::new(), Vec::new());
    for time in 0..size(3, 20) {
        // A Kafka that is far has more producers than a near one.
        if time % 2 == 1 {
            proxy.delay(Duration::from_millis(5));
        }
        let injection = proxy.inject(fault.first_of_each_producer().after(LATE));
        start_again(&mut run, &mut sender);
        blocking(|| {
            run.wait_for("a first request meets the fault", |_| {
                injection.injected() > 0
            });
        });
        load_for(Duration::from_millis(400)).await;
        injection.end();
        first.push(injection);
        for _ in 0..3 {
            let injection = proxy.inject(fault.next(1).after(LATE));
            blocking(|| {
                run.wait_for("a request meets the fault", |_| injection.injected() > 0);
            });
            injection.end();
            single.push(injection);
        }
        proxy.pass();
    }
    let report = run.judge(cluster, sender.expect("it is started")).await;
    record(&run, name, &[first, single].concat(), &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_refused_before_the_append_is_not_overtaken() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    for (name, error) in [
        (
            "not enough replicas",
            E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ),
        (
            "rights missing",
            E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        ),
        (
            "not the leader",
            E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        ),
        ("storage error", E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR),
        (
            "timed out before the append",
            E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ),
        (
            "invalid producer epoch",
            E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        ),
        (
            "unknown producer id",
            E::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        ),
    ] {
        meets(&cluster, name, Fault::Refuse(error)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_appended_without_an_answer_that_says_so_is_not_lost_or_overtaken() {
    let _load = light_load().await;
    let Some(cluster) = blocking(|| Cluster::exclusive(1)) else {
        return;
    };
    let after = Fault::RefuseAfterAppend;
    for (name, fault) in [
        (
            "not enough replicas after the append",
            after(E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        ),
        (
            "timed out after the append",
            after(E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT),
        ),
        (
            "not the leader after the append",
            after(E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        ),
        (
            "storage error after the append",
            after(E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR),
        ),
        ("answer lost", Fault::LoseResponse),
        ("answer late", Fault::Delay),
    ] {
        meets(&cluster, name, fault).await;
    }
}

/// Records that fail one by one, many of them of each group: no producer keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn rights_taken_away_and_given_back_invert_nothing() {
    let _load = light_load().await;
    let Some(cluster) = blocking(shared_cluster) else {
        return;
    };
    let sasl = cluster.sasl_ssl();
    let mut run = run_on(cluster, &sasl.brokers);
    let properties = sasl.properties("SCRAM-SHA-512");
    let properties = properties.map(|(key, value)| format!("{key}={value}"));
    run.set("ZIM2KAFKA_KAFKA_PROPERTIES", properties.join("\n"));
    blocking(|| {
        run.start();
        run.service().ready();
    });
    let sender = load(&run);
    let times = size(1, 5);
    for _ in 0..times {
        load_for(Duration::from_secs(1)).await;
        blocking(|| cluster.deny(&run.topics[0], "WRITE"));
        load_for(Duration::from_secs(3)).await;
        blocking(|| {
            cluster.allow_again(&run.topics[0], "WRITE");
            run.wait_until_drained_to(20.0);
        });
    }
    let report = run.judge(cluster, sender).await;
    record_times(&run, "rights taken away", times, &report);
}
