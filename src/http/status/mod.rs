//! What the status page shows, and its data as JSON.
//!
//! One task keeps the history of the last minutes. Everything else is read from the parts of the
//! service when somebody asks, so the page costs nothing while nobody looks at it.

mod history;
mod page;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::delivery::{Overview, SpoolOverview, TopicOverview};
use crate::event::{Label, Routes, Target};
use crate::health::{Health, Readiness};
use crate::kafka::Connection;
use crate::metrics::{Metrics, Problem};
use history::History;
pub use history::MAX_HISTORY_SECONDS;

/// How often the history gets a new value.
const SECOND: Duration = Duration::from_secs(1);

/// A setting in force. Its value is not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownSetting {
    /// Its variable.
    pub name: String,
    /// Its value; empty if it is not set.
    pub value: String,
    /// Where the value is from; `default` if nothing sets it.
    pub origin: String,
}

/// The state of the service, for the admin port.
pub(crate) struct Status {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    routes: Routes,
    settings: Vec<ShownSetting>,
    host: String,
    started: SystemTime,
    history: Mutex<History>,
}

/// The status page, and the policy that its answer has.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

impl Status {
    /// At the start of the service.
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        routes: Routes,
        settings: Vec<ShownSetting>,
    ) -> Self {
        let system = rustix::system::uname();
        Self {
            metrics,
            health,
            routes,
            settings,
            host: system.nodename().to_string_lossy().into_owned(),
            started: SystemTime::now(),
            history: Mutex::default(),
        }
    }

    /// Keeps the history, for as long as it is polled.
    pub(crate) async fn watch(&self) -> ! {
        let mut interval = tokio::time::interval(SECOND);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.add_second(Instant::now());
        }
    }

    fn add_second(&self, now: Instant) {
        let level = self.health.readiness().level();
        let totals = self.metrics.totals();
        let (is_reloaded, lost) = (totals.reload_successful, totals.lost);
        let at = milliseconds(SystemTime::now());
        let before = self.history.lock().add(now, at, level, totals);
        let problems = self.metrics.problems();
        if before
            .as_ref()
            .is_some_and(|before| before.reload_successful)
            && !is_reloaded
        {
            problems.add(Problem::of_service("reload failed"), || {
                "the previous secrets and certificate stay in use; the log gives the reason"
                    .to_owned()
            });
        }
        if lost > before.map_or(0, |before| before.lost) {
            problems.add(Problem::of_service("records lost"), || {
                format!("{lost} records of the spool were lost to disk damage; the log names the files that were moved aside")
            });
        }
    }

    /// The page. It shows the state without its script, too.
    pub(super) fn page(&self) -> Page {
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        let (readiness, since) = self.health.readiness_since();
        let (word, reason) = describe(&readiness);
        let since = Timestamp::try_from(since).unwrap_or_default();
        let html = page::page(&[
            ("nonce", &nonce),
            ("level", readiness.level().into()),
            ("word", word),
            ("reason", &reason),
            ("since", &since.to_string()),
            (
                "since_text",
                &since.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            ),
            ("host", &self.host),
            ("version", &format!("{VERSION} ({REVISION})")),
        ]);
        Page {
            html,
            policy: page::policy(&nonce),
        }
    }

    /// The data of the page, with the history after this second.
    pub(super) fn json(&self, after: u64) -> Value {
        let (readiness, since) = self.health.readiness_since();
        let (word, reason) = describe(&readiness);
        let overview = (self.health.delivery()).map(|delivery| delivery.overview(Instant::now()));
        let [problems, unauthenticated] = self.metrics.problems().lines();
        json!({
            "now": milliseconds(SystemTime::now()),
            "state": {
                "level": <&str>::from(readiness.level()),
                "word": word,
                "reason": reason,
                "since": milliseconds(since),
            },
            "process": {
                "version": VERSION,
                "revision": REVISION,
                "host": self.host,
                "started": milliseconds(self.started),
                "certificate_not_after": self.metrics.certificate_not_after().map(|at| at.as_millis() as u64),
            },
            "kafka": overview.as_ref().map(kafka),
            "topics": self.topics(overview.as_ref()),
            "spool": self.spool(overview.as_ref()),
            "events": self.events(),
            "problems": problems,
            "unauthenticated": unauthenticated,
            "settings": self.settings,
            "series": self.metrics.series(),
            "history": self.history.lock().after(after),
        })
    }

    fn topics(&self, overview: Option<&Overview>) -> Vec<Value> {
        let topics = self.routes.topics().enumerate();
        let topic = |(at, name): (usize, &str)| {
            let topic = overview.and_then(|overview| overview.topics.get(at));
            let of = |count: fn(&TopicOverview) -> usize| topic.map_or(0, count);
            json!({
                "topic": name,
                "dead_letters": at == self.routes.event_topics().len(),
                "in_memory": of(|topic| topic.in_memory),
                "on_disk": of(|topic| topic.on_disk),
                "lag_seconds": topic.and_then(|topic| topic.lag).map(|lag| lag.as_secs_f64()),
                "obstacle": topic.and_then(|topic| topic.obstacle.as_deref()),
            })
        };
        topics.map(topic).collect()
    }

    fn spool(&self, overview: Option<&Overview>) -> Option<Value> {
        let metrics = self.metrics.spool();
        let spool = overview.and_then(|overview| overview.spool.as_ref());
        let (used, max) = metrics.bytes();
        // While it is opened, only the metrics know it.
        if max == 0 || (overview.is_some() && spool.is_none()) {
            return None;
        }
        let seconds = |of: fn(&SpoolOverview) -> Option<Duration>| {
            spool.and_then(of).map(|time| time.as_secs_f64())
        };
        Some(json!({
            "works": spool.map(|spool| spool.works),
            "is_full": spool.is_some_and(|spool| spool.is_full),
            "records": spool.map_or(metrics.records(), |spool| spool.records as u64),
            "used": used,
            "limit": spool.map_or(max, |spool| spool.limit),
            "oldest_seconds": metrics.oldest_age().as_secs_f64(),
            "full_in_seconds": seconds(|spool| spool.full_in),
            "drain_per_second": spool.and_then(|spool| spool.drain),
            "empty_in_seconds": seconds(|spool| spool.empty_in),
        }))
    }

    /// The events by family, with where each goes. Those that are not known come last.
    fn events(&self) -> Vec<Value> {
        let mut events: Vec<_> = Label::all().collect();
        events.sort_by_key(|event| event.family().map_or(usize::MAX, |family| family as usize));
        let event = |event: Label| {
            let name = event.name();
            let target = match self.routes.target_of(name) {
                _ if event == Label::BEFORE_SEND_MESSAGE => "answered only",
                Target::Topic(_) => self.routes.topic_of(name).unwrap_or_default(),
                Target::DeadLetters => "dead letters",
                Target::Discard => "discarded",
            };
            let family = event.family().map_or("not known", <&str>::from);
            json!({ "event": name, "family": family, "target": target })
        };
        events.into_iter().map(event).collect()
    }
}

fn kafka(overview: &Overview) -> Value {
    let (is_up, was_up, down) = match overview.connection {
        Connection::Up => (true, true, None),
        Connection::Lost(since) => (false, true, Some(since)),
        Connection::NeverUp(since) => (false, false, Some(since)),
    };
    let brokers = overview.brokers.iter().map(|broker| {
        json!({ "address": broker.address, "is_up": broker.is_up, "reason": broker.reason })
    });
    json!({
        "is_up": is_up,
        "was_up": was_up,
        "down_seconds": down.map(|down| down.as_secs_f64()),
        "errors": overview.errors,
        "brokers": brokers.collect::<Vec<_>>(),
    })
}

/// The state in a word, and its reason.
fn describe(readiness: &Readiness) -> (&'static str, String) {
    let word = match readiness {
        Readiness::Ready => "ready",
        Readiness::Degraded(_) => "degraded",
        Readiness::NotReady(_) => "not ready",
    };
    let reason = readiness.reason();
    (
        word,
        reason.unwrap_or_else(|| "events become durable".to_owned()),
    )
}

fn milliseconds(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const REVISION: &str = env!("ZIM2KAFKA_REVISION");
