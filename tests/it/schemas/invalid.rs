//! Records that the schema of an event refuses: one table of patches, each with the rule that it
//! breaks.

use serde_json::{Value, json};
use zim2kafka::event::{Class, FieldSpec, Kind, Presence, Type, is_omittable};

use super::examples;
use super::json::{Json, object};
use super::schema;

/// A way to break a record.
pub(super) struct Row {
    /// The rule, for people.
    because: String,
    /// Where the keyword that refuses it is in the schema.
    rule: String,
    /// What is replaced or added: a pointer into the record.
    path: String,
    /// By what; `None` removes it.
    value: Option<Json>,
}

/// The file with the table of an event: a record, and patches of it (RFC 6902) of one operation,
/// each on a line.
pub(super) fn table(kind: &Kind) -> String {
    let row = |row: Row| {
        let patch = object([
            (
                "op",
                Some(if row.value.is_some() { "add" } else { "remove" }.into()),
            ),
            ("path", Some(row.path.into())),
            ("value", row.value),
        ]);
        let row = object([
            ("because", Some(row.because.into())),
            ("rule", Some(row.rule.into())),
            ("patch", Some(Json::List(vec![patch]))),
        ]);
        format!("    {}", row.line())
    };
    let rows: Vec<_> = rows(kind).into_iter().map(row).collect();
    format!(
        "{{\n  \"record\": {},\n  \"invalid\": [\n{}\n  ]\n}}\n",
        examples::full(kind).json().line(),
        rows.join(",\n")
    )
}

fn rows(kind: &Kind) -> Vec<Row> {
    let mut rows = in_envelope();
    for name in ["event_id", "event", "appid", "timestamp", "received_at"] {
        rows.push(missing(name, "", ""));
    }
    rows.extend(
        kind.fields
            .iter()
            .flat_map(|field| wrong(field, "/properties", "")),
    );
    for (at, condition) in schema::conditions(kind).iter().enumerate() {
        let (name, other) = (condition.field, condition.other);
        rows.extend(condition.null_with.iter().map(|value| Row {
            because: format!("{name} is null if {other} is {value}"),
            rule: format!("/allOf/{at}/then/properties/{name}/const"),
            path: format!("/{other}"),
            value: Some((*value).into()),
        }));
    }
    rows
}

fn in_envelope() -> Vec<Row> {
    let text = |row: &Json, name: &str| {
        let value = row.get(name).value();
        value.as_str().expect("a string").to_owned()
    };
    let Json::List(rows) = schema::envelope().get("invalid").clone() else {
        panic!("a list");
    };
    let row = |row: &Json| Row {
        because: text(row, "because"),
        rule: text(row, "rule"),
        path: text(row, "path"),
        value: Some(row.get("value").clone()),
    };
    rows.iter().map(row).collect()
}

fn missing(name: &str, rule: &str, path: &str) -> Row {
    Row {
        because: format!("{name} is in every record"),
        rule: format!("{rule}/required"),
        path: format!("{path}/{name}"),
        value: None,
    }
}

/// How a field can be wrong. `rule` leads to its schema and `path` to its object.
fn wrong(field: &FieldSpec, rule: &str, path: &str) -> Vec<Row> {
    let name = field.name;
    let (rule, at) = (format!("{rule}/{name}"), format!("{path}/{name}"));
    let row = |because: &str, keyword: &str, value: Value| Row {
        because: format!("{name} {because}"),
        rule: format!("{rule}/{keyword}"),
        path: at.clone(),
        value: Some(value.into()),
    };
    let is_required = field.presence == Presence::Required;
    let mut rows = match &field.of {
        Type::Id(_) | Type::ServerId => vec![
            row("is a string", "type", json!(7)),
            row("is null rather than empty", "minLength", json!("")),
        ],
        Type::Text => vec![row("is a string", "type", json!(7))],
        Type::Number { .. } => vec![
            row("is a number", "type", json!("1")),
            row("is a whole number", "type", json!(1.5)),
        ],
        Type::Time => vec![
            row("is a number", "type", json!("1757577600123")),
            row("is null rather than 0", "minimum", json!(0)),
            row(
                "has at most 13 digits",
                "maximum",
                json!(17_575_776_001_230_i64),
            ),
        ],
        Type::OneOf(_) => vec![row("is of a closed set", "enum", json!("Another"))],
        Type::Users { .. } => {
            let mut rows = vec![
                row("is a list", "type", json!("u_ada")),
                row("has strings", "items/type", json!([7])),
                row("has no empty ID", "items/minLength", json!(["u_ada", ""])),
            ];
            rows.extend(is_required.then(|| row("is not empty", "minItems", json!([]))));
            rows
        }
        Type::Items {
            members,
            empty_is_null,
        } => {
            let mut rows = vec![
                row("is a list", "type", json!({})),
                row("has objects", "items/type", json!([7])),
            ];
            let empty = || row("is null rather than empty", "minItems", json!([]));
            rows.extend(empty_is_null.then(empty));
            rows.extend(wrong_in_items(members, &rule, &at));
            rows
        }
    };
    if is_required && !matches!(field.of, Type::OneOf(_)) {
        rows.push(row("is not null", "type", json!(null)));
    }
    // In an object that is refused for its own fields.
    if field.class == Class::Fact && !is_omittable(name) && path.is_empty() {
        rows.push(missing(name, "", ""));
    }
    rows
}

fn wrong_in_items(members: &'static [FieldSpec], rule: &str, path: &str) -> Vec<Row> {
    let (rule, path) = (format!("{rule}/items"), format!("{path}/0"));
    let mut rows = Vec::new();
    for member in members {
        rows.extend(wrong(member, &format!("{rule}/properties"), &path));
        if member.class == Class::Fact && !is_omittable(member.name) {
            rows.push(missing(member.name, &rule, &path));
        }
    }
    // An item has an extra like that of the record.
    let extra = in_envelope().into_iter().filter(|row| row.path == "/extra");
    rows.extend(extra.map(|row| Row {
        because: format!("in an item, {}", row.because),
        rule: format!("{rule}{}", row.rule),
        path: format!("{path}{}", row.path),
        value: row.value,
    }));
    rows
}
