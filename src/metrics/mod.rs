//! The metrics for Prometheus: one registry, one method for each fact.
//!
//! Names, labels and buckets are a contract with dashboards and alerts. Labels come from closed
//! sets and from the configuration, never from a request. Every series exists from the start, so that `rate` works from the
//! first event on.

mod apps;
mod arrival;
mod connections;
mod events;
mod kafka;
mod problems;
mod series;
mod spool;
mod totals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts,
    Registry, TextEncoder,
};

use strum::{IntoStaticStr, VariantArray};

use crate::event::{Counted, JoinType, Joined, Reason};
use crate::log;
pub use apps::{AppCounters, AppMetrics};
pub use arrival::Arrival;
pub use connections::{CloseReason, ConnectionMetrics, RefusalReason};
use events::EventMetrics;
use kafka::KafkaMetrics;
pub use problems::{MAX_PROBLEMS, MAX_UNAUTHENTICATED_PROBLEMS, Problem, ProblemLine, Problems};
use series::{Labelled, counter, counters, gauge, register};
pub use spool::SpoolMetrics;
pub use totals::{OUTCOMES, Totals};

/// How a callback ended. The name is the value of the label `outcome` and, with status 200, the
/// `status` in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Acknowledged by Kafka.
    Published,
    /// Written to the spool.
    Spooled,
    /// Durable since an earlier request.
    Duplicate,
    /// Durable as a dead letter.
    DeadLettered,
    /// Of an event that the operator discards: not stored.
    Discarded,
    /// A `before_send_msg`, answered and not stored.
    Passed,
    /// Neither a JSON object nor a form, or encoded.
    Malformed,
    /// Not authentic.
    Unauthorized,
    /// From an address that is not allowed.
    Forbidden,
    /// Body or header too large.
    TooLarge,
    /// The body did not arrive in time.
    TimedOut,
    /// Not durable in time.
    Unavailable,
    /// A bug.
    Failed,
}

/// What became of a `before_send_msg`. The name is the value of the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum BeforeSendOutcome {
    /// It was authentic.
    Answered,
    /// It claims to be one, and is not authentic.
    Unauthorized,
}

/// What Kafka did with a record.
#[derive(Debug, Clone, Copy, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum DeliveryResult {
    Acked,
    Rejected,
}

/// In seconds, from one millisecond to beyond the answer deadline.
const DURATION_BUCKETS_SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

/// Every metric of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    callbacks: Labelled<IntCounter>,
    callback_duration: Labelled<Histogram>,
    callbacks_in_flight: IntGauge,
    events: EventMetrics,
    before_send: Labelled<IntCounter>,
    apps: AppMetrics,
    group_joins: Labelled<IntCounter>,
    users_joined: IntCounter,
    dead_letters: Labelled<IntCounter>,
    reused_signatures: IntCounter,
    last_callback: Gauge,
    deliveries: Labelled<IntCounter>,
    delivery_duration: Histogram,
    kafka: KafkaMetrics,
    records_in_flight: IntGauge,
    producer_recreations: IntCounter,
    spool: SpoolMetrics,
    connections: ConnectionMetrics,
    reload_successful: IntGauge,
    certificate_not_after: Gauge,
    ready: IntGauge,
    degraded: IntGauge,
    problems: Arc<Problems>,
}

impl Metrics {
    /// Creates all series, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            callbacks: counters(
                &registry,
                "zim2kafka_callbacks_total",
                "Callbacks answered, by outcome.",
                "outcome",
                Outcome::VARIANTS,
            ),
            callback_duration: callback_duration(&registry),
            callbacks_in_flight: gauge(
                &registry,
                "zim2kafka_callbacks_in_flight",
                "Callbacks that are not yet answered.",
            ),
            events: EventMetrics::new(&registry),
            before_send: counters(
                &registry,
                "zim2kafka_before_send_total",
                "Callbacks that claim to be a before_send_msg, by outcome. The claim of an unauthorized one is not verified.",
                "outcome",
                BeforeSendOutcome::VARIANTS,
            ),
            apps: AppMetrics::new(&registry),
            group_joins: counters(
                &registry,
                "zim2kafka_group_joins_total",
                "Durable group-joined records, by join type.",
                "join_type",
                JoinType::VARIANTS,
            ),
            users_joined: counter(
                &registry,
                "zim2kafka_users_joined_total",
                "Users in durable group-joined records.",
            ),
            dead_letters: counters(
                &registry,
                "zim2kafka_dead_letters_total",
                "Durable dead letters, by reason.",
                "reason",
                Reason::VARIANTS,
            ),
            reused_signatures: counter(
                &registry,
                "zim2kafka_reused_signatures_total",
                "Callbacks whose signature was used before with another body.",
            ),
            last_callback: register(
                &registry,
                Gauge::new(
                    "zim2kafka_last_callback_timestamp_seconds",
                    "When the last authentic callback arrived, in seconds since 1970-01-01 UTC; 0 before the first.",
                ),
            ),
            deliveries: counters(
                &registry,
                "zim2kafka_kafka_deliveries_total",
                "Records that Kafka has acknowledged or rejected, by result.",
                "result",
                DeliveryResult::VARIANTS,
            ),
            delivery_duration: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "zim2kafka_kafka_delivery_duration_seconds",
                        "From handing a record to the producer to Kafka's acknowledgement.",
                    )
                    .buckets(DURATION_BUCKETS_SECONDS.to_vec()),
                ),
            ),
            kafka: KafkaMetrics::new(&registry),
            records_in_flight: gauge(
                &registry,
                "zim2kafka_kafka_in_flight_records",
                "Records held by the producers that Kafka has not acknowledged or rejected.",
            ),
            producer_recreations: counter(
                &registry,
                "zim2kafka_producer_recreations_total",
                "Producers replaced after a failed delivery or a stall.",
            ),
            spool: SpoolMetrics::new(&registry),
            connections: ConnectionMetrics::new(&registry),
            reload_successful: gauge(
                &registry,
                "zim2kafka_config_last_reload_successful",
                "1 if the last reload of secrets and certificate succeeded, else 0.",
            ),
            certificate_not_after: register(
                &registry,
                Gauge::new(
                    "zim2kafka_tls_certificate_not_after_timestamp_seconds",
                    "When the TLS certificate expires, in seconds since 1970-01-01 UTC; 0 without TLS, NaN if unknown.",
                ),
            ),
            ready: gauge(
                &registry,
                "zim2kafka_ready",
                "1 while /readyz answers 200, else 0.",
            ),
            degraded: gauge(
                &registry,
                "zim2kafka_degraded",
                "1 while the answer of /readyz begins with degraded, else 0.",
            ),
            problems: Arc::default(),
            registry,
        };
        metrics.set_reload_successful(true);
        metrics.register_constants();
        metrics
    }

    /// Registers series that are constant or read from the system.
    fn register_constants(&self) {
        let build = GaugeVec::new(
            Opts::new(
                "zim2kafka_build_info",
                "1, labelled with version and revision.",
            ),
            &["version", "revision"],
        );
        register(&self.registry, build)
            .with_label_values(&[env!("CARGO_PKG_VERSION"), env!("ZIM2KAFKA_REVISION")])
            .set(1.0);
        self.registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("its names are unique");
        register(&self.registry, Ok(log::dropped_lines().clone()));
    }

    /// The head of a callback has arrived. It counts as in flight until the result is dropped.
    pub fn callback_arrived(&self) -> Arrival<'_> {
        self.callbacks_in_flight.inc();
        Arrival::new(self)
    }

    /// A callback was authentic, at this time (milliseconds since 1970-01-01 UTC).
    pub fn authentic_callback(&self, now: i64) {
        self.last_callback.set(now as f64 / 1000.0);
    }

    /// A `before_send_msg` has had this outcome.
    pub fn before_send(&self, outcome: BeforeSendOutcome) {
        self.before_send.of(outcome as usize).inc();
    }

    /// The callbacks by application.
    pub fn apps(&self) -> &AppMetrics {
        &self.apps
    }

    /// The last problems.
    pub fn problems(&self) -> &Arc<Problems> {
        &self.problems
    }

    /// A signature was used again with another body.
    pub fn signature_reused(&self) {
        self.reused_signatures.inc();
    }

    /// A record has become durable, for the first time, this long after the time of its event. The
    /// lag of a dead letter is not counted: stale ones would hide that of events.
    pub fn record_durable(&self, counted: Counted, lag: Duration) {
        match counted {
            Counted::Event { joined } => {
                self.events.durable(lag);
                if let Some(Joined { join_type, users }) = joined {
                    self.group_joins.of(join_type as usize).inc();
                    self.users_joined.inc_by(users as u64);
                }
            }
            Counted::DeadLetter(reason) => self.dead_letters.of(reason as usize).inc(),
        }
    }

    /// Records were handed to a producer.
    pub fn entered_flight(&self, records: usize) {
        self.records_in_flight.add(records as i64);
    }

    /// Records are no longer held by a producer.
    pub fn left_flight(&self, records: usize) {
        self.records_in_flight.sub(records as i64);
    }

    /// Kafka acknowledged a record this long after it was handed to the producer.
    pub fn delivered(&self, elapsed: Duration) {
        self.deliveries.of(DeliveryResult::Acked as usize).inc();
        self.delivery_duration.observe(elapsed.as_secs_f64());
    }

    /// Kafka rejected a record permanently.
    pub fn rejected(&self) {
        self.deliveries.of(DeliveryResult::Rejected as usize).inc();
    }

    /// A producer was replaced.
    pub fn producer_recreated(&self) {
        self.producer_recreations.inc();
    }

    /// Whether a connection to a broker is up.
    pub fn set_kafka_up(&self, up: bool) {
        self.kafka.set_up(up);
    }

    /// How many brokers are connected, and the time from a request to its response when Kafka is not
    /// busy; zero until it was measured.
    pub fn set_kafka_connection(&self, brokers_up: usize, round_trip: Duration) {
        self.kafka.report(Instant::now(), brokers_up, round_trip);
    }

    /// The metrics of the spool.
    pub fn spool(&self) -> &SpoolMetrics {
        &self.spool
    }

    /// The metrics of the callback port's connections.
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// Whether all reloaded files are in use in their current form.
    pub fn set_reload_successful(&self, successful: bool) {
        self.reload_successful.set(successful.into());
    }

    /// When the certificate in use expires, as the time since 1970-01-01 UTC, if that is known.
    pub fn set_certificate_not_after(&self, not_after: Option<Duration>) {
        let seconds = not_after.map_or(f64::NAN, |not_after| not_after.as_secs_f64());
        self.certificate_not_after.set(seconds);
    }

    /// Whether Kafka has acknowledged the event of a callback.
    pub fn has_published(&self) -> bool {
        self.callbacks.of(Outcome::Published as usize).get() > 0
    }

    /// When the TLS certificate expires, since 1970-01-01 UTC; `None` without one, or if unknown.
    pub fn certificate_not_after(&self) -> Option<Duration> {
        let not_after = Duration::try_from_secs_f64(self.certificate_not_after.get()).ok();
        not_after.filter(|not_after| !not_after.is_zero())
    }

    /// Whether the service is ready, and whether it is only degraded.
    pub fn set_ready(&self, ready: bool, degraded: bool) {
        self.ready.set(ready.into());
        self.degraded.set(degraded.into());
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        self.spool.update_age();
        self.kafka.update(Instant::now());
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

fn callback_duration(registry: &Registry) -> Labelled<Histogram> {
    let options = HistogramOpts::new(
        "zim2kafka_callback_duration_seconds",
        "From the arrival of a callback's head to its answer, by outcome.",
    );
    let durations = HistogramVec::new(
        options.buckets(DURATION_BUCKETS_SECONDS.to_vec()),
        &["outcome"],
    );
    let durations = register(registry, durations);
    let series = |outcome: &Outcome| durations.with_label_values(&[<&str>::from(outcome)]);
    Labelled(Outcome::VARIANTS.iter().map(series).collect())
}

#[cfg(test)]
mod tests;
