//! The deduplication window: the last accepted callbacks and their tickets.
//!
//! The key is the twenty signature bytes and the digest of the body, not timestamp and nonce:
//! digits can move between those two without changing the signature.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use sha1::{Digest, Sha1};

use crate::callback::Signature;
use crate::delivery::{Settled, Ticket};

/// The size of the deduplication window. Pending events are never removed, so many of them can make
/// it larger.
pub const DEDUP_WINDOW_EVENTS: usize = 100_000;

/// Distinguishes two bodies.
type BodyDigest = [u8; 20];

/// The digest of a body.
pub(super) fn digest(body: &[u8]) -> BodyDigest {
    Sha1::digest(body).into()
}

/// The last events, oldest first, with an index by signature.
#[derive(Default)]
pub(super) struct DedupWindow {
    events: VecDeque<Seen>,
    /// How many events have been removed: the position of the front.
    first: u64,
    index: HashTable<u64>,
    hasher: DefaultHashBuilder,
}

/// An accepted callback.
struct Seen {
    signature: Signature,
    body: BodyDigest,
    ticket: Arc<Ticket>,
}

impl DedupWindow {
    /// The ticket of the same callback, if it was accepted before and is durable or pending. A
    /// refused one counts as new.
    pub(super) fn find(&self, signature: Signature, body: BodyDigest) -> Option<Arc<Ticket>> {
        let found = self.index.find(self.hash(signature), |&position| {
            self.at(position).is_some_and(|event| {
                event.signature == signature
                    && event.body == body
                    && event.ticket.get() != Some(&Settled::Refused)
            })
        })?;
        self.at(*found).map(|event| Arc::clone(&event.ticket))
    }

    /// Whether this signature was accepted before with another body.
    pub(super) fn has_other_body(&self, signature: Signature, body: BodyDigest) -> bool {
        let other = |&position: &u64| {
            self.at(position)
                .is_some_and(|event| event.signature == signature && event.body != body)
        };
        self.index.find(self.hash(signature), other).is_some()
    }

    /// Adds a callback, and removes the oldest beyond the limit.
    pub(super) fn insert(&mut self, signature: Signature, body: BodyDigest, ticket: Arc<Ticket>) {
        self.push(Seen {
            signature,
            body,
            ticket,
        });
        // Two for each new one, so that the window shrinks again after many were pending at once;
        // not more, since all of the oldest may be pending.
        for _ in 0..2 {
            if self.events.len() > DEDUP_WINDOW_EVENTS
                && let Some(oldest) = self.remove_oldest()
                && oldest.ticket.get().is_none()
            {
                self.push(oldest);
            }
        }
    }

    fn push(&mut self, event: Seen) {
        let Self {
            events,
            first,
            index,
            hasher,
        } = self;
        let hash = hasher.hash_one(event.signature);
        events.push_back(event);
        let position = *first + events.len() as u64 - 1;
        index.insert_unique(hash, position, |&position| {
            let event = events.get((position - *first) as usize);
            event.map_or(0, |event| hasher.hash_one(event.signature))
        });
    }

    fn remove_oldest(&mut self) -> Option<Seen> {
        let oldest = self.events.pop_front()?;
        let hash = self.hash(oldest.signature);
        if let Ok(entry) = self
            .index
            .find_entry(hash, |&position| position == self.first)
        {
            entry.remove();
        }
        self.first += 1;
        Some(oldest)
    }

    fn at(&self, position: u64) -> Option<&Seen> {
        self.events.get((position - self.first) as usize)
    }

    fn hash(&self, signature: Signature) -> u64 {
        self.hasher.hash_one(signature)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::delivery::Durability;

    fn signature(number: u32) -> Signature {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Signature(bytes)
    }

    fn durable() -> Arc<Ticket> {
        let ticket = Ticket::new();
        ticket
            .set(Settled::Durable(Durability::Published, Uuid::nil()))
            .expect("new");
        Arc::new(ticket)
    }

    #[test]
    fn the_same_signature_with_another_body_is_another_event() {
        let mut window = DedupWindow::default();
        let (one, two) = (digest(b"one"), digest(b"two"));
        assert!(!window.has_other_body(signature(1), two));
        window.insert(signature(1), one, durable());
        assert!(window.has_other_body(signature(1), two));
        assert!(!window.has_other_body(signature(1), one));
        assert!(window.find(signature(1), one).is_some());
        assert!(window.find(signature(1), two).is_none());
        assert!(window.find(signature(2), one).is_none());
        window.insert(signature(1), two, durable());
        assert!(window.find(signature(1), one).is_some());
        assert!(window.find(signature(1), two).is_some());
    }

    #[test]
    fn the_window_holds_the_last_hundred_thousand_events() {
        let mut window = DedupWindow::default();
        let ticket = durable();
        let last = u32::try_from(DEDUP_WINDOW_EVENTS).expect("small");
        for number in 0..=last {
            window.insert(signature(number), digest(b""), Arc::clone(&ticket));
        }
        assert!(window.find(signature(0), digest(b"")).is_none());
        assert!(!window.has_other_body(signature(0), digest(b"other")));
        for number in [1, 2, last / 2, last] {
            assert!(
                window.find(signature(number), digest(b"")).is_some(),
                "{number}"
            );
        }
        assert_eq!(window.events.len(), DEDUP_WINDOW_EVENTS);
        assert_eq!(window.index.len(), DEDUP_WINDOW_EVENTS);
    }

    #[test]
    fn a_pending_event_is_never_removed() {
        let mut window = DedupWindow::default();
        let pending = Arc::new(Ticket::new());
        window.insert(signature(0), digest(b""), Arc::clone(&pending));
        let ticket = durable();
        let last = 3 * u32::try_from(DEDUP_WINDOW_EVENTS).expect("small");
        for number in 1..=last {
            window.insert(signature(number), digest(b""), Arc::clone(&ticket));
        }
        let found = window.find(signature(0), digest(b"")).expect("pending");
        assert!(Arc::ptr_eq(&found, &pending));
        assert!(window.events.len() <= DEDUP_WINDOW_EVENTS + 1);
    }

    #[test]
    fn when_pending_events_are_settled_the_window_shrinks_to_its_limit() {
        let mut window = DedupWindow::default();
        let (pending, durable) = (Arc::new(Ticket::new()), durable());
        let mut numbers = 0..;
        let mut insert = |window: &mut DedupWindow, ticket: &Arc<Ticket>, count: usize| {
            for number in numbers.by_ref().take(count) {
                window.insert(signature(number), digest(b""), Arc::clone(ticket));
            }
        };
        insert(&mut window, &pending, 1000);
        insert(&mut window, &durable, DEDUP_WINDOW_EVENTS - 500);
        assert!(window.events.len() > DEDUP_WINDOW_EVENTS);
        pending
            .set(Settled::Durable(Durability::Published, Uuid::nil()))
            .expect("new");
        insert(&mut window, &durable, 1000);
        assert_eq!(window.events.len(), DEDUP_WINDOW_EVENTS);
        assert_eq!(window.index.len(), DEDUP_WINDOW_EVENTS);
    }

    #[test]
    fn a_refused_event_is_new_when_it_is_sent_again() {
        let mut window = DedupWindow::default();
        let ticket = Arc::new(Ticket::new());
        window.insert(signature(1), digest(b""), Arc::clone(&ticket));
        ticket.set(Settled::Refused).expect("new");
        assert!(window.find(signature(1), digest(b"")).is_none());
        window.insert(signature(1), digest(b""), durable());
        assert!(window.find(signature(1), digest(b"")).is_some());
    }
}
