use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

#[test]
fn a_plain_json_body_is_not_copied() {
    let raw = raw(r#"{"appid":"1","nonce":350176,"group_id":"g"}"#);
    let json = raw.json().expect("an object");
    let callback = json.decode().expect("an object");
    assert!(matches!(callback.appid, Some(Cow::Borrowed("1"))));
    assert!(matches!(callback.nonce, Some(Cow::Borrowed("350176"))));
    let (fields, _) = callback.others.read();
    let [field] = fields.as_slice() else {
        panic!("one field");
    };
    assert!(matches!(field.name, Cow::Borrowed("group_id")));
    assert!(matches!(field.text(), Some(Cow::Borrowed("g"))));
    assert!(
        raw.body
            .as_ptr_range()
            .contains(&field.value.get().as_ptr())
    );
}

#[test]
fn nesting_of_any_depth_is_kept_as_text() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let seen = decode(format!(r#"{{"deep":{deep}}}"#)).expect("an object");
        assert_eq!(seen.fields, [("deep".to_owned(), deep)]);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let seen = decode(format!("new_user_ids={deep}")).expect("a form");
    assert_eq!(
        seen.fields,
        [("new_user_ids".to_owned(), format!("\"{deep}\""))]
    );
}

#[test]
fn nesting_that_does_not_end_is_malformed() {
    let body = format!(r#"{{"deep":{}"#, "[".repeat(100_000));
    assert!(matches!(decode(body), Err(Malformed::NotACallback(_))));
}

#[test]
fn fields_keep_their_order_and_unknown_ones_may_repeat() {
    let seen = decode(r#"{"b":1,"appid":"1","a":2,"b":3}"#).expect("an object");
    let fields = [("b", "1"), ("a", "2"), ("b", "3")];
    assert_eq!(
        seen.fields,
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn the_exact_name_of_a_signed_field_wins_and_two_inexact_ones_are_refused() {
    let nonce =
        |members: &str| decode(format!("{{{members}}}")).map(|seen| (seen.nonce, seen.fields));
    let one = |value: &str| Ok((Some(value.to_owned()), Vec::new()));
    let repeated = Err(Malformed::RepeatedSignedField("nonce"));
    assert_eq!(nonce(r#""nonce":"a""#), one("a"));
    assert_eq!(nonce(r#""Nonce":"a""#), one("a"));
    assert_eq!(nonce(r#""Nonce":"a","nonce":"b""#), one("b"));
    assert_eq!(nonce(r#""nonce":"a","NONCE":"b","Nonce":"c""#), one("a"));
    assert_eq!(nonce(r#""Nonce":"a","NONCE":"b","nonce":"c""#), one("c"));
    assert_eq!(nonce(r#""nonce":null,"Nonce":"a""#), Ok((None, Vec::new())));
    assert_eq!(nonce(r#""Nonce":"a","nONCE":"a""#), repeated);
    assert_eq!(nonce(r#""nonce":"a","Nonce":"b","nonce":"c""#), repeated);
}

#[test]
fn each_of_the_four_signed_fields_is_refused_when_repeated() {
    for name in SIGNED {
        let repeated = Err(Malformed::RepeatedSignedField(name));
        assert_eq!(
            decode(format!(r#"{{"{name}":"1","{name}":"1"}}"#)),
            repeated
        );
        assert_eq!(decode(format!("{name}=1&{name}=1")), repeated);
        let twins = format!("{}=1&{}=1", name.to_uppercase(), name.to_uppercase());
        assert_eq!(decode(twins), repeated);
    }
}

#[test]
fn only_strings_and_numbers_are_signed_parts_and_only_a_string_a_signature() {
    for (value, part, signature) in [
        (r#""a""#, Some("a"), Some("a")),
        (r#""\u0061""#, Some("a"), Some("a")),
        ("-1.50E+3", Some("-1.50E+3"), None),
        ("0", Some("0"), None),
        ("null", None, None),
        ("true", None, None),
        ("[1]", None, None),
        (r#"{"a":1}"#, None, None),
        (r#""\ud800""#, None, None),
    ] {
        let seen = decode(format!(
            r#"{{"appid":{value},"timestamp":{value},"nonce":{value},"signature":{value}}}"#
        ));
        let seen = seen.expect("an object");
        for found in [seen.appid, seen.timestamp, seen.nonce] {
            assert_eq!(found.as_deref(), part, "{value}");
        }
        assert_eq!(seen.signature.as_deref(), signature, "{value}");
    }
}

#[test]
fn a_lone_surrogate_in_a_name_becomes_one_replacement_character() {
    for (name, read) in [
        (r"\ud800", "\u{fffd}"),
        (r"a\udc00b", "a\u{fffd}b"),
        (r"\ud800\ud800", "\u{fffd}\u{fffd}"),
        (r"\ud800\n", "\u{fffd}\n"),
        (r"\ud800\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\u0000\ufffd", "\0\u{fffd}"),
    ] {
        let seen = decode(format!(r#"{{"{name}":1}}"#)).expect("an object");
        assert_eq!(seen.fields, [(read.to_owned(), "1".to_owned())], "{name}");
    }
}

#[test]
fn the_reason_why_a_body_is_malformed_is_reported() {
    for (body, why) in [
        ("", "it is empty"),
        ("\u{feff} \n", "it is empty"),
        ("<html>", "it begins like neither"),
        (r#"{"a":1,}"#, "trailing comma at line 1 column 8"),
        (r#"{"a":1}x"#, "trailing characters at line 1 column 8"),
    ] {
        assert_eq!(
            decode(body),
            Err(Malformed::NotACallback(why.into())),
            "{body}"
        );
    }
}

#[test]
fn an_object_may_be_the_only_name_of_a_form() {
    let object = r#"{"appid":"1","nonce":"a=b&c+d %=","note":["x=y&z=","p+q: r, s"]}"#;
    let plain = decode(object).expect("an object");
    assert_eq!(plain.nonce.as_deref(), Some("a=b&c+d %="));
    let encoded = as_a_field(object);
    // The object was split at `=` and `&`, and its parts were encoded.
    let split = encoded.replace("%3D", "=").replace("%26", "&");
    let spaces = encoded.replace('+', "%20");
    for body in [object, &encoded, &split, &spaces, &as_a_url(object)] {
        for end in ["", "=", "=\n", " \r\n", "\n= "] {
            let lower_case = body.replace("%7B", "%7b");
            for body in [body, &lower_case] {
                let body = format!("\u{feff} {body}{end}");
                assert_eq!(decode(body.as_str()).as_ref(), Ok(&plain), "{body}");
            }
        }
        // A byte order mark and whitespace may be encoded with the object.
        for begin in ["%EF%BB%BF", "%ef%bb%bf%0D%0a", "+", "%20%09+ \n+%0A%0d"] {
            let body = format!("{begin}{body}=");
            let is_encoded = !body.contains('{');
            assert_eq!(
                decode(body.as_str()).as_ref() == Ok(&plain),
                is_encoded,
                "{body}"
            );
        }
        for end in ["==", "=1", "=&a=1", "&", "&a=1"] {
            let malformed = decode(format!("{body}{end}"));
            assert!(
                matches!(malformed, Err(Malformed::NotACallback(_))),
                "{body}{end}"
            );
        }
    }
}

#[test]
fn a_form_has_at_most_a_thousand_fields() {
    let form = |count: usize, field: &str| {
        decode(format!(
            "appid=1&nonce=2{}",
            format!("&{field}").repeat(count)
        ))
    };
    for field in ["a=1", "a", "=", "new_user_ids[]=u", "a[0][0]=", "%61=%61"] {
        let most = form(998, field).expect("a form");
        assert_eq!(
            (most.appid.as_deref(), most.nonce.as_deref()),
            (Some("1"), Some("2"))
        );
        for count in [999, 100_000] {
            assert_eq!(form(count, field), Err(Malformed::TooManyFields), "{field}");
        }
    }
    // Empty fields count, except after the last `&`.
    assert!(form(999, "").is_ok());
    assert_eq!(form(1000, ""), Err(Malformed::TooManyFields));
    // A signed field behind the last one that is read is not read.
    let late = format!("appid=1{}&nonce=2", "&a=1".repeat(999));
    assert_eq!(decode(late), Err(Malformed::TooManyFields));
    let too_many = Malformed::TooManyFields.to_string();
    assert_eq!(
        too_many,
        "the form has more than 1000 fields; send the callback as JSON"
    );
}

#[test]
fn before_authentication_only_the_signed_fields_of_a_form_are_converted() {
    let raw = raw("appid=1&note=%41&timestamp=2&nonce=%33&signature=4&new_user_ids=%5B1%5D");
    let json = raw.json().expect("a form");
    let callback = json.decode().expect("a form");
    assert!(matches!(callback.appid, Some(Cow::Borrowed("1"))));
    assert_eq!(callback.nonce.as_deref(), Some("3"));
    let OtherFields::Form(form) = callback.others else {
        panic!("it is a form");
    };
    assert!(form.is_unread(), "nothing else is converted yet");
}

#[test]
fn a_signed_field_is_found_however_its_name_and_value_are_written() {
    for (field, nonce) in [
        ("nonce=a=b", "a=b"),
        ("nonce=a+b%2Bc", "a b+c"),
        ("%6e%6F%6e%63%65=%61", "a"),
        ("NONCE=a", "a"),
        ("nonce", ""),
        ("nonce=", ""),
        ("&&nonce=a&&", "a"),
        ("nonce=%ff", "\u{fffd}"),
        ("nonce=%4", "%4"),
    ] {
        let seen = decode(format!("appid=1&{field}")).expect("a form");
        assert_eq!(seen.nonce.as_deref(), Some(nonce), "{field}");
        assert_eq!(seen.fields, [], "{field}");
    }
    let longest = "%30".repeat(19);
    for field in [
        "nonce[]=a".to_owned(),
        "nonce[7]=a".to_owned(),
        format!("%6e%6f%6e%63%65%5b{longest}%5d=a"),
        format!("nonce={}", "1".repeat(193)),
        format!("nonce={}", "%31".repeat(65)),
        format!("nonce={}", "%31".repeat(100_000)),
    ] {
        let seen = decode(format!("appid=1&{field}")).expect("a form");
        assert_eq!((seen.nonce, seen.fields), (None, Vec::new()), "{field}");
    }
    let nonce = "%61".repeat(64);
    for (character, encoded) in [("a", "a"), ("a", "%61"), ("\u{1f600}", "%F0%9F%98%80")] {
        for (count, is_usable) in [(32, true), (33, false)] {
            let body = format!("nonce={nonce}&appid={}", encoded.repeat(count));
            let seen = decode(body).expect("a form");
            assert_eq!(seen.appid, is_usable.then(|| character.repeat(count)));
            assert_eq!(seen.nonce, Some("a".repeat(64)));
        }
    }
    // Other names, which are kept as they are.
    for name in [
        format!("nonce[{}]", "0".repeat(20)),
        format!("nonce{}", "x".repeat(100_000)),
        "nonce[+1]".to_owned(),
        "nonce[1".to_owned(),
        "nonce[1][1]".to_owned(),
        "nonce ".to_owned(),
    ] {
        let field = as_a_field(&name);
        let seen = decode(format!("appid=1&{field}=a")).expect("a form");
        let base = name
            .strip_suffix("[1]")
            .map(|base| (base.to_owned(), r#"["a"]"#.to_owned()));
        let expected = base.unwrap_or((name, r#""a""#.to_owned()));
        assert_eq!((seen.nonce, seen.fields), (None, vec![expected]), "{field}");
    }
}

#[test]
fn what_a_form_makes_of_brackets() {
    for (form, name, value) in [
        ("note=[]&note[]=a", "note", r#"["[]","a"]"#),
        ("note[]=a&note=[ ]", "note", r#"["[ ]","a"]"#),
        ("note[]=[1]", "note", r#"["[1]"]"#),
        ("note=[1]", "note", r#""[1]""#),
        ("note[]=1", "note", r#"["1"]"#),
        ("note[007]=1&note[3]=2", "note", r#"["2","1"]"#),
        (
            "note[18446744073709551616]=1",
            "note[18446744073709551616]",
            r#""1""#,
        ),
        ("note[9999999999999999999]=1", "note", r#"["1"]"#),
        ("note[%2B1]=1", "note[+1]", r#""1""#),
        ("note[a]=1", "note[a]", r#""1""#),
        ("note]=1", "note]", r#""1""#),
        ("note", "note", r#""""#),
        ("[]=1", "[]", r#""1""#),
        ("=1", "", r#""1""#),
    ] {
        // A `=` and a name that begins like one are what tells a form.
        let seen = decode(format!("appid=1&{form}")).expect("a form");
        assert_eq!(seen.fields, [(name.to_owned(), value.to_owned())], "{form}");
    }
}

/// Everything but letters and digits, as encoders of form fields do. A blank is a plus there.
fn as_a_field(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
        .to_string()
        .replace("%20", "+")
}

/// Like JavaScript's `encodeURI`, which leaves bare what URLs are made of.
fn as_a_url(text: &str) -> String {
    const ENCODED: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'[')
        .add(b'\\')
        .add(b']')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    utf8_percent_encode(text, ENCODED).to_string()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ %+&=,:a]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// At least one member, since without any `:` a plus would be a blank in either encoding.
fn object() -> impl Strategy<Value = String> {
    prop::collection::hash_map(any::<String>(), value(), 1..6)
        .prop_map(|members| Value::Object(Map::from_iter(members)).to_string())
}

/// Bodies that get further than noise does: they begin like each of the forms, and hold their
/// signs.
fn nearly_a_body() -> impl Strategy<Value = Vec<u8>> {
    let beginning = prop_oneof![
        Just(""),
        Just("\u{feff}"),
        Just("{\""),
        Just("%7B%22"),
        Just("a="),
        Just("new_user_ids[0]="),
    ];
    let piece = prop_oneof![
        "[\\[\\]{}\":,&=%+a0\\\\u \t]{1,4}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "nonce",
            "\"nonce\":",
            "&nonce=",
            "new_user_ids=[",
            "\\ud800",
            "%5B%5D",
            "[18446744073709551616]",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (beginning, prop::collection::vec(piece, 0..12))
        .prop_map(|(beginning, pieces)| [beginning.as_bytes(), &pieces.concat()].concat())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop_oneof![nearly_a_body(), any::<Vec<u8>>()]) {
        let _ = decode(body);
    }

    #[test]
    fn every_json_object_is_read_member_by_member(object in object()) {
        let seen = decode(object.as_str()).expect("an object");
        let members: Map<String, Value> = serde_json::from_str(&object).expect("an object");
        let unsigned = members.into_iter()
            .filter(|(name, _)| !SIGNED.contains(&name.to_ascii_lowercase().as_str()))
            .map(|(name, value)| (name, value.to_string()));
        prop_assert_eq!(seen.fields, unsigned.collect::<Vec<_>>());
        prop_assert!(seen.valid_utf8);
    }

    #[test]
    fn a_percent_encoded_object_means_the_same_as_the_object(object in object()) {
        let plain = decode(object.as_str());
        prop_assert_eq!(&decode(as_a_field(&object)), &plain);
        prop_assert_eq!(&decode(as_a_url(&object)), &plain);
    }

    #[test]
    fn a_form_means_the_same_as_the_json_object(
        // At most 192 bytes as they are sent.
        signed in prop::array::uniform4(prop_oneof!["(?s).{0,16}", "[ %+&=\"\\\\]{0,6}"]),
        others in prop::array::uniform4(prop_oneof![any::<String>(), "[ %+&=\"\\\\]{0,6}"]),
        users in prop::collection::vec(any::<String>(), 2..5),
    ) {
        let [appid, timestamp, nonce, signature] = SIGNED;
        let names = [appid, timestamp, nonce, signature, "event", "group_id", "join_type", "note"];
        let mut object: String = names.iter().zip(signed.iter().chain(&others))
            .map(|(name, text)| format!("{}:{},", json!(name), json!(text)))
            .collect();
        object = format!("{{{object}\"new_user_ids\":{}}}", json!(users));
        let singles: Vec<_> = names.iter().zip(signed.iter().chain(&others))
            .map(|(name, text)| format!("{name}={}", as_a_field(text)))
            .collect();
        let spelt = |spelling: &dyn Fn(usize) -> String| {
            let users = users.iter().enumerate()
                .map(|(at, user)| format!("{}={}", spelling(at), as_a_field(user)));
            singles.iter().cloned().chain(users).collect::<Vec<_>>().join("&")
        };
        let plain = decode(object);
        prop_assert_eq!(&decode(spelt(&|_| "new_user_ids[]".to_owned())), &plain);
        prop_assert_eq!(&decode(spelt(&|_| "new%5Fuser_ids%5B%5d".to_owned())), &plain);
        prop_assert_eq!(&decode(spelt(&|at| format!("new_user_ids[{at}]"))), &plain);
        prop_assert_eq!(&decode(spelt(&|_| "new_user_ids".to_owned())), &plain);
    }

    #[test]
    fn the_answer_to_a_malformed_body_never_quotes_it(
        body in nearly_a_body(),
        at in any::<prop::sample::Index>(),
    ) {
        const SECRET: &str = "5bd59fd62953a8059fb7eaba95720f66d19e4517";
        let at = at.index(body.len() + 1);
        let (front, back) = body.split_at(at);
        if let Err(malformed) = decode([front, SECRET.as_bytes(), back].concat()) {
            let answer = format!("{malformed} {malformed:?}");
            prop_assert!(!answer.contains("5bd5"), "{}", answer);
        }
    }
}
