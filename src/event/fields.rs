//! The fields of a callback, read by the table of its event.

use std::collections::BTreeSet;

use super::Unpublishable;
use super::extra::Extra;
use super::field::{FieldSpec, Type};
use super::omit::Omit;
use super::value::Value;
use crate::callback::{Field, VerifiedCallback};

/// The values of an event's fields, and the fields that its table does not know.
pub(super) struct Fields<'a> {
    specs: &'static [FieldSpec],
    /// In the order of `specs`.
    values: Vec<Value<'a>>,
    /// In the order of `specs`.
    received: Vec<Option<&'a Field<'a>>>,
    pub(super) extra: Extra<'a>,
    /// The signed timestamp, in milliseconds since 1970-01-01 UTC.
    pub(super) timestamp: i64,
}

impl<'a> Fields<'a> {
    /// Reads the fields of a callback.
    ///
    /// # Errors
    ///
    /// The first problem: the encoding, a known field that is repeated, one that is not of its type.
    pub(super) fn read(
        specs: &'static [FieldSpec],
        callback: &'a VerifiedCallback<'a>,
    ) -> Result<Self, Unpublishable> {
        if !callback.is_valid_utf8() {
            return Err(Unpublishable::invalid("the body is not valid UTF-8"));
        }
        let mut received: Vec<Option<&Field<'_>>> = vec![None; specs.len()];
        let mut extra = Vec::new();
        for field in callback.fields() {
            let place = (specs.iter().zip(&mut received)).find(|(spec, _)| spec.name == field.name);
            match place {
                // The name of the event was read before.
                None if field.name == "event" => {}
                None => extra.push(field),
                Some((spec, known @ None)) if spec.is_list() || !field.is_repeated() => {
                    *known = Some(field);
                }
                Some((spec, _)) => return Err(Unpublishable::repeated(spec.name)),
            }
        }
        let mut fields = Self {
            specs,
            values: vec![Value::Null; specs.len()],
            received,
            extra: Extra::of(extra),
            timestamp: callback.timestamp(),
        };
        // Others depend on the ones with a closed set of values.
        fields.read_values(|spec| matches!(spec.of, Type::OneOf(_)))?;
        fields.read_values(|spec| !matches!(spec.of, Type::OneOf(_)))?;
        Ok(fields)
    }

    fn read_values(&mut self, is_due: impl Fn(&FieldSpec) -> bool) -> Result<(), Unpublishable> {
        for at in 0..self.specs.len() {
            let (Some(spec), Some(field)) = (self.specs.get(at), self.received.get(at)) else {
                continue;
            };
            let has_meaning = |(field, value)| self.text(field) == Some(value);
            if !is_due(spec) || !spec.only_with.is_none_or(has_meaning) {
                continue;
            }
            let read = Value::read(spec, *field)
                .map_err(|problem| Unpublishable::invalid(format!("{} {problem}", spec.name)))?;
            if let Some(value) = self.values.get_mut(at) {
                *value = read;
            }
        }
        Ok(())
    }

    /// Reads what is readable of the fields with these names, for the key of a dead letter.
    pub(super) fn read_leniently(
        specs: &'static [FieldSpec],
        names: &[&str],
        fields: &[Field<'a>],
        timestamp: i64,
    ) -> Self {
        let value = |spec: &FieldSpec| {
            let mut fields = fields.iter();
            let field = fields.find(|field| field.name == spec.name && names.contains(&spec.name));
            match field.filter(|field| field.is_repeated() && !spec.is_list()) {
                Some(field) => field.first_text().map_or(Value::Null, Value::Text),
                None => Value::read(spec, field).unwrap_or(Value::Null),
            }
        };
        Self {
            specs,
            values: specs.iter().map(value).collect(),
            received: Vec::new(),
            extra: Extra::default(),
            timestamp,
        }
    }

    /// The fields of the table with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static FieldSpec, &Value<'a>)> {
        self.specs.iter().zip(&self.values)
    }

    /// The value of a field; null if the table has no such field.
    pub(super) fn get(&self, name: &str) -> &Value<'a> {
        let found = self.iter().find(|(spec, _)| spec.name == name);
        found.map_or(&Value::Null, |(_, value)| value)
    }

    /// The text of a field that has one.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).text()
    }

    /// The time in a field, in milliseconds since 1970-01-01 UTC.
    pub(super) fn time(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// Whether one of these fields has an ID that ZEGOCLOUD has made, also in an item.
    pub(super) fn has_server_id(&self, names: &[&str]) -> bool {
        (self.iter())
            .filter(|(spec, _)| names.contains(&spec.name))
            .any(|(spec, value)| has_server_id(spec, value))
    }

    /// The names of what the callback had, not as null, and is left out.
    pub(super) fn omitted(&self, omit: &Omit) -> BTreeSet<String> {
        let mut omitted = BTreeSet::new();
        if *omit == Omit::NOTHING {
            return omitted;
        }
        for ((spec, value), field) in self.iter().zip(&self.received) {
            let is_carried = field.is_some_and(|field| !field.is_null());
            if is_carried && omit.leaves_out(spec) {
                omitted.insert(spec.name.to_owned());
            } else if let Value::Items(items) = value {
                for item in items {
                    let left_out = (item.members.iter())
                        .filter(|member| member.is_carried && omit.leaves_out(member.spec))
                        .map(|member| member.spec.name);
                    let extra = !item.extra.is_empty() && omit.leaves_out_extra();
                    let names = left_out.chain(extra.then_some("extra"));
                    omitted.extend(names.map(|name| format!("{}.{name}", spec.name)));
                }
            }
        }
        if !self.extra.is_empty() && omit.leaves_out_extra() {
            omitted.insert("extra".to_owned());
        }
        omitted
    }
}

fn has_server_id(spec: &FieldSpec, value: &Value<'_>) -> bool {
    match value {
        Value::Items(items) => (items.iter().flat_map(|item| &item.members))
            .any(|member| has_server_id(member.spec, &member.value)),
        value => matches!(spec.of, Type::ServerId) && !value.is_null(),
    }
}

impl FieldSpec {
    fn is_list(&self) -> bool {
        matches!(self.of, Type::Users { .. } | Type::Items { .. })
    }
}
