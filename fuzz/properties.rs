//! Properties of the pure modules that hold for any input. The fuzzers search for input that breaks
//! them, and `tests/it/fuzz.rs` runs the seeds and mutations of them with every `cargo test`.

use std::collections::BTreeSet;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, VerifiedCallback, sign};
use zim2kafka::event::{self, Counted, Joined, MAX_RECORD_BYTES, Policy, Presence, Record, Type};

const SECRET: &str = "a-secret-that-no-seed-is-signed-with";
const NOW: i64 = 1_757_577_600_123;

fn raw(body: impl Into<Vec<u8>>) -> RawCallback {
    RawCallback {
        body: Bytes::from(body.into()),
        content_type: None,
        trace: None,
        received_at: NOW,
    }
}

/// Whether the body can be decoded, and the result of `look` if it is authentic.
fn read<T>(
    body: impl Into<Vec<u8>>,
    secrets: &Secrets,
    look: impl FnOnce(&VerifiedCallback<'_>) -> T,
) -> (bool, Option<T>) {
    let raw = raw(body);
    let Ok(json) = raw.json() else {
        return (false, None);
    };
    let Ok(unverified) = json.decode() else {
        return (false, None);
    };
    let callback = secrets.authenticate(unverified, TimestampUnit::Auto);
    (true, callback.ok().map(|callback| look(&callback)))
}

fn secrets_of(secret: &str) -> Option<Secrets> {
    Secrets::parse_lines(&format!("1={secret}")).ok()
}

/// Any body: it is never authentic without a signature, and a percent-encoded object decodes like
/// the object itself, with the byte order mark and the whitespace before it.
pub(crate) fn decode(bytes: &[u8]) {
    let secrets = Secrets::parse_list(&format!("1={SECRET},*={SECRET}")).expect("valid");
    let (is_read, authentic) = read(bytes, &secrets, |_| ());
    assert!(authentic.is_none(), "it is authentic without a signature");
    assert_eq!(
        read(bytes, &secrets, |_| ()).0,
        is_read,
        "read twice, twice the same"
    );
    let unmarked = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let first = unmarked.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first == Some(&b'{') {
        let encoded = percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let (is_read_encoded, _) = read(encoded, &secrets, |_| ());
        assert_eq!(is_read_encoded, is_read, "percent-encoded it is another");
    }
}

/// Three lines: secret, timestamp, nonce. A signature over them is valid exactly if timestamp and
/// nonce have the documented form. A signature that differs in one digit is never valid.
pub(crate) fn authenticate(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let (Some(secret), Some(timestamp), Some(nonce)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let secret = secret.trim();
    let Some(secrets) = secrets_of(secret) else {
        return;
    };
    let signature = sign(secret, timestamp, nonce).to_hex();
    let is_authentic = |secrets: &Secrets, timestamp: &str, nonce: &str, signature: &str| {
        let body =
            json!({"appid": "1", "timestamp": timestamp, "nonce": nonce, "signature": signature});
        read(body.to_string(), secrets, |_| ()).1.is_some()
    };
    let all = |text: &str, is: fn(&u8) -> bool| text.as_bytes().iter().all(is);
    let has_form = [10, 13].contains(&timestamp.len())
        && all(timestamp, u8::is_ascii_digit)
        && (1..=64).contains(&nonce.len())
        && all(nonce, u8::is_ascii_alphanumeric);
    assert_eq!(
        is_authentic(&secrets, timestamp, nonce, &signature),
        has_form
    );
    let upper_case = signature.to_uppercase();
    assert_eq!(
        is_authentic(&secrets, timestamp, nonce, &upper_case),
        has_form
    );

    let other = Secrets::parse_list("1=another-secret,2=x").expect("valid");
    assert!(secret == "another-secret" || !is_authentic(&other, timestamp, nonce, &signature));
    for at in 0..signature.len() {
        let mut near = signature.clone().into_bytes();
        if let Some(digit) = near.get_mut(at) {
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        let near = String::from_utf8(near).expect("hex");
        assert!(!is_authentic(&secrets, timestamp, nonce, &near));
    }
    assert!(!is_authentic(
        &secrets,
        timestamp,
        &format!("{nonce}0"),
        &signature
    ));
    assert!(!is_authentic(&secrets, timestamp, nonce, &signature[1..]));
}

/// Input that follows the signed members of a signed object. The callback becomes a valid event, or
/// a dead letter with the unchanged body.
pub(crate) fn event(bytes: &[u8]) {
    let (timestamp, signature) = signed();
    let members = format!(
        r#"{{"appid":"1","timestamp":"{timestamp}","nonce":"{NONCE}","signature":"{signature}""#
    );
    let comma: &[u8] = if bytes.is_empty() { b"" } else { b"," };
    becomes_a_record(&[members.as_bytes(), comma, bytes, b"}"].concat());
}

/// The same for fields that follow those of a signed form.
pub(crate) fn form(bytes: &[u8]) {
    let (timestamp, signature) = signed();
    let fields =
        format!("appid=1&timestamp={timestamp}&nonce={NONCE}&signature={signature}&event=");
    becomes_a_record(&[fields.as_bytes(), bytes].concat());
}

const NONCE: &str = "350176";

fn signed() -> (String, String) {
    let timestamp = NOW.to_string();
    let signature = sign(SECRET, &timestamp, NONCE).to_hex();
    (timestamp, signature)
}

fn becomes_a_record(body: &[u8]) {
    let secrets = secrets_of(SECRET).expect("valid");
    let record = || {
        read(body, &secrets, |callback| {
            let kind = event::kind_of(callback);
            kind.clone()
                .and_then(|kind| kind.record(callback, &Policy::default()))
                .unwrap_or_else(|why| Record::dead_letter(callback, kind.ok(), &why))
        })
    };
    // Input that closes the object or repeats a signed field is tested elsewhere.
    let (_, Some(first)) = record() else { return };
    let second = record().1.expect("the same");
    assert_eq!(first.event_id, second.event_id);
    assert_eq!(first.value, second.value);
    match first.counted.expect("it is new") {
        Counted::DeadLetter(_) => assert_eq!(first.value, body, "it keeps the body"),
        Counted::Event { joined } => is_an_event(&first, joined),
    }
}

fn is_an_event(record: &Record, joined: Option<Joined>) {
    assert!(record.size() <= MAX_RECORD_BYTES);
    let text = str::from_utf8(&record.value).expect("it is UTF-8");
    let value: Value = serde_json::from_str(text).expect("a strict parser reads it");
    // A value of `extra` may have 64 levels, and that of an item is three levels deeper.
    assert!(depth(&value) <= 5 + 64, "it is nested too deep");
    assert_eq!(
        distinct_members(&value),
        members(text),
        "a name is repeated"
    );
    let value = value.as_object().expect("it is an object");
    let name = record.event.as_deref().expect("it is an event");
    let kind = (event::EVENTS.iter())
        .find(|kind| kind.name == name)
        .expect("a known one");
    let names: BTreeSet<_> = value.keys().map(String::as_str).collect();
    let mut known = BTreeSet::from(["event_id", "event", "appid", "timestamp", "received_at"]);
    known.extend(kind.fields.iter().map(|field| field.name));
    if value.contains_key("extra") {
        known.insert("extra");
    }
    assert_eq!(names, known);
    let known = |name: &str| value.get(name).cloned().expect("it is there");
    assert_eq!(known("event"), name);
    assert_eq!(known("event_id"), record.event_id.to_string());
    let key = record.key.as_deref().expect("every event has a key");
    assert!(!key.is_empty());
    if let [field] = kind.family.key_fields() {
        assert_eq!(known(field).as_str().expect("text").as_bytes(), key);
    }
    for field in kind.fields {
        let value = known(field.name);
        let is_required = field.presence == Presence::Required;
        assert!(!is_required || !value.is_null(), "{} is null", field.name);
        if let (Type::Users { .. }, Some(ids)) = (&field.of, value.as_array()) {
            assert!(!is_required || !ids.is_empty());
            assert!((ids.iter()).all(|id| id.as_str().is_some_and(|id| !id.is_empty())));
        }
    }
    let joined = joined.map(|joined| joined.users);
    let users = value.get("new_user_ids").and_then(Value::as_array);
    assert_eq!(joined, users.map(Vec::len));
    assert!(kind.own_time.is_some() || record.timestamp == NOW);
    let Some(extra) = value.get("extra") else {
        return;
    };
    let extra = extra.as_object().expect("it is an object");
    for name in extra.keys() {
        let signed = ["appid", "timestamp", "nonce", "signature"];
        let is_signed = signed
            .iter()
            .any(|signed| name.eq_ignore_ascii_case(signed));
        assert!(!is_signed, "{name}");
    }
}

/// The arrays and objects inside one another.
fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(elements) => elements.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or_default()
}

/// The members of all objects, of several with the same name in one object only one.
fn distinct_members(value: &Value) -> usize {
    match value {
        Value::Array(elements) => elements.iter().map(distinct_members).sum(),
        Value::Object(members) => {
            members.len() + members.values().map(distinct_members).sum::<usize>()
        }
        _ => 0,
    }
}

/// The members of all objects: a colon outside strings follows the name of each.
fn members(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// A list or a file of secrets: an error message never quotes any of it.
pub(crate) fn secrets(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    for parsed in [Secrets::parse_list(text), Secrets::parse_lines(text)] {
        match parsed {
            Ok(secrets) => {
                assert_eq!(format!("{secrets:?}"), "Secrets(redacted)");
                let (appid, secret) = secrets.first().expect("there is one");
                assert!(!appid.trim().is_empty() && !secret.trim().is_empty());
                assert!(text.contains(appid) && text.contains(secret));
                assert_eq!(secrets.secret_of(appid), Some(secret));
            }
            Err(error) => {
                let said = error.to_string();
                // What is left without our own words and numbers would be text of the secrets.
                let known = [
                    "holds no secret; write appid=secret",
                    " is not of the form appid=secret",
                    " has no appid before its =",
                    " has an appid that is neither * nor letters, digits, _ and -; write the AppID without quotes and blanks",
                    " sets a variable; write appid=secret alone",
                    " has an empty secret",
                    "; write the CallbackSecret without quotes and blanks",
                    " has a secret with a quotation mark",
                    " has a secret with a blank",
                    " has a secret with a control character",
                    " has a secret with a character that is neither ASCII nor a letter",
                    " has a secret with \\n written out",
                    " has a placeholder; write the CallbackSecret from ZEGOCLOUD's console",
                    " holds several pairs; write each on its own line, in the variable with commas between",
                    " more are invalid",
                    "line",
                    "entry",
                ];
                let rest = known
                    .iter()
                    .fold(said.clone(), |rest, known| rest.replace(known, ""));
                let is_ours = |sign: char| sign.is_ascii_digit() || " ;".contains(sign);
                assert!(rest.chars().all(is_ours), "{said}");
            }
        }
    }
}
