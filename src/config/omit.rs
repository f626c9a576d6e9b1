//! `ZIM2KAFKA_OMIT`: what is left out of records.

use super::suggestions::nearest;
use super::{ConfigErrors, invalid};
use crate::event::{EVENTS, FieldSpec, Kind, Omit, Type};

pub(super) const OMIT: &str = "ZIM2KAFKA_OMIT";

/// Names that stand for several fields.
const CLASSES: [&str; 3] = ["content", "user_name", "extra"];

/// The fields that every record has, whatever its event.
const IN_EVERY_RECORD: [&str; 6] = [
    "event_id",
    "event",
    "appid",
    "timestamp",
    "received_at",
    "omitted",
];

/// Parses the list.
///
/// # Errors
///
/// Every name that cannot be left out.
pub(super) fn parse(list: &str) -> Result<Omit, ConfigErrors> {
    let mut omit = Omit::default();
    let mut faults = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (number, name) in (1_usize..).zip(list.split(',').map(str::trim)) {
        let added = match names.contains(&name) {
            true => Err(format!("{name} is given more than once; write it once")),
            false => add(&mut omit, number, name),
        };
        match added {
            Ok(()) => names.push(name),
            Err(problem) => faults.push(invalid(OMIT, problem)),
        }
    }
    match faults.is_empty() {
        true => Ok(omit),
        false => Err(faults.into_iter().collect()),
    }
}

fn add(omit: &mut Omit, number: usize, name: &str) -> Result<(), String> {
    match name {
        "" => {
            let write = "remove its comma, or write as in content,user_name";
            return Err(format!("entry {number} is empty; {write}"));
        }
        "content" => omit.content = true,
        "user_name" => omit.user_name = true,
        "extra" => omit.extra = true,
        _ => {
            omit.fields.insert(field(name)?);
        }
    }
    Ok(())
}

/// The field of this name, if it can be left out.
fn field(name: &str) -> Result<&'static str, String> {
    if IN_EVERY_RECORD.contains(&name) {
        return Err(format!("{name} is in every record; remove it"));
    }
    if name.eq_ignore_ascii_case("signature") || name.eq_ignore_ascii_case("nonce") {
        return Err(format!("{name} is never in a record; remove it"));
    }
    let users_of = |uses: fn(&Kind, &str) -> bool| {
        let users = EVENTS.iter().filter(|kind| uses(kind, name));
        let users: Vec<_> = users.map(|kind| kind.name).collect();
        (!users.is_empty()).then(|| users.join(", "))
    };
    if let Some(events) = users_of(|kind, name| kind.family.key_fields().contains(&name)) {
        return Err(format!("{name} determines the key of {events}; remove it"));
    }
    if let Some(events) = users_of(Kind::is_identified_by) {
        let why = "consumers recognise duplicates by it";
        return Err(format!(
            "{name} is part of the event_id of {events}, and {why}; remove it"
        ));
    }
    if let Some(field) = fields().find(|field| field.name == name) {
        return Ok(field.name);
    }
    let lower = name.to_ascii_lowercase();
    let known = || CLASSES.into_iter().chain(fields().map(|field| field.name));
    if known().any(|known| known == lower) {
        return Err(format!("{name:?} is in the wrong case; write {lower}"));
    }
    let typed = lower.replace(['-', '.', ' '], "_");
    Err(match nearest(&typed, known()) {
        Some(meant) => format!("{name:?} is not a field of any event; did you mean {meant}?"),
        None => format!(
            "{name:?} is not a field of any event; write {}, or a field such as msg_body",
            CLASSES.join(", ")
        ),
    })
}

/// The fields of all events, also those of items. Several have the same name.
fn fields() -> impl Iterator<Item = &'static FieldSpec> {
    let of_events = EVENTS.iter().flat_map(|kind| kind.fields);
    of_events.flat_map(|field| {
        let members = match &field.of {
            Type::Items { members, .. } => *members,
            _ => &[],
        };
        std::iter::once(field).chain(members)
    })
}
