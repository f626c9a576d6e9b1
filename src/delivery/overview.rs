//! What the status page shows of delivery.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Delivery;
use crate::kafka::{Broker, Connection};
use crate::spool::Share;

/// Kafka, the topics and the spool at one moment.
#[derive(Debug)]
pub struct Overview {
    /// Whether a connection to a broker is up.
    pub connection: Connection,
    /// Why brokers cannot be reached; may be empty.
    pub errors: String,
    /// The brokers that the client knows.
    pub brokers: Vec<Broker>,
    /// In the order of [`crate::event::Routes::topics`].
    pub topics: Vec<TopicOverview>,
    /// `None` without a spool.
    pub spool: Option<SpoolOverview>,
}

/// A topic and the records that Kafka has not acknowledged for it.
#[derive(Debug)]
pub struct TopicOverview {
    /// Its name.
    pub topic: String,
    /// Records that are in memory only.
    pub in_memory: usize,
    /// Records on disk.
    pub on_disk: usize,
    /// How long ago the oldest of them was received; `None` without one, or if that is not known.
    pub lag: Option<Duration>,
    /// Why they wait although a broker is connected, as text that follows the topic's name.
    pub obstacle: Option<String>,
}

/// The spool.
#[derive(Debug)]
pub struct SpoolOverview {
    /// Whether it takes records.
    pub works: bool,
    /// Whether it takes none because it is full.
    pub is_full: bool,
    /// Bytes that it uses.
    pub used: u64,
    /// Bytes that it may use for events.
    pub limit: u64,
    /// Records that wait for Kafka, of all topics.
    pub records: usize,
    /// Time until it is full, at the rate of the last minute; `None` if it does not grow.
    pub full_in: Option<Duration>,
    /// By how many records it has shrunk in a second of the last minute; `None` if it has not.
    pub drain: Option<f64>,
    /// Time until it is empty at that rate.
    pub empty_in: Option<Duration>,
}

impl Delivery {
    /// What the status page shows.
    pub fn overview(&self, now: Instant) -> Overview {
        let seen = self.observe(Share::Events, now);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = since_epoch.unwrap_or_default();
        let age = |received: i64| {
            let received = Duration::from_millis(received.try_into().unwrap_or_default());
            clock.saturating_sub(received)
        };
        let lanes = self.lanes.all().iter();
        let topics: Vec<_> = lanes
            .map(|lane| {
                let waiting = lane.queue.waiting();
                TopicOverview {
                    topic: lane.topic.clone(),
                    in_memory: waiting.in_memory,
                    on_disk: waiting.on_disk,
                    lag: waiting.received.map(age),
                    obstacle: (lane.queue.obstacle(now)).filter(|_| waiting.is_long()),
                }
            })
            .collect();
        let on_disk = topics.iter().map(|topic| topic.on_disk).sum();
        let outage = self.outages.events.lock();
        let spool = seen.spool.map(|spool| {
            let in_seconds = |seconds| Duration::try_from_secs_f64(seconds).ok();
            let growth = outage.growth(spool.used, now);
            let left = spool.limit.saturating_sub(spool.used);
            let drain = outage.drain(spool.records, now);
            SpoolOverview {
                works: spool.works,
                is_full: spool.is_full,
                used: spool.used,
                limit: spool.limit,
                records: on_disk,
                full_in: growth.and_then(|growth| in_seconds(left as f64 / growth)),
                drain,
                empty_in: drain.and_then(|drain| in_seconds(spool.records as f64 / drain)),
            }
        });
        drop(outage);
        Overview {
            connection: seen.connection,
            errors: seen.errors,
            brokers: self.status.brokers(),
            topics,
            spool,
        }
    }
}
