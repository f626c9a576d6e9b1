//! Whether the service can do its work: what `/readyz` and a balancer ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::delivery::Delivery;
use crate::metrics::Metrics;

/// Shared by those who know a part of the answer.
pub struct Health {
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    patience: Duration,
    topic_exists: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    /// Not ready yet. An event that waits for longer than `patience` makes the service unready.
    pub fn new(delivery: Arc<Delivery>, metrics: Arc<Metrics>, patience: Duration) -> Self {
        Self {
            delivery,
            metrics,
            patience,
            topic_exists: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether an event that came now could be made safe, as far as one can know.
    pub fn is_ready(&self) -> bool {
        let topic_exists = self.topic_exists.load(Ordering::Relaxed);
        let ready = !self.stopping.load(Ordering::Relaxed)
            && self.delivery.can_make_safe(self.patience, topic_exists);
        self.metrics.ready(ready);
        ready
    }

    /// The topic of events has been seen.
    pub fn topic_exists(&self) {
        self.topic_exists.store(true, Ordering::Relaxed);
    }

    /// The service is about to stop: it still accepts, but balancers should look elsewhere.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
