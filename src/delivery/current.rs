//! A producer in use: its reports, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::queue::{ProducerId, Reported};
use super::wakeup::Wakeups;
use crate::failpoint;
use crate::kafka::{BrokerStatus, KafkaSettings, Producer, Reports, Statistics};
use crate::metrics::Metrics;

/// How long a failed producer may take to report on its purged records.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a producer that is to be replaced may take to report on what it has.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a producer that could not retire is left alone.
const STAY_TIME: Duration = Duration::from_secs(60);

const PURGE_POLL_PAUSE: Duration = Duration::from_millis(1);

/// The settings and parts that all producers share.
pub(super) struct Shared {
    pub(super) settings: KafkaSettings,
    pub(super) lanes: Arc<Lanes>,
    pub(super) status: Arc<BrokerStatus>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) wakeups: Arc<Wakeups>,
    /// Whether there is a spool.
    pub(super) has_spool: bool,
    /// The bytes after which new producers add no further record to a batch: less than those of
    /// every batch that Kafka rejected because of its size.
    pub(super) batch_bytes: AtomicUsize,
}

/// A producer in use.
pub(super) struct Current {
    pub(super) id: ProducerId,
    pub(super) producer: Producer,
    pub(super) created: Instant,
    /// Records that it has not reported on.
    pub(super) in_flight: usize,
    pub(super) last_progress: Instant,
    pub(super) has_progressed: bool,
    pub(super) rejections: usize,
    pub(super) full_until: Option<Instant>,
    pub(super) failure: Option<String>,
    retirement: Option<Retirement>,
    /// Until then it is not asked again to retire because another one would do better.
    pub(super) stays_until: Instant,
}

/// The end of a producer that still works.
#[derive(Debug, Clone, Copy)]
struct Retirement {
    reason: &'static str,
    by: Instant,
    /// Whether it is replaced by then even if it has not reported on all that it has.
    is_certain: bool,
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
            rejections: 0,
            full_until: None,
            failure: None,
            retirement: None,
            stays_until: Instant::now(),
        }
    }

    pub(super) fn takes_records(&self, now: Instant) -> bool {
        self.failure.is_none()
            && self.retirement.is_none()
            && self.full_until.is_none_or(|until| now >= until)
    }

    /// Gives it nothing more and replaces it once it has reported on all that it has, or after a
    /// while. What it has is then not published twice.
    pub(super) fn retire(&mut self, reason: &'static str) {
        self.begin_to_retire(reason, true);
    }

    /// Replaces it because another one would do better. If it does not report on all that it has soon,
    /// it goes on, and may be asked again later: nothing is published twice for that.
    pub(super) fn retire_if_possible(&mut self, reason: &'static str) {
        self.begin_to_retire(reason, false);
    }

    fn begin_to_retire(&mut self, reason: &'static str, is_certain: bool) {
        self.retirement.get_or_insert(Retirement {
            reason,
            by: Instant::now() + RETIRE_TIMEOUT,
            is_certain,
        });
    }

    /// Whether it gets nothing more, and is replaced soon.
    pub(super) fn is_retiring(&self) -> bool {
        self.retirement.is_some()
    }

    /// Whether it is to be replaced because it has retired, and why.
    pub(super) fn has_retired(&mut self, now: Instant) -> Option<&'static str> {
        let Retirement {
            reason,
            by,
            is_certain,
        } = self.retirement?;
        if self.in_flight == 0 || now >= by && is_certain {
            return Some(reason);
        }
        if now >= by {
            self.retirement = None;
            self.stays_until = now + STAY_TIME;
        }
        None
    }

    /// Passes on its reports.
    pub(super) fn poll(&mut self, shared: &Shared) -> Reported {
        let mut sum = Reported::default();
        let mut has_large_batches = false;
        let on_reports = |reports: Reports| {
            let Reports {
                topic,
                records,
                is_too_large,
            } = reports;
            failpoint::hit("reports");
            if is_too_large {
                let half = self.producer.batch_bytes() / 2;
                shared.batch_bytes.fetch_min(half.max(1), Ordering::Relaxed);
                has_large_batches = true;
            }
            self.in_flight = self.in_flight.saturating_sub(records.len());
            if let Some(queue) = shared.lanes.queue_of_topic(&topic) {
                sum += queue.report(self.id, records);
            }
        };
        let on_statistics = |statistics: Statistics| {
            for (topic, partitions) in statistics.partitions {
                if let Some(queue) = shared.lanes.queue_of_topic(&topic) {
                    queue.set_partitions(partitions);
                }
            }
        };
        self.producer.poll(on_reports, on_statistics);
        if has_large_batches {
            self.has_progressed = true;
            self.retire("Kafka rejects batches of its size");
        }
        sum
    }

    /// Ends it on a thread of its own: that takes as long as its brokers take to answer. Its records
    /// are with another one by then, but what it still acknowledges counts.
    pub(super) fn end(mut self, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let ending = move || {
            self.producer.purge();
            let deadline = Instant::now() + PURGE_TIMEOUT;
            while self.in_flight > 0 && Instant::now() < deadline {
                self.poll(&shared);
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
