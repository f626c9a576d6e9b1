//! How large a test is, and what runs beside it.

use std::env;

use tokio::sync::{Mutex, MutexGuard};

/// Whether this is the full run.
pub(crate) fn is_full() -> bool {
    env::var("ZIM2KAFKA_TEST_FAULTS").is_ok_and(|size| size == "full")
}

/// How often a fault is tried, or for how long.
pub(crate) fn size<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// One load at a time, until this is dropped: beside another one on two cores, and brokers that start for
/// it, answers come late that the service gave in time.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}
