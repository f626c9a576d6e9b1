use serde::Deserialize;
use serde_json::json;

use super::*;

/// Secret, timestamp and nonce: what a signature is made of.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Parts {
    pub(super) secret: String,
    pub(super) timestamp: String,
    pub(super) nonce: String,
}

impl Parts {
    pub(super) fn sign(&self) -> Signature {
        sign(&self.secret, &self.timestamp, &self.nonce)
    }

    /// What is hashed, and therefore all that a signature can vouch for.
    pub(super) fn joined(&self) -> String {
        let mut parts = [self.secret.as_str(), &self.timestamp, &self.nonce];
        parts.sort_unstable();
        parts.concat()
    }

    /// Authenticates with this secret a callback with this timestamp and nonce.
    pub(super) fn authenticate(&self, signature: &str) -> Result<Signature, Unauthorized> {
        let secrets = Secrets::parse_lines(&format!("1={}", self.secret)).expect("a secret");
        let body = json!({
            "appid": "1", "timestamp": self.timestamp, "nonce": self.nonce, "signature": signature,
        });
        authenticate(&secrets, &body.to_string(), TimestampUnit::Auto).map(|seen| seen.signature)
    }
}

#[derive(Debug, PartialEq)]
struct Authentic {
    appid: String,
    timestamp: i64,
    signature: Signature,
}

fn authenticate(
    secrets: &Secrets,
    body: &str,
    unit: TimestampUnit,
) -> Result<Authentic, Unauthorized> {
    let raw = raw(body);
    let json = raw.json().expect("an object");
    let unverified = json.decode().expect("an object");
    let callback = secrets.authenticate(unverified, unit)?;
    Ok(Authentic {
        appid: callback.appid().to_owned(),
        timestamp: callback.timestamp(),
        signature: callback.signature(),
    })
}

fn signed(appid: &str, secret: &str) -> String {
    let signature = sign(secret, "1757577600", "350176").to_hex();
    json!({"appid": appid, "timestamp": "1757577600", "nonce": "350176", "signature": signature})
        .to_string()
}

#[derive(Deserialize)]
struct Vectors {
    accept: Vec<Vector>,
    reject: Vec<Vector>,
    same_signature: SameSignature,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    #[serde(flatten)]
    parts: Parts,
    signature: String,
}

#[derive(Deserialize)]
struct SameSignature {
    pairs: Vec<(Parts, Parts, String)>,
}

fn vectors() -> Vectors {
    let text = include_str!("../../../tests/fixtures/vectors/signatures.json");
    serde_json::from_str(text).expect("the vectors")
}

#[test]
fn every_published_vector_is_signed_and_authenticated() {
    let vectors = vectors().accept;
    assert!(!vectors.is_empty());
    for Vector {
        name,
        parts,
        signature,
    } in vectors
    {
        assert_eq!(parts.sign().to_hex(), signature, "{name}");
        assert_eq!(parts.authenticate(&signature), Ok(parts.sign()), "{name}");
        assert_eq!(
            parts.authenticate(&signature.to_uppercase()),
            Ok(parts.sign()),
            "{name}"
        );
    }
}

#[test]
fn every_wrong_vector_is_refused() {
    let vectors = vectors().reject;
    assert!(!vectors.is_empty());
    for Vector {
        name,
        parts,
        signature,
    } in vectors
    {
        assert_ne!(parts.sign().to_hex(), signature, "{name}");
        assert!(parts.authenticate(&signature).is_err(), "{name}");
    }
}

#[test]
fn two_splits_of_the_same_digits_share_a_signature() {
    let pairs = vectors().same_signature.pairs;
    assert!(!pairs.is_empty());
    for (one, other, signature) in pairs {
        assert_ne!(
            (&one.timestamp, &one.nonce),
            (&other.timestamp, &other.nonce)
        );
        let memory_key = one.authenticate(&signature).expect("authentic");
        assert_eq!(other.authenticate(&signature), Ok(memory_key));
        assert_eq!(memory_key.to_hex(), signature);
    }
}

#[test]
fn an_application_is_known_by_its_own_secrets_or_else_by_the_wildcards() {
    let secrets = Secrets::parse_list("1=new,2=two,1=old,*=any,*=other").expect("a list");
    let check = |appid: &str, secret: &str| {
        authenticate(&secrets, &signed(appid, secret), TimestampUnit::Auto).map(|seen| seen.appid)
    };
    for (appid, secret) in [
        ("1", "new"),
        ("1", "old"),
        ("2", "two"),
        ("3", "any"),
        ("3", "other"),
    ] {
        assert_eq!(check(appid, secret), Ok(appid.to_owned()), "{secret}");
    }
    for (appid, secret) in [("1", "two"), ("1", "any"), ("2", "new"), ("3", "new")] {
        assert_eq!(
            check(appid, secret),
            Err(Unauthorized::WrongSignature),
            "{appid} {secret}"
        );
    }
}

#[test]
fn an_unknown_application_is_not_authentic_whatever_it_signs_with() {
    let secrets = Secrets::parse_list("1=one").expect("a list");
    let dummy = secrets.dummy().first().expect("a dummy").as_str();
    for secret in ["one", dummy] {
        let answer = authenticate(&secrets, &signed("2", secret), TimestampUnit::Auto);
        assert_eq!(answer, Err(Unauthorized::UnknownAppid), "{secret}");
    }
    // The dummy is no secret of anybody's who is known.
    let answer = authenticate(&secrets, &signed("1", dummy), TimestampUnit::Auto);
    assert_eq!(answer, Err(Unauthorized::WrongSignature));
}

#[test]
fn a_timestamp_must_have_the_configured_unit_and_is_converted_to_milliseconds() {
    use TimestampUnit::{Auto, Milliseconds, Seconds};

    let secrets = Secrets::parse_list("1=secret").expect("a list");
    for (unit, digits, milliseconds) in [
        (Auto, "1757577600", Some(1_757_577_600_000)),
        (Auto, "1757577600123", Some(1_757_577_600_123)),
        (Seconds, "1757577600", Some(1_757_577_600_000)),
        (Seconds, "1757577600123", None),
        (Milliseconds, "1757577600123", Some(1_757_577_600_123)),
        (Milliseconds, "1757577600", None),
        (Auto, "9999999999999", Some(9_999_999_999_999)),
        (Auto, "0000000000", Some(0)),
        (Auto, "175757760", None),
        (Auto, "17575776000", None),
        (Auto, "175757760012", None),
        (Auto, "17575776001234", None),
        (Auto, "", None),
        (Auto, "+757577600", None),
    ] {
        let signature = sign("secret", digits, "1").to_hex();
        let body = json!({"appid": "1", "timestamp": digits, "nonce": "1", "signature": signature});
        let answer = authenticate(&secrets, &body.to_string(), unit).map(|seen| seen.timestamp);
        let is_of_a_unit = [10, 13].contains(&digits.len()) && !digits.starts_with('+');
        let refused = match is_of_a_unit {
            true => Unauthorized::OtherUnit,
            false => Unauthorized::MissingOrUnusable("timestamp"),
        };
        assert_eq!(answer, milliseconds.ok_or(refused), "{unit} {digits}");
    }
}

#[test]
fn a_timestamp_unit_is_written_as_it_is_read() {
    for text in ["auto", "s", "ms"] {
        assert_eq!(
            text.parse::<TimestampUnit>().map(|unit| unit.to_string()),
            Ok(text.to_owned())
        );
    }
    for text in ["", "S", "seconds", "us"] {
        assert!(text.parse::<TimestampUnit>().is_err(), "{text}");
    }
}

#[test]
fn a_refusal_says_the_same_whatever_was_wrong() {
    let says = [
        Unauthorized::MissingOrUnusable("nonce"),
        Unauthorized::OtherUnit,
        Unauthorized::UnknownAppid,
        Unauthorized::WrongSignature,
    ]
    .map(|unauthorized| unauthorized.to_string());
    assert_eq!(says, ["the callback is not authentic"; 4]);
}

#[test]
fn the_log_gets_the_check_that_failed_and_the_name_of_the_field() {
    let secrets = Secrets::parse_list("1=one").expect("a list");
    let signature = sign("one", "1757577600", "350176").to_hex();
    let check = |fields: serde_json::Value, unit| {
        let mut body = json!({
            "appid": "1", "timestamp": "1757577600", "nonce": "350176", "signature": signature,
        });
        let members = body.as_object_mut().expect("an object");
        members.extend(fields.as_object().expect("an object").clone());
        let refused = authenticate(&secrets, &body.to_string(), unit).expect_err("not authentic");
        refused.failed_check().to_string()
    };
    for (fields, unit, failed) in [
        (
            json!({"appid": null}),
            TimestampUnit::Auto,
            "appid is missing or unusable",
        ),
        (
            json!({"appid": "2"}),
            TimestampUnit::Auto,
            "ZIM2KAFKA_CALLBACK_SECRETS does not name its appid",
        ),
        (
            json!({"timestamp": ""}),
            TimestampUnit::Auto,
            "timestamp is missing or unusable",
        ),
        (
            json!({"timestamp": "today"}),
            TimestampUnit::Auto,
            "timestamp is missing or unusable",
        ),
        (
            json!({}),
            TimestampUnit::Milliseconds,
            "timestamp is in the unit that ZIM2KAFKA_TIMESTAMP_UNIT excludes",
        ),
        (
            json!({"nonce": "1-2"}),
            TimestampUnit::Auto,
            "nonce is missing or unusable",
        ),
        (
            json!({"nonce": true}),
            TimestampUnit::Auto,
            "nonce is missing or unusable",
        ),
        (
            json!({"signature": "abc"}),
            TimestampUnit::Auto,
            "signature is missing or unusable",
        ),
        (
            json!({"nonce": "350177"}),
            TimestampUnit::Auto,
            "wrong signature",
        ),
    ] {
        assert_eq!(check(fields.clone(), unit), failed, "{fields}");
    }
}

#[test]
fn a_signature_is_not_printed() {
    let signature = sign("secret", "1470820198", "123412");
    assert_eq!(format!("{signature:?}"), "Signature(redacted)");
    assert_eq!(
        format!("{:?}", Some(signature)),
        "Some(Signature(redacted))"
    );
}
