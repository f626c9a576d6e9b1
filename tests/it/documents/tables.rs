//! The tables of the documents are what the code has.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use strum::VariantArray;
use zim2kafka::commands::Cli;
use zim2kafka::config::{WITHOUT_FLAG, variables};
use zim2kafka::event::{EVENTS, Reason};
use zim2kafka::kafka::REFUSED;
use zim2kafka::metrics::Metrics;

const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const EVENTS_PAGE: &str = include_str!("../../../docs/events.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The rows of the table whose head begins with this cell, without their backquotes.
fn table(page: &str, first_head: &str) -> Vec<Vec<String>> {
    let head = format!("| {first_head} |");
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with(&head))
        .skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split(" | ");
        cells
            .map(|cell| cell.trim_matches([' ', '|', '`']).to_owned())
            .collect()
    })
    .collect()
}

/// The words in backquotes in the paragraph that begins so.
fn quoted(page: &'static str, beginning: &str) -> BTreeSet<&'static str> {
    let (_, text) = page
        .split_once(beginning)
        .expect("the page has the paragraph");
    let (paragraph, _) = text.split_once("\n\n").expect("it ends");
    paragraph.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_table_of_settings_is_the_one_that_the_command_line_has() {
    let mut settings = BTreeMap::new();
    let command = Cli::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        for argument in command.get_arguments() {
            if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
                let default = argument.get_default_values().first();
                let default = default.map_or("none", |value| value.to_str().expect("text"));
                settings.insert(variable.to_owned(), default.to_owned());
            }
        }
    }
    for variable in WITHOUT_FLAG {
        settings.insert(variable.to_owned(), "none".to_owned());
    }
    let told: BTreeMap<_, _> = table(CONFIGURATION, "variable")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert_eq!(told, settings);
    assert!(variables(&command).len() > 10);
}

#[test]
fn the_refused_properties_are_those_of_the_code() {
    let refused = REFUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        quoted(
            CONFIGURATION,
            "These are refused, because the promises rest on them:"
        ),
        refused
    );
}

#[test]
fn the_table_of_metrics_is_what_the_service_shows() {
    let text = Metrics::new().text();
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE zim2kafka_"));
    let shown: BTreeSet<_> = types.map(|line| format!("zim2kafka_{line}")).collect();
    let told: BTreeSet<_> = table(OPERATIONS, "metric")
        .iter()
        .map(|row| format!("{} {}", row[0], row[1]))
        .collect();
    assert_eq!(told, shown);
    for row in table(OPERATIONS, "metric") {
        for label in row
            .get(2)
            .into_iter()
            .flat_map(|cell| cell.split('`'))
            .step_by(2)
        {
            let label = label.trim_matches([' ', ',', ':']);
            assert!(text.contains(label), "{label} of {}", row[0]);
        }
    }
}

#[test]
fn the_reasons_of_dead_letters_are_those_of_the_code() {
    let told = quoted(EVENTS_PAGE, "Its reasons are");
    for reason in Reason::VARIANTS {
        assert!(told.contains(reason.to_string().as_str()), "{reason}");
    }
}

#[test]
fn the_table_of_commands_names_every_command() {
    let commands = Cli::command();
    let commands: BTreeSet<_> = commands
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let told: BTreeSet<_> = table(OPERATIONS, "command")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(told, commands);
}

#[test]
fn the_tables_of_events_name_every_event_with_its_family_topic_and_schema() {
    let families = table(CONFIGURATION, "family");
    let rows = table(EVENTS_PAGE, "event");
    let told: BTreeSet<_> = rows.iter().map(|row| row[0].as_str()).collect();
    let known: BTreeSet<_> = EVENTS.iter().map(|kind| kind.name).collect();
    assert_eq!(told, known);
    for kind in EVENTS {
        let row = rows.iter().find(|row| row[0] == kind.name);
        let row = row.expect("the names are the same");
        let schema = kind.schema.trim_start_matches("urn:zim2kafka:schema:");
        let link = format!("(../schemas/{}.schema.json)", schema.replace(":v", ".v"));
        assert!(row[3].contains(&link), "{row:?} has no {link}");
        let family = <&str>::from(kind.family);
        let row = families.iter().find(|row| row[0] == family);
        let row = row.unwrap_or_else(|| panic!("no row of {family}"));
        assert_eq!(row[1], format!("zim.{family}"));
        let mut events = row[2].split(", ").map(|name| name.trim_matches('`'));
        assert!(
            events.any(|name| name == kind.name),
            "{row:?}: {}",
            kind.name
        );
    }
    let listed: usize = families.iter().map(|row| row[2].split(", ").count()).sum();
    assert_eq!(listed, EVENTS.len());
}
