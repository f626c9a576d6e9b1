//! Creates and registers series.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The series of a metric, in the order of the enum whose variants are its label's values. A lookup
/// by the label's text would cost a hash, a lock and a shared count with every callback.
#[derive(Debug, Clone)]
pub(super) struct Labelled<T>(pub(super) Vec<T>);

impl<T> Labelled<T> {
    pub(super) fn of(&self, value: usize) -> &T {
        self.0.get(value).expect("every variant has a series")
    }
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

pub(super) fn counters<V: Copy + Into<&'static str>>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[V],
) -> Labelled<IntCounter> {
    let counters = register(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label]),
    );
    let series = |value: &V| {
        let value: &str = (*value).into();
        counters.with_label_values(&[value])
    };
    Labelled(values.iter().map(series).collect())
}

pub(super) fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("names and labels of metrics are constants and valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each metric is registered once");
    collector
}
