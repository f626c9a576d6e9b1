//! Reads several topics at once, for `tail` and `demo`, and formats their records for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::Failure;
use super::send::sample::now;
use crate::event::{EVENTS, FieldSpec, Kind, Type};
use crate::kafka::{Consumed, KafkaSettings, StartFrom, Subscription};

/// How long Kafka's first answers may take.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reader waits for a record before it checks whether its receiver still exists.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The most records that wait to be printed.
const QUEUED_RECORDS: usize = 100;

/// The most users of a list that are named in a line.
const NAMED_USERS: usize = 10;

/// What is read of several topics.
pub(super) type Records = mpsc::Receiver<Read>;

/// What a reader of one topic sends.
pub(super) enum Read {
    Record(Consumed),
    /// All records that this topic has are sent; the next ones follow when they come. Sent once.
    AtEnd(String),
    /// All records that the topic had at the end of the wanted time are sent. The last one.
    Done,
    /// The topic cannot be read any more. The last one.
    Failed(Failure),
}

impl Read {
    /// The record, if it is one.
    ///
    /// # Errors
    ///
    /// The failure, if it is one.
    pub(super) fn record(self) -> Result<Option<Consumed>, Failure> {
        match self {
            Self::Record(record) => Ok(Some(record)),
            Self::AtEnd(_) | Self::Done => Ok(None),
            Self::Failed(failure) => Err(failure),
        }
    }
}

/// Which part of the topics to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) start: StartFrom,
    /// The time after which the records that are there are the last ones (milliseconds since
    /// 1970-01-01 UTC).
    pub(super) until: Option<i64>,
}

/// Reads these topics, each on a thread of its own, until the receiver is dropped. A topic that
/// does not answer does not hold up the others.
pub(super) fn subscribe(settings: &KafkaSettings, topics: &[String], range: Range) -> Records {
    let (send, records) = mpsc::channel(QUEUED_RECORDS);
    for topic in topics {
        let (settings, topic, send) = (settings.clone(), topic.clone(), send.clone());
        tokio::task::spawn_blocking(move || {
            let last = match read(&settings, &topic, range, &send) {
                Ok(()) => Read::Done,
                Err(source) => Read::Failed(Failure::Topic { topic, source }),
            };
            // Fails only if the receiver is dropped; then no one needs it.
            let _ = send.blocking_send(last);
        });
    }
    records
}

/// Reads a topic until the receiver is dropped or all of the range is read.
///
/// A record of an earlier time can stand behind one of a later time, by as long as an outage lasted.
/// So no record's time ends the range, but the end of each partition when the time has come.
fn read(
    settings: &KafkaSettings,
    topic: &str,
    range: Range,
    send: &mpsc::Sender<Read>,
) -> Result<(), crate::kafka::Error> {
    let has_passed = || range.until.is_some_and(|until| now() >= until);
    let mut is_last_part = has_passed();
    let mut is_reported = false;
    let mut subscription = Subscription::start(settings, topic, range.start, START_TIMEOUT)?;
    while !send.is_closed() {
        if !is_last_part && has_passed() {
            is_last_part = true;
            subscription.find_ends()?;
        }
        if let Some(record) = subscription.next(POLL_TIMEOUT)?
            && send.blocking_send(Read::Record(record)).is_err()
        {
            break;
        }
        if !subscription.is_at_end() {
            continue;
        }
        if is_last_part {
            break;
        }
        if !is_reported {
            is_reported = true;
            // If it fails, the loop ends.
            let _ = send.blocking_send(Read::AtEnd(topic.to_owned()));
        }
    }
    Ok(())
}

/// Several lines for people: where the record is, what happened, its headers and its value.
pub(super) fn pretty(record: &Consumed) -> String {
    let lossy = |bytes: &[u8]| printable(&String::from_utf8_lossy(bytes));
    let key = record.key.as_deref().map_or("(none)".to_owned(), lossy);
    let mut text = format!(
        "{} partition {} offset {} key {key}",
        record.topic, record.partition, record.offset
    );
    let mut line = |line: &str| {
        write!(text, "\n  {line}").expect("writing to a string cannot fail");
    };
    if let Some(happened) = happened(record, &key) {
        line(&happened);
    }
    for (name, value) in &record.headers {
        line(&format!("{name}: {}", lossy(value)));
    }
    line(&format!("{}\n", String::from_utf8_lossy(&record.value)));
    text
}

/// The event in one line; `None` for a dead letter and an unknown event.
fn happened(record: &Consumed, key: &str) -> Option<String> {
    let value: Value = is_event(record).then(|| serde_json::from_slice(&record.value).ok())??;
    let name = value.get("event")?.as_str()?;
    let kind = EVENTS.into_iter().find(|kind| kind.name == name)?;
    let details =
        (kind.fields.iter()).filter_map(|field| detail(kind, field, value.get(field.name)?));
    let details: Vec<_> = details.collect();
    let family = <&str>::from(kind.family);
    Some(format!(
        "{family} {key}: {} {}",
        kind.about,
        details.join("; ")
    ))
}

/// The part of an event that differs from others of the same key, apart from times and IDs that
/// ZEGOCLOUD makes.
fn detail(kind: &Kind, field: &FieldSpec, value: &Value) -> Option<String> {
    let is_shown = kind.identity.contains(&field.name)
        && kind.family.key_fields() != [field.name]
        && !matches!(field.of, Type::Time | Type::ServerId);
    let shown = match value {
        _ if !is_shown => None,
        Value::String(text) => Some(printable(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(list) => {
            let named = list.iter().take(NAMED_USERS).filter_map(|entry| {
                let user = entry.get("user_id").unwrap_or(entry).as_str()?;
                Some(printable(user))
            });
            let mut named: Vec<_> = named.collect();
            if list.len() > NAMED_USERS {
                named.push(format!("and {} more", list.len() - NAMED_USERS));
            }
            Some(named.join(", "))
        }
        _ => None,
    }?;
    Some(format!("{} {shown}", field.name))
}

/// The text with escapes for control characters. Quotes are not escaped, because many keys have
/// them.
fn printable(text: &str) -> String {
    let chars = text.chars().map(|char| match char {
        '"' | '\'' => char.to_string(),
        other => other.escape_debug().to_string(),
    });
    chars.collect()
}

/// Whether the record is an event and not a dead letter.
pub(super) fn is_event(record: &Consumed) -> bool {
    record.headers.iter().any(|(name, _)| name == "ce_type")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(header: &str, key: &str, value: &Value) -> Consumed {
        Consumed {
            topic: "t".to_owned(),
            partition: 3,
            offset: 7,
            timestamp: Some(1_757_577_600_123),
            key: Some(key.into()),
            headers: vec![(header.to_owned(), b"x\n".to_vec())],
            value: value.to_string().into(),
        }
    }

    #[track_caller]
    fn is_shown(key: &str, value: &Value, happened: &str) {
        let text = pretty(&record("ce_type", key, value));
        let lines: Vec<_> = text.lines().collect();
        let first = format!("t partition 3 offset 7 key {key}");
        let last = format!("  {value}");
        assert_eq!(lines, [first.as_str(), happened, "  ce_type: x\\n", &last]);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn what_happened_is_one_line_for_every_family() {
        is_shown(
            "g1",
            &json!({"event": "group_join", "group_id": "g1", "join_type": "Apply",
                "operator_account": null, "new_user_ids": ["u1", "u\n2"], "extra": {"a": 1}}),
            "  group g1: Users joined a group. join_type Apply; new_user_ids u1, u\\n2",
        );
        is_shown(
            r#"["u1","u2"]"#,
            &json!({"event": "send_msg", "from_user_id": "u2", "conv_type": 0, "conv_id": null,
                "msg_id": null, "msg_type": 1, "msg_body": "secret", "send_result": 0,
                "user_list": [{"user_id": "u1", "msg_id": "857639062792568914"}]}),
            r#"  message ["u1","u2"]: A message was sent, or could not be. from_user_id u2; conv_type 0; send_result 0; user_list u1"#,
        );
        is_shown(
            "3501761173612493301",
            &json!({"event": "call_accept", "call_id": "3501761173612493301", "user_id": "u1",
                "extend_data": "x"}),
            "  call 3501761173612493301: A user accepted a call. user_id u1",
        );
        let users: Vec<_> = (0..6000).map(|user| format!("u{user}")).collect();
        is_shown(
            "r1",
            &json!({"event": "room_destroy", "room_id": "r1", "operator_account": null,
                "user_ids": users}),
            "  room r1: A room was destroyed. user_ids u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, and 5990 more",
        );
    }

    #[test]
    fn a_dead_letter_and_an_unknown_event_are_shown_as_they_are() {
        let join = json!({"event": "group_join", "group_id": "g1"});
        let invented = json!({"event": "invented"});
        for (header, value) in [
            ("event_id", join),
            ("ce_type", invented),
            ("ce_type", json!(1)),
        ] {
            let text = pretty(&record(header, "g1", &value));
            let second = text.lines().nth(1);
            assert_eq!(second, Some(format!("  {header}: x\\n").as_str()));
        }
    }
}
