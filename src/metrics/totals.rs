//! The metrics as numbers, for the status page.

use std::collections::BTreeMap;
use std::time::Instant;

use prometheus::core::Metric;
use prometheus::proto::MetricType;
use strum::VariantArray;

use super::{Metrics, Outcome};

/// The number of outcomes.
pub const OUTCOMES: usize = Outcome::VARIANTS.len();

/// Callbacks with these outcomes were answered once their event was durable, or at the deadline. The
/// others are answered at once, so that many of them would hide how long these take.
const WAITED: [Outcome; 4] = [
    Outcome::Published,
    Outcome::Spooled,
    Outcome::DeadLettered,
    Outcome::Unavailable,
];

/// Values at one moment, from which the history of the status page is computed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Callbacks answered, in the order of the outcomes.
    pub outcomes: [u64; OUTCOMES],
    /// The upper bound of each bucket of the time for an answer, and the number of callbacks within
    /// it: of those that waited until their event was durable. The last bucket has no bound.
    pub waited: Vec<(f64, u64)>,
    /// Records in the spool.
    pub spool_records: u64,
    /// Whether the last reload succeeded.
    pub reload_successful: bool,
    /// Records lost to disk damage.
    pub lost: u64,
}

impl Metrics {
    /// The values from which the history of the status page is computed.
    pub fn totals(&self) -> Totals {
        let mut waited: Vec<(f64, u64)> = Vec::new();
        for outcome in WAITED {
            let metric = self.callback_duration.of(outcome as usize).metric();
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            let bounds = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
            let all = bounds.chain([(f64::INFINITY, histogram.get_sample_count())]);
            for (at, (bound, count)) in all.enumerate() {
                match waited.get_mut(at) {
                    Some((_, sum)) => *sum += count,
                    None => waited.push((bound, count)),
                }
            }
        }
        let mut outcomes = [0; OUTCOMES];
        for (at, count) in outcomes.iter_mut().enumerate() {
            *count = self.callbacks.of(at).get();
        }
        Totals {
            outcomes,
            waited,
            spool_records: self.spool.records(),
            reload_successful: self.reload_successful.get() == 1,
            lost: self.spool.lost_records(),
        }
    }

    /// The value of every series of this service that is not zero, as in [`Metrics::text`].
    /// Histograms are left out.
    pub fn series(&self) -> BTreeMap<String, f64> {
        self.spool.update_age();
        self.kafka.update(Instant::now());
        let mut series = BTreeMap::new();
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let value = match family.get_field_type() {
                    MetricType::COUNTER => metric.get_counter().get_value(),
                    MetricType::GAUGE => metric.get_gauge().get_value(),
                    _ => continue,
                };
                let labels = metric.get_label().iter();
                let labels: Vec<_> = labels
                    .map(|label| format!("{}={:?}", label.name(), label.value()))
                    .collect();
                let name = match labels.is_empty() {
                    true => family.name().to_owned(),
                    false => format!("{}{{{}}}", family.name(), labels.join(",")),
                };
                if value != 0.0 && name.starts_with("zim2kafka_") {
                    series.insert(name, value);
                }
            }
        }
        series
    }
}
