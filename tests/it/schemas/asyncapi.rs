//! The parts of `schemas/asyncapi.yaml` that follow from the table of events: a channel and an
//! operation for each family, a message for each event.

use strum::VariantArray;
use zim2kafka::event::{EVENTS, Family, Kind};

use super::examples;
use super::json::{Json, list, member, object};
use super::schema;

const BEGIN: &str = "# Derived from src/event: ";
const END: &str = "# End of what is derived.";

/// The document with its derived parts replaced.
pub(super) fn derived(document: &str) -> String {
    let parts = [
        ("channels", channels()),
        ("operations", operations()),
        ("messages", messages()),
        ("keys", keys()),
    ];
    let mut text = String::new();
    let mut rest = document;
    for (name, part) in parts {
        let begin = format!("{BEGIN}{name}\n");
        let (before, after) = rest
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {begin:?}"));
        let (_, after) = after.split_once(END).expect("each part has an end");
        let line = before.rsplit('\n').next().expect("a last line");
        text += &format!("{before}{begin}{}{line}{END}", part.yaml(line.len()));
        rest = after;
    }
    text + rest
}

fn reference(to: impl Into<Json>) -> Json {
    member("$ref", to)
}

fn name_of(family: Family) -> &'static str {
    family.into()
}

/// The name of a message: `message.bot-received` becomes `messageBotReceived`.
fn message_name(kind: &Kind) -> String {
    let id = schema::file_name(kind);
    let mut words = id.split(['-', '.']).take_while(|word| *word != "v1");
    let first = words.next().expect("a word").to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1);
        name + &initial.to_ascii_uppercase() + rest
    })
}

fn of_family(family: Family) -> impl Iterator<Item = &'static Kind> {
    EVENTS.into_iter().filter(move |kind| kind.family == family)
}

fn channels() -> Json {
    let channel = |family: &Family| {
        let name = name_of(*family);
        let messages = of_family(*family).map(|kind| {
            let message = message_name(kind);
            let to = format!("#/components/messages/{message}");
            (message, reference(to))
        });
        let names: Vec<_> = of_family(*family).map(|kind| kind.name).collect();
        let channel = object([
            ("address", Some(format!("zim.{name}").into())),
            ("title", Some(format!("The {name} events").into())),
            (
                "description",
                Some(
                    format!(
                        "Records of {}. The partition is the murmur2 hash of the key.",
                        names.join(", ")
                    )
                    .into(),
                ),
            ),
            (
                "servers",
                Some(Json::List(vec![reference("#/servers/kafka")])),
            ),
            ("messages", Some(Json::Object(messages.collect()))),
            (
                "bindings",
                Some(member(
                    "kafka",
                    object([
                        ("topic", Some(format!("zim.{name}").into())),
                        ("bindingVersion", Some("0.5.0".into())),
                        ("x-partitioner", Some("murmur2".into())),
                    ]),
                )),
            ),
        ]);
        (name.to_owned(), channel)
    };
    Json::Object(Family::VARIANTS.iter().map(channel).collect())
}

fn operations() -> Json {
    let operation = |family: &Family| {
        let name = name_of(*family);
        let of_key = match family {
            Family::Message => "conversation",
            _ => name,
        };
        let (initial, rest) = name.split_at(1);
        let operation = object([
            ("action", Some("receive".into())),
            ("channel", Some(reference(format!("#/channels/{name}")))),
            ("title", Some(format!("Receive the {name} events").into())),
            (
                "description",
                Some(
                    format!(
                        "Your application reads the events of each {of_key} in order. Any number of consumer groups can do so at once, each with its own offsets. Skip an event whose `ce_type` you do not know: others can be added."
                    )
                    .into(),
                ),
            ),
        ]);
        (
            format!("receive{}{rest}", initial.to_ascii_uppercase()),
            operation,
        )
    };
    Json::Object(Family::VARIANTS.iter().map(operation).collect())
}

fn messages() -> Json {
    let message = |kind: &&'static Kind| {
        let title = schema::title_of(kind);
        let only = |value: &str| member("const", value);
        let headers = object([
            ("ce_type", Some(only(kind.ce_type))),
            ("ce_dataschema", Some(only(kind.schema))),
        ]);
        let examples = examples::usual(kind).into_iter().map(|example| {
            let value = example.json();
            object([
                ("name", Some(example.name.as_str().into())),
                ("headers", Some(example.headers())),
                ("payload", Some(value)),
            ])
        });
        let message = object([
            ("name", Some(kind.ce_type.into())),
            ("title", Some(title.into())),
            (
                "summary",
                Some(
                    format!(
                        "`{}`, a CloudEvent 1.0 in the binary mode of the Kafka protocol binding.",
                        kind.name
                    )
                    .into(),
                ),
            ),
            ("contentType", Some("application/json".into())),
            (
                "bindings",
                Some(reference(format!(
                    "#/components/messageBindings/{}",
                    name_of(kind.family)
                ))),
            ),
            (
                "headers",
                Some(object([
                    ("type", Some("object".into())),
                    (
                        "allOf",
                        Some(list([
                            reference("./event-headers.schema.json"),
                            member("properties", headers),
                        ])),
                    ),
                ])),
            ),
            (
                "payload",
                Some(reference(format!("./{}", schema::file_name(kind)))),
            ),
            ("examples", Some(list(examples))),
        ]);
        (message_name(kind), message)
    };
    Json::Object(EVENTS.iter().map(message).collect())
}

/// The key of each family, which all its events have.
fn keys() -> Json {
    let key = |family: &Family| {
        let kind = of_family(*family).next().expect("a family has an event");
        let key = object([
            ("type", Some("string".into())),
            ("minLength", Some(1.into())),
            (
                "description",
                Some(format!("The UTF-8 bytes of {}.", schema::key_of(kind)).into()),
            ),
        ]);
        let binding = object([("bindingVersion", Some("0.5.0".into())), ("key", Some(key))]);
        (name_of(*family).to_owned(), member("kafka", binding))
    };
    Json::Object(Family::VARIANTS.iter().map(key).collect())
}
