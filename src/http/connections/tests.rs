//! Which connection is displaced, with time moved by hand.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::Context;

use super::table::Slots;
use super::*;

fn connections(limit: usize, reserved: usize) -> Arc<Connections> {
    let limits = ConnectionLimits {
        connections: limit,
        reserved,
        per_address: None,
        idle: Duration::from_secs(75),
    };
    let metrics = ConnectionMetrics::unregistered();
    Arc::new(Connections::new(limits, Networks::default(), metrics))
}

/// A slot, if one is free. If not, one connection is displaced where that is possible.
fn admit(connections: &Arc<Connections>) -> Option<Slot> {
    match connections.try_admit(Ipv4Addr::LOCALHOST.into()) {
        Admission::Admitted(slot) => Some(slot),
        Admission::Refused | Admission::Full => None,
    }
}

/// Connections that take all slots, idle for this many seconds.
fn idle_for(seconds: &[u64]) -> (Arc<Connections>, Vec<Slot>) {
    let connections = connections(seconds.len(), 0);
    let slots = seconds.iter().map(|seconds| {
        let slot = admit(&connections).expect("a slot is free");
        slot.connection.state.lock().since -= Duration::from_secs(*seconds);
        connections.table.lock().requeue(&slot.connection);
        slot
    });
    let slots = slots.collect();
    (connections, slots)
}

fn displaced(slots: &[Slot]) -> Vec<usize> {
    let is_displaced = |slot: &Slot| slot.connection.state.lock().is_displaced;
    let all = slots.iter().enumerate();
    all.filter(|(_, slot)| is_displaced(slot))
        .map(|(index, _)| index)
        .collect()
}

#[test]
fn the_longest_idle_connection_is_displaced_one_at_a_time() {
    let (connections, mut slots) = idle_for(&[2, 9, 5]);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1]);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1], "it has not closed yet");
    drop(slots.remove(1));
    slots.push(admit(&connections).expect("its slot is free"));
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1], "that of 5 s");
}

#[test]
fn a_connection_that_has_been_used_since_is_not_the_longest_idle_one() {
    let (connections, slots) = idle_for(&[9, 5]);
    let used = &slots[0].connection;
    used.bytes_received(b"P");
    used.head_received();
    used.request_received();
    used.mark_idle();
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1]);
}

#[test]
fn a_busy_connection_is_displaced_only_if_none_has_been_idle_for_a_second() {
    let (connections, slots) = idle_for(&[9, 5]);
    let busy = &slots[0].connection;
    busy.bytes_received(b"P");
    busy.state.lock().since -= Duration::from_secs(7);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1]);

    let (connections, slots) = idle_for(&[9, 0]);
    let busy = &slots[0].connection;
    busy.bytes_received(b"P");
    busy.state.lock().since -= Duration::from_secs(7);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0]);
}

#[test]
fn a_connection_that_is_being_served_is_never_displaced() {
    let (connections, slots) = idle_for(&[9]);
    let served = &slots[0].connection;
    served.bytes_received(b"P");
    served.head_received();
    served.request_received();
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0_usize; 0]);
    // The search has removed its outdated entry; once idle it can be displaced again.
    served.mark_idle();
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0]);
    // Its next request was on the way.
    served.request_received();
    assert_eq!(displaced(&slots), [0_usize; 0]);
    assert_eq!(connections.table.lock().leaving, 0);
}

#[test]
fn a_displaced_connection_that_gets_bytes_stays_and_another_one_is_displaced() {
    let (connections, slots) = idle_for(&[9, 5]);
    assert!(admit(&connections).is_none());
    slots[0].connection.bytes_received(b"P");
    assert_eq!(displaced(&slots), [0_usize; 0]);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [1]);
    slots[1].connection.bytes_received(b"P");
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0_usize; 0], "both have stayed");
    slots[0].connection.mark_idle();
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0]);
}

#[test]
fn closed_connections_leave_nothing_behind() {
    let (connections, slots) = idle_for(&[9, 5, 3, 1]);
    assert!(admit(&connections).is_none());
    slots[1].connection.bytes_received(b"P");
    slots[2].connection.request_received();
    // A request can end after its stream.
    let late = Arc::clone(&slots[3].connection);
    drop(slots);
    late.mark_idle();
    late.request_received();
    drop(late);
    let table = connections.table.lock();
    let Slots { open, idle, busy } = &table.regular;
    assert_eq!((*open, table.leaving), (0, 0));
    assert!(idle.is_empty() && busy.is_empty() && table.by_address.is_empty());
    drop(table);
    assert_eq!(Arc::strong_count(&connections), 1);
}

/// A connection whose request is complete.
fn serve(connections: &Arc<Connections>) -> Slot {
    let slot = admit(connections).expect("a slot is free");
    slot.connection.bytes_received(b"P");
    slot.connection.head_received();
    slot.connection.request_received();
    slot
}

fn waited(slot: &Slot, seconds: u64) {
    slot.connection.state.lock().since -= Duration::from_secs(seconds);
    slot.connection.port.table.lock().requeue(&slot.connection);
}

fn is_ready(future: impl Future) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut context).is_ready()
}

fn closes(slot: &Slot) -> bool {
    matches!(slot.expiry(Waker::noop()), Expiry::Close(_))
}

#[test]
fn the_reserve_is_used_if_no_connection_has_been_waited_for_longer_than_a_second() {
    let connections = connections(2, 2);
    let served = serve(&connections);
    let slow = admit(&connections).expect("a slot is free");
    slow.connection.bytes_received(b"P");
    let reserve = admit(&connections).expect("the slow one has just begun");
    assert!(reserve.connection.is_reserve && !slow.connection.is_reserve);
    waited(&slow, 2);
    assert!(admit(&connections).is_none(), "the slow one is displaced");
    let slots = [served, slow, reserve];
    assert_eq!(displaced(&slots), [1]);
    let [served, slow, reserve] = slots;
    drop(slow);
    let regular = admit(&connections).expect("the slot of the slow one");
    assert!(!regular.connection.is_reserve);
    drop((served, reserve, regular));
    let table = connections.table.lock();
    assert_eq!((table.regular.open, table.reserve.open), (0, 0));
    assert!(table.reserve.idle.is_empty() && table.reserve.busy.is_empty());
}

#[test]
fn a_new_connection_always_gets_a_slot_though_all_are_being_served() {
    let connections = connections(2, 2);
    let regular = [serve(&connections), serve(&connections)];
    let mut reserve = vec![serve(&connections), serve(&connections)];
    waited(&reserve[1], 1);
    for expected in [[1], [0]] {
        assert!(admit(&connections).is_none());
        assert_eq!(displaced(&regular), [0_usize; 0], "these are never closed");
        assert_eq!(displaced(&reserve), expected, "the oldest request");
        let gone = expected[0];
        let gives_way = reserve[gone].connection.gives_way();
        assert!(is_ready(gives_way), "its handler knows");
        assert!(!closes(&reserve[gone]), "it is answered first");
        reserve[gone].connection.mark_idle();
        assert!(closes(&reserve[gone]), "and then closed");
        drop(reserve.remove(gone));
        let new = admit(&connections).expect("its slot is free");
        assert!(new.connection.is_reserve);
        reserve.push(new);
    }
}

#[test]
fn the_longest_waiting_of_all_slots_gives_way_once_the_reserve_is_full() {
    let connections = connections(1, 2);
    let slots = [
        admit(&connections).expect("a slot is free"),
        admit(&connections).expect("a slot of the reserve"),
        admit(&connections).expect("a slot of the reserve"),
    ];
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0], "it waited for longest");
    let [first, second, third] = slots;
    drop(first);
    let slots = [
        second,
        third,
        admit(&connections).expect("the regular slot is free"),
    ];
    assert!(!slots[2].connection.is_reserve);
    assert!(admit(&connections).is_none());
    assert_eq!(displaced(&slots), [0]);
}

#[test]
fn bytes_keep_no_slot_of_the_reserve_beyond_its_first_request() {
    let connections = connections(1, 1);
    let served = serve(&connections);
    // Its bytes may have come before it was displaced, and not be read yet.
    let begun = admit(&connections).expect("a slot of the reserve");
    assert!(admit(&connections).is_none());
    assert!(closes(&begun), "if none have come");
    assert!(begun.connection.bytes_received(b"P"));
    assert!(begun.connection.bytes_received(b"O"));
    begun.connection.head_received();
    assert!(closes(&begun), "unless nothing more comes");
    begun.connection.request_received();
    assert!(!closes(&begun));
    begun.connection.mark_idle();
    assert!(!begun.connection.bytes_received(b"P"), "its last request");
    assert_eq!(displaced(&[served, begun]), [1]);
    assert_eq!(connections.table.lock().leaving, 0);
}
