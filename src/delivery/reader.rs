//! The reader: one thread that reads records back from disk, whatever the spooler is waiting for.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::queue::{Missing, ReadPlan};
use super::spooler::SpoolStatus;
use super::wakeup::Wakeups;
use crate::event::Record;
use crate::log::{Chain, LogThrottle};
use crate::spool::{self, SpoolReader};

/// How long the reader waits for a wakeup before it looks again.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// The pause before the spool is read again after it could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The running reader.
pub(super) struct Reader {
    wakeups: Arc<Wakeups>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Starts the thread.
    pub(super) fn start(
        spool: SpoolReader,
        lanes: Arc<Lanes>,
        wakeups: Arc<Wakeups>,
        status: Arc<SpoolStatus>,
        on_damage: impl Fn(spool::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let mut worker = Worker {
            spool,
            lanes,
            wakeups: Arc::clone(&wakeups),
            status,
            log: LogThrottle::default(),
            overdue_log: LogThrottle::default(),
        };
        let run = move || {
            if let Err(damage) = worker.run() {
                worker.spool.mark_damaged();
                on_damage(damage);
            }
        };
        let thread = thread::Builder::new()
            .name("reader".to_owned())
            .spawn(run)?;
        Ok(Self { wakeups, thread })
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.wakeups.reader.stop();
        (self.thread.join()).expect("a panic in the reader ends the process");
    }
}

struct Worker {
    spool: SpoolReader,
    lanes: Arc<Lanes>,
    wakeups: Arc<Wakeups>,
    status: Arc<SpoolStatus>,
    log: LogThrottle,
    overdue_log: LogThrottle,
}

impl Worker {
    /// Returns when it is stopped, or with the damage that was found.
    fn run(&mut self) -> Result<(), spool::Error> {
        while !self.wakeups.reader.is_stopped() {
            self.report_overdue();
            let pause = match self.read() {
                Ok(true) => continue,
                Ok(false) => IDLE_WAIT,
                Err(damage @ spool::Error::Damaged(_)) => return Err(damage),
                Err(error) => {
                    if self.log.is_due() {
                        tracing::error!(
                            "the spool cannot be read ({}); retrying. Check the disk of ZIM2KAFKA_SPOOL_DIR",
                            Chain(&error)
                        );
                    }
                    RETRY_PAUSE
                }
            };
            self.wakeups.reader.wait(Instant::now() + pause);
        }
        Ok(())
    }

    /// Logs what a crash would publish again, once a minute while nothing can be deleted. The spooler
    /// itself may be waiting for the disk.
    fn report_overdue(&self) {
        let rows: usize = self.lanes.queues().map(|queue| queue.overdue_rows()).sum();
        if rows > 0 && !self.status.has_lost_files() && self.overdue_log.is_due() {
            tracing::warn!(
                "{rows} records that Kafka has cannot be deleted from the spool; a crash or a restart now would publish them again. Give ZIM2KAFKA_SPOOL_DIR a disk that takes writes"
            );
        }
    }

    /// Reads what the queues want next; false if they want nothing.
    fn read(&mut self) -> Result<bool, spool::Error> {
        let plans = self.lanes.queues().map(|queue| queue.plan_read());
        let mut plans: Vec<Option<ReadPlan>> = plans.collect();
        let Some(after) = plans.iter().flatten().map(|plan| plan.after).min() else {
            return Ok(false);
        };
        let scan = self.spool.scan(Some(after), |row| {
            let place = self.lanes.place_of(row.event);
            let plan = place.and_then(|place| plans.get_mut(place)?.as_mut());
            plan.is_some_and(|plan| plan.wants(row.number, row.key))
        })?;
        let (mut records, end) = (scan.records, scan.end.unwrap_or(after));
        for (place, (queue, plan)) in self.lanes.queues().zip(&plans).enumerate() {
            let is_its_own = |(_, record): &mut (u64, Record)| {
                self.lanes.place_of(record.event.as_deref()) == Some(place)
            };
            let of_lane = records.extract_if(.., is_its_own).collect();
            if let Some(plan) = plan {
                queue
                    .add_from_disk(plan, of_lane, end, scan.complete)
                    .map_err(|Missing| spool::Error::Damaged("records are missing".into()))?;
            }
        }
        Ok(true)
    }
}
