//! The tables of "Troubleshooting" quote log lines, metrics and answers that exist.

use std::collections::BTreeSet;

use zim2kafka::metrics::Metrics;

use crate::alerts::{is_in, program};

const CALLBACKS: &str = include_str!("../../../docs/callbacks.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The rows of the tables in the section with this heading.
fn rows(page: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = page.split_once(heading).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    let rows = rows.map(|row| Vec::from_iter(row.trim_matches(['|', ' ']).split(" | ")));
    rows.filter(|row| !row[0].starts_with("---") && !["case", "answer"].contains(&row[0]))
        .collect()
}

fn troubles() -> Vec<Vec<&'static str>> {
    rows(OPERATIONS, "\n## Troubleshooting\n")
}

/// The texts in backquotes.
fn quotes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The statuses of answers, such as 404.
fn statuses(cells: impl Iterator<Item = &'static str>) -> BTreeSet<u16> {
    let words = cells.flat_map(|cell| cell.split([' ', ',', ';']));
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn every_line_of_the_log_in_a_row_is_in_the_sources() {
    let program = program();
    let mut count = 0;
    for row in troubles() {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(row[2] == "none" || row[2].contains('`'), "{row:?}");
        for quote in quotes(row[2]) {
            assert!(is_in(quote, &program), "no source contains `{quote}`");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_row_names_a_metric_that_exists_and_a_page_to_go_on_with() {
    let text = Metrics::new().text();
    for row in troubles() {
        let metrics: Vec<_> = quotes(row[3])
            .filter(|quote| quote.starts_with("zim2kafka_"))
            .collect();
        assert!(!metrics.is_empty(), "{row:?}");
        for metric in metrics {
            let (name, label) = metric.split_once('{').unwrap_or((metric, ""));
            let label = label.trim_end_matches('}');
            let has_label = |line: &str| {
                let rest = line.strip_prefix(name).unwrap_or_default();
                rest.starts_with('{') && rest.contains(label)
            };
            let is_known = match label {
                "" => text.contains(&format!("# TYPE {name} ")),
                // Its other label, the appid, is that of the settings.
                _ if name == "zim2kafka_app_callbacks_total" => {
                    label == r#"outcome="unauthorized""#
                }
                _ => text.lines().any(has_label),
            };
            assert!(is_known, "{metric}");
        }
        assert!(
            row[4].contains("](") && row[4].contains(".md") || row[4].contains("](#"),
            "{row:?}"
        );
    }
}

#[test]
fn every_answer_to_a_callback_has_a_row() {
    let explained = statuses(troubles().into_iter().map(|row| row[1]));
    let answers = statuses(rows(CALLBACKS, "\n## HTTP\n").into_iter().map(|row| row[0]));
    assert!(answers.len() > 8, "{answers:?}");
    assert_eq!(explained, answers);
}
