//! Whoever changes a callback on its way must not pass, unless nothing that is hashed was changed.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Secrets;
use super::authenticate::Parts;

/// What may happen to a callback between its sender and us.
#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Secret(String),
    Timestamp(String),
    Nonce(String),
    /// Digits from the end of the timestamp to the beginning of the nonce, or back.
    TimestampThenNonce,
    /// Digits from the end of the nonce to the beginning of the timestamp, or back.
    NonceThenTimestamp,
    /// A character from the end of the nonce to the beginning of the secret.
    NonceThenSecret,
    /// A bit of the signature.
    Bit(usize),
    UpperCase,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => Just(Change::Nothing),
        1 => secret().prop_map(Change::Secret),
        1 => timestamp().prop_map(Change::Timestamp),
        1 => nonce().prop_map(Change::Nonce),
        3 => Just(Change::TimestampThenNonce),
        3 => Just(Change::NonceThenTimestamp),
        3 => Just(Change::NonceThenSecret),
        1 => (0..160_usize).prop_map(Change::Bit),
        1 => Just(Change::UpperCase),
    ]
}

fn secret() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-f]{32}", "[0-9]{1,20}", "[!-~é]{1,12}"].prop_filter("a secret", |secret| {
        Secrets::parse_lines(&format!("1={secret}")).is_ok()
    })
}

fn timestamp() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{10}", "[0-9]{13}"]
}

fn nonce() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{4,19}", "[0-9A-Za-z]{4,61}"]
}

fn apply(change: Change, signed: &Parts) -> (Parts, String) {
    let Parts {
        mut secret,
        mut timestamp,
        mut nonce,
    } = signed.clone();
    let mut signature = signed.sign();
    let (of_seconds, digits) = (timestamp.len() == 10, |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
    });
    match change {
        Change::Nothing => {}
        Change::Secret(other) => secret = other,
        Change::Timestamp(other) => timestamp = other,
        Change::Nonce(other) => nonce = other,
        Change::TimestampThenNonce if !of_seconds => nonce.insert_str(0, &timestamp.split_off(10)),
        Change::TimestampThenNonce if digits(&nonce[..3]) => timestamp.extend(nonce.drain(..3)),
        Change::NonceThenTimestamp if !of_seconds => nonce.extend(timestamp.drain(..3)),
        Change::NonceThenTimestamp if digits(&nonce[nonce.len() - 3..]) => {
            timestamp.insert_str(0, &nonce.split_off(nonce.len() - 3));
        }
        Change::NonceThenSecret => secret.insert_str(0, &nonce.split_off(nonce.len() - 1)),
        Change::Bit(bit) => *signature.0.get_mut(bit / 8).expect("20 bytes") ^= 1 << (bit % 8),
        Change::UpperCase => {
            return (
                Parts {
                    secret,
                    timestamp,
                    nonce,
                },
                signature.to_hex().to_uppercase(),
            );
        }
        Change::TimestampThenNonce | Change::NonceThenTimestamp => {}
    }
    (
        Parts {
            secret,
            timestamp,
            nonce,
        },
        signature.to_hex(),
    )
}

#[test]
fn a_change_is_authentic_only_if_the_hashed_text_is_unchanged() {
    let parts = (secret(), timestamp(), nonce()).prop_map(|(secret, timestamp, nonce)| Parts {
        secret,
        timestamp,
        nonce,
    });
    let (moved_and_passed, refused) = (Cell::new(0), Cell::new(0));
    TestRunner::new(Config::with_cases(2_000))
        .run(&(parts, change()), |(signed, change)| {
            let (received, hex) = apply(change, &signed);
            let same_parts =
                received.timestamp == signed.timestamp && received.nonce == signed.nonce;
            let same_signature = hex.eq_ignore_ascii_case(&signed.sign().to_hex());
            let unchanged = received.joined() == signed.joined() && same_signature;
            prop_assert_eq!(received.authenticate(&hex).is_ok(), unchanged);
            moved_and_passed.set(moved_and_passed.get() + usize::from(unchanged && !same_parts));
            refused.set(refused.get() + usize::from(!unchanged));
            Ok(())
        })
        .expect("no counterexample");
    // Without either kind, the property would have said nothing.
    assert!(moved_and_passed.get() > 50, "{moved_and_passed:?}");
    assert!(refused.get() > 50, "{refused:?}");
}
