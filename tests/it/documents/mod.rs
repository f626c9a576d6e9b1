//! The documents: README.md, the pages of docs/ and that of examples/. Their tables are those of the
//! code, their links lead somewhere, and the command line accepts their commands.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

mod commands;
mod links;
mod runbook;
mod stack;
mod tables;
mod troubleshooting;

/// A document.
struct Page {
    /// Its path in the repository.
    name: String,
    text: String,
}

/// All of them, README.md first.
static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = fs::read_dir(root.join("docs")).expect("the folder");
    let names = folder.map(|file| file.expect("it can be read").file_name());
    let names = names.map(|name| name.into_string().expect("text"));
    let mut docs: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    docs.sort_unstable();
    let docs = docs.into_iter().map(|name| format!("docs/{name}"));
    let all = ["README.md".to_owned(), "examples/README.md".to_owned()];
    let pages = all.into_iter().chain(docs).map(|name| Page {
        text: fs::read_to_string(root.join(&name)).expect("text"),
        name,
    });
    pages.collect()
});

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let prose: Vec<_> = text.split("```").step_by(2).collect();
    prose.join(" ")
}
