//! The spooler: one thread that writes to disk what Kafka does not take in time, and deletes what
//! Kafka has acknowledged. It makes dead letters of rejected events that waited on disk for space.
//! Nothing else writes to the spool.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::queue::Queue;
use super::refused::RefusedRows;
use super::wakeup::{SPOOLER_POLL_INTERVAL_MIN, Wakeups};
use crate::event::MAX_RECORD_BYTES;
use crate::failpoint;
use crate::log::{Chain, LogThrottle};
use crate::metrics::Metrics;
use crate::spool::{self, Row, Share, Spool};

/// The bytes of events after which a transaction takes no further one, and those of dead letters. The
/// next transaction follows at once. The WAL that both make is smaller than the reserve, so that on a
/// full disk the reserve's space is enough to copy the WAL into the file.
const SPOOL_BATCH_BYTES: usize = 1024 * 1024;

/// Acknowledged rows are deleted after at most this time.
const DELETE_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The time for deletions at shutdown. Rows still on disk after it are published again.
const SHUTDOWN_DELETE_TIME: Duration = Duration::from_secs(1);

/// How often the files of the spool are looked for under their names while nothing is written.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a write that failed or found no space.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What other threads see of the spool.
#[derive(Debug, Default)]
pub(super) struct SpoolStatus {
    is_working: AtomicBool,
    /// Why it is not working: events have used their share of it.
    is_full: AtomicBool,
    has_lost_files: AtomicBool,
}

impl SpoolStatus {
    /// Whether the last write succeeded and found space.
    pub(super) fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Relaxed)
    }

    /// Whether it takes no events because it is full.
    pub(super) fn is_full(&self) -> bool {
        !self.is_working() && self.is_full.load(Ordering::Relaxed)
    }

    /// Whether the files were removed or replaced: the next start will not find them.
    pub(super) fn has_lost_files(&self) -> bool {
        self.has_lost_files.load(Ordering::Relaxed)
    }
}

/// The running spooler.
pub(super) struct Spooler {
    wakeups: Arc<Wakeups>,
    thread: JoinHandle<()>,
}

impl Spooler {
    /// Starts to serve the queues of these lanes. `on_damage` gets damage that is found
    /// while the service runs; only a restart can then recover the spool.
    pub(super) fn start(
        spool: Spool,
        wakeups: Arc<Wakeups>,
        lanes: Arc<Lanes>,
        metrics: Arc<Metrics>,
        status: Arc<SpoolStatus>,
        on_damage: impl Fn(spool::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let is_closed = spool.is_read_only();
        status.is_working.store(!is_closed, Ordering::Relaxed);
        let mut worker = Worker {
            spool,
            is_closed,
            verify_due: Instant::now(),
            wakeups: Arc::clone(&wakeups),
            lanes,
            metrics,
            status,
            on_damage: Box::new(on_damage),
            last_deletion: Instant::now(),
            delete_retry: None,
            refused: RefusedRows::default(),
            written: Vec::new(),
            failure: Backoff::default(),
            events_full: Backoff::default(),
            dead_letters_full: Backoff::default(),
        };
        let thread = thread::Builder::new()
            .name("spooler".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self { wakeups, thread })
    }

    /// Writes and deletes one last time, and closes the spool.
    pub(super) fn stop(self) {
        self.wakeups.spooler.stop();
        self.thread
            .join()
            .expect("a panic in the spooler ends the process");
    }
}

struct Worker {
    spool: Spool,
    /// Nothing is written any more in this run, which goes on with Kafka alone. What is on disk is
    /// still read and published.
    is_closed: bool,
    /// When to look for the files under their names, unless something is written before.
    verify_due: Instant,
    wakeups: Arc<Wakeups>,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
    status: Arc<SpoolStatus>,
    on_damage: Box<dyn Fn(spool::Error) + Send>,
    last_deletion: Instant,
    /// When to delete again, after deleting has failed.
    delete_retry: Option<Instant>,
    refused: RefusedRows,
    /// Rows of each lane that are on disk, and the queues do not know it yet.
    written: Vec<Vec<Row>>,
    failure: Backoff,
    /// There is no space for more events. Dead letters are not affected.
    events_full: Backoff,
    /// There is no space for more dead letters. Events are not affected.
    dead_letters_full: Backoff,
}

/// Pauses work that has failed, and limits how often the failure is logged.
#[derive(Debug, Default)]
struct Backoff {
    until: Option<Instant>,
    log: LogThrottle,
}

impl Backoff {
    fn begin(&mut self, message: &str) {
        self.until = Some(Instant::now() + RETRY_PAUSE);
        if self.log.is_due() {
            tracing::error!("{message}");
        }
    }

    fn is_active(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Worker {
    fn run(&mut self) {
        self.update_metrics();
        loop {
            let woken = self.wakeups.spooler.wait(self.next_due());
            let stop = self.wakeups.spooler.is_stopped();
            if self.is_closed {
                if stop {
                    return self.report_lost("the service stops, and ");
                }
                let done = (self.refused).dead_letter(&self.spool, &self.lanes, &self.wakeups);
                if let Err(error) = done {
                    return self.damaged(error);
                }
                self.update_metrics();
                continue;
            }
            match self.tick(woken, stop) {
                Ok(()) if stop => return,
                Ok(()) => {}
                Err(error @ spool::Error::Replaced { .. }) => self.close(&error),
                Err(error @ spool::Error::Damaged(_)) => return self.damaged(error),
                Err(error) => {
                    self.failed(&format!(
                        "the spool cannot be used ({}); retrying. Give ZIM2KAFKA_SPOOL_DIR a disk that works and has free space",
                        Chain(&error)
                    ));
                    if stop {
                        return;
                    }
                }
            }
        }
    }

    /// Reads nothing from the spool any more, and writes nothing to it.
    fn damaged(&self, error: spool::Error) {
        self.spool.abandon();
        self.spool.mark_damaged();
        (self.on_damage)(error);
    }

    /// Goes on with Kafka alone, because the files were removed or replaced. To open them anew would
    /// not do: whatever removed them may do so again, and another process may own the folder now.
    fn close(&mut self, error: &spool::Error) {
        self.spool.abandon();
        self.is_closed = true;
        self.status.is_working.store(false, Ordering::Relaxed);
        self.status.has_lost_files.store(true, Ordering::Relaxed);
        tracing::error!(
            "{error}; nothing more is stored there, and new events depend on Kafka alone. Find out what removes files in ZIM2KAFKA_SPOOL_DIR, and start the service again once zim2kafka_kafka_in_flight_records is 0"
        );
        self.report_lost("");
    }

    /// Logs how many records the process takes along if it ends now.
    fn report_lost(&self, when: &str) {
        let (records, _) = self.spool.records();
        let published: usize = self
            .lanes
            .queues()
            .map(|queue| queue.undeleted_rows())
            .sum();
        let lost = usize::try_from(records)
            .unwrap_or(0)
            .saturating_sub(published);
        if self.status.has_lost_files() && lost > 0 {
            tracing::error!(
                "{when}{lost} records of the spool are in no file that a start finds; they are lost unless Kafka takes them before this process ends"
            );
        }
    }

    /// When the spooler has something to do next, unless it is woken.
    fn next_due(&self) -> Instant {
        if self.is_closed {
            return Instant::now() + DELETE_INTERVAL_MAX;
        }
        let due = self.lanes.shares().map(|(queue, share)| {
            let due = queue.spool_due()?;
            let retry = self.full(share).until;
            Some(retry.map_or(due, |retry| due.max(retry)))
        });
        let after = self.spool.settings().after;
        let idle = Instant::now() + after.clamp(SPOOLER_POLL_INTERVAL_MIN, DELETE_INTERVAL_MAX);
        let next = due.flatten().fold(idle, Instant::min);
        self.failure.until.map_or(next, |until| next.max(until))
    }

    fn full(&self, share: Share) -> &Backoff {
        match share {
            Share::Events => &self.events_full,
            Share::DeadLetters => &self.dead_letters_full,
        }
    }

    /// Deletes acknowledged rows and writes due ones.
    fn tick(&mut self, woken: bool, stop: bool) -> Result<(), spool::Error> {
        let now = Instant::now();
        if now >= self.verify_due {
            self.verify_due = now + VERIFY_INTERVAL;
            self.spool.verify()?;
        }
        self.confirm()?;
        // Deletions continue during a pause, because they free space.
        let pauses = self.failure.is_active(now) && !stop;
        let is_full = |share| self.full(share).is_active(now) && !stop;
        let event_lanes = self.lanes.events().len().max(1);
        let due_rows = |(queue, share): (&Arc<Queue>, Share)| {
            let limit = match share {
                Share::Events => SPOOL_BATCH_BYTES / event_lanes,
                Share::DeadLetters => SPOOL_BATCH_BYTES,
            };
            match pauses || is_full(share) {
                true => Vec::new(),
                false => queue.due_rows(now, limit),
            }
        };
        let rows: Vec<Vec<Row>> = self.lanes.shares().map(due_rows).collect();
        let nothing_to_write = rows.iter().all(Vec::is_empty);
        // Not even a probe: while the quota is used up, new events wake the spooler all the time.
        let pauses = pauses || nothing_to_write && is_full(Share::Events);
        let is_woken =
            woken && (!pauses || self.lanes.queues().any(|queue| queue.has_deletable_rows()));
        if nothing_to_write && !is_woken && !stop && now < self.last_deletion + DELETE_INTERVAL_MAX
        {
            return Ok(());
        }
        self.last_deletion = now;
        let done = self.delete_acked(stop).and_then(|()| match pauses {
            true => Ok(()),
            false => self.write_batch(rows),
        });
        self.update_metrics();
        done
    }

    /// Deletes rows that Kafka has acknowledged: a part of them, or at shutdown as many as there is
    /// time for.
    fn delete_acked(&mut self, stop: bool) -> Result<(), spool::Error> {
        let now = Instant::now();
        if self.delete_retry.is_some_and(|retry| now < retry) && !stop {
            return Ok(());
        }
        let until = if stop {
            now + SHUTDOWN_DELETE_TIME
        } else {
            now
        };
        let deleted = self.delete_until(until);
        self.delete_retry = deleted.is_err().then(|| Instant::now() + RETRY_PAUSE);
        deleted
    }

    fn delete_until(&mut self, end: Instant) -> Result<(), spool::Error> {
        for queue in self.lanes.queues() {
            let mut rows = queue.deletable_rows();
            while !rows.is_empty() {
                let deleted = self.spool.delete(&rows)?;
                let deleted: Vec<u64> = rows.drain(..deleted).collect();
                for queue in self.lanes.queues() {
                    queue.mark_deleted(&deleted);
                }
                if !rows.is_empty() && Instant::now() >= end {
                    self.wakeups.spooler.wake();
                    break;
                }
            }
        }
        (self.refused).mark(&mut self.spool, &self.lanes, &self.wakeups)?;
        (self.refused).dead_letter(&self.spool, &self.lanes, &self.wakeups)?;
        self.spool.tidy()
    }

    /// Writes the rows of all lanes in one transaction. Without rows, checks after a failure
    /// whether a write would succeed now.
    fn write_batch(&mut self, mut rows: Vec<Vec<Row>>) -> Result<(), spool::Error> {
        let size = |lane: &Vec<Row>| lane.iter().map(|row| row.record.size()).sum::<usize>();
        let mut bytes: usize = rows.iter().map(size).sum();
        let Some((dead_letters, events)) = rows.split_last_mut() else {
            return Ok(());
        };
        let event_bytes = bytes - size(dead_letters);
        if bytes == 0 {
            return self.probe();
        }
        if event_bytes == 0 {
            // Whether there is space for events is not asked.
        } else if self.spool.has_space(Share::Events, event_bytes)? {
            self.events_full = Backoff::default();
        } else {
            events.iter_mut().for_each(Vec::clear);
            bytes -= event_bytes;
            self.status.is_full.store(true, Ordering::Relaxed);
            self.status.is_working.store(false, Ordering::Relaxed);
            self.events_full.begin("the spool has reached seven eighths of ZIM2KAFKA_SPOOL_MAX_BYTES, the rest is for dead letters; new events are answered 503 until Kafka has taken some. Check Kafka, or raise the limit");
        }
        if !dead_letters.is_empty() && !self.spool.has_space(Share::DeadLetters, bytes)? {
            dead_letters.clear();
            self.dead_letters_full.begin("dead letters have filled three quarters of ZIM2KAFKA_SPOOL_MAX_BYTES, or the spool has reached all of it; new ones are answered 503 until Kafka has taken some. Check Kafka and the dead-letter topic, or raise the limit");
        }
        let all = rows.concat();
        if all.is_empty() {
            return Ok(());
        }
        failpoint::hit("spooler");
        self.spool.write(&all)?;
        self.metrics.spool().synced();
        self.written = rows;
        self.confirm()
    }

    /// Lets the queues know what is durable, once the files are found under their names. If that
    /// cannot be found out now, nothing more is written before.
    fn confirm(&mut self) -> Result<(), spool::Error> {
        if self.written.is_empty() {
            return Ok(());
        }
        self.spool.verify()?;
        if self.events_full.until.is_none() {
            self.recovered();
        }
        let rows = mem::take(&mut self.written);
        let replaced: Vec<u64> = (rows.iter().flatten())
            .filter_map(|row| row.replaces)
            .collect();
        for (queue, written) in self.lanes.queues().zip(&rows) {
            if !written.is_empty() {
                queue.mark_spooled(written);
            }
            if !replaced.is_empty() {
                queue.mark_deleted(&replaced);
            }
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), spool::Error> {
        if !self.status.is_working.load(Ordering::Relaxed)
            && self.spool.has_space(Share::Events, MAX_RECORD_BYTES)?
        {
            self.spool.probe()?;
            self.recovered();
        }
        Ok(())
    }

    fn recovered(&mut self) {
        self.failure = Backoff::default();
        self.events_full = Backoff::default();
        if !self.status.is_working.swap(true, Ordering::Relaxed) {
            tracing::info!("the spool works again");
        }
    }

    fn failed(&mut self, message: &str) {
        self.status.is_full.store(false, Ordering::Relaxed);
        self.status.is_working.store(false, Ordering::Relaxed);
        self.failure.begin(message);
    }

    fn update_metrics(&self) {
        let used = self.spool.used_bytes().unwrap_or_default();
        let oldest = self.spool.oldest().unwrap_or_default();
        let (records, refused) = self.spool.records();
        self.metrics
            .spool()
            .set_contents(records, refused, used, oldest);
    }
}
