//! Which connection is displaced, with time moved by hand.

use std::net::Ipv4Addr;

use super::*;

fn connections(limit: usize) -> Arc<Connections> {
    let limits = ConnectionLimits {
        connections: limit,
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
    let connections = connections(seconds.len());
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
    assert_eq!((table.open, table.leaving), (0, 0));
    assert!(table.idle.is_empty() && table.busy.is_empty() && table.by_address.is_empty());
    drop(table);
    assert_eq!(Arc::strong_count(&connections), 1);
}
