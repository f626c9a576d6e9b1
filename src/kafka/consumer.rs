//! Reads a topic, for `tail` and `demo`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::producer::log;
use super::retry::{is_retriable, offsets_of_times, patiently, watermarks};
use super::schema_ids::json;
use super::{Error, KafkaSettings};
use crate::log::LogThrottle;

/// How often new partitions are looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// The same while the topic is missing, or may be another one than before.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The time for Kafka's answer to a lookup, during which no record is returned.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// How the id of an embedded Kafka begins. It answers each lookup of a time as if there were no such
/// record.
const EMBEDDED_CLUSTER_ID: &str = "mockCluster";

/// The leader of a partition that has none.
const NO_LEADER: i32 = -1;

/// A reader of all partitions of one topic, including those that are added later. It joins no
/// consumer group and commits no offsets, so it needs only the right to read and does not disturb
/// other consumers.
///
/// It waits for a topic that is missing, and logs that.
pub struct Subscription {
    consumer: BaseConsumer<QuietContext>,
    topic: String,
    /// Where each partition is read next. Without any, the topic is missing.
    positions: BTreeMap<i32, Offset>,
    /// The partitions that have no further record for now.
    at_end: BTreeSet<i32>,
    last_lookup: Instant,
    doubt: Option<Doubt>,
    /// For the partitions that cannot be looked up.
    unread: LogThrottle<Vec<i32>>,
}

/// A hint that the topic was deleted, or does not have these positions any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// It seems to be missing, or to have fewer partitions.
    Missing,
    /// A partition does not have the next record.
    OutOfRange,
}

impl Doubt {
    /// `None` if the error is about something else.
    fn of(error: &KafkaError) -> Option<Self> {
        match error.rdkafka_error_code()? {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                Some(Self::OutOfRange)
            }
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopicId => Some(Self::Missing),
            _ => None,
        }
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With the oldest record.
    Beginning,
    /// With the next record.
    End,
    /// With the first record of this time (milliseconds since 1970-01-01 UTC) or later. Times only
    /// nearly follow the order of offsets, so older records may come after it.
    Time(i64),
}

/// One record as a subscriber reads it.
#[derive(Debug)]
pub struct Consumed {
    /// The topic.
    pub topic: String,
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
    /// The value, without the schema id in front of its JSON.
    pub value: Vec<u8>,
}

impl Consumed {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let headers = headers.map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        });
        let headers: Vec<_> = headers.collect();
        let is_event = headers.iter().any(|(name, _)| name == "ce_type");
        let value = match message.payload().unwrap_or_default() {
            framed if is_event => json(framed),
            // The body of a callback, whatever its first byte is.
            body => body,
        };
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            headers,
            value: value.to_vec(),
        }
    }

    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let header = self.headers.iter().find(|(found, _)| found == name);
        header.map(|(_, value)| value.as_slice())
    }
}

impl Subscription {
    /// Looks up the partitions of the topic and begins to read all of them.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer within `timeout`, or refuses.
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
            // Also librdkafka's default: no record of a transaction that was aborted.
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // Otherwise librdkafka continues with the next record and reports nothing.
            .set("auto.offset.reset", "error")
            .create_with_context(QuietContext)?;
        let mut subscription = Self {
            consumer,
            topic: topic.to_owned(),
            positions: BTreeMap::new(),
            at_end: BTreeSet::new(),
            last_lookup: Instant::now(),
            doubt: None,
            unread: LogThrottle::default(),
        };
        let partitions = patiently(timeout, || subscription.fetch_partitions(timeout))?;
        for partition in partitions.into_keys() {
            // Looked up now and not at the first fetch, so that everything after this call is
            // read.
            let client = subscription.consumer.client();
            let (low, high) = watermarks(client, topic, partition, timeout)?;
            let offset = match start {
                StartFrom::Beginning => low,
                StartFrom::End | StartFrom::Time(_) => high,
            };
            let positions = &mut subscription.positions;
            positions.insert(partition, Offset::Offset(offset));
        }
        if subscription.positions.is_empty() {
            tracing::warn!("{topic}: the topic does not exist; waiting for it");
        } else if let StartFrom::Time(time) = start {
            subscription.start_at(time, timeout)?;
        }
        subscription.assign()?;
        Ok(subscription)
    }

    /// Moves the positions from the ends of the partitions to their first records of this time or
    /// later.
    fn start_at(&mut self, time: i64, timeout: Duration) -> Result<(), KafkaError> {
        let (consumer, topic) = (&self.consumer, &self.topic);
        let cluster = consumer.client().fetch_cluster_id(timeout);
        if cluster.is_some_and(|id| id.starts_with(EMBEDDED_CLUSTER_ID)) {
            (self.positions.values_mut()).for_each(|position| *position = Offset::Beginning);
            return Ok(());
        }
        let mut wanted = TopicPartitionList::new();
        for partition in self.positions.keys() {
            wanted.add_partition_offset(topic, *partition, Offset::Offset(time))?;
        }
        for found in offsets_of_times(consumer, topic, &wanted, timeout)?.elements() {
            // Without such a record, the position stays: that end was looked up before, so every
            // record that came meanwhile is behind it.
            if let Offset::Offset(_) = found.offset() {
                self.positions.insert(found.partition(), found.offset());
            }
        }
        Ok(())
    }

    /// Whether every record was returned that the topic had when this was created, or since
    /// [`Self::find_ends`].
    pub fn is_at_end(&self) -> bool {
        let mut partitions = self.positions.keys();
        partitions.all(|partition| self.at_end.contains(partition))
    }

    /// Looks up the ends of all partitions again.
    ///
    /// # Errors
    ///
    /// Those of librdkafka.
    pub fn find_ends(&mut self) -> Result<(), Error> {
        self.assign()
    }

    /// The next record, if one arrives within `timeout`. A lookup of partitions may take another
    /// second, and one more for each broker that does not answer.
    ///
    /// # Errors
    ///
    /// Those of Kafka, apart from temporary ones, which librdkafka retries.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Consumed>, Error> {
        let interval = match self.doubt.is_some() || self.positions.is_empty() {
            true => LOOKUP_INTERVAL_MIN,
            false => LOOKUP_INTERVAL,
        };
        if self.last_lookup.elapsed() >= interval {
            self.look_up()?;
            self.last_lookup = Instant::now();
        }
        let message = match self.consumer.poll(timeout) {
            None => return Ok(None),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.at_end.insert(partition);
                return Ok(None);
            }
            Some(Err(error)) if is_retriable(&error) || is_of_the_group(&error) => return Ok(None),
            Some(Err(error)) => {
                let doubt = Doubt::of(&error).ok_or(error)?;
                self.doubt = self.doubt.max(Some(doubt));
                return Ok(None);
            }
            Some(Ok(message)) => message,
        };
        self.at_end.remove(&message.partition());
        if let Some(position) = self.positions.get_mut(&message.partition()) {
            *position = Offset::Offset(message.offset() + 1);
        }
        Ok(Some(Consumed::of(&message)))
    }

    /// Finds partitions that were added, and whether the topic was created or deleted. What is new
    /// is read from its beginning, because all of it came after the start.
    fn look_up(&mut self) -> Result<(), Error> {
        let found = match self.fetch_partitions(LOOKUP_TIMEOUT) {
            Ok(found) => found,
            Err(error) if is_retriable(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (topic, before, now) = (&self.topic, self.positions.len(), found.len());
        if now < before && self.doubt.is_none() {
            // Kafka never takes partitions away. But a broker may not know the new ones yet.
            self.doubt = Some(Doubt::Missing);
            return Ok(());
        }
        if now < before {
            self.positions.clear();
            self.doubt = None;
            match now {
                0 => tracing::warn!(
                    "{topic}: the topic was deleted; waiting until it is created again"
                ),
                _ => tracing::warn!(
                    "{topic}: the topic was deleted and created again, with {now} partitions; reading it from its beginning"
                ),
            }
        } else if now == before && self.doubt.is_none() {
            return Ok(());
        } else if now == before {
            // Every partition is assigned again, also the one with the error.
        } else if before == 0 {
            tracing::info!(
                "{topic}: the topic exists now, with {now} partitions; reading it from its beginning"
            );
        } else {
            tracing::warn!(
                "{topic}: the number of partitions has changed from {before} to {now}; reading the new ones from their beginning"
            );
        }
        if let Some(doubt) = self.doubt {
            self.recover(doubt, &found);
        }
        for partition in found.into_keys() {
            self.positions.entry(partition).or_insert(Offset::Beginning);
        }
        self.assign()
    }

    /// Corrects the positions after an error. If Kafka no longer has the next record of a partition,
    /// its next position is that of the oldest one that it has. The doubt remains while a partition
    /// cannot be looked up.
    fn recover(&mut self, doubt: Doubt, leaders: &BTreeMap<i32, i32>) {
        let (consumer, topic) = (&self.consumer, &self.topic);
        let (mut is_new, mut expired) = (false, Vec::new());
        let (mut unread, mut silent) = (Vec::new(), BTreeSet::from([NO_LEADER]));
        for (partition, position) in &self.positions {
            let leader = *leaders.get(partition).unwrap_or(&NO_LEADER);
            // A leader that does not answer is asked once, because that takes the whole timeout.
            let offsets = match silent.contains(&leader) {
                true => None,
                false => consumer
                    .fetch_watermarks(topic, *partition, LOOKUP_TIMEOUT)
                    .ok(),
            };
            let Some((low, high)) = offsets else {
                unread.push(*partition);
                silent.insert(leader);
                continue;
            };
            if let Offset::Offset(at) = *position {
                is_new |= at > high;
                if at < low {
                    expired.push((*partition, at, low));
                }
            }
        }
        // Records can have come meanwhile, so that a new topic has all offsets again.
        is_new |= doubt == Doubt::OutOfRange && expired.is_empty() && unread.is_empty();
        self.doubt = match unread.is_empty() || is_new {
            true => None,
            // What was out of range is found.
            false if !expired.is_empty() => Some(Doubt::Missing),
            false => Some(doubt),
        };
        if self.doubt.is_some() && self.unread.is_due_for(unread.clone()) {
            let unread = unread.iter().map(i32::to_string).collect::<Vec<_>>();
            tracing::warn!(
                "{topic}: the leaders of these partitions do not answer: {}; reading the others, and these once their leaders answer; check that all brokers run",
                unread.join(", ")
            );
        }
        if is_new {
            tracing::warn!(
                "{topic}: the topic was deleted and created again; reading it from its beginning"
            );
            for position in self.positions.values_mut() {
                *position = Offset::Beginning;
            }
        } else {
            for (partition, at, low) in expired {
                tracing::warn!(
                    "{topic}: partition {partition} has lost its records from offset {at} on before they were read, probably by retention; reading on from offset {low}"
                );
                self.positions.insert(partition, Offset::Offset(low));
            }
        }
    }

    /// The partitions of the topic with their leaders; none if it is missing.
    fn fetch_partitions(&self, timeout: Duration) -> Result<BTreeMap<i32, i32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), timeout)?;
        let mut partitions = BTreeMap::new();
        for found in metadata.topics() {
            let led = found.partitions().iter();
            match found.error().map(RDKafkaErrorCode::from) {
                None => partitions.extend(led.map(|found| (found.id(), found.leader()))),
                // The second one is that of a topic which is being created.
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::LeaderNotAvailable,
                ) => {}
                Some(code) => return Err(KafkaError::MetadataFetch(code)),
            }
        }
        Ok(partitions)
    }

    /// Reads all partitions, each from its position. librdkafka reports each end again.
    fn assign(&mut self) -> Result<(), Error> {
        self.at_end.clear();
        let mut partitions = TopicPartitionList::new();
        for (partition, position) in &self.positions {
            partitions.add_partition_offset(&self.topic, *partition, *position)?;
        }
        Ok(self.consumer.assign(&partitions)?)
    }
}

/// librdkafka looks up the coordinator of `group.id`, although nothing of the group is used. So no
/// right on the group is needed.
fn is_of_the_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
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
