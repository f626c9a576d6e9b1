//! Which topic each record goes to.

use std::collections::BTreeMap;
use std::iter;

use super::kind::Family;
use super::kinds::EVENTS;

/// The topics of events and that of dead letters.
#[derive(Debug, Clone)]
pub struct Routes {
    event_topics: Vec<String>,
    dead_letter_topic: String,
    /// The place of its topic, by the name of the event.
    events: BTreeMap<String, usize>,
}

/// What happens to the callbacks of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// They are published to the topic at this place in [`Routes::topics`].
    Topic(usize),
    /// They become dead letters.
    DeadLetters,
    /// They are counted and dropped.
    Discard,
}

impl Routes {
    /// The routes of events, as pairs of a name and a topic, and of dead letters. Several events may
    /// share a topic.
    pub fn new<'a>(
        events: impl IntoIterator<Item = (&'a str, &'a str)>,
        dead_letter_topic: &str,
    ) -> Self {
        let mut routes = Self {
            event_topics: Vec::new(),
            dead_letter_topic: dead_letter_topic.to_owned(),
            events: BTreeMap::new(),
        };
        for (event, topic) in events {
            let known = routes.event_topics.iter().position(|known| known == topic);
            let at = known.unwrap_or_else(|| {
                routes.event_topics.push(topic.to_owned());
                routes.event_topics.len() - 1
            });
            routes.events.insert(event.to_owned(), at);
        }
        routes
    }

    /// The topics of events, in the order in which they were given.
    pub fn event_topics(&self) -> &[String] {
        &self.event_topics
    }

    /// The topic of dead letters.
    pub fn dead_letter_topic(&self) -> &str {
        &self.dead_letter_topic
    }

    /// The topics of events, then that of dead letters.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let events = self.event_topics.iter().map(String::as_str);
        events.chain(iter::once(self.dead_letter_topic()))
    }

    /// What happens to the callbacks of this event.
    pub fn target_of(&self, event: &str) -> Target {
        self.events
            .get(event)
            .map_or(Target::DeadLetters, |place| Target::Topic(*place))
    }

    /// Whether an event of the family has a topic.
    pub fn has_family(&self, family: Family) -> bool {
        let has_topic = |event: &str| matches!(self.target_of(event), Target::Topic(_));
        (EVENTS.iter()).any(|kind| kind.family == family && has_topic(kind.name))
    }

    /// The place in [`Routes::topics`] of the records of this event, or of dead letters; `None` if
    /// the event has no topic.
    pub fn place_of(&self, event: Option<&str>) -> Option<usize> {
        match event {
            Some(event) => self.events.get(event).copied(),
            None => Some(self.event_topics.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_share_a_topic_and_dead_letters_have_the_last() {
        let routes = Routes::new([("a", "x"), ("b", "y"), ("c", "x")], "dead");
        assert_eq!(routes.event_topics(), ["x", "y"]);
        assert!(routes.topics().eq(["x", "y", "dead"]));
        let places = ["a", "b", "c", "d"].map(|event| routes.place_of(Some(event)));
        assert_eq!(places, [Some(0), Some(1), Some(0), None]);
        assert_eq!(routes.place_of(None), Some(2));
    }
}
