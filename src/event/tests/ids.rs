//! Ids: equal content has an equal one, and only that.

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    namespace: Uuid,
    dead_letter_namespace: Uuid,
    records: Vec<RecordVector>,
    dead_letters: Vec<DeadLetterVector>,
}

#[derive(Deserialize)]
struct RecordVector {
    name: (
        String,
        String,
        String,
        String,
        Option<String>,
        Vec<String>,
        i64,
    ),
    text: String,
    event_id: Uuid,
}

#[derive(Deserialize)]
struct DeadLetterVector {
    value: String,
    event_id: Uuid,
}

fn vectors() -> Vectors {
    let text = include_str!("../../../tests/fixtures/vectors/event-ids.json");
    serde_json::from_str(text).expect("the vectors")
}

#[test]
fn the_namespaces_are_those_of_their_names() {
    let vectors = vectors();
    let named = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes());
    assert_eq!(vectors.namespace, named("zim2kafka"));
    assert_eq!(
        vectors.dead_letter_namespace,
        named("dead-letter.zim2kafka")
    );
}

#[test]
fn every_record_vector_has_its_id() {
    let Vectors {
        namespace, records, ..
    } = vectors();
    assert!(!records.is_empty());
    for vector in records {
        let (appid, _, group_id, join_type, operator, users, timestamp) = &vector.name;
        assert_eq!(
            Uuid::new_v5(&namespace, vector.text.as_bytes()),
            vector.event_id
        );
        let body = callback(&json!({
            "appid": appid,
            "group_id": group_id,
            "join_type": join_type,
            "operator_account": operator,
            "new_user_ids": users,
            "timestamp": timestamp.to_string(),
        }));
        assert_eq!(
            authentic(body.to_string()).event_id,
            vector.event_id,
            "{}",
            vector.text
        );
    }
}

#[test]
fn every_dead_letter_vector_has_its_id() {
    let vectors = vectors().dead_letters;
    assert!(!vectors.is_empty());
    for DeadLetterVector { value, event_id } in vectors {
        let refused = Record {
            value: Bytes::from(value.clone()),
            ..authentic(callback(&json!({})).to_string())
        };
        assert_eq!(refused.rejected("refused").event_id, event_id, "{value}");
    }
}

#[test]
fn an_id_is_of_the_content_and_of_nothing_else() {
    let id = |fields: Value| authentic(callback(&fields).to_string()).event_id;
    let same = id(json!({}));
    for (change, fields) in [
        ("an unknown field", json!({"sequence": 7})),
        (
            "an operator where there is none",
            json!({"operator_account": "u1"}),
        ),
        (
            "another of the event's names",
            json!({"event": "Apply_join_group"}),
        ),
        ("one user without an array", json!({"new_user_ids": "u1"})),
    ] {
        assert_eq!(id(fields), same, "{change}");
    }
    for (change, fields) in [
        ("another application", json!({"appid": "123456789"})),
        ("another group", json!({"group_id": "g2"})),
        ("another way", json!({"join_type": "Invited"})),
        ("another user", json!({"new_user_ids": ["u2"]})),
        ("the same user twice", json!({"new_user_ids": ["u1", "u1"]})),
        ("another time", json!({"timestamp": "1757577600124"})),
    ] {
        assert_ne!(id(fields), same, "{change}");
    }
    let seconds = id(json!({"timestamp": "1757577600"}));
    assert_eq!(
        seconds,
        id(json!({"timestamp": "1757577600000"})),
        "the unit is not content"
    );
    let ordered = id(json!({"new_user_ids": ["u1", "u2"]}));
    assert_ne!(
        ordered,
        id(json!({"new_user_ids": ["u2", "u1"]})),
        "as received"
    );
    let invited = id(json!({"join_type": "Invited", "operator_account": "u0"}));
    assert_ne!(invited, id(json!({"join_type": "Invited"})));
}

/// RFC 8785, section 3.2.2.2, written down apart from the parser's own writer.
fn jcs(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        '\0'..='\u{1f}' => format!("\\u{:04x}", u32::from(character)),
        _ => character.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

proptest! {
    #[test]
    fn an_id_is_that_of_the_canonical_text(
        group_id in prop_oneof![any::<String>(), "[\\x00-\\x7f\u{2028}\u{fffe}]{1,8}"],
        operator in "[\\x00-\\x1f\"\\\\/é😀]{1,4}",
        users in prop::collection::vec("\\PC{1,6}|[\\x00-\\x1f]{1,3}", 1..4),
        milliseconds in 0_i64..10_000_000_000_000,
    ) {
        prop_assume!(!group_id.is_empty());
        let body = callback(&json!({
            "group_id": group_id,
            "join_type": "Invited",
            "operator_account": operator,
            "new_user_ids": users,
            "timestamp": format!("{milliseconds:013}"),
        }));
        let users: Vec<_> = users.iter().map(|user| jcs(user)).collect();
        let text = format!(
            "[\"1\",\"group_join\",{},\"Invited\",{},[{}],{milliseconds}]",
            jcs(&group_id), jcs(&operator), users.join(","),
        );
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"zim2kafka");
        let id = Uuid::new_v5(&namespace, text.as_bytes());
        prop_assert_eq!(authentic(body.to_string()).event_id, id, "{}", text);
    }
}
