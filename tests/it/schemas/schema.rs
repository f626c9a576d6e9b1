//! The schema of an event's records, from the table of its fields.

use serde_json::json;
use zim2kafka::event::{Class, FieldSpec, Kind, Presence, Subject, Type, is_omittable};

use super::json::{Json, list, member, object};

const COMMENT: &str = "Derived from src/event, and compared with it by tests. Uses only keywords that mean the same in draft-07, because AsyncAPI 3.0, whose document refers to this file, reads a schema as that draft. The top level and items are open, so that a field can be added without a new version: consumers ignore unknown fields. A breaking change gets a new file, a new $id and a new ce_type. A field that ZIM2KAFKA_OMIT can leave out is not required.";

/// The fields that every record has, and how each can be invalid.
pub(super) fn envelope() -> Json {
    Json::parse(include_str!("envelope.json"))
}

/// The schema of an event's records.
pub(super) fn of(kind: &Kind, examples: Vec<Json>) -> Json {
    let envelope = envelope();
    let mut properties = Vec::new();
    let mut required: Vec<String> = Vec::new();
    for (name, property) in envelope.get("properties").members() {
        let mut property = property.clone();
        if let ("event", Json::Object(keywords)) = (name.as_str(), &mut property) {
            keywords.push(("const".to_owned(), kind.name.into()));
        }
        properties.push((name.clone(), property));
        if !["omitted", "extra"].contains(&name.as_str()) {
            required.push(name.clone());
        }
        if name == "appid" {
            properties.extend(kind.fields.iter().map(described));
            required.extend(required_of(kind.fields).map(str::to_owned));
        }
    }
    let conditions: Vec<_> = conditions(kind).iter().map(Condition::schema).collect();
    object([
        (
            "$schema",
            Some("https://json-schema.org/draft/2020-12/schema".into()),
        ),
        ("$id", Some(kind.schema.into())),
        ("$comment", Some(COMMENT.into())),
        (
            "title",
            Some(format!("{}, version 1", title_of(kind)).into()),
        ),
        ("description", Some(description(kind).into())),
        ("type", Some("object".into())),
        ("required", Some(list(required))),
        ("properties", Some(Json::Object(properties))),
        ("propertyNames", Some(envelope.get("propertyNames").clone())),
        (
            "allOf",
            (!conditions.is_empty()).then_some(Json::List(conditions)),
        ),
        ("examples", Some(Json::List(examples))),
    ])
}

/// The first sentence of an event's description, without the full stop.
pub(super) fn title_of(kind: &Kind) -> &'static str {
    kind.about
        .split(". ")
        .next()
        .expect("a text")
        .trim_end_matches('.')
}

/// The key of an event's records.
pub(super) fn key_of(kind: &Kind) -> String {
    match kind.family.key_fields() {
        [field] => (*field).to_owned(),
        _ => "conv_id; for a one-to-one message (conv_type 0) the RFC 8785 (JCS) text of the list of the two user IDs, sorted bytewise: from_user_id and conv_id, or the one receiver in user_list if conv_id is null; with no or several receivers, from_user_id".to_owned(),
    }
}

fn description(kind: &Kind) -> String {
    let mut id = vec!["appid".to_owned(), format!("{:?}", kind.name)];
    for name in kind.identity {
        let field = kind.fields.iter().find(|field| field.name == *name);
        id.push(match field.map(|field| &field.of) {
            Some(Type::Items { members, .. }) => {
                let is_id = |member: &&FieldSpec| matches!(member.of, Type::Id(_) | Type::ServerId);
                let ids: Vec<_> = members
                    .iter()
                    .filter(is_id)
                    .map(|member| member.name)
                    .collect();
                format!("{name} as a list of [{}]", ids.join(","))
            }
            _ => (*name).to_owned(),
        });
    }
    id.push(match kind.identity_time {
        Some(time) => format!("{time}, or timestamp if that is null"),
        None => "timestamp".to_owned(),
    });
    let without_ids = match kind.identity_without_ids {
        [] => String::new(),
        more => format!(
            " If no message ID is known, timestamp,{} follow; two messages may then have one id, and deduplication is not safe.",
            more.join(",")
        ),
    };
    format!(
        "The value of a record: one authenticated callback of ZEGOCLOUD In-app Chat (ZIM). {} Source: {}{}. The record's key is the UTF-8 bytes of {}. event_id is computed from [{}]; a number beyond 2^53 is a string there.{without_ids} Delivery is at least once. The sender's signature covers the timestamp and no other field: it only proves that the sender made a callback with this timestamp.",
        kind.about,
        Kind::PAGES,
        kind.page,
        key_of(kind),
        id.join(","),
    )
}

/// The fields that are in every record.
fn required_of(fields: &'static [FieldSpec]) -> impl Iterator<Item = &'static str> {
    let is_required = |field: &&FieldSpec| field.class == Class::Fact && !is_omittable(field.name);
    fields.iter().filter(is_required).map(|field| field.name)
}

fn is_nullable(field: &FieldSpec) -> bool {
    field.presence != Presence::Required
}

/// The name of a field and its schema.
fn described(field: &FieldSpec) -> (String, Json) {
    let is_nullable = is_nullable(field);
    let type_name = match &field.of {
        Type::Id(_) | Type::ServerId | Type::Text | Type::OneOf(_) => "string",
        Type::Number { .. } | Type::Time => "integer",
        Type::Users { .. } | Type::Items { .. } => "array",
    };
    let first = match is_nullable {
        true => list([type_name, "null"]),
        false => type_name.into(),
    };
    let mut keywords = vec![
        ("title".to_owned(), title(field.name).into()),
        ("description".to_owned(), text(field).into()),
        ("type".to_owned(), first),
    ];
    keywords.extend(rules(field).members().iter().cloned());
    (field.name.to_owned(), Json::Object(keywords))
}

/// The rules of a field beside its type.
fn rules(field: &FieldSpec) -> Json {
    let not_empty = || {
        object([
            ("type", Some("string".into())),
            ("minLength", Some(1.into())),
        ])
    };
    match &field.of {
        Type::Id(_) | Type::ServerId => member("minLength", 1),
        Type::Number { .. } | Type::Text => object([]),
        Type::Time => object([
            ("minimum", Some(1.into())),
            ("maximum", Some(9_999_999_999_999_i64.into())),
        ]),
        Type::OneOf(values) => {
            let null = is_nullable(field).then_some(json!(null));
            let values = values.iter().map(|value| json!(value)).chain(null);
            member("enum", list(values))
        }
        Type::Users { .. } => object([
            ("minItems", (!is_nullable(field)).then_some(1.into())),
            ("items", Some(not_empty())),
        ]),
        Type::Items {
            members,
            empty_is_null,
        } => object([
            ("minItems", empty_is_null.then_some(1.into())),
            ("items", Some(item(members))),
        ]),
    }
}

fn item(members: &'static [FieldSpec]) -> Json {
    let mut properties: Vec<_> = members.iter().map(described).collect();
    let extra = envelope().get("properties").get("extra").clone();
    properties.push(("extra".to_owned(), extra));
    let required: Vec<_> = required_of(members).collect();
    object([
        ("type", Some("object".into())),
        ("required", (!required.is_empty()).then(|| list(required))),
        ("properties", Some(Json::Object(properties))),
    ])
}

/// A field that is null unless another one has a certain value.
pub(super) struct Condition {
    pub(super) field: &'static str,
    pub(super) other: &'static str,
    /// The values of the other field with which this one is null.
    pub(super) null_with: Vec<&'static str>,
}

/// The conditions of an event, in the order of its schema.
pub(super) fn conditions(kind: &Kind) -> Vec<Condition> {
    let condition = |field: &FieldSpec| {
        let (other, value) = field.only_with?;
        let of_other = kind.fields.iter().find(|field| field.name == other);
        let Some(Type::OneOf(values)) = of_other.map(|field| &field.of) else {
            panic!("{}: {other} is not of a closed set", field.name);
        };
        let others = values.iter().copied().filter(|other| *other != value);
        Some(Condition {
            field: field.name,
            other,
            null_with: others.collect(),
        })
    };
    kind.fields.iter().filter_map(condition).collect()
}

impl Condition {
    fn schema(&self) -> Json {
        let only = |name: &str, rule: Json| member("properties", member(name, rule));
        let Json::Object(mut condition) =
            only(self.other, member("enum", list(self.null_with.clone())))
        else {
            unreachable!("it has members");
        };
        condition.push(("required".to_owned(), list([self.other])));
        object([
            ("if", Some(Json::Object(condition))),
            ("then", Some(only(self.field, member("const", json!(null))))),
        ])
    }
}

/// `new_user_ids` is "New user IDs".
fn title(name: &str) -> String {
    let words = name.split('_').map(|word| match word {
        "id" => "ID",
        "ids" => "IDs",
        "os" => "OS",
        "msg" => "message",
        "conv" => "conversation",
        "seq" => "number",
        word => word,
    });
    let title = words.collect::<Vec<_>>().join(" ");
    let (first, rest) = title.split_at(1);
    first.to_ascii_uppercase() + rest
}

fn text(field: &FieldSpec) -> String {
    let kept = "zim2kafka does not enforce that. Compare it byte for byte; do not trim, decode or case-fold it.";
    let characters = "! # $ % & ( ) + - : ; < = . > ? @ [ ] ^ _ { } | ~";
    let id = |of: &str| {
        format!(
            "ZEGOCLOUD documents 1 to 32 bytes of letters, digits{of} {characters}, and can raise the limit for an account. {kept}"
        )
    };
    let of_type = match &field.of {
        Type::Id(Subject::User) => id(", blanks and"),
        Type::Id(Subject::Group) => {
            format!("{} A leading # marks IDs that ZEGOCLOUD generated.", id(" and"))
        }
        Type::Id(Subject::Room) => id(", blanks, commas and"),
        Type::Id(Subject::Conversation) => {
            format!("The ID of a user, a room, a group or a channel: {kept}")
                .replace("zim2kafka does not enforce that. C", "c")
        }
        Type::ServerId => {
            "An ID that ZEGOCLOUD generated, of 13 to 19 digits; a string, because it can exceed 2^53."
                .to_owned()
        }
        Type::Number { .. } => {
            "A whole number. All digits are kept, also beyond 2^53.".to_owned()
        }
        Type::Time => "By ZEGOCLOUD's clock. If the callback had seconds, it ends in 000.".to_owned(),
        Type::Text => "The text as received.".to_owned(),
        Type::Users { .. } => {
            "The user IDs as in the callback, in the same order and with repetitions. Compare them byte for byte.".to_owned()
        }
        Type::OneOf(_) => String::new(),
        Type::Items { .. } => {
            "Each item's unknown members are in its extra.".to_owned()
        }
    };
    let null = match (&field.only_with, &field.of) {
        _ if !is_nullable(field) => "",
        (Some(_), _) => "Null also if the callback had none.",
        (None, Type::Number { default: Some(_) }) => {
            "Null if the callback had null or an empty text."
        }
        (None, _) => "Null if the callback had none.",
    };
    let class = match field.class {
        Class::Fact => "",
        Class::Content => "ZIM2KAFKA_OMIT=content leaves it out.",
        Class::UserName => "ZIM2KAFKA_OMIT=user_name leaves it out.",
    };
    let texts = [field.about, &of_type, null, class];
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join(" ")
}

/// The file of an event's schema: `call.timed-out` is in `call-timed-out.v1.schema.json`.
pub(super) fn file_name(kind: &Kind) -> String {
    format!("{}.schema.json", stem(kind))
}

/// The part of an event's files that is its own, with the version.
pub(super) fn stem(kind: &Kind) -> String {
    let name = kind.ce_type.strip_prefix("com.zegocloud.zim.");
    let name = name.and_then(|name| name.strip_suffix(".v1"));
    let name = name.unwrap_or_else(|| panic!("{} is not a ce_type", kind.ce_type));
    let name = name.replace('.', "-");
    assert_eq!(kind.schema, format!("urn:zim2kafka:schema:{name}:v1"));
    format!("{name}.v1")
}
