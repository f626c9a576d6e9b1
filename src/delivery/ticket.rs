//! The outcome of a record, for every handler that waits for it.

use tokio::sync::SetOnce;
use uuid::Uuid;

/// Resolves once it is known what became of a record. Resent callbacks wait on the same ticket.
pub type Ticket = SetOnce<Settled>;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The event is stored durably, as a record or a dead letter with this id.
    Durable(Durability, Uuid),
    /// It is not stored: Kafka rejects even its dead letter, or there was no space for one.
    Refused,
}

/// Where a record is stored durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In its topic, acknowledged by all in-sync replicas.
    Published,
    /// On this machine's disk, synced. It will be published when Kafka is back.
    Spooled,
    /// In the dead-letter topic, or on this machine's disk on its way there.
    DeadLettered,
}

/// Resolves the ticket.
///
/// # Panics
///
/// If the ticket is resolved already. Each record leaves its queue once, and a dead letter takes
/// over the ticket of its event, so that would be a bug.
pub(super) fn settle(ticket: &Ticket, settled: Settled) {
    if settled == Settled::Refused {
        tracing::error!(
            "Kafka rejects an event and its dead letter, or there is no space for the dead letter; the event depends on the sender's retries. Check max.message.bytes of the dead-letter topic"
        );
    }
    ticket
        .set(settled)
        .expect("a record settles its ticket once");
}
