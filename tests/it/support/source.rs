//! The sources of the service, as the rules of the house look at them.

use std::fs;
use std::path::Path;

/// A file under `src/`, without its tests.
pub(crate) struct Source {
    /// Such as `src/http/mod.rs`.
    pub(crate) path: String,
    /// The program alone: no comments, what stands in quotes blanked out, no `#[cfg(test)]`
    /// modules.
    pub(crate) code: String,
    /// As it stands in the file.
    pub(crate) text: String,
}

fn read(folder: &Path, name: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let entry = entry.expect("src can be read");
        let file = entry.file_name().into_string().expect("names are UTF-8");
        let path = format!("{name}/{file}");
        if file == "tests" || file == "tests.rs" {
            continue;
        }
        if entry.path().is_dir() {
            read(&entry.path(), &path, sources);
        } else if file.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a source is UTF-8");
            sources.push(Source::new(&path, &text));
        }
    }
}

impl Source {
    /// Every source but the tests, which may do what they need.
    pub(crate) fn all() -> Vec<Self> {
        let mut sources = Vec::new();
        read(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
            "src",
            &mut sources,
        );
        sources
    }

    /// Every source of the tests.
    pub(crate) fn tests() -> Vec<Self> {
        let mut sources = Vec::new();
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it"));
        read(folder, "tests/it", &mut sources);
        sources
    }

    /// Every source of the benchmarks.
    pub(crate) fn benches() -> Vec<Self> {
        let mut sources = Vec::new();
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"));
        read(folder, "benches", &mut sources);
        sources
    }

    /// A source of that path with this text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            code: without_tests(&without_comments_and_quotes(text)),
            text: text.to_owned(),
        }
    }

    /// Whether it is in that folder.
    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Lines of the program in which one of these stands.
    pub(crate) fn lines_with(&self, fragments: &[&str]) -> Vec<String> {
        self.lines(|line| fragments.iter().any(|fragment| line.contains(fragment)))
    }

    /// Lines of the program in which one of these stands and is no part of a longer name.
    pub(crate) fn lines_with_word(&self, words: &[&str]) -> Vec<String> {
        let is_name =
            |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let stands = |line: &str, word: &str| {
            line.match_indices(word).any(|(at, _)| {
                let (before, after) = (&line[..at], &line[at + word.len()..]);
                !is_name(before.chars().next_back()) && !is_name(after.chars().next())
            })
        };
        self.lines(|line| words.iter().any(|word| stands(line, word)))
    }

    fn lines(&self, breaks: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.code.lines().zip(1..);
        let broken = lines.filter(|(line, _)| breaks(line));
        broken
            .map(|(line, number)| format!("line {number}: {}", line.trim()))
            .collect()
    }
}

/// Blanks out what is not the program, and keeps its lines.
fn without_comments_and_quotes(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let not_code = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_string(rest)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        let (blank, next) = rest.split_at(not_code);
        code.extend(blank.chars().filter(|char| *char == '\n'));
        rest = next;
        if not_code == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of a comment, which may hold comments.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    for at in 0..text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = 1 + hashes + 1;
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        // A raw identifier.
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

/// The length of a character in quotes; none where the quote begins a lifetime.
fn character(text: &str) -> usize {
    if let Some(escape) = text.strip_prefix("'\\") {
        let mut rest = escape.char_indices().skip(1);
        return rest
            .find(|(_, char)| *char == '\'')
            .map_or(0, |(at, _)| at + 3);
    }
    let mut chars = text.char_indices().skip(2);
    chars
        .next()
        .filter(|(_, char)| *char == '\'')
        .map_or(0, |(at, _)| at + 1)
}

/// Blanks out modules that exist for tests only. The text has no quotes left, so braces pair.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let Some(begin) = code.find(MARK) else {
        return code.to_owned();
    };
    let (before, tests) = code.split_at(begin);
    let mut depth = 0;
    let end = tests.char_indices().find_map(|(at, char)| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        (depth == 0 && matches!(char, ';' | '}')).then_some(at + 1)
    });
    let (tests, after) = tests.split_at(end.unwrap_or(tests.len()));
    let lines: String = tests.chars().filter(|char| *char == '\n').collect();
    format!("{before}{lines}{}", without_tests(after))
}
