//! The metrics of connections.

use prometheus::{IntCounter, IntGauge, Registry};
use strum::{IntoStaticStr, VariantArray};

use super::series::{Labelled, counter, counters, gauge};

/// Why the service closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CloseReason {
    /// It was idle for `ZIM2KAFKA_IDLE_TIMEOUT`.
    Idle,
    /// The head of a request did not arrive in time.
    SlowHead,
    /// Another connection needed its slot.
    Displaced,
    /// Its address had too many connections.
    PerAddress,
}

/// Why a request or a connection ended before it was a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RefusalReason {
    /// Another path.
    NotFound,
    /// Another method.
    Method,
    /// Not HTTP/1, or not within the limits of a head, that of its time included.
    Http,
    /// The TLS handshake failed.
    Tls,
}

/// The metrics of one port's connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    open: IntGauge,
    closed_by_us: Labelled<IntCounter>,
    handshakes_failed: IntCounter,
    refused: Labelled<IntCounter>,
}

impl ConnectionMetrics {
    /// For a port whose connections are not shown: in a registry of their own.
    pub fn unregistered() -> Self {
        Self::new(&Registry::new())
    }

    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: gauge(
                registry,
                "zim2kafka_connections",
                "Connections on the callback port.",
            ),
            closed_by_us: counters(
                registry,
                "zim2kafka_connections_cut_total",
                "Connections on the callback port that the service closed, by reason.",
                "reason",
                CloseReason::VARIANTS,
            ),
            handshakes_failed: counter(
                registry,
                "zim2kafka_tls_handshake_failures_total",
                "Failed TLS handshakes on the callback port.",
            ),
            refused: counters(
                registry,
                "zim2kafka_requests_refused_total",
                "Requests and connections on the callback port that ended before they became a callback, by reason.",
                "reason",
                RefusalReason::VARIANTS,
            ),
        }
    }

    /// A connection got its slot.
    pub fn opened(&self) {
        self.open.inc();
    }

    /// A connection has ended.
    pub fn closed(&self) {
        self.open.dec();
    }

    /// The service closed or refused a connection.
    pub fn closed_by_us(&self, reason: CloseReason) {
        self.closed_by_us.of(reason as usize).inc();
    }

    /// A request or a connection ended before it was a callback.
    pub fn request_refused(&self, reason: RefusalReason) {
        self.refused.of(reason as usize).inc();
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}
