//! Large callbacks, up to the limits.

use super::*;
use crate::event::MAX_RECORD_BYTES;

/// User IDs of the largest length, with every character that ZEGOCLOUD allows.
fn users(count: usize) -> String {
    const LETTERS: &str = "!#$%&()+-:;<=.>?@[]^_{}|~ ";
    let user = |number: usize| format!("\"{LETTERS}{number:06}\"");
    let users: Vec<_> = (0..count).map(user).collect();
    assert_eq!(users[0].len(), 34, "32 bytes and quotes");
    format!("[{}]", users.join(","))
}

#[test]
fn a_group_of_six_thousand_and_a_room_of_fourteen_thousand_can_end() {
    for (name, count) in [
        ("group_destroy", 6000),
        ("room_destroy", 14_000),
        ("group_create", 14_000),
    ] {
        let list = users(count);
        let made = valid(name, &with(event(name).body, "user_ids", Some(&list)));
        assert_eq!(made.get("user_ids"), list);
        let text = format!(
            "[\"1234567890\",{name:?},{}",
            match name {
                "room_destroy" => format!(r#""room-42","u_bao",{list},{TIMESTAMP}]"#),
                _ => format!(r#""grp-7f3a","u_ada","u_bao",{list},{TIMESTAMP}]"#),
            }
        );
        assert_eq!(made.record.event_id, id_of(&text));
        // As it comes in a form, where the number of fields has a bound.
        let form = forms::form(
            name,
            &[
                ("group_id", "grp-7f3a"),
                ("room_id", "room-42"),
                (
                    "operator_account",
                    if name == "room_destroy" {
                        "u_bao"
                    } else {
                        "u_ada"
                    },
                ),
                ("owner_account", "u_bao"),
                ("user_ids", &list),
            ],
        );
        let form = made_by(&open_policy(), form).expect("it is valid");
        assert_eq!(form.record.event_id, id_of(&text));
    }
}

#[test]
fn an_event_is_published_up_to_the_limit_of_a_record_and_not_one_byte_beyond() {
    for event in &EVENTS {
        let padded = |bytes: usize| format!("{},\"x\":{:?}", event.body, "x".repeat(bytes));
        let room = MAX_RECORD_BYTES - valid(event.name, &padded(0)).record.size();
        let made = valid(event.name, &padded(room));
        assert_eq!(made.record.size(), MAX_RECORD_BYTES, "{}", event.name);
        let detail = invalid(event.name, &padded(room + 1));
        assert!(detail.contains("900001"), "{}: {detail}", event.name);
    }
}

#[test]
fn a_message_of_the_largest_text_and_a_user_of_every_character_is_published() {
    let text = "\u{1F389}\"\\\n".repeat(8 * 1024);
    let user = "!#$%&()+-:;<=.>?@[]^_{}|~ aZ09 ";
    let body = event("send_msg").body;
    let body = with(body, "msg_body", Some(&quoted(&text)));
    let body = with(&body, "from_user_id", Some(&quoted(user)));
    let body = with(&body, "msg_id", Some("9223372036854775807"));
    let made = valid("send_msg", &body);
    assert_eq!(text_of(made.get("msg_body")), text);
    assert_eq!(text_of(made.get("from_user_id")), user);
    assert_eq!(made.get("msg_id"), r#""9223372036854775807""#);
    assert_eq!(made.key(), format!("[{},\"u_bao\"]", quoted(user)));
}
