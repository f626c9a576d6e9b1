//! Every command in a document is one that the command line accepts, or stands in the table of those
//! that something else runs.

use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use zim2kafka::commands::Cli;

use super::{PAGES, prose};

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
const OTHERS: [(&str, &str); 31] = [
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
    ("go run . localhost:9092", ".ci/consumers"),
    (
        "go run github.com/atombender/go-jsonschema@v0.24.1 ",
        ".ci/consuming",
    ),
    ("java -cp 'libs/*:.' Consumer.java", ".ci/consumers"),
    (
        "java -cp 'libs/*' MemberTable.java",
        ".ci/consuming, without a Kafka",
    ),
    (
        "mvn --quiet --file examples/pom.xml org.jsonschema2pojo:jsonschema2pojo-maven-plugin:1.2.2:generate",
        ".ci/consuming",
    ),
    ("mvn dependency:copy-dependencies", ".ci/consumers"),
    ("node consumer.ts", ".ci/consumers"),
    ("npm ci", ".ci/consumers"),
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

/// The texts in backquotes, each on one line.
fn quoted(text: &str) -> Vec<String> {
    let prose = prose(text);
    let quoted = prose.split('`').skip(1).step_by(2);
    quoted
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// A command without what runs it elsewhere, and that.
fn without_runner(command: &str) -> (&str, &str) {
    let runner = RUNNERS
        .iter()
        .find_map(|runner| Some((command.strip_prefix(runner)?, *runner)));
    runner.unwrap_or((command, ""))
}

/// The commands of ours in sentences and in blocks.
pub(super) fn ours(text: &str) -> Vec<String> {
    let sentences = quoted(text).into_iter().map(|text| simple(&text));
    let all = sentences.chain(commands(text));
    let ours = all.map(|command| without_runner(&command).0.to_owned());
    ours.filter(|command| command.starts_with("zim2kafka "))
        .collect()
}

/// Why it is not accepted.
fn fault(command: &str) -> Option<String> {
    let (ours, runner) = without_runner(command);
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (begin, by) in OTHERS {
        let is_used = used.iter().any(|command| command.starts_with(begin));
        assert!(is_used, "no document has {begin:?} ({by}): delete its row");
        // The name of a file comes first.
        let file = by.split([' ', ',']).next().unwrap_or_default();
        let is_missing = file.contains('/') && !root.join(file).exists();
        assert!(!is_missing, "{begin:?}: there is no {file}");
    }
}

#[test]
fn every_command_of_ours_is_accepted_also_in_a_sentence() {
    let mut faults = Vec::new();
    for page in PAGES.iter() {
        for command in ours(&page.text) {
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

#[test]
fn commands_of_ours_are_found_in_sentences_in_blocks_and_behind_what_runs_them() {
    let text = "Run `zim2kafka spool\n  status`, `check` or `docker compose exec zim2kafka zim2kafka check`.\n```sh\nzim2kafka tail > file\nsed x\n```\n`zim2kafka send`";
    let expected = [
        "zim2kafka spool status",
        "zim2kafka check",
        "zim2kafka send",
        "zim2kafka tail",
    ];
    assert_eq!(ours(text), expected);
}
