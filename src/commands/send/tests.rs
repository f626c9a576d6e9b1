//! The bodies that `send` makes.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::events::{Sample, samples};
use super::sample::Signer;
use super::variation::Variation;
use crate::callback::{RawCallback, Secrets, TimestampUnit, is_signed_field, sign};
use crate::event::{
    BEFORE_SEND_MESSAGE, Class, EVENTS, Family, FieldSpec, GROUP_JOIN, Policy, Presence, Subject,
    Type, kind_of, name,
};

const NOW: i64 = 1_795_749_465_108;

const GROUPS: u64 = 7;

/// How many bodies of each event are looked at.
const BODIES: u64 = 60;

fn secrets() -> Secrets {
    Secrets::parse_list("1=secret").expect("a list")
}

fn bodies(sample: &Sample) -> Vec<Value> {
    let signer = Signer::new(&secrets(), None, GROUPS).expect("it has a secret");
    let body = |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        Value::Object(signer.sign(signer.unsigned(&mut random, sample, seed, NOW)))
    };
    (0..BODIES).map(body).collect()
}

/// The key and the value of the record that the body becomes.
#[track_caller]
fn record(body: &Value) -> (String, Value) {
    let raw = RawCallback {
        body: body.to_string().into(),
        content_type: None,
        trace: None,
        received_at: NOW + 5,
    };
    let json = raw.json().expect("an object");
    let unverified = json.decode().expect("an object");
    let callback = (secrets().authenticate(unverified, TimestampUnit::Auto)).expect("it is signed");
    let kind = kind_of(&callback).expect("it is known");
    assert_eq!(body["event"], kind.name);
    let record = kind.record(&callback, &Policy::default());
    let record = record.unwrap_or_else(|why| panic!("{why:?}: {body}"));
    let age = NOW - record.timestamp;
    assert!((0..1000).contains(&age), "{age} ms: {body}");
    let key = record.key.expect("events have a key");
    let key = String::from_utf8(key.to_vec()).expect("text");
    (key, serde_json::from_slice(&record.value).expect("JSON"))
}

#[test]
fn every_event_has_bodies_that_become_records_which_differ() {
    for kind in EVENTS {
        let bodies = bodies(&kind.into());
        let mut contents = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for body in &bodies {
            let (key, mut value) = record(body);
            let is_valid = match kind.family {
                Family::Group => key.starts_with("group-"),
                Family::Room => key.starts_with("room-"),
                Family::Call => key.len() == 19 && key.parse::<i64>().is_ok(),
                Family::User => key.starts_with("user-"),
                Family::Message => {
                    let begins = ["group-", "[\"@RBT#bot-", "[\"user-", "user-"];
                    begins.iter().any(|begin| key.starts_with(begin))
                }
            };
            assert!(is_valid, "{key}: {body}");
            assert!(value.get("extra").is_none(), "{value}");
            keys.insert(key);
            let content = value.as_object_mut().expect("an object");
            content.retain(|name, _| {
                !["event_id", "received_at", "timestamp"].contains(&name.as_str())
            });
            contents.insert(value.to_string());
        }
        let distinct = contents.len() as u64;
        assert!(distinct > BODIES * 9 / 10, "{}: {distinct}", kind.name);
        let pool = usize::try_from(GROUPS).expect("small");
        match kind.family {
            Family::Group | Family::Room => assert_eq!(keys.len(), pool, "{}", kind.name),
            _ => assert!(keys.len() > pool, "{}: {keys:?}", kind.name),
        }
    }
}

#[test]
fn every_example_of_an_event_is_used() {
    // Joins have no example of their own.
    for sample in samples().filter(|sample| sample.name != GROUP_JOIN) {
        let is_varied = |name: &str| {
            let field = sample.fields.iter().find(|field| field.name == name);
            let is_kept =
                |of: &Type| matches!(of, Type::Text | Type::Number { .. } | Type::OneOf(_));
            field.is_some_and(|field| !is_kept(&field.of))
        };
        let kept = |mut body: Value| {
            let members = body.as_object_mut().expect("an object");
            members.retain(|name, _| !is_varied(name) && !is_signed_field(name));
            body.to_string()
        };
        let examples = sample
            .examples
            .iter()
            .map(|text| serde_json::from_str(text).expect("JSON"));
        let examples: BTreeSet<_> = examples.map(kept).collect();
        let used: BTreeSet<_> = bodies(&sample).into_iter().map(kept).collect();
        assert_eq!(used, examples, "{}", sample.name);
    }
}

#[test]
fn before_send_msg_has_all_its_fields_and_is_signed() {
    let sample = samples().find(|sample| sample.name == BEFORE_SEND_MESSAGE);
    let bodies = bodies(&sample.expect("it is a sample"));
    let mut requests = BTreeSet::new();
    for body in &bodies {
        let raw = RawCallback {
            body: body.to_string().into(),
            content_type: None,
            trace: None,
            received_at: NOW,
        };
        let json = raw.json().expect("an object");
        let unverified = json.decode().expect("an object");
        let secrets = secrets();
        let callback = (secrets.authenticate(unverified, TimestampUnit::Seconds))
            .expect("it is signed in seconds");
        assert_eq!(name(&callback).as_deref(), Some(BEFORE_SEND_MESSAGE));
        requests.insert(body["request_id"].as_str().expect("text").to_owned());
        let conversation = body["conv_id"].as_str().expect("text");
        let of_type = match body["conv_type"].as_i64() {
            Some(0) => "user-",
            Some(2) => "group-",
            other => panic!("{other:?}"),
        };
        assert!(conversation.starts_with(of_type), "{body}");
        assert_ne!(body["from_user_id"], body["conv_id"]);
    }
    assert_eq!(requests.len() as u64, BODIES);
}

#[test]
fn timestamps_and_nonces_are_those_of_the_sender() {
    let mut nonces = BTreeSet::new();
    for sample in samples() {
        let digits = match sample.family {
            Family::Group | Family::Room => 13,
            Family::Message | Family::Call | Family::User => 10,
        };
        for body in bodies(&sample) {
            let timestamp = body["timestamp"].as_u64().expect("a number").to_string();
            assert_eq!(timestamp.len(), digits, "{body}");
            let nonce = body["nonce"].as_str().expect("text");
            nonces.insert(nonce.len());
            let signature = sign("secret", &timestamp, nonce).to_hex();
            assert_eq!(body["signature"], signature);
        }
    }
    // Those of group_join have up to 18.
    assert!(nonces.contains(&6) && nonces.contains(&19), "{nonces:?}");
}

#[test]
fn joins_have_the_same_bodies_as_before() {
    let join = samples().find(|sample| sample.name == GROUP_JOIN);
    let bodies = bodies(&join.expect("it is a sample"));
    let content = |number: usize| {
        let mut body = bodies[number].clone();
        let members = body.as_object_mut().expect("an object");
        members.retain(|name, _| !["nonce", "signature"].contains(&name.as_str()));
        body
    };
    let apply = json!({
        "appid": "1", "event": "group_join", "group_id": "group-1", "join_type": "Apply",
        "new_user_ids": ["user-2", "user-3"], "timestamp": NOW,
    });
    assert_eq!(content(1), apply);
    let invited = json!({
        "appid": "1", "event": "group_join", "group_id": "group-1", "join_type": "Invited",
        "new_user_ids": ["user-16"], "operator_account": "host", "timestamp": NOW,
    });
    assert_eq!(content(8), invited);
}

const fn field(name: &'static str, of: Type) -> FieldSpec {
    FieldSpec {
        name,
        of,
        presence: Presence::Optional,
        class: Class::Fact,
        only_with: None,
        about: "",
    }
}

static MEMBERS: &[FieldSpec] = &[
    field("user_id", Type::Id(Subject::User)),
    field("msg_id", Type::ServerId),
];

static FIELDS: &[FieldSpec] = &[
    field("user_id", Type::Id(Subject::User)),
    field("bot", Type::Id(Subject::User)),
    field("nobody", Type::Id(Subject::User)),
    field("group_id", Type::Id(Subject::Group)),
    field("room_id", Type::Id(Subject::Room)),
    field("conv_id", Type::Id(Subject::Conversation)),
    field("session_id", Type::ServerId),
    field("began", Type::Time),
    field("ended", Type::Time),
    field("never", Type::Time),
    field("users", Type::Users { one_string: false }),
    field("alone", Type::Users { one_string: false }),
    field("none", Type::Users { one_string: false }),
    field(
        "items",
        Type::Items {
            members: MEMBERS,
            empty_is_null: false,
        },
    ),
    field("text", Type::Text),
    field("number", Type::Number { default: None }),
];

/// An event that is added later is varied by the types of its fields.
#[test]
fn every_type_of_field_is_varied_as_its_example_allows() {
    const EXAMPLE: &str = r#"{"event":"invented","user_id":"u1","bot":"@RBT#b","nobody":"",
        "group_id":"g","room_id":"r","conv_id":"c","conv_type":3,"session_id":"930821637828251648",
        "began":"1757577601","ended":1757577641123,"never":0,"users":["u1","u2"],"alone":["u1"],
        "none":[],"items":[{"UserId":"u1","MsgId":"857639062792568914"},{"UserId":"u3","MsgId":""}],
        "text":"u1","number":5,"unknown":"u1"}"#;
    let sample = Sample {
        name: "invented",
        family: Family::Group,
        fields: FIELDS,
        examples: &[EXAMPLE],
    };
    let mut lengths = BTreeSet::new();
    for seed in 0..BODIES {
        let mut random = StdRng::seed_from_u64(seed);
        let body = Value::Object(Variation::new(&mut random, GROUPS, NOW).body(&sample));
        let user = &body["user_id"];
        assert!(user.as_str().expect("text").starts_with("user-"), "{body}");
        let begins = |name: &str, begin: &str| {
            assert!(
                body[name].as_str().expect("text").starts_with(begin),
                "{body}"
            );
        };
        begins("bot", "@RBT#bot-");
        begins("group_id", "group-");
        begins("room_id", "room-");
        begins("conv_id", "channel-");
        // The same user everywhere, and nobody twice.
        assert_eq!(body["users"][0], *user);
        assert_eq!(body["alone"], json!([user]));
        assert_eq!(body["items"][0]["UserId"], *user);
        let users = body["users"].as_array().expect("a list");
        lengths.insert(users.len());
        let distinct: BTreeSet<_> = users.iter().map(Value::to_string).collect();
        assert_eq!(distinct.len(), users.len(), "{body}");
        // 18 digits, and 40 s and 123 ms between the times.
        let session = body["session_id"].as_str().expect("text");
        assert!(
            session.len() == 18 && session != "930821637828251648",
            "{body}"
        );
        assert_eq!(body["ended"], NOW);
        assert_eq!(body["began"], ((NOW - 40_123) / 1000).to_string());
        // Empty values, and those without a known meaning, stay.
        assert_eq!(body["items"][1]["MsgId"], "");
        for (name, value) in [
            ("nobody", json!("")),
            ("never", json!(0)),
            ("none", json!([])),
            ("text", json!("u1")),
            ("number", json!(5)),
            ("unknown", json!("u1")),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
    }
    assert_eq!(lengths, BTreeSet::from([2, 3, 4, 5]));
}
