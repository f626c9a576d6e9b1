//! Turns verified callbacks into records. Pure: no I/O, no clock, no metrics.
//!
//! [`read`] lists the known events. Every other authentic callback becomes a dead letter.

mod extra;
mod group_joined;
mod murmur2;
mod record;
mod routes;

use std::borrow::Cow;

use crate::callback::{Field, VerifiedCallback};

pub use group_joined::{GroupJoined, JoinType};
pub use murmur2::key_hash;
pub use record::{Header, Kind, MAX_RECORD_BYTES, Reason, Record, Times};
pub use routes::Routes;

/// The meaning of an authentic callback.
#[derive(Debug)]
pub enum Event<'a> {
    /// Users joined a group.
    GroupJoined(GroupJoined<'a>),
}

/// Why an authentic callback cannot be published as an event. It becomes a dead letter.
#[derive(Debug, PartialEq, Eq)]
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

    fn repeated(field: &str) -> Self {
        Self::invalid(format!("the field {field:?} is repeated"))
    }
}

/// The callback that asks whether a chat message may be sent. The sender holds the message back
/// until it is answered, for at most 2.5 s (ZEGOCLOUD's page "Message not sent yet").
pub const BEFORE_SEND_MESSAGE: &str = "before_send_msg";

/// Reads a callback as an event.
///
/// # Errors
///
/// [`Unpublishable`], if the event is not a known one or a field of it is missing or invalid.
pub fn read<'a>(callback: &'a VerifiedCallback<'a>) -> Result<Event<'a>, Unpublishable> {
    let event = event_field(callback)?;
    match event.and_then(Field::text).as_deref() {
        Some(name) if GroupJoined::has_name(name, callback) => {
            GroupJoined::read(callback).map(Event::GroupJoined)
        }
        Some(name) => Err(Unpublishable {
            reason: Reason::UnsupportedEvent,
            detail: format!("the event is {:?}", shortened(name)).into(),
        }),
        None => Err(Unpublishable {
            reason: Reason::UnsupportedEvent,
            detail: "there is no field \"event\" that is a string".into(),
        }),
    }
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
        (_, Some(_)) => Err(Unpublishable::repeated("event")),
        (event, None) => Ok(event),
    }
}

/// Shortens a name, which may be as long as a body.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Event<'_> {
    /// The record to publish.
    ///
    /// # Errors
    ///
    /// [`Unpublishable`], if the record would exceed [`MAX_RECORD_BYTES`].
    pub fn record(&self) -> Result<Record, Unpublishable> {
        let Self::GroupJoined(event) = self;
        let record = event.record();
        if record.size() > MAX_RECORD_BYTES {
            return Err(Unpublishable::invalid(format!(
                "its record has {} bytes, more than {MAX_RECORD_BYTES}",
                record.size()
            )));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
