//! Every link of the documents leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{PAGES, prose};

/// The anchors that GitHub gives to the headings of a page.
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

/// The targets of links and pictures, those of HTML too.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text);
    let markdown = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let quoted = |name| {
        text.split(name)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
    };
    let html = quoted(" href=\"").chain(quoted(" src=\""));
    markdown.chain(html).map(str::to_owned).collect()
}

/// A page on the web: it is not requested, because tests need no network.
fn is_url(target: &str) -> bool {
    let is_host = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        host.contains('.') && !host.contains(char::is_whitespace)
    };
    target.strip_prefix("https://").is_some_and(is_host)
}

#[test]
fn every_link_of_the_documents_leads_to_a_file_and_a_heading_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dead = Vec::new();
    for page in PAGES.iter() {
        let targets = targets(&page.text);
        assert!(!targets.is_empty(), "{} has no link", page.name);
        for target in targets {
            if is_url(&target) {
                continue;
            }
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (target.as_str(), None),
            };
            let page_file = root.join(&page.name);
            let file = match file {
                "" => page_file,
                file => page_file.parent().expect("a folder").join(file),
            };
            let has_anchor = |anchor: &str| {
                fs::read_to_string(&file).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !file.exists() || !anchor.is_none_or(has_anchor) {
                dead.push(format!("{}: {target}", page.name));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_document_can_be_reached_from_the_readme() {
    let readme = PAGES.iter().find(|page| page.name == "README.md");
    let linked = targets(&readme.expect("it is the first").text);
    for page in PAGES.iter().filter(|page| page.name != "README.md") {
        let is_it = |target: &String| target.split('#').next() == Some(page.name.as_str());
        assert!(
            linked.iter().any(is_it),
            "README.md has no link to {}",
            page.name
        );
    }
}

#[test]
fn links_of_every_kind_are_found_and_judged() {
    let text =
        "[a](b.md#c) ![d](e.png) <img src=\"f.png\"> <a href=\"g.md\">\n```sh\n[x](y)\n```\n";
    assert_eq!(targets(text), ["b.md#c", "e.png", "g.md", "f.png"]);
    assert!(is_url("https://example.com/a") && is_url("https://example.com"));
    for target in ["http://example.com", "https://nohost", "https:/example.com"] {
        assert!(!is_url(target), "{target}");
    }
    assert_eq!(
        Vec::from_iter(anchors("## `a_b`: C-d, e\n```sh\n# f\n```")),
        ["a_b-c-d-e"]
    );
}
