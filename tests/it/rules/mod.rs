//! The rules of the code base, checked by reading the sources.
//!
//! A rule is a function from a source to the lines that break it. Each is also tried on a source
//! that breaks it, because a rule that nothing can break checks nothing.

mod imports;

use crate::support::source::Source;

/// Lines that break a rule.
type Rule = fn(&Source) -> Vec<String>;

#[test]
fn only_the_configuration_reads_the_environment() {
    // `env!` is read when the program is built, and the arguments are main's business.
    fn rule(source: &Source) -> Vec<String> {
        match source.path.as_str() {
            // A failpoint is for tests and must work in every module.
            "src/config/environment.rs" | "src/failpoint.rs" => Vec::new(),
            "src/main.rs" => source.lines_with(&["env::var"]),
            _ => source.lines_with(&["env::", "env,", "env}", "option_env!"]),
        }
    }
    is_kept(rule);
    catches(rule, "src/server.rs", "let home = std::env::var(\"HOME\");");
    catches(
        rule,
        "src/main.rs",
        "let home = std::env::var_os(\"HOME\");",
    );
    catches(rule, "src/http/mod.rs", "use std::{env, io};");
}

#[test]
fn only_main_ends_the_process() {
    fn rule(source: &Source) -> Vec<String> {
        match source.path.as_str() {
            "src/main.rs" => Vec::new(),
            _ => source.lines_with(&[
                "process::exit",
                "process::abort",
                "exit()",
                "exit(1",
                "exit(2",
            ]),
        }
    }
    is_kept(rule);
    catches(rule, "src/commands/serve.rs", "std::process::exit(code)");
    catches(rule, "src/config/mod.rs", "Err(error) => error.exit(),");
}

#[test]
fn only_log_and_output_write_to_stderr_and_stdout() {
    // The macros and clap wait for a reader, and the macros panic without one.
    fn rule(source: &Source) -> Vec<String> {
        let macros = ["println!", "eprintln!", "print!", "eprint!"];
        let mut broken = source.lines_with_word(&macros);
        broken.extend(source.lines_with(&[".exit()", "error.print()"]));
        broken.extend(match source.path.as_str() {
            "src/log/mod.rs" => source.lines_with(&["stdout()"]),
            "src/commands/output.rs" => source.lines_with(&["stderr()"]),
            // Whether they take colours.
            "src/commands/mod.rs" => source.lines_with(&["stdout().", "stderr()."]),
            _ => source.lines_with(&["stdout()", "stderr()", "io::stdout", "io::stderr"]),
        });
        broken
    }
    is_kept(rule);
    for path in ["src/main.rs", "src/log/mod.rs", "src/commands/output.rs"] {
        catches(rule, path, "println!(\"{finding}\");");
        catches(rule, path, "eprintln!(\"error: {message}\");");
        catches(rule, path, "print!(\"{text}\");");
        catches(rule, path, "std::eprint!(\"{text}\");");
        catches(rule, path, "Err(error) => error.exit(),");
    }
    catches(rule, "src/server.rs", "writeln!(io::stderr(), \"stopped\")");
    catches(
        rule,
        "src/commands/tail.rs",
        "writeln!(io::stdout(), \"{line}\")",
    );
    catches(rule, "src/commands/mod.rs", "io::stdout().write_all(text)");
    catches(rule, "src/http/mod.rs", ".with_writer(std::io::stderr)");
}

#[test]
fn only_http_imports_axum() {
    fn rule(source: &Source) -> Vec<String> {
        if source.is_in("src/http/") {
            return Vec::new();
        }
        source.lines_with_word(&["axum", "axum_server", "tower"])
    }
    is_kept(rule);
    catches(rule, "src/intake/mod.rs", "use axum::http::HeaderMap;");
    catches(
        rule,
        "src/commands/serve.rs",
        "let handle = axum_server::Handle::new();",
    );
}

#[test]
fn only_http_and_clients_know_status_codes() {
    // Clients read the codes that others answer.
    const CLIENTS: [&str; 2] = ["src/client.rs", "src/schema_registry.rs"];
    fn rule(source: &Source) -> Vec<String> {
        let is_client = CLIENTS.contains(&source.path.as_str()) || source.is_in("src/commands/");
        if source.is_in("src/http/") || is_client {
            return Vec::new();
        }
        source.lines_with_word(&["StatusCode", "http_status"])
    }
    is_kept(rule);
    catches(
        rule,
        "src/intake/mod.rs",
        "Err(Full) => StatusCode::SERVICE_UNAVAILABLE,",
    );
}

#[test]
fn only_kafka_imports_rdkafka() {
    fn rule(source: &Source) -> Vec<String> {
        if source.is_in("src/kafka/") {
            return Vec::new();
        }
        source.lines_with_word(&["rdkafka", "rdkafka_sys"])
    }
    is_kept(rule);
    catches(
        rule,
        "src/delivery/queue/mod.rs",
        "use rdkafka::error::KafkaError;",
    );
    catches(
        rule,
        "src/commands/tail.rs",
        "consumer: rdkafka::consumer::BaseConsumer,",
    );
}

#[test]
fn only_spool_imports_sqlite() {
    fn rule(source: &Source) -> Vec<String> {
        if source.is_in("src/spool/") {
            return Vec::new();
        }
        source.lines_with_word(&["rusqlite", "libsqlite3_sys"])
    }
    is_kept(rule);
    catches(rule, "src/delivery/spooler.rs", "use rusqlite::Connection;");
}

#[test]
fn unsafe_code_is_in_two_files() {
    fn rule(source: &Source) -> Vec<String> {
        if ["src/kafka/rights.rs", "src/kafka/events.rs"].contains(&source.path.as_str()) {
            return Vec::new();
        }
        source.lines_with_word(&["unsafe", "unsafe_code"])
    }
    is_kept(rule);
    catches(rule, "src/main.rs", "let byte = unsafe { *pointer };");
}

/// What it judges, it may not lean on.
#[test]
fn the_auditor_shares_nothing_with_the_service_or_with_other_tests() {
    fn rule(source: &Source) -> Vec<String> {
        if !source.is_in("tests/it/audit/") {
            return Vec::new();
        }
        let mut broken = source.lines_with_word(&["zim2kafka", "include", "include_str"]);
        broken.extend(source.lines_with(&["crate::", "super::super", "#[path"]));
        broken
    }
    let sources = Source::tests();
    let audit = sources
        .iter()
        .filter(|source| source.is_in("tests/it/audit/"));
    assert!(audit.count() >= 5, "the auditor is found");
    is_kept_by(&sources, rule);
    let path = "tests/it/audit/sender.rs";
    catches(rule, path, "use zim2kafka::callback::sign;");
    catches(rule, path, "use crate::support::app::callback;");
    catches(rule, path, "use super::super::support::kafka;");
}

#[test]
fn callback_and_event_are_pure() {
    const IMPURE: [&str; 18] = [
        "async",
        "await",
        "env",
        "eprintln",
        "fs",
        "io",
        "metrics",
        "net",
        "now",
        "println",
        "process",
        "rand",
        "std::sync",
        "thread",
        "tokio",
        "tracing",
        "Instant",
        "SystemTime",
    ];
    fn rule(source: &Source) -> Vec<String> {
        if !source.is_in("src/callback/") && !source.is_in("src/event/") {
            return Vec::new();
        }
        source.lines_with_word(&IMPURE)
    }
    is_kept(rule);
    catches(
        rule,
        "src/callback/decode.rs",
        "let now = std::time::SystemTime::now();",
    );
    catches(rule, "src/event/mod.rs", "use std::{fmt, fs};");
    catches(rule, "src/event/mod.rs", "pub async fn read() {}");
    catches(rule, "src/event/record.rs", "tracing::warn!(detail);");
}

#[test]
fn only_authentication_makes_a_verified_callback() {
    fn rule(source: &Source) -> Vec<String> {
        if source.path == "src/callback/authenticate.rs" {
            return Vec::new();
        }
        source.lines_with(&[" VerifiedCallback {", "(VerifiedCallback {"])
    }
    is_kept(rule);
    catches(
        rule,
        "src/intake/mod.rs",
        "let verified = VerifiedCallback { raw, appid };",
    );
    catches(
        rule,
        "src/callback/decode.rs",
        "Ok(VerifiedCallback { raw })",
    );
}

#[test]
fn authentication_compares_in_constant_time() {
    fn rule(source: &Source) -> Vec<String> {
        if source.path != "src/callback/authenticate.rs" {
            return Vec::new();
        }
        let mut broken = source.lines_with(&["==", "!=", ".eq(", ".ne(", "matches!", ".cmp("]);
        if !source.code.contains(".ct_eq(") {
            broken.push("nothing is compared with ct_eq".to_owned());
        }
        broken
    }
    is_kept(rule);
    let path = "src/callback/authenticate.rs";
    catches(
        rule,
        path,
        "matches | sign(secret).0 == signature.0; a.ct_eq(&b)",
    );
    catches(rule, path, "pub fn authenticate() {}");
}

#[test]
fn no_file_is_longer_than_450_lines() {
    fn rule(source: &Source) -> Vec<String> {
        let lines = source.text.lines().count();
        if lines > 450 {
            vec![format!("{lines} lines")]
        } else {
            Vec::new()
        }
    }
    is_kept(rule);
    is_kept_by(&Source::tests(), rule);
    catches(rule, "src/long.rs", &"fn f() {}\n".repeat(451));
}

#[test]
fn every_public_bound_is_listed_in_lib_rs() {
    fn rule(source: &Source) -> Vec<String> {
        let map = include_str!("../../../src/lib.rs");
        let bound = |line: &str| {
            let (name, _) = line.trim().strip_prefix("pub const ")?.split_once(':')?;
            (name.contains("MAX_") && !map.contains(&format!("::{name}`]")))
                .then(|| name.to_owned())
        };
        source.code.lines().filter_map(bound).collect()
    }
    is_kept(rule);
    catches(
        rule,
        "src/http/mod.rs",
        "pub const MAX_OF_SOMETHING: usize = 7;",
    );
}

#[test]
fn comments_quotes_and_tests_are_not_code() {
    let text = r##"
        //! axum in a comment
        /* and /* nested */ axum */
        let quoted = "axum \" axum"; let raw = r#"axum "axum" "#;
        let (quote, life): (char, &'static str) = ('"', "axum");
        use tokio;
        #[cfg(test)]
        mod tests { fn f() { axum::serve("}"); } }
        #[cfg(test)]
        mod elsewhere;
        fn after() {}
    "##;
    let source = Source::new("src/a.rs", text);
    assert_eq!(source.lines_with(&["axum"]), Vec::<String>::new());
    assert_eq!(source.lines_with_word(&["tokio"]), ["line 6: use tokio;"]);
    assert_eq!(
        source.lines_with_word(&["toki", "okio"]),
        Vec::<String>::new()
    );
    assert_eq!(source.lines_with(&["elsewhere"]), Vec::<String>::new());
    assert_eq!(source.lines_with(&["fn after"]), ["line 11: fn after() {}"]);
}

#[track_caller]
fn is_kept(rule: Rule) {
    let sources = Source::all();
    assert!(sources.len() > 20, "the sources are found");
    is_kept_by(&sources, rule);
}

#[track_caller]
fn is_kept_by(sources: &[Source], rule: Rule) {
    let broken = sources.iter().flat_map(|source| {
        rule(source)
            .into_iter()
            .map(|line| format!("{}: {line}", source.path))
    });
    let broken: Vec<String> = broken.collect();
    assert!(
        broken.is_empty(),
        "the rule is broken by\n{}",
        broken.join("\n")
    );
}

#[track_caller]
fn catches(rule: Rule, path: &str, text: &str) {
    assert!(
        !rule(&Source::new(path, text)).is_empty(),
        "the rule lets {path} pass: {text}"
    );
}
