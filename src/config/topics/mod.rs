//! `ZIM2KAFKA_TOPICS`: which topic each event goes to.

mod name;

use std::fmt;

use strum::VariantArray;

use super::{ConfigError, ConfigErrors, Faults, contradiction, invalid};
use crate::event::{EVENTS, Family, GROUP_JOIN, Routes};
use name::{Name, default_topic, named};

pub(super) const TOPICS: &str = "ZIM2KAFKA_TOPICS";
pub(super) const TOPIC: &str = "ZIM2KAFKA_TOPIC";
pub(super) const DEAD_LETTER_TOPIC: &str = "ZIM2KAFKA_DEAD_LETTER_TOPIC";

/// The family of `group_join`. Earlier versions published only this event, to a topic of its own.
const OF_JOIN: Family = Family::Group;

/// The entry that stands for a topic for each family.
const ALL: &str = "all";

/// How an exception is written.
const EXCEPTION: &str = "all,message=discard";

/// What can be written instead of a topic.
const WORDS: [(&str, Choice); 2] = [
    ("discard", Choice::Discard),
    ("dead-letter", Choice::DeadLetters),
];

/// Where the operator sends events.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Topic(String),
    DeadLetters,
    Discard,
}

/// The settings that decide where events go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'a> {
    /// ZIM2KAFKA_TOPICS, if it is set.
    pub(super) list: Option<&'a str>,
    /// ZIM2KAFKA_TOPIC, or its default.
    pub(super) topic: &'a str,
    /// Whether ZIM2KAFKA_TOPIC is set.
    pub(super) topic_is_given: bool,
    /// ZIM2KAFKA_DEAD_LETTER_TOPIC, or its default.
    pub(super) dead_letter_topic: &'a str,
}

/// ZIM2KAFKA_TOPICS, parsed.
#[derive(Debug, Default)]
struct List {
    /// Whether it begins with `all`.
    all: bool,
    entries: Vec<(Name, Choice)>,
    /// Whether an invalid entry may have been meant to decide where `group_join` goes.
    is_join_in_doubt: bool,
}

impl Chosen<'_> {
    /// The routes.
    ///
    /// # Errors
    ///
    /// Every fault of the three settings.
    pub(super) fn routes(&self) -> Result<Routes, ConfigErrors> {
        let mut faults = Faults::default();
        faults.take(check_topic(TOPIC, self.topic));
        faults.take(check_topic(DEAD_LETTER_TOPIC, self.dead_letter_topic));
        let (list, of_list) = self.parse();
        let mut of_list = Vec::from_iter(of_list);
        let join = self.choice_of_join(&list);
        let mut topics: Vec<(&str, String)> = Vec::new();
        let mut discarded = Vec::new();
        // The order of the topics is that of the families.
        let mut events = EVENTS;
        events.sort_by_key(|event| event.family);
        for event in events {
            let choice = match (event.name, &join) {
                (GROUP_JOIN, Ok(choice)) => choice.clone(),
                (GROUP_JOIN, Err(_)) => continue,
                (name, _) => list.choice_of(name, event.family),
            };
            match choice {
                Choice::Topic(topic) => topics.push((event.name, topic)),
                Choice::Discard => discarded.push(event.name),
                Choice::DeadLetters => {}
            }
        }
        of_list.extend(self.defaults_of_all_at_fault(&list));
        of_list.extend(join.err());
        // In one batch, because they are faults of one setting.
        faults.add(of_list);
        if self.uses_topic(&list) && self.topic == self.dead_letter_topic {
            faults.add(contradiction(
                DEAD_LETTER_TOPIC,
                TOPIC,
                "is the same as ZIM2KAFKA_TOPIC; write another topic, such as zim.dead-letter",
            ));
        }
        let topics = topics.iter().map(|(event, topic)| (*event, topic.as_str()));
        faults.finish(Some(
            Routes::new(topics, self.dead_letter_topic).discarding(discarded),
        ))
    }

    /// A warning about valid settings that are probably a mistake.
    pub(super) fn warning(&self) -> Option<String> {
        let (list, _) = self.parse();
        let named = list.get(Name::Event(GROUP_JOIN))?;
        let is_other = *named != Choice::Topic(self.topic.to_owned());
        (self.topic_is_given && is_other).then(|| {
            let topic = self.topic;
            format!(
                "{TOPIC} is {topic}, but {TOPICS} has {GROUP_JOIN}={named}, which takes precedence; unset {TOPIC}"
            )
        })
    }

    /// Parses the list, and returns the faults of its entries.
    fn parse(&self) -> (List, Vec<ConfigError>) {
        let (mut list, mut faults) = (List::default(), Vec::new());
        let entries = self.list.into_iter().flat_map(|list| list.split(','));
        for (number, entry) in (1_usize..).zip(entries.map(str::trim)) {
            if let Err(fault) = self.add(&mut list, number, entry) {
                faults.push(fault);
            }
        }
        (list, faults)
    }

    fn add(&self, list: &mut List, number: usize, entry: &str) -> Result<(), ConfigError> {
        let wrong = |problem: String| Err(invalid(TOPICS, problem));
        let (name, target) = match entry.split_once('=') {
            Some((name, target)) => (name.trim_end(), Some(target.trim_start())),
            None => (entry, None),
        };
        if entry.is_empty() {
            return wrong(format!(
                "entry {number} is empty; remove its comma, or write as in group=zim.group"
            ));
        }
        // A file or a habit may have other separators.
        let rest = target.unwrap_or_default();
        if rest.contains('=') || entry.contains([';', ':', '\n']) {
            return wrong(format!(
                "{entry:?} is not one entry; write = between a name and its topic, and a comma between entries, as in room=zim.room,message=discard"
            ));
        }
        if name.eq_ignore_ascii_case(ALL) {
            list.is_join_in_doubt |= !list.all;
            return match target {
                _ if name != ALL => wrong(format!("{name:?} is in the wrong case; write {ALL}")),
                Some(_) => wrong(format!(
                    "{entry:?}: {ALL} cannot have a topic, because it stands for one topic for each family; write {EXCEPTION}"
                )),
                None if list.all => wrong(format!("{ALL} is given more than once; write it once")),
                None if number > 1 => wrong(format!(
                    "{ALL} is not the first entry; write exceptions behind it, as in {EXCEPTION}"
                )),
                None => {
                    list.all = true;
                    list.is_join_in_doubt = false;
                    Ok(())
                }
            };
        }
        let (meant, name) = named(name);
        let is_join = meant == Some(Name::Event(GROUP_JOIN));
        let choice = match (name, target) {
            (Err(problem), _) => Err(invalid(TOPICS, problem)),
            (Ok(name), None) => Err(invalid(
                TOPICS,
                format!("{entry:?} has no topic; write {}", name.examples()),
            )),
            (Ok(name), Some(target)) => self.target(entry, name, target).map(|to| (name, to)),
        };
        let choice = choice.and_then(|(name, to)| match list.get(name) {
            None => Ok((name, to)),
            Some(_) => Err(invalid(
                TOPICS,
                format!("{} is given more than once; write it once", name.text()),
            )),
        });
        match choice {
            Ok(choice) => {
                list.entries.push(choice);
                Ok(())
            }
            Err(fault) => {
                list.is_join_in_doubt |= is_join || meant == Some(Name::Family(OF_JOIN));
                Err(fault)
            }
        }
    }

    /// The topic, or the word, behind `=`.
    fn target(&self, entry: &str, name: Name, text: &str) -> Result<Choice, ConfigError> {
        if text.is_empty() {
            let problem = format!("{entry:?} has no topic; write {}", name.examples());
            return Err(invalid(TOPICS, problem));
        }
        if let Some((_, choice)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(choice.clone());
        }
        // Before the words: a topic of dead letters may have nearly their name.
        if text == self.dead_letter_topic {
            let text = format!(
                "{entry:?} is the topic of dead letters ({DEAD_LETTER_TOPIC}), whose records have another format; write {}=dead-letter, or another topic",
                name.text()
            );
            return Err(contradiction(TOPICS, DEAD_LETTER_TOPIC, text));
        }
        if let Some((word, _)) = WORDS.iter().find(|(word, _)| is_nearly(text, word)) {
            let text = format!(
                "{entry:?}: {text:?} is nearly the word {word}; write {}={word}, or a topic with another name",
                name.text()
            );
            return Err(invalid(TOPICS, text));
        }
        check_topic_name(text)
            .map_err(|problem| invalid(TOPICS, format!("{entry:?}: {problem}")))?;
        Ok(Choice::Topic(text.to_owned()))
    }

    /// A topic that `all` stands for may be the one of dead letters.
    fn defaults_of_all_at_fault(&self, list: &List) -> Option<ConfigError> {
        let is_same = |family: &&Family| default_topic(**family) == self.dead_letter_topic;
        let family = Family::VARIANTS.iter().find(is_same)?;
        let is_used = list.all && list.get(Name::Family(*family)).is_none();
        is_used.then(|| {
            let topic = self.dead_letter_topic;
            let family = <&str>::from(*family);
            let text = format!(
                "{ALL} stands for {family}={topic} too, which is the topic of dead letters ({DEAD_LETTER_TOPIC}); add {family}=dead-letter or {family}= with another topic, or set {DEAD_LETTER_TOPIC}=zim.dead-letter"
            );
            contradiction(TOPICS, DEAD_LETTER_TOPIC, text)
        })
    }

    /// Whether ZIM2KAFKA_TOPIC, or its default, is where `group_join` goes.
    fn uses_topic(&self, list: &List) -> bool {
        let of_family = list.all || list.get(Name::Family(OF_JOIN)).is_some();
        let is_named = list.get(Name::Event(GROUP_JOIN)).is_some() || list.is_join_in_doubt;
        !is_named && (self.topic_is_given || !of_family)
    }

    /// Where `group_join` goes. The entry of its family counts only with `all`: earlier versions
    /// published this event alone, to a topic of its own, and consumers may still read that.
    fn choice_of_join(&self, list: &List) -> Result<Choice, ConfigError> {
        if let Some(named) = list.get(Name::Event(GROUP_JOIN)) {
            return Ok(named.clone());
        }
        let default = || Choice::Topic(self.topic.to_owned());
        // A fault that is reported already decides.
        if self.topic_is_given || list.is_join_in_doubt {
            return Ok(default());
        }
        let ask = |entry: &str, one: &str, ones: &str, other: &str, others: &str| {
            let entries = self.list.unwrap_or_default().split(',').map(str::trim);
            let entries = entries.collect::<Vec<_>>().join(",");
            let text = format!(
                "{entry} does not move {GROUP_JOIN}, because consumers may read the topic that it had alone; write {TOPICS}={entries},{GROUP_JOIN}={one} {ones}, or {TOPICS}={entries},{GROUP_JOIN}={other} {others}"
            );
            // Its fault, if it has one, decides too.
            Err(contradiction(TOPICS, TOPIC, text))
        };
        let own = self.topic;
        let family = <&str>::from(OF_JOIN);
        match list.get(Name::Family(OF_JOIN)) {
            None if list.all => Ok(list.choice_of(GROUP_JOIN, OF_JOIN)),
            None => Ok(default()),
            Some(Choice::Topic(topic)) if list.all => Ok(Choice::Topic(topic.clone())),
            Some(Choice::Topic(topic)) => ask(
                &format!("{family}={topic}"),
                topic,
                "for one topic with the other events of the group",
                own,
                "for the topic that it had",
            ),
            Some(word) => ask(
                &format!("{family}={word}"),
                &word.to_string(),
                "to treat it alike",
                own,
                "to publish it",
            ),
        }
    }
}

impl List {
    fn get(&self, wanted: Name) -> Option<&Choice> {
        let mut entries = self.entries.iter();
        let (_, choice) = entries.find(|(name, _)| *name == wanted)?;
        Some(choice)
    }

    /// Where the list sends an event of this family.
    fn choice_of(&self, event: &'static str, family: Family) -> Choice {
        let named = self.get(Name::Event(event));
        let named = named.or_else(|| self.get(Name::Family(family)));
        named.cloned().unwrap_or_else(|| match self.all {
            true => Choice::Topic(default_topic(family)),
            false => Choice::DeadLetters,
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => f.write_str(topic),
            word => {
                let mut words = WORDS.iter();
                let found = words.find(|(_, choice)| choice == word);
                f.write_str(found.map_or("", |(word, _)| word))
            }
        }
    }
}

/// Whether a topic of this name is probably a mistyped word. The events would be published to it.
fn is_nearly(text: &str, word: &str) -> bool {
    let letters = |text: &str| text.to_ascii_lowercase().replace(['-', '_', '.', ' '], "");
    strsim::damerau_levenshtein(&letters(text), &letters(word)) <= 1
}

/// What is wrong with the name of a topic.
fn check_topic_name(name: &str) -> Result<(), String> {
    const WRITE: &str = "write 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', as in zim.events";
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let problem = match name {
        "" => "is empty",
        "." | ".." => "is a name that Kafka reserves",
        // Records there would be read as offsets and transactions of others.
        "__consumer_offsets" | "__transaction_state" => "is a topic of Kafka's own",
        _ if name.len() > 249 => "is longer than 249 characters",
        _ if !name.bytes().all(is_legal) => "has a character that no topic may have",
        _ => return Ok(()),
    };
    Err(format!("{name:?} {problem}; {WRITE}"))
}

fn check_topic(variable: &'static str, name: &str) -> Result<(), ConfigError> {
    check_topic_name(name).map_err(|problem| invalid(variable, problem))
}
