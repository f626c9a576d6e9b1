//! Describes a body without any of its text, for the log.

use std::fmt;

use super::{RawCallback, SIGNED, decode, form};

/// The shape of a body: its encoding, its length and its known fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    encoding: &'static str,
    bytes: usize,
    /// The fields that are found; `None` if the body cannot be parsed.
    fields: Option<Fields>,
}

#[derive(Debug, PartialEq, Eq)]
struct Fields {
    known: Vec<&'static str>,
    /// The number of other fields. Their names are not logged: they are text of the request.
    others: usize,
}

impl RawCallback {
    /// The body's shape, with those of these fields that it has. Parses the body again.
    pub fn shape(&self, fields: &[&'static str]) -> Shape {
        let body = decode::skip_whitespace(&self.body);
        let encoding = match body {
            [] => "an empty body",
            [b'{', ..] => "a body that begins like JSON",
            _ if decode::encoded_object(body).is_some() => {
                "a body that begins like percent-encoded JSON"
            }
            _ if form::looks_like_one(body) => "a body that begins like a form",
            _ => "a body that begins neither like JSON nor like a form",
        };
        Shape {
            encoding,
            bytes: self.body.len(),
            fields: self.fields(fields),
        }
    }

    fn fields(&self, named: &[&'static str]) -> Option<Fields> {
        let json = self.json().ok()?;
        let callback = json.decode().ok()?;
        let signed = [
            &callback.appid,
            &callback.timestamp,
            &callback.nonce,
            &callback.signature,
        ];
        let usable = SIGNED.into_iter().zip(signed);
        let usable = usable.filter_map(|(name, value)| value.is_some().then_some(name));
        let mut known: Vec<_> = usable.collect();
        let (fields, _) = callback.others.read();
        let has = |name: &&str| fields.iter().any(|field| field.name == *name);
        known.extend(named.iter().copied().filter(has));
        let others = (fields.iter()).filter(|field| !named.contains(&field.name.as_ref()));
        Some(Fields {
            known,
            others: others.count(),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes", self.encoding, self.bytes)?;
        let Some(Fields { known, others }) = &self.fields else {
            return Ok(());
        };
        match known.as_slice() {
            [] => write!(f, ", no known field")?,
            known => write!(f, ", fields {}", known.join(", "))?,
        }
        match others {
            0 => Ok(()),
            others => write!(f, " and {others} others"),
        }
    }
}
