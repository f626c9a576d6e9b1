//! The properties of the fuzzers, on their seeds and on mutations of them: the same ones each time.

#[path = "../../fuzz/properties.rs"]
mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::support::bytes::{files, mutated};

const MUTATIONS: u64 = 5000;

fn tries(folder: &str, property: fn(&[u8])) {
    let seeds = files(folder);
    assert!(seeds.len() >= 10, "{folder:?} has {} seeds", seeds.len());
    let holds = |bytes: &[u8], what: &str| {
        let held = catch_unwind(AssertUnwindSafe(|| property(bytes)));
        assert!(held.is_ok(), "{what}: {}", bytes.escape_ascii());
    };
    for (name, seed) in &seeds {
        holds(seed, name);
    }
    let mut random = StdRng::seed_from_u64(1);
    let all: Vec<_> = seeds.into_iter().map(|(_, seed)| seed).collect();
    for number in 0..MUTATIONS {
        let seed = all.choose(&mut random).expect("there are some");
        let mut bytes = seed.clone();
        for _ in 0..random.random_range(1..5) {
            bytes = mutated(bytes, &all, &mut random);
        }
        holds(&bytes, &format!("mutation {number}"));
    }
}

#[test]
fn no_body_is_authentic_without_a_signature() {
    tries("tests/fixtures/callbacks", properties::decode);
}

#[test]
fn a_signature_is_valid_only_if_timestamp_and_nonce_are_well_formed() {
    tries("fuzz/corpus/authenticate", properties::authenticate);
}

#[test]
fn a_signed_body_becomes_an_event_or_a_dead_letter() {
    tries("fuzz/corpus/event", properties::event);
}

#[test]
fn a_signed_form_becomes_an_event_or_a_dead_letter() {
    tries("fuzz/corpus/form", properties::form);
}

#[test]
fn secrets_are_read_or_refused_without_being_shown() {
    tries("fuzz/corpus/secrets", properties::secrets);
}
