//! The judgement: two lists against each other, and nothing else.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::reader::{Contents, Found};
use super::sender::Log;

/// What was found. Only `lost`, `altered`, `invented` and `inversions` are against a promise.
#[derive(Debug, Default, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct Report {
    /// Callbacks sent, and requests made for them.
    pub(crate) callbacks: u64,
    pub(crate) requests: u64,
    pub(crate) answered_2xx: u64,
    pub(crate) answered_5xx: u64,
    /// Requests with another answer, and with none.
    pub(crate) answered_else: u64,
    pub(crate) unanswered: u64,
    /// Answered 2xx, and in neither topic.
    pub(crate) lost: u64,
    /// In a topic, but not as it was sent, or in the wrong one.
    pub(crate) altered: u64,
    /// In a topic, and never sent.
    pub(crate) invented: u64,
    /// B's request began after A's 2xx, both of one group, and B's first occurrence stands before
    /// A's.
    pub(crate) inversions: u64,
    /// Occurrences after the first.
    pub(crate) duplicates: u64,
    /// Callbacks whose six attempts all failed.
    pub(crate) refused: u64,
    /// Of these and of those not answered, how many are in a topic all the same. Allowed.
    pub(crate) ambiguous: u64,
    pub(crate) worst_answer_ms: u64,
    pub(crate) p99_answer_ms: u64,
    /// The first of what is against a promise, by name.
    pub(crate) examples: Vec<String>,
}

/// So many are named.
const EXAMPLES: usize = 20;

impl Report {
    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        (self.lost, self.altered, self.invented, self.inversions) == (0, 0, 0, 0)
    }

    fn name(&mut self, example: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Judges a run.
pub(crate) fn audit(log: &Log, contents: &Contents) -> Report {
    let mut report = Report::default();
    answers(log, &mut report);
    let mut first: HashMap<u64, (i32, i64)> = HashMap::new();
    let mut dead: HashMap<u64, u64> = HashMap::new();
    for (topic, records) in [
        ("events", &contents.events),
        ("dead letters", &contents.dead_letters),
    ] {
        for Found {
            partition,
            offset,
            number,
            altered,
        } in records
        {
            let place = format!("{topic} {partition}/{offset}");
            let Some(number) = number else {
                report.invented += 1;
                report.name(format!("invented: {place}"));
                continue;
            };
            if let Some(what) = altered {
                report.altered += 1;
                report.name(format!("altered: {number} at {place}: {what}"));
            }
            let again = if topic == "events" {
                let at = first.entry(*number).or_insert((*partition, *offset));
                if at.0 != *partition {
                    report.inversions += 1;
                    report.name(format!("inversion: {number} is in two partitions"));
                }
                let again = *at != (*partition, *offset);
                at.1 = at.1.min(*offset);
                again
            } else {
                let count = dead.entry(*number).or_insert(0);
                *count += 1;
                *count > 1
            };
            report.duplicates += u64::from(again);
        }
    }
    for (number, sent) in (0..).zip(&log.sent) {
        let is_there = first.contains_key(&number) || dead.contains_key(&number);
        let is_safe = sent.attempts.iter().any(|attempt| attempt.is_2xx());
        match (is_safe, is_there) {
            (true, false) => {
                report.lost += 1;
                let what = match log.plan.is_dead(number) {
                    true => "dead letter",
                    false => "event",
                };
                report.name(format!("lost: {number} of group {}, {what}", sent.group));
            }
            (false, true) => report.ambiguous += 1,
            _ => {}
        }
        report.refused += u64::from(!is_safe);
    }
    order(log, &first, &mut report);
    report
}

fn answers(log: &Log, report: &mut Report) {
    let mut times = Vec::new();
    report.callbacks = log.sent.len() as u64;
    for attempt in log.sent.iter().flat_map(|sent| &sent.attempts) {
        report.requests += 1;
        *match attempt.status {
            200..300 => &mut report.answered_2xx,
            500..600 => &mut report.answered_5xx,
            0 => &mut report.unanswered,
            _ => &mut report.answered_else,
        } += 1;
        if attempt.status != 0 {
            times.push((attempt.ended - attempt.began).div_ceil(1000));
        }
    }
    times.sort_unstable();
    report.worst_answer_ms = times.last().copied().unwrap_or(0);
    report.p99_answer_ms = times.get(times.len() * 99 / 100).copied().unwrap_or(0);
}

/// Within a group: in the order of the first request of each, none may stand before one that had
/// been answered 2xx by then.
fn order(log: &Log, first: &HashMap<u64, (i32, i64)>, report: &mut Report) {
    let mut groups: HashMap<u32, Vec<u64>> = HashMap::new();
    for (number, sent) in (0..).zip(&log.sent) {
        groups.entry(sent.group).or_default().push(number);
    }
    for numbers in groups.values() {
        let events = |number: &u64| {
            let sent = &log.sent[*number as usize];
            let began = sent.attempts.first().map(|attempt| attempt.began)?;
            let safe = sent.attempts.iter().find(|attempt| attempt.is_2xx());
            Some((
                *number,
                began,
                safe.map(|attempt| attempt.ended),
                first.get(number)?,
            ))
        };
        let events: Vec<_> = numbers.iter().filter_map(events).collect();
        let mut begun = events.clone();
        begun.sort_by_key(|(_, began, ..)| *began);
        let mut safe: Vec<_> = events
            .iter()
            .filter_map(|(n, _, safe, at)| Some((safe.as_ref()?, n, *at)))
            .collect();
        safe.sort();
        // The latest place of all that were safe before the request at hand began.
        let (mut safe, mut latest) = (safe.into_iter().peekable(), None);
        for (number, began, _, at) in begun {
            while let Some((_, before, place)) = safe.next_if(|(ended, ..)| **ended < began) {
                latest = latest.max(Some((*place, *before)));
            }
            if let Some((place, before)) = latest
                && place > *at
            {
                report.inversions += 1;
                report.name(format!("inversion: {number} stands before {before}"));
            }
        }
    }
}
