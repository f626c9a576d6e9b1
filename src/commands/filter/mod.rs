//! The flags that select records, for every command that reads many: `tail`, `redrive`,
//! `spool list`.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil};
use serde_json::json;
use strum::VariantArray;

use super::names::{Named, one_of};
use super::send::events::{known_event, meant_event};
use crate::callback::{Json, RawCallback};
use crate::config::{ConfigError, Faults};
use crate::event::{EVENTS, Reason};
use crate::kafka::Consumed;

/// Which records are taken. A record must pass each flag that is given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Only records with this key: a group, room, conversation, call or user, as `tail` prints it
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(super) key: Option<String>,
    /// Only records of this event, such as group_join, or of one of several, as in
    /// group_join,group_exit. A dead letter is of the event that its body names
    #[arg(long, value_name = "NAME,…", value_delimiter = ',',
          value_parser = Named::any(EVENTS.map(|kind| kind.name)), hide_possible_values = true)]
    pub(super) event: Vec<String>,
    #[arg(long, value_name = "REASON,…", value_delimiter = ',', help = reason_help(),
          value_parser = Named::of(reason, Reason::VARIANTS.iter().map(<&str>::from)),
          hide_possible_values = true)]
    pub(super) reason: Vec<Reason>,
    /// Only records from this time on: 2026-11-27T06:00:00Z, or an age such as 10m, 2h or 7d. The
    /// time of an event is the callback's own, that of a dead letter when it was received
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Moment>,
    /// Only records before this time, written as for --since; 0s is now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) until: Option<Moment>,
}

/// A point in time. An age counts from the start of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) at: i64,
    /// The age in milliseconds, if it was written as one.
    pub(super) age: Option<i64>,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) event: EventName<'a>,
    /// The header `dead_letter_reason`.
    pub(super) reason: Option<&'a [u8]>,
    /// Kafka's timestamp, in milliseconds since 1970-01-01 UTC.
    pub(super) timestamp: Option<i64>,
}

/// How the event of a record is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventName<'a> {
    /// By its name.
    Known(&'a str),
    /// It is in the value: a record, or a callback's body, which has any encoding of callbacks.
    InValue(&'a [u8]),
}

impl Filter {
    /// Whether this record, or dead letter, is taken.
    pub(super) fn matches(&self, record: &Consumed) -> bool {
        let mut headers = record.headers.iter();
        let reason = headers.find(|(name, _)| name == "dead_letter_reason");
        self.takes(Parts {
            key: record.key.as_deref(),
            event: EventName::InValue(&record.value),
            reason: reason.map(|(_, value)| &value[..]),
            timestamp: record.timestamp,
        })
    }

    /// Whether a record with these parts is taken. The value is parsed last, because that costs most.
    pub(super) fn takes(&self, parts: Parts<'_>) -> bool {
        self.takes_key(parts.key)
            && self.takes_time(parts.timestamp)
            && self.takes_reason(parts.reason)
            && self.takes_event(parts.event)
    }

    fn takes_key(&self, key: Option<&[u8]>) -> bool {
        (self.key.as_ref()).is_none_or(|wanted| key == Some(wanted.as_bytes()))
    }

    /// From `since` on, and before `until`.
    fn takes_time(&self, timestamp: Option<i64>) -> bool {
        let takes = |limit: &Option<Moment>, is_within: fn(i64, i64) -> bool| match limit {
            Some(limit) => timestamp.is_some_and(|time| is_within(time, limit.at)),
            None => true,
        };
        takes(&self.since, |time, since| time >= since)
            && takes(&self.until, |time, until| time < until)
    }

    fn takes_reason(&self, reason: Option<&[u8]>) -> bool {
        let is = |wanted: &Reason| reason == Some(<&str>::from(*wanted).as_bytes());
        self.reason.is_empty() || self.reason.iter().any(is)
    }

    fn takes_event(&self, event: EventName<'_>) -> bool {
        if self.event.is_empty() {
            return true;
        }
        let value = match event {
            EventName::Known(name) => return self.event.iter().any(|wanted| wanted == name),
            EventName::InValue(value) => value,
        };
        let raw = RawCallback {
            body: Bytes::copy_from_slice(value),
            content_type: None,
            trace: None,
            received_at: 0,
        };
        let json = raw.json();
        let names = |json: &Json<'_>, name: &str| {
            json.decode()
                .is_ok_and(|callback| callback.names_event(name))
        };
        (json.as_ref()).is_ok_and(|json| self.names().any(|name| names(json, name)))
    }

    /// The names of the wanted events, and the other names that ZEGOCLOUD's pages use for them.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.event.iter().flat_map(|wanted| {
            let kind = EVENTS.into_iter().find(|kind| kind.name == wanted);
            let aliases = kind.map_or(&[][..], |kind| kind.aliases);
            std::iter::once(wanted.as_str()).chain(aliases.iter().copied())
        })
    }

    /// Adds the faults that no flag has alone.
    pub(super) fn check(&self, faults: &mut Faults) {
        if let (Some(since), Some(until)) = (&self.since, &self.until)
            && until.at <= since.at
        {
            faults.add(ConfigError::of_flag(
                "--until",
                format!(
                    "{until} is not after --since {since}, so no record can match; write a later time, or a shorter age than that of --since"
                ),
            ));
        }
    }

    /// Adds the faults of a filter that selects events and not dead letters: an event that is never
    /// published, and a reason, which is refused with `instead`.
    pub(super) fn check_events(&self, instead: &str, faults: &mut Faults) {
        let known = EVENTS.map(|kind| kind.name);
        for event in &self.event {
            faults.take(known_event(event, &known));
        }
        if !self.reason.is_empty() {
            faults.add(ConfigError::of_flag(
                "--reason",
                format!("only dead letters have a reason; {instead}"),
            ));
        }
    }

    /// A warning for each event that seems to be a typo. A dead letter may be of any event, so that
    /// is not a fault.
    pub(super) fn warnings(&self) -> Vec<String> {
        let known = EVENTS.map(|kind| kind.name);
        let unknown = (self.event.iter()).filter(|event| !known.contains(&event.as_str()));
        let warning = |event: &String| {
            let meant = meant_event(event, &known)?;
            Some(format!(
                "--event: {event:?} is not an event, so only dead letters can match it; did you mean {meant}?"
            ))
        };
        unknown.filter_map(warning).collect()
    }

    /// The same text for the same filters, in this version and in later ones: `redrive` keeps its
    /// progress by it.
    ///
    /// An age is written as an age, so that a command that was interrupted goes on if it is repeated
    /// as it was. So a record that is too new for `--until` today can match the same text tomorrow.
    pub(super) fn canonical(&self) -> String {
        fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
            names.collect()
        }
        let moment = |moment: &Option<Moment>| moment.as_ref().map(Moment::canonical);
        json!({
            "key": self.key,
            "event": sorted(self.event.iter().map(String::as_str)),
            "reason": sorted(self.reason.iter().map(<&str>::from)),
            "since": moment(&self.since),
            "until": moment(&self.until),
        })
        .to_string()
    }
}

/// For people: `event group_join, key g1, since 2026-11-27T06:00:00Z`. Empty without a filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.reason.iter().map(<&str>::from).collect();
        let moment = |moment: &Option<Moment>| moment.as_ref().map(ToString::to_string);
        let parts = [
            (
                "event",
                Some(self.event.join(",")).filter(|names| !names.is_empty()),
            ),
            (
                "reason",
                Some(reasons.join(",")).filter(|names| !names.is_empty()),
            ),
            (
                "key",
                self.key.as_ref().map(|key| key.escape_debug().to_string()),
            ),
            ("since", moment(&self.since)),
            ("until", moment(&self.until)),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

impl Moment {
    fn canonical(&self) -> String {
        match self.age {
            Some(age) => format!("{age} ms ago"),
            None => self.to_string(),
        }
    }
}

/// As RFC 3339 writes it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.at) {
            Ok(time) => time.fmt(f),
            Err(_) => self.at.fmt(f),
        }
    }
}

fn key(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty; write a key as `tail` prints it, or leave it out for all".to_owned()),
        key => Ok(key.to_owned()),
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    one_of("a reason of dead letters", Reason::VARIANTS, text)
}

fn reason_help() -> String {
    let reasons: Vec<_> = Reason::VARIANTS.iter().map(<&str>::from).collect();
    format!(
        "Only dead letters with this reason, or with one of several: {}",
        reasons.join(", ")
    )
}

fn moment(text: &str) -> Result<Moment, String> {
    moment_at(text, Timestamp::now().as_millisecond())
}

/// Parses a time or an age.
///
/// # Errors
///
/// What is wrong, and what to write instead.
fn moment_at(text: &str, now: i64) -> Result<Moment, String> {
    const WRITE: &str =
        "write a time such as 2026-11-27T06:00:00Z, or an age such as 10m, 2h or 7d";
    let at = |at: i64| Ok(Moment { at, age: None });
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // As in records and callbacks.
        return match (text.len(), text.parse::<i64>()) {
            (13, Ok(milliseconds)) => at(milliseconds),
            (10, Ok(seconds)) => at(seconds * 1000),
            _ => Err(format!("{text:?} has no unit; {WRITE}")),
        };
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return at(time.as_millisecond());
    }
    if let Ok(local) = text.parse::<civil::DateTime>() {
        return Err(format!(
            "{text:?} has no time zone; write {local}Z for UTC, or an age such as 10m"
        ));
    }
    let span = (text.parse::<Span>())
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| format!("{text:?} is neither a time nor an age; {WRITE}"))?;
    if span < SignedDuration::ZERO {
        return Err(format!(
            "{text:?} is negative, but an age counts back from now; {WRITE}"
        ));
    }
    let age = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Ok(Moment {
        // Kafka has no times before 1970.
        at: now.saturating_sub(age).max(0),
        age: Some(age),
    })
}

#[cfg(test)]
mod tests;
