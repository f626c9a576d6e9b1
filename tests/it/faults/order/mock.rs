//! A broker that knows nothing of sequences: it takes whatever follows a refused request.

use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as E};

use super::{load, record_times, spooling};
use crate::faults::{Run, blocking, load_for, producer};
use crate::support::kafka::{Kafka, publish};
use crate::support::scale::{light_load, size};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_refused_by_a_broker_without_sequences_is_not_overtaken() {
    /// One is refused, and as many as can be under way with it are taken.
    const PATTERN: usize = 5;
    let times = size(40, 100);
    let _load = light_load().await;
    for (name, error) in [
        (
            "not enough replicas, mock",
            E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ),
        (
            "not the leader, mock",
            E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        ),
        ("timed out, mock", E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT),
    ] {
        let cluster = producer::cluster();
        cluster
            .create_topic("probe", 1, 3)
            .expect("it can be created");
        for broker in 1..=3 {
            (cluster.broker_round_trip_time(broker, Duration::from_millis(20)))
                .expect("there is one");
        }
        let mut pattern = [E::RD_KAFKA_RESP_ERR_NO_ERROR; PATTERN];
        pattern[0] = error;
        cluster.request_errors(RDKafkaApiKey::Produce, &pattern.repeat(times));
        let kafka = Kafka::at(&cluster.bootstrap_servers());
        let mut run = spooling(Run::on(kafka.brokers(), producer::topics()));
        blocking(|| run.start());
        let sender = load(&run);
        // The mock counts nothing. But each error is given once. Those that the test's own requests
        // do not get were given to the service.
        let mut probe = kafka.client();
        probe.set("message.send.max.retries", "0");
        let (mut injected, began) = (times, Instant::now());
        loop {
            load_for(Duration::from_secs(1)).await;
            let refused = blocking(|| {
                let probes = (0..PATTERN).map(|_| publish(&probe, "probe", "key"));
                probes.filter(Result::is_err).count()
            });
            injected -= refused;
            if refused == 0 {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "errors are left"
            );
        }
        let report = run.judge(&kafka, sender).await;
        assert!(injected > times / 2, "{injected}");
        record_times(&run, name, injected, &report);
    }
}
