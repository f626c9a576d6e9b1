//! One producer, in use or retired: its reports, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::delivery::lanes::Lanes;
use crate::delivery::queue::{ProducerId, Reported};
use crate::delivery::wakeup::Wakeups;
use crate::failpoint;
use crate::kafka::{BrokerStatus, KafkaSettings, Producer, Reports, Statistics};
use crate::metrics::Metrics;

/// How long a failed producer may take to report on its purged records.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);
const PURGE_POLL_PAUSE: Duration = Duration::from_millis(1);

/// librdkafka counts a producer's failed batches in 15 bits, the epoch of its id. A producer with
/// `SUCCESSOR_FAILED_BATCHES` is replaced; one with `MAX_FAILED_BATCHES` takes no more records.
const MAX_FAILED_BATCHES: usize = 30_000;
const SUCCESSOR_FAILED_BATCHES: usize = 25_000;

/// The settings and parts that all producers share.
pub(in crate::delivery) struct Shared {
    pub(in crate::delivery) settings: KafkaSettings,
    pub(in crate::delivery) lanes: Arc<Lanes>,
    pub(in crate::delivery) status: Arc<BrokerStatus>,
    pub(in crate::delivery) metrics: Arc<Metrics>,
    pub(in crate::delivery) wakeups: Arc<Wakeups>,
    /// Whether there is a spool.
    pub(in crate::delivery) has_spool: bool,
    /// The bytes after which new producers add no further record to a batch: less than those of
    /// every batch that Kafka rejected because of its size.
    pub(in crate::delivery) batch_bytes: AtomicUsize,
}

/// A producer in use, or a retired one that still has records in flight.
pub(super) struct Current {
    pub(super) id: ProducerId,
    pub(super) producer: Producer,
    pub(super) created: Instant,
    /// Records that it has not reported on.
    pub(super) in_flight: usize,
    pub(super) last_progress: Instant,
    pub(super) has_progressed: bool,
    failed_batches: usize,
    pub(super) full_until: Option<Instant>,
    pub(super) failure: Option<String>,
    /// Why it is to be replaced. It stays in use until its successor has connected.
    successor_wanted: Option<&'static str>,
    /// The topics that reject batches of its size. Their records wait for the successor.
    too_large_for: Vec<String>,
}

impl Current {
    pub(super) fn new(id: ProducerId, producer: Producer) -> Self {
        Self {
            id,
            producer,
            created: Instant::now(),
            in_flight: 0,
            last_progress: Instant::now(),
            has_progressed: false,
            failed_batches: 0,
            full_until: None,
            failure: None,
            successor_wanted: None,
            too_large_for: Vec::new(),
        }
    }

    /// Whether it takes records of this topic now.
    pub(super) fn takes(&self, topic: &str, now: Instant) -> bool {
        self.failure.is_none()
            && self.failed_batches < MAX_FAILED_BATCHES
            && self.full_until.is_none_or(|until| now >= until)
            && !self.too_large_for.iter().any(|other| other == topic)
    }

    /// Another producer takes its place as soon as that one is connected.
    pub(super) fn want_successor(&mut self, reason: &'static str) {
        self.successor_wanted.get_or_insert(reason);
    }

    /// Why another producer is to take its place, if one is.
    pub(super) fn successor_wanted(&self) -> Option<&'static str> {
        self.successor_wanted
    }

    /// How long it has had records and none of them was acknowledged.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        match self.in_flight {
            0 => Duration::ZERO,
            _ => now.saturating_duration_since(self.last_progress),
        }
    }

    /// Passes on its reports.
    pub(super) fn poll(&mut self, shared: &Shared, now: Instant) -> Reported {
        let mut sum = Reported::default();
        let on_reports = |reports: Reports| {
            let Reports {
                topic,
                records,
                too_large,
            } = reports;
            failpoint::hit("reports");
            self.in_flight = self.in_flight.saturating_sub(records.len());
            if let Some(lane) = shared.lanes.of_topic(&topic) {
                let reported = lane.queue.report(self.id, records);
                self.failed_batches += usize::from(reported.rejected + reported.failed > 0);
                sum += reported;
            }
            if let Some(bytes) = too_large {
                (shared.batch_bytes).fetch_min((bytes / 2).max(1), Ordering::Relaxed);
                if !self.too_large_for.contains(&topic) {
                    self.too_large_for.push(topic);
                }
            }
        };
        let on_statistics = |statistics: Statistics| {
            for topic in statistics.topics {
                if let Some(lane) = shared.lanes.of_topic(&topic.name) {
                    if topic.partitions > 0 {
                        lane.set_partitions(topic.partitions);
                    }
                    lane.queue.note_topic(topic);
                }
            }
        };
        self.producer.poll(on_reports, on_statistics);
        if sum.acked > 0 {
            self.last_progress = now;
            self.has_progressed = true;
        }
        if self.failed_batches >= SUCCESSOR_FAILED_BATCHES {
            self.want_successor("many of its batches have failed");
        } else if !self.too_large_for.is_empty() {
            self.want_successor("Kafka rejects batches of its size");
        }
        sum
    }

    /// Marks it as replaced. From now on, it may be silent for the whole stall timeout again.
    pub(super) fn mark_retired(&mut self, now: Instant) {
        self.producer.unset_main();
        self.last_progress = now;
    }

    /// Ends it on a thread of its own: that takes as long as its brokers take to answer. Its records
    /// are with another one by then, but what it still acknowledges counts.
    pub(super) fn end(mut self, shared: &Arc<Shared>) {
        self.producer.unset_main();
        let shared = Arc::clone(shared);
        let ending = move || {
            self.producer.purge();
            let deadline = Instant::now() + PURGE_TIMEOUT;
            while self.in_flight > 0 && Instant::now() < deadline {
                self.poll(&shared, Instant::now());
                thread::sleep(PURGE_POLL_PAUSE);
            }
            drop(self);
        };
        let started = thread::Builder::new()
            .name("old producer".to_owned())
            .spawn(ending);
        if let Err(error) = started {
            tracing::error!("cannot start a thread to end a Kafka producer: {error}");
        }
    }
}
