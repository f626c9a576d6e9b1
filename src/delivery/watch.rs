//! Observes the lanes, and logs an outage of Kafka.
//!
//! Takes the lock of one queue at a time and waits for no disk and no Kafka, so that an outage is
//! logged whatever the threads of delivery wait for.

use std::time::{Duration, Instant};

use super::Delivery;
use super::lanes::Lane;
use super::outage::{Line, Observed, SpoolUse};
use super::queue::Waiting;
use crate::kafka::Connection;
use crate::spool::Share;

/// A disk that works takes less time for a record.
const DISK_TIME: Duration = Duration::from_secs(2);

/// How many topics a text lists.
const LISTED_TOPICS: usize = 3;

impl Delivery {
    /// Logs whether records wait for Kafka, and why. To be called once a second.
    pub fn log_outage(&self, now: Instant) {
        let seen = self.observe(Share::Events, now);
        let is_up = seen.connection == Connection::Up;
        let mut lines = self.outages.events.lock().observe(now, &seen);
        // While Kafka cannot be reached, the lines about events are enough.
        if is_up {
            let seen = self.observe(Share::DeadLetters, now);
            lines.extend(self.outages.dead_letters.lock().observe_records(now, &seen));
        }
        for Line { level, text } in lines {
            match level {
                tracing::Level::WARN => tracing::warn!("{text}"),
                _ => tracing::info!("{text}"),
            }
        }
    }

    /// How many records stay in the spool: those that are not published yet, and those that Kafka
    /// has rejected for good.
    pub fn records_in_spool(&self) -> (usize, usize) {
        if self.spool_status.has_lost_files() {
            return (0, 0);
        }
        let waiting = self.lanes.queues().map(|queue| queue.waiting().on_disk);
        (waiting.sum(), self.metrics.spool().refused_records())
    }

    /// Why events have waited for long although a broker is connected. Dead letters do not count.
    pub(super) fn cause(&self) -> Option<String> {
        let mut events = self.lanes.events().iter();
        let waits = events.any(|lane| lane.queue.waiting().is_long());
        let outage = self.outages.events.lock();
        outage.cause().filter(|_| waits).map(str::to_owned)
    }

    /// Why ids of schemas are missing, and the topics whose events wait for them.
    pub(super) fn schema_obstacle(&self) -> Option<(String, Vec<String>)> {
        let reason = self.settings.schema_ids.as_ref()?.obstacle()?;
        let waiting = (self.lanes.events().iter())
            .map(|lane| lane.topic.clone())
            .filter(|topic| !self.settings.has_schemas_for(topic));
        Some((reason, waiting.collect()))
    }

    /// Why records are not at rest although they had time; `None` if that is not known, or all are.
    pub fn obstacle_at_stop(&self) -> Option<String> {
        let lanes = self.lanes.all().iter();
        let waiting: Vec<_> = lanes.filter(|lane| !lane.queue.is_at_rest()).collect();
        let obstacle = match (waiting.is_empty(), self.status.is_up()) {
            (true, _) => return None,
            (false, true) => self.obstacle(&waiting, Instant::now()),
            (false, false) => format!("Kafka cannot be reached ({})", self.status.errors()),
        };
        (!obstacle.is_empty()).then_some(obstacle)
    }

    /// Why records of these lanes may wait although a broker is connected; empty if that is not known.
    fn obstacle(&self, lanes: &[&Lane], now: Instant) -> String {
        if lanes
            .iter()
            .any(|lane| !self.settings.has_schemas_for(&lane.topic))
            && let Some((reason, _)) = self.schema_obstacle()
        {
            return reason;
        }
        let obstacles = lanes.iter().filter_map(|lane| {
            let obstacle = lane.queue.obstacle(now)?;
            Some(format!("the topic {} {obstacle}", lane.topic))
        });
        let obstacles: Vec<String> = obstacles.take(LISTED_TOPICS).collect();
        obstacles.join("; ")
    }

    pub(super) fn observe(&self, share: Share, now: Instant) -> Observed {
        let (events, dead_letters) = (self.lanes.events(), self.lanes.dead_letters());
        let all = self.lanes.all();
        let (lanes, noun, others) = match share {
            Share::Events => (events, "events", dead_letters.waiting().on_disk),
            Share::DeadLetters => (
                all.get(events.len()..).unwrap_or_default(),
                "dead letters",
                events.iter().map(|lane| lane.queue.waiting().on_disk).sum(),
            ),
        };
        let waiting = lanes.iter().map(|lane| (lane, lane.queue.waiting()));
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
                works: self.spool_status.is_working() && in_memory_for < after + DISK_TIME,
                is_full: match share {
                    Share::Events => self.spool_status.is_full(),
                    // A disk that fails or hangs would keep events too.
                    Share::DeadLetters => self.spool_status.is_working(),
                },
                is_always_used: after.is_zero(),
                published: metrics.replayed_records(),
            }
        });
        let long: Vec<&Lane> = (waiting.iter())
            .filter(|(_, waiting)| waiting.is_long())
            .map(|(lane, _)| *lane)
            .collect();
        let topics: Vec<&str> = long.iter().map(|lane| lane.topic.as_str()).collect();
        Observed {
            connection: self.status.connection(now),
            has_failed: self.status.is_down(),
            errors: self.status.errors(),
            noun,
            obstacle: self.obstacle(&long, now),
            advertised: self.status.advertised_errors(),
            topics: topics.join(", "),
            records: in_memory + on_disk,
            bytes: sum(|lane| lane.bytes) as u64,
            oldest_in_memory: in_memory_for,
            // The spool knows the oldest of all its records only.
            oldest_on_disk: match (on_disk, others) {
                (0, _) => Some(Duration::ZERO),
                (_, 0) => Some(metrics.oldest_age()),
                _ => None,
            },
            spool,
        }
    }
}
