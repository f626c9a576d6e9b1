//! Why the spool could not do what it was asked to, and which of SQLite's errors mean damage.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{ErrorCode, ffi};

/// The source of an error: from SQLite, from the system, or a text.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the spool could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk takes no writes now: it is full or over a quota, or it fails. SQLite does not
    /// distinguish these reliably, and a full disk may also show at a sync.
    #[error("the disk is full or takes no writes")]
    Unwritable(#[source] Cause),
    /// The contents of the disk are not what was written.
    #[error("the spool is damaged")]
    Damaged(#[source] Cause),
    /// A newer program wrote it.
    #[error(
        "the spool has format {0}, of a newer version than this one; it was not changed. Start the version that wrote it, or a later one"
    )]
    Newer(u8),
    /// Another process uses it.
    #[error("another process still uses the spool after {} s; stop it, or set ZIM2KAFKA_SPOOL_DIR to another folder", .0.as_secs())]
    Locked(Duration),
    /// A file that this process has open, or the folder, is not under its name any more. What is
    /// written there would be lost at the end of the process.
    #[error("{} was {how} while the service runs", path.display())]
    Replaced {
        /// What happened.
        how: &'static str,
        /// Its name.
        path: PathBuf,
    },
    /// Anything else that SQLite or the system reports.
    #[error("{0}")]
    Failed(&'static str, #[source] Cause),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match (error.sqlite_error_code(), extended) {
            (Some(ErrorCode::DiskFull), _)
            | (_, Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_FSYNC)) => {
                Self::Unwritable(error.into())
            }
            // The file was opened for writing, so read-only comes from a damaged header. SQLite
            // calls SQL errors unknown, and our SQL fits the tables that we made.
            (
                Some(
                    ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ReadOnly
                    // Our values are never too big, so a stored length is damaged.
                    | ErrorCode::TooBig
                    | ErrorCode::Unknown,
                ),
                _,
            )
            // Pages that the disk cannot read are damaged as well.
            | (
                _,
                Some(
                    ffi::SQLITE_IOERR_READ
                    | ffi::SQLITE_IOERR_SHORT_READ
                    | ffi::SQLITE_IOERR_DATA
                    | ffi::SQLITE_IOERR_CORRUPTFS,
                ),
            ) => Self::Damaged(error.into()),
            _ => Self::Failed("SQLite failed", error.into()),
        }
    }
}

impl Error {
    /// Wraps an error of the system.
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |error| Self::Failed(what, error.into())
    }
}

/// `None` if the data is damaged or missing. Any other error ends the recovery, because the data
/// may be readable later.
pub(super) fn readable<T>(read: rusqlite::Result<T>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.sqlite_error_code().is_none() => Ok(None),
        Err(error) => match Error::from(error) {
            Error::Damaged(_) => Ok(None),
            error => Err(error),
        },
    }
}
