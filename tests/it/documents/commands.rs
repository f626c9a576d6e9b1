//! Every command of ours in a document is one that the command line accepts. `.ci/documents` runs
//! them all.

use clap::Parser;
use clap::error::ErrorKind;
use zim2kafka::commands::Cli;

use super::{PAGES, prose};

/// The programs that run a command of ours elsewhere.
const RUNNERS: [&str; 5] = [
    "docker compose exec zim2kafka ",
    "docker compose run --rm --no-deps ",
    "docker run --rm --publish 8080:8080 ",
    "kubectl exec zim2kafka-0 -- ",
    "systemd-run --pty --uid=zim2kafka --property=EnvironmentFile=/etc/zim2kafka.env ",
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

/// The commands of ours in sentences and in blocks, without what runs them elsewhere.
pub(super) fn ours(text: &str) -> Vec<String> {
    let sentences = quoted(text).into_iter().map(|text| simple(&text));
    let all = sentences.chain(commands(text));
    let ours = all.filter_map(|command| {
        let runner = RUNNERS.iter().find(|runner| command.starts_with(*runner));
        let ours = &command[runner.map_or(0, |runner| runner.len())..];
        ours.starts_with("zim2kafka ").then(|| ours.to_owned())
    });
    ours.collect()
}

/// Why it is not accepted.
fn fault(command: &str) -> Option<String> {
    let error = Cli::try_parse_from(command.split(' ')).err()?;
    let is_fault = !matches!(
        error.kind(),
        ErrorKind::DisplayVersion | ErrorKind::DisplayHelp
    );
    is_fault.then(|| error.to_string())
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
    for command in ["zim2kafka sent", "zim2kafka tail --no"] {
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
