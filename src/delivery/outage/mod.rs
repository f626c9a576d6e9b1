//! What the log reports of an outage of Kafka: when it begins and why, once a minute how much waits,
//! and when it is over. Plain state that is observed once a second.
//!
//! A record that waits for a second is not an outage. A connection that comes and goes is logged
//! once a minute. While Kafka works, nothing is logged.

mod text;

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::kafka::Connection;
use crate::log::{Ago, count};
use text::{Bytes, Hours, cause, consequence, unreachable};

/// How often an outage is logged while it lasts, and how often one of its kind is logged at all.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// A connection that is away for less is not logged: a broker that restarts, or closes a connection
/// that is idle, is back by then.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// The same for the first connection, unless all attempts have failed by then.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// Records wait for long if the oldest has waited for this long, until none has for `SHORT_WAIT`.
const LONG_WAIT: Duration = Duration::from_secs(5);
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Records also wait for long if the spool was never found empty for this long.
const SPOOL_USED_AFTER: Duration = Duration::from_secs(15);

/// Records leave the spool if one has left it within this time.
const PROGRESS_TIME: Duration = Duration::from_secs(10);

/// The rates are those of this time, if at least `SAMPLED_MIN` of it is known.
const SAMPLED_TIME: Duration = Duration::from_secs(60);
const SAMPLED_MIN: Duration = Duration::from_secs(5);

/// What is observed once a second.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) connection: Connection,
    /// Whether all attempts to connect have failed.
    pub(super) has_failed: bool,
    /// Why brokers cannot be reached; may be empty.
    pub(super) errors: String,
    /// What the records are: events, or dead letters.
    pub(super) noun: &'static str,
    /// Why records of these topics wait although a broker is connected; may be empty.
    pub(super) obstacle: String,
    /// Why brokers cannot be reached at the addresses that Kafka advertises; may be empty. A broker
    /// that is down need not be one that the records wait for.
    pub(super) advertised: String,
    /// The topics for which records wait.
    pub(super) topics: String,
    /// How many records wait.
    pub(super) records: usize,
    /// Their bytes if they are in memory only.
    pub(super) bytes: u64,
    /// How long the oldest of them has waited that is in memory only.
    pub(super) oldest_in_memory: Duration,
    /// The same of those on disk; `None` if that is not known.
    pub(super) oldest_on_disk: Option<Duration>,
    /// `None` without a spool.
    pub(super) spool: Option<SpoolUse>,
}

/// The spool as it is observed.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpoolUse {
    /// Records of it that wait for Kafka.
    pub(super) records: usize,
    pub(super) used: u64,
    /// The bytes that it may use for events.
    pub(super) limit: u64,
    /// Whether it takes records, and if not, whether that is because it is full.
    pub(super) works: bool,
    pub(super) is_full: bool,
    /// Whether all records go to the spool because the settings require that.
    pub(super) is_always_used: bool,
    /// How many of its records Kafka has acknowledged.
    pub(super) published: u64,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: String,
}

/// The outage that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Whether a connection was up at the last observation, and whether one was ever up.
    is_up: bool,
    was_up: bool,
    /// For how long none has been up.
    down_for: Duration,
    is_down_logged: bool,
    /// When it was last logged that Kafka cannot be reached.
    down_logged: Option<Instant>,
    /// Since when the spool has not been empty.
    spool_used_since: Option<Instant>,
    samples: VecDeque<Sample>,
    /// The records published from the spool; when that began, and when a record last left it.
    published: u64,
    progress: Option<(Instant, Instant)>,
    wait: Option<Wait>,
    /// When the beginning of a wait was last logged.
    wait_logged: Option<Instant>,
    /// Why records wait although a broker is connected.
    cause: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    used: u64,
    records: usize,
}

/// Records wait for long.
#[derive(Debug)]
struct Wait {
    began: Instant,
    /// The records are those of an earlier run.
    is_backlog: bool,
    /// When it was last logged.
    logged: Option<Instant>,
    /// What the spool had published when this began.
    published_before: u64,
}

impl Outage {
    /// At the start of the service. An earlier run may have left records in the spool, which is
    /// logged already.
    pub(super) fn new(has_backlog: bool, now: Instant) -> Self {
        Self {
            wait: has_backlog.then_some(Wait {
                began: now,
                is_backlog: true,
                logged: Some(now),
                published_before: 0,
            }),
            ..Self::default()
        }
    }

    /// Why records have waited for long although a broker is connected.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Updates the state with an observation. Returns the lines to log.
    pub(super) fn observe(&mut self, now: Instant, seen: &Observed) -> Vec<Line> {
        let mut lines = Vec::new();
        lines.extend(self.observe_up(seen));
        // Before the connection, which need not be logged then: this gives it as the reason.
        lines.extend(self.observe_records(now, seen));
        lines.extend(self.observe_down(now, seen));
        lines
    }

    /// Updates the state of the records, not that of the connection.
    pub(super) fn observe_records(&mut self, now: Instant, seen: &Observed) -> Option<Line> {
        self.sample(now, seen);
        self.observe_wait(now, seen)
    }

    /// How long the oldest record has waited.
    fn oldest(&self, now: Instant, seen: &Observed) -> Duration {
        let since = self.spool_used_since;
        let used_for = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let on_disk = seen.oldest_on_disk.unwrap_or(used_for);
        match seen.records {
            0 => Duration::ZERO,
            _ => seen.oldest_in_memory.max(on_disk),
        }
    }

    fn sample(&mut self, now: Instant, seen: &Observed) {
        let Some(spool) = seen.spool else {
            return;
        };
        self.samples.push_back(Sample {
            at: now,
            used: spool.used,
            records: spool.records,
        });
        let is_old = |sample: &Sample| now.saturating_duration_since(sample.at) > SAMPLED_TIME;
        while self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        if spool.published > self.published {
            let since = self.progress.map_or(now, |(since, _)| since);
            self.progress = Some((since, now));
            self.published = spool.published;
        }
        let stopped = |(_, last): &mut (Instant, Instant)| {
            now.saturating_duration_since(*last) >= PROGRESS_TIME
        };
        self.progress.take_if(stopped);
        self.spool_used_since = match spool.records {
            0 => None,
            _ => self.spool_used_since.or(Some(now)),
        };
    }

    fn observe_up(&mut self, seen: &Observed) -> Option<Line> {
        let down_for = match seen.connection {
            Connection::Up => None,
            Connection::NeverUp(since) | Connection::Lost(since) => Some(since),
        };
        if let Some(since) = down_for {
            self.is_up = false;
            self.down_for = since;
            return None;
        }
        if mem::replace(&mut self.is_up, true) {
            return None;
        }
        let is_first = !mem::replace(&mut self.was_up, true);
        let was_logged = mem::take(&mut self.is_down_logged);
        let after = Ago(self.down_for);
        match (is_first, was_logged) {
            (true, false) => Some(info("connected to Kafka".to_owned())),
            (_, true) => Some(info(format!("connected to Kafka after {after}"))),
            (false, false) => None,
        }
    }

    fn observe_down(&mut self, now: Instant, seen: &Observed) -> Option<Line> {
        let is_due = match seen.connection {
            Connection::Up => false,
            Connection::NeverUp(since) if !seen.has_failed => since >= SILENT_AFTER,
            Connection::NeverUp(since) | Connection::Lost(since) => since >= LOST_AFTER,
        };
        // Records that wait are logged soon, with the connection as the reason. At a start, wrong
        // settings are reported at once.
        let is_logged_soon = matches!(seen.connection, Connection::Lost(_))
            && seen.records > 0
            && self.oldest(now, seen) < LONG_WAIT;
        if !is_due || is_logged_soon || !is_due_again(self.down_logged, now) {
            return None;
        }
        self.down_logged = Some(now);
        self.is_down_logged = true;
        Some(warning(format!(
            "{}; {}. Check the brokers, ZIM2KAFKA_KAFKA_BROKERS and ZIM2KAFKA_KAFKA_PROPERTIES: run zim2kafka check",
            unreachable(seen)?,
            consequence(seen)
        )))
    }

    fn observe_wait(&mut self, now: Instant, seen: &Observed) -> Option<Line> {
        let spool_is_used = seen.spool.is_some_and(|spool| {
            let since = self.spool_used_since;
            let since = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            !spool.is_always_used && since >= SPOOL_USED_AFTER
        });
        let oldest = self.oldest(now, seen);
        let is_connected = seen.connection == Connection::Up;
        let wait = match &mut self.wait {
            None if oldest >= LONG_WAIT || spool_is_used => self.wait.insert(Wait {
                began: now.checked_sub(oldest).unwrap_or(now),
                is_backlog: false,
                logged: None,
                published_before: self.published,
            }),
            None => return None,
            // The connection may be noticed a second after a record is published by it.
            Some(_) if oldest < SHORT_WAIT && !spool_is_used && is_connected => {
                return self.end_wait(now, seen);
            }
            Some(wait) => wait,
        };
        let is_draining = self.progress.is_some() && is_connected;
        // An earlier run's records are about to be published until Kafka is found to take none.
        let is_starting =
            wait.is_backlog && wait.logged.is_some_and(|at| !is_due_again(Some(at), now));
        let cause = match is_draining && seen.obstacle.is_empty() && oldest >= LONG_WAIT {
            true => None,
            false => Some(cause(seen, is_draining)),
        };
        self.cause = cause.clone().filter(|_| is_connected && !is_starting);
        let (is_first, is_due) = match wait.logged {
            None => (true, is_due_again(self.wait_logged, now)),
            logged => (false, is_due_again(logged, now)),
        };
        if !is_due || seen.records == 0 {
            return None;
        }
        wait.logged = Some(now);
        if is_first {
            self.wait_logged = Some(now);
        }
        if !is_connected {
            self.down_logged = Some(now);
            self.is_down_logged = true;
        }
        Some(match cause {
            Some(cause) => warning(self.waiting(seen, &cause, is_first, now)),
            None => info(self.draining(seen, now)),
        })
    }

    fn end_wait(&mut self, now: Instant, seen: &Observed) -> Option<Line> {
        self.cause = None;
        let wait = self.wait.take()?;
        wait.logged?;
        let lasted = Ago(now.saturating_duration_since(wait.began));
        let records = self.published.saturating_sub(wait.published_before);
        let since = self.progress.map_or(now, |(since, _)| since);
        let took = Ago(now
            .saturating_duration_since(since)
            .max(Duration::from_secs(1)));
        Some(info(match (seen.spool, records, wait.is_backlog) {
            (None, ..) | (_, 0, false) => format!("Kafka takes {} again after {lasted}", seen.noun),
            (_, 0, true) => return None,
            (_, records, true) => format!(
                "the spool is drained: {} published in {lasted}",
                count(records, "record")
            ),
            (_, records, false) => format!(
                "the spool is drained: {} published in {took}; {} went to the spool for {lasted}",
                count(records, "record"),
                seen.noun
            ),
        }))
    }

    /// The line of records that wait.
    fn waiting(&self, seen: &Observed, cause: &str, is_first: bool, now: Instant) -> String {
        let still = if is_first { "" } else { "still " };
        let records = count(seen.records as u64, "record");
        let wait = if seen.records == 1 { "waits" } else { "wait" };
        let oldest = Ago(self.oldest(now, seen));
        let noun = seen.noun;
        let Some(spool) = seen.spool else {
            return format!(
                "{noun} {still}wait for Kafka: {cause}; {records} ({}) in memory, the oldest for {oldest}; {}",
                Bytes(seen.bytes),
                consequence(seen)
            );
        };
        let bytes = match spool.records {
            0 => format!("{} in memory", Bytes(seen.bytes)),
            _ => format!("{} on disk", Bytes(spool.used)),
        };
        let goes = match spool.works {
            true => format!("{noun} {still}go to the spool"),
            false => format!("{noun} {still}wait for Kafka, and the spool takes none"),
        };
        let room = match spool.works {
            true => self.room(spool, now),
            false => consequence(seen),
        };
        format!("{goes}: {cause}; {records} {wait} ({bytes}), the oldest for {oldest}; {room}")
    }

    /// The line of a spool that is being published.
    fn draining(&self, seen: &Observed, now: Instant) -> String {
        let left = seen.spool.map_or(0, |spool| spool.records);
        let end = self.drain(left, now).map_or(String::new(), |rate| {
            let seconds = Duration::try_from_secs_f64(left as f64 / rate);
            format!(
                "; done in {} at this rate",
                Ago(seconds.unwrap_or(Duration::MAX))
            )
        });
        format!(
            "the spool is being published: {} left, the oldest from {} ago{end}",
            count(seen.records as u64, "record"),
            Ago(self.oldest(now, seen))
        )
    }

    /// How much the spool can take, and for how long if it grows.
    fn room(&self, spool: SpoolUse, now: Instant) -> String {
        let left = spool.limit.saturating_sub(spool.used);
        match self.growth(spool.used, now) {
            Some(rate) => format!(
                "the spool has room for {} at this rate",
                Hours(left as f64 / rate)
            ),
            None => format!("the spool has room for {}", Bytes(left)),
        }
    }

    /// By how many bytes the spool grows in a second, if it does. It uses this many now.
    pub(super) fn growth(&self, used: u64, now: Instant) -> Option<f64> {
        let (first, seconds) = self.first_sample(now)?;
        let grown = used.checked_sub(first.used).filter(|grown| *grown > 0)?;
        Some(grown as f64 / seconds)
    }

    /// By how many records the spool shrinks in a second, if it does. This many are left.
    pub(super) fn drain(&self, left: usize, now: Instant) -> Option<f64> {
        let (first, seconds) = self.first_sample(now)?;
        let fewer = first.records.checked_sub(left).filter(|fewer| *fewer > 0)?;
        Some(fewer as f64 / seconds)
    }

    /// The oldest sample, and how many seconds ago it was taken.
    fn first_sample(&self, now: Instant) -> Option<(Sample, f64)> {
        let first = *self.samples.front()?;
        let age = now.saturating_duration_since(first.at);
        (age >= SAMPLED_MIN).then_some((first, age.as_secs_f64()))
    }
}

fn is_due_again(logged: Option<Instant>, now: Instant) -> bool {
    logged.is_none_or(|at| now.saturating_duration_since(at) >= REPEAT_INTERVAL)
}

fn info(text: String) -> Line {
    Line {
        level: Level::INFO,
        text,
    }
}

fn warning(text: String) -> Line {
    Line {
        level: Level::WARN,
        text,
    }
}

#[cfg(test)]
mod tests;
