//! Tests of the support code: what `support` promises to the other tests.

mod disk;
mod distance;
mod kafka;
mod produce;
mod proxy;
mod start;
mod volume;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const SOON: Duration = Duration::from_secs(30);

/// Publishes one record, and returns once the brokers have it, or have refused it.
fn publish(client: &ClientConfig, topic: &str, key: &str) -> Result<(), KafkaError> {
    use rdkafka::ClientContext;
    use rdkafka::message::DeliveryResult;
    use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
    use std::sync::mpsc::{Sender, channel};

    struct Report(Sender<Result<(), KafkaError>>);
    impl ClientContext for Report {}
    impl ProducerContext<NoCustomPartitioner> for Report {
        type DeliveryOpaque = ();
        fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
            let result = result.as_ref().map(|_| ());
            let _ = self.0.send(result.map_err(|(error, _)| error.clone()));
        }
    }

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
        .timestamp(1_700_000_000_123)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(SOON)?;
    reports.recv().expect("a flushed producer has reported")
}
