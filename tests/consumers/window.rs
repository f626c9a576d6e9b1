//! How long an id is remembered, and what that costs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::instance::{Instance, Language};
use crate::records::{Event, HOUR, MINUTE, Topic, start};
use crate::script::T;
use crate::support::kafka::{Kafka, kafka};

/// The number in the documents, AsyncAPI and the scaling page; `tests/it/consumers.rs` compares them.
const WINDOW: i64 = 60 * MINUTE;

pub(crate) fn remembers_an_id_for_the_window(language: Language) {
    let Some(kafka) = kafka() else { return };
    let topic = Topic::create(kafka, 1);
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
    let at = start();
    let join = |user: &str, received_at| Event::join("g", &[user], T).received_at(received_at);
    let counts = |events: i64, duplicates: i64| {
        let all = [("events", events), ("duplicates", duplicates)];
        let all = all.map(|(name, count)| (name.to_owned(), count));
        BTreeMap::from_iter(all.into_iter().filter(|(_, count)| *count > 0))
    };
    let ids = |users: &[&str]| -> BTreeSet<String> {
        users.iter().map(|user| join(user, 0).id()).collect()
    };

    topic.publish([join("ada", at).record()]);
    let mut instance = launch();
    instance.reads_to(&topic.ends());
    assert_eq!(instance.ledger().counts(), counts(1, 0));

    // Also in the next run, which goes by the records' time and not by its own clock. An old record
    // does not turn that time back.
    instance.kill();
    let old = join("bao", at - 10 * HOUR).redriven();
    topic.publish([
        old.record(),
        join("ada", at + WINDOW).record(),
        old.record(),
    ]);
    let mut instance = launch();
    instance.reads_to(&topic.ends());
    assert_eq!(instance.ledger().counts(), counts(2, 2));
    assert_eq!(instance.ledger().seen(), ids(&["ada", "bao"]));

    topic.publish([join("cem", at + WINDOW + 1).record()]);
    instance.reads_to(&topic.ends());
    assert_eq!(instance.ledger().seen(), ids(&["cem"]));
    topic.publish([join("ada", at + WINDOW + 2).record()]);
    instance.reads_to(&topic.ends());
    assert_eq!(instance.ledger().counts(), counts(4, 2));
    assert_eq!(
        instance
            .ledger()
            .members()
            .values()
            .map(BTreeSet::len)
            .sum::<usize>(),
        3
    );

    // A record from the far future does not stop the clock until then.
    topic.publish([join("dot", 9_999_999_999_999).record()]);
    instance.reads_to(&topic.ends());
    let clock = instance.ledger().clock();
    assert!(clock < start() + 6 * HOUR, "{clock}");
}

const IDS: usize = 60_000;

/// What the consumers execute for each record to recognise a duplicate, and the index for it.
const PLANS: [(&str, &str); 3] = [
    ("SELECT 1 FROM seen WHERE event_id = 'x'", "PRIMARY KEY"),
    (
        "DELETE FROM seen WHERE partition = 'x' AND seen_at < 1",
        "INDEX seen_by_age",
    ),
    ("SELECT clock FROM partitions WHERE name = 'x'", "INDEX"),
];

/// All ids, and then all of them again. One topic serves all consumers.
fn many(kafka: &'static Kafka) -> &'static Topic<'static> {
    static TOPIC: OnceLock<Topic<'static>> = OnceLock::new();
    TOPIC.get_or_init(|| {
        let topic = Topic::create(kafka, 1);
        let at = start();
        let join = |index: usize| {
            let group = format!("group-{}", index % 100);
            Event::join(&group, &[&format!("user-{index}")], T).received_at(at)
        };
        let records: Vec<_> = (0..IDS).map(|index| join(index).record()).collect();
        topic.publish(records.clone());
        topic.publish(records);
        topic
    })
}

/// Not timed: [`crate::instance::PATIENCE`] is ten minutes, and a consumer that copies all ids for
/// every record takes more than an hour. A search of all rows is seen in SQLite's plan.
pub(crate) fn recognises_one_of_many_ids(language: Language) {
    let Some(kafka) = kafka() else { return };
    let topic = many(kafka);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut instance = Instance::start(
        language,
        kafka.brokers(),
        &topic.name,
        folder.path(),
        "members",
    );
    instance.wait_until("has tables", |ledger| !ledger.positions().is_empty());
    let ledger = instance.ledger();
    for (statement, index) in PLANS {
        let plan = ledger.plan(statement);
        let is_search = plan.len() == 1 && plan[0].starts_with("SEARCH");
        assert!(
            is_search && plan[0].contains(index),
            "{statement}: {plan:?}"
        );
    }

    instance.reads_to(&topic.ends());
    let ids = i64::try_from(IDS).expect("it is small");
    let counts = [("duplicates", ids), ("events", ids)];
    let counts = counts.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(ledger.counts(), BTreeMap::from(counts));
    assert_eq!(ledger.seen().len(), IDS);
}
