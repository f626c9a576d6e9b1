//! From an accepted record to a durable one.
//!
//! Each topic is a lane with a queue of its own, and so are the dead letters: a topic that is
//! missing, forbidden or rejects records holds up its own records only. One publisher hands the
//! records of all queues to Kafka. If Kafka takes too long, the spooler also writes them to disk,
//! and the reader reads back what was not handed over by then. A record has one path, not "Kafka,
//! else the spool", because every switch between two paths is a race.
//!
//! | thread | file | waits for |
//! | --- | --- | --- |
//! | publisher | `publisher.rs`, `producers.rs` | never for a disk, nor for one producer |
//! | spooler | `spooler.rs` | the disk: writes, syncs, deletions |
//! | reader | `reader.rs` | the disk: reads only |

mod current;
mod producers;
mod publisher;
mod queue;
mod reader;
mod spooler;
mod ticket;
mod wakeup;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::SetOnce;

use crate::event::{Lane, Record};
use crate::kafka::{self, BrokerStatus, KafkaSettings};
use crate::log::Chain;
use crate::metrics::Metrics;
use crate::spool::{self, Backlog, KeyRows, Spool};
use producers::Producers;
use publisher::Publisher;
use queue::{Disk, Sequence};
pub use queue::{Full, MAX_LOADED_BYTES, MAX_LOADED_RECORDS, MAX_QUEUE_BYTES, Queue};
use reader::Reader;
use spooler::{SpoolStatus, Spooler};
pub use ticket::{Durability, Settled, Ticket};
use wakeup::Wakeups;

/// Both lanes, running.
pub struct Delivery {
    events: Arc<Queue>,
    dead_letters: Arc<Queue>,
    status: Arc<BrokerStatus>,
    publisher: Mutex<Option<Publisher>>,
    reader: Mutex<Option<Reader>>,
    spooler: Mutex<Option<Spooler>>,
    damage: Arc<SetOnce<Arc<spool::Error>>>,
}

/// Facts that decide whether an event that arrives now will probably become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryState {
    /// Whether the spool takes records; `None` without a spool.
    pub spool_works: Option<bool>,
    /// Whether a connection to a broker is up.
    pub kafka_is_up: bool,
    /// How long the oldest event that is not durable has waited.
    pub oldest_age: Duration,
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
}

/// Makes dead letters of the events that Kafka has rejected in an earlier run, which had no space for
/// them. Those that find none now stay in the spool.
fn dead_letter_refused(spool: &Spool, events: &Queue) {
    let mut after = 0;
    loop {
        let refused = match spool.refused_events(after) {
            Ok(refused) => refused,
            Err(error) => {
                tracing::error!(
                    "cannot read the rejected events in the spool: {}",
                    Chain(&error)
                );
                return;
            }
        };
        let Some((last, _)) = refused.last() else {
            return;
        };
        after = *last;
        for (number, record) in refused {
            if events.dead_letter_refused(number, &record).is_err() {
                return;
            }
        }
    }
}

impl Delivery {
    /// Starts both lanes with the contents of the spool. Kafka need not be reachable yet.
    ///
    /// # Errors
    ///
    /// [`StartError`], if librdkafka does not accept the settings or a thread cannot start.
    pub fn start(
        settings: &KafkaSettings,
        spool: Option<Spool>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let status = Arc::new(BrokerStatus::new(Some(Arc::clone(metrics))));
        let wakeups = Arc::new(Wakeups::default());
        let mut spool = spool;
        let reader = spool.as_mut().and_then(Spool::take_reader);
        let keys = spool.as_mut().map_or_else(KeyRows::default, Spool::keys);
        let next = spool.as_ref().map_or(1, Spool::next_number);
        let has_spool = spool.is_some();
        let sequence = Arc::new(Sequence::from(next));
        let queue = |lane, keys, dead_letters| {
            let backlog =
                (spool.as_ref()).map_or_else(Backlog::default, |spool: &Spool| spool.backlog(lane));
            let queue = Queue::new(
                Arc::clone(&sequence),
                Arc::clone(metrics),
                Arc::clone(&status),
                Arc::clone(&wakeups),
                dead_letters,
            );
            Arc::new(match &spool {
                Some(spool) => {
                    let after = spool.settings().after;
                    queue.with_disk(Disk { after }, backlog, keys)
                }
                None => queue,
            })
        };
        let dead_letters = queue(Lane::DeadLetters, KeyRows::default(), None);
        let events = queue(Lane::Events, keys, Some(Arc::clone(&dead_letters)));
        let queues = vec![Arc::clone(&events), Arc::clone(&dead_letters)];
        if let Some(spool) = &spool {
            dead_letter_refused(spool, &events);
        }
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
                queues.clone(),
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
            let queues = queues.clone();
            Spooler::start(spool, wakeups, queues, metrics, spool_status, on_damage)
        });
        let spooler =
            (spooler.transpose()).map_err(|error| StartError::Thread("spooler", error))?;
        let lane = |topic: &String, queue: &Arc<Queue>| current::Lane {
            topic: topic.clone(),
            queue: Arc::clone(queue),
        };
        let producers = Producers::new(current::Shared {
            settings: settings.clone(),
            lanes: vec![
                lane(&settings.topic, &events),
                lane(&settings.dead_letter_topic, &dead_letters),
            ],
            status: Arc::clone(&status),
            metrics: Arc::clone(metrics),
            wakeups: Arc::clone(&wakeups),
            has_spool,
            batch_bytes: AtomicUsize::new(usize::MAX),
        });
        let producers = producers.map_err(StartError::Producer)?;
        let publisher = Publisher::start(queues, producers, wakeups)
            .map_err(|error| StartError::Thread("publisher", error))?;
        Ok(Self {
            events,
            dead_letters,
            status,
            publisher: Mutex::new(Some(publisher)),
            reader: Mutex::new(reader),
            spooler: Mutex::new(spooler),
            damage,
        })
    }

    /// Adds the record to the queue of its lane, which numbers it.
    ///
    /// # Errors
    ///
    /// [`Full`]; the record then has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let queue = match record.lane() {
            Lane::Events => &self.events,
            Lane::DeadLetters => &self.dead_letters,
        };
        queue.enqueue(record)
    }

    /// Facts that decide whether an event that arrives now will probably become durable. Dead letters do
    /// not count, since their problems must not turn events away.
    pub fn state(&self) -> DeliveryState {
        DeliveryState {
            spool_works: self.spooler.lock().as_ref().map(Spooler::is_working),
            kafka_is_up: self.status.is_up(),
            oldest_age: self.events.oldest_age(),
        }
    }

    /// Begins the shutdown: makes every record durable at once and reads nothing more from disk.
    pub fn finish(&self) {
        self.events.finish();
        self.dead_letters.finish();
    }

    /// Whether every record is durable and Kafka has answered for all that its producers hold.
    pub fn is_at_rest(&self) -> bool {
        self.events.is_at_rest() && self.dead_letters.is_at_rest()
    }

    /// Completes if the spool is found damaged, which only a restart can repair.
    pub async fn damaged(&self) -> Arc<spool::Error> {
        Arc::clone(self.damage.wait().await)
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
