//! Publishes records and stores the progress of a consumer group in one transaction, for `redrive`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSettings;
use super::bounded::{BoundedReader, Stored};
use super::client_config::{Ordering, of_producer};
use super::events::{Event, EventQueue};
use super::offsets::AckedOffsets;
use super::producer::{Callbacks, Outgoing, SendError, log};
use super::reports::{Report, judge};
use super::schema_ids::SchemaIds;
use super::transfer::{TransferError, is_fenced};
use crate::event::Record;

/// How long Kafka keeps a transaction open whose producer has vanished. Until then, or until the
/// next `redrive` with the same filters begins, subscribers that read committed records only do not
/// get the records behind it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a record may wait for Kafka; shorter than its transaction may last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a producer collects records. All records of a transaction are handed over at once.
const LINGER_MS: &str = "5";

/// The time for one step of a transaction, apart from its records.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// The time for the start, in which an older transaction with the same id is ended.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The time to abort a transaction at the end.
const GIVE_UP_TIME: Duration = Duration::from_secs(3);

/// How long the reports on other records are waited for after a failure.
const REJECTION_TIME: Duration = Duration::from_millis(300);

/// How often it is checked whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A producer whose records and progress are published in transactions: all of a transaction or
/// nothing. Only the last one that started with its id publishes anything.
///
/// It is not used again after a failure. librdkafka 2.12 could abort the transaction, but it does not
/// take back the sequence numbers of a batch that Kafka has rejected, so records of the next
/// transaction time out. A new producer with the same id aborts the transaction too.
pub struct Transactions {
    // First, because it must be dropped before the client.
    events: EventQueue,
    inner: BaseProducer<Callbacks>,
    id: String,
    acked: AckedOffsets,
    schema_ids: Option<Arc<SchemaIds>>,
}

/// How a transaction ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Commit {
    /// Its records and its progress are published.
    Done,
    /// Kafka has rejected records permanently, so nothing of it is published. These are known to be
    /// rejected, by their places, with the reason. If there is none, send each record in a batch of
    /// its own.
    Rejected(Vec<(usize, String)>),
}

/// What the reports on the records of a transaction say.
#[derive(Default)]
struct Reported {
    count: usize,
    /// Kafka has rejected a record permanently, perhaps without naming it.
    is_rejected: bool,
    named: Vec<(usize, String)>,
    /// The transaction has failed, so librdkafka has taken back records that were not sent yet. The
    /// report on the record that is the cause may come later.
    is_taken_back: bool,
    failed: Option<TransferError>,
}

impl Transactions {
    /// Starts a producer. From then on, no earlier one with this id can publish anything, and what it
    /// has not committed is aborted. If `is_alone`, each record is sent in a batch of its own, so that
    /// it is known which one Kafka rejects. Returns `None` if `is_stopped` becomes true before.
    ///
    /// # Errors
    ///
    /// If librdkafka does not accept the settings, a right is missing or Kafka does not answer.
    pub fn start(
        settings: &KafkaSettings,
        id: &str,
        is_alone: bool,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Option<Self>, TransferError> {
        let mut client = settings.client();
        if client.get("linger.ms").is_none() {
            client.set("linger.ms", LINGER_MS);
        }
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        let mut config = of_producer(client, Ordering::Relaxed);
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", milliseconds(TRANSACTION_TIMEOUT))
            .set("message.timeout.ms", milliseconds(MESSAGE_TIMEOUT))
            // The caller bounds the records of a transaction. With a smaller limit of the operator, a
            // large record would wait for space for ever.
            .set("queue.buffering.max.kbytes", "2147483647")
            .set("statistics.interval.ms", "0");
        if is_alone {
            config.set("batch.num.messages", "1");
        }
        let inner: BaseProducer<Callbacks> =
            (config.create_with_context(Callbacks)).map_err(TransferError::Kafka)?;
        let transactions = Self {
            events: EventQueue::of(inner.client()),
            inner,
            id: id.to_owned(),
            acked: AckedOffsets::default(),
            schema_ids: settings.schema_ids.clone(),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let started = transactions.inner.init_transactions(POLL_INTERVAL);
            transactions.log_events();
            match started {
                Ok(()) => return Ok(Some(transactions)),
                Err(_) if is_stopped() => return Ok(None),
                Err(error) if !is_retriable(&error) => return Err(transactions.error(error)),
                Err(_) if Instant::now() > deadline => {
                    return Err(TransferError::NotStarted(START_TIMEOUT));
                }
                Err(_) => {}
            }
        }
    }

    /// Publishes records, each to its topic, and stores the progress of the reader's group, in one
    /// transaction.
    ///
    /// # Errors
    ///
    /// Then nothing is published, or, if the connection is lost while Kafka commits, all of it: the
    /// progress that is stored after the start of the next producer tells which by its marks.
    pub fn commit(
        &mut self,
        records: &[(&str, &Record)],
        reader: &BoundedReader,
        progress: &Stored,
    ) -> Result<Commit, TransferError> {
        let begun = self.inner.begin_transaction();
        begun.map_err(|error| self.error(error))?;
        let reported = self.send(records);
        if let Some((code, reason)) = self.inner.client().fatal_error() {
            return Err(match is_fenced(code) {
                true => TransferError::Fenced,
                false => TransferError::Failed(reason),
            });
        }
        if let Some(failed) = reported.outcome() {
            return failed;
        }
        let stored = self.store(reader, progress);
        let ended =
            stored.and_then(|()| self.retried(|inner| inner.commit_transaction(STEP_TIMEOUT)));
        ended.map_err(|error| self.error(error))?;
        Ok(Commit::Done)
    }

    /// Aborts the transaction of a producer that is not used any more, if that is possible at once.
    /// Otherwise Kafka does that after 30 s, the timeout of a transaction.
    pub fn give_up(self) {
        let deadline = Instant::now() + GIVE_UP_TIME;
        let abort = || self.inner.abort_transaction(POLL_INTERVAL);
        while abort().is_err_and(|error| is_retriable(&error)) && Instant::now() < deadline {
            // librdkafka waits for the reports to be taken.
            self.log_events();
        }
    }

    /// Hands over all records and waits for the reports on them. After the first failure, librdkafka
    /// takes back by itself what is not sent yet.
    fn send(&mut self, records: &[(&str, &Record)]) -> Reported {
        let mut reported = Reported::default();
        let mut sent = 0;
        for (number, (topic, record)) in (0..).zip(records) {
            match self.send_one(topic, number, record, &mut reported) {
                true => sent += 1,
                false => break,
            }
        }
        let mut deadline = Instant::now() + MESSAGE_TIMEOUT + STEP_TIMEOUT;
        while reported.count < sent && Instant::now() < deadline {
            if reported.is_failed() {
                // For more rejections of what is under way. The rest would time out.
                deadline = deadline.min(Instant::now() + REJECTION_TIME);
            }
            self.take_reports(&mut reported);
        }
        reported.is_taken_back |= reported.count < sent;
        reported
    }

    /// Whether librdkafka has taken the record.
    fn send_one(
        &mut self,
        topic: &str,
        number: u64,
        record: &Record,
        reported: &mut Reported,
    ) -> bool {
        let outgoing = match Outgoing::of(record, self.schema_ids.as_deref()) {
            Ok(outgoing) => outgoing,
            Err(reason) => {
                reported.fail(topic, reason);
                return false;
            }
        };
        loop {
            let Err((error, _)) = self.inner.send(outgoing.message(topic, number)) else {
                return true;
            };
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) {
                // An earlier record has failed.
                reported.is_taken_back = true;
                return false;
            }
            match SendError::of(&error) {
                SendError::Full => self.take_reports(reported),
                SendError::Rejected(reason) => {
                    reported.reject(number, reason);
                    return false;
                }
                SendError::Failed(reason) => {
                    reported.fail(topic, reason);
                    return false;
                }
            }
        }
    }

    /// Waits for an event and takes the reports in it.
    fn take_reports(&mut self, reported: &mut Reported) {
        match self.events.wait(REJECTION_TIME) {
            Some(Event::Reports(mut batch)) => {
                self.acked.disbelieve_repetition(&mut batch);
                let is_taken_back = matches!(
                    batch.error,
                    RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight
                );
                let reports = judge(batch);
                reported.count += reports.records.len();
                for (number, report) in reports.records {
                    match report {
                        Report::Acked => {}
                        _ if is_taken_back => reported.is_taken_back = true,
                        Report::Rejected(reason) => reported.reject(number, reason),
                        Report::Suspect(_) | Report::Bystander => reported.is_rejected = true,
                        Report::Failed(reason) => reported.fail(&reports.topic, reason),
                    }
                }
            }
            Some(event) => log_event(event),
            None => {}
        }
    }

    /// Adds the progress of the reader's group to the transaction.
    fn store(&self, reader: &BoundedReader, progress: &Stored) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        for (partition, (at, mark)) in progress {
            let mut added = offsets.add_partition(reader.topic(), *partition);
            added.set_offset(Offset::Offset(*at))?;
            added.set_metadata(mark);
        }
        let group = reader.group().ok_or(KafkaError::Canceled)?;
        self.retried(|inner| inner.send_offsets_to_transaction(&offsets, &group, STEP_TIMEOUT))
    }

    /// Repeats a step that Kafka may do later.
    fn retried(
        &self,
        step: impl Fn(&BaseProducer<Callbacks>) -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            match step(&self.inner) {
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {
                    self.log_events();
                }
                done => return done,
            }
        }
    }

    fn log_events(&self) {
        while let Some(event) = self.events.poll() {
            log_event(event);
        }
    }

    fn error(&self, error: KafkaError) -> TransferError {
        match self.inner.client().fatal_error() {
            Some((code, _)) if is_fenced(code) => TransferError::Fenced,
            _ => TransferError::of_group(&self.id, error),
        }
    }
}

impl Reported {
    fn is_failed(&self) -> bool {
        self.is_rejected || self.is_taken_back || self.failed.is_some()
    }

    /// What became of the transaction, if not all records are acknowledged.
    fn outcome(self) -> Option<Result<Commit, TransferError>> {
        if self.is_rejected {
            return Some(Ok(Commit::Rejected(self.named)));
        }
        let taken_back = || TransferError::Failed("Kafka did not take all records".to_owned());
        let failed = self.failed.or_else(|| self.is_taken_back.then(taken_back));
        failed.map(Err)
    }

    fn reject(&mut self, number: u64, reason: String) {
        self.is_rejected = true;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        self.named.push((place, reason));
    }

    fn fail(&mut self, topic: &str, reason: String) {
        let topic = topic.to_owned();
        (self.failed).get_or_insert(TransferError::Topic { topic, reason });
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

fn log_event(event: Event) {
    match event {
        Event::Log {
            level,
            facility,
            message,
        } => log(level, &facility, &message),
        Event::Error { code, reason } => tracing::debug!("Kafka client error: {code} ({reason})"),
        Event::Reports(_) | Event::Statistics(_) => {}
    }
}
