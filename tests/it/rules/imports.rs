//! Which modules may import which: the order of the modules, and no circles.

use std::collections::{BTreeMap, BTreeSet};

use super::{catches, is_kept};
use crate::support::source::Source;

/// The modules of the service, from the bottom to the top.
const ORDER: [&str; 18] = [
    "failpoint",
    "log",
    "finding",
    "callback",
    "event",
    "metrics",
    "spool",
    "kafka",
    "delivery",
    "intake",
    "health",
    "http",
    "client",
    "schema_registry",
    "config",
    "reload",
    "server",
    "commands",
];

/// The module of a source, and how many folders deep its `super` begins.
fn module_and_depth(path: &str) -> Option<(&str, usize)> {
    let mut parts: Vec<&str> = path
        .strip_prefix("src/")?
        .trim_end_matches(".rs")
        .split('/')
        .collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    Some((parts.first()?, parts.len()))
}

/// The first names behind this path prefix: one, or those of a list in braces.
fn imported<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let name = |text: &'a str| {
        let end = text.find(|char: char| !char.is_alphanumeric() && char != '_');
        &text[..end.unwrap_or(text.len())]
    };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || "_:".contains(char)) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut is_first = true;
                for (at, char) in list.char_indices() {
                    match char {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => is_first = true,
                        char if char.is_whitespace() => {}
                        _ if depth == 0 && is_first => {
                            names.push(name(&list[at..]));
                            is_first = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

#[test]
fn modules_import_only_modules_below_them() {
    fn rule(source: &Source) -> Vec<String> {
        let Some((module, depth)) = module_and_depth(&source.path) else {
            return Vec::new();
        };
        if ["lib", "main"].contains(&module) {
            return Vec::new();
        }
        let place = |module: &str| ORDER.iter().position(|name| *name == module);
        let Some(own) = place(module) else {
            return vec![format!("{module} is not in the order")];
        };
        let mut names = imported(&source.code, "crate::");
        names.extend(imported(&source.code, &"super::".repeat(depth)));
        let is_up = |name: &&str| place(name).is_none_or(|place| place > own);
        let up = names.into_iter().filter(is_up);
        up.map(|name| format!("{module} imports {name}")).collect()
    }
    let sources = Source::all();
    let found: Vec<_> = sources
        .iter()
        .filter_map(|source| module_and_depth(&source.path))
        .collect();
    for module in ORDER {
        assert!(
            found.iter().any(|(name, _)| *name == module),
            "{module} is gone"
        );
    }
    is_kept(rule);
    catches(rule, "src/callback/mod.rs", "use crate::event::Record;");
    catches(
        rule,
        "src/event/mod.rs",
        "use crate::{callback::Field, delivery::Queue};",
    );
    catches(
        rule,
        "src/metrics/mod.rs",
        "fn f(_: &crate::intake::Intake) {}",
    );
    catches(
        rule,
        "src/kafka/producer.rs",
        "use super::super::delivery::Queue;",
    );
    catches(
        rule,
        "src/spool/recovery/mod.rs",
        "use super::super::kafka::Report;",
    );
    catches(rule, "src/health.rs", "use super::http::Port;");
    catches(rule, "src/storage.rs", "");
}

/// The files of a folder that import each other in a circle.
fn circles(sources: &[Source]) -> Vec<String> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let Some((folder, file)) = source.path.rsplit_once('/') else {
            continue;
        };
        // What `folder/mod.rs` imports from its own folder is how a module is put together.
        let (folder, own, prefix) = match file.trim_end_matches(".rs") {
            "mod" => match folder.rsplit_once('/') {
                Some((parent, own)) => (parent, own, "super::"),
                None => continue,
            },
            own => (folder, own, "super::"),
        };
        let names = imported(&source.code, prefix).into_iter();
        let names = names.filter(|name| !["super", "self", own].contains(name));
        let names = names.map(|name| format!("{folder}/{name}"));
        (imports.entry(format!("{folder}/{own}")).or_default()).extend(names);
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for name in imports.get(at).into_iter().flatten() {
                if seen.insert(name.as_str()) {
                    next.push(name);
                }
            }
        }
        seen.contains(to)
    };
    let all = imports.keys();
    let circular = all.filter(|name| reaches(name, name));
    circular
        .map(|name| format!("{name} imports itself in a circle"))
        .collect()
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_a_circle() {
    assert_eq!(circles(&Source::all()), Vec::<String>::new());
    assert_eq!(circles(&Source::benches()), Vec::<String>::new());
    let found = circles(&[
        Source::new("src/a/one.rs", "use super::two::{f, g};"),
        Source::new("src/a/two/mod.rs", "use super::{Other, three};"),
        Source::new("src/a/three.rs", "fn f() { super::one::f() }"),
        Source::new("src/a/four.rs", "use super::one::f;"),
    ]);
    assert_eq!(found.len(), 3, "{found:?}");
}
