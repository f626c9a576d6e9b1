//! What others see of the opening of a spool: its progress, and the wait for an older process.

use std::io;
use std::time::Duration;

use super::SpoolSettings;
use super::error::Error;
use super::folder::{Folder, LOCK_TIMEOUT};

/// What the opening of a spool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenStage {
    /// It waits for another process to release the spool.
    Waiting,
    /// It reads the file into the system's cache; this many bytes so far.
    Loading(u64),
    /// It gives a spool of an earlier version the current format.
    Migrating,
    /// It checks the file's structure.
    Checking,
    /// It reads the records; this many so far.
    Reading(usize),
    /// It recovers a damaged spool.
    Recovering,
}

/// Waits up to 30 s until no other process uses the spool. Blocks.
///
/// # Errors
///
/// If another process still holds the lock, or the folder cannot be used.
pub fn wait_until_released(settings: &SpoolSettings) -> Result<(), Error> {
    let claimed = Folder::claim(&settings.folder, LOCK_TIMEOUT);
    claimed.map(drop).map_err(folder_failed(LOCK_TIMEOUT))
}

/// Why a folder cannot be used, after waiting this long for its lock.
pub(super) fn folder_failed(lock_timeout: Duration) -> impl Fn(io::Error) -> Error + Copy {
    move |error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked(lock_timeout),
        _ => unusable_folder(error),
    }
}

/// Why a folder cannot be used at all.
pub(super) fn unusable_folder(error: io::Error) -> Error {
    Error::io("cannot use the folder; it must exist or be creatable, and be writable")(error)
}
