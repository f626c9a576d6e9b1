//! Dead letters as the service writes them, put into a topic without the service.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit};
use zim2kafka::event::{Reason, Record, Unpublishable, kind_of};

use super::app::PATIENCE;
use super::kafka::Kafka;

/// The dead letter of a body that is signed with this secret of any application.
pub(crate) fn dead_letter(secret: &str, body: &[u8], reason: Reason, received_at: i64) -> Record {
    let raw = RawCallback {
        body: body.to_vec().into(),
        content_type: Some("application/json".into()),
        trace: None,
        received_at,
    };
    let json = raw.json().expect("a callback");
    let unverified = json.decode().expect("a callback");
    let secrets = Secrets::parse_list(&format!("*={secret}")).expect("a list");
    let callback = secrets.authenticate(unverified, TimestampUnit::Auto);
    let callback = callback.expect("it is signed");
    let why = Unpublishable {
        reason,
        detail: "for a test".into(),
    };
    Record::dead_letter(&callback, kind_of(&callback).ok(), &why)
}

/// Puts them into a topic, and returns once Kafka has all.
pub(crate) fn put(kafka: &Kafka, topic: &str, records: impl IntoIterator<Item = Record>) {
    let mut client = kafka.client();
    client.set("linger.ms", "5");
    put_by(
        &client.create().expect("the settings are sound"),
        topic,
        records,
    );
}

/// The same with this producer, which may have begun a transaction.
pub(crate) fn put_by(
    producer: &BaseProducer,
    topic: &str,
    records: impl IntoIterator<Item = Record>,
) {
    for record in records {
        loop {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                let value = Some(value.as_ref());
                headers = headers.insert(Header { key, value });
            }
            let mut message = BaseRecord::to(topic)
                .payload(record.value.as_ref())
                .timestamp(record.timestamp)
                .headers(headers);
            if let Some(key) = &record.key {
                message = message.key(key.as_ref());
            }
            match producer.send::<[u8], [u8]>(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.poll(PATIENCE / 300);
                }
                Err((error, _)) => panic!("{topic}: {error}"),
            }
        }
    }
    producer.flush(PATIENCE).expect("Kafka takes them");
}
