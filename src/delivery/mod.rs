//! From accepted to safe.
//!
//! There are two lanes, one for events and one for dead letters, each with a queue, a feeder and a
//! producer of its own: a dead-letter topic that is missing, forbidden or refusing never delays an
//! event. There is one path, not "try Kafka, else something else": a switch would have a race at
//! each switching.

mod feeder;
pub mod kafka;
mod queue;
mod ticket;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event::Record;
use crate::metrics::Metrics;
use feeder::Feeder;
use kafka::{Connection, KafkaSettings};
pub use queue::{Full, MAX_IN_FLIGHT, MAX_QUEUE_BYTES, Queue};
pub use ticket::{Safe, Settled, Ticket};

/// Both lanes, running.
pub struct Delivery {
    events: Arc<Queue>,
    dead_letters: Arc<Queue>,
    connection: Arc<Connection>,
    feeders: Mutex<Vec<Feeder>>,
}

impl Delivery {
    /// Starts both lanes. Kafka need not be there yet.
    ///
    /// # Errors
    ///
    /// Where the settings are such that no producer can be made from them.
    pub fn start(settings: &KafkaSettings, metrics: &Arc<Metrics>) -> Result<Self, kafka::Error> {
        let connection = Arc::new(Connection::new(Some(Arc::clone(metrics))));
        let unwatched = Arc::new(Connection::new(None));
        let dead_letters = Arc::new(Queue::new(Arc::clone(metrics), None));
        let events = Arc::new(Queue::new(
            Arc::clone(metrics),
            Some(Arc::clone(&dead_letters)),
        ));
        let feeders = [
            (&events, &settings.topic, &connection),
            (&dead_letters, &settings.dead_letter_topic, &unwatched),
        ]
        .into_iter()
        .map(|(queue, topic, connection)| {
            Feeder::start(queue, topic, settings, connection, metrics)
        })
        .collect::<Result<_, _>>()?;
        Ok(Self {
            events,
            dead_letters,
            connection,
            feeders: Mutex::new(feeders),
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

    /// Whether an event that came now could be made safe, as far as one can know: a broker is
    /// connected, and no event has waited for longer than `patience`. Dead letters do not count: a
    /// trouble of theirs must not turn the events away.
    pub fn can_make_safe(&self, patience: Duration) -> bool {
        self.connection.is_up() && self.events.oldest_age() < patience
    }

    /// Whether nothing waits in any lane.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dead_letters.is_empty()
    }

    /// Ends both lanes, whatever still waits. Blocks for up to a second or so.
    pub fn stop(&self) {
        self.events.stop();
        self.dead_letters.stop();
        let feeders =
            std::mem::take(&mut *self.feeders.lock().unwrap_or_else(PoisonError::into_inner));
        for feeder in feeders {
            feeder.join();
        }
    }
}
