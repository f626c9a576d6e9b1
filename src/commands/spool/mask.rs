//! Masks the signatures and nonces in the bodies of dead letters.
//!
//! A body has one of the encodings that `callback` decodes: JSON, percent-encoded JSON, or a form.
//! Texts within it may be encoded in the same ways. Everything else stays as it is, because an
//! operator may have to see why the callback is a dead letter.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::callback::lossy_string;

/// What stands in the place of a masked value.
const MASK: &str = "***";

/// The members and fields that are masked, in any letter case.
const SIGNATURE: &str = "signature";
const NONCE: &str = "nonce";

/// All that a form encodes, but not the mask.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'_')
    .remove(b'-')
    .remove(b'.');

/// How many encodings around each other are taken off. A text within more of them is masked as a
/// whole.
const DEPTH_MAX: usize = 8;

/// A shorter signature is none, and could be part of any other text.
const SIGNATURE_BYTES_MIN: usize = 16;

/// The body with masked signatures and nonces; `None` if no encoding fits, so that they cannot be
/// found.
pub(super) fn masked(body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let mut masking = Masking::default();
    let masked = masking.text(&body, 0)?;
    // The value may also be where nobody looks for it.
    let is_there = |text: &str| {
        let text = text.to_ascii_lowercase();
        masking
            .signatures
            .iter()
            .any(|signature| text.contains(signature))
    };
    let decoded = percent_decode_str(&masked).decode_utf8_lossy();
    (!is_there(&masked) && !is_there(&decoded)).then_some(masked)
}

/// The state of the masking of one body.
#[derive(Default)]
struct Masking {
    /// The names of the values that were masked.
    names: Vec<&'static str>,
    /// The signatures among them, in lower case.
    signatures: Vec<String>,
}

impl Masking {
    /// Masks a text of any of the encodings; `None` if it has none of them.
    fn text(&mut self, text: &str, depth: usize) -> Option<String> {
        let begin = begin_of(text);
        if begin.starts_with(['{', '[']) {
            return self.json(begin, depth);
        }
        if let Some(decoded) = percent_decoded_json(begin) {
            let masked = self.json(&decoded, depth)?;
            return Some(utf8_percent_encode(&masked, ENCODED).to_string());
        }
        let begins_like_form = |first: char| first.is_ascii_alphanumeric() || "_%".contains(first);
        if !begin.starts_with(begins_like_form) {
            return None;
        }
        // Nearly every text can be read as a form, so it must prove that it is one.
        let before = self.found(depth);
        let masked = self.form(text, depth);
        (self.found(depth) > before).then_some(masked)
    }

    /// Masks JSON text, in which an `=` of a form may follow the last bracket.
    fn json(&mut self, text: &str, depth: usize) -> Option<String> {
        let json = text.trim_ascii_end();
        let json = json.strip_suffix('=').unwrap_or(json);
        // Skips values of any depth without recursion.
        serde_json::from_str::<&RawValue>(json).ok()?;
        let mut masked = String::with_capacity(json.len());
        let mut rest = json;
        while let Some(at) = rest.find('"') {
            let (before, string) = rest.split_at_checked(at)?;
            let (string, behind) = string.split_at_checked(string_end(string)?)?;
            masked += before;
            rest = behind;
            let value = behind.trim_ascii_start().strip_prefix(':');
            let Some(value) = value.map(str::trim_ascii_start) else {
                masked += &self.string(string, depth)?;
                continue;
            };
            masked += string;
            if let Some(name) = masked_name(&lossy_string(string)?) {
                let (value, behind) = value.split_at_checked(value_end(value)?)?;
                self.note(name, &lossy_string(value).unwrap_or(value.into()));
                masked += ":\"***\"";
                rest = behind;
            }
        }
        masked += rest;
        Some(masked)
    }

    /// Masks what the text of a JSON string contains. Unchanged, it keeps its escapes.
    fn string(&mut self, json: &str, depth: usize) -> Option<String> {
        let text = lossy_string(json)?;
        let inner = self.inner(&text, depth);
        Some(inner.map_or(json.to_owned(), |masked| Value::from(masked).to_string()))
    }

    /// The text within another one, if there is something to mask in it.
    fn inner(&mut self, text: &str, depth: usize) -> Option<String> {
        if !is_mentioned(text) {
            return None;
        }
        if depth >= DEPTH_MAX {
            self.names.push(MASK);
            return Some(MASK.to_owned());
        }
        let before = self.found(depth + 1);
        let masked = self.text(text, depth + 1)?;
        (self.found(depth + 1) > before).then_some(masked)
    }

    /// Masks the fields of a form.
    fn form(&mut self, text: &str, depth: usize) -> String {
        let fields = text.split('&').map(|field| {
            let Some((name, value)) = field.split_once('=') else {
                return Cow::Borrowed(field);
            };
            let decoded = form_decoded(value);
            // `data[signature]` and `signature[]` too.
            let named = form_decoded(name);
            match named.split(['[', ']']).find_map(masked_name) {
                Some(masked) => {
                    self.note(masked, &decoded);
                    Cow::Owned(format!("{name}={MASK}"))
                }
                None => match self.inner(&decoded, depth) {
                    Some(inner) => {
                        Cow::Owned(format!("{name}={}", utf8_percent_encode(&inner, ENCODED)))
                    }
                    None => Cow::Borrowed(field),
                },
            }
        });
        fields.collect::<Vec<_>>().join("&")
    }

    /// Remembers what was masked.
    fn note(&mut self, name: &'static str, value: &str) {
        self.names.push(name);
        if name == SIGNATURE && value.len() >= SIGNATURE_BYTES_MIN {
            self.signatures.push(value.to_ascii_lowercase());
        }
    }

    /// How many values were masked; of a whole body, how many signatures.
    fn found(&self, depth: usize) -> usize {
        let counts = |name: &&&str| depth > 0 || **name == SIGNATURE;
        self.names.iter().filter(counts).count()
    }
}

/// Which of the two names it is.
fn masked_name(name: &str) -> Option<&'static str> {
    let name = name.trim();
    [SIGNATURE, NONCE]
        .into_iter()
        .find(|masked| name.eq_ignore_ascii_case(masked))
}

/// Whether one of the names may be in a text, in any encoding.
fn is_mentioned(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // Escapes of JSON and of forms can hide a name.
    text.contains(SIGNATURE) || text.contains(NONCE) || text.contains(['%', '\\'])
}

/// A percent-encoded object or array, decoded once. In some of them, a plus is a space.
fn percent_decoded_json(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    let json = begin_of(&decoded);
    if !text.starts_with('%') || !json.starts_with(['{', '[']) {
        return None;
    }
    let is_json = |json: &str| {
        let json = json.trim_ascii_end();
        serde_json::from_str::<&RawValue>(json.strip_suffix('=').unwrap_or(json)).is_ok()
    };
    match is_json(json) {
        true => Some(json.to_owned()),
        false => Some(begin_of(&form_decoded(text)).to_owned()),
    }
}

/// The text without a byte order mark and spaces before it.
fn begin_of(text: &str) -> &str {
    text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '+'])
}

fn form_decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// Where the JSON string ends that this text begins with.
fn string_end(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Where the JSON value ends that this text begins with.
fn value_end(text: &str) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use bytes::Bytes;

    use super::*;
    use crate::callback::RawCallback;

    const SIGNED: &str = "0fd48b6b0d0c3c4b6c5a1f0a3c9d9c9be0e0f1aa";

    /// Every `@S` stands for a signature, and every `@N` for a nonce.
    #[track_caller]
    fn becomes(body: &str, expected: &str) {
        let body = body.replace("@S", SIGNED).replace("@N", "3501907290370176");
        let found = masked(body.as_bytes());
        assert_eq!(found.as_deref(), Some(expected), "{body}");
    }

    #[track_caller]
    fn is_withheld(body: &str) {
        let body = body.replace("@S", SIGNED);
        assert_eq!(masked(body.as_bytes()), None, "{body}");
    }

    #[test]
    fn json_keeps_all_but_the_values_of_the_two_names() {
        becomes(
            r#" {"appid":"1","signature":"@S","nonce":@N,"n":1e400,"a" : [ 1, {"b":null} ]}"#,
            r#"{"appid":"1","signature":"***","nonce":"***","n":1e400,"a" : [ 1, {"b":null} ]}"#,
        );
        // In any letter case, repeated, with spaces, in objects and lists, and with values of any
        // type.
        becomes(
            r#"{"SIGNATURE" : "@S" , "Nonce":{"a":["@S"]},"nonce":[1,"]"],"x":[{"signature":null}]}"#,
            r#"{"SIGNATURE":"***" , "Nonce":"***","nonce":"***","x":[{"signature":"***"}]}"#,
        );
        // With escapes in names and values.
        becomes(
            r#"{"\u0073ignatur\u0065":"@S\"","group_id":"a\"\\","b":"nonce"}"#,
            r#"{"\u0073ignatur\u0065":"***","group_id":"a\"\\","b":"nonce"}"#,
        );
        becomes(
            "\u{feff}{\"signature\":\"@S\"}=\n",
            r#"{"signature":"***"}"#,
        );
    }

    #[test]
    fn texts_within_a_body_are_masked_too() {
        becomes(
            r#"{"payload":"{\"signature\":\"@S\",\"a\":\"\\u00e9\"}","msg":"a=b&nonce=@N","t":"nonce!"}"#,
            r#"{"payload":"{\"signature\":\"***\",\"a\":\"\\u00e9\"}","msg":"a=b&nonce=***","t":"nonce!"}"#,
        );
        becomes(
            r#"{"p":"[{\"q\":\"{\\\"Nonce\\\":1}\"}]"}"#,
            r#"{"p":"[{\"q\":\"{\\\"Nonce\\\":\\\"***\\\"}\"}]"}"#,
        );
        becomes(
            "signature=@S&payload=%7B%22nonce%22%3A%22@N%22%7D&b=2",
            "signature=***&payload=%7B%22nonce%22%3A%22***%22%7D&b=2",
        );
        let mut deep = r#"{"nonce":"hidden"}"#.to_owned();
        for _ in 0..12 {
            deep = serde_json::json!({ "a": deep }).to_string();
        }
        let found = masked(deep.as_bytes()).expect("it is JSON");
        assert!(found.contains(MASK) && !found.contains("hidden"), "{found}");
    }

    #[test]
    fn percent_encoded_json_is_masked_and_encoded_again() {
        for body in [
            "%7B%22signature%22%3A%22@S%22%2C%22a%22%3A%22b%20c%22%7D",
            "%7b%22signature%22:%22@S%22,%22a%22:%22b%20c%22%7d",
            "%7B%22signature%22%3A+%22@S%22%2C%22a%22%3A%22b+c%22%7D=",
            "%EF%BB%BF%7B%22signature%22%3A%22@S%22%2C%22a%22%3A%22b%20c%22%7D\n",
        ] {
            let body = body.replace("@S", SIGNED);
            let found = masked(body.as_bytes()).expect("it is JSON");
            let decoded = percent_decode_str(&found).decode_utf8().expect("text");
            let value: Value = serde_json::from_str(&decoded).expect("JSON");
            assert_eq!(value["signature"], MASK, "{body}");
            assert!(
                ["b c", "b+c"].contains(&value["a"].as_str().expect("a text")),
                "{value}"
            );
        }
    }

    #[test]
    fn forms_keep_all_but_the_values_of_the_two_names() {
        becomes(
            "appid=1&Signature=@S&nonce=@N&users[]=a&users[]=b%26c&empty&nonce[0]=@N",
            "appid=1&Signature=***&nonce=***&users[]=a&users[]=b%26c&empty&nonce[0]=***",
        );
        becomes(
            "%73ignature=@S&data[nonce]=@N&a=+",
            "%73ignature=***&data[nonce]=***&a=+",
        );
        becomes("signature=@S&signature=@S", "signature=***&signature=***");
    }

    /// All bodies of the tests, files in folders.
    fn bodies(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut bodies = Vec::new();
        for entry in fs::read_dir(folder).expect("it is there") {
            let path = entry.expect("it can be listed").path();
            match path.is_dir() {
                true => bodies.extend(self::bodies(&path)),
                false if path.ends_with("index.json") => {}
                false => bodies.push((path.clone(), fs::read(&path).expect("it can be read"))),
            }
        }
        bodies
    }

    #[test]
    fn no_body_that_is_a_callback_shows_its_signature_or_is_withheld() {
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
        let (mut shown, mut withheld) = (0, 0);
        for folder in ["callbacks", "zim-events"] {
            for (path, body) in bodies(&fixtures.join(folder)) {
                let raw = RawCallback {
                    body: Bytes::from(body.clone()),
                    content_type: None,
                    trace: None,
                    received_at: 0,
                };
                let json = raw.json();
                let is_callback = json.as_ref().is_ok_and(|json| json.decode().is_ok());
                let Some(masked) = masked(&body) else {
                    let text = String::from_utf8_lossy(&body);
                    let names_it = text.to_ascii_lowercase().contains(SIGNATURE);
                    assert!(
                        !is_callback || !names_it,
                        "{}: it is withheld",
                        path.display()
                    );
                    withheld += 1;
                    continue;
                };
                shown += 1;
                let decoded = percent_decode_str(&masked).decode_utf8_lossy();
                for text in [&masked, decoded.as_ref()] {
                    let bytes = text.as_bytes();
                    let mut runs = bytes.split(|byte| !byte.is_ascii_hexdigit());
                    let is_there = runs.any(|run| run.len() == SIGNED.len());
                    assert!(!is_there, "{}: {text}", path.display());
                }
            }
        }
        assert!(shown > 100 && withheld > 10, "{shown} and {withheld}");
    }

    #[test]
    fn a_body_in_which_the_signature_cannot_be_found_is_withheld() {
        for body in [
            "",
            "@S",
            "{\"signature\":\"@S\"",
            "{signature:'@S'}",
            "{\"a\":1}{\"signature\":\"@S\"}",
            "<xml signature=\"@S\"/>",
            "--x\r\nname=\"signature\"\r\n\r\nS",
            "x=1; sig: @S",
            "nonce=1&sig=@S",
            "%7B%22signature%22%3A%22@S",
            "\u{0}signature=@S",
            // A copy of a signature that was masked.
            r#"{"signature":"@S","copy":"x@Sy"}"#,
            "signature=@S&copy=%30fd48b6b0d0c3c4b6c5a1f0a3c9d9c9be0e0f1aa",
        ] {
            is_withheld(body);
        }
        assert_eq!(masked(b"\xff\xfe{}"), None);
        // Invalid UTF-8 is replaced, as when the callback was decoded.
        let found = masked(b"{\"a\":\"\xff\",\"nonce\":\"1\"}");
        assert_eq!(
            found.as_deref(),
            Some("{\"a\":\"\u{fffd}\",\"nonce\":\"***\"}")
        );
    }
}
