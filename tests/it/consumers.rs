//! How long consumers should deduplicate: every document and example has the same number.
//! `tests/consumers` tests what the examples do.

const EXAMPLES: [(&str, &str); 3] = [
    ("consumer.py", include_str!("../../examples/consumer.py")),
    ("consumer.rs", include_str!("../../examples/consumer.rs")),
    (
        "Consumer.java",
        include_str!("../../examples/Consumer.java"),
    ),
];

const DOCUMENTS: [(&str, &str); 5] = [
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

/// The value of the constant in an example.
fn used(text: &str) -> u64 {
    let (_, value) = text
        .split_once("DEDUP_MINUTES")
        .expect("it has the constant");
    let (_, value) = value.split_once("= ").expect("the constant has a value");
    let end = value.find(|character: char| !character.is_ascii_digit());
    let digits = &value[..end.expect("the file goes on")];
    digits.parse().expect("a number")
}

#[test]
fn the_window_of_consumers_is_the_same_number_in_every_document_and_example() {
    let (_, python) = EXAMPLES[0];
    let minutes = used(python);
    for (name, text) in EXAMPLES {
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
    assert_eq!(used("static final long DEDUP_MINUTES = 15;\n"), 15);
}
