//! The types of fields: what each accepts and refuses, and how it is published.

use super::*;

const ID: [(&str, &str); 8] = [
    (r#""a""#, r#""a""#),
    (r#"" a ""#, r#"" a ""#),
    (r#"" ""#, r#"" ""#),
    (r#""7""#, r#""7""#),
    (r#""a+b%25&c=#1""#, r#""a+b%25&c=#1""#),
    (
        r##""azAZ09!#$%&()+-:;<=.>?@[]^_{}|~ ,""##,
        r##""azAZ09!#$%&()+-:;<=.>?@[]^_{}|~ ,""##,
    ),
    (r#""A\/😀""#, r#""A/😀""#),
    ("\"张伟\"", "\"张伟\""),
];
const NO_ID: [&str; 9] = [
    "7",
    "-0",
    "1e999",
    "true",
    "[]",
    r#"["a"]"#,
    "{}",
    r#""a\ud800""#,
    r#""\udc00\ud800""#,
];

const SERVER_ID: [(&str, &str); 8] = [
    (r#""857639062792568832""#, r#""857639062792568832""#),
    ("857639062792568833", r#""857639062792568833""#),
    ("9223372036854775807", r#""9223372036854775807""#),
    ("18446744073709551616", r#""18446744073709551616""#),
    ("9007199254740993", r#""9007199254740993""#),
    ("7", r#""7""#),
    (r#""007""#, r#""007""#),
    (r#"" a ""#, r#"" a ""#),
];
const NO_SERVER_ID: [&str; 10] = [
    "-1",
    "1.0",
    "1.5",
    "1e3",
    "1E18",
    "true",
    "[]",
    "[7]",
    "{}",
    r#""\ud800""#,
];

const NUMBER: [(&str, &str); 13] = [
    ("0", "0"),
    (r#""0""#, "0"),
    ("5", "5"),
    (r#""5""#, "5"),
    (r#""007""#, "7"),
    (r#""000""#, "0"),
    ("-5", "-5"),
    ("660500010", "660500010"),
    ("9007199254740993", "9007199254740993"),
    (r#""9007199254740993""#, "9007199254740993"),
    ("9223372036854775808", "9223372036854775808"),
    (r#""18446744073709551615""#, "18446744073709551615"),
    (
        "123456789012345678901234567890",
        "123456789012345678901234567890",
    ),
];
const NO_NUMBER: [&str; 22] = [
    "1.0",
    "1.5",
    "-0.5",
    "1e3",
    "1E3",
    "1e-3",
    "1e999",
    r#""1e3""#,
    r#""1.0""#,
    r#""a""#,
    r#"" 1""#,
    r#""1 ""#,
    r#""+1""#,
    r#""0x1""#,
    r#""-""#,
    "\"１\"",
    "true",
    "[]",
    "[1]",
    "{}",
    r#"" ""#,
    r#""\ud800""#,
];

const TIME: [(&str, &str); 9] = [
    ("1757577600", "1757577600000"),
    (r#""1757577600""#, "1757577600000"),
    ("1757577600123", "1757577600123"),
    (r#""1757577600123""#, "1757577600123"),
    ("9999999999999", "9999999999999"),
    (r#""0000000001""#, "1000"),
    ("0", "null"),
    (r#""0""#, "null"),
    (r#""""#, "null"),
];
const NO_TIME: [&str; 24] = [
    "1",
    "12",
    "175757760",
    "17575776001",
    "175757760012",
    "17575776001234",
    "1757577600123456",
    "1757577600123456789",
    "99999999999999999999",
    "-1757577600",
    "1757577600.0",
    "1757577600.5",
    "1.7575776e9",
    r#""1757577600.123""#,
    r#""-1757577600""#,
    r#""+175757760""#,
    r#"" 1757577600""#,
    r#""1757577600 ""#,
    r#""2025-09-11T08:00:00Z""#,
    r#""abcdefghij""#,
    "\"１２３４５６７８９０\"",
    "true",
    "[]",
    "{}",
];

const TEXT: [(&str, &str); 7] = [
    (r#""""#, r#""""#),
    (r#"" x ""#, r#"" x ""#),
    (r#""null""#, r#""null""#),
    (r#""a+b%25%zz""#, r#""a+b%25%zz""#),
    (r#""\u0041\/\u0000\n\u2028""#, "\"A/\\u0000\\n\u{2028}\""),
    (
        r#""a\ud800b \udc00 \ud83d\ude00 \ud83d""#,
        "\"a\u{fffd}b \u{fffd} 😀 \u{fffd}\"",
    ),
    (r#""{\"a\":[1e999]}""#, r#""{\"a\":[1e999]}""#),
];
const NO_TEXT: [&str; 7] = ["7", "0", "true", "false", "[]", "{}", r#"{"text":"hi"}"#];

const USERS: [(&str, &str); 6] = [
    (r#"["a"]"#, r#"["a"]"#),
    (r#"[ "b" , "a" ]"#, r#"["b","a"]"#),
    (r#"["a","a"]"#, r#"["a","a"]"#),
    (r#"["7"," ","[1]"]"#, r#"["7"," ","[1]"]"#),
    (r#"["\u0041\/😀","张伟"]"#, r#"["A/😀","张伟"]"#),
    (
        r#"["!#$%&()+-:;<=.>?@[]^_{}|~ "]"#,
        r#"["!#$%&()+-:;<=.>?@[]^_{}|~ "]"#,
    ),
];
const NO_USERS: [&str; 18] = [
    r#""a""#,
    r#""""#,
    r#""[\"a\"]""#,
    r#"[""]"#,
    r#"["a",""]"#,
    "[7]",
    r#"["a",7]"#,
    "[null]",
    r#"[["a"]]"#,
    r#"[{"user_id":"a"}]"#,
    "{}",
    r#"{"0":"a"}"#,
    "7",
    "true",
    r#"["a\ud800"]"#,
    "[1e999]",
    "[true]",
    "0",
];

const NO_EXIT_TYPE: [&str; 10] = [
    r#""quit""#,
    r#""Quit ""#,
    r#""Destroyed""#,
    r#""KICKOUT""#,
    "7",
    "true",
    "[]",
    r#"["Quit"]"#,
    "{}",
    r#""\ud800""#,
];

const NO_ITEMS: [&str; 11] = [
    r#""""#,
    r#""x""#,
    r#""[]""#,
    r#""[{}]""#,
    "{}",
    r#"{"key":"a"}"#,
    "7",
    "true",
    "[7]",
    "[null]",
    r#"[{},[]]"#,
];

fn taken(what: What) -> &'static [(&'static str, &'static str)] {
    match what {
        Id => &ID,
        ServerId => &SERVER_ID,
        Number | NumberOrZero => &NUMBER,
        Time => &TIME,
        Text => &TEXT,
        Users => &USERS,
        ExitType => &[
            (r#""Quit""#, r#""Quit""#),
            (r#""\u004bickout""#, r#""Kickout""#),
        ],
        Attributes | RoomAttributes | Receivers => &[],
    }
}

fn refused(what: What) -> &'static [&'static str] {
    match what {
        Id => &NO_ID,
        ServerId => &NO_SERVER_ID,
        Number | NumberOrZero => &NO_NUMBER,
        Time => &NO_TIME,
        Text => &NO_TEXT,
        Users => &NO_USERS,
        ExitType => &NO_EXIT_TYPE,
        Attributes | RoomAttributes | Receivers => &NO_ITEMS,
    }
}

#[test]
fn a_field_takes_what_its_type_allows_and_is_published_in_one_form() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            for (sent, published) in taken(*what) {
                let made = valid(event.name, &with(event.body, field, Some(sent)));
                assert_eq!(
                    made.get(field),
                    *published,
                    "{}: {field} {sent}",
                    event.name
                );
                assert!(
                    !made.members.contains_key("extra"),
                    "{}: {field}",
                    event.name
                );
            }
        }
    }
}

#[test]
fn a_field_that_is_of_another_type_makes_the_event_invalid_and_is_named() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            for sent in refused(*what) {
                let detail = invalid(event.name, &with(event.body, field, Some(sent)));
                assert!(
                    detail.starts_with(field),
                    "{} with {field} {sent}: {detail}",
                    event.name
                );
            }
        }
    }
}

#[test]
fn an_optional_field_that_is_null_or_empty_is_unknown() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            if event.required.contains(field) {
                continue;
            }
            let null = valid(event.name, &with(event.body, field, Some("null")));
            let expected = match what {
                // A null is a value that is there, so there may be two opinions; it is never text.
                NumberOrZero => ["0", "null"]
                    .into_iter()
                    .find(|text| null.get(field) == *text),
                _ => Some("null"),
            };
            assert_eq!(Some(null.get(field)), expected, "{}: {field}", event.name);
            let empties: &[(&str, &str)] = match what {
                Id | ServerId | Number | Time => &[(r#""""#, "null")],
                NumberOrZero | ExitType => &[],
                Text => &[(r#""""#, r#""""#)],
                Users | Attributes | RoomAttributes => &[("[]", "[]"), (" [ ] ", "[]")],
                Receivers => &[("[]", "null"), ("[ ]", "null")],
            };
            for (sent, published) in empties {
                let made = valid(event.name, &with(event.body, field, Some(sent)));
                assert_eq!(
                    made.get(field),
                    *published,
                    "{}: {field} {sent}",
                    event.name
                );
            }
        }
    }
}

#[test]
fn the_users_of_an_event_that_requires_them_are_never_empty() {
    for event in &EVENTS {
        for (field, what) in event.fields {
            if *what == Users && event.required.contains(field) {
                for sent in ["[]", "[ ]", "null", r#""""#, r#"[""]"#] {
                    let detail = invalid(event.name, &with(event.body, field, Some(sent)));
                    assert!(detail.starts_with(field), "{}: {detail}", event.name);
                }
            }
        }
    }
}

#[test]
fn the_operator_of_a_quit_is_null_whatever_was_sent() {
    for name in ["group_exit", "room_exit"] {
        let quit = with(event(name).body, "exit_type", Some(r#""Quit""#));
        for sent in [
            r#""u_ada""#,
            r#""""#,
            "null",
            "7",
            "[]",
            "{}",
            r#""\ud800""#,
            "1e999",
        ] {
            let made = valid(name, &with(&quit, "operator_account", Some(sent)));
            assert_eq!(made.get("operator_account"), "null", "{name}: {sent}");
            assert!(!made.members.contains_key("extra"), "{name}: {sent}");
        }
        let kickout = |sent| valid(name, &with(event(name).body, "operator_account", sent));
        assert_eq!(kickout(Some(r#""""#)).get("operator_account"), "null");
        assert_eq!(kickout(None).get("operator_account"), "null");
        assert_eq!(
            kickout(Some(r#""u_x""#)).get("operator_account"),
            r#""u_x""#
        );
    }
}

#[test]
fn a_body_that_is_not_utf_8_is_an_invalid_event_of_every_kind() {
    for event in &EVENTS {
        let mut body = signed(event.name, &format!("{},\"x\":\"#\"", event.body));
        let at = body
            .iter()
            .rposition(|byte| *byte == b'#')
            .expect("it is there");
        body[at] = 0xff;
        let why = made_by(&open_policy(), body).expect_err("it is invalid");
        assert_eq!(why.reason, Reason::InvalidEvent, "{}", event.name);
        assert_eq!(why.detail, "the body is not valid UTF-8");
    }
}
