//! Bytes to `UnverifiedCallback`. All leniency in parsing is here and in `form`.
//!
//! ZEGOCLOUD's pages say "JSON" and "perform UrlDecode on it". The latter is left over from a
//! remark about a form-encoded variant that support can enable. Three encodings are therefore
//! distinguished, by their bytes and never by the `Content-Type`, which is not documented. A JSON
//! body is never URL-decoded, because group and user IDs may contain `%` and `+`.
//!
//! Every encoding is converted to the text of one JSON object, which is then parsed in one way. Of a
//! form only the signed fields are decoded before the signature is verified, because the conversion
//! costs many times what parsing JSON does.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use memchr::memchr2;
use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::form::{self, MAX_FORM_FIELDS};
use super::{Field, RawCallback, SIGNED, UnverifiedCallback};

/// Why a body is not a callback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither one JSON object nor a form. The text gives the reason and never quotes the body,
    /// which may contain a live signature.
    #[error("the body is neither one JSON object nor a form: {0}")]
    NotACallback(Cow<'static, str>),
    /// A signed field is repeated, so it is unknown which value was signed.
    #[error("the field {0:?} is repeated")]
    RepeatedSignedField(&'static str),
    /// A form has more fields than [`MAX_FORM_FIELDS`].
    #[error("the form has more than {MAX_FORM_FIELDS} fields; send the callback as JSON")]
    TooManyFields,
}

/// One JSON object, from any of the three encodings.
pub struct Json<'a> {
    raw: &'a RawCallback,
    source: Source<'a>,
}

enum Source<'a> {
    Object {
        text: Cow<'a, str>,
        valid_utf8: bool,
    },
    Form(Form<'a>),
}

/// A form, and the text of its object once that is needed.
pub(super) struct Form<'a> {
    body: &'a [u8],
    object: OnceCell<form::Object>,
}

#[cfg(test)]
impl Form<'_> {
    /// Whether only its signed fields have been converted.
    pub(super) fn is_unread(&self) -> bool {
        self.object.get().is_none()
    }
}

/// The fields of a callback apart from the signed ones.
pub(super) enum OtherFields<'a> {
    Object {
        fields: Vec<Field<'a>>,
        valid_utf8: bool,
    },
    Form(&'a Form<'a>),
}

impl<'a> OtherFields<'a> {
    /// Whether there is one field `event`, with this value. Reads no other field of a form.
    pub(super) fn names_event(&self, event: &str) -> bool {
        let fields = match self {
            Self::Object { fields, .. } => fields,
            Self::Form(form) => return form::names_event(form.body, event),
        };
        let mut named = fields.iter().filter(|field| field.name == "event");
        match (named.next(), named.next()) {
            (Some(field), None) => field.text().as_deref() == Some(event),
            _ => false,
        }
    }

    /// The fields, and whether the body was valid UTF-8.
    pub(super) fn read(self) -> (Vec<Field<'a>>, bool) {
        let form = match self {
            Self::Object { fields, valid_utf8 } => return (fields, valid_utf8),
            Self::Form(form) => form,
        };
        let object = form.object.get_or_init(|| form::to_json(form.body));
        let Members(mut fields) =
            serde_json::from_str(&object.text).expect("a form becomes one JSON object");
        for (field, unbracketed) in fields.iter_mut().zip(&object.unbracketed) {
            field.unbracketed = Some(*unbracketed);
        }
        // A form is split at ASCII characters, so its parts are valid if the whole is.
        let (_, valid_utf8) = utf8(percent_decode(form.body).into());
        (fields, valid_utf8)
    }
}

impl RawCallback {
    /// Distinguishes the encodings, and decodes a percent-encoded object.
    ///
    /// # Errors
    ///
    /// [`Malformed::NotACallback`]. Whether the text is an object is checked by [`Json::decode`].
    pub fn json(&self) -> Result<Json<'_>, Malformed> {
        let body = skip_whitespace(&self.body);
        let object = |bytes| {
            let (text, valid_utf8) = utf8(bytes);
            Source::Object { text, valid_utf8 }
        };
        let source = match (body, encoded_object(body)) {
            ([b'{', ..], _) => object(Cow::Borrowed(body)),
            (_, Some(encoded)) => object(percent_decoded(encoded)),
            _ if form::looks_like_one(body) => Source::Form(Form {
                // A line break behind the last field is not a part of its value.
                body: body.trim_ascii_end(),
                object: OnceCell::new(),
            }),
            ([], _) => return Err(Malformed::NotACallback("it is empty".into())),
            _ => return Err(Malformed::NotACallback("it begins like neither".into())),
        };
        Ok(Json { raw: self, source })
    }
}

/// Removes the `=` behind an object that was sent as the only name of a form, without a value.
fn without_equals_sign(text: &str) -> &str {
    text.trim_ascii_end().strip_suffix('=').unwrap_or(text)
}

/// Skips a byte order mark and JSON whitespace.
pub(super) fn skip_whitespace(body: &[u8]) -> &[u8] {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let whitespace = body
        .iter()
        .take_while(|byte| b" \t\r\n".contains(byte))
        .count();
    body.get(whitespace..).unwrap_or_default()
}

/// A percent-encoded object, without an encoded byte order mark and encoded whitespace before it.
pub(super) fn encoded_object(body: &[u8]) -> Option<&[u8]> {
    let mut rest = match body.split_at_checked(b"%EF%BB%BF".len()) {
        Some((mark, rest)) if mark.eq_ignore_ascii_case(b"%EF%BB%BF") => rest,
        _ => body,
    };
    loop {
        rest = match rest {
            [b'%', b'7', b'B' | b'b', ..] => return Some(rest),
            [b'%', b'0', b'9' | b'A' | b'D' | b'a' | b'd', rest @ ..] => rest,
            [b'%', b'2', b'0', rest @ ..] => rest,
            [b'+' | b' ' | b'\t' | b'\r' | b'\n', rest @ ..] => rest,
            _ => return None,
        }
    }
}

/// Decodes once. Encoders that encode `:` and `,` (those of form fields) write a space as `+` and a
/// plus as `%2B`. Encoders that do not encode them (those of whole URLs) do not encode a plus
/// either.
fn percent_decoded(body: &[u8]) -> Cow<'_, [u8]> {
    let plus_is_a_plus = memchr2(b':', b',', body).is_some();
    if plus_is_a_plus || !body.contains(&b'+') {
        return percent_decode(body).into();
    }
    Cow::Owned(percent_decode(&form::with_spaces(body)).collect())
}

/// Replaces invalid UTF-8 by U+FFFD: a callback with invalid UTF-8 may be authentic, though it
/// cannot be published.
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

/// Like [`String::from_utf8_lossy`], but faster for valid text, which is the usual case.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

impl<'a> Json<'a> {
    /// Parses the members of the object, or the signed fields of the form.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if the text is not one JSON object, the form has too many fields, or a signed
    /// field is repeated.
    pub fn decode(&'a self) -> Result<UnverifiedCallback<'a>, Malformed> {
        let (text, valid_utf8) = match &self.source {
            Source::Object { text, valid_utf8 } => (text, *valid_utf8),
            Source::Form(form) => return self.decode_form(form),
        };
        // The parser's error gives the expected token and its position. It quotes only values of a
        // wrong type, and members may have values of any type.
        let Members(members) = serde_json::from_str(without_equals_sign(text))
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
            appid: appid.value("appid")?.and_then(text_or_number),
            timestamp: timestamp.value("timestamp")?.and_then(text_or_number),
            nonce: nonce.value("nonce")?.and_then(text_or_number),
            signature: signature.value("signature")?.and_then(self::text),
            others: OtherFields::Object { fields, valid_utf8 },
        })
    }

    fn decode_form(&'a self, form: &'a Form<'a>) -> Result<UnverifiedCallback<'a>, Malformed> {
        let mut signed = [const { Found::Nothing }; SIGNED.len()];
        for field in form::signed_fields(form.body) {
            let field = field.ok_or(Malformed::TooManyFields)?;
            if let Some(found) = signed.get_mut(field.place) {
                found.add(field.value, field.is_exact);
            }
        }
        let [appid, timestamp, nonce, signature] = signed;
        Ok(UnverifiedCallback {
            raw: self.raw,
            appid: appid.value("appid")?.and_then(form::appid_text),
            timestamp: timestamp.value("timestamp")?.and_then(form::signed_text),
            nonce: nonce.value("nonce")?.and_then(form::signed_text),
            signature: signature.value("signature")?.and_then(form::signed_text),
            others: OtherFields::Form(form),
        })
    }
}

/// The members found under the name of one signed field.
///
/// Other ZEGO products write `Nonce` and `AppId`, and may share our URL. A member with the exact
/// name counts; one with other letter case only if there is no exact one.
enum Found<T> {
    Nothing,
    OtherCase(T),
    OtherCaseRepeated,
    Exact(T),
    Repeated,
}

impl<T> Found<T> {
    fn add(&mut self, value: T, is_exact: bool) {
        *self = match (&self, is_exact) {
            (Self::Exact(_) | Self::Repeated, true) => Self::Repeated,
            (_, true) => Self::Exact(value),
            (Self::Nothing, false) => Self::OtherCase(value),
            (Self::OtherCase(_) | Self::OtherCaseRepeated, false) => Self::OtherCaseRepeated,
            (Self::Exact(_) | Self::Repeated, false) => return,
        };
    }

    fn value(self, name: &'static str) -> Result<Option<T>, Malformed> {
        match self {
            Self::Nothing => Ok(None),
            Self::OtherCase(value) | Self::Exact(value) => Ok(Some(value)),
            Self::OtherCaseRepeated | Self::Repeated => Err(Malformed::RepeatedSignedField(name)),
        }
    }
}

/// A string of Unicode text, borrowed if it contains no escape.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    // For anything else the parser would build an error with text and position, which costs more
    // than parsing a string.
    if !value.get().starts_with('"') {
        return None;
    }
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

/// A string, or the characters of a number as received: a nonce has up to 19 digits, more than a
/// float can represent, and the signature covers characters.
fn text_or_number(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes() {
        [b'0'..=b'9' | b'-', ..] => Some(Cow::Borrowed(value.get())),
        _ => text(value),
    }
}

/// The members of a JSON object, in order, with the text of their values.
struct Members<'a>(Vec<Field<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

/// Callbacks rarely have more members.
const USUAL_MEMBERS: usize = 16;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        // As raw text, names are checked against JSON's grammar, and values of any depth or size
        // are skipped without recursion or conversion.
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let Name(name) = serde_json::from_str(name.get()).map_err(A::Error::custom)?;
            members.push(Field {
                name,
                value,
                unbracketed: None,
            });
        }
        Ok(Members(members))
    }
}

/// A member's name. It is parsed as bytes, because serde_json refuses a lone surrogate in a string,
/// and one in the name of an unknown field must not lose the event.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(NameVisitor).map(Name)
    }
}

/// The text of a JSON string, if it is one. U+FFFD replaces a lone surrogate.
pub fn lossy_string(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    let Name(text) = serde_json::from_str(json).ok()?;
    Some(text)
}

/// The members of an object inside a callback, if it is one.
pub fn members(object: &RawValue) -> Option<Vec<Field<'_>>> {
    let Members(members) = serde_json::from_str(object.get()).ok()?;
    Some(members)
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

    /// With escapes decoded. A lone surrogate then is three bytes that are not UTF-8, of which only
    /// the first is 0xED; one U+FFFD replaces the three.
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
