//! Valid records of an event, made by the library of the bodies in its table.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, sign};
use zim2kafka::event::{
    self, Class, EVENTS, FieldSpec, Kind, Omit, Policy, Presence, Record, Type, is_omittable,
};

use super::json::Json;

const TIMESTAMP: &str = "1757577646789";
const RECEIVED_AT: i64 = 1_757_577_646_876;
const NONCE: &str = "350176";

/// IDs that a consumer may wrongly trim, decode or split. They are examples of `group_join`, the
/// oldest event.
const HOSTILE: &[(&str, &str)] = &[
    (
        "group_join",
        r##"{"event":"group_join","group_id":"a+b%25&=~#<>","join_type":"Apply","new_user_ids":["O'Neil","张伟","😀"]}"##,
    ),
    (
        "group_join",
        r##"{"event":"group_join","group_id":"#srv\\\"q","join_type":"Invited","new_user_ids":["t\tb"," a b "]}"##,
    ),
];

/// A record and what it shows.
pub(super) struct Example {
    pub(super) name: String,
    pub(super) record: Record,
}

impl Example {
    /// The value of the record, in its order.
    pub(super) fn json(&self) -> Json {
        Json::parse(str::from_utf8(&self.record.value).expect("UTF-8"))
    }

    /// The headers of the record.
    pub(super) fn headers(&self) -> Json {
        let text = |value: &[u8]| Json::from(str::from_utf8(value).expect("UTF-8"));
        let headers = self.record.headers.iter();
        Json::Object(
            headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        )
    }
}

/// The usual records: those of the table.
pub(super) fn usual(kind: &Kind) -> Vec<Example> {
    let bodies = kind.examples.iter().map(|text| parsed(text));
    (1..)
        .zip(bodies)
        .map(|(number, body)| example(kind, format!("usual-{number}"), &body))
        .collect()
}

/// The record with a value in as many fields as it can have.
pub(super) fn full(kind: &Kind) -> Example {
    example(kind, "every-field".to_owned(), &full_body(kind))
}

/// All examples.
pub(super) fn all(kind: &Kind) -> Vec<Example> {
    let mut all = usual(kind);
    all.push(full(kind));
    let few = body_with_few_fields(kind);
    all.push(example(
        kind,
        "few-fields-and-an-unknown-one".to_owned(),
        &few,
    ));
    let mut body = full_body(kind);
    body.insert("unknown".to_owned(), json!("text"));
    let policy = Policy {
        omit: everything(),
        tolerance: None,
    };
    all.push(Example {
        name: "left-out".to_owned(),
        record: record(kind, &body, &policy).expect("it is valid"),
    });
    let hostile = HOSTILE.iter().filter(|(event, _)| *event == kind.name);
    for (number, (_, text)) in (1..).zip(hostile) {
        all.push(example(
            kind,
            format!("hostile-ids-{number}"),
            &parsed(text),
        ));
    }
    all
}

/// The file with the examples of an event.
pub(super) fn file(kind: &Kind) -> Json {
    let examples = all(kind);
    Json::Object(
        examples
            .iter()
            .map(|example| (example.name.clone(), example.json()))
            .collect(),
    )
}

fn parsed(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("an example is a JSON object")
}

fn example(kind: &Kind, name: String, body: &Map<String, Value>) -> Example {
    let record = record(kind, body, &Policy::default());
    Example {
        name,
        record: record.unwrap_or_else(|why| panic!("{}: {why}", kind.name)),
    }
}

/// The record of a body, signed.
pub(super) fn record(
    kind: &Kind,
    body: &Map<String, Value>,
    policy: &Policy,
) -> Result<Record, String> {
    let mut body = body.clone();
    let signature = sign("secret", TIMESTAMP, NONCE).to_hex();
    let signed = [
        ("appid", "123456789"),
        ("timestamp", TIMESTAMP),
        ("nonce", NONCE),
    ];
    for (name, value) in signed
        .into_iter()
        .chain([("signature", signature.as_str())])
    {
        body.insert(name.to_owned(), value.into());
    }
    let raw = RawCallback {
        body: Value::from(body).to_string().into(),
        content_type: None,
        trace: None,
        received_at: RECEIVED_AT,
    };
    let json = raw.json().expect("it is JSON");
    let unverified = json.decode().expect("it has what is signed");
    let callback = Secrets::parse_list("*=secret")
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .expect("it is signed");
    let found = event::kind_of(&callback).map_err(|why| why.detail.into_owned())?;
    assert_eq!(found.name, kind.name);
    kind.record(&callback, policy)
        .map_err(|why| why.detail.into_owned())
}

/// The first body of the table, with a value for each field that is null in its record.
fn full_body(kind: &Kind) -> Map<String, Value> {
    let mut body = parsed(kind.examples.first().expect("an example"));
    let record = example(kind, String::new(), &body).json();
    for field in kind.fields {
        if *record.get(field.name) == Json::Scalar(Value::Null) && field.only_with.is_none() {
            body.insert(field.name.to_owned(), sample(field));
        }
    }
    body
}

/// The first body of the table without the fields that it need not have, and with an unknown one.
fn body_with_few_fields(kind: &Kind) -> Map<String, Value> {
    let mut body = parsed(kind.examples.first().expect("an example"));
    for field in kind
        .fields
        .iter()
        .filter(|field| field.presence != Presence::Required)
    {
        let mut without = body.clone();
        without.remove(field.name);
        // Without a conversation, a message in a group has no key.
        if record(kind, &without, &Policy::default()).is_ok() {
            body = without;
        }
    }
    body.insert(
        "unknown".to_owned(),
        json!({"number": 9_007_199_254_740_993_u64, "none": null}),
    );
    body
}

/// A value that the field may have.
pub(super) fn sample(field: &FieldSpec) -> Value {
    match &field.of {
        Type::Id(_) => json!("u_ada"),
        Type::ServerId => json!("857639062792568901"),
        // More than a double holds.
        Type::Number { .. } => json!(9_007_199_254_740_993_u64),
        Type::Time => json!(1_757_577_641_000_u64),
        Type::Text => json!("text"),
        Type::Users { .. } => json!(["u_ada"]),
        Type::OneOf(values) => json!(values[0]),
        Type::Items { members, .. } => {
            let members = members
                .iter()
                .map(|member| (member.name.to_owned(), sample(member)));
            let unknown = ("unknown".to_owned(), json!(true));
            json!([members.chain([unknown]).collect::<Map<_, _>>()])
        }
    }
}

/// Leaves out everything that can be left out.
pub(super) fn everything() -> Omit {
    let fields = EVENTS
        .iter()
        .flat_map(|kind| kind.fields)
        .flat_map(|field| {
            let members: &[FieldSpec] = match &field.of {
                Type::Items { members, .. } => members,
                _ => &[],
            };
            members.iter().chain([field])
        });
    let omittable = fields
        .map(|field| field.name)
        .filter(|name| is_omittable(name));
    Omit {
        content: true,
        user_name: true,
        extra: true,
        fields: BTreeSet::from_iter(omittable),
    }
}

/// No class contains a field that the key or the id needs.
#[test]
fn what_a_class_leaves_out_identifies_no_event() {
    let fields = EVENTS.iter().flat_map(|kind| kind.fields);
    for field in fields.filter(|field| field.class != Class::Fact) {
        assert!(is_omittable(field.name), "{}", field.name);
    }
}
