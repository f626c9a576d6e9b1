//! What stands in a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Kafka, PATIENCE, patiently};
use crate::support::schema;

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestRecord {
    /// The number of its partition.
    pub(crate) partition: i32,
    /// Its place in the partition.
    pub(crate) offset: i64,
    /// In ms.
    pub(crate) timestamp: i64,
    /// Kafka tells none from an empty one.
    pub(crate) key: Option<Vec<u8>>,
    /// In their order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// The payload.
    pub(crate) value: Vec<u8>,
}

impl TestRecord {
    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_slice())
    }

    /// A record of the service is checked against its schema.
    fn of(message: &impl Message) -> TestRecord {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let not_null = |value: Option<&[u8]>| {
            let value = value.expect("no test writes a header or a record of null");
            value.to_vec()
        };
        let record = TestRecord {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message
                .timestamp()
                .to_millis()
                .expect("Kafka gives every record one"),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), not_null(header.value)))
                .collect(),
            value: not_null(message.payload()),
        };
        schema::check(record.key.as_deref(), &record.headers, &record.value);
        record
    }
}

impl Kafka {
    /// Everything that stands in a topic at this moment, by partition and offset. Checks each
    /// batch's CRC.
    ///
    /// # Panics
    ///
    /// When the topic is not there or cannot be read to its end.
    pub(crate) fn read_all(&self, topic: &str) -> Vec<TestRecord> {
        let mut reader = Reader::new(self, topic, PATIENCE);
        let ends = reader.ends();
        reader.read(PATIENCE, |reader| {
            ends.iter()
                .all(|(partition, end)| reader.has_read_to(*partition, *end))
        });
        let mut records = reader.into_sorted();
        records.retain(|record| {
            ends.get(&record.partition)
                .is_some_and(|end| record.offset < *end)
        });
        records
    }

    /// The end offsets of these partitions of a topic. Its other partitions may have no leader.
    pub(crate) fn ends(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().create().expect("the settings are sound");
        ends(&client, topic, partitions)
    }

    /// The records of a topic once there are at least `count`, by partition and offset; also
    /// through an outage. What counts duplicates reads with [`Kafka::read_all`] afterwards, for
    /// there may be more.
    ///
    /// # Panics
    ///
    /// When there are fewer after `patience`.
    pub(crate) fn read_until(
        &self,
        topic: &str,
        count: usize,
        patience: Duration,
    ) -> Vec<TestRecord> {
        let deadline = Instant::now() + patience;
        let mut reader = Reader::new(self, topic, patience);
        let patience = deadline.saturating_duration_since(Instant::now());
        reader.read(patience, |reader| reader.records.len() >= count);
        reader.into_sorted()
    }
}

/// A consumer that reads every partition of a topic from its beginning.
struct Reader<'a> {
    topic: &'a str,
    partitions: Vec<i32>,
    consumer: BaseConsumer,
    records: Vec<TestRecord>,
    /// Behind the last record read of each partition.
    positions: BTreeMap<i32, i64>,
    /// Where the end was reached. No position tells that where the last records were compacted
    /// away.
    exhausted: BTreeSet<i32>,
}

impl<'a> Reader<'a> {
    /// Asks for the topic's partitions, through an outage too.
    fn new(kafka: &Kafka, topic: &'a str, patience: Duration) -> Reader<'a> {
        let mut client = kafka.client();
        client
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true");
        // Records that vanished must not be skipped in silence.
        client.set("auto.offset.reset", "error");
        // A broker holds a fetch back this long when there is nothing new.
        client.set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = client.create().expect("the settings are sound");
        let ask = |time| consumer.fetch_metadata(Some(topic), time);
        let metadata = patiently(topic, patience, ask);
        let topics = metadata.topics().iter();
        let partitions: Vec<i32> = topics
            .flat_map(|topic| topic.partitions())
            .map(|partition| partition.id())
            .collect();
        assert!(!partitions.is_empty(), "there is no topic {topic}");
        Reader {
            topic,
            partitions,
            consumer,
            records: Vec::new(),
            positions: BTreeMap::new(),
            exhausted: BTreeSet::new(),
        }
    }

    /// To be asked before reading begins: on a connection that fetches, the answer waits behind
    /// each fetch.
    fn ends(&self) -> BTreeMap<i32, i64> {
        ends(&self.consumer, self.topic, self.partitions.iter().copied())
    }

    fn has_read_to(&self, partition: i32, end: i64) -> bool {
        let position = self.positions.get(&partition).copied().unwrap_or(0);
        position >= end || self.exhausted.contains(&partition)
    }

    fn read(&mut self, patience: Duration, is_enough: impl Fn(&Reader<'_>) -> bool) {
        let mut beginning = TopicPartitionList::new();
        for partition in &self.partitions {
            let added = beginning.add_partition_offset(self.topic, *partition, Offset::Beginning);
            added.expect("the beginning is a valid offset");
        }
        self.consumer
            .assign(&beginning)
            .expect("a new consumer can be assigned");

        let deadline = Instant::now() + patience;
        let mut trouble = None;
        while !is_enough(self) {
            assert!(
                Instant::now() < deadline,
                "read {} records of {} in {patience:?}; last trouble: {trouble:?}",
                self.records.len(),
                self.topic,
            );
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    self.exhausted.remove(&message.partition());
                    self.positions
                        .insert(message.partition(), message.offset() + 1);
                    self.records.push(TestRecord::of(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.exhausted.insert(partition);
                }
                Some(Err(error)) => {
                    assert!(!lasts(&error), "{} cannot be read: {error}", self.topic);
                    trouble = Some(error);
                }
                None => {}
            }
        }
    }

    fn into_sorted(self) -> Vec<TestRecord> {
        let mut records = self.records;
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}

fn ends(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
) -> BTreeMap<i32, i64> {
    let end = |partition: i32| {
        let ask = |time| consumer.fetch_watermarks(topic, partition, time);
        (partition, patiently(topic, PATIENCE, ask).1)
    };
    partitions.into_iter().map(end).collect()
}

/// Whether a consumer's error is about the records; every other may pass, as those of an outage do.
fn lasts(error: &KafkaError) -> bool {
    let about_records = [
        RDKafkaErrorCode::BadMessage,
        RDKafkaErrorCode::AutoOffsetReset,
    ];
    error
        .rdkafka_error_code()
        .is_some_and(|code| about_records.contains(&code))
}
