//! The deduplication window: the last accepted callbacks and what became of them.
//!
//! The key is the signature bytes and the body, not timestamp and nonce: digits can move between
//! those two without changing the signature.
//!
//! The entries are a queue in the order of acceptance, with an index. An entry takes 51 bytes. A
//! pending one also has its ticket, in a second queue. Every insertion looks at a few tickets and
//! replaces each settled one by its event id.
//!
//! The cost of a callback does not depend on the number of entries: the index has a fixed number of
//! buckets, the queues grow by a chunk, and an insertion looks at a fixed number of old entries.
//! With 560,000 entries, lookup and insertion take 1 to 2 µs together, 10 µs at the 99.9th
//! percentile. After a burst the allocator returns memory to the system, which may take 1 ms once.

mod chunks;
mod index;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::Accepted;
use crate::callback::Signature;
use crate::delivery::{Settled, Ticket};
use chunks::{Chunks, Place};
use index::{By, Index, Next};

/// The deduplication window holds every event for at least this long. The sender retries for 62 s.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(70);

/// The deduplication window holds at least this many of the last events, however old they are.
pub const DEDUP_WINDOW_EVENTS: usize = 100_000;

/// The memory of the deduplication window, including tickets and the index. If it does not suffice,
/// the oldest events that are not pending are removed. It holds 560,000 events, which is 70 s at
/// 8,000/s. A pending event takes 128 bytes more until it is answered, so with 88,000 pending ones
/// it holds 380,000.
pub const MAX_DEDUP_BYTES: usize = 32 * 1024 * 1024;

/// Above this, answered events are removed early. An insertion looks at no more than
/// [`EVICTION_STEPS`] entries, so while it passes pending ones, the window grows by a sixteenth of
/// their number. A pending event is never removed, but the queues hold at most
/// [`MAX_VOLATILE_RECORDS`](crate::delivery::MAX_VOLATILE_RECORDS) of them, so it grows by 8,192
/// entries. The 2 MiB hold these even if all of them are pending.
const EVICTION_BYTES: usize = MAX_DEDUP_BYTES - 2 * 1024 * 1024;

/// How many of the oldest entries an insertion removes, or moves because they are pending, at most.
const EVICTION_STEPS: usize = 16;

/// How many of them it removes at most. More than one, so that the window shrinks after a burst.
const MAX_REMOVALS: usize = 4;

/// How many tickets an insertion looks at. With four, settled tickets are at most a third as many
/// as pending ones.
const SETTLE_STEPS: usize = 4;

/// How exactly the time of an entry is known.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// The memory of a ticket: with the counts of its `Arc`, as an allocator rounds it.
const TICKET_BYTES: usize = (size_of::<Ticket>() + 2 * size_of::<usize>()).next_multiple_of(16);

/// Recognises a callback, in few bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The first half of SHA-1 over body and signature. To find a body with the same half takes
    /// 2^128 attempts. Two such bodies take 2^64, and harm only their author.
    callback: [u8; 16],
    /// The first bytes of the signature. Without a secret nobody can choose them. Two signatures
    /// that share them by chance only mark a record as a reuse.
    signature: [u8; 8],
}

impl Key {
    pub(super) fn new(signature: Signature, body: &[u8]) -> Self {
        let Signature(signature) = signature;
        let digest: [u8; 20] = Sha1::new()
            .chain_update(body)
            .chain_update(signature)
            .finalize()
            .into();
        Self {
            callback: first_bytes(&digest),
            signature: first_bytes(&signature),
        }
    }

    fn is_equal(&self, by: By, other: &Self) -> bool {
        match by {
            By::Key => self == other,
            By::Signature => self.signature == other.signature,
        }
    }
}

fn first_bytes<const COUNT: usize>(bytes: &[u8; 20]) -> [u8; COUNT] {
    const { assert!(COUNT <= 20) };
    *bytes.first_chunk().unwrap_or(&[0; COUNT])
}

/// An accepted callback.
#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    next: Next,
    state: State,
    /// Its signature was accepted with another body before.
    is_reuse: bool,
    /// It was the oldest entry while it was pending, so it stands behind later ones.
    is_moved: bool,
}

const _: () = assert!(size_of::<Entry>() == 51);

#[derive(Clone, Copy)]
enum State {
    /// Its ticket is at this place of [`DedupWindow::tickets`].
    Pending(Place),
    /// It is durable, with this event id.
    Durable(Uuid),
    Refused,
}

impl From<Settled> for State {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Durable(_, id) => Self::Durable(id),
            Settled::Refused => Self::Refused,
        }
    }
}

/// The ticket of an entry.
struct EntryTicket {
    /// `None` once the entry has its outcome.
    ticket: Option<Arc<Ticket>>,
    entry: Place,
}

/// The window.
pub(super) struct DedupWindow {
    entries: Chunks<Entry>,
    tickets: Chunks<EntryTicket>,
    index: Index,
    /// How many entries are moved.
    moved: usize,
    /// When the newest entry was added.
    latest: Option<Instant>,
    /// How many entries were added until a time, about once a second.
    marks: VecDeque<(Instant, u64)>,
    /// How many entries were added until [`DEDUP_WINDOW`] ago.
    added_before_window: u64,
    min_events: usize,
    eviction_bytes: usize,
}

impl DedupWindow {
    /// What is known of the same callback, if it was accepted before and is durable or pending. A
    /// refused one counts as new.
    pub(super) fn find(&self, key: &Key) -> Option<Accepted> {
        match self.index.find(&self.entries, By::Key, key)?.state {
            State::Pending(place) => {
                let ticket = self.tickets.get(place)?.ticket.as_ref()?;
                match ticket.get() {
                    None => Some(Accepted::Pending(Arc::clone(ticket))),
                    Some(Settled::Durable(_, id)) => Some(Accepted::Duplicate(*id)),
                    Some(Settled::Refused) => None,
                }
            }
            State::Durable(id) => Some(Accepted::Duplicate(id)),
            State::Refused => None,
        }
    }

    /// Whether this signature was accepted before with another body.
    pub(super) fn has_other_body(&self, key: &Key) -> bool {
        let last = self.index.find(&self.entries, By::Signature, key);
        last.is_some_and(|last| last.key != *key || last.is_reuse)
    }

    /// Adds a callback that is accepted `now`, and removes some that are no longer needed. Returns
    /// whether one was removed that is still needed, for lack of memory.
    pub(super) fn insert(&mut self, key: Key, ticket: Arc<Ticket>, now: Instant) -> bool {
        self.mark(now);
        let place = self.tickets.push_back(EntryTicket {
            ticket: Some(ticket),
            entry: self.entries.next_place(),
        });
        self.push(Entry {
            key,
            next: Next::NONE,
            state: State::Pending(place),
            is_reuse: false,
            is_moved: false,
        });
        self.settle();
        self.evict()
    }

    fn mark(&mut self, now: Instant) {
        if let Some(latest) = self.latest.replace(now) {
            let since = |time: &Instant| now.saturating_duration_since(*time);
            if (self.marks.back()).is_none_or(|(last, _)| since(last) >= MARK_INTERVAL) {
                self.marks.push_back((latest, self.entries.end()));
            }
            while let Some((time, added)) = self.marks.front()
                && since(time) > DEDUP_WINDOW
            {
                self.added_before_window = *added;
                self.marks.pop_front();
            }
        }
    }

    fn push(&mut self, mut entry: Entry) {
        entry.is_reuse |= self.has_other_body(&entry.key);
        let place = self.entries.push_back(entry);
        for by in [By::Key, By::Signature] {
            self.index.link(&mut self.entries, by, place);
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let Self { entries, index, .. } = self;
        let (&Entry { key, .. }, oldest) = (entries.front()?, entries.first_place());
        for by in [By::Key, By::Signature] {
            index.unlink(entries, by, &key, |place, _| place == oldest);
        }
        entries.pop_front()
    }

    /// Replaces settled tickets by their outcome.
    fn settle(&mut self) {
        for _ in 0..SETTLE_STEPS {
            let Some(EntryTicket { ticket, entry }) = self.tickets.pop_front() else {
                return;
            };
            let Some(ticket) = ticket else {
                continue;
            };
            let state = match ticket.get() {
                Some(settled) => (*settled).into(),
                None => State::Pending(self.tickets.push_back(EntryTicket {
                    ticket: Some(ticket),
                    entry,
                })),
            };
            if let Some(entry) = self.entries.get_mut(entry) {
                entry.state = state;
            }
        }
    }

    fn evict(&mut self) -> bool {
        let (mut removals, mut is_early) = (0, false);
        for _ in 0..EVICTION_STEPS {
            let is_needed = self.is_oldest_needed();
            if is_needed && self.bytes() <= self.eviction_bytes {
                break;
            }
            let Some(mut oldest) = self.pop() else {
                break;
            };
            self.moved -= usize::from(oldest.is_moved);
            if self.relocate_ticket(&oldest) {
                oldest.is_moved = true;
                self.moved += 1;
                self.push(oldest);
                continue;
            }
            is_early |= is_needed;
            removals += 1;
            if removals == MAX_REMOVALS {
                break;
            }
        }
        is_early
    }

    /// Whether the oldest entry is one of the last 70 s or of the last 100,000. All entries that
    /// are not moved stand in the order of acceptance, and were accepted after every entry in front
    /// of them.
    fn is_oldest_needed(&self) -> bool {
        let Some(oldest) = self.entries.front() else {
            return true;
        };
        let later = self.entries.len() - self.moved - usize::from(!oldest.is_moved);
        later < self.min_events || self.entries.first() >= self.added_before_window
    }

    /// Points the ticket of an entry to the place of the next entry. Returns whether the ticket is
    /// pending; a settled one is released.
    fn relocate_ticket(&mut self, entry: &Entry) -> bool {
        let State::Pending(place) = entry.state else {
            return false;
        };
        let next = self.entries.next_place();
        let Some(EntryTicket { ticket, entry }) = self.tickets.get_mut(place) else {
            return false;
        };
        *entry = next;
        ticket.take_if(|ticket| ticket.get().is_some());
        ticket.is_some()
    }

    /// The memory that the window takes.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + Index::BYTES
            + self.entries.bytes()
            + self.tickets.bytes()
            + self.tickets.len() * TICKET_BYTES
            + self.marks.capacity() * size_of::<(Instant, u64)>()
    }
}

impl Default for DedupWindow {
    fn default() -> Self {
        Self {
            entries: Chunks::default(),
            tickets: Chunks::default(),
            index: Index::default(),
            moved: 0,
            latest: None,
            marks: VecDeque::new(),
            added_before_window: 0,
            min_events: DEDUP_WINDOW_EVENTS,
            eviction_bytes: EVICTION_BYTES,
        }
    }
}

#[cfg(test)]
mod tests;
