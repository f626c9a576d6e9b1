//! Inspects the topics before they are needed, and creates missing ones if that is enabled.
//!
//! `acks=all` protects records only as well as the settings of their topic allow, so settings that
//! weaken a promise are reported.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::consumer::QuietContext;
use super::rights::may_write;
use super::{CreateTopics, Error, KafkaSettings, MAX_MESSAGE_BYTES};
use crate::finding::Finding;

/// The time for Kafka's answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The code for a topic that does not exist.
const TOPIC_MISSING: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

/// Inspects the topics of events and dead letters.
pub struct Topics {
    admin: Arc<AdminClient<QuietContext>>,
    names: [String; 2],
    create: Option<CreateTopics>,
}

/// The result of an inspection.
pub struct Inspection {
    /// All findings, those about the topic of events first.
    pub findings: Vec<Finding>,
    /// Whether the topic of events exists.
    pub topic_found: bool,
}

impl Topics {
    /// Creates a client. Kafka need not be reachable yet.
    ///
    /// # Errors
    ///
    /// If librdkafka does not accept the settings.
    pub fn new(settings: &KafkaSettings) -> Result<Self, Error> {
        Ok(Self {
            admin: Arc::new(settings.client().create_with_context(QuietContext)?),
            names: [settings.topic.clone(), settings.dead_letter_topic.clone()],
            create: settings.create_topics,
        })
    }

    /// Inspects both topics. Creates those that are missing, if that is enabled.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer within 5 s.
    pub async fn inspect(&self) -> Result<Inspection, Error> {
        let mut findings = Vec::new();
        let mut exist = Vec::new();
        for name in &self.names {
            let mut found = self.describe(name).await?;
            if let (Err(TOPIC_MISSING), Some(create)) = (&found, self.create) {
                findings.push(self.create(name, create).await);
                found = self.describe(name).await?;
            }
            exist.push(found.is_ok());
            match found {
                Ok(topic) => findings.extend(self.judge(name, &topic).await),
                Err(TOPIC_MISSING) => findings.push(Finding::error(
                    name,
                    "the topic does not exist; create it, or set ZIM2KAFKA_CREATE_TOPICS=true",
                )),
                Err(code) => findings.push(Finding::error(
                    name,
                    format!("cannot describe the topic: {code}; grant the right Describe on it"),
                )),
            }
        }
        Ok(Inspection {
            findings,
            topic_found: exist.first() == Some(&true),
        })
    }

    /// Describes the topic. The inner error is Kafka's reason why it does not.
    async fn describe(&self, name: &str) -> Result<Result<Topic, RDKafkaErrorCode>, Error> {
        let (admin, wanted) = (Arc::clone(&self.admin), name.to_owned());
        let ask = move || admin.inner().fetch_metadata(Some(&wanted), REQUEST_TIMEOUT);
        let metadata = tokio::task::spawn_blocking(ask)
            .await
            .map_err(|_| KafkaError::Canceled)??;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(Err(TOPIC_MISSING));
        };
        let replicas = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len());
        Ok(match topic.error() {
            Some(error) => Err(error.into()),
            None => Ok(Topic {
                partitions: topic.partitions().len(),
                replicas: replicas.min().unwrap_or(0),
            }),
        })
    }

    async fn create(&self, name: &str, create: CreateTopics) -> Finding {
        // -1 stands for the broker's default.
        let replication = TopicReplication::Fixed(create.replication.unwrap_or(-1));
        let topic = NewTopic::new(name, create.partitions, replication);
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let results = match self.admin.create_topics([&topic], &options).await {
            Ok(results) => results,
            Err(error) => {
                return Finding::error(
                    name,
                    format!(
                        "cannot create the topic: {error}; grant the right Create, or create it yourself"
                    ),
                );
            }
        };
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                Finding::ok(name, "created by another client in the meantime")
            }
            Some(Err((_, code))) => Finding::error(
                name,
                format!(
                    "cannot create the topic: {code}; grant the right Create, or create it yourself"
                ),
            ),
            _ => Finding::ok(
                name,
                format!("created with {} partitions", create.partitions),
            ),
        }
    }

    async fn judge(&self, name: &str, topic: &Topic) -> Vec<Finding> {
        let mut findings = vec![Finding::ok(
            name,
            format!("{} partitions", topic.partitions),
        )];
        let (admin, topic_name) = (Arc::clone(&self.admin), name.to_owned());
        let ask = move || may_write(admin.inner(), &topic_name, REQUEST_TIMEOUT);
        match tokio::task::spawn_blocking(ask).await.unwrap_or(None) {
            Some(true) => findings.push(Finding::ok(name, "is writable")),
            Some(false) => findings.push(Finding::error(
                name,
                "is not writable; grant the service's user the right Write on it",
            )),
            None => {}
        }
        findings.push(match topic.replicas {
            replicas @ 0..3 => Finding::warning(
                name,
                format!(
                    "replication factor {replicas}: an acknowledged record has fewer than 3 copies; use 3"
                ),
            ),
            replicas => Finding::ok(name, format!("replication factor {replicas}")),
        });
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let asked = [ResourceSpecifier::Topic(name)];
        let unread = |why: &dyn fmt::Display| {
            let text =
                format!("cannot read its configuration ({why}); grant the right DescribeConfigs");
            vec![Finding::warning(name, text)]
        };
        let answer = self.admin.describe_configs(&asked, &options).await;
        findings.extend(match answer.map(|answer| answer.into_iter().next()) {
            Ok(Some(Ok(config))) => judge_config(name, &config),
            Ok(Some(Err(code))) => unread(&code),
            Ok(None) => unread(&"no answer"),
            Err(error) => unread(&error),
        });
        findings
    }
}

struct Topic {
    partitions: usize,
    replicas: usize,
}

fn judge_config(name: &str, config: &ConfigResource) -> Vec<Finding> {
    let value = |key| config.get(key).and_then(|entry| entry.value.as_deref());
    let number = |key| value(key).and_then(|text| text.parse::<usize>().ok());
    let mut findings = Vec::new();
    findings.push(match number("min.insync.replicas") {
        Some(in_sync @ 2..) => Finding::ok(name, format!("min.insync.replicas {in_sync}")),
        in_sync => Finding::warning(
            name,
            format!(
                "min.insync.replicas {}: a record may be acknowledged while only one broker has it; set it to 2",
                in_sync.map_or("unknown".to_owned(), |number| number.to_string())
            ),
        ),
    });
    if value("unclean.leader.election.enable") == Some("true") {
        findings.push(Finding::warning(
            name,
            "unclean.leader.election.enable is true: a broker that lags behind may become leader and lose acknowledged records; set it to false",
        ));
    }
    if let Some(limit) = number("max.message.bytes").filter(|limit| *limit < MAX_MESSAGE_BYTES) {
        findings.push(Finding::error(
            name,
            format!("max.message.bytes is {limit}; set it to {MAX_MESSAGE_BYTES} or more"),
        ));
    }
    findings
}
