//! `schemas/`: the schema, the examples and the message of each event follow from its table.
//!
//! With `ZIM2KAFKA_TEST_WRITE=schemas` in the environment, the first test rewrites the files.

mod asyncapi;
mod every_record;
mod examples;
mod invalid;
mod json;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use jsonschema::Validator;
use serde_json::{Value, json};
use zim2kafka::event::{EVENTS, Kind};

use self::json::Json;
use crate::support::{ids, schema as published};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");

/// The text of each file that follows from the table of events, by its name in the folder.
fn derived() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for kind in EVENTS {
        let usual = examples::usual(kind);
        let examples_of = usual.iter().map(examples::Example::json).collect();
        let stem = schema::stem(kind);
        let schema = schema::of(kind, examples_of);
        files.insert(schema::file_name(kind), schema.file());
        files.insert(format!("examples/{stem}.json"), examples::file(kind).file());
        files.insert(
            format!("examples/{stem}.invalid.json"),
            invalid::table(kind),
        );
    }
    let asyncapi = "asyncapi.yaml";
    files.insert(asyncapi.to_owned(), asyncapi::derived(&text(asyncapi)));
    files
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("schemas/{name}: {error}"))
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The files of schemas and examples that are committed.
fn committed() -> BTreeSet<String> {
    let names = |folder: &str, suffix: &str| {
        let files = fs::read_dir(path(folder)).into_iter().flatten();
        let names = files.map(|file| file.expect("it can be read").file_name());
        let names = names.map(|name| name.into_string().expect("text"));
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        names
            .filter(|name| name.ends_with(suffix))
            .map(|name| format!("{prefix}{name}"))
            .collect::<BTreeSet<_>>()
    };
    let mut all = names("", ".v1.schema.json");
    all.extend(names("examples", ""));
    all.insert("asyncapi.yaml".to_owned());
    all
}

#[test]
fn what_is_committed_is_derived_from_the_table_of_events() {
    let derived = derived();
    let hint = "set ZIM2KAFKA_TEST_WRITE=schemas, run this test again and look at the difference";
    if env::var("ZIM2KAFKA_TEST_WRITE").is_ok_and(|what| what == "schemas") {
        for name in committed()
            .iter()
            .filter(|name| !derived.contains_key(*name))
        {
            fs::remove_file(path(name)).expect("it can be removed");
        }
        fs::create_dir_all(path("examples")).expect("it can be created");
        for (name, text) in &derived {
            fs::write(path(name), text).expect("it can be written");
        }
    }
    assert_eq!(committed(), derived.keys().cloned().collect(), "{hint}");
    for (name, expected) in &derived {
        let found = text(name);
        let lines = found.lines().zip(expected.lines());
        let differs = lines.clone().find(|(found, expected)| found != expected);
        assert!(
            found == *expected,
            "schemas/{name} differs: {differs:?}; {hint}"
        );
    }
}

/// The schema of an event as it is published.
fn validator(kind: &Kind) -> Validator {
    published::validator(&schema_of(kind))
}

fn schema_of(kind: &Kind) -> Value {
    serde_json::from_str(&text(&schema::file_name(kind))).expect("a schema is JSON")
}

/// The valid examples of an event that are committed.
fn valid(kind: &Kind) -> Vec<(String, Value)> {
    let examples = Json::parse(&text(&format!("examples/{}.json", schema::stem(kind))));
    let examples = examples.members().iter();
    examples
        .map(|(name, example)| (name.clone(), example.value()))
        .collect()
}

#[test]
fn every_example_matches_its_schema_as_published_and_closed() {
    for kind in EVENTS {
        let validators = [
            validator(kind),
            published::validator(&published::closed(schema_of(kind))),
        ];
        let examples = valid(kind);
        assert!(examples.len() >= 3);
        for (name, example) in examples {
            for validator in &validators {
                if let Err(error) = validator.validate(&example) {
                    panic!("{}: {name} does not match: {error}", kind.name);
                }
            }
        }
    }
}

#[test]
fn every_patch_of_the_table_is_refused_for_its_reason_alone() {
    for kind in EVENTS {
        let validator = validator(kind);
        let table = Json::parse(&text(&format!(
            "examples/{}.invalid.json",
            schema::stem(kind)
        )));
        let record = table.get("record").value();
        assert!(validator.is_valid(&record), "{}", kind.name);
        let Value::Array(rows) = table.get("invalid").value() else {
            panic!("a list");
        };
        assert!(rows.len() > 30);
        for row in rows {
            let patched = patched(&record, &row["patch"]);
            let errors = validator.iter_errors(&patched);
            let broken: Vec<_> = errors
                .map(|error| error.schema_path().as_str().to_owned())
                .collect();
            let [rule] = broken.as_slice() else {
                panic!("{}: {} breaks {broken:?}", kind.name, row["because"]);
            };
            assert_eq!(
                row["rule"],
                rule.as_str(),
                "{}: {}",
                kind.name,
                row["because"]
            );
        }
    }
}

/// A document with a patch (RFC 6902) of one operation.
fn patched(document: &Value, patch: &Value) -> Value {
    let mut patched = document.clone();
    let operation = &patch[0];
    let path = operation["path"].as_str().expect("a pointer");
    let Some((parent, name)) = path.rsplit_once('/') else {
        return operation["value"].clone();
    };
    let parent = patched.pointer_mut(parent).expect("the parent is there");
    let parent = parent.as_object_mut().expect("an object");
    match operation["op"].as_str() {
        Some("add") => parent.insert(name.to_owned(), operation["value"].clone()),
        Some("remove") => parent.remove(name),
        other => panic!("{other:?}"),
    };
    patched
}

#[test]
fn the_shared_parts_of_the_schemas_are_equal() {
    let shared = |kind: &Kind| {
        let schema = schema_of(kind);
        let mut properties = schema["properties"].clone();
        let event = properties["event"].as_object_mut().expect("an object");
        assert_eq!(event.remove("const"), Some(kind.name.into()));
        let names = [
            "event_id",
            "event",
            "appid",
            "timestamp",
            "received_at",
            "omitted",
            "extra",
        ];
        let mut shared = names.map(|name| properties[name].clone()).to_vec();
        shared.extend(
            ["$schema", "$comment", "type", "propertyNames"].map(|name| schema[name].clone()),
        );
        assert!(shared.iter().all(|part| !part.is_null()), "{}", kind.name);
        shared
    };
    let [first, others @ ..] = EVENTS.as_slice() else {
        panic!("there are events");
    };
    for other in others {
        assert_eq!(shared(other), shared(first), "{}", other.name);
    }
}

#[test]
fn fields_that_can_be_left_out_are_not_required_and_the_others_are() {
    let required = |event: &str| {
        let kind = EVENTS
            .iter()
            .find(|kind| kind.name == event)
            .expect("it is known");
        let schema = schema_of(kind);
        let names = schema["required"].as_array().expect("a list").clone();
        let names = names
            .into_iter()
            .map(|name| name.as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    // The names of the contract, not those of the code.
    for (event, own) in [
        (
            "group_join",
            "group_id join_type operator_account new_user_ids",
        ),
        (
            "group_create",
            "group_id operator_account owner_account user_ids",
        ),
        ("room_create", "room_id operator_account"),
        (
            "user_action",
            "user_id action session_id relogin login_time logout_time offline_time",
        ),
        ("call_create", "call_id caller user_ids create_time"),
        ("call_cancel", "call_id user_ids reason"),
        ("call_accept", "call_id user_id"),
        (
            "send_msg",
            "from_user_id conv_type conv_id msg_id msg_type sub_msg_type msg_time send_result user_list",
        ),
    ] {
        let expected = format!("event_id event appid {own} timestamp received_at");
        assert_eq!(required(event), expected, "{event}");
    }
}

#[test]
fn ids_and_numbers_beyond_a_double_match() {
    let kind = EVENTS
        .iter()
        .find(|kind| kind.name == "send_msg")
        .expect("it is known");
    let (_, example) = valid(kind).swap_remove(0);
    let text = example.to_string();
    for number in [
        "9007199254740993",
        "18446744073709551616",
        "-5",
        &"9".repeat(308),
    ] {
        let text = text.replace("\"msg_seq\":17", &format!("\"msg_seq\":{number}"));
        assert!(text.contains(number));
        let example: Value = serde_json::from_str(&text).expect("strict parsers read it");
        assert!(validator(kind).is_valid(&example), "{number}");
    }
}

#[test]
fn unknown_fields_match_the_published_schema_and_not_the_closed_one() {
    for kind in EVENTS {
        let (_, mut example) = valid(kind).swap_remove(0);
        example["added_later"] = json!(1);
        assert!(validator(kind).is_valid(&example), "{}", kind.name);
        let closed = published::validator(&published::closed(schema_of(kind)));
        assert!(!closed.is_valid(&example), "{}", kind.name);
    }
}

#[test]
fn the_ids_of_the_examples_of_joins_are_those_of_their_content() {
    let kind = EVENTS
        .iter()
        .find(|kind| kind.name == "group_join")
        .expect("it is known");
    for (name, example) in valid(kind) {
        let field = |name: &str| example[name].clone();
        let id = ids::of_record(&json!([
            field("appid"),
            "group_join",
            field("group_id"),
            field("join_type"),
            field("operator_account"),
            field("new_user_ids"),
            field("timestamp"),
        ]));
        assert_eq!(example["event_id"], id.as_str(), "{name}");
    }
}
