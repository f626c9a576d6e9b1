//! The resend memory: which callbacks have been taken in, and what became of them.
//!
//! Keyed by the twenty signature bytes and not by timestamp and nonce, because digits can move
//! between those two without changing the signature.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use sha1::{Digest, Sha1};

use crate::callback::Signature;
use crate::delivery::{Settled, Ticket};

/// So many of the last events are remembered, and besides them every one that is still on its way.
pub const REMEMBERED_EVENTS: usize = 100_000;

/// What tells two bodies apart.
type BodyDigest = [u8; 20];

/// Computes what tells two bodies apart.
pub(super) fn digest(body: &[u8]) -> BodyDigest {
    Sha1::digest(body).into()
}

/// The last events, oldest first, and an index of their places by signature.
#[derive(Default)]
pub(super) struct Memory {
    events: VecDeque<Remembered>,
    /// How many have been forgotten: the place of the front.
    first: u64,
    index: HashTable<u64>,
    hasher: DefaultHashBuilder,
}

struct Remembered {
    signature: Signature,
    body: BodyDigest,
    ticket: Arc<Ticket>,
}

impl Memory {
    /// The ticket of this very callback, if it came before and is safe or on its way. One that could
    /// not be made safe is a new one.
    pub(super) fn find(&self, signature: Signature, body: BodyDigest) -> Option<Arc<Ticket>> {
        let found = self.index.find(self.hash(signature), |&place| {
            self.at(place).is_some_and(|event| {
                event.signature == signature
                    && event.body == body
                    && event.ticket.get() != Some(&Settled::Refused)
            })
        })?;
        self.at(*found).map(|event| Arc::clone(&event.ticket))
    }

    /// Whether this signature came before, with another body.
    pub(super) fn knows_other(&self, signature: Signature, body: BodyDigest) -> bool {
        let other = |&place: &u64| {
            self.at(place)
                .is_some_and(|event| event.signature == signature && event.body != body)
        };
        self.index.find(self.hash(signature), other).is_some()
    }

    /// Remembers a callback, and forgets the oldest beyond the limit.
    pub(super) fn remember(&mut self, signature: Signature, body: BodyDigest, ticket: Arc<Ticket>) {
        self.push(Remembered {
            signature,
            body,
            ticket,
        });
        // Two for each one that comes, so that the memory shrinks again after many were on their way at
        // once; no more, since all the oldest may be on their way.
        for _ in 0..2 {
            if self.events.len() > REMEMBERED_EVENTS
                && let Some(oldest) = self.forget_oldest()
                && oldest.ticket.get().is_none()
            {
                self.push(oldest);
            }
        }
    }

    fn push(&mut self, event: Remembered) {
        let Self {
            events,
            first,
            index,
            hasher,
        } = self;
        let hash = hasher.hash_one(event.signature);
        events.push_back(event);
        let place = *first + events.len() as u64 - 1;
        index.insert_unique(hash, place, |&place| {
            let event = events.get((place - *first) as usize);
            event.map_or(0, |event| hasher.hash_one(event.signature))
        });
    }

    fn forget_oldest(&mut self) -> Option<Remembered> {
        let oldest = self.events.pop_front()?;
        let hash = self.hash(oldest.signature);
        if let Ok(entry) = self.index.find_entry(hash, |&place| place == self.first) {
            entry.remove();
        }
        self.first += 1;
        Some(oldest)
    }

    fn at(&self, place: u64) -> Option<&Remembered> {
        self.events.get((place - self.first) as usize)
    }

    fn hash(&self, signature: Signature) -> u64 {
        self.hasher.hash_one(signature)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::delivery::Safe;

    fn signature(number: u32) -> Signature {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Signature(bytes)
    }

    fn safe() -> Arc<Ticket> {
        let ticket = Ticket::new();
        ticket
            .set(Settled::Safe(Safe::Published, Uuid::nil()))
            .expect("new");
        Arc::new(ticket)
    }

    #[test]
    fn the_same_signature_with_another_body_is_another_event() {
        let mut memory = Memory::default();
        let (one, two) = (digest(b"one"), digest(b"two"));
        assert!(!memory.knows_other(signature(1), two));
        memory.remember(signature(1), one, safe());
        assert!(memory.knows_other(signature(1), two));
        assert!(!memory.knows_other(signature(1), one));
        assert!(memory.find(signature(1), one).is_some());
        assert!(memory.find(signature(1), two).is_none());
        assert!(memory.find(signature(2), one).is_none());
        memory.remember(signature(1), two, safe());
        assert!(memory.find(signature(1), one).is_some());
        assert!(memory.find(signature(1), two).is_some());
    }

    #[test]
    fn the_last_hundred_thousand_are_remembered_and_the_one_before_is_forgotten() {
        let mut memory = Memory::default();
        let ticket = safe();
        let last = u32::try_from(REMEMBERED_EVENTS).expect("small");
        for number in 0..=last {
            memory.remember(signature(number), digest(b""), Arc::clone(&ticket));
        }
        assert!(memory.find(signature(0), digest(b"")).is_none());
        assert!(!memory.knows_other(signature(0), digest(b"other")));
        for number in [1, 2, last / 2, last] {
            assert!(
                memory.find(signature(number), digest(b"")).is_some(),
                "{number}"
            );
        }
        assert_eq!(memory.events.len(), REMEMBERED_EVENTS);
        assert_eq!(memory.index.len(), REMEMBERED_EVENTS);
    }

    #[test]
    fn one_on_its_way_is_never_forgotten() {
        let mut memory = Memory::default();
        let on_its_way = Arc::new(Ticket::new());
        memory.remember(signature(0), digest(b""), Arc::clone(&on_its_way));
        let ticket = safe();
        let last = 3 * u32::try_from(REMEMBERED_EVENTS).expect("small");
        for number in 1..=last {
            memory.remember(signature(number), digest(b""), Arc::clone(&ticket));
        }
        let found = memory.find(signature(0), digest(b"")).expect("on its way");
        assert!(Arc::ptr_eq(&found, &on_its_way));
        assert!(memory.events.len() <= REMEMBERED_EVENTS + 1);
    }

    #[test]
    fn when_those_on_their_way_are_safe_the_memory_shrinks_to_its_limit() {
        let mut memory = Memory::default();
        let (on_its_way, safe) = (Arc::new(Ticket::new()), safe());
        let mut numbers = 0..;
        let mut remember = |memory: &mut Memory, ticket: &Arc<Ticket>, count: usize| {
            for number in numbers.by_ref().take(count) {
                memory.remember(signature(number), digest(b""), Arc::clone(ticket));
            }
        };
        remember(&mut memory, &on_its_way, 1000);
        remember(&mut memory, &safe, REMEMBERED_EVENTS - 500);
        assert!(memory.events.len() > REMEMBERED_EVENTS);
        on_its_way
            .set(Settled::Safe(Safe::Published, Uuid::nil()))
            .expect("new");
        remember(&mut memory, &safe, 1000);
        assert_eq!(memory.events.len(), REMEMBERED_EVENTS);
        assert_eq!(memory.index.len(), REMEMBERED_EVENTS);
    }

    #[test]
    fn one_that_could_not_be_made_safe_is_new_when_it_comes_again() {
        let mut memory = Memory::default();
        let ticket = Arc::new(Ticket::new());
        memory.remember(signature(1), digest(b""), Arc::clone(&ticket));
        ticket.set(Settled::Refused).expect("new");
        assert!(memory.find(signature(1), digest(b"")).is_none());
        memory.remember(signature(1), digest(b""), safe());
        assert!(memory.find(signature(1), digest(b"")).is_some());
    }
}
