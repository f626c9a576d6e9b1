//! `ZIM2KAFKA_TIMESTAMP_UNIT` and the events that are published.

use strum::VariantArray;

use super::topics::TOPICS;
use super::{ConfigError, ServeArgs, contradiction};
use crate::callback::TimestampUnit;
use crate::event::{EVENTS, Family, GROUP_JOIN, Routes};

const UNIT: &str = "ZIM2KAFKA_TIMESTAMP_UNIT";

/// The unit in which ZEGOCLOUD signs the callbacks of a family, as its pages have specified since
/// 2025-09-11. The pages of calls do not specify it.
pub fn unit_of(family: Family) -> Option<TimestampUnit> {
    match family {
        Family::Group | Family::Room => Some(TimestampUnit::Milliseconds),
        Family::Message | Family::User => Some(TimestampUnit::Seconds),
        Family::Call => None,
    }
}

/// The family's name if all its events have a topic, else the events that have one.
fn names(family: Family, routes: &Routes) -> Vec<&'static str> {
    let of_family = || EVENTS.iter().filter(|kind| kind.family == family);
    let routed = of_family().filter(|kind| routes.topic_of(kind.name).is_some());
    let routed: Vec<_> = routed.map(|kind| kind.name).collect();
    match routed.len() == of_family().count() {
        true => vec![family.into()],
        false => routed,
    }
}

impl ServeArgs {
    /// Checks that the required unit excludes the callbacks of no family that has a topic. Without
    /// ZIM2KAFKA_TOPICS it checks nothing: only `group_join` has a topic, and older senders sign it
    /// in seconds.
    pub(super) fn check_unit(&self, routes: &Routes) -> Result<(), ConfigError> {
        let required = self.callback.timestamp_unit;
        let is_excluded = |family: &&Family| {
            let unit = unit_of(**family).filter(|unit| *unit != required);
            unit.is_some() && routes.has_family(**family)
        };
        let excluded = Family::VARIANTS.iter().filter(is_excluded);
        let excluded: Vec<&str> = excluded.flat_map(|family| names(*family, routes)).collect();
        let list = match &self.kafka.topics {
            Some(list) if required != TimestampUnit::Auto && !excluded.is_empty() => list,
            _ => return Ok(()),
        };
        let other = match required {
            TimestampUnit::Milliseconds => TimestampUnit::Seconds,
            _ => TimestampUnit::Milliseconds,
        };
        // The operator may never have written it.
        let is_join = |entry: &str| entry.trim_start().starts_with(GROUP_JOIN);
        let default = match routes.topic_of(GROUP_JOIN) {
            Some(topic) if excluded.contains(&GROUP_JOIN) && !list.split(',').any(is_join) => {
                format!(" {TOPICS} does not name {GROUP_JOIN}, which therefore goes to {topic};")
            }
            _ => String::new(),
        };
        let with_join = excluded.contains(&<&str>::from(Family::Group));
        let entries = excluded.iter().chain(with_join.then_some(&GROUP_JOIN));
        let entries: Vec<_> = entries.map(|name| format!("{name}=dead-letter")).collect();
        Err(contradiction(
            UNIT,
            TOPICS,
            format!(
                "is {required}, but these have a topic and are signed in {other}, so they would be answered 401: {};{default} write auto, or let another service receive them at a URL of its own and write {} (or discard) in {TOPICS}",
                excluded.join(", "),
                entries.join(",")
            ),
        ))
    }

    /// Warnings about valid settings that are probably a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let unit = self.callback.timestamp_unit;
        let unit = (unit != TimestampUnit::Auto).then(|| {
            format!(
                "{UNIT} is {unit}: callbacks with other timestamps are answered 401. ZEGOCLOUD signs those of groups and rooms in milliseconds, and those of messages and users in seconds, so this suits a URL that receives one kind only; otherwise set auto"
            )
        });
        let topic = self.kafka.chosen_topics().warning();
        topic.into_iter().chain(unit).collect()
    }
}
