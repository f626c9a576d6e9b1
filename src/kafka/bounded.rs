//! Reads a topic up to where it ends now, for `redrive`.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::KafkaSettings;
use super::consumer::{Consumed, QuietContext};
use super::retry::{ASK_PAUSE, is_retriable, offsets_of_times, patiently, watermarks};
use super::rights::may_write;
use super::transfer::TransferError;

/// The time for Kafka's answer to one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for an answer about progress: Kafka answers once no transaction may change it, which is after 30 s at
/// the latest if a producer was killed.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(40);

/// Without a record for this long, Kafka does not deliver the topic.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stored progress of a consumer group: for each partition the next offset, with the mark of the
/// transaction that stored it.
pub type Stored = BTreeMap<i32, (i64, String)>;

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest record.
    Oldest,
    /// At the progress of the consumer group; without any, at the oldest record.
    Progress,
    /// At the first record with this Kafka timestamp or a later one, in milliseconds since
    /// 1970-01-01 UTC.
    Time(i64),
}

/// A reader of one topic, up to where each partition ended when this was opened. It reads committed
/// records only. Partitions that are added later are not read.
///
/// It belongs to a consumer group without joining it: the group only keeps progress, which
/// [`Transactions::commit`](super::Transactions::commit) stores.
pub struct BoundedReader {
    consumer: BaseConsumer<QuietContext>,
    topic: String,
    group: String,
    /// Where each partition was read first.
    begin: BTreeMap<i32, i64>,
    /// The progress of the group as it is stored.
    stored: Stored,
    /// The progress of the group, or where the partition was read first if that is later.
    progress: BTreeMap<i32, i64>,
    /// Where each partition ends.
    end: BTreeMap<i32, i64>,
    /// The partitions that are not read to their end.
    unread: BTreeMap<i32, i64>,
    /// When the last record came.
    last: Instant,
}

impl BoundedReader {
    /// Looks up where each partition of the topic begins and ends.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer or refuses, or the topic is missing.
    pub fn open(
        settings: &KafkaSettings,
        topic: &str,
        group: &str,
        begin: Begin,
    ) -> Result<Self, TransferError> {
        let consumer: BaseConsumer<QuietContext> = settings
            .client()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            // For each partition. The defaults are much larger.
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "8192")
            // Also makes Kafka answer about progress only when no transaction may change it.
            .set("isolation.level", "read_committed")
            // The last offsets of a partition may be those of markers of transactions or of
            // records that were compacted away. No record tells that they are reached.
            .set("enable.partition.eof", "true")
            // Records may expire while others are read.
            .set("auto.offset.reset", "earliest")
            .create_with_context(QuietContext)
            .map_err(TransferError::Kafka)?;
        let mut reader = Self {
            consumer,
            topic: topic.to_owned(),
            group: group.to_owned(),
            begin: BTreeMap::new(),
            stored: Stored::new(),
            progress: BTreeMap::new(),
            end: BTreeMap::new(),
            unread: BTreeMap::new(),
            last: Instant::now(),
        };
        let partitions = reader.partitions(topic)?;
        let known = match begin {
            Begin::Time(time) => {
                reader.wait_for_decided(settings, &partitions)?;
                reader.offsets_at(&partitions, time)?
            }
            Begin::Oldest | Begin::Progress => {
                reader.stored = reader.fetch_stored(partitions.iter())?;
                (reader.stored.iter())
                    .map(|(partition, (at, _))| (*partition, *at))
                    .collect()
            }
        };
        for partition in partitions {
            let found = watermarks(reader.consumer.client(), topic, partition, ANSWER_TIMEOUT);
            let (low, high) = found.map_err(|error| reader.cannot_read(error))?;
            let known = known.get(&partition).copied();
            let at = match begin {
                // No record may be that late.
                Begin::Time(_) => known.unwrap_or(high).min(high),
                Begin::Oldest | Begin::Progress => reader.progress_of(partition, known, low, high),
            };
            reader.progress.insert(partition, at);
            let begins = if begin == Begin::Oldest { low } else { at };
            reader.begin.insert(partition, begins);
            reader.end.insert(partition, high);
        }
        reader.rewind()?;
        Ok(reader)
    }

    /// The progress in a partition that has these offsets, with that which is stored.
    fn progress_of(&self, partition: i32, stored: Option<i64>, low: i64, high: i64) -> i64 {
        let topic = &self.topic;
        match stored {
            None => low,
            Some(at) if at < low => {
                tracing::warn!(
                    "{topic}: {} records of partition {partition} were removed before they were read, probably by retention; reading on from offset {low}",
                    low - at
                );
                low
            }
            Some(at) if at > high => {
                tracing::warn!(
                    "{topic}: partition {partition} ends before the progress of the group {}; the topic was probably created again; reading it from its beginning",
                    self.group
                );
                low
            }
            Some(at) => at,
        }
    }

    /// Begins again where it began first. The end stays the same.
    ///
    /// # Errors
    ///
    /// Those of librdkafka.
    pub fn rewind(&mut self) -> Result<(), TransferError> {
        let mut assigned = TopicPartitionList::new();
        self.unread.clear();
        for (partition, at) in &self.begin {
            let end = *self.end.get(partition).unwrap_or(at);
            if *at < end {
                self.unread.insert(*partition, end);
                assigned
                    .add_partition_offset(&self.topic, *partition, Offset::Offset(*at))
                    .map_err(TransferError::Kafka)?;
            }
        }
        self.last = Instant::now();
        // librdkafka keeps the position of a partition that stays assigned.
        (self.consumer.unassign())
            .and_then(|()| self.consumer.assign(&assigned))
            .and_then(|()| self.consumer.resume(&assigned))
            .map_err(TransferError::Kafka)
    }

    /// The next record before the end, if one comes within `timeout`.
    ///
    /// # Errors
    ///
    /// Those of Kafka, apart from temporary ones, which librdkafka retries for a minute.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Consumed>, TransferError> {
        let deadline = Instant::now() + timeout;
        while !self.is_at_end() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = self.unread.get(&partition).copied() else {
                        continue;
                    };
                    let is_before_end = offset < end;
                    let consumed = is_before_end.then(|| Consumed::of(&message));
                    drop(message);
                    self.last = Instant::now();
                    if offset + 1 >= end {
                        self.end_of(partition)?;
                    }
                    if consumed.is_some() {
                        return Ok(consumed);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end_of(partition)?,
                Some(Err(error)) if !is_retriable(&error) => return Err(self.cannot_read(error)),
                None | Some(Err(_)) if self.last.elapsed() > PATIENCE => {
                    return Err(TransferError::Silent(self.topic.clone(), PATIENCE));
                }
                None | Some(Err(_)) if left.is_zero() => return Ok(None),
                None | Some(Err(_)) => {}
            }
        }
        Ok(None)
    }

    /// Whether everything is read.
    pub fn is_at_end(&self) -> bool {
        self.unread.is_empty()
    }

    /// The progress of the group when this was opened. It is complete, so that a transaction that
    /// stores it leaves no partition without progress.
    pub fn progress(&self) -> &BTreeMap<i32, i64> {
        &self.progress
    }

    /// The number of offsets from the beginning to the end. Some may have no record.
    pub fn len(&self) -> u64 {
        let lengths = (self.begin.iter()).map(|(partition, begin)| {
            let end = self.end.get(partition).unwrap_or(begin);
            u64::try_from(end - begin).unwrap_or(0)
        });
        lengths.sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Checks that a topic exists and may be written to, as far as Kafka reports that.
    ///
    /// # Errors
    ///
    /// If it does not, or may not.
    pub fn check_target(&self, topic: &str) -> Result<(), TransferError> {
        self.partitions(topic)?;
        match may_write(self.consumer.client(), topic, ANSWER_TIMEOUT) {
            Some(false) => Err(TransferError::Forbidden {
                rights: "Write and Describe",
                on: format!("the topic {topic}"),
            }),
            Some(true) | None => Ok(()),
        }
    }

    /// The consumer group, for a transaction.
    pub(super) fn group(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// Reads no further record of this partition.
    ///
    /// # Errors
    ///
    /// Those of librdkafka.
    pub fn end_of(&mut self, partition: i32) -> Result<(), TransferError> {
        self.last = Instant::now();
        if self.unread.remove(&partition).is_none() {
            return Ok(());
        }
        let mut read = TopicPartitionList::new();
        read.add_partition(&self.topic, partition);
        (self.consumer.pause(&read)).map_err(TransferError::Kafka)
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, TransferError> {
        let ask = || {
            let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
            let mut partitions = Vec::new();
            for found in metadata.topics() {
                match found.error().map(RDKafkaErrorCode::from) {
                    None => partitions.extend(found.partitions().iter().map(|found| found.id())),
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
                    Some(code) => return Err(KafkaError::MetadataFetch(code)),
                }
            }
            Ok(partitions)
        };
        let partitions = patiently(ANSWER_TIMEOUT, ask);
        let partitions = partitions.map_err(|error| TransferError::reading(topic, error))?;
        match partitions.is_empty() {
            true => Err(TransferError::Missing(topic.to_owned())),
            false => Ok(partitions),
        }
    }

    /// The progress of the group as it was stored when this was opened.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The progress of the group as it is stored now.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer or refuses.
    pub fn stored_now(&self) -> Result<Stored, TransferError> {
        self.fetch_stored(self.progress.keys())
    }

    fn fetch_stored<'p>(
        &self,
        partitions: impl Iterator<Item = &'p i32>,
    ) -> Result<Stored, TransferError> {
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted.add_partition(&self.topic, *partition);
        }
        let ask = || (self.consumer).committed_offsets(wanted.clone(), PROGRESS_TIMEOUT);
        let committed = patiently(ANSWER_TIMEOUT, ask);
        let committed = committed.map_err(|error| TransferError::of_group(&self.group, error))?;
        let elements = committed.elements();
        let known = elements.iter().filter_map(|found| match found.offset() {
            Offset::Offset(at) => Some((found.partition(), (at, found.metadata().to_owned()))),
            _ => None,
        });
        Ok(known.collect())
    }

    /// Waits until every transaction is decided in the topic itself. A transaction that is committed
    /// is visible to a reader only when its markers are written, which may be later.
    fn wait_for_decided(
        &self,
        settings: &KafkaSettings,
        partitions: &[i32],
    ) -> Result<(), TransferError> {
        let uncommitted: BaseConsumer<QuietContext> = settings
            .client()
            .set("isolation.level", "read_uncommitted")
            .create_with_context(QuietContext)
            .map_err(TransferError::Kafka)?;
        let end = |consumer: &BaseConsumer<QuietContext>, partition| {
            let found = watermarks(consumer.client(), &self.topic, partition, ANSWER_TIMEOUT);
            let (_, end) = found.map_err(|error| self.cannot_read(error))?;
            Ok::<i64, TransferError>(end)
        };
        let deadline = Instant::now() + PROGRESS_TIMEOUT;
        for partition in partitions {
            let written = end(&uncommitted, *partition)?;
            while end(&self.consumer, *partition)? < written {
                if Instant::now() > deadline {
                    return Err(TransferError::Undecided(self.topic.clone()));
                }
                thread::sleep(ASK_PAUSE);
            }
        }
        Ok(())
    }

    fn offsets_at(
        &self,
        partitions: &[i32],
        time: i64,
    ) -> Result<BTreeMap<i32, i64>, TransferError> {
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            wanted
                .add_partition_offset(&self.topic, *partition, Offset::Offset(time))
                .map_err(TransferError::Kafka)?;
        }
        let found = offsets_of_times(&self.consumer, &self.topic, &wanted, ANSWER_TIMEOUT);
        Ok(offsets(&found.map_err(|error| self.cannot_read(error))?))
    }

    fn cannot_read(&self, error: KafkaError) -> TransferError {
        TransferError::reading(&self.topic, error)
    }
}

fn offsets(list: &TopicPartitionList) -> BTreeMap<i32, i64> {
    let known = list.elements().into_iter().filter_map(|found| {
        let Offset::Offset(at) = found.offset() else {
            return None;
        };
        Some((found.partition(), at))
    });
    known.collect()
}
