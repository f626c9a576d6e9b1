//! The queue with a disk.

use std::collections::BTreeMap;

use super::*;
use crate::spool::{KeyRows, Row};

const LATER: Disk = Disk {
    after: Duration::from_secs(3600),
};

/// Writes these numbers to the disk that there is not.
fn spool(queue: &Queue, numbers: &[u64]) {
    let rows: Vec<Row> = {
        let state = queue.lock();
        let row = |number: &u64| Row::new(*number, Arc::clone(&state.fresh[number].record));
        numbers.iter().map(row).collect()
    };
    queue.mark_spooled(&rows);
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
        keys,
    };
    let (queue, _) = queues();
    let queue = Arc::into_inner(queue).expect("it is not shared");
    let queue = queue.with_disk(LATER, backlog);
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

/// A queue with rows of these keys that an earlier run left, and how many of them have been read.
/// They have numbers behind those of the records that follow.
fn queue_with_rows(keys: &[&str]) -> (Queue, usize) {
    let mut rows = BTreeMap::new();
    for key in keys {
        *rows.entry(event::key_hash(key.as_bytes())).or_default() += 1;
    }
    let backlog = Backlog {
        rows: keys.len(),
        last: Some(100 + keys.len() as u64),
        keys: KeyRows {
            rows: rows.into_iter().collect(),
            untracked: 0,
        },
    };
    let (queue, _) = queues();
    let queue = Arc::into_inner(queue).expect("it is not shared");
    let queue = queue.with_disk(LATER, backlog);
    let mut plan = queue.plan_read().expect("there are rows");
    let wanted = (101..)
        .zip(keys)
        .filter(|(number, key)| plan.wants(*number, Some(key.as_bytes())));
    let read: Vec<_> = wanted
        .map(|(number, key)| (number, record_of(key, 0)))
        .collect();
    let count = read.len();
    let end = read.last().map_or(0, |(number, _)| *number);
    queue
        .add_from_disk(&plan, read, end, false)
        .expect("nothing is missing");
    (queue, count)
}

#[test]
fn rows_whose_producer_is_not_there_do_not_hold_up_what_is_not_on_disk() {
    let (queue, count) = queue_with_rows(&["a", "b", "c", "d", "e", "f", "h", "i"]);
    assert!(count > 2);
    let mut fresh = Vec::new();
    for _ in 0..3 {
        queue.enqueue(record(0)).expect("there is space");
        let route = |via| matches!(via, Via::Shard(_)).then_some(SHARD);
        let batch = queue.hand_over(Instant::now(), Pacing::NONE, route);
        fresh.extend(batch.iter().map(|outgoing| outgoing.number));
    }
    assert_eq!(fresh.len(), 3);
    // Both get their turn once the producer is there.
    enqueue(&queue, 3);
    let handed: Vec<ProducerId> = handed_over(&queue).into_iter().map(|(to, _)| to).collect();
    let in_turn = handed.windows(2).take(5).all(|pair| pair[0] != pair[1]);
    assert!(in_turn && handed.len() == count + 3, "{handed:?}");
}

#[test]
fn a_run_whose_producer_is_not_there_does_not_hold_up_rows_of_other_keys() {
    let (queue, count) = queue_with_rows(&["run", "run", "run", "run", "a", "a"]);
    assert_eq!(count, 6);
    let hand_over = || {
        let without_runs = |via| (via != Via::Run).then_some(BACKLOG);
        let batch = queue.hand_over(Instant::now(), Pacing::NONE, without_runs);
        let numbers = batch.iter().map(|outgoing| outgoing.number);
        numbers.collect::<Vec<u64>>()
    };
    assert_eq!(hand_over(), [101, 105]);
    report(&queue, BACKLOG, 101, Report::Acked);
    assert!(hand_over().is_empty(), "the rest of its key is a run now");
    report(&queue, BACKLOG, 105, Report::Acked);
    assert_eq!(hand_over(), [106]);
    assert_eq!(handed_over(&queue), [(RUN, 102)]);
}

#[test]
fn the_first_record_of_a_run_goes_alone_to_each_producer() {
    let (queue, _) = queue_with_rows(&["a", "a", "a", "a", "a"]);
    let to = |producer| {
        let route = |via| (via == Via::Run).then_some(producer);
        let mut numbers = Vec::new();
        loop {
            let batch = queue.hand_over(Instant::now(), Pacing::NONE, route);
            if batch.is_empty() {
                return numbers;
            }
            numbers.extend(batch.iter().map(|outgoing| outgoing.number));
        }
    };
    assert_eq!(
        numbers(&queue),
        [101],
        "one row, before there were enough of them"
    );
    report(&queue, BACKLOG, 101, Report::Acked);
    assert_eq!(to(7), [102]);
    assert!(to(7).is_empty(), "Kafka may not know the producer");
    report(&queue, 7, 102, Report::Acked);
    assert_eq!(to(7), [103, 104, 105]);
    queue.producer_lost(7);
    assert_eq!(to(8), [103]);
    report(&queue, 8, 103, Report::Acked);
    assert_eq!(to(8), [104, 105]);
}

#[test]
fn rows_after_which_kafka_may_forget_the_producer_go_one_by_one() {
    let (queue, _) = queue_with_rows(&["a", "a", "a", "a", "a", "a"]);
    let next = || handed_over(&queue);
    assert_eq!(next(), [(BACKLOG, 101)]);
    // Released as a run, which is too old now.
    report(&queue, BACKLOG, 101, Report::Acked);
    queue.set_producer_expiration(Duration::from_secs(86_400));
    for number in 102..=106 {
        assert_eq!(next(), [(RUN, number)]);
        report(&queue, RUN, number, Report::Acked);
    }
    // Read when it was known that they are too old.
    let (queue, _) = queue_with_rows(&["a", "a", "a", "a", "a", "a"]);
    queue.set_producer_expiration(Duration::from_secs(86_400));
    for number in 101..=106 {
        assert_eq!(handed_over(&queue), [(BACKLOG, number)]);
        report(&queue, BACKLOG, number, Report::Acked);
    }
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

#[test]
fn a_row_is_not_added_before_an_earlier_one_that_was_written_after_the_plan() {
    let (queue, _) = queues_on(Some(LATER));
    let enqueue = |group| queue.enqueue(record_of(group, 0)).expect("there is space");
    enqueue("a");
    enqueue("b");
    // The first one waits for its producer.
    spool(&queue, &[1]);
    let mut plan = queue.plan_read().expect("there is a row");
    assert!(plan.wants(1, Some(b"b")));
    let read = vec![(1, record_of("b", 0))];
    (queue.add_from_disk(&plan, read, 1, true)).expect("nothing is missing");
    enqueue("b");
    spool(&queue, &[2]);
    let mut plan = queue.plan_read().expect("there is a row");
    // Meanwhile the first one and a later one of its key are written.
    spool(&queue, &[0]);
    enqueue("a");
    spool(&queue, &[3]);
    let wanted = (0..4).filter(|number| plan.wants(*number, Some(b"a")));
    assert_eq!(wanted.collect::<Vec<_>>(), [2, 3]);
    let read = vec![(2, record_of("b", 0)), (3, record_of("a", 0))];
    (queue.add_from_disk(&plan, read, 3, true)).expect("nothing is missing");
    assert_eq!(numbers(&queue), [1], "3 waits for 0");
    let plan = queue.plan_read().expect("there are rows");
    assert_eq!(plan.after, 0);
}

#[test]
fn dead_letters_on_disk_are_read_for_all_partitions() {
    let (_, dead) = queues();
    let dead = Arc::into_inner(dead).expect("it is not shared");
    let backlog = Backlog {
        rows: 2,
        last: Some(2),
        keys: KeyRows::default(),
    };
    let dead = dead.with_disk(LATER, backlog);
    dead.set_partitions(2);
    let mut plan = dead.plan_read().expect("there are rows");
    for partition in 0..2 {
        let key = key_of_partition(partition);
        assert!(plan.wants(1 + u64::from(partition), Some(key.as_bytes())));
    }
}

/// A group whose key is in this one of two partitions.
fn key_of_partition(partition: u32) -> String {
    let groups = (0..).map(|group| format!("g{group}"));
    let mut groups = groups.filter(|group| event::key_hash(group.as_bytes()) % 2 == partition);
    groups.next().expect("there is one")
}

fn acknowledge_all(dead: &Queue) {
    while !is_empty(dead) {
        for number in numbers(dead) {
            report(dead, SIDE, number, Report::Acked);
        }
    }
}

#[test]
fn records_on_disk_take_no_share_of_the_records_in_memory() {
    let (queue, _) = queues_for(2, Some(LATER));
    enqueue(&queue, 2);
    assert_eq!(numbers(&queue), [0, 1]);
    spool(&queue, &[0]);
    enqueue(&queue, 1);
    assert_eq!(queue.enqueue(record(0)).map(|_| ()), Err(Full));
}

#[test]
fn a_dead_letter_that_finds_no_space_is_made_once_there_is_space() {
    let (queue, dead) = queues_on(Some(LATER));
    queue.enqueue(record(800_000)).expect("there is space");
    assert_eq!(numbers(&queue), [0]);
    spool(&queue, &[0]);
    while dead.enqueue(record(800_000)).is_ok() {}
    report(&queue, SHARD, 0, rejected());
    assert_eq!(queue.unmarked_refused(), [0]);
    queue.mark_refused(&[0]);
    assert!(queue.unmarked_refused().is_empty());
    assert!(!dead.has_space());
    acknowledge_all(&dead);
    assert!(dead.has_space() && dead.replaced_rows().is_empty());
    dead.enqueue_letter_of(0, &record(0))
        .expect("there is space");
    assert!(dead.replaced_rows().contains(&0), "it is on its way");
    acknowledge_all(&dead);
    assert!(dead.replaced_rows().contains(&0), "it is to be deleted");
    assert_eq!(dead.deletable_rows(), [0]);
    dead.mark_deleted(&[0]);
    assert!(dead.replaced_rows().is_empty());
}

#[test]
fn a_dead_letter_that_is_rejected_before_it_is_on_disk_is_written_as_refused() {
    let (_, dead) = queues_on(Some(LATER));
    let letter = record(0).rejected("too large");
    let ticket = dead.enqueue(letter).expect("there is space");
    assert_eq!(handed_over(&dead), [(SIDE, 0)]);
    report(&dead, SIDE, 0, rejected());
    assert!(ticket.get().is_none(), "it is in memory only");
    assert_eq!(numbers(&dead), [0_u64; 0], "Kafka would reject it again");
    let rows = dead.due_rows(Instant::now(), usize::MAX);
    assert_eq!(rows.len(), 1);
    assert!(rows[0].refused);
    dead.mark_spooled(&rows);
    assert!(is_durable(&ticket, Durability::DeadLettered));
    assert!(is_empty(&dead) && dead.unmarked_refused().is_empty());
}
