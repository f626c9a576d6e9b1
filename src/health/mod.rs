//! Whether the service can do its work: the answer of `/readyz`.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use strum::IntoStaticStr;

use crate::delivery::{Delivery, DeliveryState};
use crate::metrics::{Metrics, Problem};
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
    last: Mutex<Last>,
}

/// The readiness that was last found.
struct Last {
    level: Level,
    since: SystemTime,
    problem: Option<LastProblem>,
}

/// Why it was not ready, or degraded.
struct LastProblem {
    kind: &'static str,
    began: Instant,
    is_listed: bool,
}

/// A state that lasts for less is not listed as a problem: a start connects first, and a connection
/// that is closed is soon back.
const LISTED_AFTER: Duration = Duration::from_secs(2);

/// A readiness without its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Level {
    /// See [`Readiness::Ready`].
    Ready,
    /// See [`Readiness::Degraded`].
    Degraded,
    /// See [`Readiness::NotReady`].
    NotReady,
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
            last: Mutex::new(Last {
                level: Level::NotReady,
                since: SystemTime::now(),
                problem: None,
            }),
        }
    }

    /// Whether an event that arrived now would probably become durable, and the service is not
    /// stopping. Updates the metrics.
    pub fn readiness(&self) -> Readiness {
        self.readiness_since().0
    }

    /// The same, and since when the service has been ready, degraded or not ready.
    pub fn readiness_since(&self) -> (Readiness, SystemTime) {
        let readiness = self.find_readiness();
        let level = readiness.level();
        let is_degraded = level == Level::Degraded;
        self.metrics.set_ready(readiness.is_ready(), is_degraded);
        let mut last = self.last.lock();
        if last.level != level {
            (last.level, last.since) = (level, SystemTime::now());
        }
        let problem = match &readiness {
            Readiness::Degraded(reason) => Some(("degraded", reason)),
            Readiness::NotReady(Unready::Failing(reason)) => Some(("not ready", reason)),
            Readiness::Ready | Readiness::NotReady(_) => None,
        };
        match (problem, &mut last.problem) {
            (Some((kind, reason)), Some(known)) if known.kind == kind => {
                if !known.is_listed && known.began.elapsed() >= LISTED_AFTER {
                    known.is_listed = true;
                    let problems = self.metrics.problems();
                    problems.add(Problem::of_service(kind), || reason.to_string());
                }
            }
            (problem, known) => {
                *known = problem.map(|(kind, _)| LastProblem {
                    kind,
                    began: Instant::now(),
                    is_listed: false,
                });
            }
        }
        let since = last.since;
        drop(last);
        (readiness, since)
    }

    /// Delivery, once it runs.
    pub fn delivery(&self) -> Option<&Arc<Delivery>> {
        self.delivery.get()
    }

    fn find_readiness(&self) -> Readiness {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady(Unready::Stopping);
        }
        let Some(delivery) = self.delivery.get() else {
            let stage = *self.opening.lock();
            return Readiness::NotReady(stage.map_or(Unready::Starting, Unready::Opening));
        };
        // An inspection may fail where events are published.
        let topic_found = self.topic_found.load(Ordering::Relaxed) || self.metrics.has_published();
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

fn names(topics: &[(String, Duration)]) -> Vec<&str> {
    topics.iter().map(|(topic, _)| topic.as_str()).collect()
}

fn judge(state: &DeliveryState, topic_found: bool, answer_deadline: Duration) -> Readiness {
    let in_brackets = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    // Of all topics, or of some: events of the others are published.
    let (all_wait, some_wait) = match &state.schema_obstacle {
        Some((reason, topics)) if topics.len() == state.oldest_ages.len() => (Some(reason), None),
        Some((reason, topics)) if !topics.is_empty() => (
            None,
            Some(format!("{reason}; events of {} wait", topics.join(", "))),
        ),
        _ => (None, None),
    };
    let kafka = match (state.kafka_is_up, topic_found) {
        (true, _) if let Some(reason) = all_wait => Err(reason.clone()),
        (true, true) => Ok(()),
        (true, false) => Err(match state.oldest_ages.as_slice() {
            [(topic, _)] => format!("the topic {topic} has not been found"),
            topics => format!(
                "none of the topics {} has been found",
                names(topics).join(", ")
            ),
        }),
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
        (Some(true) | None, Ok(()), _) => match some_wait {
            Some(reason) => Readiness::Degraded(reason.into()),
            None => Readiness::Ready,
        },
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
    /// Without its reason.
    pub fn level(&self) -> Level {
        match self {
            Self::Ready => Level::Ready,
            Self::Degraded(_) => Level::Degraded,
            Self::NotReady(_) => Level::NotReady,
        }
    }

    /// The reason; `None` if it is ready.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::Degraded(reason) => Some(reason.to_string()),
            Self::NotReady(unready) => Some(unready.to_string()),
        }
    }

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
mod tests;
