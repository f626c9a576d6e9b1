//! Kafka through librdkafka. The only module that imports `rdkafka`.

mod bounded;
mod broker_status;
mod brokers;
mod client_config;
mod consumer;
mod embedded;
mod events;
mod failures;
mod listed;
mod offsets;
mod probe;
mod producer;
mod properties;
mod reports;
mod retry;
mod rights;
mod schema_ids;
mod statistics;
mod topic_settings;
mod topics;
mod transaction;
mod transfer;

use std::io;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::event::{EVENTS, Kind, Routes};
pub use bounded::{Begin, BoundedReader, Stored};
pub use broker_status::{BrokerStatus, Connection};
pub use brokers::{BrokerError, check_brokers};
pub(crate) use client_config::Ordering;
pub use consumer::{Consumed, StartFrom, Subscription};
pub use embedded::EmbeddedKafka;
pub use listed::Broker;
pub use probe::{Address, Reachability, Unreached, probe};
pub(crate) use producer::{PARTITION_DEPTH, Producer, SendError};
pub use properties::{Place, Problem, Properties, PropertyError, REFUSED};
pub(crate) use reports::{Report, Reports};
pub use schema_ids::SchemaIds;
pub(crate) use statistics::{Statistics, TopicStatistics};
pub use topics::{Inspection, TopicUse, Topics, judge_routes};
pub use transaction::{Commit, Transactions};
pub use transfer::{PREFIX as REDRIVE_PREFIX, TransferError};

/// The largest message that a producer hands to Kafka, in bytes. A topic must accept this size.
const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// The most records of a lane that its producers may hold. This also bounds how many duplicates a
/// crash or new producers can cause.
pub const MAX_IN_FLIGHT_RECORDS: usize = 10_000;

/// The bytes after which the producers take no further record of a lane.
pub const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

/// The brokers, the topics and how to talk to them.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers as `host:port`, separated by commas.
    pub brokers: String,
    /// The operator's librdkafka properties. They may hold passwords.
    pub properties: Properties,
    /// The topics of records.
    pub routes: Routes,
    /// How to create missing topics; `None` does not create any.
    pub create_topics: Option<CreateTopics>,
    /// The ids of schemas that values begin with; `None` publishes plain JSON.
    pub schema_ids: Option<Arc<SchemaIds>>,
}

/// How to create a topic.
#[derive(Debug, Clone, Copy)]
pub struct CreateTopics {
    /// Number of partitions.
    pub partitions: i32,
    /// Replication factor; `None` is the broker's default.
    pub replication: Option<i32>,
}

/// Why a Kafka client cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka does not accept the settings, or Kafka does not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The system does not start another thread.
    #[error("cannot start the thread of the embedded Kafka")]
    Thread(#[source] io::Error),
}

impl KafkaSettings {
    /// Whether all events of this topic have the id of their schema, if that is needed. Dead letters
    /// have no schema.
    pub(crate) fn has_schemas_for(&self, topic: &str) -> bool {
        let Some(ids) = &self.schema_ids else {
            return true;
        };
        let is_of_topic = |kind: &&Kind| self.routes.topic_of(kind.name) == Some(topic);
        let mut events = EVENTS.into_iter().filter(is_of_topic);
        ids.are_complete() || events.all(|kind| ids.has(kind.name))
    }

    /// The configuration that all our clients share.
    fn client(&self) -> ClientConfig {
        let mut config = self.properties.client();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

/// The version of librdkafka that is linked.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
