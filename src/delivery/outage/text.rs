//! Reasons and numbers as people read them.

use std::fmt;

use super::{Observed, SpoolUse};
use crate::kafka::Connection;
use crate::log::Ago;

/// That no broker can be reached, and why; `None` if one is connected.
pub(super) fn unreachable(seen: &Observed) -> Option<String> {
    let reasons = match seen.errors.as_str() {
        "" => "no answer, and no reason from the client library",
        errors => errors,
    };
    match seen.connection {
        Connection::Up => None,
        Connection::NeverUp(since) => Some(format!(
            "Kafka unreachable: no broker reached since the start {} ago ({reasons})",
            Ago(since)
        )),
        Connection::Lost(since) => Some(format!(
            "Kafka unreachable since {} ({reasons})",
            Ago(since)
        )),
    }
}

/// Why records wait.
pub(super) fn cause(seen: &Observed, is_draining: bool) -> String {
    if let Some(unreachable) = unreachable(seen) {
        return unreachable;
    }
    match (seen.obstacle.as_str(), is_draining) {
        ("", true) => "Kafka answers slower than ZIM2KAFKA_SPOOL_AFTER".to_owned(),
        ("", false) if !seen.advertised.is_empty() => format!(
            "brokers cannot be reached at the addresses that Kafka advertises ({}); check that they run, and their advertised.listeners",
            seen.advertised
        ),
        ("", false) => format!(
            "Kafka acknowledges no record of {}; run zim2kafka check, and look for partitions with fewer replicas in sync than min.insync.replicas",
            seen.topics
        ),
        (obstacle, _) => obstacle.to_owned(),
    }
}

/// What happens to new records.
pub(super) fn consequence(seen: &Observed) -> String {
    let noun = seen.noun;
    let lost = format!("{noun} are answered 503, and the sender drops each after 62 s");
    match seen.spool {
        Some(SpoolUse { works: true, .. }) => format!("{noun} go to the spool"),
        Some(SpoolUse { is_full: true, .. }) => {
            format!("the spool is full (raise ZIM2KAFKA_SPOOL_MAX_BYTES), so {lost}")
        }
        Some(_) => {
            format!("the spool takes no records (check the disk of ZIM2KAFKA_SPOOL_DIR), so {lost}")
        }
        None => lost,
    }
}

/// Bytes, in a unit of which there are at least one.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let (unit, name) = match bytes {
            ..1_000 => return write!(f, "{bytes} bytes"),
            1_000..1_000_000 => (1e3, "kB"),
            1_000_000..1_000_000_000 => (1e6, "MB"),
            _ => (1e9, "GB"),
        };
        write!(f, "{:.1} {name}", bytes as f64 / unit)
    }
}

/// Seconds, in hours.
pub(super) struct Hours(pub(super) f64);

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / 3600.0 {
            hours @ ..0.05 => write!(f, "{:.0} min", (hours * 60.0).floor()),
            hours @ 0.05..10.0 => write!(f, "{hours:.1} h"),
            hours @ 10.0..1000.0 => write!(f, "{hours:.0} h"),
            _ => f.write_str("more than 1000 h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_unit_that_people_read() {
        let bytes = [999, 1_500, 2_000_000, 3_210_000_000].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(bytes, ["999 bytes", "1.5 kB", "2.0 MB", "3.2 GB"]);
        let hours =
            [100.0, 1800.0, 18_720.0, 90_000.0, 1e9].map(|seconds| Hours(seconds).to_string());
        assert_eq!(
            hours,
            ["1 min", "0.5 h", "5.2 h", "25 h", "more than 1000 h"]
        );
    }
}
