//! `UnverifiedCallback` → `VerifiedCallback`.
//!
//! The scheme is that of ZEGOCLOUD's page "Authenticating server-to-server callbacks": the callback
//! secret, the timestamp and the nonce, sorted as strings, joined, hashed with SHA-1, in hex. There
//! is no separator between the parts, which is why their forms are strict here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};

use super::{Field, RawCallback, Secrets, UnverifiedCallback};

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
        let secrets = self.of(&appid);
        let known = secrets.is_some();
        // All of them, without an early end: which one it was is nobody's business.
        let matches = (secrets.unwrap_or(self.dummy()).iter())
            .fold(Choice::from(0), |matches, secret| {
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
}

/// ZEGOCLOUD's samples have nonces of 6 to 19 characters.
const MAX_NONCE: usize = 64;

/// The twenty bytes of a signature. They are a live credential: whoever has them can sign another
/// body, so they are never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 20]);

/// Signs as ZEGOCLOUD does. The parts are sorted by their bytes, never as numbers.
///
/// The example is the one on ZEGOCLOUD's page "Authenticating server-to-server callbacks":
///
/// ```
/// let signature = zim2kafka::callback::sign("secret", "1470820198", "123412");
/// assert_eq!(signature.to_hex(), "5bd59fd62953a8059fb7eaba95720f66d19e4517");
/// ```
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

impl fmt::Display for TimestampUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
        })
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
