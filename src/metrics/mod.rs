//! What Prometheus sees: one registry of our own, one method a fact.
//!
//! Names, labels and buckets are part of the contract with dashboards and alerts. Labels come from
//! closed sets, nothing is taken from a request, and every series exists from the start, so that a
//! rate over it works from the first event on.

mod connections;
mod spool;

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};

use crate::event::{JoinType, Kind, Reason};
pub use connections::{ConnectionMetrics, Cut};
pub use spool::SpoolMetrics;

/// How a callback ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged by Kafka.
    Published,
    /// Safe in the spool.
    Spooled,
    /// Safe already.
    Duplicate,
    /// Safe as a dead letter.
    DeadLettered,
    /// A `before_send_msg`, answered and not stored.
    Passed,
    /// Neither a JSON object nor a form.
    Malformed,
    /// Not authentic.
    Unauthorized,
    /// From a network that is not allowed.
    Forbidden,
    /// Body or header too large, or in an encoding that is not read.
    TooLarge,
    /// The body did not come in time.
    TimedOut,
    /// Could not be made safe in time.
    Unavailable,
    /// A bug.
    Failed,
}

impl Outcome {
    /// Every outcome there is.
    pub const ALL: [Self; 12] = [
        Self::Published,
        Self::Spooled,
        Self::Duplicate,
        Self::DeadLettered,
        Self::Passed,
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooLarge,
        Self::TimedOut,
        Self::Unavailable,
        Self::Failed,
    ];

    /// The label's value; for the safe ones also the `status` in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Spooled => "spooled",
            Self::Duplicate => "duplicate",
            Self::DeadLettered => "dead_lettered",
            Self::Passed => "passed",
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// From one millisecond to beyond the answer deadline, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

/// Every metric of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    callbacks: Labelled<IntCounter, { Outcome::ALL.len() }>,
    callback_duration: Labelled<Histogram, { Outcome::ALL.len() }>,
    callbacks_in_flight: IntGauge,
    group_joins: Labelled<IntCounter, { JoinType::ALL.len() }>,
    users_joined: IntCounter,
    dead_letters: Labelled<IntCounter, { Reason::ALL.len() }>,
    reused_signatures: IntCounter,
    last_callback: Gauge,
    deliveries_acked: IntCounter,
    deliveries_rejected: IntCounter,
    delivery_duration: Histogram,
    kafka_up: IntGauge,
    records_in_flight: IntGauge,
    producer_recreations: IntCounter,
    spool: SpoolMetrics,
    connections: ConnectionMetrics,
    reload_successful: IntGauge,
    certificate_not_after: IntGauge,
    ready: IntGauge,
}

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let Labelled([deliveries_acked, deliveries_rejected]) = counters(
            &registry,
            "zim2kafka_kafka_deliveries_total",
            "Records that Kafka has settled, by result.",
            "result",
            ["acked", "rejected"],
        );
        let metrics = Self {
            callbacks: counters(
                &registry,
                "zim2kafka_callbacks_total",
                "Callbacks answered, by outcome.",
                "outcome",
                Outcome::ALL.map(Outcome::as_str),
            ),
            callback_duration: callback_duration(&registry),
            callbacks_in_flight: gauge(
                &registry,
                "zim2kafka_callbacks_in_flight",
                "Callbacks that are not answered yet.",
            ),
            group_joins: counters(
                &registry,
                "zim2kafka_group_joins_total",
                "Group-joined records made safe, by the way of joining.",
                "join_type",
                JoinType::ALL.map(JoinType::as_str),
            ),
            users_joined: counter(
                &registry,
                "zim2kafka_users_joined_total",
                "Users in the group-joined records made safe.",
            ),
            dead_letters: counters(
                &registry,
                "zim2kafka_dead_letters_total",
                "Dead letters made safe, by reason.",
                "reason",
                Reason::ALL.map(Reason::as_str),
            ),
            reused_signatures: counter(
                &registry,
                "zim2kafka_reused_signatures_total",
                "Callbacks whose signature had already come with another body.",
            ),
            last_callback: register(
                &registry,
                Gauge::new(
                    "zim2kafka_last_callback_timestamp_seconds",
                    "When the last authentic callback arrived, in seconds since 1970-01-01 UTC; 0 before the first.",
                ),
            ),
            deliveries_acked,
            deliveries_rejected,
            delivery_duration: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "zim2kafka_kafka_delivery_duration_seconds",
                        "From handing a record to the producer to Kafka's acknowledgement.",
                    )
                    .buckets(BUCKETS.to_vec()),
                ),
            ),
            kafka_up: gauge(
                &registry,
                "zim2kafka_kafka_up",
                "1 while a connection to a broker is up, else 0.",
            ),
            records_in_flight: gauge(
                &registry,
                "zim2kafka_kafka_in_flight_records",
                "Records with the producer that Kafka has not settled yet.",
            ),
            producer_recreations: counter(
                &registry,
                "zim2kafka_producer_recreations_total",
                "Producers thrown away and made anew, after a failed delivery or a stall.",
            ),
            spool: SpoolMetrics::new(&registry),
            connections: ConnectionMetrics::new(&registry),
            reload_successful: gauge(
                &registry,
                "zim2kafka_config_last_reload_successful",
                "1 while the last reload of secrets and certificate succeeded, else 0.",
            ),
            certificate_not_after: gauge(
                &registry,
                "zim2kafka_tls_certificate_not_after_timestamp_seconds",
                "When the TLS certificate ends, in seconds since 1970-01-01 UTC; 0 without TLS.",
            ),
            ready: gauge(
                &registry,
                "zim2kafka_ready",
                "1 while /readyz answers 200, else 0.",
            ),
            registry,
        };
        metrics.reloaded(true);
        metrics.register_constants();
        metrics
    }

    /// Series that stand still, or are read from elsewhere.
    fn register_constants(&self) {
        let build = GaugeVec::new(
            Opts::new("zim2kafka_build_info", "1, labelled with what is running."),
            &["version", "revision"],
        );
        register(&self.registry, build)
            .with_label_values(&[env!("CARGO_PKG_VERSION"), env!("ZIM2KAFKA_REVISION")])
            .set(1.0);
        self.registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("its names are its own");
    }

    /// A callback's head arrived. It counts as in flight until what is returned is dropped.
    pub fn callback_arrived(&self) -> Arrival<'_> {
        self.callbacks_in_flight.inc();
        Arrival {
            metrics: self,
            when: Instant::now(),
        }
    }

    /// A callback proved authentic, at this time (milliseconds since 1970-01-01 UTC).
    pub fn authentic_callback(&self, now: i64) {
        self.last_callback.set(now as f64 / 1000.0);
    }

    /// A signature came again with another body.
    pub fn signature_reused(&self) {
        self.reused_signatures.inc();
    }

    /// A record became safe, for the first time.
    pub fn made_safe(&self, kind: Kind) {
        match kind {
            Kind::GroupJoined { join_type, users } => {
                self.group_joins.of(join_type as usize).inc();
                self.users_joined.inc_by(users as u64);
            }
            Kind::DeadLetter(reason) => self.dead_letters.of(reason as usize).inc(),
        }
    }

    /// So many records were handed to the producer.
    pub fn entered_flight(&self, records: usize) {
        self.records_in_flight.add(records as i64);
    }

    /// So many records are no longer with the producer.
    pub fn left_flight(&self, records: usize) {
        self.records_in_flight.sub(records as i64);
    }

    /// Kafka acknowledged a record, so long after it was handed to the producer.
    pub fn delivered(&self, elapsed: Duration) {
        self.deliveries_acked.inc();
        self.delivery_duration.observe(elapsed.as_secs_f64());
    }

    /// Kafka refused a record for good.
    pub fn rejected(&self) {
        self.deliveries_rejected.inc();
    }

    /// A producer was thrown away.
    pub fn producer_recreated(&self) {
        self.producer_recreations.inc();
    }

    /// Whether a connection to a broker is up.
    pub fn kafka_up(&self, up: bool) {
        self.kafka_up.set(up.into());
    }

    /// Of the spool.
    pub fn spool(&self) -> &SpoolMetrics {
        &self.spool
    }

    /// What Prometheus sees of the callback port's connections.
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// Whether every file that is read again is in use as it is now.
    pub fn reloaded(&self, successful: bool) {
        self.reload_successful.set(successful.into());
    }

    /// A certificate is served that ends then, since 1970-01-01 UTC.
    pub fn serves_certificate(&self, not_after: Duration) {
        let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
        self.certificate_not_after.set(seconds);
    }

    /// Whether events can be made safe.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// Everything, in Prometheus' text format.
    pub fn text(&self) -> String {
        self.spool.grow_older();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory cannot fail");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A callback that has arrived and is not answered yet. One whose sender hangs up before the answer
/// has no outcome.
#[derive(Debug)]
pub struct Arrival<'a> {
    metrics: &'a Metrics,
    when: Instant,
}

impl Arrival<'_> {
    /// The callback is answered.
    pub fn finished(self, outcome: Outcome) {
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        self.metrics.callbacks.of(outcome as usize).inc();
        let duration = self.metrics.callback_duration.of(outcome as usize);
        duration.observe(self.when.elapsed().as_secs_f64());
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.metrics.callbacks_in_flight.dec();
        if std::thread::panicking() {
            self.count(Outcome::Failed);
        }
    }
}

/// A metric's series, one for each value of its label, in the order of these values' enum: looking one up
/// by its label's text would cost a hash, a lock and a shared count with every callback.
#[derive(Debug, Clone)]
struct Labelled<T, const N: usize>([T; N]);

impl<T, const N: usize> Labelled<T, N> {
    fn of(&self, value: usize) -> &T {
        self.0.get(value).expect("every value has its series")
    }
}

fn callback_duration(registry: &Registry) -> Labelled<Histogram, { Outcome::ALL.len() }> {
    let options = HistogramOpts::new(
        "zim2kafka_callback_duration_seconds",
        "From the arrival of a callback's head to its answer, by outcome.",
    );
    let durations = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["outcome"]);
    let durations = register(registry, durations);
    Labelled(Outcome::ALL.map(|outcome| durations.with_label_values(&[outcome.as_str()])))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn counters<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: [&str; N],
) -> Labelled<IntCounter, N> {
    let counters = register(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label]),
    );
    Labelled(values.map(|value| counters.with_label_values(&[value])))
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("names and labels of metrics are constants and valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each metric is registered once");
    collector
}

#[cfg(test)]
mod tests;
