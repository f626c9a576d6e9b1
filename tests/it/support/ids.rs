//! Event ids, computed from the contract with nothing of the service.

use serde_json::Value;
use uuid::Uuid;

/// The id of the record that this array names.
pub(crate) fn of_record(name: &Value) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"zim2kafka");
    Uuid::new_v5(&namespace, jcs(name).as_bytes()).to_string()
}

/// The id of the dead letter with this value.
pub(crate) fn of_dead_letter(value: &[u8]) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"dead-letter.zim2kafka");
    Uuid::new_v5(&namespace, value).to_string()
}

/// RFC 8785, for what names an event: arrays, strings, integers and null.
fn jcs(value: &Value) -> String {
    match value {
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(jcs).collect();
            format!("[{}]", elements.join(","))
        }
        Value::String(text) => quoted(text),
        Value::Number(number) => number.as_i64().expect("an integer").to_string(),
        Value::Null => "null".to_owned(),
        other => panic!("no event is named by {other}"),
    }
}

/// Section 3.2.2.2 there.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            '\0'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
