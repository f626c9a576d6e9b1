//! One record at a time, by a client of its own.

use std::sync::mpsc::{Sender, channel};
use std::time::SystemTime;

use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::PATIENCE;

struct Report(Sender<Result<(), KafkaError>>);

impl ClientContext for Report {}

impl ProducerContext<NoCustomPartitioner> for Report {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(|_| ());
        let _ = self.0.send(result.map_err(|(error, _)| error.clone()));
    }
}

/// In milliseconds. Brokers forget an idempotent producer whose records are older than
/// `producer.id.expiration.ms`, and then take its retries for new records.
pub(crate) fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("it is later");
    i64::try_from(since.as_millis()).expect("it is not that late")
}

/// Publishes one record, and returns once the brokers have it, or have refused it.
pub(crate) fn publish(client: &ClientConfig, topic: &str, key: &str) -> Result<(), KafkaError> {
    let (report, reports) = channel();
    let producer: BaseProducer<Report> = client.create_with_context(Report(report))?;
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: "first",
            value: Some("1"),
        })
        .insert(Header {
            key: "second",
            value: Some("zwei"),
        });
    let record = BaseRecord::to(topic)
        .key(key)
        .payload("value")
        .timestamp(now())
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(PATIENCE)?;
    reports.recv().expect("a flushed producer has reported")
}
