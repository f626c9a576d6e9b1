//! The value of a field, read by its type.

use std::borrow::Cow;

use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;

use super::extra::Extra;
use super::field::{FieldSpec, Presence, Type};
use super::omit::Omit;
use crate::callback::{self, Field};

/// The most digits of a whole number: with more, it could exceed the range of a double.
const MAX_DIGITS: usize = 308;

/// Every whole number up to this one is exactly a double.
const MAX_EXACT: u64 = 1 << 53;

/// A value as it is published.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    /// An ID or a text.
    Text(Cow<'a, str>),
    /// The digits of a whole number, without leading zeros.
    Number(Cow<'a, str>),
    /// Milliseconds since 1970-01-01 UTC.
    Time(i64),
    Users(Vec<Cow<'a, str>>),
    Items(Vec<Item<'a>>),
}

/// An element of [`Type::Items`].
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    /// All that the table has.
    pub(super) members: Vec<Member<'a>>,
    pub(super) extra: Extra<'a>,
}

/// A member of an [`Item`].
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    pub(super) spec: &'static FieldSpec,
    pub(super) value: Value<'a>,
    /// Whether the callback had it, and not as null.
    pub(super) is_carried: bool,
}

/// What is wrong with a field, for the detail of a dead letter.
pub(super) type Expected = Cow<'static, str>;

impl<'a> Value<'a> {
    /// Reads the value of a field; `None` if the callback does not have it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without its name.
    pub(super) fn read(spec: &FieldSpec, field: Option<&Field<'a>>) -> Result<Self, Expected> {
        let value = match field {
            None => missing(spec),
            Some(field) if field.is_null() => Ok(Self::Null),
            Some(field) => Self::of(spec, field),
        };
        match value {
            Ok(Self::Null) if spec.presence == Presence::Required => Err(expected(spec)),
            value => value,
        }
    }

    /// Reads a value that is not null.
    fn of(spec: &FieldSpec, field: &Field<'a>) -> Result<Self, Expected> {
        let raw = field.value;
        let is_wrong = || expected(spec);
        // An empty required value becomes null here, and `read` refuses it like a missing one.
        let is_empty = raw.get() == r#""""# && spec.presence != Presence::OptionalNotEmpty;
        match &spec.of {
            Type::Id(_) | Type::ServerId | Type::Number { .. } | Type::Time if is_empty => {
                Ok(Self::Null)
            }
            Type::Id(_) => id(raw).map(Self::Text).ok_or_else(is_wrong),
            Type::ServerId => match digits(raw) {
                Some(digits) => Ok(Self::Text(Cow::Borrowed(digits))),
                None => field.text().map(Self::Text).ok_or_else(is_wrong),
            },
            Type::Number { .. } => text_or_number(field)
                .and_then(whole_number)
                .map(Self::Number)
                .ok_or_else(is_wrong),
            Type::Time => text_or_number(field)
                .and_then(|text| time(&text))
                .ok_or_else(is_wrong),
            Type::Text => callback::lossy_string(raw.get())
                .map(Self::Text)
                .ok_or_else(is_wrong),
            Type::Users { one_string } => {
                let users = users(field, *one_string).ok_or_else(is_wrong)?;
                match users.is_empty() && spec.presence == Presence::Required {
                    true => Err(is_wrong()),
                    false => Ok(Self::Users(users)),
                }
            }
            Type::OneOf(values) => (field.text())
                .filter(|text| values.contains(&text.as_ref()))
                .map(Self::Text)
                .ok_or_else(is_wrong),
            Type::Items {
                members,
                empty_is_null,
            } => match items(field, members)? {
                items if items.is_empty() && *empty_is_null => Ok(Self::Null),
                items => Ok(Self::Items(items)),
            },
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            _ => None,
        }
    }

    fn into_owned(self) -> Value<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => Value::Text(owned(text)),
            Self::Number(text) => Value::Number(owned(text)),
            Self::Time(time) => Value::Time(time),
            Self::Users(users) => Value::Users(users.into_iter().map(owned).collect()),
            Self::Items(items) => Value::Items(items.into_iter().map(Item::into_owned).collect()),
        }
    }
}

fn missing<'a>(spec: &FieldSpec) -> Result<Value<'a>, Expected> {
    Ok(match spec.of {
        Type::Number {
            default: Some(default),
        } => Value::Number(Cow::Borrowed(default)),
        _ => Value::Null,
    })
}

/// The detail of a dead letter whose field is not of its type.
fn expected(spec: &FieldSpec) -> Expected {
    let text = match spec.of {
        Type::Id(_) => "is not a string of at least one character",
        Type::ServerId => "is not a string of at least one character, nor a whole number",
        Type::Number { .. } => "is not a whole number",
        Type::Time => "is not a time of 10 digits (seconds) or 13 digits (milliseconds)",
        Type::Text => "is not a string",
        Type::Users { .. } if spec.presence == Presence::Required => {
            "is not a list of user IDs with at least one in it"
        }
        Type::Users { .. } => "is not a list of user IDs",
        Type::OneOf(values) => return format!("is neither {}", alternatives(values)).into(),
        Type::Items { .. } => "is not a list of objects",
    };
    text.into()
}

fn alternatives(values: &[&str]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    quoted.join(" nor ")
}

/// The characters of a number token that is a whole number without a sign.
fn digits(value: &RawValue) -> Option<&str> {
    let text = value.get();
    let is_whole = text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then_some(text)
}

fn text_or_number<'a>(field: &Field<'a>) -> Option<Cow<'a, str>> {
    match field.value.get().as_bytes() {
        [b'0'..=b'9' | b'-', ..] => Some(Cow::Borrowed(field.value.get())),
        _ => field.text(),
    }
}

/// The number without leading zeros: JSON forbids them, and equal numbers must have equal texts.
fn whole_number(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_whole = (1..=MAX_DIGITS).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_whole {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    Some(match significant {
        "" => Cow::Borrowed("0"),
        _ if significant.len() == digits.len() => text,
        _ if text.starts_with('-') => Cow::Owned(format!("-{significant}")),
        _ => Cow::Owned(significant.to_owned()),
    })
}

fn time<'a>(digits: &str) -> Option<Value<'a>> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    match (number, digits.len()) {
        (0, _) => Some(Value::Null),
        (_, 10) => Some(Value::Time(number * 1000)),
        (_, 13) => Some(Value::Time(number)),
        _ => None,
    }
}

fn id(value: &RawValue) -> Option<Cow<'_, str>> {
    callback::string(value).filter(|id| !id.is_empty())
}

fn ids(json: &str) -> Option<Vec<Cow<'_, str>>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let ids: Vec<Text<'_>> = serde_json::from_str(json).ok()?;
    let ids: Vec<_> = ids.into_iter().map(|Text(id)| id).collect();
    ids.iter().all(|id| !id.is_empty()).then_some(ids)
}

/// A list of user IDs, none of them empty. In a form, a value without brackets behind its name may be
/// the JSON text of a list.
fn users<'a>(field: &Field<'a>, one_string: bool) -> Option<Vec<Cow<'a, str>>> {
    let json = field.value.get();
    let Some(unbracketed) = field.unbracketed else {
        return match id(field.value) {
            Some(user) if one_string => Some(vec![user]),
            Some(_) => None,
            None => ids(json),
        };
    };
    let values = match callback::string(field.value) {
        Some(value) => vec![value],
        None => serde_json::from_str(json).ok()?,
    };
    let mut users = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let list: Option<&RawValue> = (at < unbracketed)
            .then(|| serde_json::from_str(&value).ok())
            .flatten();
        match list.filter(|list| list.get().starts_with('[')) {
            Some(list) => users.extend(ids(list.get())?.into_iter().map(owned)),
            None if value.is_empty() => return None,
            None => users.push(value),
        }
    }
    Some(users)
}

fn owned<'a>(text: Cow<'_, str>) -> Cow<'a, str> {
    Cow::Owned(text.into_owned())
}

/// A list of objects. In a form, it is the JSON text of one.
fn items<'a>(field: &Field<'a>, members: &'static [FieldSpec]) -> Result<Vec<Item<'a>>, Expected> {
    if field.unbracketed.is_none() {
        return items_of(field.value.get(), members);
    }
    let text = callback::string(field.value).ok_or(NOT_OBJECTS)?;
    let items = items_of(&text, members)?;
    Ok(items.into_iter().map(Item::into_owned).collect())
}

const NOT_OBJECTS: Expected = Cow::Borrowed("is not a list of objects");

fn items_of<'a>(json: &'a str, members: &'static [FieldSpec]) -> Result<Vec<Item<'a>>, Expected> {
    let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| NOT_OBJECTS)?;
    let item = |item: &'a RawValue| {
        let fields = callback::members(item).ok_or(NOT_OBJECTS)?;
        Item::read(fields, members).map_err(|problem| format!("has an item whose {problem}").into())
    };
    items.into_iter().map(item).collect()
}

impl<'a> Item<'a> {
    fn read(fields: Vec<Field<'a>>, members: &'static [FieldSpec]) -> Result<Self, String> {
        let mut known: Vec<Option<Field<'a>>> = members.iter().map(|_| None).collect();
        let mut extra = Vec::new();
        for field in fields {
            let place = (members.iter().zip(&mut known))
                .find(|(spec, _)| folded(spec.name).eq(folded(&field.name)));
            match place {
                Some((_, known @ None)) => *known = Some(field),
                Some((spec, Some(_))) => return Err(format!("{} is repeated", spec.name)),
                None if callback::is_signed_field(&field.name) => {}
                None => extra.push(field),
            }
        }
        let members = (members.iter().zip(&known)).map(|(spec, field)| {
            let value = Value::read(spec, field.as_ref());
            Ok(Member {
                spec,
                value: value.map_err(|problem| format!("{} {problem}", spec.name))?,
                is_carried: field.as_ref().is_some_and(|field| !field.is_null()),
            })
        });
        Ok(Self {
            members: members.collect::<Result<_, String>>()?,
            extra: Extra::of(extra.iter().collect()),
        })
    }

    fn into_owned(self) -> Item<'static> {
        let members = self.members.into_iter().map(|member| Member {
            spec: member.spec,
            value: member.value.into_owned(),
            is_carried: member.is_carried,
        });
        Item {
            members: members.collect(),
            extra: self.extra.into_owned(),
        }
    }
}

/// A name without case and underscores: `UserId` and `user_id` are one.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes()
        .filter(|byte| *byte != b'_')
        .map(|byte| byte.to_ascii_lowercase())
}

/// A value in a record, without what is omitted.
pub(super) struct Published<'v, 'a> {
    pub(super) value: &'v Value<'a>,
    pub(super) omit: &'v Omit,
}

impl Serialize for Published<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Number(digits) => match digits.parse::<i64>() {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => RawValue::from_string(digits.clone().into_owned())
                    .expect("digits are a JSON number")
                    .serialize(serializer),
            },
            Value::Time(time) => serializer.serialize_i64(*time),
            Value::Users(users) => users.serialize(serializer),
            Value::Items(items) => serializer.collect_seq(items.iter().map(|item| PublishedItem {
                item,
                omit: self.omit,
            })),
        }
    }
}

struct PublishedItem<'v, 'a> {
    item: &'v Item<'a>,
    omit: &'v Omit,
}

impl Serialize for PublishedItem<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { item, omit } = self;
        let mut map = serializer.serialize_map(None)?;
        for Member { spec, value, .. } in &item.members {
            if !omit.leaves_out(spec) {
                map.serialize_entry(spec.name, &Published { value, omit })?;
            }
        }
        if !item.extra.is_empty() && !omit.leaves_out_extra() {
            map.serialize_entry("extra", &item.extra)?;
        }
        map.end()
    }
}

/// A value in the text of an event's id, which is canonical (RFC 8785): `serde_json` escapes strings
/// in the same way, and a number that a double may not represent is a string. An item is the list of
/// its IDs.
pub(super) struct InId<'v, 'a>(pub(super) &'v Value<'a>);

impl Serialize for InId<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(digits) => match digits.parse::<i64>() {
                Ok(number) if number.unsigned_abs() <= MAX_EXACT => {
                    serializer.serialize_i64(number)
                }
                _ => serializer.serialize_str(digits),
            },
            Value::Items(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    let ids: Vec<_> = item.ids().map(InId).collect();
                    list.serialize_element(&ids)?;
                }
                list.end()
            }
            value => Published {
                value,
                omit: &Omit::NOTHING,
            }
            .serialize(serializer),
        }
    }
}

impl<'a> Item<'a> {
    /// The values of its members that are IDs.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Value<'a>> {
        (self.members.iter())
            .filter(|member| matches!(member.spec.of, Type::Id(_) | Type::ServerId))
            .map(|member| &member.value)
    }
}
