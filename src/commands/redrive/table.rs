//! The table at the end: how many dead letters became what.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::log;

/// The most characters of the detail of an example.
const DETAIL_CHARACTERS: usize = 120;

/// What became of a dead letter. The rows of the table are in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Its record is published.
    Published {
        topic: String,
        is_authentic: bool,
    },
    /// An earlier `redrive` has published its record.
    PublishedBefore,
    /// Kafka rejects its record permanently.
    Rejected,
    Stale,
    Invalid,
    Unsupported,
    Discarded,
    /// It has no signature, and the topic is not trusted.
    NotTrusted,
    NotAuthentic,
    Malformed,
    Question,
}

/// Where an example is, and why it has its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) detail: String,
}

/// How many dead letters became what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// All dead letters that were read.
    pub(super) read: u64,
    rows: BTreeMap<Outcome, (u64, Example)>,
}

impl Table {
    pub(super) fn add(&mut self, outcome: Outcome, example: Example) {
        self.rows.entry(outcome).or_insert((0, example)).0 += 1;
    }

    /// The number of dead letters that became this.
    pub(super) fn count(&self, is_meant: impl Fn(&Outcome) -> bool) -> u64 {
        let meant = self.rows.iter().filter(|(outcome, _)| is_meant(outcome));
        meant.map(|(_, (count, _))| count).sum()
    }

    /// The dead letters that the filters selected.
    pub(super) fn selected(&self) -> u64 {
        self.count(|_| true)
    }

    /// The table as text. In a dry run nothing was published.
    pub(super) fn text(&self, topic: &str, filters: &str, is_dry: bool) -> String {
        let mut text = format!("{} of {topic} read", log::count(self.read, "dead letter"));
        if !filters.is_empty() {
            let selected = self.selected();
            write!(text, ", {selected} selected ({filters})").expect("it is a string");
        }
        let width = (self.rows.values())
            .map(|(count, _)| count.to_string().len())
            .max();
        let width = width.unwrap_or(0);
        for (outcome, (count, example)) in &self.rows {
            let row = fmt::from_fn(|f| outcome.describe(is_dry, f));
            write!(text, "\n{count:>width$}  {row}").expect("it is a string");
            if !example.detail.is_empty() {
                let (at, detail) = (" ".repeat(width), shown(&example.detail));
                let Example {
                    partition, offset, ..
                } = example;
                write!(
                    text,
                    "\n{at}  for example {topic} partition {partition} offset {offset}: {detail}"
                )
                .expect("it is a string");
            }
        }
        if is_dry {
            text.push_str("\nthis was a dry run: nothing is published, and no progress is stored");
        }
        text
    }
}

impl Outcome {
    fn describe(&self, is_dry: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Published {
                topic,
                is_authentic,
            } => {
                let done = if is_dry {
                    "to be published"
                } else {
                    "published"
                };
                let how = if *is_authentic {
                    ""
                } else {
                    ", not authenticated"
                };
                return write!(f, "{done} to {topic}{how}");
            }
            Self::PublishedBefore => "not published again: an earlier redrive has published them",
            Self::Rejected => "rejected by Kafka again",
            // Progress has passed them, unless it is a dry run.
            Self::Stale if is_dry => "still stale; --ignore-age publishes them",
            Self::Stale => "still stale; --from-beginning --ignore-age publishes them",
            Self::Invalid => "still invalid_event",
            Self::Unsupported => "still unsupported_event; ZIM2KAFKA_TOPICS has no topic for them",
            Self::Discarded => "of events that ZIM2KAFKA_TOPICS discards",
            Self::NotTrusted if is_dry => {
                "rejected_by_kafka, so without a signature; --trust-topic publishes them"
            }
            Self::NotTrusted => {
                "rejected_by_kafka, so without a signature; --from-beginning --trust-topic publishes them"
            }
            Self::NotAuthentic => "not authentic by today's ZIM2KAFKA_CALLBACK_SECRETS",
            Self::Malformed => "not a callback",
            Self::Question => "before_send_msg, which is never published",
        };
        f.write_str(text)
    }
}

/// Details contain names that the sender chose.
fn shown(detail: &str) -> String {
    let printable = detail.chars().flat_map(|char| match char.is_control() {
        true => char.escape_default().collect::<Vec<_>>(),
        false => vec![char],
    });
    let mut shown: String = printable.take(DETAIL_CHARACTERS).collect();
    if detail.chars().count() > DETAIL_CHARACTERS {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table {
            read: 1200,
            ..Table::default()
        };
        let example = |detail: &str| Example {
            partition: 2,
            offset: 17,
            detail: detail.to_owned(),
        };
        let published = |is_authentic| Outcome::Published {
            topic: "zim.group".to_owned(),
            is_authentic,
        };
        for _ in 0..1000 {
            table.add(published(true), example(""));
        }
        table.add(Outcome::Stale, example("its timestamp is 900 s old"));
        table.add(Outcome::Stale, example("its timestamp is 901 s old"));
        table.add(published(false), example(""));
        table.add(Outcome::Malformed, example("a\u{1b}[2J\nb"));
        table
    }

    #[test]
    fn rows_have_their_number_and_the_first_example() {
        let text = table().text("dead", "key g1", false);
        let expected = "\
1200 dead letters of dead read, 1004 selected (key g1)
   1  published to zim.group, not authenticated
1000  published to zim.group
   2  still stale; --from-beginning --ignore-age publishes them
      for example dead partition 2 offset 17: its timestamp is 900 s old
   1  not a callback
      for example dead partition 2 offset 17: a\\u{1b}[2J\\nb";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_dry_run_has_the_same_rows_and_says_that_it_was_one() {
        let (dry, real) = (
            table().text("dead", "", true),
            table().text("dead", "", false),
        );
        let dry = dry.replace("to be published", "published");
        let real = real.replace("--from-beginning --ignore-age", "--ignore-age");
        let last = "\nthis was a dry run: nothing is published, and no progress is stored";
        assert_eq!(dry, format!("{real}{last}"));
        assert!(
            real.starts_with("1200 dead letters of dead read\n"),
            "{real}"
        );
    }

    #[test]
    fn dead_letters_are_counted_by_what_became_of_them() {
        let table = table();
        assert_eq!(table.selected(), 1004);
        assert_eq!(table.count(|outcome| *outcome == Outcome::Stale), 2);
    }

    #[test]
    fn a_long_detail_is_cut() {
        let shown = shown(&"ü".repeat(200));
        assert_eq!(shown.chars().count(), DETAIL_CHARACTERS + 1);
        assert!(shown.ends_with("ü…"));
    }
}
