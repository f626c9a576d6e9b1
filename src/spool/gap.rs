//! The gap between two reads, in which a checkpoint can take the locks that reads hold.
//!
//! SQLite tries such a lock again and again. A reader that begins its next read at once holds the
//! lock at nearly every attempt, so the WAL would grow as long as it has something to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::TIME_SLICE;

/// How long a connection waits for a lock: longer than two slices, because a checkpoint may meet a
/// read before it copies the WAL, and another one before it truncates it.
const LOCK_WAIT_MAX: Duration = TIME_SLICE.saturating_mul(4);

/// The pause between two attempts.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(1);

/// The longest gap, enough for several attempts. A read does not wait for the checkpoint itself,
/// which may hang together with the disk.
const GAP_MAX: Duration = Duration::from_millis(5);

/// Whether a checkpoint is running, known to both connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Gap(Arc<AtomicBool>);

impl Gap {
    /// Runs a checkpoint, and lets reads leave gaps until it ends.
    pub(super) fn during<T>(&self, checkpoint: impl FnOnce() -> T) -> T {
        self.0.store(true, Ordering::Relaxed);
        let done = checkpoint();
        self.0.store(false, Ordering::Relaxed);
        done
    }

    /// Leaves a gap before a read if a checkpoint is running.
    pub(super) fn leave(&self) {
        let end = Instant::now() + GAP_MAX;
        while self.0.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(LOCK_RETRY_PAUSE);
        }
    }
}

/// Makes a connection wait for a lock, with attempts that are frequent enough for [`Gap`].
pub(super) fn wait_for_locks(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(|attempts: i32| {
        thread::sleep(LOCK_RETRY_PAUSE);
        u128::from(attempts.unsigned_abs())
            < LOCK_WAIT_MAX.as_millis() / LOCK_RETRY_PAUSE.as_millis()
    }))
}
