//! Turns verified callbacks into records. Pure: no I/O, no clock, no metrics.
//!
//! [`EVENTS`] lists the known events. Every other authentic callback becomes a dead letter.

mod extra;
mod field;
mod fields;
mod judgement;
mod kind;
mod kinds;
mod label;
mod murmur2;
mod omit;
mod record;
mod rejected;
mod routes;
mod value;

use std::borrow::Cow;

use crate::callback::{Field, VerifiedCallback};

pub use field::{Class, FieldSpec, Presence, Subject, Type};
pub use judgement::{Judged, Rules, Verdict, describe_age};
pub use kind::{Family, Kind, Policy};
pub use kinds::{EVENTS, GROUP_JOIN, JoinType};
pub use label::Label;
pub use murmur2::key_hash;
pub use omit::Omit;
pub use record::{Counted, Header, Joined, MAX_RECORD_BYTES, REDRIVEN, Reason, Record, Times};
pub use routes::{Routes, Target};

/// Why an authentic callback cannot be published as an event. It becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpublishable {
    /// The reason, for consumers and metrics.
    pub reason: Reason,
    /// The exact problem, for people.
    pub detail: Cow<'static, str>,
}

impl Unpublishable {
    fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Reason::InvalidEvent,
            detail: detail.into(),
        }
    }

    fn unsupported(name: &str) -> Self {
        Self {
            reason: Reason::UnsupportedEvent,
            detail: format!("the event is {:?}", shortened(name)).into(),
        }
    }

    fn repeated(field: &str) -> Self {
        Self::invalid(format!("the field {field:?} is repeated"))
    }
}

/// The callback that asks whether a chat message may be sent. The sender holds the message back
/// until it is answered, for at most 2.5 s (ZEGOCLOUD's page "Message not sent yet").
pub const BEFORE_SEND_MESSAGE: &str = "before_send_msg";

/// The event that a callback reports, by its name and by which fields it has.
///
/// # Errors
///
/// [`Unpublishable`], if it is not one of [`EVENTS`].
pub fn kind_of(callback: &VerifiedCallback<'_>) -> Result<&'static Kind, Unpublishable> {
    let event = event_field(callback)?;
    let Some(name) = event.and_then(Field::text) else {
        return Err(Unpublishable {
            reason: Reason::UnsupportedEvent,
            detail: "there is no field \"event\" that is a string".into(),
        });
    };
    let find = |wanted: &str| callback.fields().iter().find(|field| field.name == wanted);
    let has = |wanted: &str| find(wanted).is_some();
    // An empty ID is null too.
    let is_null = |field: &Field<'_>| field.is_null() || field.value.get() == r#""""#;
    let has_value = |wanted: &str| find(wanted).is_some_and(|field| !is_null(field));
    let is_slip = |kind: &&&Kind| {
        let mut slips = kind.slips.iter();
        slips.any(|(slip, fields)| *slip == name && fields.iter().all(|field| has(field)))
    };
    let is_named = |kind: &&&Kind| {
        let is_of_other_product = (kind.of_other_product).is_some_and(|(theirs, ours)| {
            theirs.iter().any(|field| has(field)) && !has_value(ours)
        });
        (kind.name == name || kind.aliases.contains(&name.as_ref())) && !is_of_other_product
    };
    (EVENTS
        .iter()
        .find(is_slip)
        .or_else(|| EVENTS.iter().find(is_named)))
    .copied()
    .ok_or_else(|| unsupported(callback))
}

/// Why a callback whose event is not published cannot be.
pub fn unsupported(callback: &VerifiedCallback<'_>) -> Unpublishable {
    Unpublishable::unsupported(&name(callback).unwrap_or_default())
}

/// The names of the fields of all events, each once.
pub fn field_names() -> Vec<&'static str> {
    let mut names = vec!["event"];
    for field in EVENTS.iter().flat_map(|kind| kind.fields) {
        if !names.contains(&field.name) {
            names.push(field.name);
        }
    }
    names
}

/// Whether a field of this name can be left out of records: it determines neither the key nor the
/// id of any event.
pub fn is_omittable(field: &str) -> bool {
    !EVENTS.iter().any(|kind| kind.is_identified_by(field))
}

/// The name of the event in the callback, if it has one field `event` and that is a string. With two
/// it is unknown which one the sender means.
pub fn name<'a>(callback: &'a VerifiedCallback<'a>) -> Option<Cow<'a, str>> {
    event_field(callback).ok()??.text()
}

fn event_field<'a>(
    callback: &'a VerifiedCallback<'a>,
) -> Result<Option<&'a Field<'a>>, Unpublishable> {
    let mut found = (callback.fields().iter()).filter(|field| field.name == "event");
    match (found.next(), found.next()) {
        (Some(event), None) if event.is_repeated() => Err(Unpublishable::repeated("event")),
        (_, Some(_)) => Err(Unpublishable::repeated("event")),
        (event, None) => Ok(event),
    }
}

/// Shortens a name, which may be as long as a body.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
