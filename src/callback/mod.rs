//! What the sender sent. Pure: no I/O, no clock, no metrics.
//!
//! A body walks through three types, and each can only be made from the one before it:
//! [`RawCallback`] (bytes) → [`UnverifiedCallback`] (fields that nobody has vouched for) →
//! [`VerifiedCallback`] (signed by somebody who knows the secret). The rooms below take a
//! `VerifiedCallback`, so a field that was not authenticated cannot reach Kafka.
//!
//! The sender's signature covers the secret, the timestamp and the nonce, and nothing else: of a
//! `VerifiedCallback` only those three are proven. See the README's section on the sender.

mod authenticate;
mod decode;
mod form;
mod secrets;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use authenticate::{Signature, TimestampUnit, Unauthorized, VerifiedCallback, sign};
pub use decode::{Json, Malformed};
pub use secrets::{Place, Secrets, SecretsError};

/// A request's body as it arrived, before anybody has looked at it.
#[derive(Clone)]
pub struct RawCallback {
    /// The bytes, unchanged. They hold a live signature: never log them.
    pub body: Bytes,
    /// The `Content-Type` header as received. It decides nothing, it only travels with dead letters.
    pub content_type: Option<Bytes>,
    /// When the last byte of the body had arrived, in milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

/// The fields of a callback that nobody has vouched for yet.
///
/// Its only use is [`Secrets::authenticate`]; no field of it can be read outside this room.
pub struct UnverifiedCallback<'a> {
    raw: &'a RawCallback,
    valid_utf8: bool,
    appid: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, str>>,
    fields: Vec<Field<'a>>,
}

/// One member of the callback's JSON object that is not one of the four signed fields.
#[derive(Debug)]
pub struct Field<'a> {
    /// The member's name. Where it held a lone surrogate, that became U+FFFD.
    pub name: Cow<'a, str>,
    /// The member's value, as the JSON text that was received.
    pub value: &'a RawValue,
}

impl<'a> Field<'a> {
    /// The value, where it is a string of Unicode text; borrowed where it holds no escape.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        decode::text(self.value)
    }
}

#[cfg(test)]
mod tests;
