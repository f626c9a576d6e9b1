//! Reads a topic, for `tail` and `demo`.

use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::producer::log;
use super::{Error, KafkaSettings};

/// A reader of all partitions of one topic. It joins no consumer group and commits no offsets, so
/// it needs only the right to read and does not disturb other consumers.
pub struct Subscription {
    consumer: BaseConsumer<QuietContext>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With the oldest record.
    Beginning,
    /// With the next record.
    End,
}

/// One record as a subscriber reads it.
#[derive(Debug)]
pub struct Consumed {
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// Kafka's timestamp, in milliseconds since 1970-01-01 UTC.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value.
    pub value: Vec<u8>,
}

impl Subscription {
    /// Looks up the partitions of the topic and begins to read all of them.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer within `timeout`, or the topic does not exist.
    pub fn start(
        settings: &KafkaSettings,
        topic: &str,
        start: StartFrom,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let consumer: BaseConsumer<QuietContext> = settings
            .client()
            // librdkafka requires a name even without a consumer group.
            .set("group.id", "zim2kafka-tail")
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .create_with_context(QuietContext)?;
        let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
        let mut partitions = TopicPartitionList::new();
        for found in metadata.topics() {
            if let Some(error) = found.error() {
                return Err(KafkaError::MetadataFetch(error.into()).into());
            }
            for partition in found.partitions() {
                // Looked up now and not at the first fetch, so that everything after this call is
                // read.
                let (low, high) = consumer.fetch_watermarks(topic, partition.id(), timeout)?;
                let offset = match start {
                    StartFrom::Beginning => low,
                    StartFrom::End => high,
                };
                partitions.add_partition_offset(topic, partition.id(), Offset::Offset(offset))?;
            }
        }
        consumer.assign(&partitions)?;
        Ok(Self { consumer })
    }

    /// The next record, if one arrives within `timeout`.
    ///
    /// # Errors
    ///
    /// Those of Kafka, apart from temporary ones, which librdkafka retries.
    pub fn next(&self, timeout: Duration) -> Result<Option<Consumed>, Error> {
        let message = match self.consumer.poll(timeout) {
            None => return Ok(None),
            Some(Err(error)) if is_temporary(&error) => return Ok(None),
            Some(message) => message?,
        };
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let headers = headers.map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        });
        Ok(Some(Consumed {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.collect(),
            value: message.payload().unwrap_or_default().to_vec(),
        }))
    }
}

/// A broker restarts or cannot be reached for a while; librdkafka retries.
fn is_temporary(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
        )
    )
}

/// Logs what librdkafka reports at debug level only.
pub(super) struct QuietContext;

impl ClientContext for QuietContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("Kafka client error: {error} ({reason})");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for QuietContext {}
