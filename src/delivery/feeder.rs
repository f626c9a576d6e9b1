//! The feeder of a lane: one thread that hands its queue's records to Kafka, in order, and tells those
//! who wait for them once Kafka has them.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::kafka::{Connection, Error, KafkaSettings, Producer, SendError};
use super::queue::{BATCH, Queue, Work};
use super::spool::Lane;
use super::spooler::Doorbell;
use crate::config::panic_if_asked;
use crate::event::Record;
use crate::metrics::Metrics;

/// How long a producer that failed may take to report on what it was given, once that is purged.
const REPORTS: Duration = Duration::from_secs(10);

/// The pause between two turns, in which records and reports gather. Waking a thread for each costs
/// more than all the rest of a callback; in a pause nobody wakes this one, and what it then finds
/// travels together. A record that comes alone, to a feeder that waits, is handed over at once.
const PAUSE: Duration = Duration::from_micros(500);

/// The pauses grow to this while nothing is handed over and nobody is to be told.
const LONG_PAUSE: Duration = Duration::from_millis(2);

/// The pause before a new producer, doubled from one failure to the next until something succeeds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause before a record is tried again that did not fit into librdkafka's own queue. The window
/// is narrower than that queue, unless the operator narrows the queue.
const FULL: Duration = Duration::from_millis(5);

/// The pause before the disk is asked again, after it could not be read.
const UNREADABLE: Duration = Duration::from_millis(500);

/// The thread that feeds one lane.
pub(super) struct Feeder {
    thread: JoinHandle<()>,
}

impl Feeder {
    /// Makes the lane's first producer and starts to feed it.
    pub(super) fn start(feed: Feed) -> Result<Self, Error> {
        let producer = feed.producer()?;
        let thread = thread::Builder::new()
            .name(format!("feeder {}", feed.topic))
            .spawn(move || feed.run(producer))
            .map_err(Error::Thread)?;
        Ok(Self { thread })
    }

    pub(super) fn join(self) {
        self.thread
            .join()
            .expect("a panic in a feeder ends the process");
    }
}

/// What is fed from where to where.
pub(super) struct Feed {
    pub(super) lane: Lane,
    pub(super) queue: Arc<Queue>,
    pub(super) topic: String,
    pub(super) settings: KafkaSettings,
    pub(super) connection: Arc<Connection>,
    pub(super) metrics: Arc<Metrics>,
    /// Where to ask for what is on disk.
    pub(super) disk: Arc<Doorbell>,
}

impl Feed {
    fn run(&self, mut producer: Producer) {
        let (mut pause, mut before_next) = (PAUSE, FIRST_PAUSE);
        loop {
            producer.poll();
            match self.queue.next() {
                Work::Send(batch) => {
                    self.send(&producer, &batch);
                    self.queue.tell_acked();
                    pause = PAUSE;
                    if batch.len() < BATCH {
                        thread::sleep(pause);
                    }
                }
                Work::Poll => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONG_PAUSE);
                }
                Work::Read { after } => match self.disk.read(self.lane, after) {
                    Some(records) => self.queue.loaded(records),
                    // The spooler has said why.
                    None if self.queue.stopped_within(UNREADABLE) => break,
                    None => {}
                },
                Work::Stop => break,
                Work::StartOver { reason, progress } => {
                    before_next = if progress { FIRST_PAUSE } else { before_next };
                    tracing::warn!(
                        topic = self.topic,
                        reason,
                        "delivery to Kafka failed; starting over with a new producer in {before_next:?}"
                    );
                    producer = match self.start_over(producer, before_next) {
                        Some(producer) => producer,
                        None => return,
                    };
                    before_next = (before_next * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.end(producer);
    }

    /// Ends a producer, which may take longer than those who wait do, and may bring further reports.
    fn end(&self, producer: Producer) {
        self.queue.tell_acked();
        drop(producer);
        self.queue.tell_acked();
    }

    fn send(&self, producer: &Producer, batch: &[(u64, Arc<Record>)]) {
        panic_if_asked("feeder");
        for (at, (number, record)) in batch.iter().enumerate() {
            let sent = loop {
                match producer.send(&self.topic, *number, record) {
                    // The same record again, or a later one would overtake it.
                    Err(SendError::Full) if !self.queue.interrupted_within(FULL) => {
                        producer.poll();
                        self.queue.tell_acked();
                        // A producer may fail a record by itself, as of a topic that it knows to be missing,
                        // and yet take the next one: that would overtake.
                        if self.queue.has_failed() {
                            self.give_back(producer, batch.len() - at, "it has failed");
                            return;
                        }
                    }
                    sent => break sent,
                }
            };
            match sent {
                Ok(()) => {}
                Err(SendError::Unacceptable(reason)) => {
                    self.queue.refuse(producer.generation(), *number, &reason);
                }
                Err(SendError::Failed(reason)) => {
                    self.give_back(producer, batch.len() - at, &reason);
                    return;
                }
                Err(SendError::Full) => {
                    self.give_back(
                        producer,
                        batch.len() - at,
                        "librdkafka's own queue stays full",
                    );
                    return;
                }
            }
        }
    }

    fn give_back(&self, producer: &Producer, records: usize, reason: &str) {
        self.queue
            .not_handed_over(producer.generation(), records, reason);
    }

    /// Ends a producer and makes the next one, which begins with the oldest record that is not safe.
    fn start_over(&self, producer: Producer, pause: Duration) -> Option<Producer> {
        // Purging waits for every broker's thread, whatever that is doing.
        self.queue.tell_acked();
        producer.purge();
        let deadline = Instant::now() + REPORTS;
        while self.queue.awaits_reports() && Instant::now() < deadline {
            producer.poll();
            self.queue.tell_acked();
            thread::sleep(PAUSE);
        }
        self.end(producer);
        self.metrics.producer_recreated();
        loop {
            if self.queue.stopped_within(pause) {
                return None;
            }
            match self.producer() {
                Ok(producer) => return Some(producer),
                Err(error) => {
                    tracing::error!(topic = self.topic, %error, "no new producer could be made")
                }
            }
        }
    }

    fn producer(&self) -> Result<Producer, Error> {
        let generation = self.queue.start_over();
        let queue = Arc::clone(&self.queue);
        Producer::new(&self.settings, generation, queue, &self.connection)
    }
}
