//! The fixtures, as far as they are about meaning: what becomes of each body.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/callbacks");

#[derive(Deserialize)]
struct Fixture {
    file: String,
    expect: Value,
}

#[derive(Deserialize)]
struct WithExtra {
    #[serde(default)]
    extra: BTreeMap<String, Box<RawValue>>,
}

#[test]
fn every_fixture_means_what_the_index_says() {
    let index = include_str!("../../../tests/fixtures/callbacks/index.json");
    let index: Vec<Fixture> = serde_json::from_str(index).expect("the index");
    assert!(!index.is_empty());
    for Fixture { file, expect } in index {
        let body = std::fs::read(Path::new(FOLDER).join(&file)).expect(&file);
        match record(body.clone()) {
            Err(status) => assert_eq!(expect["status"], status, "{file}"),
            // The one question is answered by its name, before its meaning is asked for.
            Ok(_) if expect["passed"] == true => {}
            Ok(record) if record.is_dead_letter() => {
                check_dead_letter(&file, &record, &expect["dead_letter"], &body);
            }
            Ok(record) => check_record(&file, &record, &expect["record"]),
        }
    }
}

fn check_dead_letter(file: &str, letter: &Record, expect: &Value, body: &[u8]) {
    assert_eq!(
        expect["reason"],
        header(letter, "dead_letter_reason"),
        "{file}"
    );
    let key = letter
        .key
        .as_deref()
        .map(|key| String::from_utf8_lossy(key));
    assert_eq!(expect["key"].as_str(), key.as_deref(), "{file}");
    assert!(!header(letter, "dead_letter_detail").is_empty(), "{file}");
    assert_eq!(letter.value, body, "{file}");
}

fn check_record(file: &str, record: &Record, expect: &Value) {
    let value = std::str::from_utf8(&record.value).expect(file);
    let ours: Value = serde_json::from_str(value).expect("every value is read by strict parsers");
    let WithExtra { extra } = serde_json::from_str(value).expect(file);
    for name in [
        "appid",
        "group_id",
        "join_type",
        "operator_account",
        "new_user_ids",
        "timestamp",
    ] {
        assert_eq!(ours[name], expect[name], "{file}: {name}");
    }
    let (values, texts) = (members(&expect["extra"]), members(&expect["extra_text"]));
    assert_eq!(extra.len(), values.len() + texts.len(), "{file}");
    for (name, text) in &extra {
        match texts.get(name) {
            Some(expected) => assert_eq!(*expected, text.get(), "{file}: {name}"),
            None => {
                let value: Value = serde_json::from_str(text.get()).expect(file);
                assert_eq!(Some(&value), values.get(name), "{file}: {name}");
            }
        }
    }
}

fn members(object: &Value) -> serde_json::Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}
