//! Bytes that are near to others: what a hostile sender, or a broken line, makes of a body.

use std::fs;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const TOKENS: [&str; 22] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "1e999",
    "-0",
    "\"appid\":",
    "\"nonce\":1,",
    "&appid=1",
    "%7B",
    "%00",
    "+",
    "\u{feff}",
    "\\ud800",
    "\"signature\":\"\",",
    "\"event\":{},",
    "\0",
];

/// One step away: a bit, a piece less, a piece twice, a token more, or the end of another one.
pub(crate) fn mutated(mut bytes: Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..9) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        2 | 3 => {
            let end = (at + random.random_range(0..20)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 | 5 => {
            let end = (at + random.random_range(0..40)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        6 => {
            let other = others.choose(random).expect("there are some");
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.random_range(0..=other.len())..]);
        }
        _ => {
            let token = TOKENS.choose(random).expect("there are some");
            bytes.splice(at..at, token.bytes());
        }
    }
    bytes
}

/// Path and content of each file of the repository in this folder and those below, sorted by path.
pub(crate) fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut files,
    );
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("the folder is in the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let content = fs::read(&path).expect("it can be read");
            files.push((path.display().to_string(), content));
        }
    }
}
