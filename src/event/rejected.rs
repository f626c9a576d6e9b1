//! The value of a record that Kafka had rejected, and the record that is made of it again.
//!
//! A dead letter of the reason `rejected_by_kafka` has that value, without the signature of its
//! callback: nothing here is authenticated.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::field::{FieldSpec, Type};
use super::fields::Fields;
use super::judgement::{Facts, Judged, Rules, Verdict};
use super::kinds::EVENTS;
use super::omit::Omit;
use super::record::{Record, Times, trace_headers};
use super::{Kind, Unpublishable};
use crate::callback::{self, Field, TraceContext};

/// The largest timestamp: thirteen digits of milliseconds.
const MAX_TIMESTAMP: i64 = 9_999_999_999_999;

/// What the service itself writes into each record.
struct Envelope<'a> {
    event: Cow<'a, str>,
    event_id: Uuid,
    appid: Cow<'a, str>,
    times: Times,
}

impl Rules<'_> {
    /// Judges the value of a record that Kafka had rejected: by today's routes, tolerance and
    /// omitted fields. It is not authenticated, because it has no signature.
    pub fn judge_rejected(&self, value: &Bytes, trace: Option<&TraceContext>) -> Judged {
        let no_record = |verdict| Judged {
            kind: None,
            verdict: Verdict::DeadLetter(verdict),
        };
        let Some(fields) = members(value) else {
            return no_record(Unpublishable::invalid("it is not a JSON object"));
        };
        let Some(envelope) = Envelope::read(&fields) else {
            return no_record(Unpublishable::invalid(
                "it is not the value of a record: event, event_id, appid, timestamp or received_at is missing or invalid",
            ));
        };
        let kind = EVENTS.into_iter().find(|kind| kind.name == envelope.event);
        let unsupported = || Unpublishable::unsupported(&envelope.event);
        self.check(Facts {
            kind: kind.ok_or_else(unsupported),
            timestamp: envelope.times.callback,
            received_at: envelope.times.received,
            unsupported,
            record: |kind: &Kind| {
                let mut record = self.record_again(kind, &envelope, &fields, value)?;
                record.headers.extend(trace_headers(trace));
                Ok(record)
            },
        })
    }

    fn record_again(
        &self,
        kind: &Kind,
        envelope: &Envelope<'_>,
        fields: &[Field<'_>],
        value: &Bytes,
    ) -> Result<Record, Unpublishable> {
        let Envelope {
            event_id,
            appid,
            times,
            ..
        } = envelope;
        let own_time = kind.own_time.as_slice();
        let names = [kind.family.key_fields(), own_time].concat();
        let read = Fields::read_leniently(kind.fields, &names, fields, times.callback);
        let key = (kind.family.key(&read))
            .ok_or_else(|| Unpublishable::invalid("the fields of its key are missing"))?;
        let key = Bytes::from(key.into_owned());
        let timestamp = kind.time(&read, self.policy);
        let omit = &self.policy.omit;
        Ok(Record {
            event: Some(kind.name.into()),
            event_id: *event_id,
            timestamp,
            headers: kind.headers(*event_id, appid, &key, timestamp),
            key: Some(key),
            value: match *omit == Omit::NOTHING {
                true => value.clone(),
                false => without(fields, kind, omit),
            },
            counted: None,
            times: *times,
        })
    }
}

fn members(value: &[u8]) -> Option<Vec<Field<'_>>> {
    callback::members(serde_json::from_slice(value).ok()?)
}

impl<'a> Envelope<'a> {
    fn read(fields: &[Field<'a>]) -> Option<Self> {
        let find = |name: &str| fields.iter().find(|field| field.name == name);
        let time = |name: &str| {
            let time: i64 = find(name)?.value.get().parse().ok()?;
            (0..=MAX_TIMESTAMP).contains(&time).then_some(time)
        };
        Some(Self {
            event: find("event")?.text()?,
            event_id: find("event_id")?.text()?.parse().ok()?,
            appid: find("appid")?.text()?,
            times: Times {
                callback: time("timestamp")?,
                received: time("received_at")?,
            },
        })
    }
}

/// The value without what today's settings leave out. Everything else keeps its text.
fn without(fields: &[Field<'_>], kind: &Kind, omit: &Omit) -> Bytes {
    let is_behind = |name: &str| ["omitted", "extra"].contains(&name);
    let omitted_before = fields.iter().find(|field| field.name == "omitted");
    let omitted_before = omitted_before.map(|field| serde_json::from_str(field.value.get()));
    let mut omitted: BTreeSet<String> = omitted_before.and_then(Result::ok).unwrap_or_default();
    let all = kept(fields, kind.fields, omit, "", &mut omitted);
    let (behind, mut members): (Vec<_>, Vec<_>) =
        (all.into_iter()).partition(|(name, _)| is_behind(name));
    if !omitted.is_empty() {
        members.push(("omitted".into(), text(&omitted)));
    }
    members.extend(behind.into_iter().filter(|(name, _)| name == "extra"));
    serde_json::to_vec(&Object(members))
        .expect("strings and JSON texts are JSON")
        .into()
}

/// A JSON text.
type Text<'a> = Cow<'a, RawValue>;

/// The members of an object that are kept. Names what was there and is left out.
fn kept<'a>(
    fields: &[Field<'a>],
    specs: &'static [FieldSpec],
    omit: &Omit,
    of: &str,
    omitted: &mut BTreeSet<String>,
) -> Vec<(Cow<'a, str>, Text<'a>)> {
    let mut members = Vec::with_capacity(fields.len());
    for field in fields {
        let spec = specs.iter().find(|spec| spec.name == field.name);
        let is_left_out = match spec {
            Some(spec) => omit.leaves_out(spec),
            None => field.name == "extra" && omit.leaves_out_extra(),
        };
        if is_left_out {
            if !field.is_null() {
                omitted.insert(format!("{of}{}", field.name));
            }
            continue;
        }
        let value = match spec.map(|spec| &spec.of) {
            Some(Type::Items { members, .. }) => items(field, members, omit, omitted),
            _ => None,
        };
        let value = value.unwrap_or(Cow::Borrowed(field.value));
        members.push((field.name.clone(), value));
    }
    members
}

/// The list in a field, if it is one, with what is kept of each item.
fn items<'a>(
    field: &Field<'a>,
    specs: &'static [FieldSpec],
    omit: &Omit,
    omitted: &mut BTreeSet<String>,
) -> Option<Text<'a>> {
    let items: Vec<&RawValue> = serde_json::from_str(field.value.get()).ok()?;
    let of = format!("{}.", field.name);
    let items = items.into_iter().map(|item| {
        let members = callback::members(item)?;
        Some(Object(kept(&members, specs, omit, &of, omitted)))
    });
    let items: Vec<_> = items.collect::<Option<_>>()?;
    Some(text(&items))
}

fn text<'a>(value: &impl Serialize) -> Text<'a> {
    Cow::Owned(serde_json::value::to_raw_value(value).expect("strings and JSON texts are JSON"))
}

/// A JSON object.
struct Object<'a>(Vec<(Cow<'a, str>, Text<'a>)>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
