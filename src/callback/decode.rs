//! Bytes → `UnverifiedCallback`. Every leniency lives here.
//!
//! ZEGOCLOUD's pages say "JSON" and "perform UrlDecode on it". The second is what remains of a
//! remark about a form-encoded variant that support can switch on, so three forms are told apart by
//! their bytes, never by the `Content-Type`, which is not documented. A JSON body is never
//! URL-decoded: group and user IDs may hold `%` and `+`.
//!
//! Whatever the form, the result is the text of one JSON object, and there is one path from there.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::form;
use super::{Field, RawCallback, UnverifiedCallback};

/// Why a body is no callback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not one JSON object and not a form. The text says why, for people, and never quotes the body,
    /// which may hold a live signature.
    #[error("the body is neither one JSON object nor a form: {0}")]
    NotACallback(Cow<'static, str>),
    /// Which of the two was signed cannot be known.
    #[error("the field {0:?} is repeated")]
    RepeatedSignedField(&'static str),
}

/// The text of one JSON object, whichever of three forms the body had.
pub struct Json<'a> {
    raw: &'a RawCallback,
    text: Cow<'a, str>,
    valid_utf8: bool,
}

impl RawCallback {
    /// Finds the text of one JSON object in the body.
    ///
    /// # Errors
    ///
    /// [`Malformed::NotACallback`]; whether the text really is an object, [`Json::decode`] tells.
    pub fn json(&self) -> Result<Json<'_>, Malformed> {
        let body = without_blanks(&self.body);
        let (text, valid_utf8) = match body {
            [b'{', ..] => utf8(Cow::Borrowed(body)),
            [b'%', b'7', b'B' | b'b', ..] => utf8(percent_decoded(body)),
            _ if form::looks_like_one(body) => {
                // A line's end behind the last field is not a part of its value.
                let body = body.trim_ascii_end();
                // The pieces of a form are cut at ASCII, so all are valid where the whole is.
                let (_, valid) = utf8(percent_decode(body).into());
                (Cow::Owned(form::to_json(body)), valid)
            }
            [] => return Err(Malformed::NotACallback("it is empty".into())),
            _ => return Err(Malformed::NotACallback("it begins like neither".into())),
        };
        Ok(Json {
            raw: self,
            text,
            valid_utf8,
        })
    }
}

/// A byte order mark and JSON's blanks in front of the body say nothing.
fn without_blanks(body: &[u8]) -> &[u8] {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let blanks = body
        .iter()
        .take_while(|byte| b" \t\r\n".contains(byte))
        .count();
    body.get(blanks..).unwrap_or_default()
}

/// Decodes once. Encoders that encode `:` and `,` too (those of form fields) write a blank as `+` and
/// a plus as `%2B`; those that leave them bare (those of whole URLs) leave the plus bare too.
fn percent_decoded(body: &[u8]) -> Cow<'_, [u8]> {
    let plus_is_a_plus = body.iter().any(|byte| b":,".contains(byte));
    if plus_is_a_plus || !body.contains(&b'+') {
        return percent_decode(body).into();
    }
    let blanks: Vec<u8> = body
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Cow::Owned(percent_decode(&blanks).collect())
}

/// Invalid UTF-8 does not make a callback unauthentic, only unpublishable: it is read with U+FFFD in
/// the place of what is invalid.
fn utf8(bytes: Cow<'_, [u8]>) -> (Cow<'_, str>, bool) {
    match bytes {
        Cow::Borrowed(bytes) => {
            let text = lossy(bytes);
            let valid = matches!(text, Cow::Borrowed(_));
            (text, valid)
        }
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => (Cow::Owned(text), true),
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                (Cow::Owned(text), false)
            }
        },
    }
}

/// What [`String::from_utf8_lossy`] does, and sooner where all is valid, as it is nearly always.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The four fields that the signature is made of or found by.
pub(super) const SIGNED: [&str; 4] = ["appid", "timestamp", "nonce", "signature"];

impl<'a> Json<'a> {
    /// Reads the object's members.
    ///
    /// # Errors
    ///
    /// [`Malformed`], where the text is not one JSON object, or repeats a signed field.
    pub fn decode(&'a self) -> Result<UnverifiedCallback<'a>, Malformed> {
        // Of a text that begins with a brace, the parser tells what it expected, and where. It quotes
        // only values of a wrong type, and members are taken with values of any.
        let Members(members) = serde_json::from_str(&self.text)
            .map_err(|error| Malformed::NotACallback(error.to_string().into()))?;
        let mut signed = [const { Found::Nothing }; SIGNED.len()];
        let mut fields = Vec::with_capacity(members.len());
        for field in members {
            let place = SIGNED
                .iter()
                .zip(&mut signed)
                .find(|(name, _)| field.name.eq_ignore_ascii_case(name));
            match place {
                None => fields.push(field),
                Some((name, found)) => found.add(field.value, field.name == *name),
            }
        }
        let [appid, timestamp, nonce, signature] = signed;
        Ok(UnverifiedCallback {
            raw: self.raw,
            valid_utf8: self.valid_utf8,
            appid: appid.value("appid")?.and_then(text_or_number),
            timestamp: timestamp.value("timestamp")?.and_then(text_or_number),
            nonce: nonce.value("nonce")?.and_then(text_or_number),
            signature: signature.value("signature")?.and_then(text),
            fields,
        })
    }
}

/// What was found under the name of one signed field.
///
/// Other ZEGO products write `Nonce` and `AppId`, and may share our URL. The exact name counts; a
/// twin in other letters only where the exact name is absent.
enum Found<'a> {
    Nothing,
    Twin(&'a RawValue),
    Twins,
    Exact(&'a RawValue),
    Repeated,
}

impl<'a> Found<'a> {
    fn add(&mut self, value: &'a RawValue, exact: bool) {
        *self = match (&self, exact) {
            (Self::Exact(_) | Self::Repeated, true) => Self::Repeated,
            (_, true) => Self::Exact(value),
            (Self::Nothing, false) => Self::Twin(value),
            (Self::Twin(_) | Self::Twins, false) => Self::Twins,
            (Self::Exact(_) | Self::Repeated, false) => return,
        };
    }

    fn value(self, name: &'static str) -> Result<Option<&'a RawValue>, Malformed> {
        match self {
            Self::Nothing => Ok(None),
            Self::Twin(value) | Self::Exact(value) => Ok(Some(value)),
            Self::Twins | Self::Repeated => Err(Malformed::RepeatedSignedField(name)),
        }
    }
}

/// A string of Unicode text, borrowed where it holds no escape.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    // Of anything else the parser would make an error, with its text and place: more work than a string.
    if !value.get().starts_with('"') {
        return None;
    }
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

/// A string, or a number's characters as they were received: a nonce has up to 19 digits, which no
/// float holds, and the signature was made of characters.
fn text_or_number(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes() {
        [b'0'..=b'9' | b'-', ..] => Some(Cow::Borrowed(value.get())),
        _ => text(value),
    }
}

/// The members of a JSON object, in order, with their values' text.
struct Members<'a>(Vec<Field<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

/// A callback seldom has more.
const USUAL_MEMBERS: usize = 16;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        // As raw text, names are held to JSON's grammar; and values of any depth or size are skipped
        // without recursion or conversion.
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let Name(name) = serde_json::from_str(name.get()).map_err(A::Error::custom)?;
            members.push(Field { name, value });
        }
        Ok(Members(members))
    }
}

/// A member's name. Read as bytes, since as a string serde_json refuses a lone surrogate, and one in
/// the name of some unknown field must not cost the event.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(NameVisitor).map(Name)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Self::Value, E> {
        Ok(lossy(name))
    }

    /// With its escapes undone. A lone surrogate is three bytes then, of which none is UTF-8 and the
    /// first alone is ED; one U+FFFD stands for the three.
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let mut name = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            name.push_str(chunk.valid());
            if chunk.invalid().first() == Some(&0xed) {
                name.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(Cow::Owned(name))
    }
}
