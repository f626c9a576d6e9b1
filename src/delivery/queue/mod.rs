//! The ordered queue of one lane: it numbers records, holds their tickets, and decides what
//! the publisher and the spooler do next.
//!
//! Every accepted record gets the next number, and the publisher hands records to Kafka in the
//! order of their numbers. The queue itself does not send, sleep or do I/O: its rules are plain
//! state behind one lock, so they can be tested, and checked against a model, without a broker.
//!
//! ```text
//!   window                         backlog            tail
//! [ handed over │ to hand over ]  [ on disk only ]  [ in memory only ]
//!   oldest ──────────────────────────────────────────────► newest
//! ```
//!
//! A record leaves the window at the front only, once it is settled. The front is therefore always
//! the oldest record that Kafka does not have. Restarting from the front after a failure repeats as
//! little as possible and never lets a later record of a group overtake an earlier one.
//!
//! If records have waited too long, the spooler writes all that are not durable to disk, in order.
//! Those of the tail then leave memory (they become the backlog), and the publisher reads them back
//! in order. While Kafka is fast there is no backlog, and a record moves from the tail
//! to the window.

mod disk;
mod reports;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ticket::{Durability, Settled, Ticket, settle};
use super::wakeup::{SPOOLER_POLL_INTERVAL_MIN, Wakeup};
use crate::event::{Lane, Record};
use crate::kafka::BrokerStatus;
use crate::metrics::Metrics;
use crate::spool::Backlog;
pub(super) use state::BATCH_RECORDS;
use state::{Entry, QueueState, RECORD_OVERHEAD_BYTES, STALL_TIMEOUT_MAX};

/// The bytes that records of a lane may take while they are in memory only, their overhead
/// included. A full queue refuses a record before it numbers it.
pub const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// With this many rows to delete, the spooler is woken, and nothing more is read from disk until it
/// has deleted some: a crash would publish all of them again.
const MAX_UNDELETED_ROWS: usize = 10_000;

/// How often an idle publisher polls its producer, for connection changes and statistics.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// There is no space for another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full: Kafka cannot be reached or accepts records too slowly; send it again")]
pub struct Full;

/// What the publisher does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Hand these records to the producer, in this order.
    Send(Vec<(u64, Arc<Record>)>),
    /// Call [`Queue::notify_acked`]: there is nothing to send, but tickets to resolve.
    NotifyAcked,
    /// Read what follows this number from disk (`None`: from the start) and pass it to
    /// [`Queue::add_from_disk`].
    Read { after: Option<u64> },
    /// Poll the producer for reports.
    Poll,
    /// Replace the producer and start again from the front of the window.
    RecreateProducer {
        reason: String,
        /// Whether the failed producer has settled any record.
        progress: bool,
    },
    /// The lane is stopped.
    Stop,
}

/// Numbers the records of a lane.
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU64);

impl Sequence {
    /// Starts behind the lane's last number on disk, and behind every number that an earlier run
    /// can have given before `now`: it would have had to accept a million records per millisecond.
    /// A deleted row may still be found by a recovery, and must not pass for another record of the
    /// same number.
    ///
    /// The lanes' numbers are far apart because rows are stored by number. The few dead letters of
    /// a long outage are then stored together, and reading or deleting them touches no page of
    /// events. Events come last, where SQLite fills its pages.
    pub(super) fn after(lane: Lane, last: Option<u64>, now: SystemTime) -> Self {
        let lane = match lane {
            Lane::Events => 1 << 62,
            Lane::DeadLetters => 0,
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = lane | (now.as_millis() as u64) << 20;
        Self(AtomicU64::new(
            last.map_or(first, |last| first.max(last + 1)),
        ))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The disk as one queue uses it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) wakeup: Arc<Wakeup>,
    /// How long Kafka may take before a record is also written to disk.
    pub(super) after: Duration,
}

/// The ordered queue of one lane.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    sequence: Sequence,
    metrics: Arc<Metrics>,
    status: Arc<BrokerStatus>,
    disk: Option<Disk>,
    /// Takes the dead letters of refused records. `None` for the queue of dead letters itself.
    dead_letters: Option<Arc<Queue>>,
}

impl Queue {
    /// An empty queue without a disk.
    pub(super) fn new(
        sequence: Sequence,
        metrics: Arc<Metrics>,
        status: Arc<BrokerStatus>,
        dead_letters: Option<Arc<Self>>,
    ) -> Self {
        Self {
            state: Mutex::new(QueueState::new(Backlog::default())),
            changed: Condvar::new(),
            sequence,
            metrics,
            status,
            disk: None,
            dead_letters,
        }
    }

    /// Adds a disk, with the records that earlier runs left on it.
    #[must_use]
    pub(super) fn with_disk(mut self, disk: Disk, backlog: Backlog) -> Self {
        self.state = Mutex::new(QueueState::new(backlog));
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
        if state.bytes + cost > MAX_QUEUE_BYTES {
            return Err(Full);
        }
        state.bytes += cost;
        let mut entry = Entry::new(self.sequence.next(), record, Some(ticket));
        entry.replaces = replaces;
        state.tail.push_back(entry);
        self.wake_publisher(&mut state);
        let is_late = self.is_late(&state);
        drop(state);
        if let Some(disk) = &self.disk
            && (is_late || disk.after < SPOOLER_POLL_INTERVAL_MIN)
        {
            disk.wakeup.wake();
        }
        Ok(())
    }

    /// Whether a new record is written to disk at once instead of waiting for Kafka first.
    fn is_late(&self, state: &QueueState) -> bool {
        state.backlog > 0
            || self.status.is_down()
            || self.disk.as_ref().is_some_and(|disk| disk.after.is_zero())
    }

    /// How long the oldest record that is not durable has waited.
    pub fn oldest_age(&self) -> Duration {
        let oldest = self.lock().oldest_volatile();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Whether every record is durable and Kafka has answered for all that the producer holds.
    /// Records on disk may wait there.
    pub fn is_at_rest(&self) -> bool {
        let state = self.lock();
        let in_flight = state.in_flight > 0 && !self.status.is_down();
        state.oldest_volatile().is_none() && !in_flight
    }

    /// Begins the shutdown: makes every record durable at once and reads nothing more from disk.
    pub fn finish(&self) {
        self.lock().finishing = true;
        if let Some(disk) = &self.disk {
            disk.wakeup.wake();
        }
    }

    /// Ends the publisher, even if records still wait.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.wake_publisher(&mut state);
    }

    /// Begins the generation of a new producer, which gets every unsettled record from the front.
    pub(super) fn begin_generation(&self) -> u64 {
        let mut state = self.lock();
        self.metrics.left_flight(state.in_flight);
        state.generation += 1;
        state.next = 0;
        state.in_flight = 0;
        state.failure = None;
        state.progress = false;
        state.last_progress = Instant::now();
        state.generation
    }

    /// Waits for something to do, for a short time at most. Does not wait while the producer holds
    /// records, because only polling it brings their reports.
    pub(super) fn next_step(&self) -> Step {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if state.stopping {
                return Step::Stop;
            }
            if state.is_stalled() {
                let silence = state.last_progress.elapsed();
                state.stall_timeout = (state.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
                state.failure = Some(format!("no acknowledgement for {} s", silence.as_secs()));
            }
            if let Some(reason) = state.failure.take() {
                return Step::RecreateProducer {
                    reason,
                    progress: state.progress,
                };
            }
            let batch = state.hand_over();
            if !batch.is_empty() {
                self.metrics.entered_flight(batch.len());
                return Step::Send(batch);
            }
            if !state.acked.is_empty() {
                return Step::NotifyAcked;
            }
            if state.wants_backlog() {
                return Step::Read {
                    after: state.taken_to,
                };
            }
            if state.in_flight > 0 || waited {
                return Step::Poll;
            }
            state.publisher_waits = true;
            (self.changed).wait_for(&mut state, IDLE_POLL_INTERVAL);
            state.publisher_waits = false;
            waited = true;
        }
    }

    /// Takes back the last `count` records of a batch, which the producer did not take. The reason
    /// ends this producer.
    pub(super) fn return_unsent(&self, generation: u64, count: usize, reason: &str) {
        let mut state = self.lock();
        if generation == state.generation {
            state.in_flight -= count;
            self.metrics.left_flight(count);
            state.failure.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Whether the producer still has to report on records and the lane is not stopped.
    pub(super) fn awaits_reports(&self) -> bool {
        let state = self.lock();
        state.in_flight > 0 && !state.stopping
    }

    /// Whether the producer has failed and must not be given anything more.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Waits for this time. True as soon as the lane is stopped.
    pub(super) fn wait_for_stop(&self, pause: Duration) -> bool {
        self.wait_until(pause, |state| state.stopping)
    }

    /// Waits for this time. True as soon as the publisher must leave its producer, because the lane
    /// is stopped or the producer has failed or stalled.
    pub(super) fn wait_for_interruption(&self, pause: Duration) -> bool {
        self.wait_until(pause, |state| {
            state.stopping || state.failure.is_some() || state.is_stalled()
        })
    }

    fn wait_until(&self, pause: Duration, is_met: impl Fn(&QueueState) -> bool) -> bool {
        let mut state = self.lock();
        state.publisher_waits = true;
        (self.changed).wait_while_for(&mut state, |state| !is_met(state), pause);
        state.publisher_waits = false;
        is_met(&state)
    }

    /// Resolves the ticket of a record that has become durable, and counts it.
    fn notify(&self, record: &Record, ticket: &Ticket, durability: Durability) {
        settle(ticket, Settled::Durable(durability, record.event_id));
        self.metrics.record_durable(record.kind);
    }

    fn wake_publisher(&self, state: &mut QueueState) {
        // A wake-up is a system call, and a busy publisher does not need it.
        if state.publisher_waits {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests;
