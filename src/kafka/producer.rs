//! A librdkafka producer, and what its delivery reports mean.
//!
//! Not `FutureProducer`: if librdkafka's queue is full, that one sleeps 100 ms and retries while
//! later records overtake (rust-rdkafka issue 468). Here one thread sends, and every report carries
//! the record's number.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};

use super::events::{Batch, Event, EventQueue};
use super::statistics::Statistics;
use super::{BrokerStatus, Error, KafkaSettings, MAX_MESSAGE_BYTES};
use crate::event::Record;

/// The most records of a lane that its producers may hold. This also bounds how many duplicates a
/// crash or new producers can cause.
pub const MAX_IN_FLIGHT_RECORDS: usize = 10_000;

/// The bytes after which the producers take no further record of a lane.
pub const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

/// The default of `batch.size`. A record that is larger is sent alone, and then it is known which one
/// Kafka rejects because of its size.
const BATCH_BYTES: usize = 128 * 1024;

const ALL_BROKERS_DOWN: RDKafkaErrorCode = RDKafkaErrorCode::AllBrokersDown;

/// What a producer reports about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Kafka stored it and returned its offset.
    Acked,
    /// Kafka will never take this record.
    Rejected(String),
    /// Kafka rejected a batch without naming a record. The culprit may be this record or another
    /// one.
    Suspect(String),
    /// Kafka rejected the batch because of another record, or because of its size. It may take this
    /// record.
    Bystander,
    /// Anything else: the record may be in the topic or not.
    Failed(String),
}

/// Reports on records of one topic.
pub(crate) struct Reports {
    pub(crate) topic: String,
    pub(crate) records: Vec<(u64, Report)>,
    /// Kafka rejected the batch because of its size. Smaller ones, by another producer, show which
    /// record is too large by itself.
    pub(crate) is_too_large: bool,
}

/// Why the producer did not take a record.
pub(crate) enum SendError {
    /// librdkafka's queue is full; the same record can be sent again.
    Full,
    /// No producer can take this record.
    Rejected(String),
    /// This producer does not take it now: it has failed, or the topic is missing or forbidden.
    Failed(String),
}

/// How a producer keeps the order of what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// A record may overtake another one of the same partition if Kafka refuses the first and takes
    /// the second. Up to five requests are under way for each broker.
    Relaxed,
    /// Nothing overtakes. One request is under way for each broker, and the producer fails with the
    /// first record that Kafka rejects.
    Strict,
}

/// One librdkafka producer, used from its creation to its first failure.
pub(crate) struct Producer {
    // First, because it must be dropped before the client.
    events: EventQueue,
    inner: BaseProducer<Callbacks>,
    status: Arc<BrokerStatus>,
    is_main: bool,
    batch_bytes: usize,
}

impl Producer {
    /// Creates a producer. The main one stands for the service's connection to Kafka: it reports to
    /// `status` whether brokers can be reached, and has statistics each second. A batch takes no
    /// further record beyond `batch_bytes`.
    pub(crate) fn new(
        settings: &KafkaSettings,
        ordering: Ordering,
        is_main: bool,
        batch_bytes: usize,
        status: &Arc<BrokerStatus>,
    ) -> Result<Self, Error> {
        let mut config = config(settings.client(), ordering);
        let configured = config.get("batch.size").and_then(|size| size.parse().ok());
        let batch_bytes = configured.unwrap_or(BATCH_BYTES).min(batch_bytes);
        config.set("batch.size", batch_bytes.to_string());
        if !is_main {
            config.set("statistics.interval.ms", "0");
        }
        let inner: BaseProducer<Callbacks> = config.create_with_context(Callbacks)?;
        Ok(Self {
            events: EventQueue::of(inner.client()),
            inner,
            status: Arc::clone(status),
            is_main,
            batch_bytes,
        })
    }

    /// The bytes after which a batch takes no further record.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Passes on all reports and statistics that wait in librdkafka. Does not block.
    pub(crate) fn poll(
        &self,
        mut on_reports: impl FnMut(Reports),
        mut on_statistics: impl FnMut(Statistics),
    ) {
        while let Some(event) = self.events.poll() {
            match event {
                Event::Reports(batch) => on_reports(judge(batch)),
                Event::Statistics(json) => {
                    if let Some(statistics) = Statistics::parse(&json) {
                        self.status.take_statistics(&statistics);
                        on_statistics(statistics);
                    }
                }
                Event::Error { code, .. } if code == ALL_BROKERS_DOWN && !self.is_main => {}
                Event::Error { code, reason } => self.status.take_error(code, &reason),
                Event::Log {
                    level,
                    facility,
                    message,
                } => log(level, &facility, &message),
            }
        }
    }

    /// Gives a record to librdkafka, which copies it. The report follows, with this number.
    pub(crate) fn send(&self, topic: &str, number: u64, record: &Record) -> Result<(), SendError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            });
        }
        let mut message = BaseRecord::with_opaque_to(topic, number as usize)
            .payload(record.value.as_ref())
            .timestamp(record.timestamp)
            .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key.as_ref());
        }
        self.inner.send(message).map_err(|(error, _)| {
            let code = error.rdkafka_error_code();
            if code == Some(RDKafkaErrorCode::QueueFull) {
                SendError::Full
            } else if code.is_some_and(is_final) {
                SendError::Rejected(error.to_string())
            } else {
                SendError::Failed(error.to_string())
            }
        })
    }

    /// The error after which this producer takes nothing any more.
    pub(crate) fn fatal_error(&self) -> Option<String> {
        let fatal = self.inner.client().fatal_error();
        fatal.map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// Connects to the cluster, so that the first record need not wait for it. Blocks for at most
    /// this time.
    pub(crate) fn connect(&self, timeout: Duration) {
        // librdkafka connects to the leaders of partitions when it has records for them.
        drop(self.inner.client().fetch_metadata(None, timeout));
    }

    /// Takes back every record that Kafka has not acknowledged; each is then reported as failed.
    pub(crate) fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }
}

/// What the reports on a batch say about each of its records.
///
/// If Kafka names the records that it rejects (KIP-467, brokers from 2.4 on), librdkafka gives the
/// others `InvalidDifferentRecord`, and the named ones `InvalidRecord` or, if there is only one, the
/// error of the batch. Otherwise all have the error of the batch. So it is known who is meant if
/// any record has another error than the batch, or if the batch has only one record.
fn judge(batch: Batch) -> Reports {
    let is_too_large = batch.records.len() > 1
        && matches!(
            batch.error,
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge
        );
    let differs = |code: RDKafkaErrorCode| code != batch.error;
    let is_named = batch.records.len() == 1
        || batch.records.iter().any(|record| differs(record.error)) && is_final(batch.error);
    let report = |code: RDKafkaErrorCode, offset: i64| match code {
        RDKafkaErrorCode::NoError if offset >= 0 => Report::Acked,
        // librdkafka's conclusion and not Kafka's answer.
        RDKafkaErrorCode::NoError => Report::Failed("acknowledged without an offset".to_owned()),
        RDKafkaErrorCode::InvalidDifferentRecord => Report::Bystander,
        _ if is_too_large => Report::Bystander,
        code => {
            let reason = KafkaError::MessageProduction(code).to_string();
            match is_final(code) {
                true if is_named => Report::Rejected(reason),
                true => Report::Suspect(reason),
                false => Report::Failed(reason),
            }
        }
    };
    let records = batch.records.iter();
    let records = records.map(|record| (record.number, report(record.error, record.offset)));
    Reports {
        records: records.collect(),
        topic: batch.topic,
        is_too_large,
    }
}

/// The configuration of every producer. The operator's properties, already in `client`, replace our
/// defaults; [`REFUSED`](super::REFUSED) keeps out those that the promises depend on.
pub(super) fn config(mut client: ClientConfig, ordering: Ordering) -> ClientConfig {
    let (messages, kilobytes, batch) = (
        (2 * MAX_IN_FLIGHT_RECORDS).to_string(),
        (256 * 1024).to_string(),
        BATCH_BYTES.to_string(),
    );
    for (key, default) in [
        // The publisher hands over many records at once; lingering would only add latency.
        ("linger.ms", "0"),
        ("compression.type", "lz4"),
        ("batch.size", &batch),
        // Six times as long, a dead connection is noticed: see `set_socket_timeout`.
        ("request.timeout.ms", "3000"),
        // A producer whose idle connections were closed connects again when it looks for the leaders
        // of its topics. The default of five minutes would be too late for its next record.
        ("topic.metadata.refresh.interval.ms", "10000"),
        // Notice a cluster that moves within one minute instead of five.
        ("metadata.recovery.rebootstrap.trigger.ms", "60000"),
        // The queue bounds what is in flight; librdkafka's queue only has to hold that.
        ("queue.buffering.max.messages", &messages),
        ("queue.buffering.max.kbytes", &kilobytes),
    ] {
        if client.get(key).is_none() {
            client.set(key, default);
        }
    }
    set_socket_timeout(&mut client);
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

/// librdkafka's callbacks. All that matters arrives as an [`Event`].
struct Callbacks;

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

/// Whether Kafka rejects the record itself, permanently. Everything else counts as an outage: a
/// missing topic, a missing right, and any code we do not know, because that must never drop an
/// event.
fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

#[cfg(test)]
mod tests {
    use super::super::events::RecordReport;
    use super::*;
    use RDKafkaErrorCode::{
        InvalidDifferentRecord, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge, NoError,
        NotEnoughReplicas,
    };

    fn reports(error: RDKafkaErrorCode, records: &[(RDKafkaErrorCode, i64)]) -> Vec<Report> {
        let records = records.iter().zip(0..);
        let records = records.map(|(&(error, offset), number)| RecordReport {
            number,
            error,
            offset,
        });
        let batch = Batch {
            topic: "t".to_owned(),
            error,
            records: records.collect(),
        };
        let reports = judge(batch).records;
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn short(report: &Report) -> &'static str {
        match report {
            Report::Acked => "acked",
            Report::Rejected(_) => "rejected",
            Report::Suspect(_) => "suspect",
            Report::Bystander => "bystander",
            Report::Failed(_) => "failed",
        }
    }

    #[test]
    fn a_rejection_counts_for_the_records_that_kafka_names() {
        for (batch, records, expected) in [
            (
                NoError,
                &[(NoError, 7), (NoError, -1)][..],
                &["acked", "failed"][..],
            ),
            // One record is named.
            (
                InvalidTimestamp,
                &[(InvalidDifferentRecord, -1), (InvalidTimestamp, -1)],
                &["bystander", "rejected"],
            ),
            // Two, and all of them.
            (
                InvalidTimestamp,
                &[
                    (InvalidRecord, -1),
                    (InvalidDifferentRecord, -1),
                    (InvalidRecord, -1),
                ],
                &["rejected", "bystander", "rejected"],
            ),
            (
                InvalidTimestamp,
                &[(InvalidRecord, -1), (InvalidRecord, -1)],
                &["rejected", "rejected"],
            ),
            // None, unless there is only one.
            (
                InvalidRecord,
                &[(InvalidRecord, -1), (InvalidRecord, -1)],
                &["suspect", "suspect"],
            ),
            (
                MessageSizeTooLarge,
                &[(MessageSizeTooLarge, -1), (MessageSizeTooLarge, -1)],
                &["bystander", "bystander"],
            ),
            (
                MessageSizeTooLarge,
                &[(MessageSizeTooLarge, -1)],
                &["rejected"],
            ),
            (NotEnoughReplicas, &[(NotEnoughReplicas, -1)], &["failed"]),
        ] {
            let reports = reports(batch, records);
            let reports: Vec<_> = reports.iter().map(short).collect();
            assert_eq!(reports, expected, "{batch:?}");
        }
    }

    #[test]
    fn a_socket_waits_longer_than_all_requests_under_way() {
        let timeout = |properties: &[(&str, &str)]| {
            let mut client = ClientConfig::new();
            for (key, value) in properties {
                client.set(*key, *value);
            }
            let config = config(client, Ordering::Relaxed);
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
