//! The queue of one lane: it numbers records, holds their tickets, and decides what the publisher,
//! the spooler and the reader do next.
//!
//! A record goes to Kafka at once, unless it waits for one that must stand before it:
//!
//! ```text
//!             ┌────────────────────────────► a shard's producer
//! accepted ───┤ key has rows on disk
//!             └──► held ──► written to disk ──► read back, in order per key ──► backlog or run producer
//! ```
//!
//! If Kafka takes too long, the spooler writes a record to disk, and its callback is answered. From
//! then on later records of its key wait until it is settled. A record of which the callback has
//! not been answered has no order with others, so nothing waits for it.
//!
//! The queue itself does not send, sleep or do I/O: its rules are plain state behind one lock, so
//! they can be tested, and checked against a model, without a broker.

mod backlog;
mod disk;
mod hand_over;
mod keys;
mod pacing;
mod partition;
mod partitions;
mod repartition;
mod reports;
mod returned;
mod state;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};

use super::ticket::{Durability, Settled, Ticket, settle};
use super::wakeup::{SPOOLER_POLL_INTERVAL_MIN, Wakeups};
use crate::event::Record;
use crate::kafka::BrokerStatus;
use crate::log::LogThrottle;
use crate::metrics::Metrics;
use crate::spool::Backlog;
pub(super) use backlog::{Missing, ReadPlan};
pub(super) use pacing::Pacing;
pub use partitions::{MAX_LOADED_BYTES, MAX_LOADED_RECORDS};
pub(super) use reports::Reported;
use state::{QueueState, RECORD_OVERHEAD_BYTES};
pub(super) use waiting::Waiting;

/// The bytes that records of a lane may take while they are in memory only, their overhead
/// included. A full queue refuses a record before it numbers it.
pub const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// The number of records of all lanes together that may be in memory only. Each lane has an equal
/// share, so that a topic that takes no records does not use up the space of the others. The
/// deduplication window keeps the ticket of each of these records.
pub const MAX_VOLATILE_RECORDS: usize = 131_072;

/// With this many rows to delete, the spooler is woken, and nothing more is read from disk until it
/// has deleted some: a crash would publish all of them again.
const MAX_UNDELETED_ROWS: usize = 10_000;

/// There is no space for another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full: Kafka cannot be reached or accepts records too slowly; send it again")]
pub struct Full;

/// Names one producer, from its creation to its end.
pub(super) type ProducerId = u32;

/// Which producer a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// One of the shards', chosen by the hash of the key.
    Shard(u32),
    /// The one for rows from disk, one of each key at a time.
    Backlog,
    /// The one for many rows of a key in a row, which lets nothing overtake.
    Run,
    /// The one for dead letters.
    Side,
    /// The same, alone: Kafka has rejected a batch with this record and has not named the culprit.
    Suspect,
}

/// A record to be handed to a producer.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: ProducerId,
    pub(super) number: u64,
    pub(super) record: Arc<Record>,
}

/// Numbers the records of all lanes, in the order in which they are accepted.
#[derive(Debug)]
pub(super) struct Sequence(AtomicU64);

impl Sequence {
    /// Starts with this number.
    pub(super) fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The disk as one queue uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    /// How long Kafka may take before a record is also written to disk.
    pub(super) after: Duration,
}

/// The queue of one lane.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<QueueState>,
    sequence: Arc<Sequence>,
    metrics: Arc<Metrics>,
    status: Arc<BrokerStatus>,
    wakeups: Arc<Wakeups>,
    disk: Option<Disk>,
    /// The lane's share of [`MAX_VOLATILE_RECORDS`].
    max_records: usize,
    /// Takes the dead letters of refused records. `None` for the queue of dead letters itself.
    dead_letters: Option<Arc<Queue>>,
    rejections: LogThrottle,
}

impl Queue {
    /// An empty queue without a disk, for this many records in memory. Records have an order unless
    /// they are dead letters.
    pub(super) fn new(
        max_records: usize,
        sequence: Arc<Sequence>,
        metrics: Arc<Metrics>,
        status: Arc<BrokerStatus>,
        wakeups: Arc<Wakeups>,
        dead_letters: Option<Arc<Self>>,
    ) -> Self {
        let is_ordered = dead_letters.is_some();
        let state = QueueState::new(is_ordered, Backlog::default());
        Self {
            state: Mutex::new(state),
            sequence,
            metrics,
            status,
            wakeups,
            disk: None,
            max_records,
            dead_letters,
            rejections: LogThrottle::default(),
        }
    }

    /// Adds a disk, with the records that earlier runs left on it.
    #[must_use]
    pub(super) fn with_disk(mut self, disk: Disk, backlog: Backlog) -> Self {
        let is_ordered = self.dead_letters.is_some();
        self.state = Mutex::new(QueueState::new(is_ordered, backlog));
        self.disk = Some(disk);
        self
    }

    /// Numbers the record and adds it. From here on it belongs to the queue, even if nobody waits
    /// for the ticket any more.
    ///
    /// # Errors
    ///
    /// [`Full`]; the record then has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let ticket = Arc::new(Ticket::new());
        self.enqueue_with(record, Arc::clone(&ticket), None)?;
        Ok(ticket)
    }

    fn enqueue_with(
        &self,
        record: Record,
        ticket: Arc<Ticket>,
        replaces: Option<u64>,
    ) -> Result<(), Full> {
        let cost = record.size() + RECORD_OVERHEAD_BYTES;
        let record = Arc::new(record);
        let mut state = self.lock();
        if state.bytes + cost > MAX_QUEUE_BYTES || state.fresh.len() >= self.max_records {
            return Err(Full);
        }
        let waits = state.add(self.sequence.next(), record, ticket, replaces);
        drop(state);
        if !waits {
            self.wakeups.publisher.wake();
        }
        if let Some(disk) = self.disk
            && (waits || self.is_late() || disk.after < SPOOLER_POLL_INTERVAL_MIN)
        {
            self.wakeups.spooler.wake();
        }
        Ok(())
    }

    /// Whether a new record is written to disk at once instead of waiting for Kafka first.
    fn is_late(&self) -> bool {
        self.status.is_down() || self.disk.is_some_and(|disk| disk.after.is_zero())
    }

    /// How long the oldest record that is not durable has waited.
    pub fn oldest_age(&self) -> Duration {
        let oldest = self.lock().oldest_volatile();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Whether every record is durable and Kafka has answered for all that the producers hold.
    /// Records on disk may wait there.
    pub fn is_at_rest(&self) -> bool {
        let state = self.lock();
        let in_flight = state.in_flight() > 0 && !self.status.is_down();
        state.oldest_volatile().is_none() && !in_flight
    }

    /// Begins the shutdown: makes every record durable at once and reads nothing more from disk.
    pub fn finish(&self) {
        self.lock().finishing = true;
        self.wakeups.spooler.wake();
    }

    /// What is to be handed over now, in this order. `route` names the producer to be used; `None`
    /// if that one takes nothing now.
    pub(super) fn hand_over(
        &self,
        now: Instant,
        pacing: Pacing,
        mut route: impl FnMut(Via) -> Option<ProducerId>,
    ) -> Vec<Outgoing> {
        let mut state = self.lock();
        let before = state.in_flight();
        state.note_time(SystemTime::now());
        let batch = state.hand_over(now, pacing, &mut route);
        self.count_flight(before, state.in_flight());
        batch
    }

    /// Sets how long Kafka remembers a producer after its last record, once it is known.
    pub(super) fn set_producer_expiration(&self, expiration: Duration) {
        self.lock().producer_expiration = expiration;
    }

    /// Sets the number of partitions of the topic, once it is known or has changed.
    pub(super) fn set_partitions(&self, count: usize) {
        self.lock().set_partitions(count);
        self.wake_reader();
    }

    fn count_flight(&self, before: usize, after: usize) {
        if after > before {
            self.metrics.entered_flight(after - before);
        } else {
            self.metrics.left_flight(before - after);
        }
    }

    /// Resolves the ticket of a record that has become durable, and counts it.
    fn notify(&self, record: &Record, ticket: &Ticket, durability: Durability, now: SystemTime) {
        settle(ticket, Settled::Durable(durability, record.event_id));
        if let Some(counted) = record.counted {
            self.metrics
                .record_durable(counted, since(record.timestamp, now));
        }
    }

    /// How many partitions its topic has; 1 until that is known.
    #[cfg(test)]
    pub(super) fn partitions(&self) -> usize {
        self.lock().partitions.count()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }
}

/// The time since this timestamp; zero if it is in the future.
fn since(timestamp: i64, now: SystemTime) -> Duration {
    let timestamp = Duration::from_millis(u64::try_from(timestamp).unwrap_or_default());
    let elapsed = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    elapsed.saturating_sub(timestamp)
}

#[cfg(test)]
mod tests;
