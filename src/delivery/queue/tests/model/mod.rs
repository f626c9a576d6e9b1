//! A model check of the queue's rules: the real queue between a model of its clients, of the disk
//! and of Kafka, under random schedules with failing producers, refused batches, lost and late
//! reports, brokers that remember nothing of a producer, and kills. Then the same search against
//! deliberately broken rules, each of which it must find.

mod kafka;
mod parts;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use world::World;

/// How many groups send events.
const GROUPS: u8 = 3;

/// One step of anybody.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// A client sends the next event: of which group, and whether Kafka will refuse it.
    Send {
        group: u8,
        poison: bool,
    },
    /// A client sends five events of a group. Each goes to disk before the next one comes.
    Burst {
        group: u8,
    },
    /// The publisher's turn. `missing` has a bit for each kind of producer that takes nothing. The
    /// first `takes` records are taken, the others returned: librdkafka's queues are full.
    HandOver {
        missing: u8,
        takes: usize,
        shards: u32,
    },
    /// Kafka takes a message. Those of a strict producer that it knows are taken in order. A relaxed
    /// producer has several requests under way, of which a later one may be taken while an earlier
    /// one fails. Of a strict producer that Kafka does not know, so may the second.
    Take {
        at: usize,
    },
    /// Kafka takes a message, and librdkafka concludes that it has the earlier ones too.
    Conclude {
        at: usize,
    },
    /// Kafka judges a batch: a message and all that are of its group and with its producer. If one
    /// is refused, all are, and Kafka names those that are to blame or not.
    TakeBatch {
        at: usize,
        named: bool,
    },
    /// The oldest report arrives.
    Report,
    /// A producer fails: what it has lands later, or never.
    Fail {
        at: usize,
        lands: bool,
    },
    /// What a producer had that is gone lands now, and may be reported.
    Land {
        reported: bool,
    },
    /// Kafka forgets the producers whose last message was old.
    Forget,
    Plan,
    Scan,
    Read,
    /// The spooler takes the records that are not durable and begins to write them.
    Write(Due),
    /// The disk has taken it, or not.
    Written {
        fails: bool,
    },
    /// The queue learns that the disk has it.
    Marked,
    /// All that is settled, or a part of it.
    Delete {
        part: bool,
    },
    /// The numbers of partitions become known.
    Partitions {
        count: usize,
    },
    /// The process dies. What it was writing is on disk, or not.
    Kill {
        written: bool,
    },
}

/// Which records are due to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    All,
    Oldest,
    /// Those that wait for rows of their key.
    Urgent,
}

impl Action {
    /// A turn in which every producer takes what it gets.
    const HAND_OVER: Self = Self::HandOver {
        missing: 0,
        takes: usize::MAX,
        shards: 8,
    };
}

/// What a rule that is broken on purpose does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    AnswerBeforeTheWrite,
    DeleteBeforeTheReport,
    FinalAlsoInABatch,
    NoGuard,
    GuardOfAnotherKey,
    GuardWithoutTheDisk,
    GuardWithoutOtherProducers,
    ForgetTheDiskAtAStart,
    BelieveAConclusion,
    CountAnOldFailure,
    RunByARelaxedProducer,
    GoOnWithARun,
    ForgetWhatWasDropped,
    WholeRunAtOnce,
    RunOfOldRows,
}

fn action() -> impl Strategy<Value = Action> {
    let at = || 0..8_usize;
    prop_oneof![
        6 => (0..GROUPS, prop::bool::weighted(0.1)).prop_map(|(group, poison)| Action::Send { group, poison }),
        1 => (0..GROUPS).prop_map(|group| Action::Burst { group }),
        4 => Just(Action::HAND_OVER),
        2 => (any::<u8>(), 0..3_usize, prop::sample::select(vec![1, 4, 8]))
            .prop_map(|(missing, takes, shards)| Action::HandOver { missing, takes, shards }),
        5 => at().prop_map(|at| Action::Take { at }),
        2 => at().prop_map(|at| Action::Conclude { at }),
        3 => (at(), any::<bool>()).prop_map(|(at, named)| Action::TakeBatch { at, named }),
        8 => Just(Action::Report),
        1 => (at(), any::<bool>()).prop_map(|(at, lands)| Action::Fail { at, lands }),
        1 => any::<bool>().prop_map(|reported| Action::Land { reported }),
        1 => Just(Action::Forget),
        4 => Just(Action::Plan),
        1 => Just(Action::Scan),
        4 => Just(Action::Read),
        6 => prop::sample::select(vec![Due::All, Due::Oldest, Due::Urgent]).prop_map(Action::Write),
        7 => prop::bool::weighted(0.2).prop_map(|fails| Action::Written { fails }),
        9 => Just(Action::Marked),
        2 => any::<bool>().prop_map(|part| Action::Delete { part }),
        1 => (1..4_usize).prop_map(|count| Action::Partitions { count }),
        1 => any::<bool>().prop_map(|written| Action::Kill { written }),
    ]
}

fn check(broken: Option<Broken>, cases: u32) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let steps = prop::collection::vec(action(), 1..200);
    let run = |steps: Vec<Action>| {
        let mut world = World::new(broken);
        steps.into_iter().try_for_each(|step| world.step(step))?;
        world.settle()?;
        world.judge()
    };
    runner.run(&steps, run).map_err(|error| error.to_string())
}

#[test]
fn no_schedule_loses_inverts_or_invents_anything() {
    check(None, 10_000).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn each_broken_rule_is_found() {
    for broken in [
        Broken::AnswerBeforeTheWrite,
        Broken::DeleteBeforeTheReport,
        Broken::FinalAlsoInABatch,
        Broken::NoGuard,
        Broken::GuardOfAnotherKey,
        Broken::GuardWithoutTheDisk,
        Broken::GuardWithoutOtherProducers,
        Broken::ForgetTheDiskAtAStart,
        Broken::BelieveAConclusion,
        Broken::CountAnOldFailure,
        Broken::RunByARelaxedProducer,
        Broken::GoOnWithARun,
        Broken::ForgetWhatWasDropped,
        Broken::WholeRunAtOnce,
        Broken::RunOfOldRows,
    ] {
        let found = check(Some(broken), 6000).expect_err(&format!("{broken:?} must be found"));
        println!("{broken:?}: {found}");
    }
}
