//! Who may hold a connection, how long we wait for the other side, and who goes when there are too
//! many.
//!
//! A connection is at every moment either ours to act on, because a whole request waits for its
//! answer, or the other side's, because we wait for bytes. One that is ours is never cut off. What is
//! theirs has a time limit, and where all places are taken, who has kept us waiting longest gives
//! theirs up to who has just come.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::networks::Networks;
use crate::metrics::{ConnectionMetrics, Cut};

/// How many connections there may be, and how long they may be silent.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// At once.
    pub connections: usize,
    /// At once from one address, but for trusted proxies; none for no limit.
    pub per_address: Option<usize>,
    /// Without a byte, from its start or since the last answer.
    pub idle: Duration,
}

/// The head of a request has so long from its first byte. A sender's comes in one packet.
pub(super) const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// A connection that is younger is not idle yet: its request may be on the line.
const GRACE: Duration = Duration::from_secs(1);

/// Where nobody leaves although somebody was asked to, the others are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// So many are chosen at once to give up their places, so that a flood does not mean one look at every
/// connection for each of its own.
const CHOSEN_AT_ONCE: usize = 64;

/// The connections of one port.
pub(super) struct Connections {
    limits: ConnectionLimits,
    trusted_proxies: Networks,
    table: Mutex<Table>,
    freed: Notify,
    metrics: ConnectionMetrics,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    by_address: HashMap<IpAddr, usize>,
    /// Who is asked next to give up their place, the last one first, and since when they were waited for.
    chosen: Vec<(Arc<Connection>, Instant)>,
    chosen_at: Option<Instant>,
}

/// One connection, as its stream and its requests know it.
pub(super) struct Connection {
    /// Of the other end of the TCP connection: a proxy's, where there is one.
    pub(super) address: IpAddr,
    state: Mutex<State>,
}

struct State {
    turn: Turn,
    /// When it became their turn; of a request that is under way, when it began.
    since: Instant,
    /// Its place is needed.
    unwanted: bool,
    /// Of the task that waits for their bytes.
    waker: Option<Waker>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Theirs: no request is under way.
    Idle,
    /// Theirs: a handshake or a request has begun.
    Head,
    /// Theirs: its body has a deadline of its own.
    Body,
    /// Ours: the request waits for its answer.
    Ours,
}

/// What is to become of a connection whose other side is silent.
pub(super) enum Verdict {
    /// It stays until then, and is judged again.
    WaitUntil(Instant),
    /// It is cut off.
    Cut(Cut),
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
            freed: Notify::new(),
            metrics,
        }
    }

    /// A place for a connection from this address, once there is one; none where the address has too
    /// many already.
    ///
    /// It waits only while every connection is ours to act on, which ends with the answer deadline.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        loop {
            let freed = self.freed.notified();
            match self.try_admit(address) {
                Admission::Admitted(place) => return Some(place),
                Admission::Refused => {
                    self.metrics.cut(Cut::PerAddress);
                    return None;
                }
                Admission::Full => {}
            }
            // Whoever was asked to leave may have become ours to act on, and so may everybody.
            tokio::time::timeout(LOOK_AGAIN, freed).await.ok();
        }
    }

    fn try_admit(self: &Arc<Self>, address: IpAddr) -> Admission {
        let mut table = self.table();
        let sender = counted_as(address);
        let from_there = table.by_address.get(&sender).copied().unwrap_or_default();
        let limit = (self.limits.per_address).filter(|_| !self.trusted_proxies.contain(address));
        if limit.is_some_and(|limit| from_there >= limit) {
            return Admission::Refused;
        }
        if table.open.len() >= self.limits.connections {
            table.displace_one();
            return Admission::Full;
        }
        let connection = Arc::new(Connection::new(address));
        let key = table.next;
        table.next += 1;
        table.open.insert(key, Arc::clone(&connection));
        *table.by_address.entry(sender).or_default() += 1;
        drop(table);
        self.metrics.opened();
        Admission::Admitted(Place {
            connections: Arc::clone(self),
            connection,
            key,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of IPv6 has all that share its first 64 bits.
fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

enum Admission {
    Admitted(Place),
    Refused,
    Full,
}

impl Table {
    /// Asks whoever has kept us waiting longest to leave: of those that are idle first.
    fn displace_one(&mut self) {
        loop {
            let now = Instant::now();
            // Others may have kept us waiting for longer by then.
            if self.chosen.is_empty() || self.chosen_at.is_none_or(|at| now - at > LOOK_AGAIN) {
                self.choose(now);
                self.chosen_at = Some(now);
            }
            let Some((connection, since)) = self.chosen.pop() else {
                return;
            };
            if connection.leave(since) {
                return;
            }
        }
    }

    fn choose(&mut self, now: Instant) {
        let mut waited_for: Vec<_> = (self.open.values())
            .filter_map(|connection| {
                let (turn, since) = connection.waited_for()?;
                let is_idle = turn == Turn::Idle && now.duration_since(since) >= GRACE;
                Some((!is_idle, since, connection))
            })
            .collect();
        waited_for.sort_unstable_by_key(|(is_busy, since, _)| (*is_busy, *since));
        waited_for.truncate(CHOSEN_AT_ONCE);
        let chosen = waited_for.into_iter().rev();
        self.chosen = chosen
            .map(|(_, since, connection)| (Arc::clone(connection), since))
            .collect();
    }
}

/// A connection's place among the others; free again when it is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
    key: u64,
}

impl Place {
    /// What is to become of it now that nothing comes from the other side. Where that is to wait, the
    /// waker is called when its place is needed.
    pub(super) fn verdict(&self, waker: &Waker) -> Verdict {
        let mut state = self.connection.state();
        if state.unwanted {
            return Verdict::Cut(Cut::Displaced);
        }
        match &state.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => state.waker = Some(waker.clone()),
        }
        let now = Instant::now();
        let idle = self.connections.limits.idle;
        // Nobody asks when it becomes idle, which it does later than now.
        let again = now + idle;
        let (until, cut) = match state.turn {
            Turn::Idle => (state.since + idle, Cut::Idle),
            Turn::Head => (state.since + HEAD_DEADLINE, Cut::SlowHead),
            // Others see to its end.
            Turn::Body | Turn::Ours => return Verdict::WaitUntil(again),
        };
        if until <= now {
            return Verdict::Cut(cut);
        }
        Verdict::WaitUntil(until.min(again))
    }

    /// It is cut off, or was.
    pub(super) fn cut(&self, why: Cut) {
        self.connections.metrics.cut(why);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may be among the chosen, and who is gone has no place to give up.
        self.connection.state().unwanted = true;
        let mut table = self.connections.table();
        table.open.remove(&self.key);
        let address = counted_as(self.connection.address);
        if let Some(count) = table.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&address);
            }
        }
        drop(table);
        self.connections.metrics.closed();
        self.connections.freed.notify_waiters();
    }
}

impl Connection {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            state: Mutex::new(State {
                turn: Turn::Idle,
                since: Instant::now(),
                unwanted: false,
                waker: None,
            }),
        }
    }

    /// Bytes have come. The first after a silence begin a request, and who speaks in time stays: these
    /// may be the last ones of a request, which nobody knows before they are read.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        state.unwanted = false;
        if state.turn == Turn::Idle {
            state.turn = Turn::Head;
            state.since = Instant::now();
        }
    }

    /// A request's head is whole; its body comes now, for which somebody else sets the deadline.
    pub(super) fn head_is_whole(&self) {
        self.state().turn = Turn::Body;
    }

    /// A request is whole, and is not cut off any more.
    pub(super) fn request_is_whole(&self) {
        let mut state = self.state();
        state.turn = Turn::Ours;
        state.unwanted = false;
    }

    /// The handshake is done, or the request answered.
    pub(super) fn is_idle(&self) {
        let mut state = self.state();
        state.turn = Turn::Idle;
        state.since = Instant::now();
    }

    /// What is waited for, and since when; nothing where it is ours to act.
    fn waited_for(&self) -> Option<(Turn, Instant)> {
        let state = self.state();
        (state.turn != Turn::Ours && !state.unwanted).then_some((state.turn, state.since))
    }

    /// Asks it to leave, if it is still the same that it is waited for.
    fn leave(&self, since: Instant) -> bool {
        let mut state = self.state();
        if state.turn == Turn::Ours || state.since != since || state.unwanted {
            return false;
        }
        state.unwanted = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
