//! What is left out of records, and that this changes neither ids, keys nor headers.

use std::collections::BTreeSet;

use super::super::field::Class;
use super::*;

/// A record and its value, with the first example of an event and these fields.
fn record_of(kind: &Kind, example: &str, fields: &Value, omit: &Omit) -> (Record, Value) {
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

/// Each example of each event, with a field that no page describes.
fn each_example(mut judge: impl FnMut(&Kind, &str, &Value)) {
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
    let of = |omit: &Omit| {
        let kind = EVENTS.iter().find(|kind| kind.name == "send_msg");
        let kind = kind.expect("an event");
        record_of(kind, kind.examples[0], &fields, omit)
    };
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
