//! The librdkafka properties of producers.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::MAX_MESSAGE_BYTES;

/// The default of `batch.size`. A record that is larger is sent alone, and then it is known which one
/// Kafka rejects because of its size.
pub(super) const BATCH_BYTES: usize = 128 * 1024;

/// How a producer keeps the order of what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// A record may overtake another one of the same partition if Kafka refuses the first and takes
    /// the second. Up to five requests are under way for each broker.
    Relaxed,
    /// Nothing overtakes at a partition that has acknowledged a record of this producer. One request
    /// is under way for each broker, and the producer fails with the first record that Kafka rejects.
    /// But the next request is built already, and is sent even if Kafka refuses the first one; only a
    /// Kafka that knows the producer refuses it too.
    Strict,
}

/// The configuration of every producer. The operator's properties, already in `client`, replace our
/// defaults; [`REFUSED`](super::REFUSED) keeps out those that the promises depend on.
pub(super) fn of_producer(mut client: ClientConfig, ordering: Ordering) -> ClientConfig {
    let batch = BATCH_BYTES.to_string();
    for (key, default) in [
        // The publisher hands over many records at once; lingering would only add latency. A distant
        // producer lingers all the same: see `Producer::new`.
        ("linger.ms", "0"),
        ("compression.type", "lz4"),
        // While this lasts, records without a key share a partition and batches. Suspects must not,
        // and it would be twice `linger.ms`.
        ("sticky.partitioning.linger.ms", "0"),
        ("batch.size", &batch),
        // Six times as long, a dead connection is noticed: see `set_socket_timeout`.
        ("request.timeout.ms", "3000"),
        // A producer whose idle connections were closed connects again when it looks for the leaders
        // of its topics. The default of five minutes would be too late for its next record.
        ("topic.metadata.refresh.interval.ms", "10000"),
        // Notice a cluster that moves within one minute instead of five.
        ("metadata.recovery.rebootstrap.trigger.ms", "60000"),
        // The queue of each lane bounds what is in flight. A bound for all lanes together would let
        // one that is stuck hold up the others.
        ("queue.buffering.max.messages", "0"),
        ("queue.buffering.max.kbytes", "2147483647"),
    ] {
        if client.get(key).is_none() {
            client.set(key, default);
        }
    }
    set_socket_timeout(&mut client);
    // Why a connection fails is partly in librdkafka's log only, up to this level.
    if (client.log_level as i32) < RDKafkaLogLevel::Info as i32 {
        client.set_log_level(RDKafkaLogLevel::Info);
    }
    let (in_flight, gapless) = match ordering {
        Ordering::Relaxed => ("5", "false"),
        Ordering::Strict => ("1", "true"),
    };
    client
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", gapless)
        .set("max.in.flight.requests.per.connection", in_flight)
        // The largest value. Not 0, which means endless too: librdkafka computes its latency
        // statistics from this value.
        .set("message.timeout.ms", "2147483647")
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", "1000");
    client
}

/// Gives a request enough time to wait for all that are under way before it, each of which Kafka
/// may answer only after `request.timeout.ms`. Otherwise a slow Kafka would cost connections too.
fn set_socket_timeout(client: &mut ClientConfig) {
    const LONGEST: u64 = 300_000;
    let milliseconds = |key: &str| client.get(key).and_then(|value| value.parse::<u64>().ok());
    let request = milliseconds("request.timeout.ms").unwrap_or(30_000);
    let enough = (6 * request).min(LONGEST);
    let socket = milliseconds("socket.timeout.ms").map_or(enough, |set| set.max(enough));
    client.set("socket.timeout.ms", socket.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_waits_longer_than_all_requests_under_way() {
        let timeout = |properties: &[(&str, &str)]| {
            let mut client = ClientConfig::new();
            for (key, value) in properties {
                client.set(*key, *value);
            }
            let config = of_producer(client, Ordering::Relaxed);
            config.get("socket.timeout.ms").map(str::to_owned)
        };
        assert_eq!(timeout(&[]).as_deref(), Some("18000"));
        let short = [
            ("socket.timeout.ms", "1000"),
            ("request.timeout.ms", "2000"),
        ];
        assert_eq!(timeout(&short).as_deref(), Some("12000"));
        assert_eq!(
            timeout(&[("socket.timeout.ms", "60000")]).as_deref(),
            Some("60000")
        );
        assert_eq!(
            timeout(&[("request.timeout.ms", "100000")]).as_deref(),
            Some("300000")
        );
    }
}
