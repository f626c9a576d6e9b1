//! The auditor is tried on histories of which each wrong is known, before it may judge the service.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::Plan;
use super::reader::{Contents, Raw, judge_dead_letter, judge_event};
use super::sender::{Attempt, Log, Sent, group_name};
use super::verdict::{Report, audit};

const GROUPS: u32 = 4;

fn plan() -> Plan {
    Plan {
        seed: 7,
        appid: "1".to_owned(),
        secret: "secret".to_owned(),
    }
}

/// Callbacks one after the other, each answered before the next of its group began.
fn log(count: u64) -> Log {
    let sent = |number: u64| Sent {
        group: (number % u64::from(GROUPS)) as u32,
        timestamp: 1_757_577_600_000 + number,
        attempts: vec![Attempt {
            began: number * 1000,
            ended: number * 1000 + 900,
            status: 200,
            durable: None,
        }],
    };
    Log {
        plan: plan(),
        sent: (0..count).map(sent).collect(),
    }
}

/// What a faithful service would publish, as raw records, by topic.
fn published(log: &Log) -> [Vec<Raw>; 2] {
    let mut topics = [Vec::new(), Vec::new()];
    for (number, sent) in (0..).zip(&log.sent) {
        let group = group_name(sent.group);
        let dead = log.plan.is_dead(number);
        let mut raw = Raw {
            partition: sent.group as i32 % 2,
            key: Some(group.clone().into_bytes()),
            timestamp: sent.timestamp as i64,
            ..Raw::default()
        };
        if dead {
            raw.value = log.plan.body(number, &group, sent.timestamp);
            raw.headers = vec![("dead_letter_reason".to_owned(), b"invalid_event".to_vec())];
        } else {
            let mut value = log.plan.value(number, &group, sent.timestamp);
            let id = format!("{number:036}");
            value["event_id"] = json!(id);
            value["received_at"] = json!(sent.timestamp + 5);
            raw.value = value.to_string().into_bytes();
            for (name, text) in [
                ("ce_id", id.as_str()),
                ("ce_subject", &group),
                ("ce_type", "com.zegocloud.zim.group.joined.v1"),
            ] {
                raw.headers
                    .push((name.to_owned(), text.as_bytes().to_vec()));
            }
        }
        topics[usize::from(dead)].push(raw);
    }
    topics
}

/// The verdict on these records, in this order.
fn judged(log: &Log, [mut events, mut dead]: [Vec<Raw>; 2]) -> Report {
    for raws in [&mut events, &mut dead] {
        for (offset, raw) in (0..).zip(raws) {
            raw.offset = offset;
        }
    }
    let contents = Contents {
        events: events.iter().map(|raw| judge_event(log, raw)).collect(),
        dead_letters: dead.iter().map(|raw| judge_dead_letter(log, raw)).collect(),
    };
    audit(log, &contents)
}

/// Lost, altered, invented, inverted.
fn wrongs(report: &Report) -> (u64, u64, u64, u64) {
    (
        report.lost,
        report.altered,
        report.invented,
        report.inversions,
    )
}

fn number_of(raw: &Raw) -> String {
    let value: Value = serde_json::from_slice(&raw.value).expect("JSON");
    let user = value["new_user_ids"][0]
        .as_str()
        .expect("a user")
        .to_owned();
    user[1..].split('-').next().expect("a number").to_owned()
}

#[test]
fn a_faithful_service_is_clean() {
    let log = log(500);
    let report = judged(&log, published(&log));
    assert!(report.is_clean() && report.examples.is_empty(), "{report}");
    assert_eq!(
        (report.callbacks, report.requests, report.answered_2xx),
        (500, 500, 500)
    );
    assert_eq!(
        (report.duplicates, report.refused, report.ambiguous),
        (0, 0, 0)
    );
    assert_eq!((report.worst_answer_ms, report.p99_answer_ms), (1, 1));
    let [events, dead] = published(&log);
    assert!(
        events.len() > 450 && dead.len() > 2,
        "{} and {}",
        events.len(),
        dead.len()
    );
}

#[test]
fn the_signature_is_that_of_zegoclouds_own_example() {
    // From ZEGOCLOUD's page on authenticating callbacks.
    let plan = Plan {
        secret: "secret".to_owned(),
        ..plan()
    };
    let body: Value =
        serde_json::from_slice(&plan.body(350_176, "g", 1_499_676_978)).expect("JSON");
    assert_eq!(
        body["signature"],
        "264b7f500b4935a082fef1da1760769245880d7c"
    );
}

#[test]
fn a_callback_not_answered_2xx_may_be_in_kafka_or_not() {
    let mut log = log(40);
    for number in [3, 5] {
        log.sent[number].attempts = vec![
            Attempt {
                began: 0,
                ended: 2_000_000,
                status: 503,
                durable: None,
            };
            6
        ];
    }
    let [mut events, dead] = published(&log);
    events.retain(|raw| number_of(raw) != "3");
    let report = judged(&log, [events, dead]);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.refused, report.ambiguous), (2, 1));
    assert_eq!((report.answered_5xx, report.worst_answer_ms), (12, 2000));
}

#[test]
fn requests_that_overlap_have_no_order() {
    let mut log = log(8);
    // 4 began before 0 was answered.
    log.sent[4].attempts[0].began = 500;
    let [mut events, dead] = published(&log);
    let at = |events: &[Raw], number: &str| {
        events
            .iter()
            .position(|raw| number_of(raw) == number)
            .expect("there")
    };
    let (one, two) = (at(&events, "0"), at(&events, "4"));
    events.swap(one, two);
    let report = judged(&log, [events, dead]);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_repetition_behind_the_first_is_a_duplicate_and_no_inversion() {
    let log = log(60);
    let [mut events, mut dead] = published(&log);
    let (first, letter) = (events[0].clone(), dead[0].clone());
    events.extend([first.clone(), first]);
    dead.push(letter);
    let report = judged(&log, [events, dead]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.duplicates, 3);
}

#[test]
fn an_event_and_a_dead_letter_in_each_others_topic_count_as_altered() {
    let log = log(200);
    let [mut events, mut dead] = published(&log);
    std::mem::swap(&mut events[0].value, &mut dead[0].value);
    let report = judged(&log, [events, dead]);
    assert_eq!(report.altered, 2, "{report}");
}

#[derive(Debug, Clone, Copy)]
enum Mutant {
    Drop,
    Value,
    Key,
    Header,
    Time,
    Invent,
    Foreign,
    Swap,
    OtherPartition,
    DropDead,
    AlterDead,
}

const MUTANTS: [Mutant; 11] = [
    Mutant::Drop,
    Mutant::Value,
    Mutant::Key,
    Mutant::Header,
    Mutant::Time,
    Mutant::Invent,
    Mutant::Foreign,
    Mutant::Swap,
    Mutant::OtherPartition,
    Mutant::DropDead,
    Mutant::AlterDead,
];

/// Does it, and tells what the auditor must count, and what it must name.
fn mutate(
    mutant: Mutant,
    [events, dead]: &mut [Vec<Raw>; 2],
    at: usize,
) -> ((u64, u64, u64, u64), String) {
    let at = at % (events.len() - GROUPS as usize * 2);
    let number = number_of(&events[at]);
    match mutant {
        Mutant::Drop => {
            events.remove(at);
            ((1, 0, 0, 0), format!("lost: {number} "))
        }
        Mutant::Value => {
            let text = String::from_utf8(events[at].value.clone()).expect("JSON");
            events[at].value = text
                .replace("\"group_join\"", "\"group_joim\"")
                .into_bytes();
            ((0, 1, 0, 0), format!("altered: {number} "))
        }
        Mutant::Key => {
            events[at].key.as_mut().expect("a key")[0] ^= 1;
            ((0, 1, 0, 0), format!("altered: {number} "))
        }
        Mutant::Header => {
            events[at].headers[0].1[35] ^= 1;
            ((0, 1, 0, 0), format!("altered: {number} "))
        }
        Mutant::Time => {
            events[at].timestamp += 1;
            ((0, 1, 0, 0), format!("altered: {number} "))
        }
        Mutant::Invent => {
            let mut invented = events[at].clone();
            let text = String::from_utf8(invented.value).expect("JSON");
            invented.value = text
                .replace(&format!("\"n{number}-"), "\"n999999-")
                .into_bytes();
            events.push(invented);
            ((0, 0, 1, 0), "invented: events".to_owned())
        }
        Mutant::Foreign => {
            dead.push(Raw {
                value: b"{}".to_vec(),
                ..Raw::default()
            });
            ((0, 0, 1, 0), "invented: dead letters".to_owned())
        }
        Mutant::Swap => {
            let key = events[at].key.clone();
            let next = (at + 1..events.len()).find(|next| events[*next].key == key);
            events.swap(at, next.expect("there are more of the group"));
            ((0, 0, 0, 1), "inversion: ".to_owned())
        }
        Mutant::OtherPartition => {
            let mut other = events[at].clone();
            other.partition = 9;
            events.push(other);
            ((0, 0, 0, 1), format!("inversion: {number} is in two"))
        }
        Mutant::DropDead => {
            let number = number_of(&dead.remove(0));
            ((1, 0, 0, 0), format!("lost: {number} "))
        }
        Mutant::AlterDead => {
            let number = number_of(&dead[0]);
            dead[0].value.push(b' ');
            ((0, 1, 0, 0), format!("altered: {number} "))
        }
    }
}

proptest! {
    #[test]
    fn every_mutant_is_counted_and_named(count in 120..200_u64, at in any::<usize>()) {
        let log = log(count);
        let published = published(&log);
        prop_assert!(!published[1].is_empty());
        for mutant in MUTANTS {
            let mut topics = published.clone();
            let (expected, name) = mutate(mutant, &mut topics, at);
            let report = judged(&log, topics);
            prop_assert_eq!(wrongs(&report), expected, "{:?}: {}", mutant, report);
            prop_assert!(!report.is_clean());
            prop_assert!(report.examples.iter().any(|example| example.starts_with(&name)), "{:?}: {}", mutant, report);
        }
    }
}
