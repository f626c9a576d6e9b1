//! `UnverifiedCallback` to `VerifiedCallback`.
//!
//! The scheme is from ZEGOCLOUD's page "Authenticating server-to-server callbacks": the callback
//! secret, the timestamp and the nonce are sorted as strings, joined, hashed with SHA-1 and written
//! in hex. There is no separator between the parts, so their syntax is checked strictly here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};

use super::{Field, RawCallback, Secrets, UnverifiedCallback};

/// A callback whose signature was made by someone who knows the secret of its `appid`.
///
/// Only [`Secrets::authenticate`] creates one.
pub struct VerifiedCallback<'a> {
    raw: &'a RawCallback,
    valid_utf8: bool,
    appid: Cow<'a, str>,
    timestamp: i64,
    signature: Signature,
    fields: Vec<Field<'a>>,
}

/// Why a callback is not authentic. Its text is the same in all cases, so that a client learns
/// nothing from it. The variant is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the callback is not authentic")]
pub enum Unauthorized {
    /// This signed field is missing or has an impossible value.
    MissingOrUnusable(&'static str),
    /// The timestamp has the digits of the unit that `ZIM2KAFKA_TIMESTAMP_UNIT` excludes.
    OtherUnit,
    /// There is no secret for this `appid`.
    UnknownAppid,
    /// The signature was made with another secret or over other parts.
    WrongSignature,
}

impl Unauthorized {
    /// The check that failed, for the log and never for the client.
    pub fn failed_check(self) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::MissingOrUnusable(name) => write!(f, "{name} is missing or unusable"),
            Self::OtherUnit => {
                f.write_str("timestamp is in the unit that ZIM2KAFKA_TIMESTAMP_UNIT excludes")
            }
            Self::UnknownAppid => f.write_str("ZIM2KAFKA_CALLBACK_SECRETS does not name its appid"),
            Self::WrongSignature => f.write_str("wrong signature"),
        })
    }
}

impl Secrets {
    /// Checks the signature against every secret of the callback's `appid`.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`], after the same work for every `appid`.
    pub fn authenticate<'a>(
        &self,
        callback: UnverifiedCallback<'a>,
        unit: TimestampUnit,
    ) -> Result<VerifiedCallback<'a>, Unauthorized> {
        let usable = |part: Option<Cow<'a, str>>, name| {
            part.filter(|part| !part.is_empty())
                .ok_or(Unauthorized::MissingOrUnusable(name))
        };
        let appid = usable(callback.appid, "appid")?;
        let digits = usable(callback.timestamp, "timestamp")?;
        let nonce = usable(callback.nonce, "nonce")?;
        let signature = (callback.signature.as_deref())
            .and_then(Signature::from_hex)
            .ok_or(Unauthorized::MissingOrUnusable("signature"))?;
        let Some(timestamp) = unit.milliseconds(&digits) else {
            let is_of_other_unit = TimestampUnit::Auto.milliseconds(&digits).is_some();
            return Err(match is_of_other_unit {
                true => Unauthorized::OtherUnit,
                false => Unauthorized::MissingOrUnusable("timestamp"),
            });
        };
        if nonce.len() > MAX_NONCE_BYTES || !nonce.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(Unauthorized::MissingOrUnusable("nonce"));
        }
        let secrets = self.of(&appid);
        let known = secrets.is_some();
        // Compares with all secrets, so that the time does not reveal which one matches.
        let matches = (secrets.unwrap_or(self.dummy()).iter())
            .fold(Choice::from(0), |matches, secret| {
                matches | sign(secret, &digits, &nonce).0.ct_eq(&signature.0)
            });
        match (known, bool::from(matches)) {
            (true, true) => {
                let (fields, valid_utf8) = callback.others.read();
                Ok(VerifiedCallback {
                    raw: callback.raw,
                    valid_utf8,
                    appid,
                    timestamp,
                    signature,
                    fields,
                })
            }
            (true, false) => Err(Unauthorized::WrongSignature),
            (false, _) => Err(Unauthorized::UnknownAppid),
        }
    }
}

/// The longest nonce. ZEGOCLOUD's samples have 6 to 19 characters.
const MAX_NONCE_BYTES: usize = 64;

/// The twenty bytes of a signature. They are a live credential, because anyone who has them can
/// sign another body. They are never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 20]);

/// Signs as ZEGOCLOUD does. The parts are sorted by bytes, never as numbers.
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

/// The unit of the sender's timestamps. ZEGOCLOUD's pages specified seconds until 2025-09-11 and
/// specify milliseconds since, but still have samples in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampUnit {
    /// 10 digits are seconds, 13 are milliseconds.
    Auto,
    /// Only 10 digits.
    Seconds,
    /// Only 13 digits.
    Milliseconds,
}

impl TimestampUnit {
    /// Milliseconds since 1970-01-01 UTC, if the digits are a timestamp of this unit.
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

    /// Whether the body was valid UTF-8. If not, the fields contain U+FFFD instead.
    pub fn is_valid_utf8(&self) -> bool {
        self.valid_utf8
    }

    /// The application of the secret. If it was sent as a number, its digits.
    pub fn appid(&self) -> &str {
        &self.appid
    }

    /// The signed timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The twenty signature bytes. They identify a callback, because the signed parts are joined
    /// without a separator and the same signature can stand for two ways to split them.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// All members except the four signed ones, in the order received. No name equals that of a
    /// signed field in any letter case, so none of these fields contains the signature.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }
}
