//! `UnverifiedCallback` → `VerifiedCallback`.
//!
//! The scheme is that of ZEGOCLOUD's page "Authenticating server-to-server callbacks": the callback
//! secret, the timestamp and the nonce, sorted as strings, joined, hashed with SHA-1, in hex. There
//! is no separator between the parts, which is why their forms are strict here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{Field, RawCallback, UnverifiedCallback};

/// A callback whose signature was made by somebody who knows the secret of its `appid`.
///
/// Only [`Secrets::authenticate`] makes one.
pub struct VerifiedCallback<'a> {
    raw: &'a RawCallback,
    valid_utf8: bool,
    appid: Cow<'a, str>,
    timestamp: i64,
    signature: Signature,
    fields: Vec<Field<'a>>,
}

/// Why a callback is not authentic. It says the same whatever was wrong, so that nobody can feel
/// their way; which it was is for the log of whoever runs the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the callback is not authentic")]
pub enum Unauthorized {
    /// `appid`, `timestamp`, `nonce` or `signature` is missing or cannot have been signed so.
    MissingOrUnusable,
    /// There is no secret for this `appid`.
    UnknownAppid,
    /// The signature was made with another secret, or of other parts.
    WrongSignature,
}

impl Secrets {
    /// Checks the signature against every secret of the callback's `appid`.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`], after the same work whatever the `appid` is.
    pub fn authenticate<'a>(
        &self,
        callback: UnverifiedCallback<'a>,
        unit: TimestampUnit,
    ) -> Result<VerifiedCallback<'a>, Unauthorized> {
        let usable = |part: Option<Cow<'a, str>>| part.filter(|part| !part.is_empty());
        let parts = (
            usable(callback.appid),
            usable(callback.timestamp),
            usable(callback.nonce),
            callback.signature.as_deref().and_then(Signature::from_hex),
        );
        let (Some(appid), Some(digits), Some(nonce), Some(signature)) = parts else {
            return Err(Unauthorized::MissingOrUnusable);
        };
        let timestamp = unit
            .milliseconds(&digits)
            .ok_or(Unauthorized::MissingOrUnusable)?;
        if nonce.len() > MAX_NONCE || !nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Unauthorized::MissingOrUnusable);
        }
        let (secrets, known) = match self.of(&appid) {
            Some(secrets) => (secrets, true),
            None => (self.dummy.as_slice(), false),
        };
        // All of them, without an early end: which one it was is nobody's business.
        let matches = secrets.iter().fold(Choice::from(0), |matches, secret| {
            matches | sign(secret, &digits, &nonce).0.ct_eq(&signature.0)
        });
        match (known, bool::from(matches)) {
            (true, true) => Ok(VerifiedCallback {
                raw: callback.raw,
                valid_utf8: callback.valid_utf8,
                appid,
                timestamp,
                signature,
                fields: callback.fields,
            }),
            (true, false) => Err(Unauthorized::WrongSignature),
            (false, _) => Err(Unauthorized::UnknownAppid),
        }
    }

    fn of(&self, appid: &str) -> Option<&[Zeroizing<String>]> {
        let secrets = self.by_appid.get(appid).or_else(|| self.by_appid.get(ANY));
        secrets.map(Vec::as_slice)
    }
}

/// ZEGOCLOUD's samples have nonces of 6 to 19 characters.
const MAX_NONCE: usize = 64;

/// The twenty bytes of a signature. They are a live credential: whoever has them can sign another
/// body, so they are never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 20]);

/// Signs as ZEGOCLOUD does. The parts are sorted by their bytes, never as numbers.
pub fn sign(secret: &str, timestamp: &str, nonce: &str) -> Signature {
    let mut parts = [secret, timestamp, nonce];
    parts.sort_unstable();
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part);
    }
    Signature(hash.finalize().into())
}

impl Signature {
    /// Lower-case hex, as the sender writes it.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(redacted)")
    }
}

/// What the sender's timestamps must be. ZEGOCLOUD's pages said seconds until 2025-09-11 and
/// milliseconds since, with samples of seconds to this day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampUnit {
    /// 10 digits are seconds, 13 are milliseconds.
    Auto,
    /// 10 digits.
    Seconds,
    /// 13 digits.
    Milliseconds,
}

impl TimestampUnit {
    /// Milliseconds since 1970-01-01 UTC, where the digits are a timestamp of this unit.
    fn milliseconds(self, digits: &str) -> Option<i64> {
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let factor = match (self, digits.len()) {
            (Self::Auto | Self::Seconds, 10) => 1000,
            (Self::Auto | Self::Milliseconds, 13) => 1,
            _ => return None,
        };
        digits.parse::<i64>().ok().map(|number| number * factor)
    }
}

impl FromStr for TimestampUnit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "s" => Ok(Self::Seconds),
            "ms" => Ok(Self::Milliseconds),
            _ => Err("write auto, s or ms"),
        }
    }
}

/// The callback secrets, by application. Wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Secrets {
    /// In the order given: the first signs samples.
    order: Vec<String>,
    by_appid: HashMap<String, Vec<Zeroizing<String>>>,
    dummy: [Zeroizing<String>; 1],
}

/// What stands for every application that is not named.
const ANY: &str = "*";

/// Why the secrets cannot be taken. Entries are counted from 1 and never shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There is none.
    #[error("holds no secret: write appid=secret")]
    Empty,
    /// There is no `=`.
    #[error("entry {0} is not of the form appid=secret")]
    Form(usize),
    /// Nothing before the `=`.
    #[error("entry {0} has no appid before its =")]
    NoAppid(usize),
    /// Nothing behind the `=`.
    #[error("entry {0} has an empty secret")]
    EmptySecret(usize),
}

impl Secrets {
    /// Reads `appid=secret` pairs separated by commas. The same appid twice is a rotation: both live.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be taken.
    pub fn parse_list(text: &str) -> Result<Self, SecretsError> {
        Self::parse(text.split(','))
    }

    /// Reads one pair a line; `#` begins a comment line. A secret may hold commas here.
    ///
    /// # Errors
    ///
    /// The first line that cannot be taken.
    pub fn parse_lines(text: &str) -> Result<Self, SecretsError> {
        let is_comment = |line: &&str| line.trim_start().starts_with('#');
        Self::parse(
            text.lines()
                .map(|line| if is_comment(&line) { "" } else { line }),
        )
    }

    fn parse<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, SecretsError> {
        let mut secrets = Self {
            order: Vec::new(),
            by_appid: HashMap::new(),
            dummy: [Zeroizing::new("no application has this secret".to_owned())],
        };
        for (entry, number) in entries.zip(1..) {
            if entry.trim().is_empty() {
                continue;
            }
            let (appid, secret) = entry.split_once('=').ok_or(SecretsError::Form(number))?;
            let (appid, secret) = (appid.trim(), secret.trim());
            if appid.is_empty() {
                return Err(SecretsError::NoAppid(number));
            }
            if secret.is_empty() {
                return Err(SecretsError::EmptySecret(number));
            }
            if !secrets.by_appid.contains_key(appid) {
                secrets.order.push(appid.to_owned());
            }
            let live = secrets.by_appid.entry(appid.to_owned()).or_default();
            live.push(Zeroizing::new(secret.to_owned()));
        }
        if secrets.order.is_empty() {
            return Err(SecretsError::Empty);
        }
        Ok(secrets)
    }

    /// The first application and its first secret, for signing samples.
    pub fn first(&self) -> Option<(&str, &str)> {
        let appid = self.order.first()?;
        Some((appid, self.secret_of(appid)?))
    }

    /// An application's first secret, for signing samples.
    pub fn secret_of(&self, appid: &str) -> Option<&str> {
        self.of(appid)?.first().map(|secret| secret.as_str())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}

impl<'a> VerifiedCallback<'a> {
    /// The request as it arrived.
    pub fn raw(&self) -> &'a RawCallback {
        self.raw
    }

    /// Whether the body was valid UTF-8. Where it was not, the fields hold U+FFFD in its place.
    pub fn is_valid_utf8(&self) -> bool {
        self.valid_utf8
    }

    /// The application that the secret belongs to; where it came as a number, its digits.
    pub fn appid(&self) -> &str {
        &self.appid
    }

    /// The signed timestamp, in milliseconds since 1970-01-01 UTC whatever unit it came in.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The twenty signature bytes: the key of every memory of callbacks, because the signed parts
    /// are joined without a separator and the same bytes can be split into them in two ways.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Every member but the signed four, in the order received. No name equals that of a signed
    /// field in any case of its letters, so a field from here never carries a signature.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }
}
