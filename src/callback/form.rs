//! A form-encoded body → the text of one JSON object.
//!
//! Support can switch an account to forms. Older receivers of ZEGO's callbacks show arrays as
//! repeated fields; `name[]=`, `name[0]=` and one JSON array are what others write.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::decode::SIGNED;

/// Fields of which there is one. Each occurrence becomes a member, so that a repetition is found
/// where it is found in JSON.
const SINGLE: [&str; 4] = ["event", "group_id", "join_type", "operator_account"];

/// The field that is an array even when it has one value.
const ARRAY: &str = "new_user_ids";

/// Whether a body can be a form: a name that begins like a field's, and a `=`.
pub(super) fn looks_like_one(body: &[u8]) -> bool {
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || b"_%".contains(byte);
    body.first().is_some_and(begins) && body.contains(&b'=')
}

/// The fields as one JSON object, values as strings.
pub(super) fn to_json(body: &[u8]) -> String {
    let mut members = Vec::new();
    let mut arrays: BTreeMap<String, Vec<(usize, Cow<'_, str>, bool)>> = BTreeMap::new();
    let mut order = Vec::new();
    for (name, value) in form_urlencoded::parse(body) {
        let single = |known: &&str| **known == *name;
        if SIGNED.iter().chain(&SINGLE).any(|known| single(&known)) {
            members.push(member(&name, &json(&value)));
            continue;
        }
        let (base, index) = split(&name);
        if !arrays.contains_key(base) {
            order.push(base.to_owned());
        }
        let values = arrays.entry(base.to_owned()).or_default();
        let bracketed = base.len() < name.len();
        values.push((index.unwrap_or(usize::MAX), value, bracketed));
    }
    for name in order {
        let mut values = arrays.remove(&name).unwrap_or_default();
        // Stable: fields without an index keep their order, behind those with one.
        values.sort_by_key(|(index, ..)| *index);
        members.push(member(&name, &array(&name, &values)));
    }
    format!("{{{}}}", members.join(","))
}

fn array(name: &str, values: &[(usize, Cow<'_, str>, bool)]) -> String {
    match values {
        [(_, value, _)] if is_json_array(value) => value.clone().into_owned(),
        [(_, value, false)] if name != ARRAY => json(value),
        values => {
            let values: Vec<_> = values.iter().map(|(_, value, _)| json(value)).collect();
            format!("[{}]", values.join(","))
        }
    }
}

fn is_json_array(value: &str) -> bool {
    value.trim_start().starts_with('[') && serde_json::from_str::<&RawValue>(value).is_ok()
}

/// `name[]` and `name[3]` are `name`, and its place where it has one.
fn split(name: &str) -> (&str, Option<usize>) {
    let brackets = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['));
    match brackets {
        Some((base, "")) if !base.is_empty() => (base, None),
        Some((base, index))
            if !base.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (base, Some(index.parse().unwrap_or(usize::MAX)))
        }
        _ => (name, None),
    }
}

fn member(name: &str, value: &str) -> String {
    format!("{}:{value}", json(name))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
