//! An in-memory Kafka for trials: librdkafka's mock cluster.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;

use super::Error;

/// One in-memory broker in this process, on a free loopback port. It keeps the last 5 MiB of each
/// partition until it is dropped.
pub struct EmbeddedKafka {
    brokers: String,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedKafka {
    /// Starts a broker with these topics.
    ///
    /// # Errors
    ///
    /// If librdkafka cannot start it, or its thread cannot start.
    pub fn start(topics: &[&str], partitions: i32) -> Result<Self, Error> {
        let (started, start) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
        // The cluster is not `Send`: it must be created, used and dropped on one thread.
        let thread = thread::Builder::new()
            .name("embedded Kafka".to_owned())
            .spawn(move || match cluster(&topics, partitions) {
                Ok(cluster) => {
                    let sent = started.send(Ok(cluster.bootstrap_servers()));
                    // The owner never sends: this ends when the owner is dropped.
                    if sent.is_ok() {
                        let _ = stopped.recv();
                    }
                }
                // The receiver is waiting for this.
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(Error::Thread)?;
        let brokers = start.recv().unwrap_or(Err(KafkaError::Canceled))?;
        Ok(Self {
            brokers,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its `host:port`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

fn cluster(
    topics: &[String],
    partitions: i32,
) -> Result<MockCluster<'static, impl rdkafka::ClientContext + use<>>, KafkaError> {
    let cluster = MockCluster::new(1)?;
    for topic in topics {
        cluster.create_topic(topic, partitions, 1)?;
    }
    Ok(cluster)
}

impl Drop for EmbeddedKafka {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded Kafka has panicked");
        }
    }
}
