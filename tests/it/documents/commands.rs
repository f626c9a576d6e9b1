//! Every command in a document is one that the command line accepts, or stands in the table of those
//! that something else runs.

use clap::Parser;
use clap::error::ErrorKind;
use zim2kafka::commands::Cli;

use super::PAGES;
use super::runbook::quoted;

/// The programs that run a command of ours elsewhere, or build it first.
const RUNNERS: [&str; 6] = [
    "cargo run --release -- ",
    "docker compose exec zim2kafka ",
    "docker compose run --rm --no-deps ",
    "docker run --rm --publish 8080:8080 ",
    "kubectl exec zim2kafka-0 -- ",
    "systemd-run --pty --uid=zim2kafka --property=EnvironmentFile=/etc/zim2kafka.env ",
];

/// How commands of others begin, and what runs them, or why nothing does.
const OTHERS: [(&str, &str); 25] = [
    ("cargo build --release", "Dockerfile"),
    ("cargo run --example consumer", ".ci/consumers"),
    ("cp .env.example .env", "the shell"),
    ("docker build --tag zim2kafka .", "deploy/smoke, by compose"),
    ("docker compose up --detach --build", "deploy/smoke"),
    ("cd ", "the shell"),
    ("export ", "the shell"),
    ("mkdir -p ", "the shell"),
    ("sh", "tests/it/demo.rs runs what is printed"),
    ("tail -n 1", "tests/it/demo.rs takes the line too"),
    ("java -cp 'libs/*' Consumer.java", ".ci/consumers"),
    ("mvn dependency:copy-dependencies", ".ci/consumers"),
    ("pip install -r requirements.txt", ".ci/consumers"),
    ("python consumer.py", ".ci/consumers"),
    ("python3 -m venv target/types", ".ci/consuming"),
    ("target/types/bin/pip install ", ".ci/consuming"),
    ("target/types/bin/datamodel-codegen ", ".ci/consuming"),
    (
        "npx --yes json-schema-to-typescript@16.0.0 ",
        ".ci/consuming",
    ),
    (
        "sqlite3 members.db",
        "tests/consumers reads the same tables",
    ),
    (
        "kcat -C ",
        "nothing: the machine of the tests may not have it",
    ),
    (
        "kafka-acls.sh ",
        "nothing: the tests' jars of Kafka lack its tools",
    ),
    (
        "kafka-configs.sh ",
        "nothing: the tests' jars of Kafka lack its tools",
    ),
    ("promtool check rules deploy/alerts.yml", "deploy/check"),
    ("sed -i 's/up{service=", "deploy/check"),
    ("sed -i 's|", "deploy/check"),
];

/// The commands of the blocks: continued lines joined, pipes split, without comments, redirections
/// and variables in front.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        Vec::from_iter(joined.lines().map(str::to_owned))
    });
    let commands = lines.flat_map(|line| {
        let line = line.split("  #").next().unwrap_or_default();
        let parts = line.split(" | ").flat_map(|part| part.split(" && "));
        Vec::from_iter(parts.map(simple))
    });
    commands
        .filter(|command| !command.is_empty() && !command.starts_with('#'))
        .collect()
}

fn simple(part: &str) -> String {
    let part = part.split(" >").next().unwrap_or_default();
    let is_variable = |word: &&str| {
        let name = word.split('=').next().unwrap_or_default();
        word.contains('=')
            && name
                .chars()
                .all(|char| char.is_ascii_uppercase() || "_2".contains(char))
    };
    let words = part.split_whitespace().skip_while(is_variable);
    Vec::from_iter(words).join(" ")
}

/// Why it is not accepted.
fn fault(command: &str) -> Option<String> {
    let runner = RUNNERS
        .iter()
        .find_map(|runner| Some((*runner, command.strip_prefix(runner)?)));
    let (runner, ours) = runner.unwrap_or(("", command));
    let ours = match runner {
        "cargo run --release -- " => format!("zim2kafka {ours}"),
        _ => ours.to_owned(),
    };
    if ours == "zim2kafka" || ours.starts_with("zim2kafka ") {
        let error = Cli::try_parse_from(ours.split(' ')).err()?;
        let is_fault = !matches!(
            error.kind(),
            ErrorKind::DisplayVersion | ErrorKind::DisplayHelp
        );
        return is_fault.then(|| error.to_string());
    }
    // A word ends where the beginning does, unless the beginning is in the middle of one.
    let goes_on = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    let is_listed = OTHERS.iter().any(|(begin, _)| {
        let rest = command.strip_prefix(begin);
        rest.is_some_and(|rest| begin.ends_with([' ', '=', '|']) || goes_on(rest))
    });
    (!is_listed).then(|| "it is not in the table of commands that something else runs".to_owned())
}

#[test]
fn every_command_in_a_block_is_accepted_or_listed() {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for page in PAGES.iter() {
        for command in commands(&page.text) {
            if let Some(fault) = fault(&command) {
                faults.push(format!("{}: {command}: {fault}", page.name));
            }
            used.push(command);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (begin, by) in OTHERS {
        let is_used = used.iter().any(|command| command.starts_with(begin));
        assert!(is_used, "no document has {begin:?} ({by}): delete its row");
    }
}

#[test]
fn every_command_of_ours_in_a_sentence_is_accepted() {
    let mut faults = Vec::new();
    for page in PAGES.iter() {
        let texts = quoted(&page.text).into_iter().map(|text| simple(&text));
        for command in texts.filter(|text| text.starts_with("zim2kafka ")) {
            if let Some(fault) = fault(&command) {
                faults.push(format!("{}: {command}: {fault}", page.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_wrong_or_unknown_command_is_found() {
    let text = "```sh\nA=b zim2kafka send --print | tail -n 1 | sh  # c\nx \\\n  y >z\n```\nzim2kafka no\n";
    assert_eq!(
        commands(text),
        ["zim2kafka send --print", "tail -n 1", "sh", "x y"]
    );
    for command in [
        "zim2kafka sent",
        "docker compose exec zim2kafka zim2kafka tail --no",
        "cargo run --release -- demos",
        "rm -r x",
        "shred x",
    ] {
        assert!(fault(command).is_some(), "{command}");
    }
}
