//! The record's schema, closed: what our own records are checked against.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::kafka::TestRecord;

/// The schema as it is published.
pub(crate) fn published() -> Value {
    let text = include_str!("../../../schemas/group-joined.v1.schema.json");
    serde_json::from_str(text).expect("the schema is JSON")
}

/// Consumers ignore what they do not know; our own records must hold nothing that is not described.
pub(crate) static CLOSED: LazyLock<Validator> = LazyLock::new(|| {
    let mut schema = published();
    schema["additionalProperties"] = false.into();
    jsonschema::validator_for(&schema).expect("the schema is one")
});

/// Checks a record's value.
#[track_caller]
pub(crate) fn check(record: &TestRecord) {
    let text = String::from_utf8(record.value.clone()).expect("a record's value is UTF-8");
    let value = serde_json::from_str(&text).expect("strict parsers read every value");
    if let Err(error) = CLOSED.validate(&value) {
        panic!("the record does not match its schema: {error}\n{text}");
    }
}
