//! From accepted to safe.
//!
//! There are two lanes, one for events and one for dead letters, each with a queue, a feeder and a
//! producer of its own: a dead-letter topic that is missing, forbidden or refusing never delays an
//! event. There is one path, not "try Kafka, else something else": a switch would have a race at
//! each switching. Every record is in its queue, in order; the feeder takes it to Kafka from there, and
//! if that takes too long, the spooler also writes it to disk.

mod feeder;
mod finding;
pub mod kafka;
mod queue;
mod spool;
mod spooler;
mod ticket;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::SetOnce;

use crate::event::Record;
use crate::metrics::Metrics;
use feeder::{Feed, Feeder};
pub use finding::{Finding, Level};
use kafka::{Connection, KafkaSettings};
use queue::{Disk, Numbers};
pub use queue::{Full, MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, MAX_QUEUE_BYTES, Queue};
pub use spool::{
    BALLAST_BYTES, Error as SpoolError, MAX_READ_BYTES, MAX_READ_RECORDS, Spool, SpoolSettings,
    inspect as inspect_spool,
};
use spool::{Backlog, Lane};
use spooler::{Doorbell, Spooler};
pub use ticket::{Safe, Settled, Ticket};

/// Both lanes, running.
pub struct Delivery {
    events: Arc<Queue>,
    dead_letters: Arc<Queue>,
    connection: Arc<Connection>,
    feeders: Mutex<Vec<Feeder>>,
    spooler: Mutex<Option<Spooler>>,
    damage: Arc<SetOnce<SpoolError>>,
}

impl Delivery {
    /// Starts both lanes, with what is in the spool. Kafka need not be there yet.
    ///
    /// # Errors
    ///
    /// Where the settings are such that no producer can be made from them.
    pub fn start(
        settings: &KafkaSettings,
        spool: Option<Spool>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, kafka::Error> {
        let connection = Arc::new(Connection::new(Some(Arc::clone(metrics))));
        let unwatched = Arc::new(Connection::new(None));
        let doorbell = Arc::new(Doorbell::default());
        let queue = |lane, connection: &Arc<Connection>, dead_letters| {
            let backlog =
                (spool.as_ref()).map_or_else(Backlog::default, |spool| spool.backlog(lane));
            let queue = Queue::new(
                Numbers::after(lane, backlog.last, SystemTime::now()),
                Arc::clone(metrics),
                Arc::clone(connection),
                dead_letters,
            );
            Arc::new(match &spool {
                Some(spool) => {
                    let disk = Disk {
                        doorbell: Arc::clone(&doorbell),
                        after: spool.settings().after,
                    };
                    queue.with_disk(disk, backlog)
                }
                None => queue,
            })
        };
        let dead_letters = queue(Lane::DeadLetters, &unwatched, None);
        let events = queue(Lane::Events, &connection, Some(Arc::clone(&dead_letters)));
        let feed = |lane, queue: &Arc<Queue>, topic: &String, connection: &Arc<Connection>| {
            Feeder::start(Feed {
                lane,
                queue: Arc::clone(queue),
                topic: topic.clone(),
                settings: settings.clone(),
                connection: Arc::clone(connection),
                metrics: Arc::clone(metrics),
                disk: Arc::clone(&doorbell),
            })
        };
        let damage = Arc::new(SetOnce::new());
        let spooler = (spool.map(|spool| {
            report_salvage(&spool, metrics);
            let queues = [Arc::clone(&events), Arc::clone(&dead_letters)];
            let (damage, metrics) = (Arc::clone(&damage), Arc::clone(metrics));
            let damaged = move |error| {
                // There is one spooler, and it ends with this.
                drop(damage.set(error));
            };
            Spooler::start(spool, Arc::clone(&doorbell), queues, metrics, damaged)
        }))
        .transpose()
        .map_err(kafka::Error::Thread)?;
        let feeders = vec![
            feed(Lane::Events, &events, &settings.topic, &connection)?,
            feed(
                Lane::DeadLetters,
                &dead_letters,
                &settings.dead_letter_topic,
                &unwatched,
            )?,
        ];
        Ok(Self {
            events,
            dead_letters,
            connection,
            feeders: Mutex::new(feeders),
            spooler: Mutex::new(spooler),
            damage,
        })
    }

    /// Gives the record its number in its lane.
    ///
    /// # Errors
    ///
    /// [`Full`], and then the record has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let lane = if record.is_dead_letter() {
            &self.dead_letters
        } else {
            &self.events
        };
        lane.enqueue(record)
    }

    /// Whether an event that came now could be made safe, as far as one can know: no event has waited
    /// for longer than `patience`, and the spool works or a broker is connected and has the topic. Dead
    /// letters do not count: a trouble of theirs must not turn the events away.
    pub fn can_make_safe(&self, patience: Duration, topic_exists: bool) -> bool {
        let spools = (self.spooler().as_ref()).is_some_and(Spooler::works);
        let publishes = topic_exists && self.connection.is_up();
        (spools || publishes) && self.events.oldest_age() < patience
    }

    /// Makes everything safe that is not, and begins nothing new: the service is stopping.
    pub fn finish(&self) {
        self.events.finish();
        self.dead_letters.finish();
    }

    /// Whether every record is safe, and Kafka has answered for all that it was given.
    pub fn is_at_rest(&self) -> bool {
        self.events.is_at_rest() && self.dead_letters.is_at_rest()
    }

    /// Completes when the spool is found damaged, which only a new start can mend.
    pub async fn damaged(&self) -> &SpoolError {
        self.damage.wait().await
    }

    /// Ends both lanes, whatever still waits, and closes the spool. Blocks for up to a second or so.
    pub fn stop(&self) {
        self.events.stop();
        self.dead_letters.stop();
        let feeders =
            std::mem::take(&mut *self.feeders.lock().unwrap_or_else(PoisonError::into_inner));
        // A feeder may be waiting for the spooler, so that ends last, and so does what it still reads.
        for feeder in feeders {
            feeder.join();
        }
        if let Some(spooler) = self.spooler().take() {
            spooler.stop();
        }
    }

    fn spooler(&self) -> std::sync::MutexGuard<'_, Option<Spooler>> {
        self.spooler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report_salvage(spool: &Spool, metrics: &Metrics) {
    metrics.spool().may_use(spool.settings().max_bytes);
    if let Some(salvage) = spool.salvage() {
        metrics.spool().corrupted(salvage.lost.len());
    }
}
