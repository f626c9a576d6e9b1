//! What a verified callback means. Pure: no I/O, no clock, no metrics.
//!
//! [`read`] is the one list of known events. A further event is one file beside `group_joined.rs`
//! and one line there; everything that is authentic and not on the list becomes a dead letter.

mod group_joined;
mod record;

use std::borrow::Cow;

use crate::callback::VerifiedCallback;

pub use group_joined::{GroupJoined, JoinType};
pub use record::{Header, Kind, MAX_RECORD_BYTES, Reason, Record, Times};

/// What a callback says, once it is known to be authentic.
#[derive(Debug)]
pub enum Event<'a> {
    /// Users joined a group.
    GroupJoined(GroupJoined<'a>),
}

/// Why an authentic callback cannot become a record. It goes to the dead-letter topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpublishable {
    /// The closed reason, for consumers and metrics.
    pub reason: Reason,
    /// What exactly was wrong, for people.
    pub detail: Cow<'static, str>,
}

impl Unpublishable {
    fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Reason::InvalidEvent,
            detail: detail.into(),
        }
    }
}

/// The name of the one callback that the sender waits on: it holds a chat message back until it is
/// answered, within 2.5 s by ZEGOCLOUD's page "Message not sent yet".
pub const BEFORE_SEND_MESSAGE: &str = "before_send_msg";

/// Reads the meaning of a callback.
///
/// # Errors
///
/// [`Unpublishable`] where the event is none of ours, or lacks what its record needs.
pub fn read<'a>(callback: &'a VerifiedCallback<'a>) -> Result<Event<'a>, Unpublishable> {
    match name(callback).as_deref() {
        Some(name) if GroupJoined::goes_by(name, callback) => {
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

/// The callback's own name for its event, where its first field `event` is a string.
pub fn name<'a>(callback: &'a VerifiedCallback<'a>) -> Option<Cow<'a, str>> {
    callback
        .fields()
        .iter()
        .find(|field| field.name == "event")?
        .text()
}

/// An event's name is the sender's text, and may be as long as a body.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Event<'_> {
    /// The record that subscribers read.
    ///
    /// # Errors
    ///
    /// [`Unpublishable`] where the record would exceed [`MAX_RECORD_BYTES`].
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
