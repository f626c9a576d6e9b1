//! The spooler: one thread that writes to disk what Kafka does not take in time, and deletes what it
//! has taken. All use of the spool is here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::spool::{Error, Lane, Row, Spool};
use crate::config::panic_if_asked;
use crate::event::{MAX_RECORD_BYTES, Record};
use crate::metrics::Metrics;

/// One transaction holds so much of a lane, and at most one record more; the next one follows at once. The
/// log that both lanes' make is smaller than the ballast, so that on a full disk the ballast lets it be
/// copied into the file.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// What Kafka has is deleted after so long at the latest.
const DELETE_AFTER: Duration = Duration::from_secs(1);

/// At a stop, for so long at the most: what stays on disk goes out twice.
const LAST_DELETIONS: Duration = Duration::from_secs(1);

/// The pause after a write that failed, or while there is no room.
const PAUSE: Duration = Duration::from_millis(200);

/// The spooler looks by itself as often as Kafka may take for a record, but not more often than this;
/// who wants it sooner rings.
pub(super) const SPOOLER_LOOKS: Duration = Duration::from_millis(20);

/// A trouble that lasts is said again so often.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Wakes the spooler. Who does not ring is found by it within the time that Kafka may take.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    /// Whether it has rung since the spooler last looked; then nobody needs to ring again.
    rung: AtomicBool,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    rung: bool,
    reads: Vec<Read>,
    stop: bool,
    /// Nobody will answer any more.
    closed: bool,
}

#[derive(Debug)]
struct Read {
    lane: Lane,
    after: Option<u64>,
    reply: mpsc::Sender<Vec<(u64, Record)>>,
}

impl Doorbell {
    /// Something is to be written now.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.lock().rung = true;
            self.changed.notify_one();
        }
    }

    /// Reads the next rows of a lane; none where the spool could not be read now.
    pub(super) fn read(&self, lane: Lane, after: Option<u64>) -> Option<Vec<(u64, Record)>> {
        let (reply, answer) = mpsc::channel();
        {
            let mut wanted = self.lock();
            if wanted.closed {
                return None;
            }
            wanted.reads.push(Read { lane, after, reply });
        }
        self.changed.notify_one();
        answer.recv().ok()
    }

    /// Waits until something is asked for, or until then.
    fn wait(&self, until: Instant) -> Wanted {
        let mut wanted = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if wanted.rung || wanted.stop || !wanted.reads.is_empty() || left.is_zero() {
                self.rung.store(false, Ordering::Release);
                let stop = wanted.stop;
                return std::mem::replace(
                    &mut wanted,
                    Wanted {
                        stop,
                        ..Wanted::default()
                    },
                );
            }
            wanted = (self.changed.wait_timeout(wanted, left))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn close(&self) {
        let mut wanted = self.lock();
        wanted.closed = true;
        wanted.reads.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running spooler.
pub(super) struct Spooler {
    doorbell: Arc<Doorbell>,
    works: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Spooler {
    /// Starts to serve these queues, in the order of [`Lane`]. `damaged` is told of damage that is
    /// found while the service runs: what was promised can then be saved only by a new start.
    pub(super) fn start(
        spool: Spool,
        doorbell: Arc<Doorbell>,
        queues: [Arc<Queue>; 2],
        metrics: Arc<Metrics>,
        damaged: impl Fn(Error) + Send + 'static,
    ) -> std::io::Result<Self> {
        let works = Arc::new(AtomicBool::new(true));
        let mut work = Work {
            spool,
            doorbell: Arc::clone(&doorbell),
            queues,
            metrics,
            works: Arc::clone(&works),
            damaged: Box::new(damaged),
            deleted: Instant::now(),
            failure: Trouble::default(),
            deletes_again: None,
            crowd: Trouble::default(),
        };
        let thread = thread::Builder::new()
            .name("spooler".to_owned())
            .spawn(move || {
                work.run();
                work.doorbell.close();
            })?;
        Ok(Self {
            doorbell,
            works,
            thread,
        })
    }

    /// Whether the last write succeeded, and there was room for it.
    pub(super) fn works(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    /// Writes and deletes a last time, and closes the spool.
    pub(super) fn stop(self) {
        self.doorbell.lock().stop = true;
        self.doorbell.changed.notify_one();
        self.thread
            .join()
            .expect("a panic in the spooler ends the process");
    }
}

struct Work {
    spool: Spool,
    doorbell: Arc<Doorbell>,
    queues: [Arc<Queue>; 2],
    metrics: Arc<Metrics>,
    works: Arc<AtomicBool>,
    damaged: Box<dyn Fn(Error) + Send>,
    deleted: Instant,
    failure: Trouble,
    /// Where deleting has failed, the next attempt.
    deletes_again: Option<Instant>,
    /// There is no room for more dead letters. A matter of theirs alone.
    crowd: Trouble,
}

/// Something that is tried again after a pause, and said now and then.
#[derive(Debug, Default)]
struct Trouble {
    until: Option<Instant>,
    said: Option<Instant>,
}

impl Trouble {
    fn goes_on(&mut self, what: &str) {
        self.until = Some(Instant::now() + PAUSE);
        if self.said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
            self.said = Some(Instant::now());
            tracing::error!("{what}");
        }
    }

    fn pauses(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Work {
    fn run(&mut self) {
        self.count();
        loop {
            let Wanted {
                rung, reads, stop, ..
            } = self.doorbell.wait(self.next());
            let done = self.serve(reads).and_then(|()| self.turn(rung, stop));
            match done {
                Ok(()) if stop => return,
                Ok(()) => {}
                Err(error @ Error::Damaged(_)) => {
                    // Nothing may be read from it or written to it any more.
                    self.spool.give_up();
                    (self.damaged)(error);
                    return;
                }
                Err(error) => {
                    self.failed(&format!(
                        "the spool cannot be used: {error}. Give ZIM2KAFKA_SPOOL_DIR a disk that works and has room; it is tried again all the time"
                    ));
                    if stop {
                        return;
                    }
                }
            }
        }
    }

    /// When something is to be done next, if nobody rings.
    fn next(&self) -> Instant {
        let [events, dead_letters] = self.queues.each_ref().map(|queue| queue.spool_at());
        let dead_letters =
            dead_letters.map(|at| self.crowd.until.map_or(at, |until| at.max(until)));
        let after = self.spool.settings().after;
        let idle = Instant::now() + after.clamp(SPOOLER_LOOKS, DELETE_AFTER);
        let due = [events, dead_letters].into_iter().flatten();
        let next = due.fold(idle, Instant::min);
        self.failure.until.map_or(next, |until| next.max(until))
    }

    fn serve(&self, reads: Vec<Read>) -> Result<(), Error> {
        for read in reads {
            let records = self.spool.read(read.lane, read.after)?;
            if records.is_empty() {
                return Err(Error::Damaged("records are missing from it".to_owned()));
            }
            // A feeder that is gone needs none.
            drop(read.reply.send(records));
        }
        Ok(())
    }

    /// Writes what is due, and with that, or at its own time, deletes what Kafka has.
    fn turn(&mut self, rung: bool, stop: bool) -> Result<(), Error> {
        let now = Instant::now();
        // Not so with deletions: they may be what makes room.
        let pauses = self.failure.pauses(now) && !stop;
        let is_due = |queue: &Queue| queue.spool_at().is_some_and(|at| at <= now || stop);
        let rows = |queue: &Arc<Queue>, waits: bool| match is_due(queue) && !waits {
            true => queue.rows(MAX_BATCH_BYTES),
            false => Vec::new(),
        };
        let [events, dead_letters] = &self.queues;
        let rows = [
            rows(events, pauses),
            rows(dead_letters, pauses || self.crowd.pauses(now) && !stop),
        ];
        let is_idle = rows.iter().all(Vec::is_empty);
        let rung = rung && (!pauses || self.queues.iter().any(|queue| queue.has_done()));
        if is_idle && !rung && !stop && now < self.deleted + DELETE_AFTER {
            return Ok(());
        }
        self.deleted = now;
        let done = self.forget(stop).and_then(|()| match pauses {
            true => Ok(()),
            false => self.keep(rows),
        });
        self.count();
        done
    }

    /// Deletes what Kafka has: a part of it, unless the service stops. Before anything is written: it makes
    /// room.
    fn forget(&mut self, stop: bool) -> Result<(), Error> {
        let now = Instant::now();
        if self.deletes_again.is_some_and(|again| now < again) && !stop {
            return Ok(());
        }
        let forgotten = self.forget_until(if stop { now + LAST_DELETIONS } else { now });
        self.deletes_again = forgotten.is_err().then(|| Instant::now() + PAUSE);
        forgotten
    }

    fn forget_until(&mut self, end: Instant) -> Result<(), Error> {
        for queue in &self.queues {
            let mut done = queue.done();
            while !done.is_empty() {
                let deleted = self.spool.delete(&done)?;
                queue.deleted(deleted);
                done.drain(..deleted);
                if !done.is_empty() && Instant::now() >= end {
                    self.doorbell.ring();
                    break;
                }
            }
            let refused = queue.take_refused();
            if !refused.is_empty() {
                let marked = self.spool.mark_refused(&refused);
                marked.inspect_err(|_| queue.give_back_refused(&refused))?;
            }
        }
        self.spool.tidy()
    }

    /// Writes the rows of both lanes, in one transaction; with none, sees whether it could.
    fn keep(&mut self, [events, dead_letters]: [Vec<Row>; 2]) -> Result<(), Error> {
        if events.is_empty() && dead_letters.is_empty() {
            return self.look_again();
        }
        let size = |rows: &[Row]| rows.iter().map(|row| row.record.size()).sum::<usize>();
        let bytes = size(&events);
        if !events.is_empty() && !self.spool.has_room(Lane::Events, bytes)? {
            self.failed("the spool has reached ZIM2KAFKA_SPOOL_MAX_BYTES: new events are answered 503 until Kafka takes what is in it. Look at Kafka, or allow the spool more");
            return Ok(());
        }
        let mut all = events;
        let bytes = bytes + size(&dead_letters);
        if dead_letters.is_empty() || self.spool.has_room(Lane::DeadLetters, bytes)? {
            all.extend(dead_letters);
        } else {
            self.crowd.goes_on("the spool is as full as dead letters may make it, three quarters of ZIM2KAFKA_SPOOL_MAX_BYTES: new ones are answered 503 until Kafka takes them. Look at Kafka and at the dead-letter topic, or allow the spool more");
        }
        if all.is_empty() {
            return Ok(());
        }
        panic_if_asked("spooler");
        self.spool.write(&all)?;
        self.metrics.spool().synced();
        self.well();
        for (queue, lane) in self.queues.iter().zip([Lane::Events, Lane::DeadLetters]) {
            let rows: Vec<Row> = all.extract_if(.., |row| row.lane == lane).collect();
            queue.spooled(&rows);
        }
        Ok(())
    }

    /// After a failure, with nothing to write: whether it would work now.
    fn look_again(&mut self) -> Result<(), Error> {
        if !self.works.load(Ordering::Relaxed)
            && self.spool.has_room(Lane::Events, MAX_RECORD_BYTES)?
        {
            self.spool.probe()?;
            self.well();
        }
        Ok(())
    }

    fn count(&self) {
        let used = self.spool.used_bytes().unwrap_or_default();
        let oldest = self.spool.oldest().unwrap_or_default();
        let (records, refused) = self.spool.records();
        self.metrics.spool().holds(records, refused, used, oldest);
    }

    fn well(&mut self) {
        self.failure = Trouble::default();
        if !self.works.swap(true, Ordering::Relaxed) {
            tracing::info!("the spool works again");
        }
    }

    fn failed(&mut self, what: &str) {
        self.works.store(false, Ordering::Relaxed);
        self.failure.goes_on(what);
    }
}
