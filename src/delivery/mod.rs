//! From an accepted record to a durable one.
//!
//! Each topic, that of dead letters included, is a lane with a queue of its own: a topic that is
//! missing, forbidden or rejects records holds up its own records only. One publisher hands the
//! records of all queues to Kafka. If Kafka takes too long, the spooler also writes them to disk,
//! and the reader reads back what was not handed over by then. A record has one path, not "Kafka,
//! else the spool", because every switch between two paths is a race.
//!
//! | thread | file | waits for |
//! | --- | --- | --- |
//! | publisher | `publisher.rs`, `producers/` | never for a disk, nor for one producer |
//! | spooler | `spooler.rs` | the disk: writes, syncs, deletions |
//! | reader | `reader.rs` | the disk: reads only |

mod distance;
mod files;
mod lanes;
mod outage;
mod overview;
mod producers;
mod publisher;
mod queue;
mod reader;
mod refused;
mod spooler;
mod ticket;
mod wakeup;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::SetOnce;

use crate::event::{EVENTS, Record, Routes};
use crate::kafka::{self, BrokerStatus, KafkaSettings};
use crate::metrics::Metrics;
use crate::spool::{self, Backlog, Spool};
pub use files::{FEW_OPEN_FILES, max_kafka_files};
use lanes::{Lane, Lanes};
use outage::Outage;
pub use overview::{Overview, SpoolOverview, TopicOverview};
use producers::{Producers, Shared};
use publisher::Publisher;
use queue::{Disk, Sequence};
pub use queue::{
    Full, MAX_LOADED_BYTES, MAX_LOADED_RECORDS, MAX_QUEUE_BYTES, MAX_VOLATILE_RECORDS, Queue,
};
use reader::Reader;
use spooler::{SpoolStatus, Spooler};
pub use ticket::{Durability, Settled, Ticket};
use wakeup::Wakeups;

/// All lanes, running.
pub struct Delivery {
    lanes: Arc<Lanes>,
    status: Arc<BrokerStatus>,
    publisher: Mutex<Option<Publisher>>,
    reader: Mutex<Option<Reader>>,
    spooler: Mutex<Option<Spooler>>,
    spool_status: Arc<SpoolStatus>,
    /// How long Kafka may take before a record goes to the spool; `None` without a spool.
    spool_after: Option<Duration>,
    metrics: Arc<Metrics>,
    settings: KafkaSettings,
    outages: Outages,
    damage: Arc<SetOnce<Arc<spool::Error>>>,
}

/// Dead letters that wait are not an outage for events.
struct Outages {
    events: Mutex<Outage>,
    dead_letters: Mutex<Outage>,
}

/// Facts that decide whether an event that arrives now will probably become durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryState {
    /// Whether the spool takes records; `None` without a spool.
    pub spool_works: Option<bool>,
    /// Whether the spool takes none because it is full.
    pub spool_is_full: bool,
    /// Whether a connection to a broker is up.
    pub kafka_is_up: bool,
    /// Why brokers cannot be reached, as far as librdkafka reports it.
    pub kafka_errors: String,
    /// Why events have waited for long although a broker is connected, if they have.
    pub cause: Option<String>,
    /// Why ids of schemas are missing, if they are needed, and the topics whose events wait for them.
    pub schema_obstacle: Option<(String, Vec<String>)>,
    /// Each topic of events, with how long the oldest of its events that is not durable has waited.
    pub oldest_ages: Vec<(String, Duration)>,
}

/// Why delivery cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka does not accept the settings.
    #[error("cannot create the Kafka producer")]
    Producer(#[source] kafka::Error),
    /// The system does not start another thread.
    #[error("cannot start the {0} thread")]
    Thread(&'static str, #[source] io::Error),
    /// The spool holds events that have no topic.
    #[error("{}", no_topic(.0))]
    NoTopic(Vec<(String, usize)>),
}

/// The message about events that have no topic, with the number of rows of each.
fn no_topic(events: &[(String, usize)]) -> String {
    let rows = events
        .iter()
        .map(|(event, rows)| format!("{rows} of {event:?}"));
    let rows = rows.collect::<Vec<_>>().join(", ");
    let is_known = |event: &str| EVENTS.iter().any(|kind| kind.name == event);
    let (known, unknown): (Vec<_>, Vec<_>) =
        (events.iter().map(|(event, _)| event.as_str())).partition(|event| is_known(event));
    let mut steps = Vec::new();
    if !known.is_empty() {
        let entries: Vec<_> = known.iter().map(|event| format!("{event}=TOPIC")).collect();
        steps.push(format!(
            "set {} in ZIM2KAFKA_TOPICS, with the topics that they had, in place of entries with the same names and beside all others",
            entries.join(",")
        ));
    }
    if !unknown.is_empty() {
        steps.push(format!(
            "start the version that stored {}, which this one does not know",
            unknown.join(", ")
        ));
    }
    format!(
        "the spool holds records of events that have no topic ({rows}); nothing was changed. To publish them, {}",
        steps.join("; ")
    )
}

/// The backlog of each topic, by its place.
fn backlogs(routes: &Routes, spool: &mut Spool) -> Result<BTreeMap<usize, Backlog>, StartError> {
    let mut backlogs = BTreeMap::<usize, Backlog>::new();
    let mut lost = Vec::new();
    for (event, backlog) in spool.take_backlogs() {
        match routes.place_of(event.as_deref()) {
            Some(place) => backlogs.entry(place).or_default().merge(backlog),
            // Those that Kafka has rejected become dead letters.
            None if backlog.rows == 0 => {}
            None => lost.push((event.unwrap_or_default(), backlog.rows)),
        }
    }
    match lost.is_empty() {
        true => Ok(backlogs),
        false => Err(StartError::NoTopic(lost)),
    }
}

impl Delivery {
    /// Starts all lanes with the contents of the spool. Kafka need not be reachable yet.
    ///
    /// # Errors
    ///
    /// [`StartError`], if an event in the spool has no topic, librdkafka does not accept the settings
    /// or a thread cannot start.
    pub fn start(
        settings: &KafkaSettings,
        mut spool: Option<Spool>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let status = Arc::new(BrokerStatus::new(Some(Arc::clone(metrics))));
        let wakeups = Arc::new(Wakeups::default());
        let reader = spool.as_mut().and_then(Spool::take_reader);
        let mut backlogs = match &mut spool {
            Some(spool) => backlogs(&settings.routes, spool)?,
            None => BTreeMap::new(),
        };
        let next = spool.as_ref().map_or(1, Spool::next_number);
        let sequence = Arc::new(Sequence::from(next));
        let max_records = MAX_VOLATILE_RECORDS / settings.routes.topics().count();
        let queue = |place: usize, dead_letters: Option<Arc<Queue>>| {
            let queue = Queue::new(
                max_records,
                Arc::clone(&sequence),
                Arc::clone(metrics),
                Arc::clone(&status),
                Arc::clone(&wakeups),
                dead_letters,
            );
            match &spool {
                Some(spool) => {
                    let after = spool.settings().after;
                    let backlog = backlogs.remove(&place).unwrap_or_default();
                    queue.with_disk(Disk { after }, backlog)
                }
                None => queue,
            }
        };
        let lanes = Arc::new(Lanes::new(&settings.routes, queue));
        let spool_after = spool.as_ref().map(|spool| spool.settings().after);
        let outage = |lanes: &[Lane]| {
            let has_backlog = lanes.iter().any(|lane| lane.queue.waiting().on_disk > 0);
            Mutex::new(Outage::new(has_backlog, Instant::now()))
        };
        let outages = Outages {
            events: outage(lanes.events()),
            dead_letters: outage(lanes.all().get(lanes.events().len()..).unwrap_or_default()),
        };
        let damage = Arc::new(SetOnce::new());
        let on_damage = {
            let damage = Arc::clone(&damage);
            move |error| {
                // Both the spooler and the reader may find some.
                drop(damage.set(Arc::new(error)));
            }
        };
        let spool_status = Arc::new(SpoolStatus::default());
        let reader = reader.map(|reader| {
            Reader::start(
                reader,
                Arc::clone(&lanes),
                Arc::clone(&wakeups),
                Arc::clone(&spool_status),
                on_damage.clone(),
            )
        });
        let reader = (reader.transpose()).map_err(|error| StartError::Thread("reader", error))?;
        let spooler = spool.map(|spool| {
            let lost = spool.recovery().map(|recovery| recovery.lost.len());
            (metrics.spool()).opened(spool.settings().max_bytes, lost);
            let (wakeups, metrics) = (Arc::clone(&wakeups), Arc::clone(metrics));
            let lanes = Arc::clone(&lanes);
            let status = Arc::clone(&spool_status);
            Spooler::start(spool, wakeups, lanes, metrics, status, on_damage)
        });
        let spooler =
            (spooler.transpose()).map_err(|error| StartError::Thread("spooler", error))?;
        let producers = Producers::new(Shared {
            settings: settings.clone(),
            lanes: Arc::clone(&lanes),
            status: Arc::clone(&status),
            metrics: Arc::clone(metrics),
            wakeups: Arc::clone(&wakeups),
            has_spool: spool_after.is_some(),
            batch_bytes: AtomicUsize::new(usize::MAX),
        });
        let producers = producers.map_err(StartError::Producer)?;
        let publisher = Publisher::start(Arc::clone(&lanes), producers, wakeups)
            .map_err(|error| StartError::Thread("publisher", error))?;
        Ok(Self {
            lanes,
            status,
            publisher: Mutex::new(Some(publisher)),
            reader: Mutex::new(reader),
            spooler: Mutex::new(spooler),
            spool_status,
            spool_after,
            metrics: Arc::clone(metrics),
            settings: settings.clone(),
            outages,
            damage,
        })
    }

    /// Adds the record to the queue of its lane, which numbers it.
    ///
    /// # Errors
    ///
    /// [`Full`]; the record then has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let queue = self.lanes.queue_of(record.event.as_deref());
        queue
            .expect("every event that is read has a topic")
            .enqueue(record)
    }

    /// Sets how long Kafka remembers a producer after its last record. Until then, events of a group
    /// leave the spool one by one.
    pub fn set_producer_expiration(&self, expiration: Duration) {
        for queue in self.lanes.queues() {
            queue.set_producer_expiration(expiration);
        }
    }

    /// Facts that decide whether an event that arrives now will probably become durable. Dead letters do
    /// not count, since their problems must not turn events away.
    pub fn state(&self) -> DeliveryState {
        let lanes = self.lanes.events().iter();
        let ages = lanes.map(|lane| (lane.topic.clone(), lane.queue.oldest_age()));
        DeliveryState {
            spool_works: self.spool_after.map(|_| self.spool_status.is_working()),
            spool_is_full: self.spool_status.is_full(),
            kafka_is_up: self.status.is_up(),
            kafka_errors: self.status.errors(),
            cause: self.cause(),
            schema_obstacle: self.schema_obstacle(),
            oldest_ages: ages.collect(),
        }
    }

    /// Begins the shutdown: makes every record durable at once and reads nothing more from disk.
    pub fn finish(&self) {
        self.lanes.queues().for_each(|queue| queue.finish());
    }

    /// Whether every record is durable and Kafka has answered for all that its producers hold.
    pub fn is_at_rest(&self) -> bool {
        self.lanes.queues().all(|queue| queue.is_at_rest())
    }

    /// Completes if the spool is found damaged, which only a restart can repair.
    pub async fn damaged(&self) -> Arc<spool::Error> {
        Arc::clone(self.damage.wait().await)
    }

    /// Which topic each event goes to.
    pub fn routes(&self) -> &Routes {
        self.lanes.routes()
    }

    /// Ends all lanes, even if records still wait, and closes the spool. Blocks until librdkafka
    /// and the spooler have ended: about a second, or longer if librdkafka waits for DNS.
    pub fn stop(&self) {
        if let Some(reader) = self.reader.lock().take() {
            reader.stop();
        }
        if let Some(publisher) = self.publisher.lock().take() {
            publisher.stop();
        }
        if let Some(spooler) = self.spooler.lock().take() {
            spooler.stop();
        }
    }
}
