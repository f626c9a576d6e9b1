//! Judges the settings of a topic: which of them delete, change or reject what the service has
//! acknowledged. Pure.
//!
//! Kafka returns a value for each setting, that of the topic or the default of its brokers. A
//! setting that it does not return is not judged: old brokers and compatible ones know fewer.
//! Settings that are not named here cost no record, such as `compression.type`, `flush.*`,
//! `local.retention.*` or `segment.ms`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{MAX_IN_FLIGHT_BYTES, MAX_MESSAGE_BYTES};
use crate::finding::Finding;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Kafka's default of `retention.ms`, and how long an outage may last without a record being
/// rejected because of its age.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// How far apart the clocks of this machine and of the brokers may be. A dead letter has the time of
/// this machine.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// The settings of a topic, by name.
pub(super) type Settings = BTreeMap<String, String>;

/// The most partitions that a finding names.
const NAMED_PARTITIONS: usize = 10;

/// A partition, as Kafka describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) id: i32,
    pub(super) has_leader: bool,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
}

/// A topic and what the service stores in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topic<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: &'a [Partition],
    pub(super) content: Content,
    /// The most bytes that wait on disk during an outage; `None` without a spool.
    pub(super) spool_bytes: Option<u64>,
}

/// Which records a topic gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Events. The timestamps of their callbacks may be this far from now; `None` is any distance.
    Events {
        tolerance: Option<Duration>,
        /// Whether there are events whose own time is their timestamp. It may be as far from that of
        /// the callback as that is from now.
        has_own_times: bool,
    },
    /// Dead letters, whose timestamp is the time at which the callback was received.
    DeadLetters,
}

impl Topic<'_> {
    /// What these settings mean for the promises.
    pub(super) fn judge(&self, settings: &Settings) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.judge_copies(settings, &mut findings);
        self.judge_deletion(settings, &mut findings);
        self.judge_timestamps(settings, &mut findings);
        self.judge_format(settings, &mut findings);
        findings
    }

    /// Whether each partition has a leader.
    pub(super) fn judge_leaders(&self) -> Option<Finding> {
        let names = self.names(|partition| !partition.has_leader)?;
        Some(self.error(format!(
            "partitions without a leader, for which Kafka takes no records: {names}; start the brokers that have their replicas"
        )))
    }

    /// The replication factor: that of the partition with the fewest replicas.
    pub(super) fn replicas(&self) -> usize {
        let replicas = self.partitions.iter().map(|partition| partition.replicas);
        replicas.min().unwrap_or(0)
    }

    /// The numbers of these partitions; `None` if there are none.
    fn names(&self, is_named: impl Fn(&Partition) -> bool) -> Option<String> {
        let named = self
            .partitions
            .iter()
            .filter(|partition| is_named(partition));
        let mut named: Vec<_> = named.map(|partition| partition.id).collect();
        named.sort_unstable();
        let first = named.iter().take(NAMED_PARTITIONS).map(i32::to_string);
        let first = first.collect::<Vec<_>>().join(", ");
        match named.len() {
            0 => None,
            1..=NAMED_PARTITIONS => Some(first),
            all => Some(format!("{first} and {} more", all - NAMED_PARTITIONS)),
        }
    }

    /// On how many brokers an acknowledged record is.
    fn judge_copies(&self, settings: &Settings, findings: &mut Vec<Finding>) {
        const KEY: &str = "min.insync.replicas";
        let replicas = self.replicas() as u64;
        let advice = match replicas {
            0..3 => "use replication factor 3, then set min.insync.replicas=2",
            _ => "set min.insync.replicas=2",
        };
        findings.push(match number(settings, KEY) {
            Some(in_sync) if replicas > 0 && in_sync > replicas => self.error(format!(
                "{KEY} is {in_sync}, more than the replication factor {replicas}: Kafka rejects every record, or ignores the setting if its version is new; {advice}"
            )),
            Some(in_sync @ 2..) if in_sync == replicas => self.warning(format!(
                "{KEY} is {in_sync}, the same as the replication factor: Kafka takes no records while one broker is down; {advice}"
            )),
            Some(in_sync @ 2..) => Finding::ok(self.name, format!("{KEY} {in_sync}")),
            in_sync => self.warning(format!(
                "{KEY} is {}: a record may be acknowledged while only one broker has it; {advice}",
                in_sync.map_or("unknown".to_owned(), |number| number.to_string())
            )),
        });
        let needed = number(settings, KEY).unwrap_or_default();
        let lags = |partition: &Partition| {
            let is_possible = needed <= partition.replicas as u64;
            partition.has_leader && is_possible && (partition.in_sync as u64) < needed
        };
        if let Some(names) = self.names(lags) {
            findings.push(self.error(format!(
                "{KEY} is {needed}, but these partitions have fewer replicas in sync, and Kafka rejects their records: {names}; start the brokers that have their replicas, or wait until these have caught up"
            )));
        }
        if is_true(settings, "unclean.leader.election.enable") {
            findings.push(self.warning(
                "unclean.leader.election.enable is true: a broker that lags behind may become leader and lose acknowledged records; set it to false",
            ));
        }
    }

    /// Whether Kafka deletes records before they are read.
    fn judge_deletion(&self, settings: &Settings, findings: &mut Vec<Finding>) {
        if let Some(policy) = settings.get("cleanup.policy")
            && policy.split(',').any(|policy| policy.trim() == "compact")
        {
            let kept = match self.content {
                Content::Events { .. } => "the last record of each key",
                Content::DeadLetters => {
                    "the last dead letter of each key and rejects those without one"
                }
            };
            findings.push(self.error(format!(
                "cleanup.policy is {policy}: Kafka keeps only {kept}; set cleanup.policy=delete"
            )));
        }
        // -1 is without a limit.
        if let Some(retention) = number(settings, "retention.ms").map(Duration::from_millis) {
            findings.extend(self.judge_retention(retention, is_log_append_time(settings)));
        }
        if let Some(bytes) = number(settings, "retention.bytes") {
            let burst = MAX_IN_FLIGHT_BYTES as u64;
            let partitions = (self.partitions.len() as u64).max(1);
            let backlog = self
                .spool_bytes
                .map_or(0, |bytes| bytes.div_ceil(partitions));
            let needed = burst.max(backlog);
            if bytes < burst {
                findings.push(self.error(format!(
                    "retention.bytes is {bytes} for each partition: the service can publish {burst} bytes at once, so Kafka deletes records before they are read; set retention.bytes=-1, or {needed} or more"
                )));
            } else if bytes < needed {
                findings.push(self.warning(format!(
                    "retention.bytes is {bytes} for each of {partitions} partitions: a full spool (ZIM2KAFKA_SPOOL_MAX_BYTES) is published at once after an outage, so Kafka deletes records before they are read; set retention.bytes=-1, or {needed} or more"
                )));
            }
        }
    }

    /// Kafka deletes a record by its timestamp, unless it replaces that.
    fn judge_retention(&self, retention: Duration, is_replaced: bool) -> Option<Finding> {
        let key = format!("retention.ms is {}", milliseconds(retention));
        // An event may be this old when it is published.
        let age = match self.content {
            Content::Events { .. } if !is_replaced => self.tolerance(),
            _ => Some(Duration::ZERO),
        };
        let is_short = retention < HOUR.max(age.unwrap_or_default());
        let Some(age) = age else {
            let text = format!(
                "{key}, but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off: Kafka deletes events that are older when they arrive, read or not; set retention.ms=-1, or a tolerance below it"
            );
            return Some(match is_short {
                true => self.error(text),
                false => self.warning(text),
            });
        };
        let advised = WEEK.max(age.saturating_mul(2));
        let waited = match self.spool_bytes {
            Some(_) if !is_replaced => ", also those that waited longer in the spool",
            _ => "",
        };
        let text = format!(
            "{key}: Kafka deletes older records, read or not{waited}; set retention.ms={} ({}) or more",
            advised.as_millis(),
            for_people(advised)
        );
        match is_short {
            true => Some(self.error(text)),
            false => (retention < DAY).then(|| self.warning(text)),
        }
    }

    /// Whether Kafka replaces timestamps, or rejects records because of theirs.
    fn judge_timestamps(&self, settings: &Settings, findings: &mut Vec<Finding>) {
        if is_log_append_time(settings) {
            let late = match self.spool_bytes {
                Some(_) => ", after an outage hours later",
                None => "",
            };
            // A warning, because no record is lost and the value and `ce_time` keep the time.
            findings.push(self.warning(format!(
                "{TIMESTAMP_TYPE} is LogAppendTime: Kafka replaces the timestamps of records with the time at which they arrive{late}; set {TIMESTAMP_TYPE}=CreateTime"
            )));
            // Then Kafka ignores our timestamps.
            return;
        }
        if let Some((key, limit)) = timestamp_limit(settings, "message.timestamp.before.max.ms") {
            findings.extend(self.judge_age_limit(key, limit));
        }
        if let Some((key, limit)) = timestamp_limit(settings, "message.timestamp.after.max.ms") {
            findings.extend(self.judge_future_limit(key, limit));
        }
    }

    fn judge_age_limit(&self, key: &str, limit: Duration) -> Option<Finding> {
        let (events, fate) = self.rejected();
        let Some(tolerance) = self.tolerance() else {
            return Some(self.error(format!(
                "{key} is {}, but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off: Kafka rejects older {events}, {fate}; set {key}={}",
                milliseconds(limit),
                i64::MAX
            )));
        };
        let wait = self.spool_bytes.map_or(Duration::ZERO, |_| WEEK);
        let enough = tolerance.saturating_add(wait);
        if limit < tolerance {
            Some(self.below_tolerance(key, limit, tolerance, enough))
        } else if limit < enough {
            Some(self.warning(format!(
                "{key} is {}: Kafka rejects {events} that wait longer in the spool, {fate}; set {key}={} or more",
                milliseconds(limit),
                enough.as_millis()
            )))
        } else {
            None
        }
    }

    fn judge_future_limit(&self, key: &str, limit: Duration) -> Option<Finding> {
        let (events, fate) = self.rejected();
        match self.tolerance() {
            Some(tolerance) if limit < tolerance => {
                Some(self.below_tolerance(key, limit, tolerance, tolerance))
            }
            Some(_) => None,
            // An hour is Kafka's default, and only a wrong clock gets there.
            None => Some(self.warning(format!(
                "{key} is {}, but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off: Kafka rejects {events} from further in the future, {fate}; set {key}={}",
                milliseconds(limit),
                i64::MAX
            ))),
        }
    }

    fn below_tolerance(
        &self,
        key: &str,
        limit: Duration,
        tolerance: Duration,
        enough: Duration,
    ) -> Finding {
        let (events, fate) = self.rejected();
        let what = match self.content {
            Content::Events {
                has_own_times: false,
                ..
            } => "ZIM2KAFKA_TIMESTAMP_TOLERANCE",
            Content::Events { .. } => {
                "twice ZIM2KAFKA_TIMESTAMP_TOLERANCE, by which a message's time may differ from now"
            }
            Content::DeadLetters => "a usual difference of clocks",
        };
        self.error(format!(
            "{key} is {}, below {what} ({}): Kafka rejects {events} that the service accepts, {fate}; set {key}={} or more",
            milliseconds(limit),
            for_people(tolerance),
            enough.as_millis()
        ))
    }

    /// How far the timestamp of a record may be from now when Kafka gets it at once.
    fn tolerance(&self) -> Option<Duration> {
        match self.content {
            Content::Events {
                tolerance,
                has_own_times,
            } => tolerance.map(|tolerance| tolerance.saturating_mul(1 + u32::from(has_own_times))),
            Content::DeadLetters => Some(CLOCK_DIFFERENCE),
        }
    }

    /// What Kafka rejects, and what becomes of it.
    fn rejected(&self) -> (&'static str, &'static str) {
        match self.content {
            Content::Events { .. } => ("events", "and they become dead letters"),
            Content::DeadLetters if self.spool_bytes.is_some() => {
                ("dead letters", "and they stay in the spool")
            }
            Content::DeadLetters => ("dead letters", "and their callbacks are answered 503"),
        }
    }

    /// Whether Kafka rejects records because of their size or format.
    fn judge_format(&self, settings: &Settings, findings: &mut Vec<Finding>) {
        let largest = MAX_MESSAGE_BYTES as u64;
        for (key, needed) in [
            ("max.message.bytes", largest),
            // Kafka's default; newer versions refuse less than 1 MiB.
            ("segment.bytes", 1 << 30),
        ] {
            if let Some(limit) = number(settings, key).filter(|limit| *limit < largest) {
                findings.push(self.error(format!(
                    "{key} is {limit}: Kafka rejects larger records, and the service publishes up to {largest} bytes; set {key}={needed} or more"
                )));
            }
        }
        const FORMAT: &str = "message.format.version";
        let is_old = |version: &&String| {
            let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
            matches!((parts.next(), parts.next()), (Some(Ok(0)), Some(Ok(..11))))
        };
        if let Some(version) = settings.get(FORMAT).filter(is_old) {
            findings.push(self.error(format!(
                "{FORMAT} is {version}: its records have no headers, and Kafka rejects those of the service; set {FORMAT}=0.11.0 or a newer one"
            )));
        }
        // Of Confluent Server and of Redpanda. They look for the subjects of the topic's name; ours
        // are those of events.
        for key in [
            "confluent.key.schema.validation",
            "confluent.value.schema.validation",
            "redpanda.key.schema.id.validation",
            "redpanda.value.schema.id.validation",
        ] {
            if is_true(settings, key) {
                findings.push(self.error(format!(
                    "{key} is true: Kafka rejects records without the id of a schema of a subject of the topic's name, such as those of the service; set {key}=false"
                )));
            }
        }
    }

    fn error(&self, text: impl Into<String>) -> Finding {
        Finding::error(self.name, text)
    }

    fn warning(&self, text: impl Into<String>) -> Finding {
        Finding::warning(self.name, text)
    }
}

/// `None` for a negative number too, which is how Kafka spells "no limit".
fn number(settings: &Settings, key: &str) -> Option<u64> {
    settings.get(key)?.parse().ok()
}

fn is_true(settings: &Settings, key: &str) -> bool {
    settings
        .get(key)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Whether Kafka replaces the timestamps of records with the time at which they arrive.
fn is_log_append_time(settings: &Settings) -> bool {
    settings
        .get(TIMESTAMP_TYPE)
        .is_some_and(|value| value.eq_ignore_ascii_case("LogAppendTime"))
}

/// The limit that Kafka applies on this side of now, and the setting that has it. If there is none
/// of that name, the older setting for both sides applies (brokers before 3.6 have that one only).
fn timestamp_limit<'a>(settings: &Settings, key: &'a str) -> Option<(&'a str, Duration)> {
    let limits = [key, "message.timestamp.difference.max.ms"].into_iter();
    let mut limits = limits.filter_map(|key| Some((key, number(settings, key)?)));
    let (key, limit) = limits.find(|(_, limit)| *limit < i64::MAX as u64)?;
    Some((key, Duration::from_millis(limit)))
}

/// A value as Kafka has it, and for people.
fn milliseconds(duration: Duration) -> String {
    format!("{} ({})", duration.as_millis(), for_people(duration))
}

/// In the largest unit that makes it a whole number.
fn for_people(duration: Duration) -> String {
    let whole = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ];
    let unit = units
        .into_iter()
        .find(|(unit, _)| whole >= *unit && whole.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ms"));
    format!("{} {name}", whole / unit)
}

#[cfg(test)]
mod tests;
