//! Inspects the topics before they are needed, and creates missing ones if that is enabled.
//!
//! `acks=all` protects records only as well as the settings of their topic allow, so settings that
//! weaken a promise are reported.

mod findings;
mod routing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::OnceCell;

use super::consumer::QuietContext;
use super::rights::may_write;
use super::topic_settings::{Content, Partition, Settings, Topic};
use super::{CreateTopics, Error, KafkaSettings};
use crate::event::{Routes, Target};
use crate::finding::Finding;
use crate::spool::SpoolSettings;
use findings::{
    DEFAULT_PRODUCER_EXPIRATION, TOPIC_MISSING, UNJUDGED, is_of_new_topic,
    judge_producer_expiration, judge_replication, judge_round_trip, not_created, not_writable,
    to_be_created, undescribed, unread,
};
use routing::judge_partitions;
pub use routing::judge_routes;

/// The time for Kafka's answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker may not know a topic that has just been created, and the pause before it is
/// asked again.
const CREATION_TIME: Duration = Duration::from_secs(5);
const CREATION_PAUSE: Duration = Duration::from_millis(100);

/// How long the settings are requested again while Kafka does not return them.
const SETTINGS_TIME: Duration = Duration::from_secs(1);

/// Inspects the topics of events and dead letters.
pub struct Topics {
    admin: Arc<AdminClient<QuietContext>>,
    routes: Routes,
    create: Option<CreateTopics>,
    /// Whether Kafka only checks if a missing topic could be created.
    validate_only: bool,
    /// Measured once: it differs each time, and so would a finding about it.
    round_trip: OnceCell<Duration>,
}

/// How the service uses its topics.
#[derive(Debug, Clone)]
pub struct TopicUse {
    /// How far the timestamp of an event may be from now; `None` is any distance.
    pub timestamp_tolerance: Option<Duration>,
    /// Where events wait while Kafka is late, if anywhere.
    pub spool: Option<SpoolSettings>,
}

/// The result of an inspection.
pub struct Inspection {
    /// All findings, in the order of [`Routes::topics`]; at the end that about all of them.
    pub findings: Vec<Finding>,
    /// Whether a topic of events exists, or there are none.
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
            validate_only: false,
            round_trip: OnceCell::new(),
        })
    }

    /// Creates no topic: if that is enabled, Kafka only checks whether it could be created.
    pub fn validate_only(self) -> Self {
        Self {
            validate_only: true,
            ..self
        }
    }

    /// Inspects all topics, and how far away Kafka is, for a service that uses them like this.
    /// Creates topics that are missing, if that is enabled.
    ///
    /// # Errors
    ///
    /// If Kafka does not answer within 5 s.
    pub async fn inspect(&self, usage: &TopicUse) -> Result<Inspection, Error> {
        let measure = || self.measure_round_trip();
        let round_trip = *self.round_trip.get_or_try_init(measure).await?;
        let spool_after = usage.spool.as_ref().map(|spool| spool.after);
        let mut findings = vec![judge_round_trip(round_trip, spool_after)];
        let producer_expiration = self.producer_expiration().await;
        let producer_expiration = producer_expiration.unwrap_or(DEFAULT_PRODUCER_EXPIRATION);
        let has_spool = usage.spool.is_some();
        findings.extend(judge_producer_expiration(producer_expiration, has_spool));
        let mut described = Vec::new();
        for name in self.routes.topics() {
            described.push((name, self.describe(name).await?));
        }
        let missing = described.iter();
        let missing = missing.filter(|(_, found)| *found == Err(TOPIC_MISSING));
        let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
        let mut failed = match self.create {
            Some(create) => self.create(&missing, create).await,
            None => BTreeMap::new(),
        };
        let mut topic_found = self.routes.event_topics().is_empty();
        let mut partition_counts = Vec::new();
        for (place, (name, mut found)) in described.into_iter().enumerate() {
            let is_of_events = place < self.routes.event_topics().len();
            if let (Err(TOPIC_MISSING), Some(create)) = (&found, self.create) {
                if let Some(finding) = failed.remove(name) {
                    findings.push(finding);
                    continue;
                }
                if self.validate_only {
                    findings.extend(to_be_created(name, create));
                    let count = usize::try_from(create.partitions).unwrap_or_default();
                    partition_counts.extend(is_of_events.then_some((name, count)));
                    continue;
                }
                found = self.describe_new(name).await?;
            }
            topic_found |= found.is_ok() && is_of_events;
            match found {
                Ok(partitions) => {
                    partition_counts.extend(is_of_events.then_some((name, partitions.len())));
                    let mut kinds = self.routes.events_of(Target::Topic(place));
                    let content = match is_of_events {
                        true => Content::Events {
                            tolerance: usage.timestamp_tolerance,
                            has_own_times: kinds.any(|kind| kind.own_time.is_some()),
                        },
                        false => Content::DeadLetters,
                    };
                    let spool_bytes = usage.spool.as_ref().map(|spool| spool.max_bytes);
                    let topic = Topic {
                        name,
                        partitions: &partitions,
                        content,
                        spool_bytes,
                    };
                    findings.extend(self.judge(&topic).await);
                }
                Err(code) => findings.push(undescribed(name, code, self.create.is_some())),
            }
        }
        findings.extend(judge_partitions(&partition_counts));
        Ok(Inspection {
            findings,
            topic_found,
            producer_expiration,
        })
    }

    /// The shortest time of three requests. The first one includes the connection.
    async fn measure_round_trip(&self) -> Result<Duration, Error> {
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            if let Some(name) = self.routes.topics().next() {
                let _answer = self.describe(name).await?;
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

    /// The topic's partitions. The inner error is Kafka's reason why it does not describe the topic.
    async fn describe(
        &self,
        name: &str,
    ) -> Result<Result<Vec<Partition>, RDKafkaErrorCode>, Error> {
        let (admin, wanted) = (Arc::clone(&self.admin), name.to_owned());
        let ask = move || admin.inner().fetch_metadata(Some(&wanted), REQUEST_TIMEOUT);
        let metadata = tokio::task::spawn_blocking(ask)
            .await
            .map_err(|_| KafkaError::Canceled)??;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(Err(TOPIC_MISSING));
        };
        let partitions = topic.partitions().iter().map(|found| Partition {
            id: found.id(),
            // -1 stands for none.
            has_leader: found.leader() >= 0,
            replicas: found.replicas().len(),
            in_sync: found.isr().len(),
        });
        Ok(match topic.error() {
            Some(error) => Err(error.into()),
            None => Ok(partitions.collect()),
        })
    }

    /// Describes a topic that has just been created, as soon as a broker knows it.
    async fn describe_new(
        &self,
        name: &str,
    ) -> Result<Result<Vec<Partition>, RDKafkaErrorCode>, Error> {
        let deadline = Instant::now() + CREATION_TIME;
        loop {
            let found = self.describe(name).await?;
            let is_settled = match &found {
                Ok(partitions) => partitions.iter().all(|partition| partition.has_leader),
                Err(code) => !is_of_new_topic(*code),
            };
            if is_settled || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(CREATION_PAUSE).await;
        }
    }

    /// Creates these topics with one request: each request waits until all brokers know its topics.
    /// Returns the topics that could not be created, with the reason.
    async fn create<'a>(
        &self,
        names: &[&'a str],
        create: CreateTopics,
    ) -> BTreeMap<String, Finding> {
        if names.is_empty() {
            return BTreeMap::new();
        }
        // -1 stands for the broker's default.
        let replicas = create.replication.unwrap_or(-1);
        let topic = |name: &&'a str| {
            NewTopic::new(name, create.partitions, TopicReplication::Fixed(replicas))
        };
        let topics: Vec<_> = names.iter().map(topic).collect();
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT))
            .validate_only(self.validate_only);
        let failed = |name: &str, error: &KafkaError| (name.to_owned(), not_created(name, error));
        let results = match self.admin.create_topics(&topics, &options).await {
            Ok(results) => results,
            Err(error) => return names.iter().map(|name| failed(name, &error)).collect(),
        };
        let mut all_failed = BTreeMap::new();
        for result in results {
            match result {
                // By another client in the meantime.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // It is created, but not all brokers know it yet.
                Err((_, RDKafkaErrorCode::RequestTimedOut)) => {}
                Err((name, code)) => all_failed.extend([failed(&name, &KafkaError::AdminOp(code))]),
                Ok(_) if self.validate_only => {}
                Ok(name) => {
                    tracing::info!("{name}: created with {} partitions", create.partitions);
                }
            }
        }
        all_failed
    }

    async fn judge(&self, topic: &Topic<'_>) -> Vec<Finding> {
        let name = topic.name;
        let mut findings = vec![Finding::ok(
            name,
            format!("{} partitions", topic.partitions.len()),
        )];
        findings.extend(topic.judge_leaders());
        let (admin, topic_name) = (Arc::clone(&self.admin), name.to_owned());
        let ask = move || may_write(admin.inner(), &topic_name, REQUEST_TIMEOUT);
        match tokio::task::spawn_blocking(ask).await.unwrap_or(None) {
            Some(true) => findings.push(Finding::ok(name, "is writable")),
            Some(false) => findings.push(not_writable(name)),
            None => {}
        }
        findings.push(judge_replication(name, topic.replicas()));
        match self.settings(name).await {
            Ok(settings) => findings.extend(topic.judge(&settings)),
            Err(unread) => findings.push(unread),
        }
        findings
    }

    /// The settings of a topic, or a finding that they cannot be read.
    async fn settings(&self, name: &str) -> Result<Settings, Finding> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let asked = [ResourceSpecifier::Topic(name)];
        let deadline = Instant::now() + SETTINGS_TIME;
        loop {
            let answer = self.admin.describe_configs(&asked, &options).await;
            let config = match answer.map(|answer| answer.into_iter().next()) {
                Ok(Some(Ok(config))) => config.entries,
                Ok(None | Some(Err(_))) => Vec::new(),
                Err(error) => return Err(unread(name, &error)),
            };
            // If Kafka refuses, rust-rdkafka returns no settings and no reason. The broker that is
            // asked may also not know the topic yet.
            if config.is_empty() && Instant::now() < deadline {
                tokio::time::sleep(CREATION_PAUSE).await;
                continue;
            }
            if config.is_empty() {
                return Err(Finding::warning(
                    name,
                    format!("Kafka does not return its settings, {UNJUDGED}"),
                ));
            }
            let values = config.into_iter();
            let values = values.filter_map(|entry| Some((entry.name, entry.value?)));
            return Ok(values.collect());
        }
    }
}
