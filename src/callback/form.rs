//! A form-encoded body to the text of one JSON object.
//!
//! ZEGOCLOUD's support can switch an account to forms. Older receivers of ZEGO's callbacks show
//! arrays as repeated fields; other senders write `name[]=`, `name[0]=` or one JSON array.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::SIGNED;

/// Fields that occur once, apart from the signed ones. Each occurrence becomes a member, so that a
/// repetition is detected later, as in JSON.
const SINGLE: [&str; 4] = ["event", "group_id", "join_type", "operator_account"];

/// The field that is an array even with one value.
const ARRAY: &str = "new_user_ids";

/// Whether a body can be a form: it begins like the name of a field and contains a `=`.
pub(super) fn looks_like_one(body: &[u8]) -> bool {
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || b"_%".contains(byte);
    body.first().is_some_and(begins) && body.contains(&b'=')
}

/// Converts the fields to one JSON object, in the order in which their names first appear.
pub(super) fn to_json(body: &[u8]) -> String {
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (name, text) in form_urlencoded::parse(body) {
        let (base, spelling) = split(&name);
        let value = Value { spelling, text };
        let place = if is_single(base) {
            members.len()
        } else {
            *places.entry(base.to_owned()).or_insert(members.len())
        };
        match members.get_mut(place) {
            Some(member) => member.values.push(value),
            None => members.push(Member {
                name: base.to_owned(),
                values: vec![value],
            }),
        }
    }
    let members: Vec<_> = members.into_iter().map(Member::json).collect();
    format!("{{{}}}", members.join(","))
}

/// Other letter case counts for signed fields only, as in JSON.
fn is_single(name: &str) -> bool {
    SIGNED
        .iter()
        .any(|signed| name.eq_ignore_ascii_case(signed))
        || SINGLE.contains(&name)
}

/// A member of the object.
struct Member<'a> {
    name: String,
    values: Vec<Value<'a>>,
}

struct Value<'a> {
    spelling: Spelling,
    text: Cow<'a, str>,
}

/// How the name of a field is written. Values of mixed spellings are joined in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Spelling {
    /// `name`
    Plain,
    /// `name[]`
    Listed,
    /// `name[3]`
    Indexed(u64),
}

/// Splits a name from its brackets. Any other brackets are part of the name.
fn split(name: &str) -> (&str, Spelling) {
    let Some((base, place)) = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['))
    else {
        return (name, Spelling::Plain);
    };
    match place.parse() {
        _ if base.is_empty() => (name, Spelling::Plain),
        Ok(place) => (base, Spelling::Indexed(place)),
        Err(_) if place.is_empty() => (base, Spelling::Listed),
        Err(_) => (name, Spelling::Plain),
    }
}

impl Member<'_> {
    fn json(mut self) -> String {
        let name = json(&self.name);
        match self.values.as_slice() {
            [value] if value.spelling == Spelling::Plain && self.name != ARRAY => {
                format!("{name}:{}", json(&value.text))
            }
            _ => {
                self.values.sort_by_key(|value| value.spelling);
                let elements = self.values.iter().map(|value| self.elements(value));
                let elements: Vec<_> = elements.filter(|text| !text.is_empty()).collect();
                format!("{name}:[{}]", elements.join(","))
            }
        }
    }

    /// The elements that a value adds to its array. Only a plain `new_user_ids=` may contain an
    /// array; in other spellings and under unknown names, brackets are ordinary characters, which
    /// an ID may contain.
    fn elements<'v>(&self, value: &'v Value<'_>) -> Cow<'v, str> {
        match inside_brackets(&value.text) {
            Some(elements) if self.name == ARRAY && value.spelling == Spelling::Plain => {
                Cow::Borrowed(elements)
            }
            _ => Cow::Owned(json(&value.text)),
        }
    }
}

fn inside_brackets(text: &str) -> Option<&str> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    let elements = value.get().strip_prefix('[')?.strip_suffix(']')?;
    Some(elements.trim())
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
