//! The keys of messages, and the times of records.

use std::time::Duration;

use super::*;

fn message(from: &str, conv_type: &str, more: &str) -> String {
    format!(r#""from_user_id":{from},"conv_type":{conv_type},"msg_type":1,"msg_id":"1"{more}"#)
}

#[test]
fn both_directions_of_a_chat_have_the_sorted_pair_as_their_key() {
    // Each pair in the order of its bytes.
    for (one, two, key) in [
        ("u_Zoe", "u_ada", r#"["u_Zoe","u_ada"]"#),
        ("a", "ab", r#"["a","ab"]"#),
        ("10", "9", r#"["10","9"]"#),
        ("a", "a", r#"["a","a"]"#),
        ("#", "@RBT#1", r##"["#","@RBT#1"]"##),
        ("a,b", "c d", r#"["a,b","c d"]"#),
        ("z", "é", "[\"z\",\"é\"]"),
        // By UTF-16 code units, the second one would come first.
        ("Ａ", "😀", "[\"Ａ\",\"😀\"]"),
        ("张伟", "李娜", "[\"张伟\",\"李娜\"]"),
        // By their escapes, the second one would come first.
        ("\"x", "A", r#"["\"x","A"]"#),
        ("\\", "a", r#"["\\","a"]"#),
        ("\n", " ", r#"["\n"," "]"#),
        (
            "\u{1}/\u{7f}\u{2028}",
            "\u{2}",
            "[\"\\u0001/\u{7f}\u{2028}\",\"\\u0002\"]",
        ),
        ("\t\u{8}\u{c}\r", "\u{1f}", r#"["\t\b\f\r","\u001f"]"#),
    ] {
        assert!(one <= two, "bytewise");
        for event in ["send_msg", "bot_msg"] {
            for (from, to) in [(one, two), (two, one)] {
                let (from, to) = (quoted(from), quoted(to));
                for conv_type in ["0", r#""0""#, r#""00""#] {
                    let body = message(&from, conv_type, &format!(",\"conv_id\":{to}"));
                    let made = valid(event, &body);
                    assert_eq!(made.key(), key, "{from} to {to}");
                    assert_eq!(made.header("ce_subject"), key);
                }
                // The server's own messages name the receiver in a list.
                for absent in [r#","conv_id":"""#, r#","conv_id":null"#, ""] {
                    let list =
                        format!("{absent},\"user_list\":[{{\"UserId\":{to},\"MsgId\":\"2\"}}]");
                    let made = valid(event, &message(&from, "0", &list));
                    assert_eq!(made.key(), key, "{from} to {to} in a list");
                }
            }
        }
        let text = format!("[{},{}]", quoted(one), quoted(two));
        assert_eq!(key, text, "canonical");
    }
}

#[test]
fn a_message_to_several_or_to_nobody_has_its_sender_as_its_key() {
    for more in [
        "",
        r#","conv_id":"""#,
        r#","conv_id":"","user_list":[]"#,
        r#","user_list":null"#,
        r#","user_list":[{"UserId":"a"},{"UserId":"b"}]"#,
        r#","user_list":[{"UserId":"a"},{"UserId":"a"}]"#,
        r#","user_list":[{"UserId":""}]"#,
        r#","user_list":[{}]"#,
    ] {
        for event in ["send_msg", "bot_msg"] {
            let made = valid(event, &message(r#""u \"1""#, "0", more));
            assert_eq!(made.key(), "u \"1", "{more}");
            assert_eq!(made.header("ce_subject"), "u \"1");
        }
    }
    // A conversation that is named counts more than a list.
    let made = valid(
        "send_msg",
        &message(
            r#""a""#,
            "0",
            r#","conv_id":"b","user_list":[{"UserId":"c"}]"#,
        ),
    );
    assert_eq!(made.key(), r#"["a","b"]"#);
}

#[test]
fn every_other_message_has_its_conversation_as_its_key() {
    for conv_type in [
        "1",
        "2",
        "3",
        "4",
        "-1",
        "00001",
        "9223372036854775808",
        r#""2""#,
    ] {
        let conv_type = match conv_type {
            "00001" => r#""00001""#,
            other => other,
        };
        for (sent, key) in [
            (r##""#grp 1""##, "#grp 1"),
            (r#"" ""#, " "),
            (r#""[\"a\",\"b\"]""#, r#"["a","b"]"#),
        ] {
            let made = valid(
                "send_msg",
                &message(r#""a""#, conv_type, &format!(",\"conv_id\":{sent}")),
            );
            assert_eq!(made.key(), key);
        }
        for absent in ["", r#","conv_id":"""#, r#","conv_id":null"#] {
            let list = format!(r#"{absent},"user_list":[{{"UserId":"b"}}]"#);
            for more in [absent, &list] {
                for event in ["send_msg", "bot_msg"] {
                    let detail = invalid(event, &message(r#""a""#, conv_type, more));
                    assert!(detail.contains("conv_id"), "{detail}");
                }
            }
        }
    }
}

#[test]
fn a_call_has_the_digits_of_its_id_as_its_key_whatever_their_type() {
    for event in EVENTS.iter().filter(|event| event.key == "call_id") {
        for (sent, key) in [
            (r#""3501761173612493301""#, "3501761173612493301"),
            ("3501761173612493301", "3501761173612493301"),
            ("18446744073709551616", "18446744073709551616"),
            (r#""007""#, "007"),
            ("7", "7"),
        ] {
            let made = valid(event.name, &with(event.body, "call_id", Some(sent)));
            assert_eq!(made.key(), key, "{}", event.name);
            assert_eq!(made.get("call_id"), format!("{key:?}"));
        }
    }
}

/// The time of a message's record in Kafka.
#[track_caller]
fn kafka_time(event: &str, tolerance: Option<u64>, msg_time: &str) -> i64 {
    let policy = Policy {
        tolerance: tolerance.map(Duration::from_millis),
        ..open_policy()
    };
    let body = format!(
        "{},\"msg_time\":{msg_time}",
        message(r#""a""#, "2", r#","conv_id":"g""#)
    );
    let made = made_by(&policy, signed(event, &body)).expect("it is valid");
    let time = jiff::Timestamp::from_millisecond(made.record.timestamp).expect("a time");
    let text = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    assert_eq!(made.header("ce_time"), text);
    assert_eq!(
        made.get("timestamp"),
        TIMESTAMP,
        "the signed one is in the record"
    );
    assert_eq!(made.record.times.callback, 1_757_577_600_123);
    made.record.timestamp
}

#[test]
fn the_own_time_of_a_message_counts_if_it_is_close_to_the_signed_one() {
    const SIGNED: i64 = 1_757_577_600_123;
    for event in ["send_msg", "bot_msg"] {
        for (tolerance, offset, counts) in [
            (Some(600_000), 0, true),
            (Some(600_000), -1, true),
            (Some(600_000), 599_999, true),
            (Some(600_000), 600_000, true),
            (Some(600_000), -600_000, true),
            (Some(600_000), 600_001, false),
            (Some(600_000), -600_001, false),
            (Some(600_000), 8_000_000_000_000, false),
            (Some(1), 1, true),
            (Some(1), 2, false),
            (None, 600_001, true),
            (None, -600_001, true),
        ] {
            let own = SIGNED + offset;
            for sent in [own.to_string(), format!("\"{own}\"")] {
                let expected = if counts { own } else { SIGNED };
                assert_eq!(
                    kafka_time(event, tolerance, &sent),
                    expected,
                    "{tolerance:?} {offset}"
                );
            }
        }
        for absent in ["0", "null", r#""""#, r#""0""#] {
            assert_eq!(kafka_time(event, None, absent), SIGNED);
        }
        assert_eq!(
            kafka_time(event, Some(600_000), "1757577599"),
            1_757_577_599_000
        );
    }
}

#[test]
fn every_other_event_has_its_signed_time() {
    let policy = Policy {
        tolerance: Some(Duration::from_secs(u64::from(u32::MAX))),
        ..open_policy()
    };
    for event in EVENTS.iter().filter(|event| !event.name.ends_with("msg")) {
        for (timestamp, time) in [
            ("1757577600123", 1_757_577_600_123),
            ("1757577600", 1_757_577_600_000),
        ] {
            let made =
                made_by(&policy, signed_at(timestamp, event.name, event.body)).expect("valid");
            assert_eq!(made.record.timestamp, time, "{}", event.name);
            assert_eq!(made.get("timestamp"), time.to_string(), "{}", event.name);
        }
    }
}
