//! Which events a topic gets, and what topics of several families mean for consumers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Routes, Target};
use crate::finding::Finding;

/// What goes to each topic, and what is discarded.
pub fn judge_routes(routes: &Routes) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, topic) in routes.event_topics().iter().enumerate() {
        let target = Target::Topic(place);
        let text = format!("gets {}", events(routes, target));
        findings.push(Finding::ok(topic, text));
        let families: BTreeSet<_> = routes.events_of(target).map(|kind| kind.family).collect();
        if families.len() > 1 {
            let families: Vec<&str> = families.into_iter().map(Into::into).collect();
            findings.push(Finding::warning(
                topic,
                format!(
                    "events of several families share it ({}): a group and a room with the same ID, for example, have the same key there; give each family a topic of its own in ZIM2KAFKA_TOPICS, or let consumers distinguish them by ce_type",
                    families.join(", ")
                ),
            ));
        }
    }
    let unrouted = events(routes, Target::DeadLetters);
    let unrouted = match unrouted.as_str() {
        "" => String::new(),
        events => format!(", and every {events}"),
    };
    findings.push(Finding::ok(
        routes.dead_letter_topic(),
        format!("gets the callbacks that cannot be published{unrouted}"),
    ));
    let discarded = events(routes, Target::Discard);
    if !discarded.is_empty() {
        let text = format!("discards {discarded}: they are answered 200 and not stored");
        findings.push(Finding::ok("ZIM2KAFKA_TOPICS", text));
    }
    findings
}

fn events(routes: &Routes, target: Target) -> String {
    let names: Vec<_> = routes.events_of(target).map(|kind| kind.name).collect();
    names.join(", ")
}

/// Compares the numbers of partitions of the topics of events.
pub(super) fn judge_partitions(topics: &[(&str, usize)]) -> Option<Finding> {
    let mut by_number = BTreeMap::<usize, Vec<&str>>::new();
    for (topic, partitions) in topics {
        by_number.entry(*partitions).or_default().push(topic);
    }
    let (most, _) = by_number.last_key_value().filter(|_| by_number.len() > 1)?;
    let numbers = by_number.iter().rev();
    let numbers = numbers.map(|(number, topics)| format!("{number} of {}", topics.join(", ")));
    let numbers: Vec<_> = numbers.collect();
    Some(Finding::warning(
        "topics",
        format!(
            "their numbers of partitions differ ({}): equal keys, such as those of a group and its messages, are in partitions with different numbers, so consumers cannot join these topics without repartitioning one; use {most} for all",
            numbers.join("; ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn texts(routes: &Routes) -> Vec<(Level, String, String)> {
        let findings = judge_routes(routes).into_iter();
        findings
            .map(|finding| (finding.level, finding.subject, finding.text))
            .collect()
    }

    fn ok(subject: &str, text: &str) -> (Level, String, String) {
        (Level::Ok, subject.to_owned(), text.to_owned())
    }

    #[test]
    fn each_topic_is_listed_with_its_events_and_what_is_discarded_too() {
        let routes = Routes::new([("group_join", "joined"), ("group_exit", "left")], "dead");
        let others = crate::event::EVENTS.map(|kind| kind.name);
        let others = others
            .into_iter()
            .filter(|name| !["group_join", "group_exit"].contains(name));
        let others = others.collect::<Vec<_>>().join(", ");
        let letters = format!("gets the callbacks that cannot be published, and every {others}");
        assert_eq!(
            texts(&routes),
            [
                ok("joined", "gets group_join"),
                ok("left", "gets group_exit"),
                ok("dead", &letters),
            ]
        );
        let all = crate::event::EVENTS.map(|kind| (kind.name, <&str>::from(kind.family)));
        let all = Routes::new(all, "dead").discarding(["send_msg", "bot_msg"]);
        let texts = texts(&all);
        assert!(texts.iter().all(|(level, ..)| *level == Level::Ok));
        for expected in [
            ok(
                "group",
                "gets group_create, group_join, group_exit, group_destroy",
            ),
            ok("dead", "gets the callbacks that cannot be published"),
            ok(
                "ZIM2KAFKA_TOPICS",
                "discards send_msg, bot_msg: they are answered 200 and not stored",
            ),
        ] {
            assert!(texts.contains(&expected), "{expected:?}: {texts:?}");
        }
    }

    #[test]
    fn a_topic_of_several_families_is_a_warning() {
        let routes = Routes::new(
            [
                ("room_exit", "t"),
                ("group_exit", "t"),
                ("room_enter", "u"),
                ("group_join", "t"),
            ],
            "dead",
        );
        let texts = texts(&routes);
        let warnings = texts.iter().filter(|(level, ..)| *level == Level::Warning);
        let warnings: Vec<_> = warnings.collect();
        let [(_, topic, text)] = warnings[..] else {
            panic!("{texts:?}");
        };
        assert_eq!(topic, "t");
        assert!(text.contains("share it (group, room): "), "{text}");
    }

    #[test]
    fn different_numbers_of_partitions_are_a_warning() {
        for topics in [&[][..], &[("a", 3)], &[("a", 3), ("b", 3)]] {
            assert_eq!(judge_partitions(topics), None, "{topics:?}");
        }
        let finding = judge_partitions(&[("a", 3), ("b", 12), ("c", 3)]).expect("a warning");
        assert_eq!(finding.level, Level::Warning);
        assert!(
            finding.text.contains("(12 of b; 3 of a, c): "),
            "{}",
            finding.text
        );
        assert!(finding.text.ends_with("use 12 for all"), "{}", finding.text);
    }
}
