//! How long consumers should deduplicate: every document and example has the same number.
//! `tests/consumers` tests what the examples do.

/// The statements that deduplicate.
const STATEMENTS: [(&str, &str); 2] = [
    ("members.sql", include_str!("../../examples/members.sql")),
    ("consuming.md", include_str!("../../docs/consuming.md")),
];

const DOCUMENTS: [(&str, &str); 6] = [
    ("members.sql", include_str!("../../examples/members.sql")),
    ("README.md", include_str!("../../README.md")),
    ("consuming.md", include_str!("../../docs/consuming.md")),
    ("scaling.md", include_str!("../../docs/scaling.md")),
    ("asyncapi.yaml", include_str!("../../schemas/asyncapi.yaml")),
    (
        "examples/README.md",
        include_str!("../../examples/README.md"),
    ),
];

/// The minutes that consumers are advised to deduplicate over, at each place of a document.
fn advised(text: &str) -> Vec<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let advice = words.windows(3).filter_map(|words| match words {
        ["over", number, unit] if unit.starts_with("minutes") => number.parse().ok(),
        _ => None,
    });
    advice.collect()
}

/// The minutes in a statement.
fn used(text: &str) -> u64 {
    let (before, _) = text.split_once(" * 60000").expect("it has the statement");
    let (_, digits) = before.rsplit_once("- ").expect("it subtracts them");
    digits.parse().expect("a number")
}

#[test]
fn the_window_of_consumers_is_the_same_number_in_every_document_and_example() {
    let (_, examples) = STATEMENTS[0];
    let minutes = used(examples);
    for (name, text) in STATEMENTS {
        assert_eq!(used(text), minutes, "{name}");
    }
    for (name, text) in DOCUMENTS {
        let advised = advised(text);
        assert!(!advised.is_empty(), "{name} has no number");
        assert!(
            advised.iter().all(|found| *found == minutes),
            "{name}: {advised:?}"
        );
        assert!(!text.contains("over minutes"), "{name} has a vague number");
    }
}

#[test]
fn a_document_with_another_number_is_found() {
    assert_eq!(
        advised("deduplicate over\n  10 minutes, and over 60 minutes."),
        [10, 60]
    );
    assert_eq!(used("seen_at < newest - 15 * 60000;\n"), 15);
}
