mod model;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::callback::{RawCallback, Secrets, TimestampUnit, sign};
use crate::event::{self, Event};
use crate::kafka::Report;
use crate::spool::Row;

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

fn queues_on(disk: Option<Disk>) -> (Arc<Queue>, Arc<Queue>) {
    let metrics = Arc::new(Metrics::new());
    let queue = |dead_letters| {
        let queue = Queue::new(
            Arc::new(Sequence::from(1)),
            Arc::clone(&metrics),
            Arc::new(BrokerStatus::new(None)),
            Arc::default(),
            dead_letters,
        );
        Arc::new(match disk {
            Some(disk) => queue.with_disk(disk, Backlog::default(), KeyRows::default()),
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
    let batch = queue.hand_over(Instant::now(), route);
    let handed = batch
        .into_iter()
        .map(|outgoing| (outgoing.to, outgoing.number));
    handed.collect()
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

/// Writes these numbers to the disk that there is not.
fn spool(queue: &Queue, numbers: &[u64]) {
    let rows: Vec<Row> = {
        let state = queue.lock();
        let row = |number: &u64| Row::new(*number, Arc::clone(&state.fresh[number].record));
        numbers.iter().map(row).collect()
    };
    queue.mark_spooled(&rows);
}

const LATER: Disk = Disk {
    after: Duration::from_secs(3600),
};

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
fn a_failed_record_is_sent_again_and_its_partition_pauses_meanwhile() {
    let (queue, _) = queues();
    enqueue(&queue, 3);
    numbers(&queue);
    report(&queue, SHARD, 1, failed());
    report(&queue, SHARD, 0, Report::Acked);
    report(&queue, SHARD, 2, Report::Acked);
    queue.lock().partitions.pause(0, Instant::now());
    assert_eq!(numbers(&queue), [0_u64; 0]);
    let later = queue.hand_over(Instant::now() + Duration::from_secs(1), |_| Some(SHARD));
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
    let again = queue.hand_over(Instant::now(), |_| Some(BACKLOG));
    let again: Vec<_> = again.iter().map(|outgoing| outgoing.number).collect();
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
fn a_record_waits_for_the_rows_of_its_key_and_only_for_those() {
    let (queue, _) = queues_on(Some(LATER));
    let enqueue = |group| queue.enqueue(record_of(group, 0)).expect("there is space");
    let before = enqueue("a");
    let unanswered = enqueue("a");
    assert_eq!(numbers(&queue), [0, 1]);
    spool(&queue, &[0]);
    assert!(is_durable(&before, Durability::Spooled));
    let after = enqueue("a");
    enqueue("b");
    assert_eq!(
        numbers(&queue),
        [3],
        "2 waits for 0, which was answered before"
    );
    assert!(queue.spool_due().is_some_and(|due| due <= Instant::now()));
    report(&queue, SHARD, 0, failed());
    report(&queue, SHARD, 1, Report::Acked);
    assert!(is_durable(&unanswered, Durability::Published));
    assert_eq!(handed_over(&queue), [(BACKLOG, 0)], "2 still waits");
    report(&queue, BACKLOG, 0, Report::Acked);
    assert_eq!(queue.deletable_rows(), [0]);
    assert_eq!(handed_over(&queue), [(SHARD, 2)]);
    report(&queue, SHARD, 2, Report::Acked);
    report(&queue, SHARD, 3, Report::Acked);
    assert!(is_durable(&after, Durability::Published));
    assert!(is_empty(&queue));
}

#[test]
fn only_records_that_are_due_are_written() {
    let (queue, _) = queues_on(Some(LATER));
    enqueue(&queue, 3);
    let now = Instant::now();
    assert!(queue.due_rows(now, usize::MAX).is_empty());
    let due = queue.due_rows(now + LATER.after, usize::MAX);
    assert_eq!(due.len(), 3);
    assert_eq!(queue.due_rows(now + LATER.after, 1).len(), 1);
    queue.finish();
    assert_eq!(queue.due_rows(now, usize::MAX).len(), 3);
}

#[test]
fn a_row_that_is_settled_during_its_write_can_be_deleted() {
    let (queue, _) = queues_on(Some(LATER));
    enqueue(&queue, 1);
    numbers(&queue);
    let rows = queue.due_rows(Instant::now() + LATER.after, usize::MAX);
    report(&queue, SHARD, 0, Report::Acked);
    queue.mark_spooled(&rows);
    assert_eq!(queue.deletable_rows(), [0]);
    queue.mark_deleted(&[0]);
    assert!(queue.deletable_rows().is_empty() && is_empty(&queue));
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

#[test]
fn the_row_of_a_rejected_event_is_deleted_only_with_its_dead_letter() {
    let (queue, dead) = queues_on(Some(LATER));
    enqueue(&queue, 1);
    numbers(&queue);
    spool(&queue, &[0]);
    report(&queue, SHARD, 0, rejected());
    assert!(queue.deletable_rows().is_empty() && is_empty(&queue));
    assert!(queue.lock().replaced.contains(&0));
    numbers(&dead);
    report(&dead, SIDE, 0, Report::Acked);
    assert_eq!(dead.deletable_rows(), [0]);
    for queue in [&queue, &dead] {
        queue.mark_deleted(&[0]);
    }
    assert!(queue.lock().replaced.is_empty() && dead.deletable_rows().is_empty());
}

#[test]
fn rows_of_a_stuck_partition_do_not_stop_the_others() {
    let keys = KeyRows {
        rows: (0..4).map(|hash| (hash, 50)).collect(),
        untracked: 0,
    };
    let backlog = Backlog {
        rows: 200,
        last: Some(200),
    };
    let (queue, _) = queues();
    let queue = Arc::into_inner(queue).expect("it is not shared");
    let queue = queue.with_disk(LATER, backlog, keys);
    queue.set_partitions(2);
    let mut plan = queue.plan_read().expect("there are rows");
    // The first hundred rows are of one partition, which takes its share of them only.
    let (one, two) = (key_of_partition(0), key_of_partition(1));
    let wanted = |plan: &mut ReadPlan, rows: std::ops::Range<u64>, key: &[u8]| {
        rows.filter(|number| plan.wants(*number, Some(key))).count()
    };
    let stuck = wanted(&mut plan, 1..101, one.as_bytes());
    let others = wanted(&mut plan, 101..201, two.as_bytes());
    assert!(stuck > 0 && stuck < 50, "{stuck}");
    assert!(others > 0, "{others}");
    let records = (1..=stuck as u64).map(|number| (number, record_of(&one, 0)));
    queue
        .add_from_disk(&plan, records.collect(), 200, true)
        .expect("nothing is missing");
    let mut next = queue.plan_read().expect("there are more rows");
    assert_eq!(next.after, 100 + others as u64);
    assert!(!next.wants(next.after + 1, Some(one.as_bytes())));
    assert!(next.wants(next.after + 1, Some(two.as_bytes())));
}

/// A group whose key is in this one of two partitions.
fn key_of_partition(partition: u32) -> String {
    let groups = (0..).map(|group| format!("g{group}"));
    let mut groups = groups.filter(|group| event::key_hash(group.as_bytes()) % 2 == partition);
    groups.next().expect("there is one")
}

#[test]
fn nothing_more_is_read_while_too_many_rows_wait_for_deletion_unless_deleting_fails() {
    let (queue, _) = queues_on(Some(LATER));
    let mut state = queue.lock();
    assert!(state.may_read());
    for number in 0..MAX_UNDELETED_ROWS as u64 {
        state.mark_deletable(number);
    }
    assert!(!state.may_read());
    state.last_deletion -= Duration::from_secs(3);
    assert!(
        state.may_read(),
        "a disk that deletes nothing holds up nothing"
    );
    drop(state);
    queue.mark_deleted(&[0]);
    assert!(queue.lock().may_read());
    queue.finish();
    assert!(!queue.lock().may_read());
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
                    let batch = queue.hand_over(now, |_| Some(SHARD));
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
                let batch = queue.hand_over(now, |_| Some(SHARD));
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
