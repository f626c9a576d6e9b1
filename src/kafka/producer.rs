//! The producer of a lane, and what its delivery reports mean.
//!
//! Not `FutureProducer`: if librdkafka's queue is full, that one sleeps 100 ms and retries while
//! later records overtake (rust-rdkafka issue 468). Here one thread sends, and every report carries
//! the record's number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};

use super::{BrokerStatus, Error, KafkaSettings, MAX_MESSAGE_BYTES};
use crate::event::Record;
use crate::failpoint;

/// The most records that a producer may hold, counted from its oldest unacknowledged one. This also
/// bounds how many duplicates a crash or a new producer can cause.
pub const MAX_IN_FLIGHT_RECORDS: usize = 10_000;

/// The bytes after which a producer takes no further record.
pub const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

/// What a producer reports about one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report<'a> {
    /// Kafka stored it and returned its offset.
    Acked,
    /// Kafka will never take this record, or another one of the same batch.
    Rejected(&'a str),
    /// Anything else: the record may be in the topic or not.
    Failed(&'a str),
}

/// Why the producer did not take a record.
pub(crate) enum SendError {
    /// librdkafka's queue is full; the same record can be sent again.
    Full,
    /// No producer can take this record.
    Rejected(String),
    /// This producer takes nothing any more.
    Failed(String),
}

/// One librdkafka producer, used from its creation to its first failure.
pub(crate) struct Producer {
    inner: BaseProducer<DeliveryContext>,
}

impl Producer {
    /// Creates a producer. `on_report` gets every report with the record's number, on the thread
    /// that calls [`poll`](Self::poll).
    pub(crate) fn new(
        settings: &KafkaSettings,
        status: &Arc<BrokerStatus>,
        on_report: impl Fn(u64, Report<'_>) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let context = DeliveryContext {
            on_report: Box::new(on_report),
            status: Arc::clone(status),
            has_news: AtomicBool::new(false),
        };
        let inner = config(settings.client()).create_with_context(context)?;
        Ok(Self { inner })
    }

    /// Delivers all reports and events that wait in librdkafka. Does not block.
    pub(crate) fn poll(&self) {
        loop {
            // A poll without a timeout delivers at most one event; one event holds all reports of
            // a request.
            self.inner.poll(Duration::ZERO);
            if !self.inner.context().has_news.swap(false, Ordering::Relaxed) {
                return;
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
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                SendError::Full
            } else if is_final(&error) {
                SendError::Rejected(error.to_string())
            } else {
                SendError::Failed(self.cause(&error))
            }
        })
    }

    /// Takes back every record that Kafka has not acknowledged; each is then reported as failed.
    pub(crate) fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }

    /// The cause of a fatal error.
    fn cause(&self, error: &KafkaError) -> String {
        match self.inner.client().fatal_error() {
            Some((code, reason)) => format!("{code}: {reason}"),
            None => error.to_string(),
        }
    }
}

/// The configuration of every producer. The operator's properties, already in `client`, replace our
/// defaults; [`REFUSED`](super::REFUSED) keeps out those that the promises depend on.
pub(super) fn config(mut client: ClientConfig) -> ClientConfig {
    let (messages, kilobytes) = (
        (2 * MAX_IN_FLIGHT_RECORDS).to_string(),
        (256 * 1024).to_string(),
    );
    for (key, default) in [
        // The publisher hands over whole batches; lingering would only add latency.
        ("linger.ms", "0"),
        ("compression.type", "lz4"),
        ("request.timeout.ms", "5000"),
        ("socket.timeout.ms", "10000"),
        // Notice a cluster that moves within one minute instead of five.
        ("topic.metadata.refresh.interval.ms", "60000"),
        ("metadata.recovery.rebootstrap.trigger.ms", "60000"),
        // The queue's window bounds what is in flight; librdkafka's queue only has to hold that.
        ("queue.buffering.max.messages", &messages),
        ("queue.buffering.max.kbytes", &kilobytes),
    ] {
        if client.get(key).is_none() {
            client.set(key, default);
        }
    }
    client
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        // A broker checks the order of requests against what it remembers of a producer. If it has
        // forgotten that (for example, the topic was deleted and created again), it accepts the
        // second request although the first one failed, and librdkafka concludes that the first one
        // succeeded too ("implicit ack"). One request at a time avoids this. benches/README.md has
        // the cost and the alternatives.
        .set("max.in.flight.requests.per.connection", "1")
        // The largest value. Not 0, which means endless too: librdkafka computes its latency
        // statistics from this value.
        .set("message.timeout.ms", "2147483647")
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", "1000");
    client
}

/// Passes on what librdkafka reports during a poll.
struct DeliveryContext {
    on_report: Box<dyn Fn(u64, Report<'_>) + Send + Sync>,
    status: Arc<BrokerStatus>,
    /// Whether a callback has run since the last look.
    has_news: AtomicBool,
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        failpoint::hit("reports");
        self.has_news.store(true, Ordering::Relaxed);
        let number = number as u64;
        match result {
            // A success without an offset is librdkafka's conclusion and not Kafka's answer.
            Ok(message) if message.offset() < 0 => {
                (self.on_report)(number, Report::Failed("acknowledged without an offset"));
            }
            Ok(_) => (self.on_report)(number, Report::Acked),
            Err((error, _)) => {
                let reason = error.to_string();
                let report = match is_final(error) {
                    true => Report::Rejected(&reason),
                    false => Report::Failed(&reason),
                };
                (self.on_report)(number, report);
            }
        }
    }
}

impl ClientContext for DeliveryContext {
    fn stats_raw(&self, statistics: &[u8]) {
        self.has_news.store(true, Ordering::Relaxed);
        self.status.read_statistics(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.has_news.store(true, Ordering::Relaxed);
        self.status.take_error(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.has_news.store(true, Ordering::Relaxed);
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
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::InvalidRecord,
        )
    )
}
