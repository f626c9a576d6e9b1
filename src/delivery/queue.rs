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

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::SetOnce;
use uuid::Uuid;

use crate::event::{Kind, Record};
use crate::metrics::Metrics;

/// The records of a lane that are in memory only may have so many bytes, what they cost besides
/// their own included. A full queue refuses before it numbers.
pub const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// So many records may be with the producer, unacknowledged: a window, not a buffer. It also bounds
/// how many duplicates a crash or a new producer can make.
pub const MAX_IN_FLIGHT: usize = 10_000;

/// What a record costs in memory besides its own bytes: its entry, its ticket and its headers' handles.
const COST_OF_A_RECORD: usize = 1024;

/// The feeder takes the lock once for so many records.
const BATCH: usize = 1000;

/// What waits for a record: every handler that has been asked about it.
pub type Ticket = SetOnce<Settled>;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The event is safe, as a record or a dead letter with this id.
    Safe(Safe, Uuid),
    /// Kafka refuses even its dead letter, or there was no room for one: it is not safe.
    Refused,
}

/// Where a record is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// In the topic, acknowledged by all in-sync replicas.
    Published,
    /// In the dead-letter topic, likewise.
    DeadLettered,
}

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

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    first: u64,
    next: u64,
    bytes: usize,
    /// Of the current producer. A report of an older one counts only where it says "acked".
    generation: u64,
    in_flight: usize,
    failure: Option<String>,
    /// Records below this number go to Kafka one at a time. Kafka refuses whole batches, so only of a
    /// record that was sent alone does one know that it is the record that is refused.
    alone_below: u64,
    /// Whether the current producer has settled anything, and when that last happened.
    progress: bool,
    last_progress: Instant,
    patience: Duration,
    stopping: bool,
    feeder_waits: bool,
}

#[derive(Debug)]
struct Entry {
    /// None once it is settled: the entry then only waits for those before it.
    record: Option<Arc<Record>>,
    ticket: Arc<Ticket>,
    accepted: Instant,
    handed_over: Instant,
    /// Whether it was handed over with nothing else in flight, and nothing since.
    alone: bool,
}

/// With records waiting and no acknowledgement at all for so long, the producer is replaced: the
/// brokers may have moved to other addresses, and "stuck without an error" is a known state of Kafka
/// clients. One leaderless partition alone is no reason, since others then still acknowledge.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_PATIENCE: Duration = Duration::from_secs(600);

impl Queue {
    /// An empty queue, and what takes the records that Kafka refuses for good.
    pub fn new(metrics: Arc<Metrics>, dead_letters: Option<Arc<Self>>) -> Self {
        let state = State {
            entries: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            generation: 0,
            in_flight: 0,
            failure: None,
            alone_below: 0,
            progress: false,
            last_progress: Instant::now(),
            patience: PATIENCE,
            stopping: false,
            feeder_waits: false,
        };
        Self {
            state: Mutex::new(state),
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
            let waited = state.last_progress.elapsed();
            if state.in_flight > 0 && waited >= state.patience {
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
        let state = self.lock();
        let (state, _) = (self.changed.wait_timeout_while(state, pause, |state| {
            // Every change must wake it: it looks for the stop only.
            state.feeder_waits = true;
            !state.stopping
        }))
        .unwrap_or_else(PoisonError::into_inner);
        state.stopping
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
        // A panic under this lock ends the process (see `main.rs`), so poison is never seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the next records for the producer, as many as its window lets in.
    fn hand_over(&mut self) -> Vec<(u64, Arc<Record>)> {
        let now = Instant::now();
        let mut batch = Vec::new();
        while let Some(entry) = self.entries.get_mut((self.next - self.first) as usize) {
            let Some(record) = &entry.record else {
                self.next += 1;
                continue;
            };
            let full = self.in_flight >= MAX_IN_FLIGHT || batch.len() == BATCH;
            // Nothing follows one that travels alone before it has arrived.
            if full || self.in_flight > 0 && self.next <= self.alone_below {
                break;
            }
            if self.in_flight == 0 {
                self.last_progress = now;
            }
            entry.alone = self.next < self.alone_below;
            entry.handed_over = now;
            batch.push((self.next, Arc::clone(record)));
            self.next += 1;
            self.in_flight += 1;
        }
        batch
    }

    fn is_alone(&self, number: u64) -> bool {
        let at = number.checked_sub(self.first);
        let entry = at.and_then(|at| self.entries.get(at as usize));
        entry.is_some_and(|entry| entry.alone)
    }

    /// Ends the wait of one record; None where an earlier report has done so.
    fn settle(&mut self, number: u64) -> Option<(Arc<Record>, Arc<Ticket>, Instant)> {
        self.last_progress = Instant::now();
        let at = number.checked_sub(self.first)?;
        let entry = self.entries.get_mut(at as usize)?;
        let record = entry.record.take()?;
        self.progress = true;
        let settled = (record, Arc::clone(&entry.ticket), entry.handed_over);
        self.bytes -= settled.0.size() + COST_OF_A_RECORD;
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.record.is_none())
        {
            self.entries.pop_front();
            self.first += 1;
        }
        self.next = self.next.max(self.first);
        Some(settled)
    }
}

fn settle(ticket: &Ticket, settled: Settled) {
    // A ticket is settled once: each of its records leaves the queue once, and the dead letter of a
    // refused record takes its ticket over.
    ticket
        .set(settled)
        .expect("a record settles its ticket once");
}

#[cfg(test)]
mod tests;
