//! The ordered queue of one lane: numbers, who waits, what Kafka has acknowledged.
//!
//! Every accepted record gets the next number, and the feeder hands numbers to Kafka in that order.
//! Nothing here sends, sleeps or knows Kafka: the rules are plain state behind one lock, so that they
//! can be tested, and checked against a model, without a broker.
//!
//! ```text
//!   window                         backlog            tail
//! [ handed over │ to hand over ]  [ on disk only ]  [ in memory only ]
//!   oldest ──────────────────────────────────────────────► newest
//! ```
//!
//! A number leaves at the front once it is settled, so the front is always the oldest record that
//! Kafka does not have, and starting again from the front after a failure repeats as little as
//! possible without ever letting a later record of a group overtake an earlier one. When records have
//! waited for too long, the spooler takes all that are not safe, in order, and writes them to disk;
//! those at the end of the queue then leave the memory, and the feeder reads them back when it is
//! their turn. While Kafka is fast there is no backlog, and a record goes from the tail to the window.

mod disk;
mod reports;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::kafka::Connection;
use super::spool::{Backlog, Lane};
use super::spooler::{Doorbell, SPOOLER_LOOKS};
use super::ticket::{Safe, Settled, Ticket, settle};
use crate::event::Record;
use crate::metrics::Metrics;
pub(super) use state::BATCH;
use state::{COST_OF_A_RECORD, Entry, MOST_PATIENCE, State};

/// The records of a lane that are in memory only may have so many bytes, what they cost besides
/// their own included. A full queue refuses before it numbers.
pub const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// From the oldest record that the producer has, unacknowledged, to the newest there may be so many:
/// a window, not a buffer. It also bounds how many duplicates a crash or a new producer can make.
pub const MAX_IN_FLIGHT: usize = 10_000;

/// Or less, where the records are large.
pub const MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

/// When so many rows wait to be deleted, the spooler is woken to do it, and nothing more is read from
/// disk until it has: a crash would repeat them all.
const MAX_DONE: usize = 10_000;

/// A feeder with nothing to do lets its producer speak so often: of its connections and statistics.
const IDLE: Duration = Duration::from_millis(100);

/// There is no room for another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full: Kafka is slower than the sender or away")]
pub struct Full;

/// What the producer says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report<'a> {
    /// It is in the topic.
    Acked,
    /// Kafka refuses this record, or the batch that it was in, whatever one does.
    Unacceptable(&'a str),
    /// Anything else: it may be in the topic or not.
    Failed(&'a str),
}

/// What the feeder shall do next.
#[derive(Debug)]
pub(super) enum Work {
    /// Hand these to the producer, in this order. None, where there is only somebody to be
    /// [told](Queue::tell_acked).
    Send(Vec<(u64, Arc<Record>)>),
    /// Read what follows this number from disk, and bring it to [`Queue::loaded`].
    Read {
        /// None: from the beginning.
        after: Option<u64>,
    },
    /// See what the producer says.
    Poll,
    /// Throw the producer away and start again from the front with a new one.
    StartOver {
        /// What went wrong.
        reason: String,
        /// Whether anything was settled since the last time.
        progress: bool,
    },
    /// Nothing will come any more.
    Stop,
}

/// The numbers of a lane.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    /// Those that follow the lane's last one, and all that a run before `now` can have given: it would
    /// have had to accept a million records a millisecond. What is deleted on disk may still be there for
    /// whoever salvages it, and must not pass for another record of the same number.
    ///
    /// The lanes' numbers are far apart, since on disk rows stand in the order of their numbers: the few
    /// dead letters of a long outage stand together, and none of them costs a page of events to read or
    /// to delete. The events come last, where SQLite fills its pages.
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

/// What a lane of the queue needs to know of the disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) doorbell: Arc<Doorbell>,
    /// How long Kafka may take before a record is also made safe on disk.
    pub(super) after: Duration,
}

/// The ordered queue of one lane.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    numbers: Numbers,
    metrics: Arc<Metrics>,
    connection: Arc<Connection>,
    disk: Option<Disk>,
    /// Where records go that Kafka finally refuses; the dead letters' own queue has no further one.
    dead_letters: Option<Arc<Queue>>,
}

impl Queue {
    /// An empty queue without a disk, and what takes the records that Kafka refuses for good.
    pub(super) fn new(
        numbers: Numbers,
        metrics: Arc<Metrics>,
        connection: Arc<Connection>,
        dead_letters: Option<Arc<Self>>,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(Backlog::default())),
            changed: Condvar::new(),
            numbers,
            metrics,
            connection,
            disk: None,
            dead_letters,
        }
    }

    /// With a disk, on which earlier runs have left records.
    #[must_use]
    pub(super) fn with_disk(mut self, disk: Disk, backlog: Backlog) -> Self {
        self.state = Mutex::new(State::new(backlog));
        self.disk = Some(disk);
        self
    }

    /// Gives the record the next number. From here on it belongs to the queue: whoever waits on the
    /// ticket may go away.
    ///
    /// # Errors
    ///
    /// [`Full`], and then the record has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let ticket = Arc::new(Ticket::new());
        self.enqueue_for(record, Arc::clone(&ticket), None)?;
        Ok(ticket)
    }

    fn enqueue_for(
        &self,
        record: Record,
        ticket: Arc<Ticket>,
        replaces: Option<u64>,
    ) -> Result<(), Full> {
        let cost = record.size() + COST_OF_A_RECORD;
        let record = Arc::new(record);
        let mut state = self.lock();
        if state.bytes + cost > MAX_QUEUE_BYTES {
            return Err(Full);
        }
        state.bytes += cost;
        let mut entry = Entry::new(self.numbers.next(), record, Some(ticket));
        entry.replaces = replaces;
        state.tail.push_back(entry);
        self.wake(&mut state);
        let late = self.is_late(&state);
        drop(state);
        if let Some(disk) = &self.disk
            && (late || disk.after < SPOOLER_LOOKS)
        {
            disk.doorbell.ring();
        }
        Ok(())
    }

    /// Whether a record that comes now need not wait for Kafka before it is written to disk.
    fn is_late(&self, state: &State) -> bool {
        state.backlog > 0
            || self.connection.is_down()
            || self.disk.as_ref().is_some_and(|disk| disk.after.is_zero())
    }

    /// How long the oldest record that is not safe has waited.
    pub fn oldest_age(&self) -> Duration {
        let oldest = self.lock().oldest_unsafe();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Whether every record is safe, and none is with the producer without an answer. What is on disk
    /// may wait there.
    pub fn is_at_rest(&self) -> bool {
        let state = self.lock();
        let in_flight = state.in_flight > 0 && !self.connection.is_down();
        state.oldest_unsafe().is_none() && !in_flight
    }

    /// The service is stopping: what is not safe becomes so at once, and nothing more is read from disk.
    pub fn finish(&self) {
        self.lock().finishing = true;
        if let Some(disk) = &self.disk {
            disk.doorbell.ring();
        }
    }

    /// Ends the feeder, whatever still waits.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.wake(&mut state);
    }

    /// A new producer begins: everything that is not settled goes to it, from the front.
    pub(super) fn start_over(&self) -> u64 {
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

    /// Waits until there is something to do for the feeder, but not while its producer has something to
    /// report on: only who polls it hears of that.
    pub(super) fn next(&self) -> Work {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if state.stopping {
                return Work::Stop;
            }
            if state.is_stalled() {
                let silence = state.last_progress.elapsed();
                state.patience = (state.patience * 2).min(MOST_PATIENCE);
                state.failure = Some(format!("no acknowledgement for {} s", silence.as_secs()));
            }
            if let Some(reason) = state.failure.take() {
                return Work::StartOver {
                    reason,
                    progress: state.progress,
                };
            }
            let batch = state.hand_over();
            if !batch.is_empty() || !state.acked.is_empty() {
                self.metrics.entered_flight(batch.len());
                return Work::Send(batch);
            }
            if state.wants_backlog() {
                return Work::Read {
                    after: state.taken_to,
                };
            }
            if state.in_flight > 0 || waited {
                return Work::Poll;
            }
            state.feeder_waits = true;
            state = (self.changed.wait_timeout(state, IDLE))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.feeder_waits = false;
            waited = true;
        }
    }

    /// These could not be handed to the producer after all; the reason ends this producer.
    pub(super) fn not_handed_over(&self, generation: u64, count: usize, reason: &str) {
        let mut state = self.lock();
        if generation == state.generation {
            state.in_flight -= count;
            self.metrics.left_flight(count);
            state.failure.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Whether the producer has not yet reported on everything that it was given, and the lane goes on.
    pub(super) fn awaits_reports(&self) -> bool {
        let state = self.lock();
        state.in_flight > 0 && !state.stopping
    }

    /// Whether the lane is stopped within this time: the pause before a new producer.
    pub(super) fn stopped_within(&self, pause: Duration) -> bool {
        self.wait(pause, |state| state.stopping)
    }

    /// Whether the producer has failed, and nothing more should be given to it.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Whether the feeder must leave its producer within this time, because the lane is stopped or the
    /// producer has failed.
    pub(super) fn interrupted_within(&self, pause: Duration) -> bool {
        self.wait(pause, |state| {
            state.stopping || state.failure.is_some() || state.is_stalled()
        })
    }

    fn wait(&self, pause: Duration, until: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        state.feeder_waits = true;
        let (mut state, _) = (self.changed)
            .wait_timeout_while(state, pause, |state| !until(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.feeder_waits = false;
        until(&state)
    }

    /// Tells those who wait that their record is safe, and the metrics.
    fn tell(&self, record: &Record, ticket: &Ticket, safe: Safe) {
        settle(ticket, Settled::Safe(safe, record.event_id));
        self.metrics.made_safe(record.kind);
    }

    fn wake(&self, state: &mut State) {
        // Waking costs a system call, and a busy feeder does not need it.
        if state.feeder_waits {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;
