//! The connections of a port: how many there may be, how long the other side may take, and which
//! one is closed if a new one needs its slot.
//!
//! A connection is either being served, because its request is complete, or waited for. Outside the
//! reserve, one that is being served is never closed. One that is waited for has a time limit. If
//! all slots are taken, the connection waited for longest is closed, idle ones first.
//!
//! There is also a reserve of slots. A `before_send_msg` must be answered even if all connections
//! are being served because their callbacks wait for Kafka, and its path is known only once its
//! head has been read. A connection gets a slot of the reserve if no other one has been waited for
//! longer than [`IDLE_GRACE`]. In the reserve, a request that waits for Kafka gives way too: it is
//! answered 503 if a newer connection needs its slot. So a new connection is always admitted, and
//! is closed only after as many newer ones as the reserve has slots.

mod limits;
mod listener;
mod opening;
mod table;
mod watched;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::senders::Networks;
use crate::metrics::{CloseReason, ConnectionMetrics};
use limits::counted_as;
pub use limits::{ConnectionLimits, MAX_RESERVED_CONNECTIONS};
pub(crate) use listener::listen;
pub(super) use listener::{Listener, Peer, TrackedAcceptor, TrackedService};
use opening::Opening;
pub(super) use opening::Protocol;
use table::{QueueKind, Table};

/// The time for a TLS handshake, and for the head of a request from its first byte. A sender's head
/// arrives in one packet.
pub(super) const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// A connection counts as idle after this time only: its request may be on the way.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long a new connection waits before it looks for a slot again, if nothing notifies it.
/// Becoming idle does not notify, so that a client can send its next request first.
const ADMIT_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The connections of one port.
pub(super) struct Connections {
    limits: ConnectionLimits,
    trusted_proxies: Networks,
    table: Mutex<Table>,
    /// Notified when a slot is free, or when a displaced connection keeps its slot.
    retry: Notify,
    metrics: ConnectionMetrics,
}

/// One connection, shared by its stream and its requests.
pub(crate) struct Connection {
    /// The other end of the TCP connection, which may be a proxy.
    pub(super) address: IpAddr,
    id: u64,
    /// Whether its slot is one of the reserve.
    is_reserve: bool,
    /// In the reserve: notified when its slot is needed.
    gives_way: Notify,
    port: Arc<Connections>,
    state: Mutex<ConnectionState>,
}

struct ConnectionState {
    phase: Phase,
    /// When the service began to wait; if a request is under way, when that began.
    since: Instant,
    /// Its slot is needed.
    is_displaced: bool,
    /// It was displaced during this request, and bytes came: it is not displaced again.
    has_stayed: bool,
    /// Its stream is gone.
    is_closed: bool,
    /// Why the service closes it.
    closed_for: Option<CloseReason>,
    /// The head of a request was complete.
    has_requested: bool,
    /// Its first bytes, before TLS is removed.
    opening: Opening,
    /// Its entry in a wait queue.
    queued: Option<(QueueKind, Instant)>,
    /// Wakes the task that waits for bytes.
    waker: Option<Waker>,
}

/// What the service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next request.
    Idle,
    /// The rest of a handshake or of a head.
    Head,
    /// The rest of a body, which has a deadline of its own.
    Body,
    /// Nothing: the request is complete and will be answered.
    Serving,
}

/// What happens to a connection on which no bytes move.
enum Expiry {
    /// It is checked again then.
    WaitUntil(Instant),
    /// It is closed now.
    Close(CloseReason),
}

impl Connections {
    pub(super) fn new(
        limits: ConnectionLimits,
        trusted_proxies: Networks,
        metrics: ConnectionMetrics,
    ) -> Self {
        Self {
            limits,
            trusted_proxies,
            table: Mutex::default(),
            retry: Notify::new(),
            metrics,
        }
    }

    /// Waits for a slot for a connection from this address. `None` if the address has too many.
    ///
    /// Waits only while a displaced connection closes; without a reserve also while all are being
    /// served, which ends with the answer deadline. To be called by one task only.
    async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        loop {
            match self.try_admit(address) {
                Admission::Admitted(slot) => return Some(slot),
                Admission::Refused => {
                    self.metrics.closed_by_us(CloseReason::PerAddress);
                    return None;
                }
                Admission::Full => {}
            }
            tokio::time::timeout(ADMIT_RETRY_PAUSE, self.retry.notified())
                .await
                .ok();
        }
    }

    fn try_admit(self: &Arc<Self>, address: IpAddr) -> Admission {
        let mut table = self.table.lock();
        let sender = counted_as(address);
        let from_there = table.by_address.get(&sender).copied().unwrap_or_default();
        let limit = (self.limits.per_address).filter(|_| !self.trusted_proxies.contain(address));
        if limit.is_some_and(|limit| from_there >= limit) {
            return Admission::Refused;
        }
        let Some(is_reserve) = table.find_slot(&self.limits) else {
            return Admission::Full;
        };
        let id = table.open(sender, is_reserve);
        let port = Arc::clone(self);
        let connection = Arc::new(Connection::new(address, id, is_reserve, port));
        table.requeue(&connection);
        drop(table);
        self.metrics.opened();
        Admission::Admitted(Slot { connection })
    }
}

enum Admission {
    Admitted(Slot),
    Refused,
    Full,
}

impl ConnectionState {
    /// The queue in which this connection belongs, and since when. `None` if it cannot be
    /// displaced.
    fn queue_key(&self, is_reserve: bool) -> Option<(QueueKind, Instant)> {
        let kind = match self.phase {
            _ if self.is_displaced || self.has_stayed || self.is_closed => return None,
            Phase::Idle => QueueKind::Idle,
            Phase::Head | Phase::Body => QueueKind::Busy,
            Phase::Serving if is_reserve => QueueKind::Busy,
            Phase::Serving => return None,
        };
        Some((kind, self.since))
    }
}

/// One of the port's connections, held by its stream. Dropping it frees the slot.
struct Slot {
    connection: Arc<Connection>,
}

impl Slot {
    /// Decides what happens while no bytes come from the other side. If that is to wait, the waker
    /// is called if the slot is needed.
    fn expiry(&self, waker: &Waker) -> Expiry {
        let mut state = self.connection.state.lock();
        // A request that is complete is answered first.
        if state.is_displaced && state.phase != Phase::Serving {
            return Expiry::Close(CloseReason::Displaced);
        }
        match &state.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => state.waker = Some(waker.clone()),
        }
        let now = Instant::now();
        let idle = self.connection.port.limits.idle;
        // Nothing is polled when the connection becomes idle, so check within the shortest time
        // that an idle connection can have.
        let again = now + idle;
        let (until, reason) = match state.phase {
            Phase::Idle => (state.since + idle, CloseReason::Idle),
            Phase::Head => (state.since + HEAD_DEADLINE, CloseReason::SlowHead),
            // Bounded by the body's deadline and by the answer deadline.
            Phase::Body | Phase::Serving => return Expiry::WaitUntil(again),
        };
        if until <= now {
            return Expiry::Close(reason);
        }
        Expiry::WaitUntil(until.min(again))
    }

    /// Counts a connection that the service closes.
    fn count_close(&self, reason: CloseReason) {
        self.connection.state.lock().closed_for = Some(reason);
        self.connection.port.metrics.closed_by_us(reason);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Connection { address, port, .. } = &*self.connection;
        let mut table = port.table.lock();
        let mut state = self.connection.state.lock();
        table.dequeue(&self.connection, &mut state);
        table.leaving -= usize::from(std::mem::take(&mut state.is_displaced));
        state.is_closed = true;
        drop(state);
        table.close(counted_as(*address), self.connection.is_reserve);
        drop(table);
        port.metrics.closed();
        port.retry.notify_one();
    }
}

impl Connection {
    fn new(address: IpAddr, id: u64, is_reserve: bool, port: Arc<Connections>) -> Self {
        Self {
            address,
            id,
            is_reserve,
            gives_way: Notify::new(),
            port,
            state: Mutex::new(ConnectionState {
                phase: Phase::Idle,
                since: Instant::now(),
                is_displaced: false,
                has_stayed: false,
                is_closed: false,
                closed_for: None,
                has_requested: false,
                opening: Opening::default(),
                queued: None,
                waker: None,
            }),
        }
    }

    /// Takes note of bytes from the other side. The first ones after a silence begin a request.
    /// They may also complete one, which is only known once they are parsed, so a displaced
    /// connection stays. In the reserve only its first request goes on; otherwise a client that
    /// never stops sending would keep its slot. False if the connection is to be closed.
    fn bytes_received(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        state.opening.record(bytes);
        let begins = state.phase == Phase::Idle;
        if begins {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
        let is_displaced = state.is_displaced;
        let is_over = begins && state.has_requested && self.is_reserve;
        drop(state);
        if is_displaced {
            self.stay();
        }
        !(is_displaced && is_over)
    }

    /// The head of a request is complete.
    fn head_received(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Body;
        state.has_requested = true;
    }

    /// The protocol of the client, before TLS is removed.
    pub(super) fn protocol(&self) -> Protocol {
        self.state.lock().opening.protocol()
    }

    /// The request is complete. The connection is not closed before its answer, except that a
    /// request in the reserve [gives way](Self::gives_way).
    pub(super) fn request_received(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.phase = Phase::Serving;
        let is_displaced = state.is_displaced;
        drop(state);
        if is_displaced {
            self.stay();
        }
    }

    /// The handshake is done, or the request is answered.
    fn mark_idle(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.phase = Phase::Idle;
        state.since = Instant::now();
        state.has_stayed = false;
        let is_queued = matches!(state.queued, Some((QueueKind::Idle, _)));
        drop(state);
        if !is_queued {
            self.port.table.lock().requeue(self);
        }
    }

    /// Asks the connection to close, unless it has moved on since then.
    fn displace(&self, since: Instant) -> bool {
        let mut state = self.state.lock();
        if state
            .queue_key(self.is_reserve)
            .is_none_or(|(_, now_since)| now_since != since)
        {
            return false;
        }
        state.is_displaced = true;
        self.gives_way.notify_one();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        true
    }

    /// Completes when a newer connection needs the slot. Never completes outside the reserve.
    pub(super) async fn gives_way(&self) {
        match self.is_reserve {
            true => self.gives_way.notified().await,
            false => std::future::pending().await,
        }
    }

    /// Undoes a displacement, because bytes have come. Another connection has to go.
    fn stay(self: &Arc<Self>) {
        if self.is_reserve {
            return;
        }
        let mut table = self.port.table.lock();
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_displaced) {
            state.has_stayed = true;
            table.leaving -= 1;
        }
        drop(state);
        drop(table);
        self.port.retry.notify_one();
    }
}

#[cfg(test)]
mod tests;
