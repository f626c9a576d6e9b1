//! Whether Kafka can be reached, as a lane's own producer tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;

use crate::metrics::Metrics;

/// The state of a lane's connections, through all of its producers.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    /// Whether no broker can be reached. Not at first, when nobody has tried yet.
    down: AtomicBool,
    /// Those of the lane of events, whose connection stands for that of the service.
    metrics: Option<Arc<Metrics>>,
}

#[derive(Debug)]
struct State {
    up: bool,
    complaint: Option<(RDKafkaErrorCode, Instant)>,
}

/// librdkafka repeats an error at each attempt to connect; people want it once a minute.
const SILENCE: Duration = Duration::from_secs(60);

impl Connection {
    pub(in crate::delivery) fn new(metrics: Option<Arc<Metrics>>) -> Self {
        let state = State {
            up: false,
            complaint: None,
        };
        Self {
            state: Mutex::new(state),
            down: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether a connection to a broker is up.
    pub fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Whether it is known that no broker can be reached.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Reads librdkafka's statistics, which come every second. Only their brokers' states count.
    pub(super) fn statistics(&self, json: &[u8]) {
        #[derive(Deserialize)]
        struct Statistics<'a> {
            #[serde(borrow)]
            brokers: std::collections::BTreeMap<&'a str, Broker<'a>>,
        }
        #[derive(Deserialize)]
        struct Broker<'a> {
            state: &'a str,
        }
        if let Ok(statistics) = serde_json::from_slice::<Statistics<'_>>(json) {
            let up = |broker: &Broker<'_>| matches!(broker.state, "UP" | "REAUTH");
            let up = statistics.brokers.values().any(up);
            // A client that has not connected yet is not one that cannot.
            if up || self.is_up() {
                self.set(up);
            }
        }
    }

    /// Takes an error that librdkafka reports besides those of single records.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.set(false),
            // One broker of several, or one of a name's addresses: the others may do.
            RDKafkaErrorCode::BrokerTransportFailure => tracing::debug!(reason, "Kafka broker"),
            code if self.is_new(code) => tracing::warn!(%code, reason, "Kafka client"),
            code => tracing::debug!(%code, reason, "Kafka client"),
        }
    }

    fn set(&self, up: bool) {
        let mut state = self.lock();
        let changed = state.up != up || !up && !self.is_down();
        state.up = up;
        self.down.store(!up, Ordering::Relaxed);
        if changed && let Some(metrics) = &self.metrics {
            metrics.kafka_up(up);
            if up {
                tracing::info!("connected to Kafka");
            } else {
                tracing::warn!(
                    "no Kafka broker can be reached; retrying. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS, the network and the listeners that the brokers advertise"
                );
            }
        }
    }

    fn is_new(&self, code: RDKafkaErrorCode) -> bool {
        let mut state = self.lock();
        let new = match state.complaint {
            Some((last, when)) => last != code || when.elapsed() > SILENCE,
            None => true,
        };
        if new {
            state.complaint = Some((code, Instant::now()));
        }
        new
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
