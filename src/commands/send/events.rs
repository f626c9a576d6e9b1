//! Which events `send` makes, and in which proportions.

use strum::VariantArray;

use crate::config::{ConfigError, nearest};
use crate::event::{
    BEFORE_SEND_MESSAGE, Class, EVENTS, Family, FieldSpec, Kind, Presence, Subject, Type,
};

/// The name that selects all events.
const MIX: &str = "mix";

/// An event that `send` can make.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Sample {
    pub(in crate::commands) name: &'static str,
    pub(super) family: Family,
    /// The fields that are varied, by their types.
    pub(super) fields: &'static [FieldSpec],
    /// Bodies without the signed fields, as JSON.
    pub(super) examples: &'static [&'static str],
}

impl From<&'static Kind> for Sample {
    fn from(kind: &'static Kind) -> Self {
        Self {
            name: kind.name,
            family: kind.family,
            fields: kind.fields,
            examples: kind.examples,
        }
    }
}

/// ZEGOCLOUD's page "Message not sent yet". It is answered and not published, so it is not one of
/// [`EVENTS`].
const BEFORE_SEND: Sample = Sample {
    name: BEFORE_SEND_MESSAGE,
    family: Family::Message,
    fields: &[
        varied("from_user_id", Type::Id(Subject::User)),
        varied("conv_id", Type::Id(Subject::Conversation)),
        varied("msg_id", Type::ServerId),
        varied("request_id", Type::ServerId),
    ],
    examples: &[
        r#"{"event":"before_send_msg","request_id":"3501907290370176","from_user_id":"u_ada","conv_id":"grp-7f3a","conv_type":2,"msg_id":"857639062792568901","msg_type":1,"sub_msg_type":0,"msg_body":"Shall we start?","payload":"{\"client\":\"demo\"}"}"#,
        r#"{"event":"before_send_msg","request_id":"3501907290370177","from_user_id":"u_ada","conv_id":"u_bao","conv_type":0,"msg_id":"857639062792568911","msg_type":1,"sub_msg_type":0,"msg_body":"See you at eight","payload":""}"#,
    ],
};

const fn varied(name: &'static str, of: Type) -> FieldSpec {
    FieldSpec {
        name,
        of,
        presence: Presence::Optional,
        class: Class::Fact,
        only_with: None,
        about: "",
    }
}

/// How many of the callbacks in a mix are of this event. Apps with chats mostly send messages, then
/// their users come and go; every other event is rarer.
fn weight(event: &str) -> usize {
    match event {
        "send_msg" => 40,
        "user_action" => 20,
        BEFORE_SEND_MESSAGE => 8,
        "group_join" | "room_enter" | "room_exit" => 5,
        "bot_msg" => 4,
        "group_exit" | "call_create" | "call_accept" => 2,
        _ => 1,
    }
}

/// All events.
pub(in crate::commands) fn samples() -> impl Iterator<Item = Sample> {
    EVENTS.into_iter().map(Sample::from).chain([BEFORE_SEND])
}

/// One event of each family.
pub(in crate::commands) fn one_of_each_family() -> impl Iterator<Item = Sample> {
    let first = |family: &Family| samples().find(|sample| sample.family == *family);
    Family::VARIANTS.iter().filter_map(first)
}

/// All names of `--event`.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    samples().map(|sample| sample.name).chain([MIX])
}

/// The help of `--event`.
pub(super) fn help() -> String {
    let names: Vec<_> = samples().map(|sample| sample.name).collect();
    format!(
        "Event to send: {}; or {MIX} for all of them, mostly messages",
        names.join(", ")
    )
}

/// The events in the order in which they are sent, which is repeated.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Sequence(Vec<Sample>);

impl Sequence {
    /// One event, or all for `mix`.
    ///
    /// # Errors
    ///
    /// If no event has this name.
    pub(in crate::commands) fn named(name: &str) -> Result<Self, ConfigError> {
        if name == MIX {
            return Ok(Self::mix());
        }
        let known = known_event(name, &names().collect::<Vec<_>>())?;
        Ok(Self(
            samples().filter(|sample| sample.name == known).collect(),
        ))
    }

    /// All events, each as often as its weight. Equal ones are spread evenly, so that a short run has
    /// most events.
    pub(in crate::commands) fn mix() -> Self {
        let by_event: Vec<_> = samples()
            .flat_map(|sample| vec![sample; weight(sample.name)])
            .collect();
        let length = by_event.len();
        // Steps of the golden ratio. With a step that has no divisor in common with the length, each
        // place is visited once.
        let mut steps = (length * 382 / 1000).max(1)..;
        let step = steps.find(|step| greatest_common_divisor(*step, length) == 1);
        let step = step.unwrap_or(1);
        let at = |number: usize| by_event.get(number * step % length).copied();
        Self((0..length).filter_map(at).collect())
    }

    /// The event of the callback with this number.
    pub(in crate::commands) fn at(&self, number: u64) -> &Sample {
        let place = usize::try_from(number % self.0.len() as u64).unwrap_or(0);
        self.0.get(place).expect("a sequence is never empty")
    }
}

fn greatest_common_divisor(one: usize, other: usize) -> usize {
    match other {
        0 => one,
        _ => greatest_common_divisor(other, one % other),
    }
}

/// The event that this other name probably means.
pub(in crate::commands) fn meant_event(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let alias = EVENTS.iter().find(|kind| kind.aliases.contains(&name));
    let typed = name.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let meant = alias.map(|kind| kind.name);
    meant.or_else(|| nearest(&typed, known.iter().copied()))
}

/// The event of this name.
///
/// # Errors
///
/// If it is not known, with the name that is probably meant.
pub(in crate::commands) fn known_event(
    name: &str,
    known: &[&'static str],
) -> Result<&'static str, ConfigError> {
    if let Some(known) = known.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let instead = match meant_event(name, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("write one of {}", known.join(", ")),
    };
    Err(ConfigError::of_flag(
        "--event",
        format!("{name:?} is not an event; {instead}"),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_mix_has_all_eighteen_events_and_mostly_messages() {
        let mix = Sequence::mix();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for number in 0..mix.0.len() as u64 {
            *counts.entry(mix.at(number).name).or_default() += 1;
        }
        assert_eq!(counts.len(), EVENTS.len() + 1, "{counts:?}");
        for (event, count) in &counts {
            assert_eq!(*count, weight(event), "{event}");
        }
        let messages = counts["send_msg"] + counts["bot_msg"];
        assert!(messages > counts["user_action"], "{counts:?}");
        assert!(counts["user_action"] > counts["group_join"], "{counts:?}");
        assert_eq!(mix.at(mix.0.len() as u64).name, mix.at(0).name);
        // Spread, not one event after the other.
        let first: Vec<_> = (0..10).map(|number| mix.at(number).name).collect();
        let of_messages = first.iter().filter(|name| **name == "send_msg").count();
        assert!((3..=5).contains(&of_messages), "{first:?}");
    }

    #[test]
    fn each_family_is_shown_by_its_first_event() {
        let names = one_of_each_family().map(|sample| sample.name);
        assert!(names.eq([
            "group_create",
            "room_create",
            "send_msg",
            "call_create",
            "user_action"
        ]));
    }

    #[test]
    fn an_unknown_event_is_refused_with_the_one_that_is_probably_meant() {
        for (name, meant) in [
            ("group_jion", "did you mean group_join?"),
            ("Group-Join", "did you mean group_join?"),
            ("zim_send_msg", "did you mean send_msg?"),
            ("Apply_join_group", "did you mean group_join?"),
            ("before_send", "did you mean before_send_msg?"),
            ("mixx", "did you mean mix?"),
            ("xyz", "write one of user_action, group_create"),
        ] {
            let refused = Sequence::named(name).expect_err(name).to_string();
            assert!(refused.contains("--event"), "{refused}");
            assert!(refused.contains(meant), "{refused}");
        }
        for sample in samples() {
            let one = Sequence::named(sample.name).expect("it is known");
            assert_eq!(one.at(7).name, sample.name);
        }
    }
}
