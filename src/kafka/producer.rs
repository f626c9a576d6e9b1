//! A librdkafka producer, and what its delivery reports mean.
//!
//! Not `FutureProducer`: if librdkafka's queue is full, that one sleeps 100 ms and retries while
//! later records overtake (rust-rdkafka issue 468). Here one thread sends, and every report carries
//! the record's number.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;

use super::client_config::{BATCH_BYTES, Ordering, of_producer};
use super::events::{Event, EventQueue};
use super::failures::why_not_delivered;
use super::offsets::AckedOffsets;
use super::reports::{Reports, is_final, judge};
use super::schema_ids::SchemaIds;
use super::statistics::{self, Statistics};
use super::{BrokerStatus, Error, KafkaSettings};
use crate::event::Record;

/// With this many records of a partition unanswered, librdkafka sends no further request for it, and
/// while it has records for one it waits busily (`RD_KAFKA_IDEMP_MAX_INFLIGHT`, in 2.12.1).
pub(crate) const PARTITION_DEPTH: usize = 5;

/// The earliest timestamp that librdkafka sends, in milliseconds since 1970: it takes 0 for now.
const EARLIEST_TIMESTAMP: i64 = 1;

const ALL_BROKERS_DOWN: RDKafkaErrorCode = RDKafkaErrorCode::AllBrokersDown;

/// How long a producer for a distant Kafka lingers.
const LINGER_MIN: Duration = Duration::from_millis(1);
const LINGER_MAX: Duration = Duration::from_millis(5);

/// A producer that lingers is not replaced before this age, even if Kafka turns out to be near.
const LINGERING_AGE_MIN: Duration = Duration::from_secs(600);

/// How many metadata requests measure the round trip before librdkafka's statistics do. The
/// shortest one counts.
const FIRST_ROUND_TRIPS: usize = 3;

/// Why the producer did not take a record.
pub(crate) enum SendError {
    /// librdkafka's queue is full; the same record can be sent again.
    Full,
    /// No producer can take this record.
    Rejected(String),
    /// This producer does not take it now: it has failed, or the topic is missing or forbidden.
    Failed(String),
}

impl SendError {
    pub(super) fn of(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::QueueFull) {
            Self::Full
        } else if code.is_some_and(is_final) {
            Self::Rejected(error.to_string())
        } else {
            Self::Failed(code.map_or_else(|| error.to_string(), why_not_delivered))
        }
    }
}

/// One librdkafka producer, used until it fails or another one takes its place.
pub(crate) struct Producer {
    // First, because it must be dropped before the client.
    events: EventQueue,
    inner: BaseProducer<Callbacks>,
    status: Arc<BrokerStatus>,
    is_main: bool,
    /// Whether it lingers for a distant Kafka; `None` if the operator decides how long it lingers.
    made_for_distant: Option<bool>,
    /// Whether a connection of it has been up.
    was_up: AtomicBool,
    acked: AckedOffsets,
    schema_ids: Option<Arc<SchemaIds>>,
}

impl Producer {
    /// Creates a producer. The main one stands for the service's connection to Kafka: it reports to
    /// `status` whether brokers can be reached, and has statistics each second. A batch takes no
    /// further record beyond `batch_bytes`.
    ///
    /// It lingers for a fiftieth of the round trip to a distant Kafka, unless the operator sets
    /// `linger.ms`: one request then takes all records that are handed over together. librdkafka
    /// would wait busily, for most of a round trip, with those that it leaves behind.
    pub(crate) fn new(
        settings: &KafkaSettings,
        ordering: Ordering,
        is_main: bool,
        batch_bytes: usize,
        status: &Arc<BrokerStatus>,
    ) -> Result<Self, Error> {
        let mut client = settings.client();
        let made_for_distant = match client.get("linger.ms") {
            Some(_) => None,
            None => Some(status.seems_distant()),
        };
        if made_for_distant == Some(true) {
            let linger = (status.round_trip() / 50).clamp(LINGER_MIN, LINGER_MAX);
            client.set("linger.ms", linger.as_millis().to_string());
        }
        let mut config = of_producer(client, ordering);
        let configured = config.get("batch.size").and_then(|size| size.parse().ok());
        let batch_bytes = configured.unwrap_or(BATCH_BYTES).min(batch_bytes);
        config.set("batch.size", batch_bytes.to_string());
        if !is_main {
            config.set("statistics.interval.ms", "0");
        }
        let inner: BaseProducer<Callbacks> = config.create_with_context(Callbacks)?;
        statistics::cover(inner.client(), settings.routes.topics().filter(|_| is_main));
        Ok(Self {
            events: EventQueue::of(inner.client()),
            inner,
            status: Arc::clone(status),
            is_main,
            made_for_distant,
            was_up: AtomicBool::new(false),
            acked: AckedOffsets::default(),
            schema_ids: settings.schema_ids.clone(),
        })
    }

    /// Whether a new producer would suit the distance of Kafka better than this one of this age. One
    /// that lingers without need costs little, and is not replaced so soon: the next measurements may
    /// say otherwise, if brokers are at several distances.
    pub(crate) fn is_unfit(&self, age: Duration) -> bool {
        match self.made_for_distant {
            None => false,
            Some(false) => self.status.is_distant() == Some(true),
            Some(true) => age >= LINGERING_AGE_MIN && self.status.is_distant() == Some(false),
        }
    }

    /// It does not stand for the connection to Kafka any more: another one does.
    pub(crate) fn unset_main(&mut self) {
        self.is_main = false;
    }

    /// Passes on all reports and statistics that wait in librdkafka. Does not block.
    pub(crate) fn poll(
        &mut self,
        mut on_reports: impl FnMut(Reports),
        mut on_statistics: impl FnMut(Statistics),
    ) {
        while let Some(event) = self.events.poll() {
            match event {
                Event::Reports(mut batch) => {
                    self.acked.disbelieve_repetition(&mut batch);
                    on_reports(judge(batch));
                }
                Event::Statistics(json) => {
                    if self.is_main
                        && let Some(statistics) = Statistics::parse(&json)
                    {
                        self.status.take_statistics(&statistics, &self.was_up);
                        on_statistics(statistics);
                    }
                }
                Event::Error { code, .. } if code == ALL_BROKERS_DOWN && !self.is_main => {}
                Event::Error { code, reason } => self.status.take_error(code, &reason),
                Event::Log {
                    level,
                    facility,
                    message,
                } => {
                    self.status.take_log(&facility, &message);
                    log(level, &facility, &message);
                }
            }
        }
    }

    /// Gives a record to librdkafka, which copies it. The report follows, with this number.
    pub(crate) fn send(&self, topic: &str, number: u64, record: &Record) -> Result<(), SendError> {
        let outgoing = Outgoing::of(record, self.schema_ids.as_deref());
        let outgoing = outgoing.map_err(SendError::Failed)?;
        let sent = self.inner.send(outgoing.message(topic, number));
        sent.map_err(|(error, _)| SendError::of(&error))
    }

    /// The error after which this producer takes nothing any more.
    pub(crate) fn fatal_error(&self) -> Option<String> {
        let fatal = self.inner.client().fatal_error();
        fatal.map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// Connects to the cluster, so that the first record need not wait for it, and measures how far
    /// away it is if that is not known yet. Blocks for at most this time. Returns the numbers of
    /// partitions of these topics, 0 for one that is missing: of the first topics only if the time
    /// was too short, and of none if it has not connected.
    pub(crate) fn connect(&self, topics: &[&str], timeout: Duration) -> Vec<usize> {
        let end = Instant::now() + timeout;
        // librdkafka connects to the leaders of partitions when it has records for them.
        let ask = |topic: &&str| {
            let began = Instant::now();
            let left = end.saturating_duration_since(began);
            let metadata = self.inner.client().fetch_metadata(Some(topic), left);
            let topics = metadata.ok()?;
            let partitions = topics.topics().first()?.partitions().len();
            Some((partitions, began.elapsed()))
        };
        let is_known = !self.status.round_trip().is_zero();
        let requests = match is_known {
            true => topics.len(),
            false => topics.len().max(1 + FIRST_ROUND_TRIPS),
        };
        let asked: Vec<_> = (topics.iter().cycle().take(requests))
            .map_while(ask)
            .collect();
        // The first one includes the time to connect.
        let shortest = asked
            .iter()
            .skip(1)
            .map(|(_, round_trip)| *round_trip)
            .min();
        if let Some(shortest) = shortest.filter(|_| !is_known) {
            self.status.take_first_round_trip(shortest);
        }
        if !asked.is_empty() {
            // Attempts to connect that failed before say nothing about Kafka as a whole any more.
            while let Some(event) = self.events.poll() {
                if let Event::Log {
                    facility, message, ..
                } = event
                {
                    self.status.take_log(&facility, &message);
                }
            }
        }
        let partitions = asked.into_iter().map(|(partitions, _)| partitions);
        partitions.take(topics.len()).collect()
    }

    /// Takes back every record that Kafka has not acknowledged; each is then reported as failed.
    pub(crate) fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }
}

/// A record as it is published.
pub(super) struct Outgoing<'a> {
    record: &'a Record,
    /// Its value, if a frame stands in front of the JSON.
    framed: Option<Vec<u8>>,
}

impl<'a> Outgoing<'a> {
    /// Frames the record's value, if there are schema ids.
    ///
    /// # Errors
    ///
    /// If the schema of its event has no id.
    pub(super) fn of(record: &'a Record, ids: Option<&SchemaIds>) -> Result<Self, String> {
        let framed = ids.map_or(Ok(None), |ids| ids.frame(record))?;
        Ok(Self { record, framed })
    }

    /// The record for librdkafka, which reports on it with this number.
    pub(super) fn message<'m>(
        &'m self,
        topic: &'m str,
        number: u64,
    ) -> BaseRecord<'m, [u8], [u8], usize> {
        let Self { record, framed } = self;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            });
        }
        let mut message = BaseRecord::with_opaque_to(topic, number as usize)
            .payload(framed.as_deref().unwrap_or(&record.value))
            .timestamp(record.timestamp.max(EARLIEST_TIMESTAMP))
            .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key.as_ref());
        }
        message
    }
}

/// librdkafka's callbacks. All that matters arrives as an [`Event`].
pub(super) struct Callbacks;

impl ProducerContext for Callbacks {
    type DeliveryOpaque = usize;

    /// Only for reports that arrive while the producer is dropped, when nobody waits for them.
    fn delivery(&self, _: &DeliveryResult<'_>, _: usize) {}
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

/// Logs librdkafka's own lines. Every important one also arrives as an error or a report, so most
/// are logged at debug level.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}
