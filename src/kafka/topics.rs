//! Inspects the topics before they are needed, and creates missing ones if that is enabled.
//!
//! `acks=all` protects records only as well as the settings of their topic allow, so settings that
//! weaken a promise are reported.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::consumer::QuietContext;
use super::rights::may_write;
use super::{CreateTopics, Error, KafkaSettings, MAX_MESSAGE_BYTES};
use crate::event::Routes;
use crate::finding::{Finding, Level};

/// The time for Kafka's answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a topic that was created is described again.
const CREATED_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long brokers remember a producer unless they are told otherwise: the default of
/// `producer.id.expiration.ms`.
const DEFAULT_PRODUCER_EXPIRATION: Duration = Duration::from_secs(86_400);

/// The code for a topic that does not exist.
const TOPIC_MISSING: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

/// Inspects the topics of events and dead letters.
pub struct Topics {
    admin: Arc<AdminClient<QuietContext>>,
    routes: Routes,
    create: Option<CreateTopics>,
}

/// The result of an inspection.
pub struct Inspection {
    /// All findings, in the order of [`Routes::topics`].
    pub findings: Vec<Finding>,
    /// Whether a topic of events exists.
    pub topic_found: bool,
    /// How long Kafka remembers a producer after its last record.
    pub producer_expiration: Duration,
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
            routes: settings.routes.clone(),
            create: settings.create_topics,
        })
    }

    /// Inspects all topics, and how far away Kafka is from a service that waits for it for
    /// `spool_after`. Creates topics that are missing, if that is enabled.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer within 5 s.
    pub async fn inspect(&self, spool_after: Option<Duration>) -> Result<Inspection, Error> {
        let round_trip = self.round_trip().await?;
        let mut findings = Vec::from_iter(judge_round_trip(round_trip, spool_after));
        let producer_expiration = self.producer_expiration().await;
        let producer_expiration = producer_expiration.unwrap_or(DEFAULT_PRODUCER_EXPIRATION);
        findings.extend(judge_producer_expiration(producer_expiration));
        let mut topic_found = false;
        for (place, name) in self.routes.topics().enumerate() {
            let mut found = self.describe(name).await?;
            let mut is_created = false;
            if let (Err(TOPIC_MISSING), Some(create)) = (&found, self.create) {
                let created = self.create(name, create).await;
                is_created = created.level < Level::Error;
                findings.push(created);
                found = match is_created {
                    true => self.describe_created(name).await?,
                    false => continue,
                };
            }
            topic_found |= found.is_ok() && place < self.routes.event_topics().len();
            match found {
                Ok(topic) => findings.extend(self.judge(name, &topic).await),
                Err(TOPIC_MISSING) if is_created => findings.push(Finding::error(
                    name,
                    "the topic was created, but the brokers do not know it yet; looking again",
                )),
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
            topic_found,
            producer_expiration,
        })
    }

    /// The shortest time of three requests. The first one includes the connection.
    async fn round_trip(&self) -> Result<Duration, Error> {
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            if let Some(name) = self.routes.topics().next() {
                drop(self.describe(name).await?);
            }
            shortest = shortest.min(began.elapsed());
        }
        Ok(shortest)
    }

    /// How long Kafka remembers a producer, as one of its brokers says; `None` if it does not.
    async fn producer_expiration(&self) -> Option<Duration> {
        let admin = Arc::clone(&self.admin);
        let topic = self.routes.topics().next()?.to_owned();
        let ask = move || admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT);
        let metadata = tokio::task::spawn_blocking(ask).await.ok()?.ok()?;
        let asked = [ResourceSpecifier::Broker(metadata.brokers().first()?.id())];
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let answer = self.admin.describe_configs(&asked, &options).await.ok()?;
        let config = answer.into_iter().next()?.ok()?;
        let value = config.get("producer.id.expiration.ms")?.value.as_deref();
        value?.parse().ok().map(Duration::from_millis)
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

    /// Describes a topic that was just created. Brokers learn of it one by one.
    async fn describe_created(&self, name: &str) -> Result<Result<Topic, RDKafkaErrorCode>, Error> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let found = self.describe(name).await?;
            if !matches!(found, Err(TOPIC_MISSING)) || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(CREATED_RETRY_PAUSE).await;
        }
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
            _ => {
                let text = format!("created with {} partitions", create.partitions);
                tracing::info!("{name}: {text}");
                Finding::ok(name, text)
            }
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

/// A record may wait for the requests before it, and is written by the broker: with less than three
/// round trips of time, events would be written to the spool while Kafka works.
fn judge_round_trip(round_trip: Duration, spool_after: Option<Duration>) -> Option<Finding> {
    let needed = 3 * round_trip;
    let after = spool_after.filter(|after| needed > *after && !after.is_zero())?;
    Some(Finding::warning(
        "Kafka",
        format!(
            "a request takes {} ms; three take longer than ZIM2KAFKA_SPOOL_AFTER ({} ms), so events go to the spool while Kafka works; set it to {}ms or more",
            round_trip.as_millis(),
            after.as_millis(),
            2 * needed.as_millis()
        ),
    ))
}

/// Kafka refuses a record that comes after a missing one only if it remembers the producer. If it
/// forgets one, the events of a group cannot leave the spool in large requests.
fn judge_producer_expiration(expiration: Duration) -> Option<Finding> {
    (expiration < DEFAULT_PRODUCER_EXPIRATION).then(|| {
        Finding::warning(
            "Kafka",
            format!(
                "producer.id.expiration.ms is {}: events of a group that have waited in the spool for half of that time are published one by one; set it to {} on the brokers",
                expiration.as_millis(),
                DEFAULT_PRODUCER_EXPIRATION.as_millis()
            ),
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kafka_that_is_too_far_away_for_the_time_before_the_spool_is_a_warning() {
        let ms = Duration::from_millis;
        for (round_trip, after, is_warning) in [
            (90, Some(250), true),
            (83, Some(250), false),
            (90, Some(0), false),
            (90, None, false),
        ] {
            let finding = judge_round_trip(ms(round_trip), after.map(ms));
            assert_eq!(finding.is_some(), is_warning, "{round_trip} {after:?}");
        }
        let finding = judge_round_trip(ms(90), Some(ms(250))).expect("a warning");
        assert!(finding.text.contains("540ms"), "{}", finding.text);
    }
}
