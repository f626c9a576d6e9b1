//! Observes the lanes, and logs an outage of Kafka.
//!
//! Takes the lock of one queue at a time and waits for no disk and no Kafka, so that an outage is
//! logged whatever the threads of delivery wait for.

use std::time::{Duration, Instant};

use super::Delivery;
use super::lanes::Lane;
use super::outage::{LONG_WAIT, Line, Observed, SpoolUse};
use super::queue::Waiting;

/// How many topics a text lists.
const LISTED_TOPICS: usize = 3;

impl Delivery {
    /// Logs whether records wait for Kafka, and why. To be called once a second.
    pub fn log_outage(&self, now: Instant) {
        let seen = self.observe(now);
        let lines = self.outage.lock().observe(now, &seen);
        for Line { level, text } in lines {
            match level {
                tracing::Level::WARN => tracing::warn!("{text}"),
                _ => tracing::info!("{text}"),
            }
        }
    }

    /// How many records are in the spool and are not published yet.
    pub fn records_in_spool(&self) -> usize {
        match self.spool_status.has_lost_files() {
            true => 0,
            false => (self.lanes.queues())
                .map(|queue| queue.waiting().on_disk)
                .sum(),
        }
    }

    /// Why events have waited for long although a broker is connected. Dead letters do not count.
    pub(super) fn cause(&self) -> Option<String> {
        let mut events = self.lanes.events().iter();
        let waits = events.any(|lane| lane.queue.waiting().is_long());
        let outage = self.outage.lock();
        outage.cause().filter(|_| waits).map(str::to_owned)
    }

    fn observe(&self, now: Instant) -> Observed {
        let waiting = self
            .lanes
            .all()
            .iter()
            .map(|lane| (lane, lane.queue.waiting()));
        let waiting: Vec<(&Lane, Waiting)> = waiting.collect();
        let sum =
            |of: fn(&Waiting) -> usize| waiting.iter().map(|(_, lane)| of(lane)).sum::<usize>();
        let (in_memory, on_disk) = (sum(|lane| lane.in_memory), sum(|lane| lane.on_disk));
        let in_memory_for = waiting.iter().map(|(_, lane)| lane.oldest).max();
        let in_memory_for = in_memory_for.unwrap_or_default();
        let metrics = self.metrics.spool();
        let spool = self.spool_after.map(|after| {
            let (used, max) = metrics.bytes();
            SpoolUse {
                records: on_disk,
                used,
                limit: max / 8 * 7,
                // A disk that does not answer is not an error yet.
                works: self.spool_status.is_working() && in_memory_for < LONG_WAIT,
                is_always_used: after.is_zero(),
                published: metrics.replayed_records(),
            }
        });
        let on_disk_for = match on_disk {
            0 => Duration::ZERO,
            _ => metrics.oldest_age(),
        };
        let long: Vec<&Lane> = (waiting.iter())
            .filter(|(_, waiting)| waiting.is_long())
            .map(|(lane, _)| *lane)
            .collect();
        let topics: Vec<&str> = long.iter().map(|lane| lane.topic.as_str()).collect();
        Observed {
            connection: self.status.connection(now),
            has_failed: self.status.is_down(),
            errors: self.status.errors(),
            obstacle: self.obstacle(&long, now),
            topics: topics.join(", "),
            records: in_memory + on_disk,
            bytes: sum(|lane| lane.bytes) as u64,
            oldest: in_memory_for.max(on_disk_for),
            spool,
        }
    }

    /// Why records of these lanes may wait although a broker is connected; empty if that is not known.
    fn obstacle(&self, lanes: &[&Lane], now: Instant) -> String {
        let obstacles = lanes.iter().filter_map(|lane| {
            let obstacle = lane.queue.obstacle(now)?;
            Some(format!("the topic {} {obstacle}", lane.topic))
        });
        let mut obstacles: Vec<String> = obstacles.take(LISTED_TOPICS).collect();
        let errors = self.status.advertised_errors();
        if !errors.is_empty() && !lanes.is_empty() {
            obstacles.push(format!(
                "brokers cannot be reached at the addresses that Kafka advertises ({errors}); check that they run, and their advertised.listeners"
            ));
        }
        obstacles.join("; ")
    }
}
