//! `attributes` and `user_list`: their members in any case and with or without underscores.

use super::*;

/// The value of `user_list` in the record of a message with this one.
#[track_caller]
fn user_list(sent: &str) -> String {
    let body = with(event("send_msg").body, "user_list", Some(sent));
    let made = valid("send_msg", &body);
    made.get("user_list").to_owned()
}

/// The value of `attributes` in the record of a group with these.
#[track_caller]
fn attributes(of: &str, sent: &str) -> String {
    let made = valid(of, &with(event(of).body, "attributes", Some(sent)));
    made.get("attributes").to_owned()
}

#[test]
fn members_are_found_in_every_case_and_spelling() {
    for [user, msg, seq] in [
        ["UserId", "MsgId", "MsgSeq"],
        ["user_id", "msg_id", "msg_seq"],
        ["userid", "msgid", "msgseq"],
        ["USER_ID", "MSGID", "Msg_Seq"],
        ["userID", "msgID", "msgSEQ"],
        ["_user__id_", "m_s_g_i_d", "MSG_SEQ_"],
        ["\\u0055serId", "Msg\\u005fId", "Msg\\u0053eq"],
    ] {
        assert_eq!(
            user_list(&format!(r#"[{{"{user}":"u","{msg}":"m","{seq}":5}}]"#)),
            r#"[{"user_id":"u","msg_id":"m","msg_seq":5}]"#
        );
    }
    for [key, value, delete] in [
        ["key", "value", "auto_delete"],
        ["Key", "Value", "AutoDelete"],
        ["KEY", "VALUE", "AUTO_DELETE"],
        ["k_e_y", "_value", "autodelete"],
    ] {
        assert_eq!(
            attributes(
                "room_create",
                &format!(r#"[{{"{delete}":"1","{value}":"v","{key}":"k"}}]"#)
            ),
            r#"[{"key":"k","value":"v","auto_delete":1}]"#
        );
        assert_eq!(
            attributes(
                "group_create",
                &format!(r#"[{{"{value}":"v","{key}":"k"}}]"#)
            ),
            r#"[{"key":"k","value":"v"}]"#
        );
    }
}

#[test]
fn members_that_are_the_same_once_folded_make_the_event_invalid() {
    for pair in [
        r#""UserId":"a","user_id":"a""#,
        r#""user_id":"a","user_id":"a""#,
        r#""UserId":"a","userid":null"#,
        r#""MsgId":1,"msg_id":1"#,
        r#""MsgSeq":1,"MSGSEQ":2"#,
    ] {
        let list = format!("[{{{pair}}}]");
        let detail = invalid(
            "send_msg",
            &with(event("send_msg").body, "user_list", Some(&list)),
        );
        assert!(detail.starts_with("user_list"), "{detail}");
        let second = format!(r#"[{{"UserId":"b"}},{{{pair}}}]"#);
        invalid(
            "bot_msg",
            &with(event("bot_msg").body, "user_list", Some(&second)),
        );
    }
    for (of, pair) in [
        ("group_create", r#""key":"a","Key":"a""#),
        ("group_create", r#""Value":"a","v_alue":"a""#),
        ("room_create", r#""auto_delete":0,"AutoDelete":0"#),
    ] {
        let list = format!("[{{{pair}}}]");
        let detail = invalid(of, &with(event(of).body, "attributes", Some(&list)));
        assert!(detail.starts_with("attributes"), "{detail}");
    }
    // Unknown members are kept by their own names, the last of each.
    assert_eq!(
        user_list(r#"[{"UserId":"u","Seq":1,"seq":2,"Seq":3}]"#),
        r#"[{"user_id":"u","msg_id":null,"msg_seq":null,"extra":{"seq":2,"Seq":3}}]"#
    );
}

#[test]
fn members_have_types_and_defaults_as_fields_have() {
    for (sent, published) in [
        ("{}", r#"{"user_id":null,"msg_id":null,"msg_seq":null}"#),
        (
            r#"{"UserId":"","MsgId":"","MsgSeq":""}"#,
            r#"{"user_id":null,"msg_id":null,"msg_seq":null}"#,
        ),
        (
            r#"{"UserId":null,"MsgId":null,"MsgSeq":null}"#,
            r#"{"user_id":null,"msg_id":null,"msg_seq":null}"#,
        ),
        (
            r#"{"UserId":"u","MsgId":857639062792568833,"MsgSeq":"9223372036854775808"}"#,
            r#"{"user_id":"u","msg_id":"857639062792568833","msg_seq":9223372036854775808}"#,
        ),
    ] {
        assert_eq!(user_list(&format!("[{sent}]")), format!("[{published}]"));
    }
    for sent in [
        r#"{"UserId":7}"#,
        r#"{"UserId":"\ud800"}"#,
        r#"{"UserId":["u"]}"#,
        r#"{"MsgId":1.5}"#,
        r#"{"MsgId":true}"#,
        r#"{"MsgSeq":"a"}"#,
        r#"{"MsgSeq":1e3}"#,
        r#"{"MsgSeq":[]}"#,
    ] {
        let list = format!(r#"[{{"UserId":"u"}},{sent}]"#);
        let detail = invalid(
            "send_msg",
            &with(event("send_msg").body, "user_list", Some(&list)),
        );
        assert!(detail.starts_with("user_list"), "{detail}");
    }
    for (sent, published) in [
        ("{}", r#"{"key":null,"value":null,"auto_delete":0}"#),
        (
            r#"{"key":"","value":"\ud800","auto_delete":"0"}"#,
            "{\"key\":\"\",\"value\":\"\u{fffd}\",\"auto_delete\":0}",
        ),
        (
            r#"{"key":"k","value":null,"auto_delete":2}"#,
            r#"{"key":"k","value":null,"auto_delete":2}"#,
        ),
    ] {
        assert_eq!(
            attributes("room_create", &format!("[{sent}]")),
            format!("[{published}]")
        );
    }
    for sent in [
        r#"{"key":7}"#,
        r#"{"value":{}}"#,
        r#"{"value":true}"#,
        r#"{"auto_delete":"x"}"#,
        r#"{"auto_delete":true}"#,
    ] {
        let list = format!("[{sent}]");
        let detail = invalid(
            "room_create",
            &with(event("room_create").body, "attributes", Some(&list)),
        );
        assert!(detail.starts_with("attributes"), "{detail}");
    }
}

#[test]
fn unknown_members_are_in_the_extra_of_their_item_and_repaired_there() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    for (sent, kept) in [
        (r#""Seq":"1""#, r#""Seq":"1""#),
        (
            r#""a":9223372036854775808,"b":[1.50, 2]"#,
            r#""a":9223372036854775808,"b":[1.50, 2]"#,
        ),
        (r#""a":1e999"#, r#""a":"1e999""#),
        (r#""a":"\ud800""#, "\"a\":\"\u{fffd}\""),
        (r#""a\ud800":1"#, "\"a\u{fffd}\":1"),
        (r#""a":{"b":1,"b":2}"#, r#""a":"{\"b\":1,\"b\":2}""#),
        (&format!("\"a\":{deep}"), &format!("\"a\":{deep:?}")),
        (r#""auto_delete":1"#, r#""auto_delete":1"#),
        (r#""extra":{"x":1}"#, r#""extra":{"x":1}"#),
    ] {
        assert_eq!(
            attributes(
                "group_create",
                &format!(r#"[{{"key":"k","value":"v"}},{{"key":"l",{sent},"value":"w"}}]"#)
            ),
            format!(r#"[{{"key":"k","value":"v"}},{{"key":"l","value":"w","extra":{{{kept}}}}}]"#)
        );
    }
    // Signatures are in no record, wherever they stand.
    for name in ["signature", "Nonce", "APPID", "timestamp"] {
        let kept = attributes(
            "group_create",
            &format!(r#"[{{"key":"k","value":"v",{name:?}:"s"}}]"#),
        );
        assert_eq!(kept, r#"[{"key":"k","value":"v"}]"#, "{name}");
    }
}

#[test]
fn a_hundred_thousand_levels_in_items_are_invalid_or_become_text() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = with(event("send_msg").body, "user_list", None);
    let detail = invalid("send_msg", &format!("{body},\"user_list\":{deep}"));
    assert!(detail.starts_with("user_list"), "{detail}");
    let made = valid(
        "send_msg",
        &format!(r#"{body},"user_list":[{{"UserId":"u","a":{deep}}}]"#),
    );
    assert!(made.get("user_list").contains(&format!("{deep:?}")));
    let detail = invalid(
        "send_msg",
        &format!(r#"{body},"user_list":[{{"UserId":{deep}}}]"#),
    );
    assert!(detail.starts_with("user_list"), "{detail}");
}
