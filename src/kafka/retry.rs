//! Repeats requests that Kafka may answer a moment later, as after the creation of a topic.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// The pause before Kafka is asked again.
pub(super) const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Asks again, for `timeout`, while the answer is only temporary.
pub(super) fn patiently<T>(
    timeout: Duration,
    ask: impl FnMut() -> KafkaResult<T>,
) -> KafkaResult<T> {
    repeat(timeout, is_retriable, ask)
}

/// The oldest and the next offset of a partition that Kafka has listed.
pub(super) fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> KafkaResult<(i64, i64)> {
    let ask = || client.fetch_watermarks(topic, partition, timeout);
    of_partitions(client, topic, timeout, ask)
}

/// The offsets of times in partitions that Kafka has listed. None of them has an error.
pub(super) fn offsets_of_times<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    wanted: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    let ask = || {
        let found = consumer.offsets_for_times(wanted.clone(), timeout)?;
        // A partition without a leader has an error, and still the time in place of an offset.
        let mut partitions = found.elements().into_iter();
        partitions.try_for_each(|partition| partition.error())?;
        Ok(found)
    };
    of_partitions(consumer.client(), topic, timeout, ask)
}

/// Asks about partitions that Kafka has listed. So an unknown one is temporary too: its broker does
/// not know it yet, or it has no leader.
fn of_partitions<T, C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> KafkaResult<T>,
) -> KafkaResult<T> {
    let mut is_repeated = false;
    let is_retried = |error: &KafkaError| is_retriable(error) || is_unknown(error);
    repeat(timeout, is_retried, || {
        if is_repeated {
            // librdkafka keeps the old leader until it gets new metadata.
            client.fetch_metadata(Some(topic), timeout)?;
        }
        is_repeated = true;
        ask()
    })
}

fn repeat<T>(
    timeout: Duration,
    is_retried: impl Fn(&KafkaError) -> bool,
    mut ask: impl FnMut() -> KafkaResult<T>,
) -> KafkaResult<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match ask() {
            Err(error) if is_retried(&error) && Instant::now() < deadline => {
                thread::sleep(ASK_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Whether the same request may succeed later: a leader, a coordinator or the controller is moving, or
/// a broker restarts or cannot be reached for a while.
pub(super) fn is_retriable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::BrokerNotAvailable
                | RDKafkaErrorCode::NetworkException
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::ThrottlingQuotaExceeded
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::PreferredLeaderNotAvailable
                | RDKafkaErrorCode::EligibleLeadersNotAvailable
                | RDKafkaErrorCode::ReplicaNotAvailable
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::KafkaStorageError
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NotController
                | RDKafkaErrorCode::UnstableOffsetCommit
        )
    )
}

/// Whether a topic or partition is not known.
fn is_unknown(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopicId
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::bindings::rd_kafka_resp_err_t as Response;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{ClientConfig, Offset};

    use super::super::bounded::{Begin, BoundedReader};
    use super::super::consumer::{StartFrom, Subscription};
    use super::super::{KafkaSettings, Properties};
    use super::*;
    use crate::event::Routes;

    const TOPIC: &str = "t";

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The answers of a broker that does not know a new partition yet, or does not lead it yet.
    const NOT_YET: [RDKafkaRespErr; 4] = [
        Response::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Response::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Response::RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
        Response::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];

    /// A topic with two partitions.
    fn cluster() -> (MockCluster<'static, impl ClientContext>, KafkaSettings) {
        let cluster = MockCluster::new(1).expect("it starts");
        cluster.create_topic(TOPIC, 2, 1).expect("it is created");
        let settings = KafkaSettings {
            brokers: cluster.bootstrap_servers(),
            properties: Properties::default(),
            routes: Routes::new([("group_join", TOPIC)], "dead"),
            create_topics: None,
            schema_ids: None,
        };
        (cluster, settings)
    }

    fn consumer(settings: &KafkaSettings) -> BaseConsumer {
        let mut config: ClientConfig = settings.client();
        config.set("group.id", "g").create().expect("a client")
    }

    fn of_time(partitions: i32) -> TopicPartitionList {
        let mut wanted = TopicPartitionList::new();
        for partition in 0..partitions {
            (wanted.add_partition_offset(TOPIC, partition, Offset::Offset(1_700_000_000_000)))
                .expect("it is a time");
        }
        wanted
    }

    #[test]
    fn a_leader_that_does_not_know_its_partition_yet_is_asked_again() {
        let (cluster, settings) = cluster();
        let fail = || cluster.request_errors(RDKafkaApiKey::ListOffsets, &NOT_YET);
        fail();
        let started = Subscription::start(&settings, TOPIC, StartFrom::End, PATIENCE);
        assert_eq!(
            started.map(|_| ()).map_err(|error| error.to_string()),
            Ok(())
        );
        fail();
        let opened = BoundedReader::open(&settings, TOPIC, "g", Begin::Time(1));
        assert_eq!(
            opened.map(|_| ()).map_err(|error| error.to_string()),
            Ok(())
        );
        fail();
        let found = offsets_of_times(&consumer(&settings), TOPIC, &of_time(2), PATIENCE);
        assert_eq!(found.map(|found| found.count()), Ok(2));
    }

    #[test]
    fn an_answer_that_stays_the_same_is_returned_in_time() {
        let (cluster, settings) = cluster();
        let not_leader = [Response::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 1000];
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &not_leader);
        let (began, timeout) = (Instant::now(), Duration::from_millis(300));
        let started = Subscription::start(&settings, TOPIC, StartFrom::End, timeout);
        let reason = started.err().map(|error| error.to_string());
        let reason = reason.expect("the leader never answers");
        assert!(reason.contains("NotLeaderForPartition"), "{reason}");
        assert!((timeout..PATIENCE).contains(&began.elapsed()));
    }

    #[test]
    fn a_right_that_is_missing_is_reported_at_once() {
        let mut asked = 0;
        let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
        let answer = patiently(PATIENCE, || {
            asked += 1;
            Err::<(), _>(KafkaError::MetadataFetch(denied))
        });
        assert_eq!(answer, Err(KafkaError::MetadataFetch(denied)));
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_partition_without_a_leader_has_no_offset_of_a_time() {
        let (cluster, settings) = cluster();
        (cluster.partition_leader(TOPIC, 1, None)).expect("the mock has the partition");
        let consumer = consumer(&settings);
        let timeout = Duration::from_millis(300);
        let found = offsets_of_times(&consumer, TOPIC, &of_time(2), timeout);
        let found = found.map(|found| found.to_topic_map());
        assert_eq!(
            found,
            Err(KafkaError::OffsetFetch(
                RDKafkaErrorCode::LeaderNotAvailable
            ))
        );
    }

    #[test]
    fn a_leader_that_comes_back_is_found() {
        let (cluster, settings) = cluster();
        (cluster.partition_leader(TOPIC, 1, None)).expect("the mock has the partition");
        let consumer = consumer(&settings);
        let mut asked = 0;
        let found = of_partitions(consumer.client(), TOPIC, PATIENCE, || {
            asked += 1;
            if asked == 2 {
                (cluster.partition_leader(TOPIC, 1, Some(1))).expect("the mock has the partition");
            }
            consumer.fetch_watermarks(TOPIC, 1, PATIENCE)
        });
        assert_eq!(found, Ok((0, 0)));
        assert_eq!(asked, 3, "the second time without a leader");
    }
}
