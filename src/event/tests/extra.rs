//! `extra`: what strict parsers refuse becomes something that they read.

use super::*;

/// The text of `extra` in the record of a callback with these further members.
#[track_caller]
fn extra(members: &str) -> String {
    let body = callback(&json!({})).to_string();
    let body = body.strip_suffix('}').expect("an object");
    let record = authentic(format!("{body},{members}}}"));
    assert!(!record.is_dead_letter(), "{record:?}");
    let value = str::from_utf8(&record.value).expect("UTF-8");
    let _: Value = serde_json::from_str(value).expect("strict parsers read it");
    let (_, extra) = value.split_once(",\"extra\":").expect("there is one");
    extra.strip_suffix('}').expect("it is the last").to_owned()
}

/// The text that a value is published as.
#[track_caller]
fn published(value: &str) -> String {
    let extra = extra(&format!("\"x\":{value}"));
    let value = extra.strip_prefix("{\"x\":");
    let value = value.and_then(|value| value.strip_suffix('}'));
    value.expect("one member").to_owned()
}

fn as_string(text: &str) -> String {
    Value::from(text).to_string()
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn what_every_parser_reads_is_kept_as_received() {
    let digits = "9".repeat(308);
    let zeros = "0".repeat(900);
    for value in [
        "null",
        r#"{"a" : [1, {"b":null, "a":":"}] ,"b":{"a":2},"A":":"}"#,
        r#""\u0041\/\u0000 \ud83c\udf89 \\ud800 \"[[[1e999""#,
        "\"\u{7f} \u{fffd} 😀\"",
        "9007199254740993",
        "18446744073709551616",
        "-0",
        "-0.0E-0",
        "1.7976931348623157e308",
        "-1.7976931348623157E+308",
        "0.1e-999",
        "1e-99999999999999999999",
        "0e999",
        "0E99999999999999999999",
        digits.as_str(),
        &format!("-{digits}.{digits}"),
        &format!("0.{zeros}1"),
        &format!("0.{}", "1".repeat(998)),
        &format!("1{zeros}e-900"),
        &nested("[", "]", 64),
        &nested(r#"{"a":"#, "}", 64),
        &format!("[{}]", vec![nested("[", "]", 63); 3].join(",")),
    ] {
        assert_eq!(published(value), value);
    }
}

#[test]
fn a_lone_surrogate_becomes_u_fffd_wherever_it_is() {
    for (received, expected) in [
        (r#""party \ud83c""#, "\"party \u{fffd}\""),
        (r#""\udf89""#, "\"\u{fffd}\""),
        (r#""\ud83c\ud83c\udf89""#, "\"\u{fffd}\\ud83c\\udf89\""),
        (r#""\ud83c\udf89\udf89""#, "\"\\ud83c\\udf89\u{fffd}\""),
        (r#""\udf89\ud83c""#, "\"\u{fffd}\u{fffd}\""),
        (r#""\uD83Cx\uDF89""#, "\"\u{fffd}x\u{fffd}\""),
        (r#""\ud83c\n\\\udbff""#, "\"\u{fffd}\\n\\\\\u{fffd}\""),
        (r#""\ud83c\u0041""#, "\"\u{fffd}\\u0041\""),
        (
            r#"[1,["\ud800"],{"\udfff":"\udc00"}]"#,
            "[1,[\"\u{fffd}\"],{\"\u{fffd}\":\"\u{fffd}\"}]",
        ),
    ] {
        assert_eq!(published(received), expected);
    }
    assert_eq!(
        extra(r#""a\ud800":"\ud801""#),
        "{\"a\u{fffd}\":\"\u{fffd}\"}"
    );
}

#[test]
fn a_value_with_a_number_beyond_a_double_or_too_long_becomes_a_string_of_its_text() {
    let digits = "1".repeat(5000);
    for value in [
        "1e999",
        "-1E400",
        "1e999999999",
        "1e99999999999999999999",
        "1.8e308",
        "17976931348623157e293",
        digits.as_str(),
        &format!("-{digits}.5"),
        &format!("0.{}", "1".repeat(999)),
        &format!("1{}e-5000", "0".repeat(5000)),
        r#"[1,{"a":[1e309]}]"#,
        r#"{"a\ud800":"\ud800", "b" : 1e999}"#,
    ] {
        assert_eq!(published(value), as_string(value));
    }
}

#[test]
fn a_value_deeper_than_64_becomes_a_string_of_its_text() {
    for depth in [65, 126, 127, 2000, 100_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("[ ", " ]")] {
            let value = nested(open, close, depth);
            assert_eq!(published(&value), as_string(&value));
        }
    }
    let empty = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert_eq!(published(&empty), as_string(&empty));
}

#[test]
fn a_value_with_an_object_that_repeats_a_name_becomes_a_string_of_its_text() {
    for value in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"a" : 1}"#,
        r#"{"\ud800":1,"\udfff":2}"#,
        r#"{"\ud800":1,"\ufffd":2}"#,
        r#"{"a\"":1,"\u0061\u0022":2}"#,
        r#"[0,{"b":[{"a":{"a":1},"b":"a","a":[]}]}]"#,
        r#"{"":1,"a":{},"":2}"#,
    ] {
        assert_eq!(published(value), as_string(value));
    }
}

#[test]
fn of_names_that_are_published_alike_the_last_one_counts() {
    assert_eq!(
        extra(r#""\ud800":1,"a":2,"\udfff":3,"\ufffd":4,"a":5"#),
        "{\"\u{fffd}\":4,\"a\":5}"
    );
}

#[test]
fn a_field_named_like_a_signed_one_is_in_no_record() {
    assert_eq!(
        extra(r#""Signature":1,"NONCE":"2","AppId":3,"timeStamp":4,"\u004eonce":5,"nonce ":6"#),
        r#"{"nonce ":6}"#
    );
}

#[test]
fn a_known_field_with_a_lone_surrogate_is_no_event() {
    for name in ["group_id", "join_type", "new_user_ids"] {
        dead_letter(callback_with(name, r#""a\ud800""#), Reason::InvalidEvent);
    }
}

/// Any JSON text, also what few parsers can represent.
fn json_text() -> impl Strategy<Value = String> {
    let piece = "[a/é😀]|\\\\\\\\|\\\\u[0-9a-fA-F]{4}|\\\\ud[89a-f][0-9a-f]{2}";
    let string =
        prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()));
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?";
    let leaf = prop_oneof![
        string.clone(),
        number.prop_map(String::from),
        Just("null".to_owned())
    ];
    let inner = leaf.prop_recursive(8, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|elements| format!("[{}]", elements.join(" ,"))),
            prop::collection::vec((string.clone(), inner), 0..4).prop_map(|members| {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("{name}:{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    });
    (inner, prop_oneof![4 => 0..4_usize, 1 => 55..70_usize])
        .prop_map(|(value, depth)| format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth)))
}

proptest! {
    #[test]
    fn every_published_value_is_read_by_a_strict_parser(value in json_text()) {
        let text = published(&value);
        let parsed: Value = serde_json::from_str(&text).expect("it is read");
        match serde_json::from_str::<Value>(&value) {
            // Nothing in it is special but, perhaps, its depth.
            Ok(read) if text == value => prop_assert_eq!(parsed, read),
            Ok(_) => prop_assert_eq!(parsed, Value::from(value)),
            Err(_) => prop_assert_ne!(text, value),
        }
    }
}
