//! The partition of each key, as Kafka's own code computes it.

use std::collections::BTreeMap;

use serde::Deserialize;

pub(crate) const TABLE: &str = include_str!("../../fixtures/partitions.json");

/// What `tests/kafka/Partitions.java` computed with Kafka's own code.
#[derive(Deserialize)]
pub(crate) struct Table {
    pub(crate) partition_counts: Vec<i32>,
    pub(crate) keys: Vec<Row>,
}

#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    /// One for each of the counts.
    partitions: Vec<i32>,
}

impl Table {
    pub(crate) fn committed() -> Table {
        serde_json::from_str(TABLE).expect("the committed table is JSON")
    }

    /// The partition of each key in a topic with `count` partitions.
    pub(crate) fn of_topic_with(&self, count: i32) -> BTreeMap<&str, i32> {
        let column = self.partition_counts.iter().position(|of| *of == count);
        let column = column.expect("the table has a column for this count");
        let partition = |row: &Row| {
            *row.partitions
                .get(column)
                .expect("one partition for each count")
        };
        self.keys
            .iter()
            .map(|row| (row.key.as_str(), partition(row)))
            .collect()
    }
}
