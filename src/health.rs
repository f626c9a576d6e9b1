//! Whether the service can do its work: the answer of `/readyz`.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::delivery::{Delivery, DeliveryState};
use crate::metrics::Metrics;
use crate::spool::OpenStage;

/// Combines what several parts of the service know about readiness. It exists before they do, so
/// that the admin port answers while the spool is read.
pub struct Health {
    metrics: Arc<Metrics>,
    answer_deadline: Duration,
    opening: Mutex<Option<OpenStage>>,
    delivery: OnceLock<Arc<Delivery>>,
    topic_found: AtomicBool,
    is_stopping: AtomicBool,
}

/// Whether an event that arrived now would probably become durable, and why or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It would.
    Ready,
    /// It would, but only the spool or only Kafka works, or Kafka does not take all events.
    Degraded(Cow<'static, str>),
    /// It would not.
    NotReady(Unready),
}

/// Why the service is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    /// It is about to start delivery.
    Starting,
    /// It opens its spool.
    Opening(OpenStage),
    /// It stops.
    Stopping,
    /// It runs, and events do not become durable.
    Failing(Cow<'static, str>),
}

impl Health {
    /// Starting, so not ready. Once delivery runs, the service is not ready while events of every
    /// topic have waited longer than this.
    pub fn new(metrics: Arc<Metrics>, answer_deadline: Duration) -> Self {
        Self {
            metrics,
            answer_deadline,
            opening: Mutex::new(None),
            delivery: OnceLock::new(),
            topic_found: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Whether an event that arrived now would probably become durable, and the service is not
    /// stopping. Updates the metrics.
    pub fn readiness(&self) -> Readiness {
        let readiness = self.find_readiness();
        let is_degraded = matches!(readiness, Readiness::Degraded(_));
        self.metrics.set_ready(readiness.is_ready(), is_degraded);
        readiness
    }

    fn find_readiness(&self) -> Readiness {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady(Unready::Stopping);
        }
        let Some(delivery) = self.delivery.get() else {
            let stage = *self.opening.lock();
            return Readiness::NotReady(stage.map_or(Unready::Starting, Unready::Opening));
        };
        let topic_found = self.topic_found.load(Ordering::Relaxed);
        judge(&delivery.state(), topic_found, self.answer_deadline)
    }

    /// What the opening of the spool is doing.
    pub fn set_opening(&self, stage: OpenStage) {
        *self.opening.lock() = Some(stage);
    }

    /// Delivery runs; to be called once.
    pub fn set_delivery(&self, delivery: Arc<Delivery>) {
        drop(self.delivery.set(delivery));
    }

    /// A topic of events exists, or there are none.
    pub fn mark_topic_found(&self) {
        self.topic_found.store(true, Ordering::Relaxed);
    }

    /// The service is about to stop. It still accepts callbacks, but load balancers should use
    /// another process.
    pub fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}

fn judge(state: &DeliveryState, topic_found: bool, answer_deadline: Duration) -> Readiness {
    let in_brackets = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let kafka = match (state.kafka_is_up, topic_found) {
        (true, true) => Ok(()),
        (true, false) => Err("the topic of events has not been found".to_owned()),
        (false, _) => Err(format!(
            "Kafka cannot be reached{}",
            in_brackets(&state.kafka_errors)
        )),
    };
    let spool = match state.spool_is_full {
        true => "the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES)",
        false => "the spool takes no records",
    };
    let late = (state.oldest_ages.iter()).filter(|(_, age)| *age >= answer_deadline);
    let late: Vec<&str> = late.map(|(topic, _)| topic.as_str()).collect();
    if !late.is_empty() {
        const LATE: &str = "waited longer than ZIM2KAFKA_ANSWER_DEADLINE";
        let reason = match (&state.cause, state.kafka_is_up) {
            (Some(cause), true) => in_brackets(cause),
            (None, true) => String::new(),
            (_, false) => format!(
                " (Kafka cannot be reached{})",
                in_brackets(&state.kafka_errors)
            ),
        };
        // A topic that is missing or forbidden must not turn the events of the others away. One
        // without events that wait may work, even if it has had none for long: if the service were
        // not ready then, the balancer would send it none, and it would stay so.
        let others_may_work = late.len() < state.oldest_ages.len() && kafka.is_ok();
        if !others_may_work {
            let reason = format!("an event has {LATE}{reason}");
            return Readiness::NotReady(Unready::Failing(reason.into()));
        }
        let topics = late.join(", ");
        let spool = match state.spool_works {
            Some(false) => format!("; {spool}"),
            Some(true) | None => String::new(),
        };
        let reason = format!(
            "events of {topics} have {LATE}{reason}; those of other topics have not{spool}"
        );
        return Readiness::Degraded(reason.into());
    }
    match (state.spool_works, kafka, &state.cause) {
        (Some(true), Ok(()), Some(cause)) => {
            Readiness::Degraded(format!("{cause}; events go to the spool").into())
        }
        (Some(true) | None, Ok(()), _) => Readiness::Ready,
        (Some(true), Err(reason), _) => {
            Readiness::Degraded(format!("{reason}; events go to the spool").into())
        }
        (Some(false), Ok(()), _) => Readiness::Degraded(format!("{spool}; Kafka works").into()),
        (Some(false), Err(reason), _) => {
            Readiness::NotReady(Unready::Failing(format!("{spool}, and {reason}").into()))
        }
        (None, Err(reason), _) => Readiness::NotReady(Unready::Failing(reason.into())),
    }
}

impl Readiness {
    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        !matches!(self, Self::NotReady(_))
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
            Self::NotReady(unready) => write!(f, "not ready: {unready}"),
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Opening(OpenStage::Waiting) => "waiting for another process to release the spool",
            Self::Opening(OpenStage::Loading(bytes)) => {
                return write!(
                    f,
                    "loading the file of the spool, {} MB so far",
                    bytes / 1_000_000
                );
            }
            Self::Opening(OpenStage::Checking) => "checking the file of the spool",
            Self::Opening(OpenStage::Migrating) => "bringing the spool to this version's format",
            Self::Opening(OpenStage::Recovering) => "recovering the damaged spool",
            Self::Opening(OpenStage::Reading(records)) => {
                return write!(f, "reading the spool, {records} records so far");
            }
            Self::Stopping => "stopping",
            Self::Failing(reason) => reason.as_ref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_readyz_names_the_reason() {
        let deadline = Duration::from_secs(2);
        let text = |spool_works, kafka_is_up, topic_found, waited, cause: Option<&str>| {
            let state = DeliveryState {
                spool_works,
                spool_is_full: false,
                kafka_is_up,
                kafka_errors: match kafka_is_up {
                    true => String::new(),
                    false => "connect: a:1: refused".to_owned(),
                },
                cause: cause.map(str::to_owned),
                oldest_ages: vec![("t".to_owned(), Duration::from_secs(waited))],
            };
            judge(&state, topic_found, deadline).to_string()
        };
        let leaderless = Some("the topic t has no leader for partition 0");
        let full = DeliveryState {
            spool_works: Some(false),
            spool_is_full: true,
            kafka_is_up: true,
            kafka_errors: String::new(),
            cause: None,
            oldest_ages: vec![("t".to_owned(), Duration::ZERO)],
        };
        for (text, expected) in [
            (
                judge(&full, true, deadline).to_string(),
                "degraded: the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES); Kafka works",
            ),
            (text(None, true, true, 0, None), "ready"),
            (text(Some(true), true, true, 1, None), "ready"),
            (
                text(Some(true), false, true, 0, None),
                "degraded: Kafka cannot be reached (connect: a:1: refused); events go to the spool",
            ),
            (
                text(Some(true), true, false, 0, None),
                "degraded: the topic of events has not been found; events go to the spool",
            ),
            (
                text(Some(true), true, true, 0, leaderless),
                "degraded: the topic t has no leader for partition 0; events go to the spool",
            ),
            (text(None, true, true, 0, leaderless), "ready"),
            (
                text(Some(false), true, true, 0, None),
                "degraded: the spool takes no records; Kafka works",
            ),
            (
                text(None, false, true, 0, None),
                "not ready: Kafka cannot be reached (connect: a:1: refused)",
            ),
            (
                text(None, true, false, 0, None),
                "not ready: the topic of events has not been found",
            ),
            (
                text(Some(false), false, true, 0, None),
                "not ready: the spool takes no records, and Kafka cannot be reached (connect: a:1: refused)",
            ),
            (
                text(Some(true), true, true, 2, None),
                "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE",
            ),
            (
                text(None, true, true, 2, leaderless),
                "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE (the topic t has no leader for partition 0)",
            ),
            (
                text(None, false, true, 2, None),
                "not ready: an event has waited longer than ZIM2KAFKA_ANSWER_DEADLINE (Kafka cannot be reached (connect: a:1: refused))",
            ),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_topic_that_takes_no_events_makes_the_service_unready_only_if_no_other_may_work() {
        let text = |ages: &[u64], spool_works, kafka_is_up, topic_found, cause: Option<&str>| {
            let ages = ["a", "b", "c"].into_iter().zip(ages);
            let ages = ages.map(|(topic, age)| (topic.to_owned(), Duration::from_secs(*age)));
            let state = DeliveryState {
                spool_works,
                spool_is_full: spool_works == Some(false),
                kafka_is_up,
                kafka_errors: String::new(),
                cause: cause.map(str::to_owned),
                oldest_ages: ages.collect(),
            };
            judge(&state, topic_found, Duration::from_secs(2)).to_string()
        };
        let late = "waited longer than ZIM2KAFKA_ANSWER_DEADLINE";
        let missing = Some("the topic a has not been found");
        let not_ready = format!("not ready: an event has {late}");
        for (text, expected) in [
            (text(&[1, 1, 0], None, true, true, None), "ready".to_owned()),
            (
                text(&[2, 0, 0], None, true, true, missing),
                format!(
                    "degraded: events of a have {late} (the topic a has not been found); those of other topics have not"
                ),
            ),
            // Before the cause is known.
            (
                text(&[2, 1, 9], None, true, true, None),
                format!("degraded: events of a, c have {late}; those of other topics have not"),
            ),
            (
                text(&[9, 0], Some(false), true, true, missing),
                format!(
                    "degraded: events of a have {late} (the topic a has not been found); those of other topics have not; the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES)"
                ),
            ),
            (text(&[2, 2, 9], None, true, true, None), not_ready.clone()),
            (
                text(&[9, 9], Some(false), true, true, missing),
                format!("{not_ready} (the topic a has not been found)"),
            ),
            (text(&[9], None, true, true, None), not_ready.clone()),
            // Then the others do not work either.
            (
                text(&[9, 0], Some(true), false, true, None),
                format!("{not_ready} (Kafka cannot be reached)"),
            ),
            (text(&[9, 0], None, true, false, None), not_ready.clone()),
            (text(&[], None, true, true, None), "ready".to_owned()),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_service_is_not_ready_while_it_opens_its_spool() {
        let metrics = Arc::new(Metrics::new());
        let health = Health::new(metrics, Duration::from_secs(2));
        assert_eq!(health.readiness().to_string(), "not ready: starting");
        for (stage, expected) in [
            (
                OpenStage::Waiting,
                "not ready: waiting for another process to release the spool",
            ),
            (
                OpenStage::Loading(2_500_000_000),
                "not ready: loading the file of the spool, 2500 MB so far",
            ),
            (
                OpenStage::Checking,
                "not ready: checking the file of the spool",
            ),
            (
                OpenStage::Reading(1_234_000),
                "not ready: reading the spool, 1234000 records so far",
            ),
            (
                OpenStage::Migrating,
                "not ready: bringing the spool to this version's format",
            ),
            (
                OpenStage::Recovering,
                "not ready: recovering the damaged spool",
            ),
        ] {
            health.set_opening(stage);
            assert!(!health.readiness().is_ready());
            assert_eq!(health.readiness().to_string(), expected);
        }
        health.set_stopping();
        assert_eq!(health.readiness().to_string(), "not ready: stopping");
    }
}
