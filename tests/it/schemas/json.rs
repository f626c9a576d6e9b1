//! JSON whose members keep their order, so that people can read a derived document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// The longest line of YAML.
const COLUMNS: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    /// Null, a truth value, a number or a string.
    Scalar(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// An object with these members, without those that are `None`.
pub(super) fn object<const N: usize>(members: [(&str, Option<Json>); N]) -> Json {
    let members = members.into_iter();
    Json::Object(
        members
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
    )
}

/// An object with one member.
pub(super) fn member(name: &str, value: impl Into<Json>) -> Json {
    object([(name, Some(value.into()))])
}

/// A list.
pub(super) fn list<T: Into<Json>>(items: impl IntoIterator<Item = T>) -> Json {
    Json::List(items.into_iter().map(Into::into).collect())
}

impl<T: Into<Value>> From<T> for Json {
    fn from(value: T) -> Self {
        match value.into() {
            Value::Array(items) => list(items),
            Value::Object(members) => {
                let members = members.into_iter();
                Self::Object(members.map(|(name, value)| (name, value.into())).collect())
            }
            scalar => Self::Scalar(scalar),
        }
    }
}

impl Json {
    /// Parses a document.
    pub(super) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The value of a member.
    #[track_caller]
    pub(super) fn get(&self, name: &str) -> &Json {
        let found = self.members().iter().find(|(member, _)| member == name);
        &found.unwrap_or_else(|| panic!("there is no {name}")).1
    }

    /// The members of an object.
    #[track_caller]
    pub(super) fn members(&self) -> &[(String, Json)] {
        match self {
            Self::Object(members) => members,
            other => panic!("not an object: {other:?}"),
        }
    }

    /// The same, without the order.
    pub(super) fn value(&self) -> Value {
        serde_json::to_value(self).expect("it is JSON")
    }

    /// The text of a file.
    pub(super) fn file(&self) -> String {
        serde_json::to_string_pretty(self).expect("it is JSON") + "\n"
    }

    /// The same on one line.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).expect("it is JSON")
    }

    /// The same document in YAML, indented by this many blanks.
    pub(super) fn yaml(&self, indent: usize) -> String {
        let mut text = String::new();
        self.write_yaml(indent, &mut text);
        text
    }

    fn write_yaml(&self, indent: usize, text: &mut String) {
        match self {
            Self::Object(members) => {
                for (name, value) in members {
                    let start = format!("{:indent$}{}:", "", yaml_string(name));
                    write_value(&start, value, indent + 2, text);
                }
            }
            Self::List(items) => {
                for item in items {
                    match item.inline() {
                        Some(inline) => text.push_str(&format!("{:indent$}- {inline}\n", "")),
                        None => {
                            let block = item.yaml(indent + 2);
                            text.push_str(&format!("{:indent$}- {}", "", block.trim_start()));
                        }
                    }
                }
            }
            scalar => text.push_str(&scalar.inline().expect("a scalar")),
        }
    }

    /// The YAML of what stands on the line of its name.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Scalar(Value::String(string)) => Some(yaml_string(string)),
            Self::Scalar(scalar) => Some(scalar.to_string()),
            Self::Object(members) if members.is_empty() => Some("{}".to_owned()),
            Self::List(items) => {
                let scalars = items.iter().map(|item| match item {
                    Self::Scalar(_) => item.inline(),
                    _ => None,
                });
                let scalars: Option<Vec<_>> = scalars.collect();
                Some(format!("[{}]", scalars?.join(", ")))
            }
            Self::Object(_) => None,
        }
    }
}

fn write_value(start: &str, value: &Json, indent: usize, text: &mut String) {
    let inline = value.inline();
    match (inline, value) {
        (Some(inline), _) if start.len() + 1 + inline.len() <= COLUMNS => {
            text.push_str(&format!("{start} {inline}\n"));
        }
        (_, Json::Scalar(Value::String(string))) if is_prose(string) => {
            text.push_str(&format!("{start} >-\n"));
            for line in wrapped(string, COLUMNS - indent) {
                text.push_str(&format!("{:indent$}{line}\n", ""));
            }
        }
        (Some(inline), Json::Scalar(_)) => text.push_str(&format!("{start} {inline}\n")),
        _ => {
            text.push_str(&format!("{start}\n"));
            value.write_yaml(indent, text);
        }
    }
}

/// Whether a folded block contains exactly this text.
fn is_prose(text: &str) -> bool {
    let is_plain = !text.contains(['\n', '\t', '\r']) && !text.contains("  ");
    is_plain && text.trim() == text && text.contains(' ')
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        match line.is_empty() || line.chars().count() + 1 + word.chars().count() <= columns {
            true if line.is_empty() => line.push_str(word),
            true => line.push_str(&format!(" {word}")),
            false => lines.push(word.to_owned()),
        }
    }
    lines
}

fn yaml_string(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_safe = |char: char| char.is_ascii_alphanumeric() || "_./$@- ".contains(char);
    let is_plain = text.starts_with(|char: char| char.is_ascii_alphabetic() || "/$".contains(char))
        && text.chars().all(is_safe)
        && text.trim_end() == text
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        // JSON's escapes are YAML's.
        Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(value) => value.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(n, v)| (n, v))),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Ordered)
    }
}

struct Ordered;

impl<'de> Visitor<'de> for Ordered {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}
