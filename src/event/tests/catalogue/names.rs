//! How the event of a callback is determined.

use super::*;

#[track_caller]
fn unsupported(event: &str, members: &str) -> String {
    let why = made(event, members).expect_err("it is not published");
    assert_eq!(why.reason, Reason::UnsupportedEvent, "{event}: {why:?}");
    why.detail.into_owned()
}

#[test]
fn an_event_has_the_names_of_its_page_and_no_others() {
    for (alias, name) in [
        ("create_group", "group_create"),
        ("destroy_group", "group_destroy"),
        ("zim_send_msg", "send_msg"),
    ] {
        let made = valid(alias, event(name).body);
        assert_eq!(made.get("event"), format!("{name:?}"));
        assert_eq!(made.record.event.as_deref(), Some(name));
        assert_eq!(
            made.value(),
            valid(name, event(name).body).value(),
            "{alias}"
        );
    }
    for alias in ["Apply_join_group", "invited_join_group"] {
        assert_eq!(
            valid(alias, JOIN).value(),
            valid("group_join", JOIN).value()
        );
    }
    let all: String = EVENTS.map(|event| event.body).join(",");
    let mut names: Vec<String> = [
        "join_group",
        "exit_group",
        "group_left",
        "group_dismiss",
        "create_room",
        "enter_room",
        "destroy_room",
        "zim_bot_msg",
        "zim_before_send_msg",
        "msg",
        "call",
        "call_canceled",
        "call_end",
        "room_close",
        "room_login",
        "user_login",
        "Apply_exit_group",
        "",
    ]
    .map(str::to_owned)
    .into();
    for event in &EVENTS {
        let name = event.name;
        names.extend([
            name.to_uppercase(),
            format!(" {name}"),
            format!("{name} "),
            name.replace('_', ""),
            format!("{name}\u{0}"),
        ]);
    }
    for name in names {
        let detail = unsupported(&name, &all);
        assert!(detail.contains("the event is"), "{detail}");
    }
}

#[test]
fn a_group_destroy_with_the_fields_of_an_exit_is_an_exit() {
    let exit = event("group_exit").body;
    let made = valid("group_destroy", exit);
    assert_eq!(made.value(), valid("group_exit", exit).value());
    assert_eq!(made.header("ce_type"), "com.zegocloud.zim.group.left.v1");
    // With the other fields of a destroy, too.
    let both = valid(
        "group_destroy",
        &format!(r#"{exit},"owner_account":"o","user_ids":["a"]"#),
    );
    assert_eq!(both.get("event"), r#""group_exit""#);
    assert_eq!(both.extra("user_ids"), r#"["a"]"#);
    // With only one of the fields it is a destroy, whose `extra` keeps the field.
    for (field, sent) in [
        ("exit_type", r#""Quit""#),
        ("exit_user_ids", r#"["a"]"#),
        ("join_type", r#""Apply""#),
        ("new_user_ids", r#"["a"]"#),
    ] {
        let made = valid(
            "group_destroy",
            &format!(r#""group_id":"g",{field:?}:{sent}"#),
        );
        assert_eq!(made.get("event"), r#""group_destroy""#);
        assert_eq!(made.extra(field), sent);
    }
    // The presence of the fields decides, not their values.
    let detail = invalid("group_destroy", &with(exit, "exit_type", Some("null")));
    assert!(detail.starts_with("exit_type"), "{detail}");
    let detail = invalid("group_destroy", &with(exit, "exit_type", Some(r#""x""#)));
    assert!(detail.starts_with("exit_type"), "{detail}");
    let detail = invalid("group_destroy", &with(exit, "exit_user_ids", Some("[]")));
    assert!(detail.starts_with("exit_user_ids"), "{detail}");
    // A body with the fields of both is a join, as in versions that published only joins.
    let join = valid(
        "group_destroy",
        &format!(r#"{JOIN},"exit_type":"Quit","exit_user_ids":["a"]"#),
    );
    assert_eq!(join.get("event"), r#""group_join""#);
    assert_eq!(join.extra("exit_user_ids"), r#"["a"]"#);
    // The name of the draft was never that of another event.
    let draft = valid("destroy_group", exit);
    assert_eq!(draft.get("event"), r#""group_destroy""#);
    assert_eq!(draft.extra("exit_type"), r#""Kickout""#);
}

#[test]
fn no_other_name_is_distinguished_by_fields() {
    let exit = event("group_exit").body;
    for name in ["group_create", "room_destroy", "room_exit", "group_join"] {
        let found = made(name, &format!(r#"{exit},"room_id":"r""#));
        let found = found.map(|made| made.get("event").to_owned());
        let expected = format!("{name:?}");
        assert!(
            found.as_ref().map_or(true, |found| *found == expected),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn a_room_create_of_rtc_is_not_one_of_zim() {
    let theirs = [
        ("room_session_id", "858012925204410411"),
        ("room_create_time", r#""1757577600027""#),
        ("id_name", r#""u_bao""#),
    ];
    let room = r#""room_id":"room-42""#;
    for (field, sent) in theirs {
        for sent in [sent, "null", r#""""#] {
            let detail = unsupported("room_create", &format!("{room},{field:?}:{sent}"));
            assert!(detail.contains("room_create"), "{detail}");
            for no_one in ["null", r#""""#] {
                let members = format!(r#"{room},"operator_account":{no_one},{field:?}:{sent}"#);
                let detail = unsupported("room_create", &members);
                assert!(detail.contains("room_create"), "{detail}");
            }
        }
        let ours = format!(r#"{room},"operator_account":"u_bao",{field:?}:{sent}"#);
        let made = valid("room_create", &ours);
        assert_eq!(made.extra(field), sent);
        // In other events they are unknown fields.
        let enter = valid("room_enter", &ours);
        assert_eq!(enter.extra(field), sent);
        let destroy = valid("room_destroy", &format!("{room},{field:?}:{sent}"));
        assert_eq!(destroy.extra(field), sent);
    }
    let members = theirs
        .map(|(field, sent)| format!("{field:?}:{sent}"))
        .join(",");
    unsupported("room_create", &format!("{room},{members}"));
    unsupported("room_create", &members);
    // Nothing of theirs, and no operator.
    for no_one in [
        "",
        r#","operator_account":null"#,
        r#","operator_account":"""#,
    ] {
        let made = valid("room_create", &format!("{room}{no_one}"));
        assert_eq!(made.get("operator_account"), "null");
    }
    // Names are compared exactly.
    let made = valid("room_create", &format!(r#"{room},"Id_Name":"a""#));
    assert_eq!(made.extra("Id_Name"), r#""a""#);
}

#[test]
fn no_body_is_taken_for_an_event_of_another_family() {
    let family = |event: &Event| {
        event
            .name
            .split('_')
            .next()
            .unwrap_or_default()
            .replace("bot", "send")
    };
    for body in &EVENTS {
        for name in &EVENTS {
            if family(body) == family(name) {
                continue;
            }
            let found = made(name.name, body.body);
            assert!(found.is_err(), "{} as {}: {found:?}", body.name, name.name);
        }
        assert!(made("group_join", body.body).is_err(), "{}", body.name);
    }
}

#[test]
fn a_callback_whose_event_is_repeated_or_not_a_string_has_no_event() {
    for event in &EVENTS {
        for second in [format!("{:?}", event.name), "null".into(), r#""x""#.into()] {
            let detail = invalid(event.name, &format!("{},\"event\":{second}", event.body));
            assert_eq!(detail, "the field \"event\" is repeated");
        }
    }
}
