//! A form-encoded body to the text of one JSON object.
//!
//! ZEGOCLOUD's support can switch an account to forms. Older receivers of ZEGO's callbacks show
//! arrays as repeated fields; other senders write `name[]=`, `name[0]=` or one JSON array.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;

use memchr::memchr;
use percent_encoding::percent_decode;

use super::{SIGNED, is_signed_field};

/// The most fields of a form. ZEGOCLOUD's callbacks have about ten, and one for each of at most 100
/// users. Empty fields, as in `a=1&&b=2`, count too.
pub const MAX_FORM_FIELDS: usize = 1000;

/// The most characters of an appid in a form. ZEGOCLOUD's have ten digits. A longer one is unusable.
const MAX_APPID_CHARACTERS: usize = 32;

/// The most bytes of an appid as it is sent: four bytes of UTF-8 for each character, all encoded.
const MAX_APPID_BYTES: usize = 3 * 4 * MAX_APPID_CHARACTERS;

/// The most bytes of another signed field as it is sent: the longest nonce, all encoded.
const MAX_SIGNED_BYTES: usize = 3 * 64;

/// The digits of an index, as in `name[007]`. With more they are part of the name.
const MAX_INDEX_DIGITS: usize = 19;

/// The longest name of a signed field: `signature[`, an index and `]`.
const MAX_SIGNED_NAME_BYTES: usize = "signature[]".len() + MAX_INDEX_DIGITS;

/// Whether a body can be a form: it begins like the name of a field and contains a `=`.
pub(super) fn looks_like_one(body: &[u8]) -> bool {
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || b"_%".contains(byte);
    body.first().is_some_and(begins) && body.contains(&b'=')
}

/// A field with the name of a signed one.
pub(super) struct SignedField<'a> {
    /// The place in [`SIGNED`].
    pub(super) place: usize,
    /// Whether the letter case is the same.
    pub(super) is_exact: bool,
    /// The encoded value; `None` for an element of an array, which cannot have been signed.
    pub(super) value: Option<&'a [u8]>,
}

/// The signed fields, then `None` if there are more fields than [`MAX_FORM_FIELDS`]. Decodes nothing
/// but names that may be theirs.
pub(super) fn signed_fields(body: &[u8]) -> impl Iterator<Item = Option<SignedField<'_>>> {
    fields(body)
        .zip(0..=MAX_FORM_FIELDS)
        .filter_map(|(field, number)| match number {
            MAX_FORM_FIELDS => Some(None),
            _ => signed_field(field).map(Some),
        })
}

/// The fields, including empty ones. Reads each byte once.
fn fields(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    iter::from_fn(move || {
        let end = memchr(b'&', rest).unwrap_or(rest.len());
        let field = rest.get(..end).filter(|_| !rest.is_empty())?;
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(field)
    })
}

/// Whether a form has one field `event`, with this value. Allocates nothing, and decodes only what may
/// be that name or value.
pub(super) fn names_event(body: &[u8], event: &str) -> bool {
    let mut values = fields(body).take(MAX_FORM_FIELDS).filter_map(|field| {
        let begins = matches!(field.first(), Some(b'e' | b'%'));
        let (name, value) = begins.then(|| name_and_value(field))?;
        percent_decode(name).eq("event".bytes()).then_some(value)
    });
    match (values.next(), values.next()) {
        (Some(value), None) => percent_decode(value).eq(event.bytes()),
        _ => false,
    }
}

/// The encoded name and value of a field.
fn name_and_value(field: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr(b'=', field).unwrap_or(field.len());
    let (name, value) = field.split_at_checked(end).unwrap_or_default();
    (name, value.get(1..).unwrap_or_default())
}

fn signed_field(field: &[u8]) -> Option<SignedField<'_>> {
    let (name, value) = name_and_value(field);
    // Most names end here.
    let first = name.first().filter(|byte| b"%aAnNsStT".contains(byte))?;
    let mut buffer = [0; MAX_SIGNED_NAME_BYTES];
    let name = match *first != b'%' && memchr(b'%', name).is_none() {
        true => name,
        false => decoded_in(name, &mut buffer)?,
    };
    // No name that counts contains a plus, so a plus need not be replaced.
    let (place, signed) = (SIGNED.iter().enumerate()).find(|(_, signed)| {
        let begin = name.get(..signed.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(signed.as_bytes()))
    })?;
    let (base, spelling) = split(str::from_utf8(name).ok()?);
    base.eq_ignore_ascii_case(signed).then_some(SignedField {
        place,
        is_exact: base == *signed,
        value: (spelling == Spelling::Plain).then_some(value),
    })
}

/// The decoded name; `None` if it is too long for the buffer.
fn decoded_in<'b>(name: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    for byte in percent_decode(name) {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    buffer.get(..length)
}

/// The text of an appid, if its value is usable.
pub(super) fn appid_text(value: Option<&[u8]>) -> Option<Cow<'_, str>> {
    let text = text(value.filter(|value| value.len() <= MAX_APPID_BYTES)?);
    text.chars()
        .nth(MAX_APPID_CHARACTERS)
        .is_none()
        .then_some(text)
}

/// The text of another signed field, if its value is usable.
pub(super) fn signed_text(value: Option<&[u8]>) -> Option<Cow<'_, str>> {
    value
        .filter(|value| value.len() <= MAX_SIGNED_BYTES)
        .map(text)
}

fn text(encoded: &[u8]) -> Cow<'_, str> {
    if !encoded.contains(&b'+') {
        return percent_decode(encoded).decode_utf8_lossy();
    }
    let encoded = with_spaces(encoded);
    let text = percent_decode(&encoded).decode_utf8_lossy();
    Cow::Owned(text.into_owned())
}

/// Replaces each plus with a space, as the form encoding requires.
pub(super) fn with_spaces(encoded: &[u8]) -> Vec<u8> {
    let mut encoded = encoded.to_vec();
    for byte in &mut encoded {
        if *byte == b'+' {
            *byte = b' ';
        }
    }
    encoded
}

/// The text of one JSON object, and what it does not show of the form.
pub(super) struct Object {
    pub(super) text: String,
    /// For each member, how many of its values, from the first on, were written without brackets.
    pub(super) unbracketed: Vec<usize>,
}

/// Converts the fields, apart from the signed ones, to one JSON object, in the order in which their
/// names first appear. A field that appears once, without brackets behind its name, becomes a string,
/// any other an array of strings.
pub(super) fn to_json(body: &[u8]) -> Object {
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (name, text) in form_urlencoded::parse(body) {
        let (base, spelling) = split(&name);
        if is_signed_field(base) {
            continue;
        }
        let value = Value { spelling, text };
        let place = *places.entry(base.to_owned()).or_insert(members.len());
        match members.get_mut(place) {
            Some(member) => member.values.push(value),
            None => members.push(Member {
                name: base.to_owned(),
                values: vec![value],
            }),
        }
    }
    let unbracketed = members.iter().map(Member::unbracketed).collect();
    let members: Vec<_> = members.into_iter().map(Member::json).collect();
    Object {
        text: format!("{{{}}}", members.join(",")),
        unbracketed,
    }
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
    let is_index =
        place.len() <= MAX_INDEX_DIGITS && place.bytes().all(|byte| byte.is_ascii_digit());
    match place.parse() {
        _ if base.is_empty() || !is_index => (name, Spelling::Plain),
        Ok(place) => (base, Spelling::Indexed(place)),
        Err(_) => (base, Spelling::Listed),
    }
}

impl Member<'_> {
    fn unbracketed(&self) -> usize {
        let is_plain = |value: &&Value<'_>| value.spelling == Spelling::Plain;
        self.values.iter().filter(is_plain).count()
    }

    fn json(mut self) -> String {
        let name = json(&self.name);
        match self.values.as_slice() {
            [value] if value.spelling == Spelling::Plain => {
                format!("{name}:{}", json(&value.text))
            }
            _ => {
                self.values.sort_by_key(|value| value.spelling);
                let values: Vec<_> = self.values.iter().map(|value| json(&value.text)).collect();
                format!("{name}:[{}]", values.join(","))
            }
        }
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
