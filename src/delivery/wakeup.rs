//! How other threads reach the spooler: they wake it, ask it to read, and stop it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::event::{Lane, Record};

/// The shortest interval at which the spooler checks its queues. The interval is
/// `ZIM2KAFKA_SPOOL_AFTER`, at most 1 s. A queue that needs the spooler sooner wakes it.
pub(super) const SPOOLER_POLL_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Wakes the spooler and carries requests to it.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    /// Whether the spooler has been woken since it last looked, so that nobody needs to lock again.
    woken: AtomicBool,
    requests: Mutex<Requests>,
    changed: Condvar,
}

/// What the spooler was asked to do since it last looked.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) woken: bool,
    pub(super) reads: Vec<ReadRequest>,
    pub(super) stop: bool,
    /// The spooler has ended and answers nothing any more.
    closed: bool,
}

/// Asks for the rows of a lane that follow a number.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) lane: Lane,
    pub(super) after: Option<u64>,
    pub(super) reply: mpsc::Sender<Vec<(u64, Record)>>,
}

impl Wakeup {
    /// Makes the spooler check its queues now.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.requests.lock().woken = true;
            self.changed.notify_one();
        }
    }

    /// Reads the next rows of a lane; `None` if the spool cannot be read now. Blocks until the
    /// spooler answers.
    pub(super) fn read(&self, lane: Lane, after: Option<u64>) -> Option<Vec<(u64, Record)>> {
        let (reply, answer) = mpsc::channel();
        {
            let mut requests = self.requests.lock();
            if requests.closed {
                return None;
            }
            requests.reads.push(ReadRequest { lane, after, reply });
        }
        self.changed.notify_one();
        answer.recv().ok()
    }

    /// Asks the spooler to stop.
    pub(super) fn stop(&self) {
        self.requests.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits for a request, or until this time. For the spooler.
    pub(super) fn wait(&self, until: Instant) -> Requests {
        let mut requests = self.requests.lock();
        while !requests.woken && !requests.stop && requests.reads.is_empty() {
            if self.changed.wait_until(&mut requests, until).timed_out() {
                break;
            }
        }
        self.woken.store(false, Ordering::Release);
        let stop = requests.stop;
        let rest = Requests {
            stop,
            ..Requests::default()
        };
        std::mem::replace(&mut requests, rest)
    }

    /// Ends all reads that wait and refuses further ones. For the spooler, at its end.
    pub(super) fn close(&self) {
        let mut requests = self.requests.lock();
        requests.closed = true;
        requests.reads.clear();
    }
}
