mod disk;
mod model;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::callback::{RawCallback, Secrets, TimestampUnit, sign};
use crate::event::{self, Policy};
use crate::kafka::Report;

/// The producers of these tests.
const SHARD: ProducerId = 1;
const BACKLOG: ProducerId = 2;
const RUN: ProducerId = 3;
const SIDE: ProducerId = 4;

/// A record of a real callback, with a note that makes it as large as wanted.
fn record(note: usize) -> Record {
    record_of("g", note)
}

fn record_of(group: &str, note: usize) -> Record {
    let (timestamp, nonce) = ("1757577600123", "1");
    let body = json!({
        "appid": "1", "event": "group_join", "group_id": group, "join_type": "Apply",
        "new_user_ids": ["u"], "note": "x".repeat(note), "timestamp": timestamp, "nonce": nonce,
        "signature": sign("s", timestamp, nonce).to_hex(),
    });
    let raw = RawCallback {
        body: body.to_string().into(),
        content_type: None,
        trace: None,
        received_at: 0,
    };
    let json = raw.json().expect("JSON");
    let secrets = Secrets::parse_list("1=s").expect("valid");
    let callback = json.decode().expect("a callback");
    let callback = secrets
        .authenticate(callback, TimestampUnit::Auto)
        .expect("authentic");
    event::kind_of(&callback)
        .and_then(|kind| kind.record(&callback, &Policy::default()))
        .expect("a record")
}

fn queues_on(disk: Option<Disk>) -> (Arc<Queue>, Arc<Queue>) {
    queues_for(MAX_VOLATILE_RECORDS, disk)
}

fn queues_for(max_records: usize, disk: Option<Disk>) -> (Arc<Queue>, Arc<Queue>) {
    let metrics = Arc::new(Metrics::new());
    let queue = |dead_letters| {
        let queue = Queue::new(
            max_records,
            Arc::new(Sequence::from(0)),
            Arc::clone(&metrics),
            Arc::new(BrokerStatus::new(None)),
            Arc::default(),
            dead_letters,
        );
        Arc::new(match disk {
            Some(disk) => queue.with_disk(disk, Backlog::default()),
            None => queue,
        })
    };
    let dead = queue(None);
    (queue(Some(Arc::clone(&dead))), dead)
}

/// A queue of events and one of dead letters.
fn queues() -> (Arc<Queue>, Arc<Queue>) {
    queues_on(None)
}

fn enqueue(queue: &Queue, count: usize) -> Vec<Arc<Ticket>> {
    (0..count)
        .map(|_| queue.enqueue(record(0)).expect("there is space"))
        .collect()
}

/// The numbers that are handed over now, and to which producer.
fn handed_over(queue: &Queue) -> Vec<(ProducerId, u64)> {
    let route = |via| {
        Some(match via {
            Via::Shard(_) => SHARD,
            Via::Backlog => BACKLOG,
            Via::Run => RUN,
            Via::Side | Via::Suspect => SIDE,
        })
    };
    let mut handed = Vec::new();
    loop {
        let batch = queue.hand_over(Instant::now(), Pacing::NONE, route);
        if batch.is_empty() {
            return handed;
        }
        handed.extend(batch.iter().map(|outgoing| (outgoing.to, outgoing.number)));
    }
}

fn numbers(queue: &Queue) -> Vec<u64> {
    handed_over(queue)
        .into_iter()
        .map(|(_, number)| number)
        .collect()
}

fn is_empty(queue: &Queue) -> bool {
    let state = queue.lock();
    state.fresh.is_empty() && state.spooled.is_empty() && state.in_flight() == 0
}

fn report(queue: &Queue, producer: ProducerId, number: u64, report: Report) {
    queue.report(producer, vec![(number, report)]);
}

fn failed() -> Report {
    Report::Failed("no".to_owned())
}

fn rejected() -> Report {
    Report::Rejected("too large".to_owned())
}

fn is_durable(ticket: &Ticket, wanted: Durability) -> bool {
    matches!(ticket.get(), Some(Settled::Durable(safe, _)) if *safe == wanted)
}

#[test]
fn records_are_handed_over_in_order_and_leave_when_they_are_acknowledged() {
    let (queue, _) = queues();
    let tickets = enqueue(&queue, 3);
    assert_eq!(handed_over(&queue), [(SHARD, 0), (SHARD, 1), (SHARD, 2)]);
    assert_eq!(numbers(&queue), [0_u64; 0]);
    report(&queue, SHARD, 1, Report::Acked);
    assert!(is_durable(&tickets[1], Durability::Published));
    assert!(tickets[0].get().is_none());
    report(&queue, SHARD, 0, Report::Acked);
    report(&queue, SHARD, 2, Report::Acked);
    assert!(is_empty(&queue));
    assert_eq!(queue.lock().bytes, 0);
}

#[test]
fn a_full_queue_refuses_before_it_numbers_and_has_space_again_after_acknowledgements() {
    let (queue, _) = queues();
    let cost = record(500_000).size() + RECORD_OVERHEAD_BYTES;
    let fit = MAX_QUEUE_BYTES / cost;
    for _ in 0..fit {
        queue.enqueue(record(500_000)).expect("there is space");
    }
    assert_eq!(queue.enqueue(record(500_000)).map(|_| ()), Err(Full));
    assert_eq!(queue.lock().fresh.len(), fit);
    let first = numbers(&queue)[0];
    report(&queue, SHARD, first, Report::Acked);
    queue
        .enqueue(record(500_000))
        .expect("there is space again");
    assert_eq!(queue.enqueue(record(500_000)).map(|_| ()), Err(Full));
}

#[test]
fn a_queue_takes_its_share_of_records_whatever_another_queue_holds() {
    let (queue, dead) = queues_for(4, None);
    enqueue(&queue, 4);
    assert_eq!(queue.enqueue(record(0)).map(|_| ()), Err(Full));
    assert!(dead.has_space());
    enqueue(&dead, 2);
    assert!(!dead.has_space(), "half of it is for callbacks");
    enqueue(&dead, 2);
    assert_eq!(dead.enqueue(record(0)).map(|_| ()), Err(Full));
    let first = numbers(&queue)[0];
    report(&queue, SHARD, first, Report::Acked);
    enqueue(&queue, 1);
    assert_eq!(queue.enqueue(record(0)).map(|_| ()), Err(Full));
}

#[test]
fn a_failed_record_is_sent_again_and_its_partition_pauses_meanwhile() {
    let (queue, _) = queues();
    enqueue(&queue, 3);
    numbers(&queue);
    report(&queue, SHARD, 1, failed());
    report(&queue, SHARD, 0, Report::Acked);
    report(&queue, SHARD, 2, Report::Acked);
    queue.lock().partitions.at(0).pause(Instant::now());
    assert_eq!(numbers(&queue), [0_u64; 0]);
    let later = queue.hand_over(
        Instant::now() + Duration::from_secs(1),
        Pacing::NONE,
        |_| Some(SHARD),
    );
    assert_eq!(later.len(), 1);
    report(&queue, SHARD, 1, Report::Acked);
    assert!(is_empty(&queue));
}

#[test]
fn of_a_producer_that_has_ended_only_acknowledgements_count() {
    let (queue, _) = queues();
    let tickets = enqueue(&queue, 3);
    numbers(&queue);
    assert_eq!(queue.producer_lost(SHARD), 3);
    let mut again = Vec::new();
    for _ in 0..3 {
        let batch = queue.hand_over(Instant::now(), Pacing::NONE, |_| Some(BACKLOG));
        again.extend(batch.iter().map(|outgoing| outgoing.number));
    }
    assert_eq!(again, [0, 1, 2]);
    report(&queue, SHARD, 0, Report::Acked);
    report(&queue, SHARD, 1, failed());
    report(&queue, SHARD, 2, rejected());
    assert!(is_durable(&tickets[0], Durability::Published));
    assert_eq!(numbers(&queue), [0_u64; 0]);
    report(&queue, BACKLOG, 0, Report::Acked);
    report(&queue, BACKLOG, 1, Report::Acked);
    report(&queue, BACKLOG, 2, Report::Acked);
    assert!(
        tickets
            .iter()
            .all(|ticket| is_durable(ticket, Durability::Published))
    );
    assert!(is_empty(&queue));
}

#[test]
fn a_record_that_a_full_producer_does_not_take_stays_in_its_place() {
    let (queue, _) = queues();
    enqueue(&queue, 3);
    numbers(&queue);
    queue.return_unsent(SHARD, 2);
    queue.return_unsent(SHARD, 1);
    assert_eq!(numbers(&queue), [1, 2]);
    assert_eq!(queue.lock().in_flight(), 3);
}

#[test]
fn a_named_record_becomes_a_dead_letter_and_the_others_are_sent_again() {
    let (queue, dead) = queues();
    let tickets = enqueue(&queue, 3);
    numbers(&queue);
    report(&queue, SHARD, 0, Report::Acked);
    report(&queue, SHARD, 1, rejected());
    report(&queue, SHARD, 2, Report::Acked);
    assert!(tickets[1].get().is_none(), "its dead letter is pending");
    assert!(is_empty(&queue));
    assert_eq!(handed_over(&dead), [(SIDE, 0)]);
    report(&dead, SIDE, 0, Report::Acked);
    assert!(is_durable(&tickets[0], Durability::Published));
    assert!(is_durable(&tickets[1], Durability::DeadLettered));
    assert!(is_durable(&tickets[2], Durability::Published));
}

#[test]
fn a_suspect_that_fails_is_tried_again_before_those_behind_it() {
    let (queue, _) = queues();
    enqueue(&queue, 3);
    numbers(&queue);
    for number in 0..3 {
        let suspect = Report::Suspect("too large".to_owned());
        report(&queue, SHARD, number, suspect);
    }
    assert_eq!(handed_over(&queue), [(SIDE, 0)]);
    report(&queue, SIDE, 0, Report::Failed("no leader".to_owned()));
    let later = Instant::now() + Duration::from_secs(1);
    let batch = queue.hand_over(later, Pacing::NONE, |_| Some(SIDE));
    let again: Vec<u64> = batch.iter().map(|outgoing| outgoing.number).collect();
    assert_eq!(again, [0]);
}

#[test]
fn records_of_a_batch_that_was_rejected_without_a_name_are_sent_alone() {
    let (queue, dead) = queues();
    let tickets = enqueue(&queue, 3);
    numbers(&queue);
    for number in 0..3 {
        report(
            &queue,
            SHARD,
            number,
            Report::Suspect("too large".to_owned()),
        );
    }
    assert_eq!(handed_over(&queue), [(SIDE, 0)]);
    assert_eq!(
        numbers(&queue),
        [0_u64; 0],
        "nothing is sent beside a suspect"
    );
    report(&queue, SIDE, 0, Report::Acked);
    assert_eq!(handed_over(&queue), [(SIDE, 1)]);
    report(&queue, SIDE, 1, rejected());
    assert_eq!(handed_over(&queue), [(SIDE, 2)]);
    report(&queue, SIDE, 2, Report::Acked);
    assert!(is_empty(&queue));
    assert_eq!(numbers(&dead), [0]);
    report(&dead, SIDE, 0, Report::Acked);
    assert!(is_durable(&tickets[1], Durability::DeadLettered));
}

#[test]
fn an_event_whose_dead_letter_is_refused_too_is_not_durable() {
    let (queue, dead) = queues();
    let tickets = enqueue(&queue, 1);
    numbers(&queue);
    report(&queue, SHARD, 0, rejected());
    numbers(&dead);
    report(&dead, SIDE, 0, rejected());
    assert_eq!(tickets[0].get(), Some(&Settled::Refused));
    assert!(is_empty(&dead));
}

#[derive(Debug, Clone)]
enum Action {
    Enqueue,
    HandOver,
    /// Of the oldest record in flight, or of a later one.
    Report(usize, bool, bool),
    Lost,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Enqueue),
        3 => Just(Action::HandOver),
        5 => (0..3_usize, prop::bool::weighted(0.7), any::<bool>()).prop_map(|(at, acked, refused)| Action::Report(at, acked, refused)),
        1 => Just(Action::Lost),
    ]
}

proptest! {
    /// Once everything is reported, all tickets are resolved, and nothing is left.
    #[test]
    fn nothing_is_lost(steps in prop::collection::vec(action(), 1..120)) {
        let (queue, dead) = queues();
        let (mut tickets, mut flying, mut now) = (Vec::new(), Vec::new(), Instant::now());
        for step in steps {
            now += Duration::from_secs(10);
            match step {
                Action::Enqueue => tickets.extend(enqueue(&queue, 1)),
                Action::HandOver => {
                    let batch = queue.hand_over(now, Pacing::NONE, |_| Some(SHARD));
                    flying.extend(batch.iter().map(|outgoing| outgoing.number));
                }
                Action::Report(at, acked, refused) if at < flying.len() => {
                    let number = flying.remove(at);
                    let verdict = match (acked, refused) {
                        (true, _) => Report::Acked,
                        (false, true) => rejected(),
                        (false, false) => failed(),
                    };
                    report(&queue, SHARD, number, verdict);
                }
                Action::Report(..) => {}
                Action::Lost => {
                    prop_assert_eq!(queue.producer_lost(SHARD), flying.len());
                    flying.clear();
                }
            }
        }
        // Kafka works again.
        for queue in [&queue, &dead] {
            queue.producer_lost(SHARD);
            loop {
                now += Duration::from_secs(10);
                let batch = queue.hand_over(now, Pacing::NONE, |_| Some(SHARD));
                if batch.is_empty() {
                    break;
                }
                for outgoing in batch {
                    report(queue, SHARD, outgoing.number, Report::Acked);
                }
            }
            let state = queue.lock();
            prop_assert_eq!((state.bytes, state.in_flight()), (0, 0));
        }
        prop_assert!(tickets.iter().all(|ticket| matches!(ticket.get(), Some(Settled::Durable(..)))));
        let text = queue.metrics.text();
        prop_assert!(text.contains("zim2kafka_kafka_in_flight_records 0\n"));
    }
}

#[test]
fn a_producer_that_has_enough_of_a_partition_gets_nothing_more_of_it_and_others_do() {
    let (queue, _) = queues();
    let pacing = Pacing {
        depth: 2,
        interval: Duration::from_secs(1),
        lapse: Duration::from_secs(60),
    };
    let start = Instant::now();
    // The two producers are asked in turn.
    let hand_over = |seconds: f64| -> Vec<u64> {
        let mut asked = 0;
        let route = |_| {
            asked += 1;
            Some(asked % 2)
        };
        let now = start + Duration::from_secs_f64(seconds);
        let batch = queue.hand_over(now, pacing, route);
        batch.iter().map(|outgoing| outgoing.number).collect()
    };
    enqueue(&queue, 1);
    assert_eq!(hand_over(0.0), [0]);
    enqueue(&queue, 3);
    // The first of them would go to the producer that has just got one.
    assert_eq!(hand_over(0.1), [2, 3]);
    assert_eq!(hand_over(0.2), [] as [u64; 0]);
    assert_eq!(hand_over(1.0), [1], "the other has two");
    enqueue(&queue, 2);
    assert_eq!(hand_over(9.0), [] as [u64; 0], "both have two");
    report(&queue, 1, 0, Report::Acked);
    assert_eq!(hand_over(9.0), [4]);
    assert_eq!(hand_over(68.0), [] as [u64; 0]);
    assert_eq!(
        hand_over(69.0),
        [5],
        "a stuck producer gets records as before"
    );
}
