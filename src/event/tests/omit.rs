//! What is left out of records, and that this changes neither ids, keys nor headers.

use std::collections::BTreeSet;

use super::super::field::Class;
use super::*;

/// A record and its value, with the first example of an event and these fields.
pub(super) fn record_of(
    kind: &Kind,
    example: &str,
    fields: &Value,
    omit: &Omit,
) -> (Record, Value) {
    let mut body: Value = serde_json::from_str(example).expect("JSON");
    let signed = callback(&json!({}));
    let members = body.as_object_mut().expect("an object");
    for name in ["appid", "timestamp", "nonce", "signature"] {
        members.insert(name.to_owned(), signed[name].clone());
    }
    members.extend(fields.as_object().expect("an object").clone());
    let raw = RawCallback {
        body: body.to_string().into_bytes().into(),
        content_type: None,
        trace: None,
        received_at: RECEIVED_AT,
    };
    let json = raw.json().expect("an object");
    let secrets = Secrets::parse_list("1=secret").expect("a list");
    let unverified = json.decode().expect("an object");
    let callback = secrets.authenticate(unverified, TimestampUnit::Auto);
    let policy = Policy {
        omit: omit.clone(),
        tolerance: None,
    };
    let record = kind.record(&callback.expect("authentic"), &policy);
    let record = record.unwrap_or_else(|why| panic!("{example}: {why:?}"));
    let value = serde_json::from_slice(&record.value).expect("JSON");
    (record, value)
}

fn omit_field(name: &'static str) -> Omit {
    Omit {
        fields: BTreeSet::from([name]),
        ..Omit::default()
    }
}

fn kind(name: &str) -> &'static Kind {
    let kind = EVENTS.into_iter().find(|kind| kind.name == name);
    kind.expect("an event")
}

/// Each example of each event, with a field that no page describes.
pub(super) fn each_example(mut judge: impl FnMut(&Kind, &str, &Value)) {
    let unknown = json!({"z_new": "text"});
    for kind in EVENTS {
        for example in kind.examples {
            judge(kind, example, &unknown);
        }
    }
}

#[test]
fn leaving_out_changes_neither_the_id_nor_the_key_nor_a_header() {
    let everything = Omit {
        content: true,
        user_name: true,
        extra: true,
        fields: (EVENTS.iter().flat_map(|kind| kind.fields))
            .map(|field| field.name)
            .filter(|name| !EVENTS.iter().any(|kind| kind.is_identified_by(name)))
            .collect(),
    };
    each_example(|kind, example, fields| {
        let (whole, value) = record_of(kind, example, fields, &Omit::default());
        assert_eq!(value["extra"], *fields, "{example}");
        assert_eq!(value.get("omitted"), None, "{example}");
        let (less, of_less) = record_of(kind, example, fields, &everything);
        assert_eq!(less.event_id, whole.event_id, "{example}");
        assert_eq!(less.key, whole.key, "{example}");
        assert_eq!(less.headers, whole.headers, "{example}");
        assert_eq!(less.timestamp, whole.timestamp, "{example}");
        // What is left is as it was.
        let left = of_less.as_object().expect("an object");
        for (name, left) in left.iter().filter(|(name, _)| *name != "omitted") {
            let mut whole = value[name].clone();
            for item in whole.as_array_mut().into_iter().flatten() {
                if let Some(item) = item.as_object_mut() {
                    item.retain(|member, _| !everything.fields.contains(member.as_str()));
                }
            }
            assert_eq!(*left, whole, "{name} of {example}");
        }
        assert_eq!(left.get("extra"), None, "{example}");
    });
}

#[test]
fn content_leaves_out_what_people_wrote_and_extra_and_names_what_there_was() {
    let content = Omit {
        content: true,
        ..Omit::default()
    };
    each_example(|kind, example, fields| {
        let (_, value) = record_of(kind, example, fields, &content);
        let sent: Value = serde_json::from_str(example).expect("JSON");
        let mut expected = Vec::new();
        for field in kind.fields {
            let is_content = field.class == Class::Content;
            assert_eq!(value.get(field.name).is_none(), is_content, "{example}");
            if is_content && sent.get(field.name).is_some() {
                expected.push(json!(field.name));
            }
        }
        expected.push(json!("extra"));
        let mut omitted = value["omitted"].as_array().expect("a list").clone();
        for list in [&mut expected, &mut omitted] {
            list.sort_by_key(Value::to_string);
        }
        assert_eq!(omitted, expected, "{example}");
        assert_eq!(value.get("extra"), None, "{example}");
    });
}

#[test]
fn a_single_field_is_left_out_of_all_events_that_have_it() {
    for field in EVENTS.iter().flat_map(|kind| kind.fields) {
        if EVENTS.iter().any(|kind| kind.is_identified_by(field.name)) {
            continue;
        }
        let omit = omit_field(field.name);
        each_example(|kind, example, fields| {
            let (_, whole) = record_of(kind, example, fields, &Omit::default());
            let (_, less) = record_of(kind, example, fields, &omit);
            let names = |value: &Value| -> BTreeSet<String> {
                value
                    .as_object()
                    .expect("an object")
                    .keys()
                    .cloned()
                    .collect()
            };
            let gone: Vec<_> = names(&whole).difference(&names(&less)).cloned().collect();
            let has_field = kind.fields.iter().any(|own| own.name == field.name);
            let expected = match has_field {
                true => vec![field.name.to_owned()],
                false => Vec::new(),
            };
            assert_eq!(gone, expected, "{} of {example}", field.name);
        });
    }
}

#[test]
fn extra_and_members_are_left_out_of_items_too() {
    let fields = json!({
        "conv_type": 0,
        "conv_id": "",
        "user_list": [{"UserID": "u2", "MsgId": "7", "msg_seq": 3, "Greeting": "hi"}],
    });
    let kind = kind("send_msg");
    let of = |omit: &Omit| record_of(kind, kind.examples[0], &fields, omit);
    let (whole, value) = of(&Omit::default());
    let receiver = &value["user_list"][0];
    assert_eq!(receiver["msg_seq"].to_string().trim_matches('"'), "3");
    assert_eq!(receiver["extra"], json!({"Greeting": "hi"}));
    let extra = Omit {
        extra: true,
        ..Omit::default()
    };
    let content = Omit {
        content: true,
        ..Omit::default()
    };
    for omit in [extra, content] {
        let (less, value) = of(&omit);
        let receiver = &value["user_list"][0];
        assert_eq!(receiver.get("extra"), None, "{value}");
        assert_eq!(receiver["user_id"], "u2");
        assert_eq!(less.event_id, whole.event_id);
    }
    let (less, value) = of(&omit_field("msg_seq"));
    assert_eq!(value["user_list"][0].get("msg_seq"), None, "{value}");
    assert_eq!(less.event_id, whole.event_id);
}

/// The record's `omitted`.
fn omitted(event: &str, fields: &Value, omit: &Omit) -> Value {
    let kind = kind(event);
    let (_, value) = record_of(kind, kind.examples[0], fields, omit);
    value["omitted"].clone()
}

fn omit_fields(names: &[&'static str]) -> Omit {
    Omit {
        fields: names.iter().copied().collect(),
        ..Omit::default()
    }
}

#[test]
fn omitted_names_what_items_had_once() {
    let of_list = |list: Value, omit: &Omit| {
        let fields = json!({"conv_type": 0, "conv_id": "", "msg_seq": null, "user_list": list});
        omitted("send_msg", &fields, omit)
    };
    let (extra, msg_seq) = (
        Omit {
            extra: true,
            ..Omit::default()
        },
        omit_field("msg_seq"),
    );
    let user = |more: &[(&str, Value)]| {
        let mut user = json!({"UserID": "u2", "MsgId": "7"});
        let members = user.as_object_mut().expect("an object");
        members.extend(
            more.iter()
                .map(|(name, sent)| ((*name).to_owned(), sent.clone())),
        );
        user
    };
    let seq = |sent: Value| user(&[("MsgSeq", sent)]);
    for (list, expected) in [
        (
            json!([user(&[("Greeting", json!("hi"))])]),
            json!(["user_list.extra"]),
        ),
        (
            json!([
                user(&[]),
                user(&[("a", json!(1))]),
                user(&[("b", json!(2))])
            ]),
            json!(["user_list.extra"]),
        ),
        (json!([user(&[])]), Value::Null),
        (json!([]), Value::Null),
        (Value::Null, Value::Null),
    ] {
        assert_eq!(of_list(list.clone(), &extra), expected, "{list}");
    }
    for (list, expected) in [
        (json!([seq(json!(3))]), json!(["user_list.msg_seq"])),
        (
            json!([user(&[]), seq(json!("3")), seq(json!(0))]),
            json!(["user_list.msg_seq"]),
        ),
        // It had a value, although that is published as null.
        (json!([seq(json!(""))]), json!(["user_list.msg_seq"])),
        (json!([seq(Value::Null)]), Value::Null),
        (json!([user(&[])]), Value::Null),
    ] {
        assert_eq!(of_list(list.clone(), &msg_seq), expected, "{list}");
    }
    for (attribute, expected) in [
        (
            json!({"Key": "mode", "value": "live", "autoDelete": 0}),
            vec!["auto_delete", "key", "value"],
        ),
        (
            json!({"key": "", "value": null, "auto_delete": ""}),
            vec!["auto_delete", "key"],
        ),
        // The default of a member that is missing is not what the callback had.
        (json!({"value": ""}), vec!["value"]),
        (json!({}), vec![]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|name| format!("attributes.{name}"))
            .collect();
        let expected = match expected.is_empty() {
            true => Value::Null,
            false => json!(expected),
        };
        let fields = json!({"attributes": [attribute]});
        let omit = omit_fields(&["key", "value", "auto_delete"]);
        assert_eq!(omitted("room_create", &fields, &omit), expected, "{fields}");
    }
    // A list that is left out is named as a whole.
    let omit = omit_fields(&["attributes", "key"]);
    let fields = json!({"attributes": [{"key": "mode"}]});
    assert_eq!(
        omitted("room_create", &fields, &omit),
        json!(["attributes"])
    );
}

#[test]
fn omitted_names_fields_in_order_if_the_callback_had_them() {
    let omit = Omit {
        content: true,
        ..omit_fields(&["source", "msg_seq"])
    };
    let fields = |sent: &Value| {
        let mut fields = json!({
            "source": null, "msg_seq": null, "msg_body": null, "payload": null,
        });
        let members = fields.as_object_mut().expect("an object");
        members.extend(sent.as_object().expect("an object").clone());
        fields
    };
    for (sent, expected) in [
        (json!({}), Value::Null),
        (json!({"source": 1}), json!(["source"])),
        (
            json!({"source": "", "payload": "", "msg_seq": "", "msg_body": "hi", "z": 1}),
            json!(["extra", "msg_body", "msg_seq", "payload", "source"]),
        ),
    ] {
        assert_eq!(
            omitted("send_msg", &fields(&sent), &omit),
            expected,
            "{sent}"
        );
    }
    // The default of a field that is missing is not what the callback had.
    let (_, whole) = record_of(
        kind("send_msg"),
        kind("send_msg").examples[0],
        &json!({}),
        &Omit::default(),
    );
    assert_eq!(whole["source"], 0);
    let missing = omitted("send_msg", &json!({}), &omit_field("source"));
    assert_eq!(missing, Value::Null);
}
