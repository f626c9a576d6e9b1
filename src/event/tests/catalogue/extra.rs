//! Unknown fields, and repeated ones.

use super::*;

/// Every field of every event.
fn all_fields() -> Vec<&'static str> {
    let mut all: Vec<_> = EVENTS
        .iter()
        .flat_map(|event| event.fields)
        .map(|(name, _)| *name)
        .chain(["join_type", "new_user_ids"])
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_field_of_another_event_is_an_unknown_field() {
    for event in &EVENTS {
        for field in all_fields() {
            if event.fields.iter().any(|(own, _)| *own == field) {
                continue;
            }
            for sent in ["7", r#""x""#, "[1,{\"a\":1.50}]", "null"] {
                let made = valid(event.name, &format!("{},{field:?}:{sent}", event.body));
                assert_eq!(made.extra(field), sent, "{}: {field}", event.name);
            }
        }
    }
    let own = ["group_id", "join_type", "operator_account", "new_user_ids"];
    for field in all_fields()
        .into_iter()
        .filter(|field| !own.contains(field))
    {
        let made = valid("group_join", &format!("{JOIN},{field:?}:[1,2]"));
        assert_eq!(made.extra(field), "[1,2]");
    }
}

#[test]
fn a_known_field_that_is_repeated_makes_the_event_invalid() {
    for event in &EVENTS {
        for (field, value) in members(event.body) {
            let escaped = format!("\\u{:04x}{}", field.as_bytes()[0], &field[1..]);
            for second in [
                format!("{field:?}:{value}"),
                format!("{field:?}:null"),
                format!("\"{escaped}\":{value}"),
            ] {
                let detail = invalid(event.name, &format!("{},{second}", event.body));
                assert_eq!(
                    detail,
                    format!("the field {field:?} is repeated"),
                    "{second}"
                );
            }
        }
    }
}

#[test]
fn unknown_fields_are_kept_as_received_and_repaired_only_if_parsers_need_it() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let deep_as_text = format!("{deep:?}");
    for event in &EVENTS {
        for (sent, kept) in [
            ("9223372036854775808", "9223372036854775808"),
            ("1.50", "1.50"),
            (r#"{"a" : [ 1 ]}"#, r#"{"a" : [ 1 ]}"#),
            (r#""\u0041\/""#, r#""\u0041\/""#),
            ("1e999", r#""1e999""#),
            (r#""\ud800""#, "\"\u{fffd}\""),
            (r#"{"a":1,"a":2}"#, r#""{\"a\":1,\"a\":2}""#),
            (&deep, &deep_as_text),
        ] {
            let made = valid(event.name, &format!("{},\"new_field\":{sent}", event.body));
            assert_eq!(made.extra("new_field"), kept, "{}", event.name);
        }
        let twice = valid(event.name, &format!(r#"{},"a":1,"b":2,"a":3"#, event.body));
        assert_eq!(twice.get("extra"), r#"{"b":2,"a":3}"#, "{}", event.name);
        let body = format!(
            r#"{},"Nonce":1,"SIGNATURE":2,"AppId":3,"timeStamp":4,"\u004eonce":5"#,
            event.body
        );
        let made = valid(event.name, &body);
        assert!(
            !made.members.contains_key("extra"),
            "{}: {}",
            event.name,
            made.value()
        );
    }
}

#[test]
fn the_names_of_fields_are_exact() {
    for event in &EVENTS {
        for (field, value) in members(event.body) {
            let other = field.to_uppercase();
            let body = event
                .body
                .replacen(&format!("{field:?}:"), &format!("{other:?}:"), 1);
            if event.required.contains(&field.as_str()) {
                let detail = invalid(event.name, &body);
                assert!(detail.starts_with(&field), "{}: {detail}", event.name);
                continue;
            }
            let made = valid(event.name, &body);
            assert_eq!(made.extra(&other), value, "{}", event.name);
            assert!(
                ["null", "0"].contains(&made.get(&field)),
                "{}: {field}",
                event.name
            );
        }
    }
}

#[test]
fn members_of_our_own_in_a_callback_are_unknown_fields() {
    for event in &EVENTS {
        for name in ["event_id", "received_at", "extra", "omitted"] {
            let made = valid(event.name, &format!("{},{name:?}:\"mine\"", event.body));
            assert_eq!(made.extra(name), r#""mine""#, "{}", event.name);
            assert_eq!(
                made.record.event_id,
                valid(event.name, event.body).record.event_id
            );
        }
    }
}
