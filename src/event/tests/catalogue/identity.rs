//! Ids, recomputed from the records as the contract describes it.

use proptest::prelude::*;

use super::*;

/// The id of a record, computed from its value and from nothing else.
fn recomputed(event: &Event, made: &Made) -> Uuid {
    let mut parts = vec![made.get("appid").to_owned(), made.get("event").to_owned()];
    let text = |name: &str| canonical(made.get(name));
    for field in event.identity {
        parts.push(match *field {
            "create_time" | "invite_time" | "msg_time" if made.get(field) == "null" => {
                text("timestamp")
            }
            "user_list" => receivers(made.get("user_list")),
            field => text(field),
        });
    }
    if event.name.ends_with("_msg")
        && made.get("msg_id") == "null"
        && !has_message_id(made.get("user_list"))
    {
        parts.extend(["timestamp", "msg_type", "sub_msg_type"].map(text));
    }
    id_of(&format!("[{}]", parts.join(",")))
}

/// Whether a receiver has a message.
fn has_message_id(list: &str) -> bool {
    let list: Option<Vec<BTreeMap<String, Box<RawValue>>>> =
        serde_json::from_str(list).expect("a list or null");
    let mut receivers = list.into_iter().flatten();
    receivers.any(|receiver| receiver["msg_id"].get() != "null")
}

/// `user_list` as it is in the text of an id.
fn receivers(list: &str) -> String {
    if list == "null" {
        return list.to_owned();
    }
    let list: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(list).expect("a list");
    let pairs = list.iter().map(|receiver| {
        let text = |name: &str| canonical(receiver[name].get());
        format!("[{},{}]", text("user_id"), text("msg_id"))
    });
    format!("[{}]", pairs.collect::<Vec<_>>().join(","))
}

#[track_caller]
fn checked(event: &Event, body: &str) -> Uuid {
    let made = valid(event.name, body);
    let id = recomputed(event, &made);
    assert_eq!(made.record.event_id, id, "{}: {}", event.name, made.value());
    assert_eq!(text_of(made.get("event_id")), id.to_string());
    id
}

/// Another value of each type, and spellings of the one in the catalogue's body that mean the same.
fn another(what: What) -> &'static str {
    match what {
        Id | ServerId | Text => r#""another \"\\\n\u0001é😀""#,
        Number | NumberOrZero => "42",
        Time => "1757570000000",
        Users => r#"["u_x","u_\u0001"]"#,
        ExitType => r#""Quit""#,
        Attributes | RoomAttributes => r#"[{"key":"x"}]"#,
        Receivers => r#"[{"UserId":"u_x","MsgId":"9"}]"#,
    }
}

#[test]
fn an_id_can_be_recomputed_from_the_record() {
    for event in &EVENTS {
        checked(event, event.body);
        for (field, what) in event.fields {
            checked(event, &with(event.body, field, Some(another(*what))));
            if !event.required.contains(field) {
                checked(event, &with(event.body, field, None));
            }
        }
        let minimal: Vec<_> = (members(event.body).into_iter())
            .filter(|(name, _)| event.required.contains(&name.as_str()))
            .collect();
        checked(event, &joined(&minimal));
    }
}

#[test]
fn an_id_is_computed_from_the_fields_of_the_contract_and_never_from_content() {
    for event in &EVENTS {
        let id = checked(event, event.body);
        for (field, what) in event.fields {
            let changed = checked(event, &with(event.body, field, Some(another(*what))));
            let counts = event.identity.contains(field);
            assert_eq!(changed != id, counts, "{}: {field}", event.name);
        }
        assert_eq!(
            checked(event, &format!(r#"{},"new_field":1"#, event.body)),
            id
        );
        let later = made_by(
            &open_policy(),
            signed_at("1757577600124", event.name, event.body),
        );
        let later = later.expect("it is valid").record.event_id;
        // A time of its own stands for the signed one.
        assert_eq!(
            later != id,
            event.identity.contains(&"timestamp"),
            "{}",
            event.name
        );
        let own = ["create_time", "invite_time", "msg_time"];
        if let Some(own) = own.iter().find(|own| event.identity.contains(own)) {
            let body = with(event.body, own, None);
            let without = checked(event, &body);
            assert_ne!(without, id);
            let later = made_by(
                &open_policy(),
                signed_at("1757577600124", event.name, &body),
            );
            assert_ne!(
                later.expect("it is valid").record.event_id,
                without,
                "{}",
                event.name
            );
        }
    }
}

#[test]
fn an_id_does_not_depend_on_the_spelling_of_values() {
    for (name, field, spellings) in [
        ("user_action", "action", &["1", r#""1""#, r#""01""#][..]),
        ("user_action", "relogin", &["0", r#""0""#]),
        (
            "user_action",
            "session_id",
            &["930821637828251648", r#""930821637828251648""#],
        ),
        (
            "user_action",
            "login_time",
            &["1757577601", r#""1757577601""#, "1757577601000"],
        ),
        (
            "user_action",
            "logout_time",
            &["0", "null", r#""""#, r#""0""#],
        ),
        ("group_create", "operator_account", &["null", r#""""#]),
        (
            "group_exit",
            "exit_user_ids",
            &[r#"["u_x"]"#, r#"[ "\u0075_x" ]"#],
        ),
        ("send_msg", "conv_type", &["2", r#""2""#]),
        (
            "send_msg",
            "msg_id",
            &["857639062792568901", r#""857639062792568901""#],
        ),
        (
            "send_msg",
            "msg_time",
            &["1757577600000", "1757577600", r#""1757577600""#],
        ),
        ("send_msg", "user_list", &["[]", "null"]),
        (
            "send_msg",
            "user_list",
            &[
                r#"[{"UserId":"u","MsgId":7}]"#,
                r#"[{"msg_id":"7","user_id":"u","MsgSeq":4,"other":1}]"#,
            ],
        ),
        ("send_msg", "send_result", &["660500010", r#""660500010""#]),
        (
            "call_create",
            "call_id",
            &["3501761173612493301", r#""3501761173612493301""#],
        ),
        (
            "call_create",
            "create_time",
            &["1757577620", r#""1757577620000""#],
        ),
    ] {
        let ids: Vec<_> = (spellings.iter())
            .map(|sent| checked(event(name), &with(event(name).body, field, Some(sent))))
            .collect();
        assert!(
            ids.windows(2).all(|pair| pair[0] == pair[1]),
            "{name}: {field}"
        );
    }
    for (alias, name) in [
        ("create_group", "group_create"),
        ("destroy_group", "group_destroy"),
        ("zim_send_msg", "send_msg"),
    ] {
        let id = valid(alias, event(name).body).record.event_id;
        assert_eq!(id, checked(event(name), event(name).body));
    }
}

#[test]
fn the_id_of_a_message_without_ids_of_zegocloud_is_computed_from_more_fields() {
    for name in ["send_msg", "bot_msg"] {
        let event = event(name);
        let body = with(&with(event.body, "msg_id", None), "user_list", None);
        let id = checked(event, &body);
        for (field, sent) in [
            ("msg_type", "11"),
            ("sub_msg_type", "99"),
            ("sub_msg_type", "null"),
        ] {
            assert_ne!(
                checked(event, &with(&body, field, Some(sent))),
                id,
                "{name}: {field}"
            );
        }
        let later = made_by(&open_policy(), signed_at("1757577600124", name, &body));
        assert_ne!(later.expect("it is valid").record.event_id, id, "{name}");
        // The text itself, once, against a slip in the recomputation.
        let text =
            r#"["1234567890","NAME","u_ada",0,"TO",null,null,0,1757577600456,1757577600123,1,0]"#;
        let to = if name == "send_msg" {
            "u_bao"
        } else {
            "@RBT#1"
        };
        let plain = with(
            &with(&body, "msg_type", Some("1")),
            "sub_msg_type",
            Some("0"),
        );
        let text = text.replace("NAME", name).replace("TO", to);
        assert_eq!(checked(event, &plain), id_of(&text), "{name}");
        // One ID is enough, wherever it is.
        for (field, sent) in [
            ("msg_id", r#""1""#),
            ("user_list", r#"[{"UserId":"a"},{"UserId":"b","MsgId":1}]"#),
        ] {
            let known = with(&body, field, Some(sent));
            let id = checked(event, &known);
            assert_eq!(
                checked(event, &with(&known, "msg_type", Some("11"))),
                id,
                "{name}: {field}"
            );
        }
        // A list without one is none.
        let empty = with(&body, "user_list", Some(r#"[{"UserId":"a","MsgId":""}]"#));
        let id = checked(event, &empty);
        assert_ne!(
            checked(event, &with(&empty, "msg_type", Some("11"))),
            id,
            "{name}"
        );
    }
}

#[test]
fn a_number_that_a_double_may_not_represent_is_a_string_in_the_text_of_an_id() {
    for (sent, text) in [
        ("9007199254740992", "9007199254740992"),
        ("9007199254740993", "\"9007199254740993\""),
        ("-9007199254740993", "\"-9007199254740993\""),
        (r#""9223372036854775808""#, "\"9223372036854775808\""),
    ] {
        let made = valid("user_action", &format!(r#""user_id":"u","action":{sent}"#));
        let text = format!(
            r#"["1234567890","user_action","u",null,{text},null,null,null,null,{TIMESTAMP}]"#
        );
        assert_eq!(made.record.event_id, id_of(&text), "{sent}");
        // The record has it as a number.
        assert_eq!(made.get("action"), sent.trim_matches('"'));
    }
}

/// Values of every type, and of none.
const VALUES: [&str; 34] = [
    "null",
    "true",
    "0",
    "1",
    "-1",
    "1.5",
    "1e999",
    "9007199254740993",
    "18446744073709551615",
    "1757577600",
    "1757577600123",
    "17575776001234",
    r#""""#,
    r#""0""#,
    r#""1""#,
    r#""007""#,
    r#""1757577600""#,
    r#""Quit""#,
    r#""Kickout""#,
    r#""u_ada""#,
    r#"" ""#,
    r#""\ud800""#,
    r#""\"\\\u0001\n\ud83d\ude00/\u2028""#,
    r#""[\"a\"]""#,
    "[]",
    r#"["a"]"#,
    r#"["a","\u0062"]"#,
    r#"[""]"#,
    "[7]",
    "{}",
    r#"[{"UserId":"a","MsgId":5}]"#,
    r#"[{"user_id":"\u007f","extra":[1e999]},{"MSGID":"b"}]"#,
    r#"[{"Key":"\ud800","value":"","AutoDelete":"3","x":{"a":1,"a":2}}]"#,
    r#"[{"key":1}]"#,
];

proptest! {
    #[test]
    fn whatever_the_fields_hold_a_record_is_strict_json_with_an_id_that_can_be_recomputed(
        at in 0..EVENTS.len(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(&VALUES[..]), "\\PC{0,4}", 0..4),
            0..5,
        ),
    ) {
        let event = &EVENTS[at];
        let mut body = event.body.to_owned();
        for (field, value, text, kind) in &changes {
            let (field, _) = field.get(event.fields);
            body = match kind {
                0 => with(&body, field, None),
                1 => with(&body, field, Some(&quoted(text))),
                _ => with(&body, field, Some(value)),
            };
        }
        match made(event.name, &body) {
            Ok(made) => {
                prop_assert_eq!(recomputed(event, &made), made.record.event_id, "{}", made.value());
                let strict: serde_json::Value =
                    serde_json::from_slice(&made.record.value).expect("strict parsers read it");
                let fields = event.fields.iter().all(|(name, _)| strict.get(name).is_some());
                prop_assert!(fields, "{}", made.value());
                prop_assert_eq!(made.header("ce_subject"), made.key());
                prop_assert!(!made.key().is_empty(), "{}", made.value());
            }
            Err(why) => {
                prop_assert_eq!(why.reason, Reason::InvalidEvent);
                prop_assert!(event.fields.iter().any(|(name, _)| why.detail.contains(name)));
            }
        }
    }
}
