//! The room's tests, one file a file of the room, and the fixtures.

mod authenticate;
mod claimed_event;
mod decode;
mod fixtures;
mod secrets;
mod tampering;
mod trace;

use super::*;

/// The secrets of every fixture.
const SECRETS: &str = "1=secret";

/// The fields that the signature is made of or found by, as a literal: a test that took the room's
/// own list would not notice if it lost one.
const SIGNED: [&str; 4] = ["appid", "timestamp", "nonce", "signature"];

fn raw(body: impl Into<Vec<u8>>) -> RawCallback {
    RawCallback {
        body: Bytes::from(body.into()),
        content_type: None,
        trace: None,
        received_at: 0,
    }
}

/// What was read from a body, without its lifetimes.
#[derive(Debug, PartialEq)]
struct Seen {
    valid_utf8: bool,
    appid: Option<String>,
    timestamp: Option<String>,
    nonce: Option<String>,
    signature: Option<String>,
    fields: Vec<(String, String)>,
}

fn decode(body: impl Into<Vec<u8>>) -> Result<Seen, Malformed> {
    let raw = raw(body);
    let json = raw.json()?;
    let callback = json.decode()?;
    let owned = |part: Option<Cow<'_, str>>| part.map(Cow::into_owned);
    let (fields, valid_utf8) = callback.others.read();
    Ok(Seen {
        valid_utf8,
        appid: owned(callback.appid),
        timestamp: owned(callback.timestamp),
        nonce: owned(callback.nonce),
        signature: owned(callback.signature),
        fields: pairs(&fields),
    })
}

fn pairs(fields: &[Field<'_>]) -> Vec<(String, String)> {
    let pair = |field: &Field<'_>| (field.name.to_string(), field.value.get().to_owned());
    fields.iter().map(pair).collect()
}
