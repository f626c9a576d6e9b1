//! The names in front of `=`.

use strum::VariantArray;

use super::super::suggestions::nearest;
use crate::event::{BEFORE_SEND_MESSAGE, EVENTS, Family, Kind};

/// What the operator sends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Family(Family),
    /// The name of an event.
    Event(&'static str),
}

impl Name {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Family(family) => family.into(),
            Self::Event(name) => name,
        }
    }

    /// What can be written for it.
    pub(super) fn examples(self) -> String {
        let name = self.text();
        let family = match self {
            Self::Family(family) => Some(family),
            Self::Event(name) => {
                let mut events = EVENTS.iter();
                let found = events.find(|event| event.name == name);
                found.map(|event| event.family)
            }
        };
        let topic = family.map_or_else(String::new, default_topic);
        format!("{name}={topic}, {name}=dead-letter or {name}=discard")
    }
}

/// The topic of a family with `all`.
pub(super) fn default_topic(family: Family) -> String {
    format!("zim.{}", <&str>::from(family))
}

/// The family or the event of this name, or what is wrong with it; and which of them it may mean.
pub(super) fn named(name: &str) -> (Option<Name>, Result<Name, String>) {
    if let Some(name) = exactly(name) {
        return (Some(name), Ok(name));
    }
    if name.is_empty() {
        let problem = "an entry has no name in front of =; write as in group=zim.group";
        return (None, Err(problem.to_owned()));
    }
    let lower = name.to_ascii_lowercase();
    // Before the names that it resembles: `send_msg` would be a wrong guess.
    if lower == BEFORE_SEND_MESSAGE || BEFORE_SEND_MESSAGE.starts_with(&format!("{lower}_")) {
        let problem = format!(
            "{BEFORE_SEND_MESSAGE} is a question of the sender, which is answered and not published; remove it, and set the answer with ZIM2KAFKA_BEFORE_SEND"
        );
        return (None, Err(problem));
    }
    if let Some(meant) = exactly(&lower) {
        let problem = format!("{name:?} is in the wrong case; write {}", meant.text());
        return (Some(meant), Err(problem));
    }
    let is_other_name = |event: &&&Kind| {
        let mut aliases = event.aliases.iter();
        let short_type = event.ce_type.strip_prefix("com.zegocloud.zim.");
        let short_type = short_type.and_then(|text| text.strip_suffix(".v1"));
        aliases.any(|alias| alias.eq_ignore_ascii_case(name))
            || [Some(event.ce_type), short_type].contains(&Some(&lower))
    };
    if let Some(event) = EVENTS.iter().find(is_other_name) {
        let problem = format!("{name:?} is another name of {0}; write {0}", event.name);
        return (Some(Name::Event(event.name)), Err(problem));
    }
    let families = Family::VARIANTS.iter().map(|family| <&str>::from(*family));
    let known: Vec<&str> = families
        .clone()
        .chain(EVENTS.iter().map(|event| event.name))
        .collect();
    let typed = lower.replace(['-', '.', ' '], "_");
    let meant = nearest(&typed, known).and_then(exactly);
    let problem = match meant {
        Some(meant) => format!(
            "{name:?} is neither a family nor an event; did you mean {}?",
            meant.text()
        ),
        None => format!(
            "{name:?} is neither a family nor an event; write all, or NAME=TOPIC for each of {}, or of events such as group_exit",
            families.collect::<Vec<_>>().join(", ")
        ),
    };
    (meant, Err(problem))
}

fn exactly(name: &str) -> Option<Name> {
    let mut families = Family::VARIANTS.iter().copied().map(Name::Family);
    let mut events = EVENTS.iter().map(|event| Name::Event(event.name));
    let is_it = |known: &Name| known.text() == name;
    families.find(is_it).or_else(|| events.find(is_it))
}
