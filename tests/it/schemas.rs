//! The record's schema and its examples agree with each other and with the ids that records get.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::support::schema;

#[test]
fn every_example_matches_the_schema_as_published_and_closed() {
    let published = published();
    for (name, example) in examples("schemas/examples") {
        for validator in [&published, &*schema::CLOSED] {
            if let Err(error) = validator.validate(&example) {
                panic!("{name} does not match: {error}");
            }
        }
    }
}

#[test]
fn every_invalid_example_is_refused() {
    let published = published();
    for (name, example) in examples("schemas/examples/invalid") {
        assert!(
            !published.is_valid(&example),
            "{name} is taken for a record"
        );
    }
}

#[test]
fn the_ids_of_the_examples_are_those_of_their_content() {
    for (name, example) in examples("schemas/examples") {
        assert_eq!(example["event_id"], event_id(&example).as_str(), "{name}");
    }
}

#[test]
fn another_value_in_any_field_of_the_id_is_another_id() {
    let (_, example) = examples("schemas/examples").remove(0);
    for field in IDENTITY {
        let mut other = example.clone();
        other[field] = "another".into();
        assert_ne!(event_id(&other), event_id(&example), "{field}");
    }
}

#[test]
fn unknown_fields_match_the_published_schema_and_not_the_closed_one() {
    let (_, mut example) = examples("schemas/examples").remove(0);
    example["added_later"] = json!(1);
    assert!(published().is_valid(&example));
    assert!(!schema::CLOSED.is_valid(&example));
}

#[test]
fn no_part_of_a_signature_is_taken_even_by_the_open_schema() {
    let (_, example) = examples("schemas/examples").remove(0);
    for name in ["signature", "nonce", "Signature", "NONCE"] {
        let mut with = example.clone();
        with[name] = "x".into();
        assert!(!published().is_valid(&with), "{name} at the top");
        let mut with = example.clone();
        with["extra"] = json!({ name: "x" });
        assert!(!published().is_valid(&with), "{name} in extra");
    }
}

fn published() -> Validator {
    jsonschema::validator_for(&schema::published()).expect("the schema is one")
}

/// The JSON files of a folder, sorted by name.
fn examples(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(&folder).expect("the folder is there");
    let mut examples: Vec<_> = files
        .map(|file| file.expect("it can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let text = fs::read_to_string(&path).expect("an example is UTF-8");
            let value = serde_json::from_str(&text);
            let name = path
                .file_name()
                .expect("a file has a name")
                .display()
                .to_string();
            (
                name.clone(),
                value.unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        })
        .collect();
    assert!(examples.len() > 4, "the examples are found");
    examples.sort_by(|(a, _), (b, _)| a.cmp(b));
    examples
}

/// The fields that make the id, in their order; the name of the event stands between the first two.
const IDENTITY: [&str; 6] = [
    "appid",
    "group_id",
    "join_type",
    "operator_account",
    "new_user_ids",
    "timestamp",
];

/// The id by the contract's words, with neither the service's code nor its crate for UUIDs: version
/// 5 (RFC 9562) over the canonical text. Of strings, whole numbers and null, what serde_json writes
/// is canonical (RFC 8785).
fn event_id(record: &Value) -> String {
    const NAMESPACE: [u8; 16] =
        *b"\x37\xf2\x8e\x8f\x6d\xdb\x5c\xb8\xbd\x0d\xc8\xee\x87\xb5\x00\x92";
    let field = |name: &str| record[name].clone();
    let [appid, rest @ ..] = IDENTITY;
    let mut parts = vec![field(appid), json!("group_join")];
    parts.extend(rest.map(field));
    let hash = Sha1::new()
        .chain_update(NAMESPACE)
        .chain_update(Value::from(parts).to_string())
        .finalize();
    let mut id: [u8; 16] = hash[..16].try_into().expect("a hash has twenty bytes");
    id[6] = id[6] & 0x0f | 0x50;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
