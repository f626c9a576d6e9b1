//! The runbook has an entry for each alert, and its metrics exist.

use std::collections::BTreeSet;

use zim2kafka::metrics::Metrics;

use super::commands::ours;

const RUNBOOK: &str = include_str!("../../../docs/runbook.md");
const ALERTS: &str = include_str!("../../../deploy/alerts.yml");

/// What an entry answers.
const QUESTIONS: [&str; 4] = [
    "- **Means:** ",
    "- **Meanwhile:** ",
    "- **Look:** ",
    "- **Repair:** ",
];

/// The name and the rule of each alert.
fn alerts() -> Vec<(&'static str, &'static str)> {
    let rules = ALERTS.split("      - alert: ").skip(1);
    rules
        .map(|rule| rule.split_once('\n').expect("a rule has several lines"))
        .collect()
}

/// The title and the text of each entry.
fn entries() -> Vec<(&'static str, &'static str)> {
    let (_, entries) = RUNBOOK.split_once("\n## Alerts\n").expect("the section");
    let entries = entries.split("\n### ").skip(1);
    entries
        .map(|entry| entry.split_once('\n').expect("an entry has several lines"))
        .collect()
}

#[test]
fn every_alert_has_its_entry_in_order_and_links_to_it() {
    let alerts = alerts();
    let names: Vec<_> = alerts.iter().map(|(name, _)| *name).collect();
    let titles: Vec<_> = entries().into_iter().map(|(title, _)| title).collect();
    let missing: Vec<_> = names.iter().filter(|name| !titles.contains(name)).collect();
    assert!(missing.is_empty(), "docs/runbook.md has no {missing:?}");
    assert_eq!(titles, names, "the entries are in the order of the alerts");
    for (name, rule) in alerts {
        let link = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&link), "{name} has no {link}");
    }
}

#[test]
fn every_entry_answers_all_questions_and_names_a_command() {
    for (title, text) in entries() {
        let starts = text.lines().filter(|line| line.starts_with("- **"));
        let starts: Vec<_> = starts.collect();
        assert_eq!(starts.len(), QUESTIONS.len(), "{title}: {starts:?}");
        for (start, question) in starts.iter().zip(QUESTIONS) {
            let answer = start.strip_prefix(question).unwrap_or_default();
            assert!(!answer.is_empty(), "{title}: no {question}");
        }
        assert!(!ours(text).is_empty(), "{title} names no command");
    }
}

#[test]
fn the_runbook_uses_every_command_that_looks_or_repairs() {
    let used: BTreeSet<_> = (ours(RUNBOOK).iter())
        .filter_map(|command| command.split(' ').nth(1).map(str::to_owned))
        .collect();
    for needed in ["check", "healthcheck", "redrive", "send", "spool", "tail"] {
        assert!(used.contains(needed), "{needed} is not in the runbook");
    }
}

#[test]
fn every_metric_in_the_runbook_and_in_the_alerts_exists() {
    let text = Metrics::new().text();
    let named = RUNBOOK.split(|char: char| !char.is_alphanumeric() && char != '_');
    let alerts = ALERTS.lines().filter(|line| !line.trim().starts_with('#'));
    let alerts =
        alerts.flat_map(|line| line.split(|char: char| !char.is_alphanumeric() && char != '_'));
    let metrics: BTreeSet<_> = named
        .chain(alerts)
        .filter(|word| word.starts_with("zim2kafka_"))
        .collect();
    assert!(metrics.len() > 20, "{metrics:?}");
    for metric in metrics {
        let suffixes = ["_bucket", "_count", "_sum"];
        let family = suffixes
            .iter()
            .find_map(|suffix| metric.strip_suffix(suffix));
        let is_known = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(is_known(metric) || family.is_some_and(is_known), "{metric}");
    }
}
