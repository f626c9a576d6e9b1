//! What the window promises, with the clock in the tests' hands.

use proptest::prelude::*;

use super::chunks::CHUNK_BYTES;
use super::*;
use crate::delivery::{Durability, MAX_VOLATILE_RECORDS};
use crate::kafka::MAX_IN_FLIGHT_RECORDS;

/// The queues hold at most this many pending events. A producer's reports on some records, at most
/// 10,000, are counted there a moment before their tickets are settled.
const MAX_PENDING: usize = MAX_VOLATILE_RECORDS + MAX_IN_FLIGHT_RECORDS;

fn key(signature: u32, body: u32) -> Key {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&signature.to_be_bytes());
    Key::new(Signature(bytes), &body.to_be_bytes())
}

fn durable() -> Settled {
    Settled::Durable(Durability::Published, Uuid::nil())
}

/// A window and its clock.
struct Clock {
    window: DedupWindow,
    now: Instant,
}

impl Clock {
    fn new() -> Self {
        Self::with(DedupWindow::default())
    }

    fn with(window: DedupWindow) -> Self {
        let now = Instant::now();
        Self { window, now }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Adds a callback that is pending.
    fn insert_pending(&mut self, key: Key) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::new());
        assert!(!self.insert(key, &ticket), "it fits");
        ticket
    }

    /// Adds a callback that is durable at once. Returns whether memory is lacking.
    fn insert_durable(&mut self, key: Key) -> bool {
        self.insert(key, &Arc::new(Ticket::new_with(Some(durable()))))
    }

    fn insert(&mut self, key: Key, ticket: &Arc<Ticket>) -> bool {
        self.window.insert(key, Arc::clone(ticket), self.now)
    }

    /// Adds as many that are durable, each under a signature of its own.
    fn fill(&mut self, signatures: impl IntoIterator<Item = u32>) {
        for signature in signatures {
            assert!(!self.insert_durable(key(signature, 0)), "{signature} fits");
        }
    }

    fn is_known(&self, signature: u32) -> bool {
        self.window.find(&key(signature, 0)).is_some()
    }
}

fn events(count: usize) -> u32 {
    u32::try_from(count).expect("small")
}

#[test]
fn the_same_signature_with_another_body_is_another_event() {
    let mut clock = Clock::new();
    assert!(!clock.window.has_other_body(&key(1, 2)));
    clock.insert_durable(key(1, 1));
    assert!(clock.window.has_other_body(&key(1, 2)));
    assert!(!clock.window.has_other_body(&key(1, 1)));
    assert!(clock.window.find(&key(1, 1)).is_some());
    assert!(clock.window.find(&key(1, 2)).is_none());
    assert!(clock.window.find(&key(2, 1)).is_none());
    clock.insert_durable(key(1, 2));
    assert!(clock.window.find(&key(1, 1)).is_some());
    assert!(clock.window.find(&key(1, 2)).is_some());
}

#[test]
fn the_window_holds_the_last_hundred_thousand_events_however_old_they_are() {
    let mut clock = Clock::new();
    let last = events(DEDUP_WINDOW_EVENTS);
    clock.fill(0..last);
    clock.wait(1000);
    clock.insert_durable(key(last, 0));
    clock.wait(71);
    clock.insert_durable(key(last + 1, 0));
    for gone in [0, 1] {
        assert!(!clock.is_known(gone), "{gone}");
        assert!(!clock.window.has_other_body(&key(gone, 1)));
    }
    assert!((2..=last + 1).all(|number| clock.is_known(number)));
    assert_eq!(clock.window.entries.len(), DEDUP_WINDOW_EVENTS);
}

#[test]
fn the_window_holds_every_event_of_the_last_seventy_seconds() {
    let mut clock = Clock::new();
    let count = 2 * events(DEDUP_WINDOW_EVENTS);
    clock.fill(0..count);
    clock.wait(70);
    clock.insert_durable(key(count, 0));
    assert!((0..=count).all(|number| clock.is_known(number)));
    clock.wait(1);
    clock.insert_durable(key(count + 1, 0));
    assert!(!clock.is_known(0));
}

/// Numbers that look random, the same in every run.
fn pseudo_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Chat messages at 5,000/s and group events at 100/s, with timestamps in seconds and nonces of six
/// digits, for 140 s. The answers take as long as they may.
#[test]
fn the_window_holds_seventy_seconds_of_a_busy_chat_and_its_nonces_collide_as_the_alert_expects() {
    const RATE: u32 = 5_100;
    const SECONDS: u32 = 140;
    let mut clock = Clock::new();
    let mut random = 0x2545_f491_4f6c_dd1d;
    let (mut keys, mut pending) = (Vec::new(), VecDeque::new());
    let (mut reused, mut peak) = (0, 0);
    for second in 0..SECONDS {
        for number in 0..RATE {
            let nonce = 100_000 + pseudo_random(&mut random) % 900_000;
            let signed = u64::from(second) * 1_000_000 + nonce;
            let mut signature = [0; 20];
            signature[..8].copy_from_slice(&signed.to_be_bytes());
            let key = Key::new(Signature(signature), &number.to_be_bytes());
            reused += u32::from(clock.window.has_other_body(&key));
            pending.push_back(clock.insert_pending(key));
            keys.push(key);
            peak = peak.max(clock.window.bytes());
        }
        if second >= 2 {
            for ticket in pending.drain(..RATE as usize) {
                ticket.set(durable()).expect("new");
            }
        }
        clock.wait(1);
    }
    let last = &keys[keys.len() - 70 * RATE as usize..];
    assert!(last.iter().all(|key| clock.window.find(key).is_some()));
    assert!(peak < MAX_DEDUP_BYTES * 3 / 4, "{peak}");
    // `deploy/alerts.yml` computes with r² / 1.8 million.
    let expected = SECONDS * RATE * RATE / 1_800_000;
    let allowed = expected * 9 / 10..expected * 11 / 10;
    assert!(allowed.contains(&reused), "{reused}, not about {expected}");
}

#[test]
fn a_full_window_stays_within_its_memory_and_forgets_the_oldest() {
    let mut clock = Clock::new();
    // As the documentation has it.
    let fit = 560_000;
    clock.fill(0..fit);
    assert!(clock.window.bytes() <= EVICTION_BYTES + 2 * CHUNK_BYTES);
    let mut removed_early = 0;
    for number in fit..fit + 40_000 {
        removed_early += u32::from(clock.insert_durable(key(number, 0)));
        assert!(clock.window.bytes() <= EVICTION_BYTES + 2 * CHUNK_BYTES);
    }
    assert!(removed_early > 0);
    let end = fit + 40_000;
    let held = events(clock.window.entries.len());
    assert!(held >= fit, "{held}");
    assert!(!clock.is_known(end - held - 1));
    assert!((end - held..end).all(|number| clock.is_known(number)));
}

#[test]
fn as_many_pending_events_as_there_may_be_are_never_removed_and_memory_suffices() {
    let mut clock = Clock::new();
    let pending = events(MAX_PENDING);
    let tickets: Vec<_> = (0..pending)
        .map(|number| clock.insert_pending(key(number, 0)))
        .collect();
    clock.wait(1000);
    let mut peak = 0;
    for number in pending..pending + 300_000 {
        clock.insert_durable(key(number, 0));
        peak = peak.max(clock.window.bytes());
    }
    // They were passed, in steps, while the new ones were added.
    assert!(clock.window.moved > 0);
    assert!(peak > EVICTION_BYTES && peak <= MAX_DEDUP_BYTES, "{peak}");
    for (number, ticket) in (0..).zip(&tickets) {
        let found = clock.window.find(&key(number, 0));
        assert!(matches!(found, Some(Accepted::Pending(found)) if Arc::ptr_eq(&found, ticket)));
    }
}

#[test]
fn tickets_that_are_settled_as_late_as_possible_take_a_third_more_and_memory_suffices() {
    let mut clock = Clock::new();
    let pending = events(MAX_PENDING);
    // In the order in which the window looks at them.
    let mut tickets = VecDeque::<Arc<Ticket>>::new();
    let (mut peak, mut most_tickets) = (0, 0);
    for number in 0..2 * pending {
        if number >= pending {
            // The window has just looked at it, and looks at all others before it does so again.
            let last = tickets.back().expect("there are some");
            last.set(durable()).expect("it is pending");
        }
        let ticket = Arc::new(Ticket::new());
        clock.insert(key(number, 0), &ticket);
        tickets.push_back(ticket);
        for _ in 0..SETTLE_STEPS {
            let ticket = tickets.pop_front().expect("there are some");
            if ticket.get().is_none() {
                tickets.push_back(ticket);
            }
        }
        peak = peak.max(clock.window.bytes());
        most_tickets = most_tickets.max(clock.window.tickets.len());
    }
    assert!(most_tickets > MAX_PENDING * 5 / 4, "{most_tickets}");
    assert!(most_tickets <= MAX_PENDING * 4 / 3 + 1, "{most_tickets}");
    assert!(peak > EVICTION_BYTES && peak <= MAX_DEDUP_BYTES, "{peak}");
}

#[test]
fn after_a_burst_the_window_shrinks_by_a_few_events_with_every_new_one() {
    let mut clock = Clock::new();
    let burst = 3 * events(DEDUP_WINDOW_EVENTS);
    clock.fill(0..burst);
    let (full, bytes) = (clock.window.entries.len(), clock.window.bytes());
    clock.wait(71);
    clock.fill(burst..burst + 100);
    assert_eq!(clock.window.entries.len(), full + 100 - 100 * MAX_REMOVALS);
    clock.fill(burst + 100..burst + 100_000);
    assert_eq!(clock.window.entries.len(), DEDUP_WINDOW_EVENTS);
    assert!(clock.window.bytes() < bytes / 2);
}

#[test]
fn a_settled_ticket_is_released_and_its_outcome_stays() {
    let mut clock = Clock::new();
    let tickets: Vec<_> = (0..1000)
        .map(|number| clock.insert_pending(key(number, 0)))
        .collect();
    for ticket in &tickets {
        ticket.set(durable()).expect("new");
    }
    clock.fill(1000..1400);
    assert!(tickets.iter().all(|ticket| Arc::strong_count(ticket) == 1));
    assert_eq!(clock.window.tickets.len(), 0);
    for number in 0..1000 {
        let found = clock.window.find(&key(number, 0));
        assert!(matches!(found, Some(Accepted::Duplicate(id)) if id == Uuid::nil()));
    }
}

#[test]
fn a_refused_event_is_new_when_it_is_sent_again() {
    let mut clock = Clock::new();
    let ticket = clock.insert_pending(key(1, 0));
    ticket.set(Settled::Refused).expect("new");
    assert!(!clock.is_known(1));
    // The outcome replaces the ticket.
    clock.fill(2..12);
    assert!(!clock.is_known(1));
    assert!(!clock.window.has_other_body(&key(1, 0)));
    clock.insert_durable(key(1, 0));
    assert!(clock.is_known(1));
}

#[test]
fn a_lookup_takes_as_long_however_many_bodies_share_a_signature() {
    let mut clock = Clock::new();
    let count = 200_000;
    for body in 0..count {
        assert!(!clock.insert_durable(key(1, body)));
    }
    let DedupWindow { index, entries, .. } = &clock.window;
    assert_eq!(index.measure(entries, By::Signature), (1, 1));
    let (linked, longest) = index.measure(entries, By::Key);
    assert_eq!(linked, count as usize);
    // With as many entries as buckets, a bucket of 13 has a probability of 10^-5.
    assert!(longest <= 16, "{longest}");
    assert!((0..count).all(|body| clock.window.find(&key(1, body)).is_some()));
    assert!(clock.window.has_other_body(&key(1, count)));
}

#[test]
fn a_lookup_takes_as_long_however_often_an_event_is_refused() {
    let mut clock = Clock::new();
    for _ in 0..10_000 {
        let ticket = clock.insert_pending(key(1, 0));
        ticket.set(Settled::Refused).expect("new");
    }
    let DedupWindow { index, entries, .. } = &clock.window;
    assert_eq!(entries.len(), 10_000);
    assert_eq!(index.measure(entries, By::Signature), (1, 1));
    assert_eq!(index.measure(entries, By::Key), (1, 1));
}

/// A window that holds fewer events whatever their age.
fn small_window() -> DedupWindow {
    DedupWindow {
        min_events: MIN_EVENTS,
        ..DedupWindow::default()
    }
}

const MIN_EVENTS: usize = 5;

#[derive(Debug, Clone)]
enum Action {
    Send {
        signature: u32,
        body: u32,
    },
    Settle {
        event: prop::sample::Index,
        is_refused: bool,
    },
    Wait {
        seconds: u64,
    },
    SetMemory {
        is_full: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..6_u32, 0..3_u32).prop_map(|(signature, body)| Action::Send { signature, body }),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.3))
            .prop_map(|(event, is_refused)| Action::Settle { event, is_refused }),
        2 => (0..50_u64).prop_map(|seconds| Action::Wait { seconds }),
        1 => any::<bool>().prop_map(|is_full| Action::SetMemory { is_full }),
    ]
}

/// An event that the model accepted.
struct Event {
    signature: u32,
    body: u32,
    accepted: Instant,
    ticket: Arc<Ticket>,
    /// Memory was lacking since it was answered.
    may_be_gone: bool,
}

/// All accepted events, for ever.
#[derive(Default)]
struct Model(Vec<Event>);

impl Model {
    /// Whether the window must still hold the event with this index.
    fn is_held(&self, index: usize, now: Instant) -> bool {
        let event = &self.0[index];
        let is_recent = now - event.accepted <= DEDUP_WINDOW;
        let is_last = self.0.len() - index <= MIN_EVENTS;
        event.ticket.get().is_none() || (!event.may_be_gone && (is_recent || is_last))
    }

    fn check(&self, clock: &Clock) {
        for (signature, body) in
            (0..6).flat_map(|signature| [0, 1, 2].map(|body| (signature, body)))
        {
            let key = key(signature, body);
            let found = clock.window.find(&key);
            let is_it = |event: &Event| event.signature == signature && event.body == body;
            let last = self.0.iter().rposition(is_it);
            match (last.map(|last| (last, self.0[last].ticket.get())), found) {
                (None | Some((_, Some(Settled::Refused))), found) => assert!(found.is_none()),
                (Some((last, None)), Some(Accepted::Pending(ticket))) => {
                    assert!(Arc::ptr_eq(&ticket, &self.0[last].ticket));
                }
                (Some((_, Some(Settled::Durable(_, id)))), Some(Accepted::Duplicate(found))) => {
                    assert_eq!(found, *id);
                }
                (Some((last, Some(_))), None) => assert!(!self.is_held(last, clock.now)),
                (Some(_), _) => panic!("another outcome"),
            }
            let others = || {
                let others = self.0.iter().enumerate();
                others.filter(|(_, event)| event.signature == signature && event.body != body)
            };
            if clock.window.has_other_body(&key) {
                assert!(others().next().is_some(), "no other body was accepted");
            } else {
                assert!(others().all(|(index, _)| !self.is_held(index, clock.now)));
            }
        }
    }
}

proptest! {
    /// What must be known is known, with its outcome; what never was accepted is not; and in the
    /// end everything old is gone.
    #[test]
    fn the_window_knows_what_a_memory_without_limits_knows(
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let mut clock = Clock::with(small_window());
        let mut model = Model::default();
        for action in actions {
            match action {
                Action::Send { signature, body } => {
                    let key = key(signature, body);
                    if clock.window.find(&key).is_none() {
                        let ticket = Arc::new(Ticket::new());
                        clock.insert(key, &ticket);
                        if clock.window.eviction_bytes == 0 {
                            for event in &mut model.0 {
                                event.may_be_gone |= event.ticket.get().is_some();
                            }
                        }
                        let accepted = clock.now;
                        let may_be_gone = false;
                        model.0.push(Event { signature, body, accepted, ticket, may_be_gone });
                    }
                }
                Action::Settle { event, is_refused } => {
                    if !model.0.is_empty() {
                        let index = event.index(model.0.len());
                        let id = Uuid::from_u128(index as u128);
                        let durable = Settled::Durable(Durability::Published, id);
                        let settled = if is_refused { Settled::Refused } else { durable };
                        // One that is settled keeps its outcome.
                        model.0[index].ticket.set(settled).ok();
                    }
                }
                Action::Wait { seconds } => clock.wait(seconds),
                Action::SetMemory { is_full } => {
                    clock.window.eviction_bytes = if is_full { 0 } else { EVICTION_BYTES };
                }
            }
            model.check(&clock);
        }
        for event in &model.0 {
            event.ticket.set(Settled::Refused).ok();
        }
        clock.window.eviction_bytes = EVICTION_BYTES;
        for signature in 100..200 {
            clock.wait(80);
            clock.fill([signature]);
        }
        prop_assert_eq!(clock.window.entries.len(), MIN_EVENTS);
        prop_assert_eq!((clock.window.moved, clock.window.tickets.len()), (0, 0));
        for by in [By::Key, By::Signature] {
            let (linked, _) = clock.window.index.measure(&clock.window.entries, by);
            prop_assert_eq!(linked, MIN_EVENTS);
        }
    }
}
