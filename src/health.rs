//! Whether the service can do its work: the answer of `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::delivery::Delivery;
use crate::metrics::Metrics;

/// Combines what several parts of the service know about readiness.
pub struct Health {
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    answer_deadline: Duration,
    topic_found: AtomicBool,
    is_stopping: AtomicBool,
}

impl Health {
    /// Not ready yet. The service is not ready while an event has waited longer than this.
    pub fn new(delivery: Arc<Delivery>, metrics: Arc<Metrics>, answer_deadline: Duration) -> Self {
        Self {
            delivery,
            metrics,
            answer_deadline,
            topic_found: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Whether an event that arrived now would probably become durable, and the service is not
    /// stopping. Updates the metric.
    pub fn is_ready(&self) -> bool {
        let topic_found = self.topic_found.load(Ordering::Relaxed);
        let is_ready = !self.is_stopping.load(Ordering::Relaxed)
            && self.delivery.can_persist(self.answer_deadline, topic_found);
        self.metrics.set_ready(is_ready);
        is_ready
    }

    /// The topic of events exists.
    pub fn mark_topic_found(&self) {
        self.topic_found.store(true, Ordering::Relaxed);
    }

    /// The service is about to stop. It still accepts callbacks, but load balancers should use
    /// another process.
    pub fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}
