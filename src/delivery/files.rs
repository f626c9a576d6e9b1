//! How many files the connections to Kafka may have open.

use rustix::process::{Resource, getrlimit};

use super::distance::SHARDS;

/// With a lower limit of open files, all records go through one shard, so that connections to Kafka
/// leave some files to senders.
pub const FEW_OPEN_FILES: u64 = 1024;

/// The open files of one client of librdkafka: for each broker a socket and a pipe, and a pipe for
/// itself. For three brokers, with some room for names that lead to the same broker.
const CLIENT_FILES: u64 = 16;

/// The clients that are not shard producers: three other producers, one that inspects the topics,
/// and two that are being replaced.
const OTHER_CLIENTS: u64 = 6;

/// The shards that may be in use if the process may open this many files.
fn shards(limit: u64) -> usize {
    if limit < FEW_OPEN_FILES { 1 } else { SHARDS }
}

/// The shards that may be in use in this process.
pub(super) fn shards_allowed() -> usize {
    shards(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// The most open files of connections to Kafka, if the process may open this many.
pub fn max_kafka_files(limit: u64) -> u64 {
    (shards(limit) as u64 + OTHER_CLIENTS) * CLIENT_FILES
}
