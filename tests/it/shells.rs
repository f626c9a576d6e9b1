//! What packages install: completions for shells, and the manual page.

use std::process::Command;

use crate::support::process::{Ended, Process, run, shell};
use crate::support::start::Start;

/// The candidates of bash for the last of these words.
#[track_caller]
fn completed(words: &str) -> Vec<String> {
    // As bash itself does: the function that `complete` has registered, with its variables.
    let line = format!(
        r#"bash --norc -c '
            source <(zim2kafka completions bash)
            [[ $(complete -p zim2kafka) =~ -F\ ([^ ]+) ]] || exit 9
            COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            COMP_LINE="${{COMP_WORDS[*]}}" COMP_POINT=${{#COMP_LINE}}
            "${{BASH_REMATCH[1]}}" zim2kafka "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
            printf "%s\n" "${{COMPREPLY[@]}}"'"#
    );
    let ended = Process::start(shell(&line)).end();
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    let mut candidates: Vec<_> = ended.stdout.lines().map(str::to_owned).collect();
    candidates.sort();
    candidates
}

#[test]
fn bash_completes_commands_flags_and_names() {
    assert_eq!(completed("zim2kafka ta"), ["tail"]);
    assert_eq!(
        completed("zim2kafka tail --dead"),
        ["--dead-letter", "--dead-letter-topic"]
    );
    assert_eq!(
        completed("zim2kafka tail --dead-letter --reason \"\""),
        [
            "invalid_event",
            "rejected_by_kafka",
            "stale",
            "unsupported_event"
        ]
    );
    assert_eq!(
        completed("zim2kafka send --scenario re"),
        ["resend", "reuse"]
    );
    assert_eq!(completed("zim2kafka send --event mi"), ["mix"]);
    assert_eq!(
        completed("zim2kafka tail --event call_c"),
        ["call_cancel", "call_create"]
    );
    assert_eq!(
        completed("zim2kafka completions \"\"")
            .iter()
            .filter(|name| !name.starts_with('-'))
            .collect::<Vec<_>>(),
        ["bash", "fish", "zsh"]
    );
}

fn script(of: &str) -> Ended {
    let secrets = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=wert-4711"),
        ("ZIM2KAFKA_CALLBACK_PATH", "/wert-4711"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "wert-4711:9092"),
    ];
    let words: Vec<_> = of.split(' ').collect();
    let ended = run(&words, &secrets);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("4711"), "{ended:?}");
    ended
}

#[test]
fn scripts_hold_names_only_and_the_shells_can_read_them() {
    // zsh and fish are not everywhere; bash is, because the build needs it.
    for (name, check, flag) in [
        ("bash", "bash -n", "--dead-letter"),
        ("zsh", "zsh --no-exec", "--dead-letter"),
        ("fish", "fish --no-execute", "-l dead-letter"),
    ] {
        let script = script(&format!("completions {name}"));
        assert!(script.stdout.contains(flag), "{name}");
        if name != "bash" && Command::new(name).arg("--version").finish().is_err() {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("script");
        std::fs::write(&file, script.stdout).expect("it can be written");
        let checked = Process::start(shell(&format!("{check} {}", file.display()))).end();
        assert_eq!(
            (checked.code, checked.stderr.as_str()),
            (Some(0), ""),
            "{name}: {checked:?}"
        );
    }
    for other in ["powershell", "bsh"] {
        let ended = run(&["completions", other], &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("is not a shell with completions"),
            "{ended:?}"
        );
    }
}

#[test]
fn the_manual_page_has_every_command_and_groff_finds_no_fault() {
    let page = script("man").stdout;
    for text in [
        concat!(
            ".TH zim2kafka 1 \"\" \"zim2kafka ",
            env!("CARGO_PKG_VERSION"),
            "\""
        ),
        ".SH \"ZIM2KAFKA SERVE\"",
        ".SH \"ZIM2KAFKA TAIL\"",
        "ZIM2KAFKA_TIMESTAMP_TOLERANCE",
        "ZIM2KAFKA_CALLBACK_SECRETS",
        "Exit codes",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    if Command::new("groff").arg("--version").finish().is_err() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("zim2kafka.1");
    std::fs::write(&file, page).expect("it can be written");
    let line = format!(
        "groff -ww -rCHECKSTYLE=3 -man -Tutf8 -Z {} >/dev/null",
        file.display()
    );
    let checked = Process::start(shell(&line)).end();
    assert_eq!(
        (checked.code, checked.stderr.as_str()),
        (Some(0), ""),
        "{checked:?}"
    );
}

/// The words of each command, and their help by `--help` or `-h`; the first is that of the program.
fn helps(flag: &str) -> Vec<(String, String)> {
    let mut helps = Vec::new();
    let mut left = vec![String::new()];
    while let Some(command) = left.pop() {
        let words: Vec<_> = command.split_whitespace().chain([flag]).collect();
        let help = run(&words, &[]).stdout;
        let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let names = commands.filter_map(|line| {
            let is_name = line.starts_with("  ") && !line.starts_with("   ");
            is_name.then(|| line.split_whitespace().next())?
        });
        let names = names.filter(|name| *name != "help");
        left.extend(names.map(|name| format!("{command} {name}").trim().to_owned()));
        helps.push((command, help));
    }
    assert!(helps.len() > 8, "{helps:?}");
    helps
}

#[test]
fn help_fits_80_columns() {
    for flag in ["--help", "-h"] {
        for (command, help) in helps(flag) {
            let wide: Vec<_> = (help.lines())
                .filter(|line| line.chars().count() > 80)
                .collect();
            assert_eq!(wide, [""; 0], "{command} {flag}");
        }
    }
}

#[test]
fn the_help_of_serve_begins_with_the_settings_one_needs_and_examples() {
    let helps = [helps("--help"), helps("-h")];
    let [long, short] = helps.map(|all| {
        let serve = all.into_iter().find(|(name, _)| name == "serve");
        serve.expect("there is serve").1
    });
    let (begin, rest) = long.split_once("\nUsage: ").expect("clap prints that");
    for setting in ["CALLBACK_SECRETS", "--kafka-brokers", "--spool-dir"] {
        assert!(begin.contains(setting), "{begin}");
    }
    assert_eq!(begin.matches(" zim2kafka serve \\\n").count(), 2, "{begin}");
    for setting in ["--kafka-brokers", "--spool-dir", "--topics", "--tls-cert"] {
        assert!(short.contains(setting), "{short}");
    }
    assert!(rest.contains("--drain-delay") && !short.contains("--drain-delay"));
    assert!(short.lines().count() < 60, "{short}");
}
