//! Reads the dead letters, and publishes what has become valid together with the progress.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::batch::{Batch, Fate, Letter, reject};
use super::judge::{Judge, Judgement};
use super::table::{Example, Outcome, Table};
use crate::commands::filter::Filter;
use crate::commands::progress::Counter;
use crate::event::{Policy, REDRIVEN, Record, Rules, Times};
use crate::kafka::{
    Begin, BoundedReader, Commit, Consumed, KafkaSettings, Stored, Transactions, TransferError,
};

/// How often it is checked whether to stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(200);

/// How often a transaction is tried.
const ATTEMPTS: u32 = 5;

/// The pause before the next attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// What to do.
pub(super) struct Job<'a> {
    pub(super) kafka: &'a KafkaSettings,
    pub(super) judge: Judge<'a>,
    pub(super) filter: &'a Filter,
    /// The consumer group, and the transactional id.
    pub(super) group: &'a str,
    pub(super) is_dry: bool,
    pub(super) from_beginning: bool,
    /// Whether records are published that an earlier run has published.
    pub(super) republish: bool,
    pub(super) stop: &'a AtomicBool,
    pub(super) counter: &'a Counter,
}

/// How much older the record of an earlier run may be than this run knows: retries of a callback can
/// have one `event_id` and different timestamps, within the sender's 62 s.
const TIME_MARGIN_MS: i64 = 120_000;

/// What would be published, before anything is.
#[derive(Default)]
struct Survey {
    /// The topics, with the oldest Kafka timestamp that their records may have.
    topics: BTreeMap<String, i64>,
}

/// Where it publishes to, and how far it has come.
struct Publishing {
    /// `None` after a failure.
    transactions: Option<Transactions>,
    /// Whether it sends each record in a batch of its own.
    is_alone: bool,
    /// The progress that is stored if nobody else has stored any.
    stored: Stored,
    /// The progress that the last transaction was to store.
    attempted: Stored,
    /// The progress that is committed. It never goes back: with `from_beginning`, the next run would
    /// otherwise publish again what this one has not reached.
    progress: BTreeMap<i32, i64>,
}

impl Job<'_> {
    /// Does it, up to the end of the topic as it is now or until it is to stop. What it has done is
    /// in the table, also if it fails.
    pub(super) fn run(&self, table: &mut Table) -> Result<(), TransferError> {
        let transactions = match self.is_dry {
            true => None,
            // First, because it ends what an earlier run may still have under way.
            false => {
                match Transactions::start(self.kafka, self.group, false, || self.is_stopped())? {
                    None => return Ok(()),
                    started => started,
                }
            }
        };
        let begin = match self.from_beginning {
            true => Begin::Oldest,
            false => Begin::Progress,
        };
        let topic = self.kafka.routes.dead_letter_topic();
        let mut reader = BoundedReader::open(self.kafka, topic, self.group, begin)?;
        let survey = self.survey(&mut reader)?;
        let mut targets = survey.topics.keys();
        let checked = targets.try_for_each(|topic| reader.check_target(topic));
        // A dry run shows its table all the same.
        let (checked, failed) = match (self.is_dry, checked) {
            (true, checked) => (Ok(()), checked),
            (false, checked) => (checked, Ok(())),
        };
        checked?;
        let published = match self.republish || failed.is_err() {
            false => self.search(&survey)?,
            true => HashSet::new(),
        };
        if self.is_stopped() {
            return Ok(());
        }
        reader.rewind()?;
        let publishing = transactions.map(|transactions| Publishing {
            transactions: Some(transactions),
            is_alone: false,
            stored: reader.stored().clone(),
            attempted: Stored::new(),
            progress: reader.progress().clone(),
        });
        self.publish(&mut reader, publishing, published, table)?;
        failed
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The next dead letter. An age of `--until` excludes letters that the same command selects
    /// later, so its progress stops before the first one of each partition.
    fn next(&self, reader: &mut BoundedReader) -> Result<Option<Consumed>, TransferError> {
        let Some(letter) = reader.next(POLL_TIMEOUT)? else {
            return Ok(None);
        };
        let until = self
            .filter
            .until
            .as_ref()
            .filter(|until| until.age.is_some());
        if until.is_some_and(|until| letter.timestamp.is_some_and(|time| time >= until.at)) {
            reader.end_of(letter.partition)?;
            return Ok(None);
        }
        Ok(Some(letter))
    }

    /// Judges all dead letters without publishing them, to find out beforehand where they go, and
    /// since when earlier runs, with other settings, may have published them.
    fn survey(&self, reader: &mut BoundedReader) -> Result<Survey, TransferError> {
        self.counter.begin("judging dead letters", reader.len());
        let mut survey = Survey::default();
        // An earlier run may have taken an event's own time for the record, or the signed one.
        let policy = Policy {
            tolerance: None,
            ..self.judge.rules.policy.clone()
        };
        let judge = Judge {
            rules: Rules {
                policy: &policy,
                ..self.judge.rules
            },
            ..self.judge
        };
        while !self.is_stopped() && !reader.is_at_end() {
            let Some(letter) = self.next(reader)? else {
                continue;
            };
            self.counter.add();
            if self.filter.matches(&letter)
                && let Judgement::Publish { record, .. } = judge.judge(&letter)
                && let Some(topic) = self.topic_of(&record)
            {
                let oldest = survey.topics.entry(topic.to_owned()).or_insert(i64::MAX);
                // With `LogAppendTime`, Kafka has set the timestamp when it was published.
                let Times { callback, received } = record.times;
                let times = [record.timestamp, callback, received];
                let earliest = times.into_iter().chain(letter.timestamp).min();
                *oldest = (*oldest).min(earliest.unwrap_or(0).saturating_sub(TIME_MARGIN_MS));
            }
        }
        Ok(survey)
    }

    fn topic_of(&self, record: &Record) -> Option<&str> {
        self.kafka.routes.topic_of(record.event.as_deref()?)
    }

    /// The ids of the records that earlier runs have published. None of them has an older timestamp
    /// than the oldest that is to be published now.
    fn search(&self, survey: &Survey) -> Result<HashSet<Uuid>, TransferError> {
        let mut found = HashSet::new();
        for (topic, oldest) in &survey.topics {
            let begin = Begin::Time((*oldest).max(0));
            let mut reader = BoundedReader::open(self.kafka, topic, self.group, begin)?;
            let what = format!("looking for records of earlier redrives in {topic}");
            self.counter.begin(&what, reader.len());
            while !self.is_stopped() && !reader.is_at_end() {
                let Some(record) = reader.next(POLL_TIMEOUT)? else {
                    continue;
                };
                self.counter.add();
                if record.header(REDRIVEN).is_some()
                    && let Some(id) = record.header("ce_id")
                    && let Ok(id) = Uuid::try_parse_ascii(id)
                {
                    found.insert(id);
                }
            }
        }
        Ok(found)
    }

    fn publish(
        &self,
        reader: &mut BoundedReader,
        mut publishing: Option<Publishing>,
        mut published: HashSet<Uuid>,
        table: &mut Table,
    ) -> Result<(), TransferError> {
        let what = match self.is_dry {
            true => "judging dead letters",
            false => "publishing dead letters",
        };
        self.counter.begin(what, reader.len());
        let mut batch = Batch::default();
        let mut next: Option<Letter> = None;
        loop {
            let mut is_over = self.is_stopped() || (reader.is_at_end() && next.is_none());
            let is_repeated = next.as_ref().is_some_and(|next| batch.has_record_of(next));
            if is_over || is_repeated || batch.is_due() {
                let letters = std::mem::take(&mut batch).letters;
                is_over |=
                    !self.finish(letters, reader, publishing.as_mut(), &mut published, table)?;
            }
            if is_over {
                // Kafka begins another transaction only once the one before is visible to
                // subscribers, and so to a run with other filters.
                return match &mut publishing {
                    Some(publishing) => self.commit(&[], false, reader, publishing).map(drop),
                    None => Ok(()),
                };
            }
            if let Some(next) = next.take() {
                batch.add(self.unless_published(next, &published));
            }
            if let Some(letter) = self.next(reader)? {
                next = Some(self.judged(&letter));
            }
        }
    }

    fn judged(&self, letter: &Consumed) -> Letter {
        let (outcome, record) = match self.filter.matches(letter) {
            false => (None, None),
            true => match self.judge.judge(letter) {
                Judgement::Stay(outcome, detail) => (Some((outcome, detail)), None),
                Judgement::Publish {
                    record,
                    is_authentic,
                } => {
                    let topic = self.topic_of(&record).unwrap_or_default().to_owned();
                    let outcome = Outcome::Published {
                        topic,
                        is_authentic,
                    };
                    (Some((outcome, String::new())), Some(record))
                }
            },
        };
        Letter {
            partition: letter.partition,
            offset: letter.offset,
            outcome,
            record,
        }
    }

    fn unless_published(&self, letter: Letter, published: &HashSet<Uuid>) -> Letter {
        match letter.event_id().is_some_and(|id| published.contains(&id)) {
            false => letter,
            true => Letter {
                outcome: Some((Outcome::PublishedBefore, String::new())),
                record: None,
                ..letter
            },
        }
    }

    /// Publishes the letters with their progress, and counts them. Returns false after a stop while
    /// Kafka rejects records: then these letters, and so all later ones, are left to the next run.
    fn finish(
        &self,
        letters: Vec<Letter>,
        reader: &BoundedReader,
        mut publishing: Option<&mut Publishing>,
        published: &mut HashSet<Uuid>,
        table: &mut Table,
    ) -> Result<bool, TransferError> {
        let (mut letters, mut is_alone) = (letters, false);
        while let Some(publishing) = publishing.as_deref_mut()
            && !letters.is_empty()
        {
            let commit = self.commit(&letters, is_alone, reader, publishing)?;
            tracing::debug!(
                "a transaction with {} dead letters: {commit:?}",
                letters.len()
            );
            match commit {
                Commit::Done => break,
                Commit::Rejected(named) if named.is_empty() && is_alone => {
                    let reason = "it does not name the record that it rejects".to_owned();
                    return Err(TransferError::Failed(reason));
                }
                Commit::Rejected(_) if self.is_stopped() => return Ok(false),
                Commit::Rejected(named) => {
                    is_alone |= named.is_empty();
                    reject(&mut letters, named);
                }
            }
        }
        if !self.republish {
            published.extend(letters.iter().filter_map(Letter::event_id));
        }
        self.count(letters, table);
        Ok(true)
    }

    /// Publishes the letters with their progress.
    fn commit(
        &self,
        letters: &[Letter],
        is_alone: bool,
        reader: &BoundedReader,
        publishing: &mut Publishing,
    ) -> Result<Commit, TransferError> {
        let mut next = publishing.progress.clone();
        for letter in letters {
            let at = next.entry(letter.partition).or_default();
            *at = (letter.offset + 1).max(*at);
        }
        let records = letters.iter().filter_map(|letter| letter.record.as_ref());
        let records = records.filter_map(|record| Some((self.topic_of(record)?, record)));
        let records: Vec<_> = records.collect();
        let mut attempt = 1;
        loop {
            let Some(mut transactions) = self.transactions(is_alone, reader, publishing)? else {
                publishing.progress = next;
                return Ok(Commit::Done);
            };
            // Tells this transaction from every other one, which may have stored the same offsets.
            let mark = Uuid::from_u128(rand::random()).to_string();
            let marked = |(partition, at): (&i32, &i64)| (*partition, (*at, mark.clone()));
            publishing.attempted = next.iter().map(marked).collect();
            let error = match transactions.commit(&records, reader, &publishing.attempted) {
                Ok(Commit::Done) => {
                    publishing.transactions = Some(transactions);
                    publishing.stored.clone_from(&publishing.attempted);
                    publishing.progress = next;
                    return Ok(Commit::Done);
                }
                Ok(rejected) => return Ok(rejected),
                Err(error) => error,
            };
            if !error.is_temporary() || attempt == ATTEMPTS || self.is_stopped() {
                transactions.give_up();
                return Err(error);
            }
            tracing::warn!("{error}; trying again");
            attempt += 1;
            std::thread::sleep(ATTEMPT_PAUSE);
        }
    }

    /// The producer for the next transaction. After a failure, it is a new one; another run with the
    /// same filters may have started in between, and then this one ends. `None` if the transaction
    /// that was attempted before turns out to be committed.
    fn transactions(
        &self,
        is_alone: bool,
        reader: &BoundedReader,
        publishing: &mut Publishing,
    ) -> Result<Option<Transactions>, TransferError> {
        let transactions = publishing.transactions.take();
        if transactions.is_some() && publishing.is_alone == is_alone {
            return Ok(transactions);
        }
        drop(transactions);
        publishing.is_alone = is_alone;
        // A stop does not interrupt what is needed to end in order.
        let started = Transactions::start(self.kafka, self.group, is_alone, || false)?;
        let stored = reader.stored_now()?;
        match Fate::of(&stored, &publishing.stored, &publishing.attempted) {
            Fate::Aborted => Ok(started),
            Fate::Committed => {
                publishing.transactions = started;
                publishing.stored = stored;
                Ok(None)
            }
            Fate::Unknown => Err(TransferError::Fenced),
        }
    }

    fn count(&self, letters: Vec<Letter>, table: &mut Table) {
        for letter in letters {
            table.read += 1;
            self.counter.add();
            if let Some((outcome, detail)) = letter.outcome {
                let Letter {
                    partition, offset, ..
                } = letter;
                let example = Example {
                    partition,
                    offset,
                    detail,
                };
                table.add(outcome, example);
            }
        }
    }
}
