//! The producer of a lane, and what its reports mean.
//!
//! Not `FutureProducer`: on a full queue that sleeps 100 ms and tries again while later records
//! overtake (rust-rdkafka #468). Here one thread sends, and the report comes back with the number.

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

use super::{Connection, Error, KafkaSettings, MAX_MESSAGE_BYTES};
use crate::config::panic_if_asked;
use crate::delivery::queue::{MAX_IN_FLIGHT, Queue, Report};
use crate::event::Record;

/// One producer's life: from its making to its first failure.
pub(in crate::delivery) struct Producer {
    inner: BaseProducer<Reports>,
    generation: u64,
}

/// Why a record was not taken by the producer.
pub(in crate::delivery) enum SendError {
    /// Its own queue is full; the same record can be tried again.
    Full,
    /// It takes no record of this kind, ever.
    Unacceptable(String),
    /// This producer takes nothing any more.
    Failed(String),
}

impl Producer {
    pub(in crate::delivery) fn new(
        settings: &KafkaSettings,
        generation: u64,
        queue: Arc<Queue>,
        connection: &Arc<Connection>,
    ) -> Result<Self, Error> {
        let reports = Reports {
            generation,
            queue,
            connection: Arc::clone(connection),
            news: AtomicBool::new(false),
        };
        let inner = config(settings.client()).create_with_context(reports)?;
        Ok(Self { inner, generation })
    }

    pub(in crate::delivery) fn generation(&self) -> u64 {
        self.generation
    }

    /// Brings everything that the producer has to say, reports above all, to the queue. Does not wait.
    pub(in crate::delivery) fn poll(&self) {
        loop {
            // Without time to wait, this brings one event, or none: all the reports of a request are one.
            self.inner.poll(Duration::ZERO);
            if !self.inner.context().news.swap(false, Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Gives a record to librdkafka, which copies it. Its report comes later, with its number.
    pub(in crate::delivery) fn send(
        &self,
        topic: &str,
        number: u64,
        record: &Record,
    ) -> Result<(), SendError> {
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
                return SendError::Full;
            }
            match classify(&error) {
                Verdict::Unacceptable => SendError::Unacceptable(error.to_string()),
                Verdict::Failed => SendError::Failed(self.cause(&error)),
            }
        })
    }

    /// Takes back what Kafka has not acknowledged: every such record is then reported as failed.
    pub(in crate::delivery) fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }

    /// "Fatal error" says nothing; what made it fatal does.
    fn cause(&self, error: &KafkaError) -> String {
        match self.inner.client().fatal_error() {
            Some((code, reason)) => format!("{code}: {reason}"),
            None => error.to_string(),
        }
    }
}

/// What every producer of ours is like. The operator's properties, which are in `client`, go before
/// our defaults; none of those that the promises rest on gets past [`super::REFUSED`].
pub(super) fn config(mut client: ClientConfig) -> ClientConfig {
    let (messages, kilobytes) = ((2 * MAX_IN_FLIGHT).to_string(), (256 * 1024).to_string());
    for (key, default) in [
        // The feeder hands over what has gathered; there is nothing more to wait for.
        ("linger.ms", "0"),
        ("compression.type", "lz4"),
        ("request.timeout.ms", "5000"),
        ("socket.timeout.ms", "10000"),
        // A cluster that moves is noticed within a minute, not five.
        ("topic.metadata.refresh.interval.ms", "60000"),
        ("metadata.recovery.rebootstrap.trigger.ms", "60000"),
        // The window is the queue's; librdkafka only has to be wide enough for it.
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
        // Kafka knows the order of requests by what a producer wrote before. Where it has forgotten
        // that, as in a topic that was deleted and made again, it takes the second request although
        // the first one failed, and librdkafka concludes that it must have taken the first one too
        // ("implicit ack"). So none is sent before the one in front of it is answered. What that costs, and
        // why nothing cheaper will do: benches/README.md.
        .set("max.in.flight.requests.per.connection", "1")
        // The longest there is. Not 0, which means endless too, because librdkafka computes its
        // latency statistics from this value.
        .set("message.timeout.ms", "2147483647")
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", "1000");
    client
}

/// Brings a producer's reports to the queue, with the producer's generation, while the feeder polls.
struct Reports {
    generation: u64,
    queue: Arc<Queue>,
    connection: Arc<Connection>,
    /// Whether anything was said.
    news: AtomicBool,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        panic_if_asked("reports");
        self.news.store(true, Ordering::Relaxed);
        let number = number as u64;
        match result {
            // Without a place in the topic, success is librdkafka's conclusion and not Kafka's word.
            Ok(message) if message.offset() < 0 => {
                let reason = "acknowledged without a place in the topic";
                self.queue
                    .report(self.generation, number, Report::Failed(reason));
            }
            Ok(_) => self.queue.report(self.generation, number, Report::Acked),
            Err((error, _)) => {
                let reason = error.to_string();
                let report = match classify(error) {
                    Verdict::Unacceptable => Report::Unacceptable(&reason),
                    Verdict::Failed => Report::Failed(&reason),
                };
                self.queue.report(self.generation, number, report);
            }
        }
    }
}

impl ClientContext for Reports {
    fn stats_raw(&self, statistics: &[u8]) {
        self.news.store(true, Ordering::Relaxed);
        self.connection.statistics(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.news.store(true, Ordering::Relaxed);
        self.connection.error(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.news.store(true, Ordering::Relaxed);
        log(level, facility, message);
    }
}

/// What matters comes as an error or a report too, once; the rest is for those who look for it.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

enum Verdict {
    /// Kafka refuses the record for what it is.
    Unacceptable,
    /// Anything else. A missing topic or a missing right is an outage, and what we do not know is
    /// taken for one: an unknown code must never drop an event.
    Failed,
}

/// The one place that says which errors are final for a record.
fn classify(error: &KafkaError) -> Verdict {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord,
        ) => Verdict::Unacceptable,
        _ => Verdict::Failed,
    }
}
