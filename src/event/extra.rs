//! `extra`: the fields that a schema does not know, as JSON that strict parsers read.
//!
//! JSON's grammar allows more than parsers can represent. A record that its consumers cannot parse
//! stops them, because Kafka delivers it again and again. The text of a value is therefore kept as
//! received unless a parser would refuse it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::callback::{self, Field};

/// A value with more arrays and objects inside one another becomes a string. Common parsers have
/// limits from 100 on, and the record adds two levels.
const MAX_DEPTH: usize = 64;

/// Numbers with at most this many characters and no exponent are in the range of a double.
const SURELY_FINITE_CHARACTERS: usize = 308;

/// A longer number becomes a string. Jackson reads no longer ones.
const MAX_NUMBER_CHARACTERS: usize = 1000;

/// The other fields of a callback.
#[derive(Debug, Default, Clone)]
pub(super) struct Extra<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Extra<'a> {
    /// The record's `extra` with these fields. Of several with the same name, also if the name is
    /// the same only because U+FFFD replaces lone surrogates, the last one is kept, as ordinary
    /// parsers do; strict ones refuse an object that repeats a name.
    pub(super) fn of(fields: Vec<&Field<'a>>) -> Self {
        let fields = last_of_each_name(fields);
        Self(
            (fields.into_iter())
                .map(|field| (field.name.clone(), readable(field.value)))
                .collect(),
        )
    }

    pub(super) fn into_owned(self) -> Extra<'static> {
        let owned = |(name, value): (Cow<'a, str>, Cow<'a, RawValue>)| {
            (
                Cow::Owned(name.into_owned()),
                Cow::Owned(value.into_owned()),
            )
        };
        Extra(self.0.into_iter().map(owned).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn last_of_each_name<'f, 'a>(mut fields: Vec<&'f Field<'a>>) -> Vec<&'f Field<'a>> {
    if fields.len() < 2 {
        return fields;
    }
    let last: HashMap<&str, usize> = (fields.iter().enumerate())
        .map(|(at, field)| (field.name.as_ref(), at))
        .collect();
    if last.len() < fields.len() {
        let mut at = 0;
        fields.retain(|field| {
            at += 1;
            last.get(field.name.as_ref()) == Some(&(at - 1))
        });
    }
    fields
}

impl Serialize for Extra<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The value with the same meaning for every parser. With a lone surrogate, U+FFFD replaces it. A
/// value that is nested too deep, or with a number that is too long or that no double represents, or
/// with an object that repeats a name, becomes a string that is its JSON text.
fn readable(value: &RawValue) -> Cow<'_, RawValue> {
    let text = value.get();
    let readable = match Scan::of(text) {
        Scan {
            is_text_only: true, ..
        } => Value::from(text).to_string(),
        Scan {
            lone_surrogates, ..
        } if !lone_surrogates.is_empty() => replaced(text, &lone_surrogates),
        _ => return Cow::Borrowed(value),
    };
    Cow::Owned(RawValue::from_string(readable).expect("it is one JSON value"))
}

/// What a parser may refuse in a JSON value.
#[derive(Debug, Default)]
struct Scan {
    /// It is too deep, or contains a number that is too long or that no double represents, or an
    /// object that repeats a name.
    is_text_only: bool,
    /// Where escapes of lone surrogates begin.
    lone_surrogates: Vec<usize>,
}

impl Scan {
    /// Scans the text of one valid JSON value, once and without recursion.
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut found = Self::default();
        let (mut at, mut depth) = (0, 0_usize);
        // The names of each object that has begun, as they are published.
        let mut objects: Vec<HashSet<Option<Cow<'_, str>>>> = Vec::new();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    let end = end_of_string(bytes, at + 1, &mut found.lone_surrogates);
                    let rest = bytes.get(end..).unwrap_or_default();
                    if rest.trim_ascii_start().starts_with(b":")
                        && let Some(names) = objects.last_mut()
                    {
                        let name = text.get(at..end).and_then(callback::lossy_string);
                        found.is_text_only |= !names.insert(name);
                    }
                    at = end;
                    continue;
                }
                b'[' | b'{' => {
                    depth += 1;
                    found.is_text_only |= depth > MAX_DEPTH;
                    if *byte == b'{' {
                        objects.push(HashSet::new());
                    }
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if *byte == b'}' {
                        objects.pop();
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let length = (rest.iter())
                        .take_while(|byte| {
                            matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
                        })
                        .count();
                    found.is_text_only |=
                        !is_readable(text.get(at..at + length).unwrap_or_default());
                    at += length;
                    continue;
                }
                _ => {}
            }
            if found.is_text_only {
                return found;
            }
            at += 1;
        }
        found
    }
}

/// Whether a number is short enough, a double represents it, and `serde_json` takes it: close to the
/// largest double, its result may be infinite where the exact one is not.
fn is_readable(number: &str) -> bool {
    if number.len() <= SURELY_FINITE_CHARACTERS && !number.contains(['e', 'E']) {
        return true;
    }
    number.len() <= MAX_NUMBER_CHARACTERS
        && number.parse().is_ok_and(f64::is_finite)
        && serde_json::from_str::<f64>(number).is_ok()
}

/// The place behind the string that has begun before `at`. Adds the lone surrogates in it.
fn end_of_string(bytes: &[u8], mut at: usize, lone_surrogates: &mut Vec<usize>) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match escaped_unit(bytes, at) {
                None => at += 2,
                Some(0xd800..=0xdbff)
                    if matches!(escaped_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) =>
                {
                    at += 12;
                }
                Some(unit) => {
                    if matches!(unit, 0xd800..=0xdfff) {
                        lone_surrogates.push(at);
                    }
                    at += 6;
                }
            },
            _ => at += 1,
        }
    }
    at
}

/// The UTF-16 code unit of the four-digit escape at this place.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

fn replaced(text: &str, lone_surrogates: &[usize]) -> String {
    let mut all = String::with_capacity(text.len());
    let mut from = 0;
    for at in lone_surrogates {
        all.push_str(text.get(from..*at).unwrap_or_default());
        all.push(char::REPLACEMENT_CHARACTER);
        from = at + r"\ud800".len();
    }
    all + text.get(from..).unwrap_or_default()
}
