//! Whatever a callback contains, its record matches the closed schema.

use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};
use zim2kafka::event::{EVENTS, FieldSpec, Kind, Omit, Policy, Record, Type};

use super::examples;
use crate::support::schema;

fn any_of<const N: usize>(values: [Value; N]) -> BoxedStrategy<Value> {
    Union::new(values.map(Just)).boxed()
}

/// Values that the field takes, and some that it does not.
fn value(field: &'static FieldSpec) -> BoxedStrategy<Value> {
    let text = any::<String>().prop_map(Value::from).boxed();
    let number = any::<i64>().prop_map(Value::from).boxed();
    let none = any_of([json!(null), json!("")]);
    let own = match &field.of {
        Type::Id(_) | Type::Text => text,
        Type::ServerId | Type::Number { .. } => {
            let digits = any::<u64>().prop_map(|number| number.to_string().into());
            prop_oneof![number, digits].boxed()
        }
        Type::Time => any_of([
            json!(0),
            json!("0"),
            json!(1_757_577_601),
            json!("1757577601123"),
            json!("0000000001"),
            json!(17),
        ]),
        Type::Users { .. } => prop::collection::vec(text, 0..3)
            .prop_map(Value::from)
            .boxed(),
        Type::OneOf(values) => {
            let values = values.iter().map(|value| Just(json!(value)).boxed());
            Union::new(values).boxed()
        }
        Type::Items { members, .. } => {
            let item = object(members, camel_case);
            prop::collection::vec(item, 0..3)
                .prop_map(Value::from)
                .boxed()
        }
    };
    prop_oneof![8 => own, 1 => none].boxed()
}

/// `user_id` is `UserId`, as in the sender's own items.
fn camel_case(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    words
        .map(|word| word[..1].to_ascii_uppercase() + &word[1..])
        .collect()
}

/// An object with most of these fields and an unknown one.
fn object(fields: &'static [FieldSpec], rename: fn(&str) -> String) -> BoxedStrategy<Value> {
    let member = |field: &'static FieldSpec| {
        let value = prop_oneof![6 => value(field).prop_map(Some), 1 => Just(None)];
        value.prop_map(move |value| Some((rename(field.name), value?)))
    };
    let members: Vec<_> = fields.iter().map(member).collect();
    let unknown = prop_oneof![
        2 => Just(None),
        1 => (any::<String>(), any_of([json!(null), json!({"a": [1]}), json!(1e300)])).prop_map(Some),
        1 => any_of([json!("x")]).prop_map(|value| Some(("NONCE ".to_owned(), value))),
    ];
    (members, unknown)
        .prop_map(|(members, unknown)| {
            let members = members.into_iter().flatten().chain(unknown);
            Value::Object(members.collect::<Map<_, _>>())
        })
        .boxed()
}

fn policy() -> impl Strategy<Value = Policy> {
    let content = Omit {
        content: true,
        ..Omit::default()
    };
    let omit = [Omit::default(), content, examples::everything()];
    let omit = Union::new(omit.map(Just));
    omit.prop_map(|omit| Policy {
        omit,
        tolerance: None,
    })
}

fn checks(kind: &'static Kind) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut records = 0;
    for _ in 0..200 {
        let strategy = (object(kind.fields, str::to_owned), policy());
        let tree = strategy.new_tree(&mut runner).expect("a value");
        let (body, policy) = proptest::strategy::ValueTree::current(&tree);
        let mut body = body.as_object().expect("an object").clone();
        // Names that a callback cannot have twice.
        body.retain(|name, _| {
            !["appid", "timestamp", "nonce", "signature"].contains(&name.as_str())
        });
        body.insert("event".to_owned(), kind.name.into());
        let Ok(record) = examples::record(kind, &body, &policy) else {
            continue;
        };
        records += 1;
        let headers = headers_of(&record);
        let problem = schema::problem(record.key.as_deref(), &headers, &record.value);
        assert_eq!(
            problem,
            None,
            "{} of {}",
            String::from_utf8_lossy(&record.value),
            Value::from(body)
        );
    }
    assert!(
        records >= 20,
        "{}: {records} of 200 became records",
        kind.name
    );
}

#[test]
fn every_record_matches_the_closed_schema_whatever_its_callback_contains() {
    EVENTS.into_iter().for_each(checks);
}

fn headers_of(record: &Record) -> Vec<(String, Vec<u8>)> {
    let headers = record.headers.iter();
    headers
        .map(|(name, value)| (name.to_string(), value.to_vec()))
        .collect()
}

#[test]
fn the_check_of_records_that_are_read_finds_what_is_wrong_with_one() {
    for kind in EVENTS {
        let example = examples::usual(kind).remove(0);
        let record = example.record;
        let (key, headers) = (record.key.as_deref(), headers_of(&record));
        let value = str::from_utf8(&record.value).expect("UTF-8");
        let with = |name: &str, value: &str| {
            let mut headers = headers.clone();
            headers.retain(|(header, _)| header != name);
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
            headers
        };
        let other = EVENTS.iter().find(|other| other.name != kind.name);
        let other = other.expect("there are several");
        let grown = value.replacen('{', r#"{"added":1,"#, 1);
        let nil = "00000000-0000-5000-8000-000000000000";
        for (key, headers, value, problem) in [
            (key, headers.clone(), value, None),
            (key, headers.clone(), &grown, Some("additional properties")),
            (key, headers.clone(), "no JSON", Some("null is not")),
            (key, headers.clone(), "{}", Some("required")),
            (
                Some(&b"other"[..]),
                headers.clone(),
                value,
                Some("not those of its value"),
            ),
            (None, headers.clone(), value, Some("not those of its value")),
            (
                key,
                with("ce_id", nil),
                value,
                Some("not those of its value"),
            ),
            (
                key,
                with("ce_type", other.ce_type),
                value,
                Some("not those of its value"),
            ),
            (key, with("ce_dataschema", other.schema), value, Some("")),
            (
                key,
                with("ce_dataschema", "urn:zim2kafka:schema:x:v1"),
                value,
                Some("not known"),
            ),
            (
                key,
                with("ce_time", "2025-09-11T08:00:00Z"),
                value,
                Some("headers:"),
            ),
            (key, with("ce_added", "1"), value, Some("headers:")),
            (key, headers[1..].to_vec(), value, Some("headers:")),
            (
                key,
                [&headers[..], &headers[..1]].concat(),
                value,
                Some("repeated"),
            ),
        ] {
            let found = schema::problem(key, &headers, value.as_bytes());
            match (&found, problem) {
                (None, None) => {}
                (Some(found), Some(problem)) => {
                    let is_same = found.to_lowercase().contains(problem);
                    assert!(is_same, "{}: {found:?} instead of {problem:?}", kind.name);
                }
                _ => panic!("{}: {found:?} instead of {problem:?}", kind.name),
            }
        }
    }
}
