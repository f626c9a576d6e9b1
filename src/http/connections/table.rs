//! Which slots are taken, and which connection gives up its slot to a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::limits::ConnectionLimits;
use super::{Connection, ConnectionState, IDLE_GRACE};

/// The connections of a port. Lock order: the table, then the state of a connection.
#[derive(Default)]
pub(super) struct Table {
    next_id: u64,
    /// Connections that have been displaced and are not closed yet.
    pub(super) leaving: usize,
    pub(super) by_address: HashMap<IpAddr, usize>,
    pub(super) regular: Slots,
    pub(super) reserve: Slots,
}

/// Slots, and the connections in them that can be displaced.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) open: usize,
    pub(super) idle: WaitQueue,
    pub(super) busy: WaitQueue,
}

/// Connections by the time since which the service waits for the other side.
///
/// An entry may be outdated: a connection that has moved on since is requeued only when a search
/// comes to it, so that ordinary requests do not lock the table. Its correct position is never
/// before its entry, because only becoming idle could move it forward, and
/// [`Connection::mark_idle`] requeues.
type WaitQueue = BTreeMap<(Instant, u64), Arc<Connection>>;

/// The two wait queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    /// No request is under way.
    Idle,
    /// A handshake or a request has begun.
    Busy,
}

impl Table {
    /// Whether a new connection gets a slot of the reserve. `None` if there is no slot yet; one
    /// connection is then displaced, if that is possible.
    pub(super) fn find_slot(&mut self, limits: &ConnectionLimits) -> Option<bool> {
        if self.regular.open < limits.connections {
            return Some(false);
        }
        if self.leaving > 0 || self.displace_one(&[false], true) {
            return None;
        }
        if self.reserve.open < limits.reserved {
            return Some(true);
        }
        self.displace_one(&[false, true], false);
        None
    }

    /// Counts a new connection. Returns its number.
    pub(super) fn open(&mut self, sender: IpAddr, is_reserve: bool) -> u64 {
        self.slots(is_reserve).open += 1;
        *self.by_address.entry(sender).or_default() += 1;
        self.next_id += 1;
        self.next_id
    }

    /// No longer counts a connection.
    pub(super) fn close(&mut self, sender: IpAddr, is_reserve: bool) {
        self.slots(is_reserve).open -= 1;
        if let Some(count) = self.by_address.get_mut(&sender) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&sender);
            }
        }
    }

    /// Displaces the connection that has been idle for longest or, if none is idle, the one that
    /// the service has waited for longest. Does nothing if all are being served, or if `only_late`
    /// and none has been waited for longer than [`IDLE_GRACE`].
    fn displace_one(&mut self, slots: &[bool], only_late: bool) -> bool {
        loop {
            let mut longest = |kind| {
                let all = slots
                    .iter()
                    .filter_map(|slots| self.longest_waiting(*slots, kind));
                all.min_by_key(|(_, since)| *since)
            };
            let idle = longest(QueueKind::Idle);
            let is_late = |since: Instant| since.elapsed() >= IDLE_GRACE;
            let chosen = match idle {
                Some((_, since)) if is_late(since) => idle,
                _ => {
                    let both = [idle, longest(QueueKind::Busy)];
                    both.into_iter().flatten().min_by_key(|(_, since)| *since)
                }
            };
            let Some((connection, since)) =
                chosen.filter(|(_, since)| !only_late || is_late(*since))
            else {
                return false;
            };
            // It may have moved on this moment.
            if connection.displace(since) {
                self.leaving += 1;
                self.requeue(&connection);
                return true;
            }
        }
    }

    fn longest_waiting(
        &mut self,
        is_reserve: bool,
        kind: QueueKind,
    ) -> Option<(Arc<Connection>, Instant)> {
        loop {
            let queue = self.slots(is_reserve).queue(kind);
            let (&(since, _), connection) = queue.first_key_value()?;
            let connection = Arc::clone(connection);
            let key = connection.state.lock().queue_key(is_reserve);
            if key == Some((kind, since)) {
                return Some((connection, since));
            }
            self.requeue(&connection);
        }
    }

    /// Moves a connection to its correct position, if it has one.
    pub(super) fn requeue(&mut self, connection: &Arc<Connection>) {
        let mut state = connection.state.lock();
        self.dequeue(connection, &mut state);
        state.queued = state.queue_key(connection.is_reserve);
        if let Some((kind, since)) = state.queued {
            let queue = self.slots(connection.is_reserve).queue(kind);
            queue.insert((since, connection.id), Arc::clone(connection));
        }
    }

    pub(super) fn dequeue(&mut self, connection: &Connection, state: &mut ConnectionState) {
        if let Some((kind, since)) = state.queued.take() {
            let queue = self.slots(connection.is_reserve).queue(kind);
            queue.remove(&(since, connection.id));
        }
    }

    fn slots(&mut self, is_reserve: bool) -> &mut Slots {
        match is_reserve {
            false => &mut self.regular,
            true => &mut self.reserve,
        }
    }
}

impl Slots {
    fn queue(&mut self, kind: QueueKind) -> &mut WaitQueue {
        match kind {
            QueueKind::Idle => &mut self.idle,
            QueueKind::Busy => &mut self.busy,
        }
    }
}
