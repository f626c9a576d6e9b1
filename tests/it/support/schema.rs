//! The schemas, closed: every record that a test reads is checked against them.

use std::collections::HashMap;
use std::fs;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Map, Value};
use zim2kafka::event::EVENTS;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");

/// The closed schemas, by their `$id`.
static CLOSED: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let files = fs::read_dir(FOLDER).expect("the folder is there");
    let paths = files.map(|file| file.expect("it can be read").path());
    let schemas = paths.filter(|path| path.to_string_lossy().ends_with(".schema.json"));
    let closed = schemas.map(|path| {
        let text = fs::read_to_string(&path).expect("a schema is UTF-8");
        let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
        let id = schema["$id"]
            .as_str()
            .expect("a schema has an $id")
            .to_owned();
        (id, validator(&closed(schema)))
    });
    closed.collect()
});

/// A schema that can be applied.
pub(crate) fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(schema).expect("the schema is one")
}

/// The output of a command conforms to this schema, and has no field that the schema does not describe.
#[track_caller]
pub(crate) fn conforms(id: &str, printed: &Value) {
    let broken = closed_schema(id).iter_errors(printed);
    let broken: Vec<_> = broken.map(|error| error.to_string()).collect();
    assert!(broken.is_empty(), "{broken:?}: {printed:#}");
}

/// Consumers ignore what they do not know; our own records must hold nothing that is not described.
pub(crate) fn closed(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(keywords) => {
            if keywords.get("type").is_some_and(|name| name == "object")
                && keywords.contains_key("properties")
            {
                keywords.insert("additionalProperties".to_owned(), false.into());
            }
            for (name, value) in keywords {
                // What is in these is not a schema.
                if !["examples", "const", "enum"].contains(&name.as_str()) {
                    *value = closed(value.take());
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = closed(item.take())),
        _ => {}
    }
    schema
}

/// Checks a record that was read from Kafka, if it has a header of the service: its headers, its key
/// and, unless it is a callback's body, its value.
#[track_caller]
pub(crate) fn check(key: Option<&[u8]>, headers: &[(String, Vec<u8>)], value: &[u8]) {
    let is_ours = |(name, _): &(String, _)| name.starts_with("ce_") || name == "dead_letter_reason";
    if headers.iter().any(is_ours)
        && let Some(problem) = problem(key, headers, value)
    {
        let value: String = String::from_utf8_lossy(value).chars().take(1000).collect();
        panic!("{problem}: {headers:?} {value}");
    }
}

/// What is wrong with a record of the service.
pub(crate) fn problem(
    key: Option<&[u8]>,
    headers: &[(String, Vec<u8>)],
    value: &[u8],
) -> Option<String> {
    let text = |(name, value): &(String, Vec<u8>)| {
        // Also bytes that are not UTF-8, which a content type can contain.
        (name.clone(), String::from_utf8_lossy(value).into())
    };
    let named: Map<String, Value> = headers.iter().map(text).collect();
    if named.len() != headers.len() {
        return Some("a header is repeated".to_owned());
    }
    let named = Value::Object(named);
    let reason = named["dead_letter_reason"].as_str();
    let of_headers = match reason {
        Some(_) => "dead-letter-headers",
        None => "event-headers",
    };
    if let Err(error) =
        closed_schema(&format!("urn:zim2kafka:schema:{of_headers}:v1")).validate(&named)
    {
        return Some(format!("headers: {error}"));
    }
    if reason.is_some_and(|reason| reason != "rejected_by_kafka") {
        return None;
    }
    // With a schema registry, five bytes stand in front of the JSON.
    let value = match value {
        [0, _, _, _, _, json @ ..] => json,
        json => json,
    };
    // No schema takes null, which stands for a value that is not JSON.
    let value: Value = serde_json::from_slice(value).unwrap_or_default();
    let kind = EVENTS.into_iter().find(|kind| match reason {
        Some(_) => value["event"] == kind.name,
        None => named["ce_dataschema"] == kind.schema,
    });
    let Some(kind) = kind else {
        // Tests of delivery alone publish values that are not events.
        return (reason.is_none()).then(|| "its schema is not known".to_owned());
    };
    if let Err(error) = closed_schema(kind.schema).validate(&value) {
        return Some(error.to_string());
    }
    let key = key.map(String::from_utf8_lossy);
    let is_consistent = reason.is_some()
        || named["ce_type"] == kind.ce_type
            && named["ce_id"] == value["event_id"]
            && named["ce_subject"].as_str() == key.as_deref();
    (!is_consistent).then(|| "its headers are not those of its value".to_owned())
}

pub(crate) fn closed_schema(id: &str) -> &'static Validator {
    let schema = CLOSED.get(id);
    schema.unwrap_or_else(|| panic!("there is no schema {id}"))
}
