//! What the README says that the code says too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use strum::VariantArray;
use zim2kafka::callback::sign;
use zim2kafka::commands::Cli;
use zim2kafka::config::{CALLBACK_SECRETS, KAFKA_PROPERTIES, variables};
use zim2kafka::event::Reason;
use zim2kafka::kafka::REFUSED;
use zim2kafka::metrics::Metrics;

const README: &str = include_str!("../../README.md");

/// The rows of the table whose head begins with this cell, without their backquotes.
fn table(first_head: &str) -> Vec<Vec<String>> {
    let head = format!("| {first_head} |");
    let rows = README
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
fn quoted(beginning: &str) -> BTreeSet<&'static str> {
    let (_, text) = README
        .split_once(beginning)
        .expect("the README has the paragraph");
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
    for variable in [CALLBACK_SECRETS, KAFKA_PROPERTIES] {
        settings.insert(variable.to_owned(), "none".to_owned());
    }
    let told: BTreeMap<_, _> = table("variable")
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
        quoted("These are refused, because the promises rest on them:"),
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
    let told: BTreeSet<_> = table("metric")
        .iter()
        .map(|row| format!("{} {}", row[0], row[1]))
        .collect();
    assert_eq!(told, shown);
    for row in table("metric") {
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
    let told = quoted("Its reasons are");
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
    let told: BTreeSet<_> = table("command")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(told, commands);
}

#[test]
fn the_sample_of_the_page_is_signed_as_it_says() {
    let signature = sign("secret", "1499676978", "350176").to_hex();
    assert!(README.contains(&format!("\"signature\":\"{signature}\"")));
}

/// What GitHub makes of the headings of a page, for links to them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading == line || !heading.starts_with(' ') {
            continue;
        }
        let chars = heading.trim().chars().filter_map(|char| match char {
            ' ' => Some('-'),
            '-' | '_' => Some(char),
            _ => char.is_alphanumeric().then_some(char),
        });
        let anchor = chars.collect::<String>().to_lowercase();
        assert!(
            anchors.insert(anchor),
            "{heading}: two headings have this text"
        );
    }
    anchors
}

#[test]
fn every_link_of_the_readme_and_the_docs_leads_to_a_file_and_a_heading_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("the folder");
    let docs = docs.map(|file| file.expect("it can be read").path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in docs.chain([root.join("README.md")]) {
        let name = page.display();
        let text = fs::read_to_string(&page).expect("text");
        let targets = (text.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
        let targets: Vec<_> = targets.filter(|target| !target.contains("://")).collect();
        assert!(!targets.is_empty(), "{name}");
        for target in targets {
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (target, None),
            };
            let file = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            assert!(file.exists(), "{name}: {target}");
            if let Some(anchor) = anchor {
                let anchors = anchors(&fs::read_to_string(&file).expect("text"));
                assert!(anchors.contains(anchor), "{name}: {target}: {anchors:?}");
            }
        }
    }
}
