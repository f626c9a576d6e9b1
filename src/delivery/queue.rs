//! The ordered queue of one lane: numbers, who waits, what Kafka has acknowledged.
//!
//! Every accepted record gets the next number, and the feeder hands numbers to Kafka in that order.
//! Nothing here sends, sleeps or knows Kafka: the rules are plain state behind one lock, so that they
//! can be tested, and checked against a model, without a broker.
//!
//! ```text
//!   first          next             first + entries.len()
//!     │ handed over  │ waits for the feeder │
//!     ▼              ▼                      ▼
//!   [ acked? acked? … │ …                   ]
//! ```
//!
//! A number leaves at the front once it is settled, so the front is always the oldest record that is
//! not safe yet, and starting again from the front after a failure repeats as little as possible
//! without ever letting a later record of a group overtake an earlier one.

mod state;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ticket::{Safe, Settled, Ticket, settle};
use crate::event::{Kind, Record};
use crate::metrics::Metrics;
use state::{COST_OF_A_RECORD, Entry, MOST_PATIENCE, PATIENCE, State};

/// The records of a lane that are in memory only may have so many bytes, what they cost besides
/// their own included. A full queue refuses before it numbers.
pub const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// So many records may be with the producer, unacknowledged: a window, not a buffer. It also bounds
/// how many duplicates a crash or a new producer can make.
pub const MAX_IN_FLIGHT: usize = 10_000;

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
    /// Hand these to the producer, in this order.
    Send(Vec<(u64, Arc<Record>)>),
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

/// The ordered queue of one lane.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    metrics: Arc<Metrics>,
    /// Where records go that Kafka finally refuses; the dead letters' own queue has no further one.
    dead_letters: Option<Arc<Queue>>,
}

impl Queue {
    /// An empty queue, and what takes the records that Kafka refuses for good.
    pub fn new(metrics: Arc<Metrics>, dead_letters: Option<Arc<Self>>) -> Self {
        Self {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            metrics,
            dead_letters,
        }
    }

    /// Gives the record the next number. From here on it belongs to the queue: whoever waits on the
    /// ticket may go away.
    ///
    /// # Errors
    ///
    /// [`Full`], and then the record has no number and will not be published.
    pub fn enqueue(&self, record: Record) -> Result<Arc<Ticket>, Full> {
        let ticket = Arc::new(Ticket::new());
        self.enqueue_for(record, Arc::clone(&ticket))?;
        Ok(ticket)
    }

    fn enqueue_for(&self, record: Record, ticket: Arc<Ticket>) -> Result<(), Full> {
        let now = Instant::now();
        let cost = record.size() + COST_OF_A_RECORD;
        let mut state = self.lock();
        if state.bytes + cost > MAX_QUEUE_BYTES {
            return Err(Full);
        }
        if state.entries.is_empty() {
            state.last_progress = now;
        }
        state.bytes += cost;
        state.entries.push_back(Entry {
            record: Some(Arc::new(record)),
            ticket,
            accepted: now,
            handed_over: now,
            alone: false,
        });
        self.wake(&mut state);
        Ok(())
    }

    /// How long the oldest record that is not safe has waited.
    pub fn oldest_age(&self) -> Duration {
        let state = self.lock();
        state
            .entries
            .front()
            .map_or(Duration::ZERO, |entry| entry.accepted.elapsed())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
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
        state.next = state.first;
        state.in_flight = 0;
        state.failure = None;
        state.progress = false;
        state.last_progress = Instant::now();
        state.generation
    }

    /// Waits until there is something to do for the feeder.
    pub(super) fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return Work::Stop;
            }
            if state.is_stalled() {
                let waited = state.last_progress.elapsed();
                state.patience = (state.patience * 2).min(MOST_PATIENCE);
                state.failure = Some(format!("no acknowledgement for {} s", waited.as_secs()));
            }
            if let Some(reason) = state.failure.take() {
                return Work::StartOver {
                    reason,
                    progress: state.progress,
                };
            }
            let batch = state.hand_over();
            if !batch.is_empty() {
                self.metrics.entered_flight(batch.len());
                return Work::Send(batch);
            }
            state.feeder_waits = true;
            let timeout = Duration::from_secs(1);
            state = (self.changed.wait_timeout(state, timeout))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.feeder_waits = false;
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

    /// Waits until the producer has reported on everything that it was given.
    pub(super) fn wait_for_reports(&self, deadline: Instant) {
        let mut state = self.lock();
        while state.in_flight > 0 && !state.stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.feeder_waits = true;
            state = (self.changed.wait_timeout(state, left))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.feeder_waits = false;
        }
    }

    /// Whether the lane is stopped within this time: the pause before a new producer.
    pub(super) fn stopped_within(&self, pause: Duration) -> bool {
        self.wait(pause, |state| state.stopping)
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

    /// Takes down what a producer says of one record.
    pub(super) fn report(&self, generation: u64, number: u64, report: Report<'_>) {
        let mut state = self.lock();
        let current = generation == state.generation;
        let alone = state.is_alone(number);
        if current {
            state.in_flight = state.in_flight.saturating_sub(1);
            self.metrics.left_flight(1);
        }
        let settled = match report {
            Report::Acked => {
                state.patience = PATIENCE;
                state.settle(number)
            }
            Report::Unacceptable(_) if current && alone => state.settle(number),
            Report::Unacceptable(reason) | Report::Failed(reason) if current => {
                if matches!(report, Report::Unacceptable(_)) {
                    state.alone_below = state.alone_below.max(number + 1);
                }
                state.failure.get_or_insert_with(|| reason.to_owned());
                None
            }
            Report::Unacceptable(_) | Report::Failed(_) => None,
        };
        if let Report::Unacceptable(reason) = report
            && settled.is_some()
        {
            // A refused batch is fatal to a gapless producer, even where it held one record.
            state.failure.get_or_insert_with(|| reason.to_owned());
        }
        self.wake(&mut state);
        drop(state);
        if let Some((record, ticket, handed_over)) = settled {
            self.tell(&record, &ticket, handed_over, report);
        }
    }

    /// The record could not even be given to the producer, and never will be.
    pub(super) fn refuse(&self, generation: u64, number: u64, reason: &str) {
        let mut state = self.lock();
        if generation == state.generation {
            state.in_flight -= 1;
            self.metrics.left_flight(1);
        }
        let settled = state.settle(number);
        drop(state);
        if let Some((record, ticket, handed_over)) = settled {
            self.tell(&record, &ticket, handed_over, Report::Unacceptable(reason));
        }
    }

    /// Tells those who wait, and the metrics. Not under the lock: it may enter another queue's.
    fn tell(
        &self,
        record: &Record,
        ticket: &Arc<Ticket>,
        handed_over: Instant,
        report: Report<'_>,
    ) {
        match (report, &self.dead_letters) {
            (Report::Acked, _) => {
                self.metrics.delivered(handed_over.elapsed());
                let safe = match record.kind {
                    Kind::GroupJoined { .. } => Safe::Published,
                    Kind::DeadLetter(_) => Safe::DeadLettered,
                };
                settle(ticket, Settled::Safe(safe, record.event_id));
                self.metrics.made_safe(record.kind);
            }
            (Report::Unacceptable(reason) | Report::Failed(reason), Some(dead_letters)) => {
                self.metrics.rejected();
                let letter = record.rejected(reason);
                tracing::warn!(event_id = %record.event_id, reason, "Kafka refuses a record; it becomes a dead letter");
                if dead_letters
                    .enqueue_for(letter, Arc::clone(ticket))
                    .is_err()
                {
                    settle(ticket, Settled::Refused);
                }
            }
            (Report::Unacceptable(_) | Report::Failed(_), None) => {
                self.metrics.rejected();
                settle(ticket, Settled::Refused);
            }
        }
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
