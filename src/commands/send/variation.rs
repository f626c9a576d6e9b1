//! Bodies that differ from an event's examples in IDs, lists and times, by the types of its fields.

use rand::{Rng, RngExt};
use serde_json::{Map, Value};

use super::events::Sample;
use crate::event::{FieldSpec, Subject, Type};

/// The number of users for each group.
const USERS_PER_GROUP: u64 = 10;

/// The most users that are added to the list of an example.
const MORE_USERS: usize = 3;

/// The prefix of the IDs of bots.
const BOT: &str = "@RBT#";

/// Makes one body from an example.
pub(super) struct Variation<'r, R> {
    random: &'r mut R,
    now: i64,
    /// The number of the body's group, room or channel.
    place: u64,
    users: u64,
    /// The user IDs of the example and their replacements. An ID has the same replacement
    /// everywhere in the body.
    replaced: Vec<(String, String)>,
    /// Milliseconds that are added to all times.
    shift: i64,
}

impl<'r, R: Rng> Variation<'r, R> {
    /// For one of this number of groups, at `now` (milliseconds since 1970-01-01 UTC).
    pub(super) fn new(random: &'r mut R, groups: u64, now: i64) -> Self {
        let users = groups.saturating_mul(USERS_PER_GROUP);
        Self {
            now,
            place: random.random_range(0..groups),
            users,
            replaced: Vec::new(),
            shift: 0,
            random,
        }
    }

    /// A body of this event, without the signed fields.
    pub(super) fn body(mut self, event: &Sample) -> Map<String, Value> {
        let place = self.random.random_range(0..event.examples.len());
        let example = event.examples.get(place).copied().unwrap_or("{}");
        let mut body: Map<String, Value> = serde_json::from_str(example).expect("it is an object");
        let newest = newest_time(event.fields, &body);
        self.shift = newest.map_or(0, |newest| self.now - newest);
        self.vary(event.fields, &mut body);
        body
    }

    fn vary(&mut self, fields: &'static [FieldSpec], object: &mut Map<String, Value>) {
        let conversation = object.get("conv_type").and_then(Value::as_i64);
        for (name, value) in object {
            let Some(field) = field(fields, name) else {
                continue;
            };
            match (&field.of, value) {
                // An empty string means that the field has no value.
                (_, Value::String(text)) if text.is_empty() => {}
                (Type::Id(subject), Value::String(id)) => {
                    *id = self.id(*subject, conversation, id);
                }
                (Type::ServerId, Value::String(id)) => *id = server_id(self.random, id.len()),
                (Type::Time, time) => *time = self.shifted(time),
                (Type::Users { .. }, Value::Array(users)) => self.vary_users(users),
                (Type::Items { members, .. }, Value::Array(items)) => {
                    for item in items.iter_mut().filter_map(Value::as_object_mut) {
                        self.vary(members, item);
                    }
                }
                _ => {}
            }
        }
    }

    fn id(&mut self, subject: Subject, conversation: Option<i64>, example: &str) -> String {
        let place = self.place;
        match (subject, conversation) {
            (Subject::User, _) | (Subject::Conversation, Some(0) | None) => self.user(example),
            (Subject::Room, _) | (Subject::Conversation, Some(1)) => format!("room-{place}"),
            (Subject::Group, _) | (Subject::Conversation, Some(2)) => format!("group-{place}"),
            (Subject::Conversation, Some(_)) => format!("channel-{place}"),
        }
    }

    fn user(&mut self, example: &str) -> String {
        let known = self.replaced.iter().find(|(known, _)| known == example);
        if let Some((_, user)) = known {
            return user.clone();
        }
        let kind = match example.starts_with(BOT) {
            true => format!("{BOT}bot"),
            false => "user".to_owned(),
        };
        // More than this body has so far.
        let users = self.users.max(2 * self.replaced.len() as u64 + 1);
        let user = loop {
            let user = format!("{kind}-{}", self.random.random_range(0..users));
            if self.replaced.iter().all(|(_, other)| *other != user) {
                break user;
            }
        };
        self.replaced.push((example.to_owned(), user.clone()));
        user
    }

    /// A list of one stays one: who left on their own is alone.
    fn vary_users(&mut self, users: &mut Vec<Value>) {
        let more = match users.len() {
            0 | 1 => 0,
            _ => self.random.random_range(0..=MORE_USERS),
        };
        users.extend((0..more).map(|added| Value::from(format!("added {added}"))));
        for user in users {
            if let Value::String(id) = user {
                *id = self.user(id);
            }
        }
    }

    /// In the unit and the type of the example.
    fn shifted(&self, example: &Value) -> Value {
        let Some((time, milliseconds)) = time(example) else {
            return example.clone();
        };
        let shifted = (time + self.shift) / milliseconds;
        match example {
            Value::String(_) => Value::from(shifted.to_string()),
            _ => Value::from(shifted),
        }
    }
}

/// An ID that ZEGOCLOUD makes: this many digits, of which the first is not 0.
pub(super) fn server_id(random: &mut impl Rng, digits: usize) -> String {
    // Neither 0 nor what exceeds 63 bits.
    let first = random.random_range(1..=8_u8).to_string();
    let others = (1..digits).map(|_| char::from(b'0' + random.random_range(0..10)));
    first.chars().chain(others).collect()
}

/// The field of a member. Those of items have names in other cases, with or without underscores.
fn field(fields: &'static [FieldSpec], name: &str) -> Option<&'static FieldSpec> {
    let folded = |name: &str| name.to_ascii_lowercase().replace('_', "");
    fields
        .iter()
        .find(|field| folded(field.name) == folded(name))
}

/// The newest time in the object, in milliseconds.
fn newest_time(fields: &'static [FieldSpec], object: &Map<String, Value>) -> Option<i64> {
    let times = object.iter().filter_map(|(name, value)| {
        let is_time = matches!(field(fields, name)?.of, Type::Time);
        is_time.then(|| time(value))?
    });
    times.map(|(time, _)| time).max()
}

/// A time in milliseconds, and the milliseconds of its unit; `None` if the value is no time.
fn time(value: &Value) -> Option<(i64, i64)> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let milliseconds = if text.len() > 10 { 1 } else { 1000 };
    let time: i64 = text.parse().ok()?;
    (time > 0).then_some((time * milliseconds, milliseconds))
}
