//! The producers of the service, each of which is replaced when it fails.
//!
//! Kafka answers the requests of a connection one after the other, and librdkafka puts one partition
//! into a request. Several producers, with several requests under way each, therefore are what keeps
//! a distant Kafka busy. Which of them a record goes to does not matter for its order.

mod current;
mod managed;

use std::mem;
use std::sync::{Arc, atomic, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::distance::{self, SHARDS};
use super::files;
use super::lanes::Lane;
use super::queue::{Outgoing, Pacing, ProducerId, Via};
use crate::kafka::{self, Ordering, Producer, SendError};
use crate::log::LogThrottle;
use current::Current;
pub(in crate::delivery) use current::Shared;
use managed::{Managed, RECREATE_BACKOFF_MIN};

/// How long a new producer may take to connect before it is used all the same.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a successor of a working producer may take to connect.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(10);

/// The shard whose producer is always in use, and stands for the connection to Kafka.
const MAIN: usize = 0;

/// The producers that are not a shard's.
const BACKLOG: usize = SHARDS;
const RUN: usize = SHARDS + 1;
const SIDE: usize = SHARDS + 2;
const PRODUCERS: usize = SHARDS + 3;

/// With records in flight and no acknowledgement for this long, a producer is replaced: the brokers
/// may have new addresses, and "stuck without an error" is a known state of Kafka clients.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The pause before a producer is given more after librdkafka's queue was full. That queue has a
/// bound only if the operator's properties set one.
const FULL_RETRY_PAUSE: Duration = Duration::from_millis(5);

/// How often a producer without records is polled, for errors and statistics.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// All producers. Each is created when it is first needed.
pub(super) struct Producers {
    shared: Arc<Shared>,
    all: [Managed; PRODUCERS],
    /// Replaced producers that still have records in flight.
    retired: Vec<Current>,
    shards_in_use: usize,
    shards_allowed: usize,
    last_id: ProducerId,
    /// New producers, which another thread creates.
    created: mpsc::Receiver<(usize, Created)>,
    to_created: mpsc::Sender<(usize, Created)>,
    last_idle_poll: Instant,
    log: LogThrottle,
}

/// `None` if a successor did not connect: the current producer stays in use.
type Created = Result<Option<Producer>, kafka::Error>;

impl Producers {
    /// Creates the first producer, so that unusable settings are an error at once.
    pub(super) fn new(shared: Shared) -> Result<Self, kafka::Error> {
        let (to_created, created) = mpsc::channel();
        let now = Instant::now();
        let mut producers = Self {
            shared: Arc::new(shared),
            all: std::array::from_fn(|_| Managed::new(now)),
            retired: Vec::new(),
            shards_in_use: 1,
            shards_allowed: files::shards_allowed(),
            last_id: 0,
            created,
            to_created,
            last_idle_poll: now,
            log: LogThrottle::default(),
        };
        let main = create(&producers.shared, MAIN)?;
        producers.install(MAIN, main);
        // Those that may be needed soon connect now.
        for at in [BACKLOG, SIDE] {
            if let Some(managed) = producers.all.get_mut(at) {
                managed.is_wanted = at == SIDE || producers.shared.has_spool;
            }
        }
        Ok(producers)
    }

    /// Whether any producer has records to report on.
    pub(super) fn are_busy(&self) -> bool {
        let current = (self.all.iter()).filter_map(|managed| managed.current.as_ref());
        let mut all = current.chain(&self.retired);
        all.any(|current| current.in_flight > 0)
    }

    /// Passes on all reports. Returns how many records they were about.
    pub(super) fn poll(&mut self, now: Instant) -> usize {
        let all_are_due = now >= self.last_idle_poll + IDLE_POLL_INTERVAL;
        if all_are_due {
            self.last_idle_poll = now;
        }
        let mut polled = 0;
        for (at, managed) in self.all.iter_mut().enumerate() {
            let Some(current) = &mut managed.current else {
                continue;
            };
            if current.in_flight == 0 && !all_are_due {
                continue;
            }
            let before = current.in_flight;
            let sum = current.poll(&self.shared, now);
            polled += before - current.in_flight;
            if sum.acked > 0 {
                managed.stall_timeout = STALL_TIMEOUT;
                managed.backoff = RECREATE_BACKOFF_MIN;
            }
            let has_trouble = sum.failed + sum.rejected > 0;
            if at == RUN && has_trouble {
                current.has_progressed |= sum.rejected > 0;
                current
                    .failure
                    .get_or_insert_with(|| "a record was not delivered".to_owned());
            } else if has_trouble || all_are_due {
                current.failure = current.failure.take().or(current.producer.fatal_error());
            }
            let silence = current.silence(now);
            if silence >= managed.stall_timeout {
                managed.stall_timeout = (managed.stall_timeout * 2).min(STALL_TIMEOUT_MAX);
                current.failure = Some(format!("no acknowledgement for {} s", silence.as_secs()));
            }
        }
        polled += self.poll_retired(now);
        self.replace_unfit(now);
        self.replace_failed(now);
        self.create_wanted(now);
        polled
    }

    /// Polls the replaced producers, and ends those that have nothing left to report.
    fn poll_retired(&mut self, now: Instant) -> usize {
        let mut polled = 0;
        for mut retired in mem::take(&mut self.retired) {
            let before = retired.in_flight;
            retired.poll(&self.shared, now);
            polled += before - retired.in_flight;
            let is_silent = retired.silence(now) >= STALL_TIMEOUT;
            if is_silent {
                self.shared.metrics.producer_recreated();
            }
            if is_silent || retired.in_flight == 0 {
                end(retired, &self.shared);
            } else {
                self.retired.push(retired);
            }
        }
        polled
    }

    /// The producer that takes such records of this topic now.
    pub(super) fn route(&mut self, topic: &str, via: Via, now: Instant) -> Option<ProducerId> {
        if !self.shared.settings.has_schemas_for(topic) {
            return None;
        }
        let at = match via {
            Via::Shard(hash) => hash as usize % self.shards_in_use,
            Via::Backlog => BACKLOG,
            Via::Run => RUN,
            Via::Side | Via::Suspect => SIDE,
        };
        let managed = self.all.get_mut(at)?;
        managed.is_wanted = true;
        let usable = |managed: &Managed| {
            let current = managed.current.as_ref()?;
            current.takes(topic, now).then_some(current.id)
        };
        match (usable(managed), via) {
            // If the shard's producer takes nothing now, another shard's does as well.
            (None, Via::Shard(_)) => self.all.iter().take(SHARDS).find_map(usable),
            (id, _) => id,
        }
    }

    /// When a producer that has records of a partition gets more of it.
    pub(super) fn pacing(&self) -> Pacing {
        distance::pacing(self.shared.status.round_trip())
    }

    /// Hands records of a lane to their producers.
    pub(super) fn send(&mut self, lane: &Lane, batch: Vec<Outgoing>, now: Instant) {
        let Lane { topic, queue, .. } = lane;
        let mut unsent = Vec::new();
        for Outgoing { to, number, record } in batch {
            let all = self.all.iter_mut().enumerate();
            let mut all = all.filter_map(|(at, managed)| Some((at, managed.current.as_mut()?)));
            let Some((at, current)) = all.find(|(_, current)| current.id == to) else {
                continue;
            };
            if !current.takes(topic, now) {
                unsent.push((to, number));
                continue;
            }
            if current.in_flight == 0 {
                current.last_progress = now;
            }
            let report = match current.producer.send(topic, number, &record) {
                Ok(()) => {
                    current.in_flight += 1;
                    continue;
                }
                Err(SendError::Full) => {
                    current.full_until = Some(now + FULL_RETRY_PAUSE);
                    unsent.push((to, number));
                    continue;
                }
                Err(SendError::Rejected(reason)) => kafka::Report::Rejected(reason),
                Err(SendError::Failed(reason)) => {
                    current.failure = current.producer.fatal_error();
                    kafka::Report::Failed(reason)
                }
            };
            if at == RUN {
                // This producer must not send the rest of the run.
                current.failure.get_or_insert_with(|| format!("{report:?}"));
            }
            queue.report(to, vec![(number, report)]);
        }
        // From the last to the first, because each goes to the front.
        for (to, number) in unsent.into_iter().rev() {
            queue.return_unsent(to, number);
        }
    }

    /// Replaces producers that were created for a Kafka at another distance, one at a time, to keep
    /// the number of additional threads and connections low.
    fn replace_unfit(&mut self, now: Instant) {
        if !self.retired.is_empty() || self.all.iter().any(Managed::lacks_producer) {
            return;
        }
        let current = self.all.iter_mut().enumerate();
        let mut current = current.filter_map(|(at, managed)| Some((at, managed.current.as_mut()?)));
        let unfit = current.find(|(at, current)| {
            let age = now.saturating_duration_since(current.created);
            let may_end = *at != RUN || current.in_flight == 0;
            may_end && current.producer.is_unfit(age)
        });
        let reason = "Kafka is at another distance";
        match unfit {
            // It has nothing in flight, so the rows of a run are never with two producers.
            Some((RUN, current)) => {
                current.has_progressed = true;
                current.failure = Some(reason.to_owned());
            }
            Some((_, current)) => current.want_successor(reason),
            None => {}
        }
    }

    fn replace_failed(&mut self, now: Instant) {
        for (at, managed) in self.all.iter_mut().enumerate() {
            let Some(failed) = managed.current.take_if(|current| current.failure.is_some()) else {
                continue;
            };
            let is_usual = at == RUN && failed.has_progressed;
            let pause = match is_usual {
                true => Duration::ZERO,
                false => managed.back_off(now),
            };
            let reason = failed.failure.clone().unwrap_or_default();
            if is_usual {
                tracing::debug!("a Kafka producer is replaced: {reason}");
            } else if self.log.is_due() {
                tracing::warn!(
                    "a Kafka producer failed ({reason}); its records go to a new one in {pause:?}"
                );
            }
            if !is_usual || failed.in_flight > 0 {
                self.shared.metrics.producer_recreated();
            }
            end(failed, &self.shared);
        }
    }

    /// Creates producers that are needed. Creating one takes too long for this thread: it may have
    /// to read certificates. A producer stays in use until its successor has connected.
    fn create_wanted(&mut self, now: Instant) {
        let shards = distance::shards(self.shared.status.round_trip());
        self.shards_in_use = shards.min(self.shards_allowed);
        while let Ok((at, created)) = self.created.try_recv() {
            match created {
                Ok(Some(producer)) => {
                    self.install(at, producer);
                    continue;
                }
                Ok(None) => {
                    tracing::debug!("a new Kafka producer did not connect; the old one is kept");
                }
                Err(error) if self.log.is_due() => {
                    tracing::error!("cannot create a Kafka producer: {error}; retrying");
                }
                Err(_) => {}
            }
            if let Some(managed) = self.all.get_mut(at) {
                managed.creation_failed(now);
            }
        }
        for (at, managed) in self.all.iter_mut().enumerate() {
            let is_due = managed.lacks_producer() && now >= managed.not_before;
            if !is_due || managed.is_being_created {
                continue;
            }
            let (shared, to_created) = (Arc::clone(&self.shared), self.to_created.clone());
            let is_successor = managed.current.is_some();
            let creation = move || {
                let created = create(&shared, at).map(|producer| {
                    let is_connected = connect(&producer, &shared, is_successor);
                    (is_connected || !is_successor).then_some(producer)
                });
                // The publisher may have stopped meanwhile.
                drop(to_created.send((at, created)));
                shared.wakeups.publisher.wake();
            };
            let started = thread::Builder::new()
                .name("new producer".to_owned())
                .spawn(creation);
            managed.is_being_created = started.is_ok();
            if started.is_err() {
                managed.creation_failed(now);
            }
        }
    }

    fn install(&mut self, at: usize, producer: Producer) {
        self.last_id += 1;
        let Some(managed) = self.all.get_mut(at) else {
            return;
        };
        managed.is_being_created = false;
        managed.is_wanted = true;
        let new = Current::new(self.last_id, producer);
        if let Some(mut old) = managed.current.replace(new) {
            let reason = old.successor_wanted().unwrap_or_default();
            tracing::debug!("a Kafka producer was replaced: {reason}");
            old.mark_retired(Instant::now());
            self.retired.push(old);
        }
    }

    /// Ends all producers. Blocks until librdkafka has ended.
    pub(super) fn stop(self) {
        let current = self.all.into_iter().filter_map(|managed| managed.current);
        thread::scope(|scope| {
            for mut current in current.chain(self.retired) {
                let shared = &self.shared;
                scope.spawn(move || {
                    current.poll(shared, Instant::now());
                    drop(current);
                });
            }
        });
    }
}

/// Ends a producer. What it has not reported on goes to another one.
fn end(ended: Current, shared: &Arc<Shared>) {
    for queue in shared.lanes.queues() {
        queue.producer_lost(ended.id);
    }
    ended.end(shared);
}

fn create(shared: &Shared, at: usize) -> Result<Producer, kafka::Error> {
    let ordering = if at == RUN {
        Ordering::Strict
    } else {
        Ordering::Relaxed
    };
    let batch_bytes = shared.batch_bytes.load(atomic::Ordering::Relaxed);
    Producer::new(
        &shared.settings,
        ordering,
        at == MAIN,
        batch_bytes,
        &shared.status,
    )
}

/// Connects a producer, and lets the queues know the partitions of their topics: before the first
/// rows are handed over, so that those of a partition without a leader hold up no others.
fn connect(producer: &Producer, shared: &Shared, is_successor: bool) -> bool {
    let timeout = match is_successor {
        true => SUCCESSOR_TIMEOUT,
        false => WARM_UP_TIMEOUT,
    };
    let topics: Vec<&str> = (shared.lanes.all().iter())
        .map(|lane| lane.topic.as_str())
        .collect();
    let partitions = producer.connect(&topics, timeout);
    for (lane, count) in shared.lanes.all().iter().zip(&partitions) {
        lane.set_partitions(*count);
    }
    !partitions.is_empty()
}

#[cfg(test)]
mod tests;
