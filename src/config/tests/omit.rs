//! `ZIM2KAFKA_OMIT`: what it leaves out, and what it refuses.

use std::collections::BTreeSet;

use crate::event::{EVENTS, Omit, is_omittable};

use super::read_well;

fn omit(list: &str) -> Result<Omit, Vec<String>> {
    let serve = read_well(&["--omit", list]).serve;
    serve.callback.omit().map_err(|errors| {
        let errors = errors.iter().map(ToString::to_string);
        let problem = |error: String| {
            let problem = error.strip_prefix("ZIM2KAFKA_OMIT: ").map(str::to_owned);
            problem.unwrap_or_else(|| panic!("{error}"))
        };
        errors.map(problem).collect()
    })
}

#[test]
fn classes_and_single_fields_are_left_out() {
    let nothing = read_well(&[]).serve.callback.omit();
    assert_eq!(nothing, Ok(Omit::default()));
    let content = Omit {
        content: true,
        ..Omit::default()
    };
    assert_eq!(omit("content"), Ok(content));
    let all = Omit {
        content: true,
        user_name: true,
        extra: true,
        // Also members of items.
        fields: BTreeSet::from(["msg_body", "os", "auto_delete", "group_name"]),
    };
    for list in [
        "content,user_name,extra,msg_body,os,auto_delete,group_name",
        "group_name , os,content,\nextra,  msg_body,auto_delete,user_name",
    ] {
        assert_eq!(omit(list).as_ref(), Ok(&all), "{list}");
    }
}

#[test]
fn every_field_is_left_out_or_is_a_part_of_a_key_or_an_id() {
    let mut left_out = BTreeSet::new();
    for field in EVENTS.iter().flat_map(|kind| kind.fields) {
        let is_needed = !is_omittable(field.name);
        let found = omit(field.name);
        assert_eq!(found.is_err(), is_needed, "{}", field.name);
        if let Ok(omit) = found {
            assert!(omit.leaves_out(field), "{}", field.name);
            left_out.insert(field.name);
        }
    }
    let expected = [
        "attributes",
        "extend_data",
        "group_name",
        "logout_reason",
        "msg_body",
        "msg_seq",
        "os",
        "payload",
        "room_name",
        "source",
        "user_name",
    ];
    let missing: Vec<_> = expected
        .iter()
        .filter(|name| !left_out.contains(**name))
        .collect();
    assert!(missing.is_empty(), "{missing:?} of {left_out:?}");
}

#[test]
fn what_cannot_be_left_out_is_refused_with_the_reason() {
    const NO_FIELD: &str = "is not a field of any event";
    let group = "group_create, group_join, group_exit, group_destroy";
    for (list, expected) in [
        (
            "group_id",
            format!("group_id determines the key of {group}; remove it"),
        ),
        (
            "user_list",
            "user_list determines the key of send_msg, bot_msg; remove it".to_owned(),
        ),
        (
            "join_type",
            "join_type is part of the event_id of group_join, and consumers recognise duplicates by it; remove it".to_owned(),
        ),
        (
            "msg_time",
            "msg_time is part of the event_id of send_msg, bot_msg, and consumers recognise duplicates by it; remove it".to_owned(),
        ),
        (
            "msg_type",
            "msg_type is part of the event_id of send_msg, bot_msg, and consumers recognise duplicates by it; remove it".to_owned(),
        ),
        ("timestamp", "timestamp is in every record; remove it".to_owned()),
        ("signature", "signature is never in a record; remove it".to_owned()),
        ("received_at", "received_at is in every record; remove it".to_owned()),
        ("Content", r#""Content" is in the wrong case; write content"#.to_owned()),
        ("OS", r#""OS" is in the wrong case; write os"#.to_owned()),
        ("username", format!(r#""username" {NO_FIELD}; did you mean user_name?"#)),
        ("msg-body", format!(r#""msg-body" {NO_FIELD}; did you mean msg_body?"#)),
        ("contents", format!(r#""contents" {NO_FIELD}; did you mean content?"#)),
        (
            "x",
            format!(r#""x" {NO_FIELD}; write content, user_name, extra, or a field such as msg_body"#),
        ),
        ("os,", "entry 2 is empty; remove its comma, or write as in content,user_name".to_owned()),
        ("os,content,os", "os is given more than once; write it once".to_owned()),
    ] {
        assert_eq!(omit(list), Err(vec![expected]), "{list}");
    }
    let several = omit("x,os,room_id,,content,y").expect_err("four faults");
    assert_eq!(several.len(), 4, "{several:?}");
}
