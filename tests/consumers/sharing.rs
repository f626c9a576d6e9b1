//! Two instances that share the partitions of a topic, each with its own store.

use std::collections::BTreeSet;

use crate::instance::{Instance, Language};
use crate::ledger::{Ledger, Members};
use crate::records::{Event, Record, Topic, start};
use crate::script::{APP, T};
use crate::support::kafka::kafka;

const GROUPS: usize = 60;

pub(crate) fn takes_over_and_gives_back(language: Language) {
    let Some(kafka) = kafka() else { return };
    let topic = Topic::create(kafka, 6);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch =
        |name| Instance::start(language, kafka.brokers(), &topic.name, folder.path(), name);
    let in_each_group = |event: &dyn Fn(&str) -> Event| -> Vec<Record> {
        let groups = (0..GROUPS).map(|at| format!("group-{at}"));
        let events = groups.map(|group| event(&group).received_at(start()));
        events.map(|event| event.record()).collect()
    };
    let each_with = |users: &[&str]| -> Members {
        let users = || users.iter().map(|&user| user.to_owned()).collect();
        (0..GROUPS)
            .map(|at| ((APP.to_owned(), format!("group-{at}")), users()))
            .collect()
    };

    topic.publish(in_each_group(&|group| {
        Event::create(group, Some(&["ada", "bao"]), T)
    }));
    let mut first = launch("first");
    first.reads_to(&topic.ends());
    // The second one gets partitions of the first, and reads them from their beginning, because its
    // store is empty.
    let mut second = launch("second");
    second.is_assigned(1);
    topic.publish(in_each_group(&|group| Event::exit(group, &["ada"], T + 10)));
    let (mine, others) = both_read_to_the_end(&topic, &mut first, &mut second);
    assert!(
        mine < 6 && others < 6 && mine + others >= 6,
        "{mine} {others}"
    );

    // The other one is gone; the first one continues its partitions where it left them.
    second.kill();
    topic.publish(in_each_group(&|group| Event::join(group, &["cem"], T + 20)));
    first.reads_to(&topic.ends());
    assert_eq!(first.ledger().members(), each_with(&["bao", "cem"]));

    // It comes back with an old store, and continues there.
    let mut second = launch("second");
    second.is_assigned(2);
    topic.publish(in_each_group(&|group| Event::exit(group, &["bao"], T + 30)));
    let (_, others) = both_read_to_the_end(&topic, &mut first, &mut second);
    assert!(others > 0, "it has got no partition back");
    // A store is up to date for the partitions that its instance has.
    let stores = [first.ledger().members(), second.ledger().members()];
    for (group, users) in each_with(&["cem"]) {
        let is_current = |store: &Members| store.get(&group) == Some(&users);
        assert!(stores.iter().any(is_current), "{group:?} {stores:?}");
    }
    let users = BTreeSet::from(["cem".to_owned()]);
    assert!(
        stores[1].values().any(|found| *found == users),
        "{stores:?}"
    );
}

pub(crate) fn has_one_process_for_a_store(language: Language) {
    let Some(kafka) = kafka() else { return };
    let topic = Topic::create(kafka, 2);
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
    let mut first = launch();
    first.is_assigned(1);
    let mut second = launch();
    first.ends_by_itself();
    topic.publish([Event::join("g", &["ada"], T).received_at(start()).record()]);
    second.reads_to(&topic.ends());
}

/// Waits until each partition was read to its end by one of them, and returns by how many each.
fn both_read_to_the_end(
    topic: &Topic<'_>,
    first: &mut Instance,
    second: &mut Instance,
) -> (usize, usize) {
    let ends = topic.ends();
    let at_end = |ledger: &Ledger| {
        let mut positions = ledger.positions();
        positions.retain(|partition, position| ends.get(partition) == Some(position));
        positions
    };
    let store = second.store();
    first.wait_until("one of two reads to the end", |ledger| {
        let others = at_end(&Ledger::open(&store));
        let mine = at_end(ledger);
        ends.keys()
            .all(|partition| mine.contains_key(partition) || others.contains_key(partition))
    });
    (
        at_end(&first.ledger()).len(),
        at_end(&second.ledger()).len(),
    )
}
