//! The publisher of a lane: one thread that hands the records of its queue to Kafka, in order, and
//! resolves the tickets of those that Kafka has acknowledged.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::StartError;
use super::queue::{BATCH_RECORDS, Queue, Step};
use super::wakeup::Wakeup;
use crate::event::{Lane, Record};
use crate::failpoint;
use crate::kafka::{self, BrokerStatus, KafkaSettings, Producer, SendError};
use crate::metrics::Metrics;

/// How long a failed producer may take to report on its purged records.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two iterations, in which records and reports accumulate. Waking a thread for
/// each of them costs more than the rest of a callback. A single record that arrives while the
/// publisher waits is handed over at once.
const LOOP_PAUSE_MIN: Duration = Duration::from_micros(500);

/// The pause doubles up to this while there is nothing to hand over and no ticket to resolve.
const LOOP_PAUSE_MAX: Duration = Duration::from_millis(2);

/// The pause before a new producer, doubled with each failure until a record is settled.
const RECREATE_BACKOFF_MIN: Duration = Duration::from_millis(100);
const RECREATE_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The pause before a record is sent again after librdkafka's queue was full. The queue's window is
/// smaller than librdkafka's queue, unless the operator's properties make that one smaller.
const FULL_RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The pause before the spool is read again after it could not be read.
const READ_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The state of one publisher thread.
pub(super) struct Publisher {
    pub(super) lane: Lane,
    pub(super) queue: Arc<Queue>,
    pub(super) topic: String,
    pub(super) settings: KafkaSettings,
    pub(super) status: Arc<BrokerStatus>,
    pub(super) metrics: Arc<Metrics>,
    /// Asks the spooler to read records back.
    pub(super) wakeup: Arc<Wakeup>,
}

/// A producer and the queue's generation that it serves.
struct Current {
    producer: Producer,
    generation: u64,
}

impl Publisher {
    /// Creates the first producer, so that unusable settings are an error at once, and starts the
    /// thread.
    pub(super) fn start(self) -> Result<JoinHandle<()>, StartError> {
        let current = self.create_producer().map_err(StartError::Producer)?;
        thread::Builder::new()
            .name(format!("publisher {}", self.topic))
            .spawn(move || self.run(current))
            .map_err(|error| StartError::Thread("publisher", error))
    }

    fn run(&self, mut current: Current) {
        let (mut pause, mut backoff) = (LOOP_PAUSE_MIN, RECREATE_BACKOFF_MIN);
        loop {
            current.producer.poll();
            match self.queue.next_step() {
                Step::Send(batch) => {
                    self.send(&current, &batch);
                    self.queue.notify_acked();
                    pause = LOOP_PAUSE_MIN;
                    if batch.len() < BATCH_RECORDS {
                        thread::sleep(pause);
                    }
                }
                Step::NotifyAcked => {
                    self.queue.notify_acked();
                    pause = LOOP_PAUSE_MIN;
                    thread::sleep(pause);
                }
                Step::Poll => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LOOP_PAUSE_MAX);
                }
                Step::Read { after } => match self.wakeup.read(self.lane, after) {
                    Some(records) => self.queue.add_from_disk(records),
                    // The spooler has logged the reason.
                    None if self.queue.wait_for_stop(READ_RETRY_PAUSE) => break,
                    None => {}
                },
                Step::RecreateProducer { reason, progress } => {
                    if progress {
                        backoff = RECREATE_BACKOFF_MIN;
                    }
                    let topic = &self.topic;
                    tracing::warn!(
                        "delivery to topic {topic} failed ({reason}); retrying with a new producer in {backoff:?}"
                    );
                    current = match self.recreate_producer(current, backoff) {
                        Some(current) => current,
                        None => return,
                    };
                    backoff = (backoff * 2).min(RECREATE_BACKOFF_MAX);
                }
                Step::Stop => break,
            }
        }
        self.end(current.producer);
    }

    /// Ends a producer. That can take longer than clients wait, and can deliver further reports, so
    /// tickets are resolved before and after.
    fn end(&self, producer: Producer) {
        self.queue.notify_acked();
        drop(producer);
        self.queue.notify_acked();
    }

    fn send(&self, current: &Current, batch: &[(u64, Arc<Record>)]) {
        failpoint::hit("publisher");
        let return_unsent = |from: usize, reason: &str| {
            let unsent = batch.len() - from;
            self.queue.return_unsent(current.generation, unsent, reason);
        };
        for (at, (number, record)) in batch.iter().enumerate() {
            let sent = loop {
                match current.producer.send(&self.topic, *number, record) {
                    // Retry the same record: a later one would overtake it.
                    Err(SendError::Full) if !self.queue.wait_for_interruption(FULL_RETRY_PAUSE) => {
                        current.producer.poll();
                        self.queue.notify_acked();
                        // A producer can fail one record locally (for example, if its topic is
                        // known to be missing) and still take the next one, which would overtake.
                        if self.queue.has_failed() {
                            return return_unsent(at, "the producer has failed");
                        }
                    }
                    sent => break sent,
                }
            };
            match sent {
                Ok(()) => {}
                Err(SendError::Rejected(reason)) => {
                    self.queue.refuse(current.generation, *number, &reason);
                }
                Err(SendError::Failed(reason)) => return return_unsent(at, &reason),
                Err(SendError::Full) => {
                    return return_unsent(at, "librdkafka's queue stays full");
                }
            }
        }
    }

    /// Ends the producer and creates the next one, which begins with the oldest unsettled record.
    /// `None` if the lane is stopped meanwhile.
    fn recreate_producer(&self, failed: Current, backoff: Duration) -> Option<Current> {
        // Purging waits for all broker threads, so resolve tickets first.
        self.queue.notify_acked();
        failed.producer.purge();
        let deadline = Instant::now() + PURGE_TIMEOUT;
        while self.queue.awaits_reports() && Instant::now() < deadline {
            failed.producer.poll();
            self.queue.notify_acked();
            thread::sleep(LOOP_PAUSE_MIN);
        }
        self.end(failed.producer);
        self.metrics.producer_recreated();
        loop {
            if self.queue.wait_for_stop(backoff) {
                return None;
            }
            match self.create_producer() {
                Ok(current) => return Some(current),
                Err(error) => {
                    let topic = &self.topic;
                    tracing::error!(
                        "cannot create a new producer for topic {topic}: {error}; retrying"
                    );
                }
            }
        }
    }

    fn create_producer(&self) -> Result<Current, kafka::Error> {
        let generation = self.queue.begin_generation();
        let queue = Arc::clone(&self.queue);
        let on_report = move |number, report: kafka::Report<'_>| {
            queue.report(generation, number, report);
        };
        Ok(Current {
            producer: Producer::new(&self.settings, &self.status, on_report)?,
            generation,
        })
    }
}
