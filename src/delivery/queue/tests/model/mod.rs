//! A model check of the queue's rules: the real queue between a model of its clients, of the disk
//! and of Kafka, under random schedules with failing producers, refused batches, lost and late
//! reports, and kills. Then the same search against deliberately broken rules, each of which it
//! must find.

mod parts;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use world::World;

/// One step of anybody.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// A client sends the next event: of which group, and whether Kafka will refuse it.
    Send {
        group: u8,
        poison: bool,
    },
    HandOver,
    /// Kafka takes a batch of a group; its report may get lost.
    Take {
        group: u8,
        reported: bool,
    },
    /// The oldest report arrives.
    Report,
    /// The publisher resolves the tickets of acknowledged records.
    Notify,
    /// The status fails: what is on its way lands later, or never.
    Fail {
        lands: bool,
    },
    /// What had been on its way from a producer that is gone lands now.
    Land,
    StartOver,
    Read,
    /// The spooler takes the records that are not durable and begins to write them.
    Write,
    /// The disk has taken it, or not.
    Written {
        fails: bool,
    },
    /// All that is settled, or a part of it.
    Delete {
        part: bool,
    },
    /// The process dies. What it was writing is on disk, or not.
    Kill {
        written: bool,
    },
}

/// What a rule that is broken on purpose does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    AnswerBeforeTheWrite,
    DeleteBeforeTheReport,
    GoOnAfterAFailure,
    FinalAlsoInABatch,
    NewOnesBeforeTheSpool,
    TailBeforeTheBacklog,
    ForgetWhoWaits,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..2_u8, prop::bool::weighted(0.1)).prop_map(|(group, poison)| Action::Send { group, poison }),
        5 => Just(Action::HandOver),
        5 => (0..2_u8, prop::bool::weighted(0.8)).prop_map(|(group, reported)| Action::Take { group, reported }),
        8 => Just(Action::Report),
        3 => Just(Action::Notify),
        1 => any::<bool>().prop_map(|lands| Action::Fail { lands }),
        1 => Just(Action::Land),
        3 => Just(Action::StartOver),
        3 => Just(Action::Read),
        4 => Just(Action::Write),
        5 => prop::bool::weighted(0.2).prop_map(|fails| Action::Written { fails }),
        2 => any::<bool>().prop_map(|part| Action::Delete { part }),
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
    let steps = prop::collection::vec(action(), 1..150);
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
    check(None, 3000).unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn each_broken_rule_is_found() {
    for broken in [
        Broken::AnswerBeforeTheWrite,
        Broken::DeleteBeforeTheReport,
        Broken::GoOnAfterAFailure,
        Broken::FinalAlsoInABatch,
        Broken::NewOnesBeforeTheSpool,
        Broken::TailBeforeTheBacklog,
        Broken::ForgetWhoWaits,
    ] {
        let found = check(Some(broken), 3000).expect_err("it must be found");
        println!("{broken:?}: {found}");
    }
}
