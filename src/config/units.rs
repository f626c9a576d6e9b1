//! `ZIM2KAFKA_TIMESTAMP_UNIT` and the events that are published.

use strum::VariantArray;

use super::topics::TOPICS;
use super::{ConfigError, ServeArgs, contradiction};
use crate::callback::TimestampUnit;
use crate::event::{Family, Routes};

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
        let excluded: Vec<&str> = excluded.map(|family| (*family).into()).collect();
        let is_possible = required == TimestampUnit::Auto || self.kafka.topics.is_none();
        if is_possible || excluded.is_empty() {
            return Ok(());
        }
        let other = match required {
            TimestampUnit::Milliseconds => TimestampUnit::Seconds,
            _ => TimestampUnit::Milliseconds,
        };
        Err(contradiction(
            UNIT,
            TOPICS,
            format!(
                "is {required}, but events of these families have a topic and are signed in {other}, so they would be answered 401: {}; write auto, or let another service receive them at a URL of its own",
                excluded.join(", ")
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
