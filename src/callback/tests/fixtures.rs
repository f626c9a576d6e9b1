//! The fixtures, as far as they are about this room: what is malformed, what is not authentic, and
//! that every field of the others arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/callbacks");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    file: String,
    quirk: String,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: u16,
    #[serde(default)]
    passed: bool,
    record: Option<ExpectedRecord>,
    dead_letter: Option<ExpectedDeadLetter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedRecord {
    appid: String,
    group_id: String,
    join_type: String,
    operator_account: Value,
    new_user_ids: Vec<String>,
    timestamp: i64,
    #[serde(default)]
    extra: Map<String, Value>,
    #[serde(default)]
    extra_text: BTreeMap<String, String>,
    /// The text as received, of those in `extra_text` that are published as another text.
    #[serde(default)]
    received_text: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedDeadLetter {
    reason: String,
    key: Option<String>,
}

fn index() -> Vec<Fixture> {
    let text = include_str!("../../../tests/fixtures/callbacks/index.json");
    serde_json::from_str(text).expect("the index")
}

fn body(fixture: &Fixture) -> Vec<u8> {
    std::fs::read(Path::new(FOLDER).join(&fixture.file)).expect(&fixture.file)
}

/// The status, after `check` has seen the callback where it is authentic.
fn answer(body: Vec<u8>, secrets: &str, check: impl FnOnce(&VerifiedCallback<'_>)) -> u16 {
    let raw = raw(body);
    let Ok(json) = raw.json() else { return 400 };
    let Ok(unverified) = json.decode() else {
        return 400;
    };
    let secrets = Secrets::parse_list(secrets).expect("a list");
    match secrets.authenticate(unverified, TimestampUnit::Auto) {
        Ok(callback) => {
            check(&callback);
            200
        }
        Err(_) => 401,
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn every_file_is_in_the_index_once_and_says_what_it_is_for() {
    let files: BTreeSet<_> = entries(Path::new(FOLDER))
        .into_iter()
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| entries(&folder))
        .map(|file| {
            let file = file.strip_prefix(FOLDER).expect("it is in the folder");
            file.to_str().expect("a name").to_owned()
        })
        .collect();
    let index = index();
    assert_eq!(index.len(), files.len(), "each file once");
    assert_eq!(
        index
            .iter()
            .map(|fixture| fixture.file.clone())
            .collect::<BTreeSet<_>>(),
        files
    );
    for Fixture {
        file,
        quirk,
        expect,
    } in index
    {
        assert!(quirk.ends_with('.'), "{file}");
        let outcomes = [
            expect.passed,
            expect.record.is_some(),
            expect.dead_letter.is_some(),
        ];
        let outcomes = outcomes.into_iter().filter(|outcome| *outcome).count();
        assert_eq!(outcomes, usize::from(expect.status == 200), "{file}");
    }
}

#[test]
fn every_fixture_is_malformed_or_not_authentic_or_authentic_as_the_index_says() {
    for fixture in index() {
        let status = answer(body(&fixture), SECRETS, |callback| {
            check(&fixture, callback)
        });
        assert_eq!(status, fixture.expect.status, "{}", fixture.file);
    }
}

#[test]
fn no_fixture_is_authentic_under_another_secret() {
    for fixture in index() {
        let status = answer(body(&fixture), "1=secreu", |_| ());
        assert_ne!(status, 200, "{}", fixture.file);
    }
}

#[test]
fn no_two_authentic_fixtures_share_a_signature() {
    let mut signatures = BTreeMap::new();
    for fixture in index() {
        answer(body(&fixture), SECRETS, |callback| {
            let other = signatures.insert(callback.signature().0, fixture.file.clone());
            assert_eq!(other, None, "{}", fixture.file);
        });
    }
}

fn check(fixture: &Fixture, callback: &VerifiedCallback<'_>) {
    let file = fixture.file.as_str();
    assert_eq!(
        callback.is_valid_utf8(),
        !file.contains("invalid-utf8"),
        "{file}"
    );
    for field in callback.fields() {
        assert!(
            !SIGNED.contains(&field.name.to_ascii_lowercase().as_str()),
            "{file}: {}",
            field.name
        );
    }
    if let Some(record) = &fixture.expect.record {
        check_record(file, record, callback);
    }
    if let Some(ExpectedDeadLetter { reason, key }) = &fixture.expect.dead_letter {
        assert!(
            ["unsupported_event", "invalid_event"].contains(&reason.as_str()),
            "{file}"
        );
        let group_id = field(callback, "group_id").and_then(Field::first_text);
        let group_id = group_id.filter(|id| !id.is_empty() && id.len() <= 1024);
        assert_eq!(group_id.as_deref(), key.as_deref(), "{file}");
    }
    if fixture.expect.passed {
        let event = field(callback, "event").and_then(Field::text);
        assert_eq!(event.as_deref(), Some("before_send_msg"), "{file}");
    }
}

fn check_record(file: &str, record: &ExpectedRecord, callback: &VerifiedCallback<'_>) {
    assert_eq!(callback.appid(), record.appid, "{file}");
    assert_eq!(callback.timestamp(), record.timestamp, "{file}");
    let text = |name| field(callback, name).and_then(Field::text);
    assert_eq!(
        text("group_id").as_deref(),
        Some(record.group_id.as_str()),
        "{file}"
    );
    assert_eq!(
        text("join_type").as_deref(),
        Some(record.join_type.as_str()),
        "{file}"
    );
    if !record.operator_account.is_null() {
        assert_eq!(
            text("operator_account").as_deref(),
            record.operator_account.as_str(),
            "{file}"
        );
    }
    let users = field(callback, "new_user_ids").expect(file);
    // The event decides what the texts of a form mean.
    if users.unbracketed.is_none() {
        let users: Vec<String> = match serde_json::from_str(users.value.get()).expect(file) {
            Value::String(user) => vec![user],
            users => serde_json::from_value(users).expect(file),
        };
        assert_eq!(users, record.new_user_ids, "{file}");
    }

    let known = [
        "event",
        "group_id",
        "join_type",
        "operator_account",
        "new_user_ids",
    ];
    let unknown: BTreeMap<_, _> = pairs(callback.fields())
        .into_iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .collect();
    let expected = record.extra.keys().chain(record.extra_text.keys());
    assert_eq!(
        unknown.keys().collect::<BTreeSet<_>>(),
        expected.collect(),
        "{file}"
    );
    for (name, text) in &unknown {
        let received = record.received_text.get(name);
        match received.or(record.extra_text.get(name)) {
            Some(expected) => assert_eq!(text, expected, "{file}: {name}"),
            None => {
                let value: Value = serde_json::from_str(text).expect(file);
                assert_eq!(Some(&value), record.extra.get(name), "{file}: {name}");
            }
        }
    }
}

fn field<'c>(callback: &'c VerifiedCallback<'_>, name: &str) -> Option<&'c Field<'c>> {
    callback.fields().iter().find(|field| field.name == name)
}
