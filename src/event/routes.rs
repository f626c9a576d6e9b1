//! Which topic each event goes to.

use std::collections::BTreeMap;
use std::iter;

use super::kind::{Family, Kind};
use super::kinds::EVENTS;

/// Where an event goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The topic at this place in [`Routes::topics`].
    Topic(usize),
    /// It becomes a dead letter.
    DeadLetters,
    /// It is answered and not stored.
    Discard,
}

/// The topics of events and that of dead letters.
#[derive(Debug, Clone)]
pub struct Routes {
    event_topics: Vec<String>,
    dead_letter_topic: String,
    /// By the name of the event; those without an entry become dead letters.
    targets: BTreeMap<String, Target>,
}

impl Routes {
    /// The routes of events, as pairs of a name and a topic, and of dead letters. Several events may
    /// share a topic. All other events become dead letters.
    pub fn new<'a>(
        events: impl IntoIterator<Item = (&'a str, &'a str)>,
        dead_letter_topic: &str,
    ) -> Self {
        let mut routes = Self {
            event_topics: Vec::new(),
            dead_letter_topic: dead_letter_topic.to_owned(),
            targets: BTreeMap::new(),
        };
        for (event, topic) in events {
            let known = routes.event_topics.iter().position(|known| known == topic);
            let place = known.unwrap_or_else(|| {
                routes.event_topics.push(topic.to_owned());
                routes.event_topics.len() - 1
            });
            (routes.targets).insert(event.to_owned(), Target::Topic(place));
        }
        routes
    }

    /// The same routes, but these events are discarded.
    #[must_use]
    pub fn discarding<'a>(mut self, events: impl IntoIterator<Item = &'a str>) -> Self {
        let discarded = events
            .into_iter()
            .map(|event| (event.to_owned(), Target::Discard));
        self.targets.extend(discarded);
        self
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

    /// Where this event goes.
    pub fn target_of(&self, event: &str) -> Target {
        let target = self.targets.get(event).copied();
        target.unwrap_or(Target::DeadLetters)
    }

    /// The topic of this event; `None` if it has none.
    pub fn topic_of(&self, event: &str) -> Option<&str> {
        match self.target_of(event) {
            Target::Topic(place) => self.event_topics.get(place).map(String::as_str),
            Target::DeadLetters | Target::Discard => None,
        }
    }

    /// The events that go there.
    pub fn events_of(&self, target: Target) -> impl Iterator<Item = &'static Kind> {
        let events = EVENTS.iter().copied();
        events.filter(move |kind| self.target_of(kind.name) == target)
    }

    /// Whether an event of this family has a topic.
    pub fn has_family(&self, family: Family) -> bool {
        let mut events = EVENTS.iter().filter(|kind| kind.family == family);
        events.any(|kind| self.topic_of(kind.name).is_some())
    }

    /// The place in [`Routes::topics`] of the records of this event, or of dead letters; `None` if
    /// the event has no topic.
    pub fn place_of(&self, event: Option<&str>) -> Option<usize> {
        match event.map(|event| self.target_of(event)) {
            Some(Target::Topic(place)) => Some(place),
            Some(Target::DeadLetters | Target::Discard) => None,
            None => Some(self.event_topics.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_share_a_topic_and_dead_letters_have_the_last() {
        let routes = Routes::new([("a", "x"), ("b", "y"), ("c", "x")], "dead").discarding(["e"]);
        assert_eq!(routes.event_topics(), ["x", "y"]);
        assert!(routes.topics().eq(["x", "y", "dead"]));
        let events = ["a", "b", "c", "d", "e"];
        let places = events.map(|event| routes.place_of(Some(event)));
        assert_eq!(places, [Some(0), Some(1), Some(0), None, None]);
        assert_eq!(routes.place_of(None), Some(2));
        let targets = events.map(|event| routes.target_of(event));
        use Target::{DeadLetters, Discard, Topic};
        let expected = [Topic(0), Topic(1), Topic(0), DeadLetters, Discard];
        assert_eq!(targets, expected);
        let topics = events.map(|event| routes.topic_of(event));
        assert_eq!(topics, [Some("x"), Some("y"), Some("x"), None, None]);
    }

    #[test]
    fn a_family_is_routed_if_one_of_its_events_has_a_topic() {
        let routes = Routes::new([("group_exit", "g")], "dead").discarding(["send_msg"]);
        assert!(routes.has_family(Family::Group));
        for family in [Family::Room, Family::Message, Family::Call, Family::User] {
            assert!(!routes.has_family(family), "{family:?}");
        }
        let of_topic = routes.events_of(Target::Topic(0)).map(|kind| kind.name);
        assert!(of_topic.eq(["group_exit"]));
        let unrouted = routes.events_of(Target::DeadLetters).count();
        assert_eq!(unrouted, EVENTS.len() - 2);
    }
}
