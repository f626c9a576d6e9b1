//! Decodes and authenticates callbacks. Pure: no I/O, no clock, no metrics.
//!
//! A body passes through three types, each made from the one before: [`RawCallback`] (bytes),
//! [`UnverifiedCallback`] (fields that are not authenticated), [`VerifiedCallback`] (signed by
//! someone who knows the secret). Later modules take a `VerifiedCallback`, so an unauthenticated
//! field cannot reach Kafka.
//!
//! The sender's signature covers the secret, the timestamp and the nonce, and nothing else: only
//! these three are verified in a `VerifiedCallback`. See `docs/security.md`.

mod authenticate;
mod decode;
mod form;
mod secrets;
mod shape;
mod trace;

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use authenticate::{Signature, TimestampUnit, Unauthorized, VerifiedCallback, sign};
use decode::OtherFields;
pub use decode::{Json, Malformed, lossy_string, members};
pub use form::MAX_FORM_FIELDS;
pub use secrets::{EntryError, EntryPosition, Secrets, SecretsError};
pub use shape::Shape;
pub use trace::{TraceContext, TraceId};

/// The four fields of the signature scheme ("signed fields"). The signature covers timestamp and
/// nonce.
const SIGNED: [&str; 4] = ["appid", "timestamp", "nonce", "signature"];

/// What the service keeps of a request, with the body unparsed.
#[derive(Clone)]
pub struct RawCallback {
    /// The bytes, unchanged. They contain a live signature: never log them.
    pub body: Bytes,
    /// The `Content-Type` header as received. It has no influence and is only kept for dead
    /// letters.
    pub content_type: Option<Bytes>,
    /// The trace that the request belongs to. It has no influence and is passed on with the record.
    pub trace: Option<TraceContext>,
    /// When the last byte of the body arrived, in milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

/// The fields of a callback before authentication.
///
/// Its only use is [`Secrets::authenticate`]; no field can be read outside this module, only
/// compared with what is configured.
pub struct UnverifiedCallback<'a> {
    raw: &'a RawCallback,
    appid: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, str>>,
    others: OtherFields<'a>,
}

impl UnverifiedCallback<'_> {
    /// The entry of the application that the callback names, which is not verified.
    pub fn app_in<'s, T>(&self, apps: &'s HashMap<String, T>) -> Option<&'s T> {
        apps.get(self.appid.as_deref()?)
    }

    /// Whether the callback claims to be this event. That is not verified, so it may only be counted.
    pub fn names_event(&self, event: &str) -> bool {
        self.others.names_event(event)
    }
}

/// A member of the callback's JSON object, apart from the four signed fields.
#[derive(Debug)]
pub struct Field<'a> {
    /// The member's name. A lone surrogate in it is replaced by U+FFFD.
    pub name: Cow<'a, str>,
    /// The member's value, as the JSON text that was received.
    pub value: &'a RawValue,
    /// In a form, in which every value is text: how many of its values, from the first on, were
    /// written without brackets behind the name. `None` in JSON.
    pub unbracketed: Option<usize>,
}

impl<'a> Field<'a> {
    /// Whether the value is null.
    pub fn is_null(&self) -> bool {
        self.value.get() == "null"
    }

    /// The value, if it is a string of Unicode text; borrowed if it contains no escape.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        string(self.value)
    }

    /// The first of the values that a field of a form has without brackets behind its name, or the
    /// value as in [`Field::text`].
    pub fn first_text(&self) -> Option<Cow<'a, str>> {
        match self.unbracketed {
            Some(1..) if self.is_repeated() => self.form_values().into_iter().next(),
            _ => self.text(),
        }
    }

    /// Whether it is a field of a form with several values.
    pub fn is_repeated(&self) -> bool {
        self.unbracketed.is_some() && self.form_values().len() > 1
    }

    fn form_values(&self) -> Vec<Cow<'a, str>> {
        serde_json::from_str(self.value.get()).unwrap_or_default()
    }
}

/// The value, if it is a string of Unicode text; borrowed if it contains no escape.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    decode::text(value)
}

/// Whether this is the name of one of the four signed fields, in any letter case.
pub fn is_signed_field(name: &str) -> bool {
    SIGNED
        .iter()
        .any(|signed| name.eq_ignore_ascii_case(signed))
}

#[cfg(test)]
mod tests;
