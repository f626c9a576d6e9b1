//! SIGKILL at any point: nothing is published twice, and nothing is lost.

use std::thread;
use std::time::{Duration, Instant};

use zim2kafka::event::Reason;

use super::{PATIENCE, Topics, now};
use crate::audit::{self, Log, Plan};
use crate::support::app::PATIENCE as SOON;
use crate::support::dead_letters::dead_letter;
use crate::support::kafka::kafka;
use crate::support::scale::size;
use crate::support::schema;

#[test]
fn kills_at_any_point_double_nothing_and_lose_nothing() {
    let Some(kafka) = kafka() else { return };
    let letters: usize = size(2_000, 20_000);
    let kills = size(5, 20);
    let topics = Topics::create(kafka);
    let plan = Plan {
        seed: rand::random(),
        appid: "1".to_owned(),
        secret: "secret".to_owned(),
    };
    let timestamp = u64::try_from(now() - 3_600_000).expect("it is after 1970");
    let log = Log::of_dead_letters(plan, &vec![timestamp; letters], 50);
    let received = now();
    let dead = log.bodies();
    topics.put(dead.map(|(body, _)| dead_letter("secret", &body, Reason::Stale, received)));

    let written = || -> i64 { kafka.ends(&topics.events, 0..12).values().sum() };
    let flags = ["--ignore-age"];
    let mut within = 0;
    for left in (1..=kills).rev() {
        let before = written();
        let mut running = topics.start(&flags);
        // Also within a transaction, of which nothing is published.
        let part = letters as i64 / (i64::from(left) + 1);
        let after = before + rand::random_range(0..=part.min(letters as i64 / 6));
        let deadline = Instant::now() + SOON;
        while !running.has_ended() && written() <= after && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !running.has_ended() {
            running.signal("KILL");
        }
        // It may have been faster than the signal.
        within += u32::from(running.end().code.is_none());
    }
    assert!(within > 0, "none was killed");
    let ended = topics.start(&flags).end_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let nothing = kafka.unique_topic("nothing");
    kafka.create_topic(&nothing, 1, &[]);
    let contents = audit::read(
        kafka.brokers(),
        [&topics.events, &nothing],
        &log,
        schema::check,
    );
    let report = audit::audit(&log, &contents);
    // What is not valid stays a dead letter.
    let dead = (0..letters as u64).filter(|number| log.plan.is_dead(*number));
    let dead = dead.count() as u64;
    assert_eq!(
        (
            report.lost,
            report.duplicates,
            report.altered,
            report.invented
        ),
        (dead, 0, 0, 0),
        "{report}"
    );
    assert_eq!(contents.events.len(), letters - dead as usize);
    let table = topics.redriven(&flags);
    assert!(table.starts_with("0 dead letters"), "{table}");
}
