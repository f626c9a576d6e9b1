//! Events as forms become the same records. The types of fields are known from the table only.

use super::*;

/// A signed form with these fields, in order.
pub(super) fn form(event: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let signature = sign("secret", TIMESTAMP, "350176").to_hex();
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("event", event);
    form.extend_pairs(fields);
    form.append_pair("appid", "1234567890");
    form.append_pair("timestamp", TIMESTAMP);
    form.append_pair("nonce", "350176");
    form.append_pair("signature", &signature);
    form.finish().into_bytes()
}

#[track_caller]
fn valid_form(event: &str, fields: &[(&str, &str)]) -> Made {
    match made_by(&open_policy(), form(event, fields)) {
        Ok(made) => made,
        Err(why) => panic!("{event} with {fields:?}: {why:?}"),
    }
}

#[track_caller]
fn invalid_form(event: &str, fields: &[(&str, &str)]) -> String {
    match made_by(&open_policy(), form(event, fields)) {
        Ok(made) => panic!("{event} with {fields:?}: {}", made.value()),
        Err(why) => {
            assert_eq!(why.reason, Reason::InvalidEvent, "{event} with {fields:?}");
            why.detail.into_owned()
        }
    }
}

/// How an array is written.
type Spelling = fn(&str, &[String]) -> Vec<(String, String)>;

const SPELLINGS: [Spelling; 6] = [
    // `name[]=`
    |name, values| listed(values, |_| format!("{name}[]")),
    // `name=`, repeated
    |name, values| listed(values, |_| name.to_owned()),
    // `name[0]=`
    |name, values| listed(values, |at| format!("{name}[{at}]")),
    // `name[0]=`, not in order
    |name, values| {
        let mut fields = listed(values, |at| format!("{name}[{at}]"));
        fields.reverse();
        fields
    },
    // One JSON array.
    |name, values| vec![(name.to_owned(), json_of(values))],
    // Mixed: values without a place come first.
    |name, values| {
        let Some((first, others)) = values.split_first() else {
            return Vec::new();
        };
        let mut fields = listed(others, |at| format!("{name}[{at}]"));
        fields.push((name.to_owned(), first.clone()));
        fields
    },
];

fn listed(values: &[String], name: impl Fn(usize) -> String) -> Vec<(String, String)> {
    let fields = values.iter().enumerate();
    fields
        .map(|(at, value)| (name(at), value.clone()))
        .collect()
}

fn json_of(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", values.join(","))
}

/// The fields of a form with the same content as this body.
fn fields_of(event: &Event, body: &str, spelling: Spelling) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (name, value) in members(body) {
        let what = event.fields.iter().find(|(field, _)| *field == name);
        match what.map(|(_, what)| *what) {
            Some(Users) => {
                let users: Vec<String> = serde_json::from_str(&value).expect("users");
                fields.extend(spelling(&name, &users));
            }
            _ if value.starts_with('"') => fields.push((name, text_of(&value))),
            // Numbers, and the JSON text of items.
            _ => fields.push((name, value)),
        }
    }
    fields
}

fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[test]
fn a_form_of_every_event_in_every_spelling_is_the_record_of_the_json() {
    for event in &EVENTS {
        let bodies = [
            event.body.to_owned(),
            // One user, whose ID looks like anything but a list.
            with_users(event, r#"["a+b %25&=#"]"#),
            with_users(event, r#"["7"]"#),
            with_users(event, r#"["a","b","c","d","e","f","g","h","i","j","k"]"#),
        ];
        for body in bodies {
            let json = valid(event.name, &body);
            for spelling in SPELLINGS {
                let fields = fields_of(event, &body, spelling);
                let form = valid_form(event.name, &borrowed(&fields));
                assert_eq!(form.value(), json.value(), "{}: {fields:?}", event.name);
                assert_eq!(form.record.headers, json.record.headers, "{}", event.name);
                assert_eq!(form.key(), json.key(), "{}", event.name);
            }
        }
    }
}

fn with_users(event: &Event, users: &str) -> String {
    let mut body = event.body.to_owned();
    for (field, what) in event.fields {
        if *what == Users {
            body = with(&body, field, Some(users));
        }
    }
    body
}

/// The events that have a list of users, and the field.
fn lists() -> Vec<(&'static Event, &'static str)> {
    let mut lists = Vec::new();
    static ALL: [Event; 16] = EVENTS;
    for event in &ALL {
        let users = event.fields.iter().find(|(_, what)| *what == Users);
        lists.extend(users.map(|(field, _)| (event, *field)));
    }
    assert_eq!(lists.len(), 9);
    lists
}

#[test]
fn one_text_stands_for_a_list_in_a_form_and_not_in_json() {
    for (event, field) in lists() {
        let without: Vec<_> = fields_of(event, &with(event.body, field, None), SPELLINGS[0]);
        let with_list = |more: &[(&str, &str)]| {
            let mut fields = borrowed(&without);
            fields.extend(more.iter().map(|(suffix, value)| (*suffix, *value)));
            form(event.name, &fields)
        };
        let listed = format!("{field}[]");
        let indexed = format!("{field}[0]");
        for (fields, expected) in [
            (vec![(field, "u1")], r#"["u1"]"#),
            (vec![(field, r#"["u1","u2"]"#)], r#"["u1","u2"]"#),
            (vec![(field, r#" ["u1"] "#)], r#"["u1"]"#),
            (vec![(field, r#"["u1"]"#), (field, "u2")], r#"["u1","u2"]"#),
            (
                vec![(field, r#"["u1"]"#), (field, r#"["u2","u3"]"#)],
                r#"["u1","u2","u3"]"#,
            ),
            // In brackets, what looks like JSON is an ID.
            (vec![(&listed, r#"["u1"]"#)], r#"["[\"u1\"]"]"#),
            (vec![(&indexed, "[]")], r#"["[]"]"#),
            (vec![(field, r#"["u1""#)], r#"["[\"u1\""]"#),
            (vec![(field, "u1,u2")], r#"["u1,u2"]"#),
            (vec![(field, r#""u1""#)], r#"["\"u1\""]"#),
            (vec![(field, "7")], r#"["7"]"#),
        ] {
            let made = made_by(&open_policy(), with_list(&fields));
            let made = made.unwrap_or_else(|why| panic!("{}: {fields:?}: {why:?}", event.name));
            assert_eq!(made.get(field), expected, "{}: {fields:?}", event.name);
        }
        for fields in [
            vec![(field, "")],
            vec![(&*listed, "")],
            vec![(field, "u1"), (&*listed, "")],
            vec![(field, r#"[""]"#)],
            vec![(field, r#"["u1",7]"#)],
            vec![(field, r#"["u\ud800"]"#)],
        ] {
            let why = made_by(&open_policy(), with_list(&fields)).expect_err("it is invalid");
            assert_eq!(why.reason, Reason::InvalidEvent);
            assert!(why.detail.starts_with(field), "{}: {why:?}", event.name);
        }
        let empty = made_by(&open_policy(), with_list(&[(field, "[]")]));
        match event.required.contains(&field) {
            true => assert!(empty.expect_err("nobody").detail.starts_with(field)),
            false => assert_eq!(empty.expect("it is valid").get(field), "[]"),
        }
        for text in [r#""u1""#, r#""[\"u1\"]""#] {
            let detail = invalid(event.name, &with(event.body, field, Some(text)));
            assert!(detail.starts_with(field), "{}: {detail}", event.name);
        }
    }
}

#[test]
fn items_are_json_text_in_a_form_and_never_in_json() {
    for (name, field, text, expected) in [
        (
            "group_create",
            "attributes",
            r#"[{"Key":"a","Value":"b","Seq":1}]"#,
            r#"[{"key":"a","value":"b","extra":{"Seq":1}}]"#,
        ),
        ("group_create", "attributes", " [ ] ", "[]"),
        (
            "room_create",
            "attributes",
            r#"[{"key":"a","value":"%25+","auto_delete":"1"}]"#,
            r#"[{"key":"a","value":"%25+","auto_delete":1}]"#,
        ),
        (
            "send_msg",
            "user_list",
            r#"[{"UserId":"u","MsgId":857639062792568833}]"#,
            r#"[{"user_id":"u","msg_id":"857639062792568833","msg_seq":null}]"#,
        ),
        ("send_msg", "user_list", "[]", "null"),
        (
            "bot_msg",
            "user_list",
            r#"[{"user_id":"\u0075"},{}]"#,
            r#"[{"user_id":"u","msg_id":null,"msg_seq":null},{"user_id":null,"msg_id":null,"msg_seq":null}]"#,
        ),
    ] {
        let event = event(name);
        let mut fields = fields_of(event, &with(event.body, field, None), SPELLINGS[0]);
        fields.push((field.to_owned(), text.to_owned()));
        assert_eq!(
            valid_form(name, &borrowed(&fields)).get(field),
            expected,
            "{name}"
        );
        let detail = invalid(name, &with(event.body, field, Some(&quoted(text))));
        assert!(detail.starts_with(field), "{name}: {detail}");
        for text in [
            "x",
            "{}",
            "7",
            "[7]",
            r#"[{"key":1,"UserId":1}]"#,
            "[{}",
            r#"{"a":[]}"#,
        ] {
            fields.pop();
            fields.push((field.to_owned(), text.to_owned()));
            let detail = invalid_form(name, &borrowed(&fields));
            assert!(detail.starts_with(field), "{name}: {detail}");
        }
        // Twice is not once.
        fields.push((field.to_owned(), "[]".to_owned()));
        let detail = invalid_form(name, &borrowed(&fields));
        assert!(detail.contains(field), "{name}: {detail}");
    }
}

#[test]
fn every_number_and_time_is_text_in_a_form() {
    let event = event("send_msg");
    let mut fields = fields_of(event, event.body, SPELLINGS[0]);
    for (name, value) in &mut fields {
        match name.as_str() {
            "msg_seq" => "9223372036854775808".clone_into(value),
            "msg_time" => "1757577600".clone_into(value),
            "msg_id" | "sub_msg_type" | "source" => value.clear(),
            _ => {}
        }
    }
    let made = valid_form("send_msg", &borrowed(&fields));
    for (field, expected) in [
        ("conv_type", "0"),
        ("msg_seq", "9223372036854775808"),
        ("msg_time", "1757577600000"),
        ("msg_id", "null"),
        ("sub_msg_type", "null"),
        ("msg_type", "200"),
        ("payload", r#""{}""#),
    ] {
        assert_eq!(made.get(field), expected, "{field}");
    }
    // Empty, as absent or as null in JSON.
    assert!(["0", "null"].contains(&made.get("source")));
}

#[test]
fn an_empty_field_of_a_form_is_empty_text_or_no_value() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            if event.required.contains(field)
                || matches!(
                    what,
                    Users | Attributes | RoomAttributes | Receivers | NumberOrZero
                )
            {
                continue;
            }
            let mut fields = fields_of(event, &with(event.body, field, None), SPELLINGS[0]);
            fields.push(((*field).to_owned(), String::new()));
            let made = valid_form(event.name, &borrowed(&fields));
            let expected = if *what == Text { r#""""# } else { "null" };
            assert_eq!(made.get(field), expected, "{}: {field}", event.name);
        }
        for field in event.required {
            let mut fields = fields_of(event, &with(event.body, field, None), SPELLINGS[0]);
            let detail = invalid_form(event.name, &borrowed(&fields));
            assert!(detail.starts_with(field), "{}: {detail}", event.name);
            fields.push(((*field).to_owned(), String::new()));
            let detail = invalid_form(event.name, &borrowed(&fields));
            assert!(detail.starts_with(field), "{}: {detail}", event.name);
        }
    }
}

#[test]
fn a_known_field_that_is_not_a_list_appears_once() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            if *what == Users {
                continue;
            }
            let fields = fields_of(event, event.body, SPELLINGS[0]);
            let value = fields.iter().find(|(name, _)| name == field);
            let (_, value) = value.expect("every field has a value").clone();
            for second in [
                field.to_string(),
                format!("{field}[]"),
                format!("{field}[0]"),
            ] {
                let mut fields = fields.clone();
                fields.push((second.clone(), value.clone()));
                let detail = invalid_form(event.name, &borrowed(&fields));
                assert!(detail.contains(field), "{}: {second}: {detail}", event.name);
            }
            // In brackets it is a list of one, which is not of its type.
            let mut fields = fields;
            fields.retain(|(name, _)| name != field);
            fields.push((format!("{field}[]"), value));
            let detail = invalid_form(event.name, &borrowed(&fields));
            assert!(detail.contains(field), "{}: {detail}", event.name);
        }
    }
}

#[test]
fn unknown_fields_of_a_form_are_texts_or_lists_of_texts() {
    for event in &EVENTS {
        let mut fields = fields_of(event, event.body, SPELLINGS[0]);
        for (name, value) in [
            ("once", "1"),
            ("twice", "a"),
            ("twice", "[2]"),
            ("list[]", "a"),
            ("json", r#"["a"]"#),
            ("deep[a][b]", "c"),
            ("empty", ""),
            ("Signature", "s"),
            ("NONCE[]", "s"),
        ] {
            fields.push((name.to_owned(), value.to_owned()));
        }
        let made = valid_form(event.name, &borrowed(&fields));
        let expected = r#"{"once":"1","twice":["a","[2]"],"list":["a"],"json":"[\"a\"]","deep[a][b]":"c","empty":""}"#;
        assert_eq!(made.get("extra"), expected, "{}", event.name);
    }
    // The lists of other events are unknown here.
    let mut fields = fields_of(event("room_enter"), event("room_enter").body, SPELLINGS[0]);
    for (name, value) in [
        ("new_user_ids", r#"["a"]"#),
        ("user_ids", "a"),
        ("user_ids", r#"["b"]"#),
        ("exit_user_ids[]", "a"),
        ("attributes", "[]"),
        ("attributes[0][key]", "k"),
    ] {
        fields.push((name.to_owned(), value.to_owned()));
    }
    let made = valid_form("room_enter", &borrowed(&fields));
    let expected = r#"{"new_user_ids":"[\"a\"]","user_ids":["a","[\"b\"]"],"exit_user_ids":["a"],"attributes":"[]","attributes[0][key]":"k"}"#;
    assert_eq!(made.get("extra"), expected);
}

#[test]
fn ambiguous_names_are_distinguished_in_a_form_as_in_json() {
    let exit = fields_of(event("group_exit"), event("group_exit").body, SPELLINGS[0]);
    let made = valid_form("group_destroy", &borrowed(&exit));
    assert_eq!(made.get("event"), r#""group_exit""#);
    let rtc = [("room_id", "r"), ("room_session_id", "858012925204410411")];
    let why = made_by(&open_policy(), form("room_create", &rtc)).expect_err("it is RTC's");
    assert_eq!(why.reason, Reason::UnsupportedEvent);
}
