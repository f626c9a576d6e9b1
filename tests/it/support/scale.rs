//! How large a test is, and what runs beside it.

use std::env;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Whether this is the full run.
pub(crate) fn is_full() -> bool {
    env::var("ZIM2KAFKA_TEST_FAULTS").is_ok_and(|size| size == "full")
}

/// How often a fault is tried, or for how long.
pub(crate) fn size<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// How many tests with a light load may run at once.
const LIGHT_LOADS: u32 = 2;

static LOADS: Semaphore = Semaphore::const_new(LIGHT_LOADS as usize);

/// The right to put load on this machine, until it is dropped.
pub(crate) type Permit = SemaphorePermit<'static>;

/// For a test whose load, or whose brokers that start, keep a core busy. No other load runs beside
/// it: on two cores, answers would come late that the service gave in time.
pub(crate) async fn alone() -> Permit {
    permit(LIGHT_LOADS).await
}

/// For a test with a few hundred callbacks a second, which waits most of its time. Other light
/// loads run beside it.
pub(crate) async fn light_load() -> Permit {
    permit(1).await
}

/// In the order of the calls, so that no test waits for ever.
async fn permit(loads: u32) -> Permit {
    let permit = LOADS.acquire_many(loads).await;
    permit.expect("nobody closes the semaphore")
}
