//! All events by ZEGOCLOUD's pages and the contract. They are written down here independently of
//! the tables with which the service reads callbacks.

mod extra;
mod forms;
mod identity;
mod items;
mod keys;
mod names;
mod sizes;
mod types;
mod vectors;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::callback::{RawCallback, Secrets, TimestampUnit, sign};
use crate::event::{Omit, Policy, Reason, Record, Unpublishable, kind_of};
use What::*;

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// An ID that the customer chooses.
    Id,
    /// An ID that ZEGOCLOUD makes.
    ServerId,
    Number,
    /// A number that is 0 if it is absent.
    NumberOrZero,
    Time,
    Text,
    Users,
    /// `exit_type`.
    ExitType,
    Attributes,
    RoomAttributes,
    Receivers,
}

/// An event, as the contract has it.
struct Event {
    name: &'static str,
    ce_type: &'static str,
    /// The field that is the key, apart from messages.
    key: &'static str,
    /// All fields, in the order of the record; those with `!` are required.
    fields: &'static [(&'static str, What)],
    required: &'static [&'static str],
    /// A callback's members; every field has a value.
    body: &'static str,
    /// The fields that the id is computed from, after appid and name.
    identity: &'static [&'static str],
}

/// All events but `group_join`, which has rules of its own: the golden records test those.
const EVENTS: [Event; 16] = [
    Event {
        name: "user_action",
        ce_type: "user.presence-changed",
        key: "user_id",
        fields: &[
            ("user_id", Id),
            ("user_name", Text),
            ("os", Text),
            ("action", Number),
            ("session_id", ServerId),
            ("relogin", Number),
            ("login_time", Time),
            ("logout_time", Time),
            ("logout_reason", Text),
            ("offline_time", Time),
        ],
        required: &["user_id", "action"],
        body: r#""user_id":"u_ada","user_name":"Ada","os":"PC ","action":1,"session_id":"930821637828251648","relogin":0,"login_time":1757577601,"logout_time":1757577602,"logout_reason":"logout","offline_time":1757577603"#,
        identity: &[
            "user_id",
            "session_id",
            "action",
            "relogin",
            "login_time",
            "logout_time",
            "offline_time",
            "timestamp",
        ],
    },
    Event {
        name: "group_create",
        ce_type: "group.created",
        key: "group_id",
        fields: &[
            ("group_id", Id),
            ("operator_account", Id),
            ("owner_account", Id),
            ("group_name", Text),
            ("attributes", Attributes),
            ("user_ids", Users),
        ],
        required: &["group_id"],
        body: r#""group_id":"grp-7f3a","operator_account":"u_ada","owner_account":"u_bao","group_name":"Night shift","attributes":[{"key":"topic","value":"roster"}],"user_ids":["u_ada","u_bao"]"#,
        identity: &[
            "group_id",
            "operator_account",
            "owner_account",
            "user_ids",
            "timestamp",
        ],
    },
    Event {
        name: "group_exit",
        ce_type: "group.left",
        key: "group_id",
        fields: &[
            ("group_id", Id),
            ("exit_type", ExitType),
            ("operator_account", Id),
            ("exit_user_ids", Users),
        ],
        required: &["group_id", "exit_type", "exit_user_ids"],
        body: r#""group_id":"grp-7f3a","exit_type":"Kickout","operator_account":"u_ada","exit_user_ids":["u_eli","u_dot"]"#,
        identity: &[
            "group_id",
            "exit_type",
            "operator_account",
            "exit_user_ids",
            "timestamp",
        ],
    },
    Event {
        name: "group_destroy",
        ce_type: "group.destroyed",
        key: "group_id",
        fields: &[
            ("group_id", Id),
            ("operator_account", Id),
            ("owner_account", Id),
            ("user_ids", Users),
        ],
        required: &["group_id"],
        body: r#""group_id":"grp-7f3a","operator_account":"u_ada","owner_account":"u_bao","user_ids":["u_ada","u_bao"]"#,
        identity: &[
            "group_id",
            "operator_account",
            "owner_account",
            "user_ids",
            "timestamp",
        ],
    },
    Event {
        name: "room_create",
        ce_type: "room.created",
        key: "room_id",
        fields: &[
            ("room_id", Id),
            ("operator_account", Id),
            ("room_name", Text),
            ("attributes", RoomAttributes),
        ],
        required: &["room_id"],
        body: r#""room_id":"room-42","operator_account":"u_bao","room_name":"Studio","attributes":[{"key":"mode","value":"live","auto_delete":1}]"#,
        identity: &["room_id", "operator_account", "timestamp"],
    },
    Event {
        name: "room_enter",
        ce_type: "room.entered",
        key: "room_id",
        fields: &[("room_id", Id), ("operator_account", Id)],
        required: &["room_id", "operator_account"],
        body: r#""room_id":"room-42","operator_account":"u_cem""#,
        identity: &["room_id", "operator_account", "timestamp"],
    },
    Event {
        name: "room_exit",
        ce_type: "room.left",
        key: "room_id",
        fields: &[
            ("room_id", Id),
            ("exit_type", ExitType),
            ("operator_account", Id),
            ("exit_user_ids", Users),
        ],
        required: &["room_id", "exit_type", "exit_user_ids"],
        body: r#""room_id":"room-42","exit_type":"Kickout","operator_account":"u_ada","exit_user_ids":["u_eli","u_dot"]"#,
        identity: &[
            "room_id",
            "exit_type",
            "operator_account",
            "exit_user_ids",
            "timestamp",
        ],
    },
    Event {
        name: "room_destroy",
        ce_type: "room.destroyed",
        key: "room_id",
        fields: &[
            ("room_id", Id),
            ("operator_account", Id),
            ("user_ids", Users),
        ],
        required: &["room_id"],
        body: r#""room_id":"room-42","operator_account":"u_bao","user_ids":["u_ada","u_bao"]"#,
        identity: &["room_id", "operator_account", "user_ids", "timestamp"],
    },
    Event {
        name: "send_msg",
        ce_type: "message.sent",
        key: "",
        fields: &[
            ("from_user_id", Id),
            ("conv_type", Number),
            ("conv_id", Id),
            ("msg_id", ServerId),
            ("msg_seq", Number),
            ("msg_type", Number),
            ("sub_msg_type", Number),
            ("source", NumberOrZero),
            ("msg_body", Text),
            ("payload", Text),
            ("msg_time", Time),
            ("send_result", Number),
            ("user_list", Receivers),
        ],
        required: &["from_user_id", "conv_type", "msg_type"],
        body: r#""from_user_id":"u_ada","conv_type":0,"conv_id":"u_bao","msg_id":"857639062792568901","msg_seq":17,"msg_type":200,"sub_msg_type":7,"source":1,"msg_body":"Shall we start?","payload":"{}","msg_time":1757577600456,"send_result":0,"user_list":[{"UserId":"u_bao","MsgId":"857639062792568901","MsgSeq":17}]"#,
        identity: &[
            "from_user_id",
            "conv_type",
            "conv_id",
            "msg_id",
            "user_list",
            "send_result",
            "msg_time",
        ],
    },
    Event {
        name: "bot_msg",
        ce_type: "message.bot-received",
        key: "",
        fields: &[
            ("from_user_id", Id),
            ("conv_type", Number),
            ("conv_id", Id),
            ("msg_id", ServerId),
            ("msg_seq", Number),
            ("msg_type", Number),
            ("sub_msg_type", Number),
            ("msg_body", Text),
            ("payload", Text),
            ("msg_time", Time),
            ("send_result", Number),
            ("user_list", Receivers),
        ],
        required: &["from_user_id", "conv_type", "msg_type"],
        body: r##""from_user_id":"u_ada","conv_type":0,"conv_id":"@RBT#1","msg_id":"857639062792568950","msg_seq":4,"msg_type":1,"sub_msg_type":0,"msg_body":"What is on today?","payload":"p","msg_time":1757577600456,"send_result":0,"user_list":[{"UserId":"@RBT#1","MsgId":"857639062792568950","MsgSeq":4}]"##,
        identity: &[
            "from_user_id",
            "conv_type",
            "conv_id",
            "msg_id",
            "user_list",
            "send_result",
            "msg_time",
        ],
    },
    Event {
        name: "call_create",
        ce_type: "call.created",
        key: "call_id",
        fields: &[
            ("call_id", ServerId),
            ("caller", Id),
            ("user_ids", Users),
            ("create_time", Time),
            ("timeout", Number),
            ("payload", Text),
        ],
        required: &["call_id", "caller", "user_ids"],
        body: r#""call_id":"3501761173612493301","caller":"u_ada","user_ids":["u_bao","u_cem"],"create_time":1757577620,"timeout":90,"payload":"video""#,
        identity: &["call_id", "caller", "user_ids", "create_time"],
    },
    Event {
        name: "call_invite",
        ce_type: "call.invited",
        key: "call_id",
        fields: &[
            ("call_id", ServerId),
            ("inviter", Id),
            ("user_ids", Users),
            ("invite_time", Time),
        ],
        required: &["call_id", "inviter", "user_ids"],
        body: r#""call_id":"3501761173612493301","inviter":"u_bao","user_ids":["u_dot"],"invite_time":1757577630456"#,
        identity: &["call_id", "inviter", "user_ids", "invite_time"],
    },
    Event {
        name: "call_cancel",
        ce_type: "call.canceled",
        key: "call_id",
        fields: &[
            ("call_id", ServerId),
            ("user_ids", Users),
            ("reason", Text),
            ("payload", Text),
        ],
        required: &["call_id", "user_ids"],
        body: r#""call_id":"3501761173612493301","user_ids":["u_bao","u_cem"],"reason":"caller_cancel","payload":"changed my mind""#,
        identity: &["call_id", "user_ids", "reason", "timestamp"],
    },
    Event {
        name: "call_accept",
        ce_type: "call.accepted",
        key: "call_id",
        fields: &[
            ("call_id", ServerId),
            ("user_id", Id),
            ("extend_data", Text),
        ],
        required: &["call_id", "user_id"],
        body: r#""call_id":"3501761173612493301","user_id":"u_bao","extend_data":"on my way""#,
        identity: &["call_id", "user_id", "timestamp"],
    },
    Event {
        name: "call_reject",
        ce_type: "call.rejected",
        key: "call_id",
        fields: &[
            ("call_id", ServerId),
            ("user_id", Id),
            ("extend_data", Text),
        ],
        required: &["call_id", "user_id"],
        body: r#""call_id":"3501761173612493301","user_id":"u_bao","extend_data":"busy""#,
        identity: &["call_id", "user_id", "timestamp"],
    },
    Event {
        name: "call_timeout",
        ce_type: "call.timed-out",
        key: "call_id",
        fields: &[("call_id", ServerId), ("user_ids", Users)],
        required: &["call_id", "user_ids"],
        body: r#""call_id":"3501761173612493301","user_ids":["u_dot"]"#,
        identity: &["call_id", "user_ids", "timestamp"],
    },
];

/// A join, for tests of all events.
const JOIN: &str = r#""group_id":"grp-7f3a","join_type":"Invited","operator_account":"u_ada","new_user_ids":["u_dot"]"#;

const TIMESTAMP: &str = "1757577600123";
const RECEIVED_AT: i64 = 1_757_577_601_000;

fn event(name: &str) -> &'static Event {
    static ALL: [Event; 16] = EVENTS;
    let found = ALL.iter().find(|event| event.name == name);
    found.expect("it is in the catalogue")
}

/// A record and the JSON text of each member of its value.
#[derive(Debug)]
struct Made {
    record: Record,
    members: BTreeMap<String, Box<RawValue>>,
}

impl Made {
    /// The text of a member.
    #[track_caller]
    fn get(&self, name: &str) -> &str {
        let found = self.members.get(name);
        found.unwrap_or_else(|| panic!("no {name}")).get()
    }

    /// The text of the value.
    fn value(&self) -> &str {
        str::from_utf8(&self.record.value).expect("UTF-8")
    }

    /// The record's key.
    fn key(&self) -> &str {
        str::from_utf8(self.record.key.as_deref().expect("every event has a key")).expect("text")
    }

    /// A member of `extra`, which is there.
    #[track_caller]
    fn extra(&self, name: &str) -> String {
        let extra: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(self.get("extra")).expect("an object");
        let found = extra.get(name);
        found
            .unwrap_or_else(|| panic!("no {name}"))
            .get()
            .to_owned()
    }

    fn header(&self, name: &str) -> &str {
        super::header(&self.record, name)
    }
}

/// The record of a body that is signed and of a known event.
fn made_by(policy: &Policy, body: Vec<u8>) -> Result<Made, Unpublishable> {
    let raw = RawCallback {
        body: body.into(),
        content_type: None,
        trace: None,
        received_at: RECEIVED_AT,
    };
    let json = raw.json().expect("it is a callback");
    let unverified = json.decode().expect("it is a callback");
    let callback = Secrets::parse_list("*=secret")
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .expect("it is authentic");
    let record = kind_of(&callback)?.record(&callback, policy)?;
    let members = serde_json::from_slice(&record.value).expect("strict parsers read it");
    Ok(Made { record, members })
}

/// The records of all vectors that are published, and how they were made.
pub(super) fn records_of_vectors() -> (Policy, Vec<Record>) {
    (open_policy(), vectors::records())
}

fn open_policy() -> Policy {
    Policy {
        omit: Omit::default(),
        tolerance: None,
    }
}

/// The record of a callback of this event with these members, as JSON text.
fn made(event: &str, members: &str) -> Result<Made, Unpublishable> {
    made_by(&open_policy(), signed(event, members))
}

fn signed(event: &str, members: &str) -> Vec<u8> {
    signed_at(TIMESTAMP, event, members)
}

fn signed_at(timestamp: &str, event: &str, members: &str) -> Vec<u8> {
    let signature = sign("secret", timestamp, "350176").to_hex();
    let comma = if members.is_empty() { "" } else { "," };
    format!(
        r#"{{"appid":"1234567890","event":{},"timestamp":"{timestamp}","nonce":"350176","signature":"{signature}"{comma}{members}}}"#,
        quoted(event)
    )
    .into_bytes()
}

#[track_caller]
fn valid(event: &str, members: &str) -> Made {
    match made(event, members) {
        Ok(made) => {
            assert_eq!(
                made.record.event.as_deref(),
                Some(&*text_of(made.get("event")))
            );
            made
        }
        Err(why) => panic!("{event} with {members}: {why:?}"),
    }
}

/// The detail of a callback that is invalid.
#[track_caller]
fn invalid(event: &str, members: &str) -> String {
    match made(event, members) {
        Ok(made) => panic!("{event} with {members}: {}", made.value()),
        Err(why) => {
            assert_eq!(why.reason, Reason::InvalidEvent, "{event} with {members}");
            why.detail.into_owned()
        }
    }
}

/// The members of a body, in order, each as JSON text.
fn members(body: &str) -> Vec<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Text(#[serde(deserialize_with = "in_order")] Vec<(String, String)>);

    fn in_order<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, String)>, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Vec<(String, String)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((name, value.get().to_owned()));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members)
    }
    let Text(members) = serde_json::from_str(&format!("{{{body}}}")).expect("members");
    members
}

fn joined(members: &[(String, String)]) -> String {
    let members = members
        .iter()
        .map(|(name, value)| format!("{name:?}:{value}"));
    members.collect::<Vec<_>>().join(",")
}

/// The body of an event with another value of this field, or without it.
fn with(body: &str, field: &str, value: Option<&str>) -> String {
    let mut members = members(body);
    match value {
        None => members.retain(|(name, _)| name != field),
        Some(value) => match members.iter_mut().find(|(name, _)| name == field) {
            Some(member) => member.1 = value.to_owned(),
            None => members.push((field.to_owned(), value.to_owned())),
        },
    }
    joined(&members)
}

/// The text of a JSON string.
fn text_of(json: &str) -> String {
    serde_json::from_str(json).expect("a string")
}

/// RFC 8785 of a JSON text with strings, whole numbers, arrays and null. A number that not every
/// double represents is a string.
fn canonical(json: &str) -> String {
    match json.as_bytes() {
        [b'"', ..] => quoted(&text_of(json)),
        [b'[', ..] => {
            let elements: Vec<Box<RawValue>> = serde_json::from_str(json).expect("an array");
            let elements: Vec<_> = elements
                .iter()
                .map(|value| canonical(value.get()))
                .collect();
            format!("[{}]", elements.join(","))
        }
        [b'0'..=b'9' | b'-', ..] => {
            let number: i128 = json.parse().expect("a whole number");
            match number.unsigned_abs() <= 1 << 53 {
                true => number.to_string(),
                false => format!("\"{number}\""),
            }
        }
        _ => {
            assert_eq!(json, "null");
            json.to_owned()
        }
    }
}

/// Section 3.2.2.2 of RFC 8785.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            '\0'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The id of this canonical text.
fn id_of(text: &str) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"zim2kafka");
    Uuid::new_v5(&namespace, text.as_bytes())
}

#[test]
fn every_field_of_the_catalogue_is_in_the_record_in_its_order() {
    for event in &EVENTS {
        let made = valid(event.name, event.body);
        let found = members(made.value().trim_matches(['{', '}']));
        let found: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        let fields = event.fields.iter().map(|(name, _)| *name);
        let expected: Vec<_> = ["event_id", "event", "appid"]
            .into_iter()
            .chain(fields)
            .chain(["timestamp", "received_at"])
            .collect();
        assert_eq!(found, expected, "{}", event.name);
        let type_ = format!("com.zegocloud.zim.{}.v1", event.ce_type);
        let schema = event.ce_type.replace('.', "-");
        for (header, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", &text_of(made.get("event_id"))),
            ("ce_type", &type_),
            ("ce_source", "/zim/apps/1234567890"),
            ("ce_subject", made.key()),
            (
                "ce_dataschema",
                &format!("urn:zim2kafka:schema:{schema}:v1"),
            ),
            ("content-type", "application/json"),
        ] {
            assert_eq!(made.header(header), value, "{}", event.name);
        }
        assert_eq!(made.record.headers.len(), 8);
        if !event.key.is_empty() {
            assert_eq!(made.key(), text_of(made.get(event.key)));
        }
        assert_eq!(made.record.times.callback, 1_757_577_600_123);
        assert_eq!(made.record.times.received, RECEIVED_AT);
        assert_eq!(made.get("timestamp"), TIMESTAMP);
        assert_eq!(made.get("appid"), "\"1234567890\"");
    }
}

#[test]
fn every_optional_field_is_null_if_it_is_absent_and_the_required_ones_suffice() {
    for event in &EVENTS {
        let mut body = members(event.body);
        // The key of a message is computed from several fields.
        let keeps = |name: &str| event.required.contains(&name) || name == "conv_id";
        body.retain(|(name, _)| keeps(name));
        let made = valid(event.name, &joined(&body));
        for (name, what) in event.fields {
            let expected = match what {
                _ if keeps(name) => continue,
                NumberOrZero => "0",
                _ => "null",
            };
            assert_eq!(made.get(name), expected, "{}: {name}", event.name);
        }
        assert!(!made.members.contains_key("extra"));
        for field in event.required {
            for absent in [None, Some("null"), Some(r#""""#)] {
                let detail = invalid(event.name, &with(event.body, field, absent));
                assert!(detail.starts_with(field), "{}: {detail}", event.name);
            }
        }
    }
}
