//! Records lie where a Java producer would put them: else a Kafka Streams or Flink join by group
//! would miss, silently.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::support::kafka::{kafka, run_java};
use crate::support::partitions::{TABLE, Table};

#[test]
fn the_committed_partition_table_is_what_kafkas_own_code_computes() {
    let Some(computed) = run_java("Partitions.java", &[]) else {
        return;
    };
    assert_eq!(computed, TABLE);
}

#[test]
fn librdkafkas_murmur2_random_puts_every_key_where_the_java_client_does() {
    let Some(kafka) = kafka() else { return };
    let table = Table::committed();
    assert!(
        table.keys.len() >= 60,
        "a table of {} keys is not the table",
        table.keys.len()
    );
    for count in [12, 3] {
        let topic = kafka.unique_topic("partitions");
        kafka.create_topic(&topic, count, &[]);
        let producer: ThreadedProducer<DefaultProducerContext> = kafka
            .client()
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        for row in &table.keys {
            let record = BaseRecord::to(&topic).key(&row.key).payload("");
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("there is room for the table");
        }
        producer
            .flush(Duration::from_secs(30))
            .expect("the broker takes the table");

        let records = kafka.read_all(&topic);
        assert_eq!(records.len(), table.keys.len());
        let found: BTreeMap<&str, i32> = records
            .iter()
            .map(|record| {
                let key = record.key.as_deref().expect("an empty key is still a key");
                (
                    str::from_utf8(key).expect("the keys are text"),
                    record.partition,
                )
            })
            .collect();
        assert_eq!(found, table.of_topic_with(count));
    }
}
