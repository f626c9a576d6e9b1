//! Why dead letters cannot be read, or records cannot be published in a transaction.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why a transfer from one topic to others failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A topic does not exist.
    #[error("the topic {0} does not exist; create it, or correct its name")]
    Missing(String),
    /// A right is missing.
    #[error("Kafka does not allow that; grant this user the rights {rights} on {on}")]
    Forbidden {
        /// The rights.
        rights: &'static str,
        /// What they are about.
        on: String,
    },
    /// Another client has begun with the same transactional id.
    #[error(
        "another `redrive` with the same filters has begun, so this one ends; the other one continues, and nothing is published twice"
    )]
    Fenced,
    /// Kafka does not deliver the records of a topic.
    #[error("Kafka has delivered no record of the topic {0} for {1:?}; check that all brokers run")]
    Silent(String, Duration),
    /// A transaction stays open.
    #[error(
        "a transaction in the topic {0} has neither been committed nor aborted for 40 s, so it is not known what earlier redrives have published; end the producer that has it open, then run this again"
    )]
    Undecided(String),
    /// A topic takes no records. The text follows the topic's name.
    #[error("the topic {topic} {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The transaction has failed for another reason.
    #[error("the transaction has failed ({0}); check that all brokers run")]
    Failed(String),
    /// Kafka does not begin transactions in time.
    #[error(
        "Kafka does not start a transactional producer within {0:?}; check ZIM2KAFKA_KAFKA_BROKERS, and that the topic __transaction_state has leaders"
    )]
    NotStarted(Duration),
    /// Anything else.
    #[error("{0}; check ZIM2KAFKA_KAFKA_BROKERS and the network")]
    Kafka(KafkaError),
}

impl TransferError {
    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Topic { .. } | Self::Failed(_) | Self::Kafka(_))
    }

    /// The error of a request about reading this topic.
    pub(super) fn reading(topic: &str, error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                Self::Missing(topic.to_owned())
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Self::Forbidden {
                rights: "Read and Describe",
                on: format!("the topic {topic}"),
            },
            _ => Self::Kafka(error),
        }
    }

    /// The error of a request about the consumer group, or the transactional id, of this name.
    pub(super) fn of_group(group: &str, error: KafkaError) -> Self {
        let code = match &error {
            KafkaError::Transaction(error) => Some(error.code()),
            error => error.rdkafka_error_code(),
        };
        let forbidden = |rights, on: &str| Self::Forbidden {
            rights,
            on: format!("{on}{group}, or on all that begin with {PREFIX}"),
        };
        match code {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                forbidden("Read and Describe", "the consumer group ")
            }
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
                forbidden("Write and Describe", "the transactional id ")
            }
            Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => Self::Forbidden {
                rights: "IdempotentWrite",
                on: "the cluster".to_owned(),
            },
            Some(code) if is_fenced(code) => Self::Fenced,
            _ => Self::Kafka(error),
        }
    }
}

/// How the names of the groups of `redrive` begin, and its transactional ids, which are the same.
pub const PREFIX: &str = "zim2kafka-redrive-";

/// Whether a newer client uses the same transactional id.
pub(super) fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
