mod model;

use proptest::prelude::*;
use serde_json::json;

use super::state::STALL_TIMEOUT;
use super::*;
use crate::callback::{RawCallback, Secrets, TimestampUnit, sign};
use crate::event::{self, Event};
use crate::kafka::{MAX_IN_FLIGHT_RECORDS, Report};

/// A record of a real callback, with a note that makes it as large as wanted.
fn record(note: usize) -> Record {
    let (timestamp, nonce) = ("1757577600123", "1");
    let body = json!({
        "appid": "1", "event": "group_join", "group_id": "g", "join_type": "Apply",
        "new_user_ids": ["u"], "note": "x".repeat(note), "timestamp": timestamp, "nonce": nonce,
        "signature": sign("s", timestamp, nonce).to_hex(),
    });
    let raw = RawCallback {
        body: body.to_string().into(),
        content_type: None,
        received_at: 0,
    };
    let json = raw.json().expect("JSON");
    let secrets = Secrets::parse_list("1=s").expect("valid");
    let callback = json.decode().expect("a callback");
    let callback = secrets
        .authenticate(callback, TimestampUnit::Auto)
        .expect("authentic");
    let Event::GroupJoined(_) = event::read(&callback).expect("an event");
    event::read(&callback)
        .and_then(|event| event.record())
        .expect("a record")
}

/// A queue of events and one of dead letters, each with its first producer.
fn queues() -> (Arc<Queue>, Arc<Queue>) {
    let metrics = Arc::new(Metrics::new());
    let queue = |dead_letters| {
        let status = Arc::new(BrokerStatus::new(None));
        let numbers = Sequence::default();
        let queue = Queue::new(numbers, Arc::clone(&metrics), status, dead_letters);
        Arc::new(queue)
    };
    let dead = queue(None);
    let events = queue(Some(Arc::clone(&dead)));
    assert_eq!((events.begin_generation(), dead.begin_generation()), (1, 1));
    (events, dead)
}

fn enqueue(queue: &Queue, count: usize) -> Vec<Arc<Ticket>> {
    (0..count)
        .map(|_| queue.enqueue(record(0)).expect("there is space"))
        .collect()
}

/// The numbers that are handed over now, if any are.
fn handed_over(queue: &Queue) -> Vec<u64> {
    let batch = queue.lock().hand_over();
    queue.metrics.entered_flight(batch.len());
    batch.into_iter().map(|(number, _)| number).collect()
}

/// The first number in the window, and how many entries there are in it.
fn extent(queue: &Queue) -> (Option<u64>, usize) {
    let state = queue.lock();
    (
        state.window.front().map(|entry| entry.number),
        state.window.len(),
    )
}

fn is_empty(queue: &Queue) -> bool {
    let state = queue.lock();
    state.window.is_empty() && state.backlog == 0 && state.tail.is_empty()
}

/// A report, and the publisher's next turn.
fn report(queue: &Queue, generation: u64, number: u64, report: Report<'_>) {
    queue.report(generation, number, report);
    queue.notify_acked();
}

fn is_durable(ticket: &Ticket, wanted: Durability) -> bool {
    matches!(ticket.get(), Some(Settled::Durable(safe, _)) if *safe == wanted)
}

#[test]
fn numbers_are_handed_over_in_order_and_leave_at_the_front_only() {
    let (queue, _) = queues();
    let tickets = enqueue(&queue, 3);
    assert_eq!(handed_over(&queue), [0, 1, 2]);
    assert_eq!(handed_over(&queue), [0_u64; 0]);
    report(&queue, 1, 1, Report::Acked);
    assert!(is_durable(&tickets[1], Durability::Published));
    assert_eq!(extent(&queue), (Some(0), 3));
    report(&queue, 1, 0, Report::Acked);
    assert_eq!(extent(&queue), (Some(2), 1));
    report(&queue, 1, 2, Report::Acked);
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
    assert_eq!(queue.lock().tail.len(), fit);
    handed_over(&queue);
    report(&queue, 1, 0, Report::Acked);
    queue
        .enqueue(record(500_000))
        .expect("there is space again");
    assert_eq!(queue.enqueue(record(500_000)).map(|_| ()), Err(Full));
}

#[test]
fn records_settled_behind_a_stuck_one_still_count_in_the_window() {
    let (queue, _) = queues();
    enqueue(&queue, MAX_IN_FLIGHT_RECORDS + 1);
    let mut handed = Vec::new();
    while handed.len() < MAX_IN_FLIGHT_RECORDS {
        handed.extend(handed_over(&queue));
    }
    for number in 1..MAX_IN_FLIGHT_RECORDS as u64 {
        report(&queue, 1, number, Report::Acked);
    }
    assert_eq!(
        queue.lock().bytes,
        2 * (record(0).size() + RECORD_OVERHEAD_BYTES)
    );
    assert_eq!(handed_over(&queue), [0_u64; 0]);
    report(&queue, 1, 0, Report::Acked);
    assert_eq!(handed_over(&queue), [MAX_IN_FLIGHT_RECORDS as u64]);
}

#[test]
fn a_new_producer_gets_everything_that_is_not_settled_from_the_front() {
    let (queue, _) = queues();
    enqueue(&queue, 4);
    handed_over(&queue);
    report(&queue, 1, 1, Report::Acked);
    report(&queue, 1, 0, Report::Failed("no more"));
    let Step::RecreateProducer { reason, progress } = queue.next_step() else {
        panic!("it has failed")
    };
    assert_eq!((reason.as_str(), progress), ("no more", true));
    assert_eq!(queue.begin_generation(), 2);
    // Of the old producer, only acknowledgements count.
    report(&queue, 1, 3, Report::Acked);
    report(&queue, 1, 2, Report::Failed("late"));
    assert_eq!(handed_over(&queue), [0, 2]);
    report(&queue, 2, 0, Report::Acked);
    report(&queue, 2, 2, Report::Acked);
    assert!(is_empty(&queue));
}

#[test]
fn a_refused_batch_is_sent_again_one_by_one_and_only_one_refused_alone_is_a_dead_letter() {
    let (queue, dead) = queues();
    let tickets = enqueue(&queue, 3);
    handed_over(&queue);
    for number in 0..2 {
        report(&queue, 1, number, Report::Rejected("too large"));
    }
    report(&queue, 1, 2, Report::Failed("purged"));
    assert!(tickets.iter().all(|ticket| ticket.get().is_none()));
    queue.begin_generation();
    assert_eq!(handed_over(&queue), [0]);
    report(&queue, 2, 0, Report::Acked);
    assert_eq!(handed_over(&queue), [1]);
    assert_eq!(
        handed_over(&queue),
        [0_u64; 0],
        "nothing follows a record that is sent alone"
    );
    report(&queue, 2, 1, Report::Rejected("too large"));
    assert!(tickets[1].get().is_none(), "its dead letter is pending");
    assert!(
        matches!(queue.next_step(), Step::RecreateProducer { .. }),
        "the producer has failed"
    );
    queue.begin_generation();
    assert_eq!(handed_over(&queue), [2]);
    report(&queue, 3, 2, Report::Acked);
    assert!(is_empty(&queue));

    assert_eq!(handed_over(&dead), [0]);
    report(&dead, 1, 0, Report::Acked);
    assert!(is_durable(&tickets[0], Durability::Published));
    assert!(is_durable(&tickets[1], Durability::DeadLettered));
    assert!(is_durable(&tickets[2], Durability::Published));
}

#[test]
fn nothing_is_sent_with_a_record_that_is_sent_alone_even_if_the_next_one_is_settled() {
    let (queue, _) = queues();
    enqueue(&queue, 4);
    handed_over(&queue);
    // 0, 1 and 3 are on one partition, 2 is on another and through.
    report(&queue, 1, 2, Report::Acked);
    report(&queue, 1, 0, Report::Rejected("too large"));
    report(&queue, 1, 1, Report::Rejected("too large"));
    report(&queue, 1, 3, Report::Failed("purged"));
    queue.begin_generation();
    assert_eq!(handed_over(&queue), [0]);
    report(&queue, 2, 0, Report::Acked);
    assert_eq!(handed_over(&queue), [1]);
    assert_eq!(handed_over(&queue), [0_u64; 0]);
    report(&queue, 2, 1, Report::Acked);
    assert_eq!(handed_over(&queue), [3]);
}

#[test]
fn an_event_whose_dead_letter_is_refused_too_is_not_durable() {
    let (queue, dead) = queues();
    let tickets = enqueue(&queue, 1);
    handed_over(&queue);
    report(&queue, 1, 0, Report::Rejected("too old"));
    queue.begin_generation();
    handed_over(&queue);
    report(&queue, 2, 0, Report::Rejected("too old"));
    for generation in 1..=2 {
        assert!(tickets[0].get().is_none());
        assert_eq!(handed_over(&dead), [0]);
        report(&dead, generation, 0, Report::Rejected("too large"));
        dead.begin_generation();
    }
    assert_eq!(tickets[0].get(), Some(&Settled::Refused));
    assert!(is_empty(&dead));
}

#[test]
fn a_producer_that_acknowledges_nothing_is_replaced_after_growing_timeouts() {
    let (queue, _) = queues();
    enqueue(&queue, 1);
    handed_over(&queue);
    assert!(!queue.lock().is_stalled());
    queue.lock().stall_timeout = Duration::ZERO;
    assert!(matches!(
        queue.next_step(),
        Step::RecreateProducer {
            progress: false,
            ..
        }
    ));
    queue.begin_generation();
    queue.lock().stall_timeout = STALL_TIMEOUT;
    handed_over(&queue);
    queue.lock().last_progress -= STALL_TIMEOUT;
    assert!(matches!(queue.next_step(), Step::RecreateProducer { .. }));
    assert_eq!(queue.lock().stall_timeout, 2 * STALL_TIMEOUT);
    queue.begin_generation();
    handed_over(&queue);
    report(&queue, 3, 0, Report::Acked);
    assert_eq!(queue.lock().stall_timeout, STALL_TIMEOUT);
}

#[test]
fn unsent_records_end_the_producer_and_go_to_the_next_one() {
    let (queue, _) = queues();
    enqueue(&queue, 3);
    handed_over(&queue);
    queue.return_unsent(1, 2, "fatal");
    assert!(matches!(queue.next_step(), Step::RecreateProducer { .. }));
    queue.begin_generation();
    assert_eq!(handed_over(&queue), [0, 1, 2]);
}

#[test]
fn tickets_are_resolved_although_nothing_is_left_to_send_and_also_after_a_failure() {
    let (queue, _) = queues();
    let tickets = enqueue(&queue, 3);
    assert_eq!(handed_over(&queue), [0, 1, 2]);
    queue.report(1, 0, Report::Acked);
    assert!(tickets[0].get().is_none());
    assert!(matches!(queue.next_step(), Step::NotifyAcked));
    queue.notify_acked();
    assert!(is_durable(&tickets[0], Durability::Published));

    queue.report(1, 1, Report::Acked);
    queue.report(1, 2, Report::Failed("gone"));
    assert!(queue.has_failed());
    assert!(matches!(queue.next_step(), Step::RecreateProducer { .. }));
    assert_eq!(queue.begin_generation(), 2);
    queue.notify_acked();
    assert!(is_durable(&tickets[1], Durability::Published));
    assert!(tickets[2].get().is_none());
    assert_eq!(handed_over(&queue), [2]);
}

#[test]
fn a_stopped_queue_ends_its_publisher() {
    let (queue, _) = queues();
    enqueue(&queue, 1);
    queue.stop();
    assert!(matches!(queue.next_step(), Step::Stop));
    assert!(queue.wait_for_stop(Duration::ZERO));
}

#[derive(Debug, Clone)]
enum Action {
    Enqueue,
    HandOver,
    /// Of the oldest record in flight, or of a later one.
    Report(usize, bool, bool),
    StartOver,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Enqueue),
        3 => Just(Action::HandOver),
        5 => (0..3_usize, prop::bool::weighted(0.7), any::<bool>()).prop_map(|(at, acked, refused)| Action::Report(at, acked, refused)),
        1 => Just(Action::StartOver),
    ]
}

proptest! {
    /// Within a generation numbers are handed over in order, nothing is in flight with a record
    /// that is sent alone, and once everything is reported, all tickets are resolved.
    #[test]
    fn nothing_is_lost_and_nothing_overtakes(steps in prop::collection::vec(action(), 1..120)) {
        let (queue, dead) = queues();
        let (mut tickets, mut flying, mut generation, mut last) = (Vec::new(), Vec::<u64>::new(), 1, None);
        let hand_over = |flying: &mut Vec<u64>, last: &mut Option<u64>| {
            let batch = handed_over(&queue);
            for number in &batch {
                assert!(last.is_none_or(|last| last < *number), "{number} overtakes {last:?}");
                *last = Some(*number);
            }
            flying.extend(batch);
            let alone = flying.iter().any(|number| queue.lock().entry(*number).is_some_and(|entry| entry.alone));
            assert!(!alone || flying.len() == 1, "{flying:?}");
        };
        let begin_generation = |flying: &mut Vec<u64>, last: &mut Option<u64>, generation: &mut u64| {
            flying.clear();
            *last = None;
            *generation = queue.begin_generation();
        };
        for step in steps {
            match step {
                Action::Enqueue => tickets.extend(enqueue(&queue, 1)),
                Action::HandOver => hand_over(&mut flying, &mut last),
                Action::Report(at, acked, refused) if at < flying.len() => {
                    let number = flying.remove(at);
                    let verdict = match (acked, refused) {
                        (true, _) => Report::Acked,
                        (false, true) => Report::Rejected("refused"),
                        (false, false) => Report::Failed("failed"),
                    };
                    report(&queue, generation, number, verdict);
                }
                Action::Report(..) => {}
                Action::StartOver => begin_generation(&mut flying, &mut last, &mut generation),
            }
        }
        // Kafka works again.
        while !is_empty(&queue) {
            begin_generation(&mut flying, &mut last, &mut generation);
            loop {
                hand_over(&mut flying, &mut last);
                if flying.is_empty() {
                    break;
                }
                for number in flying.drain(..) {
                    report(&queue, generation, number, Report::Acked);
                }
            }
        }
        for number in handed_over(&dead) {
            report(&dead, 1, number, Report::Acked);
        }
        prop_assert!(tickets.iter().all(|ticket| matches!(ticket.get(), Some(Settled::Durable(..)))));
        prop_assert_eq!(queue.lock().bytes, 0);
        prop_assert_eq!(queue.lock().in_flight, 0);
        prop_assert_eq!(dead.lock().bytes, 0);
        let text = queue.metrics.text();
        prop_assert!(text.contains("zim2kafka_kafka_in_flight_records 0\n"));
    }
}

#[test]
fn nothing_more_is_read_while_too_many_rows_wait_for_deletion() {
    let (metrics, status) = (Arc::new(Metrics::new()), Arc::new(BrokerStatus::new(None)));
    let queue = Queue::new(Sequence::default(), metrics, status, None);
    let disk = Disk {
        wakeup: Arc::default(),
        after: Duration::ZERO,
    };
    let rows = MAX_UNDELETED_ROWS + 1;
    let last = Some(rows as u64 - 1);
    let queue = queue.with_disk(disk, Backlog { rows, last });
    let generation = queue.begin_generation();
    for number in 0..MAX_UNDELETED_ROWS as u64 {
        assert!(matches!(queue.next_step(), Step::Read { .. }), "{number}");
        queue.add_from_disk(vec![(number, record(0))]);
        assert_eq!(handed_over(&queue), [number]);
        report(&queue, generation, number, Report::Acked);
    }
    // Asking for them changes nothing: they are still on disk.
    assert_eq!(queue.deletable_rows().len(), MAX_UNDELETED_ROWS);
    assert!(!queue.lock().wants_backlog());
    queue.mark_deleted(1);
    assert_eq!(queue.deletable_rows().first(), Some(&1));
    assert!(matches!(queue.next_step(), Step::Read { .. }));
}

#[test]
fn no_start_gives_a_number_again() {
    let start = |lane, last, milliseconds| {
        let now = UNIX_EPOCH + Duration::from_millis(milliseconds);
        Sequence::after(lane, last, now).next()
    };
    for lane in [Lane::Events, Lane::DeadLetters] {
        let last = start(lane, None, 1_800_000_000_000);
        assert!(start(lane, None, 1_800_000_000_001) >= last + 1_000_000);
        // Rows on disk count, whatever the clock shows.
        assert_eq!(start(lane, Some(last), 1_700_000_000_000), last + 1);
    }
    // SQLite's numbers end at 2^63. Until 2109 the lanes' do not meet.
    let late = 4_300_000_000_000;
    assert!(start(Lane::DeadLetters, None, late) < start(Lane::Events, None, 0));
    assert!(i64::try_from(start(Lane::Events, None, late)).is_ok());
}
