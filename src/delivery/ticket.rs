//! What became of a record, for everybody who waits to hear it.

use tokio::sync::SetOnce;
use uuid::Uuid;

/// What waits for a record: every handler that has been asked about it.
pub type Ticket = SetOnce<Settled>;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The event is safe, as a record or a dead letter with this id.
    Safe(Safe, Uuid),
    /// Kafka refuses even its dead letter, or there was no room for one: it is not safe.
    Refused,
}

/// Where a record is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// In the topic, acknowledged by all in-sync replicas.
    Published,
    /// On this machine's disk, synced; it will be in the topic when Kafka is back.
    Spooled,
    /// In the dead-letter topic, acknowledged likewise, or on this machine's disk on its way there.
    DeadLettered,
}

/// Tells everybody who waits.
pub(super) fn settle(ticket: &Ticket, settled: Settled) {
    if settled == Settled::Refused {
        tracing::error!(
            "Kafka refuses an event and its dead letter, or there is no room for that: it is left to the sender's retries. Look at the limits of the dead-letter topic"
        );
    }
    // A ticket is settled once: each of its records leaves the queue once, and the dead letter of a
    // refused record takes its ticket over.
    ticket
        .set(settled)
        .expect("a record settles its ticket once");
}
