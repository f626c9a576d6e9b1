//! A consumer that is killed in the middle of its work, and started again.

use std::collections::{BTreeMap, BTreeSet};

use crate::instance::{Instance, Language};
use crate::records::{Event, Record, Topic, start};
use crate::script::{APP, T, cases, expected, reasons, unreadable};
use crate::support::kafka::kafka;

const ROUNDS: usize = 4;

/// Events of busy groups in each round, so that a kill interrupts something.
const EVENTS_PER_ROUND: usize = 4_000;

/// Each user has two events in a group. Every fifth one leaves, and the join that preceded this is
/// published behind it, often in another run of the consumer.
fn busy(at: usize) -> Event {
    let group = format!("busy-{}", at % 40);
    let (user, is_second) = (at / 80, at / 40 % 2 == 1);
    let name = format!("user-{user}");
    let event = match (leaves(user), is_second) {
        (true, false) => Event::exit(&group, &[&name], T + 10),
        (true, true) | (false, false) => Event::join(&group, &[&name], T),
        (false, true) => Event::join(&group, &[&name], T + 10),
    };
    event.received_at(start())
}

fn leaves(user: usize) -> bool {
    user.is_multiple_of(5)
}

fn sum(positions: &BTreeMap<String, i64>) -> i64 {
    positions.values().sum()
}

pub(crate) fn keeps_the_member_lists_through_kills(language: Language) {
    let Some(kafka) = kafka() else { return };
    let topic = Topic::create(kafka, 3);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = || {
        Instance::start(
            language,
            kafka.brokers(),
            &topic.name,
            folder.path(),
            "members",
        )
    };

    // The events of the cases alternate, and each round has its share of all records.
    let cases = cases();
    let longest = cases.iter().map(|case| case.events.len()).max();
    let events = (0..longest.expect("there are cases"))
        .flat_map(|at| cases.iter().filter_map(move |case| case.events.get(at)));
    let events: Vec<Record> = events.map(Event::record).collect();
    let unreadable = unreadable();
    let share = |of: usize, round: usize| of * round / ROUNDS..of * (round + 1) / ROUNDS;

    let mut instance = launch();
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let before = sum(&instance.ledger().positions());
        let busy = share(ROUNDS * EVENTS_PER_ROUND, round).map(|at| busy(at).record());
        let mut records: Vec<Record> = busy.collect();
        let events = events[share(events.len(), round)].iter().cloned();
        let unreadable = unreadable[share(unreadable.len(), round)].iter();
        let rest: Vec<_> = events
            .chain(unreadable.map(|(_, record)| record.clone()))
            .collect();
        let gap = records.len() / (rest.len() + 1);
        for (index, record) in rest.into_iter().enumerate() {
            records.insert(gap * (index + 1) + index, record);
        }
        topic.publish(records);
        instance.wait_until("reads on", |ledger| sum(&ledger.positions()) > before);
        instance.kill();
        instance = launch();
        let read = sum(&instance.ledger().positions());
        interrupted += usize::from(read < sum(&topic.ends()));
    }
    assert!(interrupted > 0, "no kill came before the end of a round");

    // Records that are published again later (header `redriven: true`) are published in
    // transactions, and count once these are committed.
    instance.kill();
    let late = |user| Event::join("in-a-transaction", &[user], T).received_at(start());
    topic.publish_in_transaction(vec![late("ghost").redriven().record()], false);
    topic.publish_in_transaction(vec![late("ada").redriven().record()], true);
    let last = [
        Event::join("a-life", &["zoe"], T + 100),
        Event::join("a-join-that-is-late", &["zoe"], T + 100),
        late("ada"),
    ];
    let last = last.map(|event| event.received_at(start()).record());
    let mut instance = launch();
    topic.publish(last);
    instance.reads_to(&topic.ends());
    instance.prints("app 1234567890 group a-life: 4 members");
    instance.prints("app 1234567890 group a-join-that-is-late: 3 known members");

    let mut members = expected(&cases);
    let mut add = |group: &str, user: &str| {
        let group = (APP.to_owned(), group.to_owned());
        members.entry(group).or_default().insert(user.to_owned());
    };
    add("a-life", "zoe");
    add("a-join-that-is-late", "zoe");
    add("in-a-transaction", "ada");
    for at in 0..ROUNDS * EVENTS_PER_ROUND {
        if !leaves(at / 80) {
            add(&format!("busy-{}", at % 40), &format!("user-{}", at / 80));
        }
    }
    let found = instance.ledger().members();
    let groups: BTreeSet<_> = found.keys().chain(members.keys()).collect();
    for group in groups {
        assert_eq!(found.get(group), members.get(group), "{group:?}");
    }

    let mut counts = reasons(&unreadable);
    let case_events = i64::try_from(events.len()).expect("it is small");
    let duplicates: i64 = cases.iter().map(|case| case.duplicates).sum();
    let busy = i64::try_from(ROUNDS * EVENTS_PER_ROUND).expect("it is small");
    counts.insert("duplicates".to_owned(), duplicates + 1);
    counts.insert("events".to_owned(), case_events - duplicates + busy + 3);
    assert_eq!(instance.ledger().counts(), counts);
}
