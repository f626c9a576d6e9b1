//! What Prometheus sees of the callback port's connections.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{Labelled, counter, counters, gauge};

/// Why a connection was cut off by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It was silent for `ZIM2KAFKA_IDLE_TIMEOUT`.
    Idle,
    /// The head of a request did not come in time.
    SlowHead,
    /// Another one needed its place.
    Displaced,
    /// Its address had as many as it may.
    PerAddress,
}

impl Cut {
    /// Every reason there is.
    pub(super) const ALL: [Self; 4] = [
        Self::Idle,
        Self::SlowHead,
        Self::Displaced,
        Self::PerAddress,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::Displaced => "displaced",
            Self::PerAddress => "per_address",
        }
    }
}

/// The metrics of one port's connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    open: IntGauge,
    cut: Labelled<IntCounter, { Cut::ALL.len() }>,
    handshakes_failed: IntCounter,
}

impl ConnectionMetrics {
    /// Those of a port that nobody watches: they are in no registry that is shown.
    pub fn unseen() -> Self {
        Self::new(&Registry::new())
    }

    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: gauge(
                registry,
                "zim2kafka_connections",
                "Connections on the callback port.",
            ),
            cut: counters(
                registry,
                "zim2kafka_connections_cut_total",
                "Connections on the callback port that were cut off, by reason.",
                "reason",
                Cut::ALL.map(Cut::as_str),
            ),
            handshakes_failed: counter(
                registry,
                "zim2kafka_tls_handshake_failures_total",
                "TLS handshakes on the callback port that did not succeed.",
            ),
        }
    }

    /// A connection has its place.
    pub fn opened(&self) {
        self.open.inc();
    }

    /// A connection has ended.
    pub fn closed(&self) {
        self.open.dec();
    }

    /// We have ended a connection, or refused it.
    pub fn cut(&self, why: Cut) {
        self.cut.of(why as usize).inc();
    }

    /// A handshake did not succeed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}
