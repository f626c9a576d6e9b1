//! Whether Kafka can be reached, as a lane's own producer reports it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;

use crate::log::LogThrottle;
use crate::metrics::Metrics;

/// Whether a lane's producer reaches a broker. It outlives the producers of its lane.
#[derive(Debug)]
pub struct BrokerStatus {
    /// One of the constants below.
    reachability: AtomicU8,
    errors: LogThrottle<RDKafkaErrorCode>,
    /// Set for the lane of events only, whose connection stands for that of the service.
    metrics: Option<Arc<Metrics>>,
}

/// No connection has been up or has failed yet.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl BrokerStatus {
    pub(crate) fn new(metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            reachability: AtomicU8::new(UNKNOWN),
            errors: LogThrottle::default(),
            metrics,
        }
    }

    /// Whether a connection to a broker is up.
    pub fn is_up(&self) -> bool {
        self.reachability.load(Ordering::Relaxed) == UP
    }

    /// Whether no broker can be reached. False until the first attempt has ended.
    pub fn is_down(&self) -> bool {
        self.reachability.load(Ordering::Relaxed) == DOWN
    }

    /// Reads librdkafka's statistics, which arrive every second. Only the brokers' states count.
    pub(super) fn read_statistics(&self, json: &[u8]) {
        #[derive(Deserialize)]
        struct Statistics<'a> {
            #[serde(borrow)]
            brokers: BTreeMap<&'a str, Broker<'a>>,
        }
        #[derive(Deserialize)]
        struct Broker<'a> {
            state: &'a str,
        }
        if let Ok(statistics) = serde_json::from_slice::<Statistics<'_>>(json) {
            let is_up = |broker: &Broker<'_>| matches!(broker.state, "UP" | "REAUTH");
            let up = statistics.brokers.values().any(is_up);
            // A client that has never connected may still be connecting.
            if up || self.is_up() {
                self.set_up(up);
            }
        }
    }

    /// Takes an error of the client, as opposed to one of a record.
    pub(super) fn take_error(&self, error: &KafkaError, reason: &str) {
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        match code {
            RDKafkaErrorCode::AllBrokersDown => self.set_up(false),
            // Only one broker, or one address of a name: the others may work.
            RDKafkaErrorCode::BrokerTransportFailure => {
                tracing::debug!("Kafka broker cannot be reached: {reason}");
            }
            // librdkafka repeats an error with every attempt to connect.
            code if self.errors.is_due_for(code) => {
                tracing::warn!(
                    "Kafka client error {code}: {reason}; librdkafka retries. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS and ZIM2KAFKA_KAFKA_PROPERTIES"
                );
            }
            code => tracing::debug!("Kafka client error {code}: {reason}"),
        }
    }

    fn set_up(&self, up: bool) {
        let reachability = if up { UP } else { DOWN };
        let changed = self.reachability.swap(reachability, Ordering::Relaxed) != reachability;
        if changed && let Some(metrics) = &self.metrics {
            metrics.set_kafka_up(up);
            if up {
                tracing::info!("connected to Kafka");
            } else {
                tracing::warn!(
                    "no Kafka broker can be reached; retrying. If this lasts, check ZIM2KAFKA_KAFKA_BROKERS, the network and the listeners that the brokers advertise"
                );
            }
        }
    }
}
