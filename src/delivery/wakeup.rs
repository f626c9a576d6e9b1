//! How threads of delivery wake and stop each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The shortest interval at which the spooler checks its queues. The interval is
/// `ZIM2KAFKA_SPOOL_AFTER`, at most 1 s. A queue that needs the spooler sooner wakes it.
pub(super) const SPOOLER_POLL_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The wakeup of each thread of delivery.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    pub(super) publisher: Wakeup,
    pub(super) spooler: Wakeup,
    pub(super) reader: Wakeup,
}

/// Wakes one thread, and stops it.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    /// Whether the thread has been woken since it last looked, so that nobody needs to lock again.
    woken: AtomicBool,
    stopped: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Wakeup {
    /// Makes the thread look for work now.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            let _lock = self.lock.lock();
            self.changed.notify_one();
        }
    }

    /// Asks the thread to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until woken, or until this time. Returns whether it was woken. For the one thread.
    pub(super) fn wait(&self, until: Instant) -> bool {
        let mut lock = self.lock.lock();
        while !self.woken.load(Ordering::Acquire) {
            if self.changed.wait_until(&mut lock, until).timed_out() {
                break;
            }
        }
        self.woken.swap(false, Ordering::AcqRel)
    }
}
