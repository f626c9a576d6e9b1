//! Opens the file, whatever an earlier run has left.

use std::fs;
use std::path::Path;

use super::contents::Contents;
use super::error::Error;
use super::folder::Folder;
use super::format::Format;
use super::progress::unusable_folder;
use super::recovery::{self, RecoveryReport};
use super::store::Store;
use super::{DATABASE_FILE, OpenStage, connection, migration};

/// The open file, what is in it, and what was recovered if it was damaged.
type Opened = (Store, Contents, Option<RecoveryReport>);

/// Opens the file, and recovers it if it is damaged. In a folder that can only be read, it is opened
/// as it is.
pub(super) fn open(folder: &Folder, report: &dyn Fn(OpenStage)) -> Result<Opened, Error> {
    if let Some(reason) = folder.read_only() {
        let file = folder.file(DATABASE_FILE);
        return match fs::metadata(&file) {
            Ok(found) if found.len() > 0 => {
                let (store, contents) = open_read_only(folder, &file, report)?;
                Ok((store, contents, None))
            }
            // There is nothing to publish, so it is probably not the right folder.
            _ => Err(unusable_folder(reason)),
        };
    }
    let io =
        Error::io("cannot read or write spool.db or its WAL; check the disk and the permissions");
    let file = folder.create(DATABASE_FILE).map_err(io)?;
    let open_undamaged = || -> Result<(Store, Contents), Error> {
        if folder.is_marked_damaged() {
            return Err(Error::Damaged("an earlier run has found damage".into()));
        }
        if recovery::wal_is_damaged(folder).map_err(io)? {
            return Err(Error::Damaged("the WAL has been altered".into()));
        }
        connection::read_ahead(&file, report);
        if migration::format_on_disk(folder)? == Some(Format::One) {
            report(OpenStage::Migrating);
            migration::migrate(folder)?;
        }
        report(OpenStage::Checking);
        let mut store = Store::open(&file)?;
        let contents = store.examine(report)?;
        match store.checkpoint() {
            Err(error @ Error::Damaged(_)) => Err(error),
            // A disk that is full or takes no writes must not prevent a start: what is on it can be
            // published.
            Err(_) | Ok(_) => Ok((store, contents)),
        }
    };
    match open_undamaged() {
        Ok((store, contents)) => Ok((store, contents, None)),
        Err(Error::Damaged(cause)) => {
            tracing::error!("the spool is damaged ({cause}); recovering every readable record");
            report(OpenStage::Recovering);
            let format = migration::format_on_disk(folder)?;
            // The copies need space.
            folder.release_reserve();
            let recovery = recovery::recover(folder, format).map_err(|error| {
                Error::Failed(
                    "cannot recover the damaged spool; recovery takes up to three times its size: free space on the disk and start again",
                    error.into(),
                )
            })?;
            let mut store = Store::open(&file)?;
            let contents = store.examine(report)?;
            Ok((store, contents, Some(recovery)))
        }
        Err(error) => Err(error),
    }
}

/// Opens a file in a folder that can only be read.
fn open_read_only(
    folder: &Folder,
    file: &Path,
    report: &dyn Fn(OpenStage),
) -> Result<(Store, Contents), Error> {
    let open = || {
        if folder.is_marked_damaged() {
            return Err(Error::Damaged("an earlier run has found damage".into()));
        }
        let wal = recovery::wal_is_damaged(folder);
        if wal.map_err(Error::io("cannot read spool.db or its WAL; check the disk"))? {
            return Err(Error::Damaged("the WAL has been altered".into()));
        }
        if migration::format_on_disk(folder)? == Some(Format::One) {
            return Err(Error::Failed(
                "cannot take over the spool of an earlier version in a folder that can only be read; make it writable and start again",
                "it has format 1".into(),
            ));
        }
        connection::read_ahead(file, report);
        report(OpenStage::Checking);
        let mut store = Store::open_read_only(file)?;
        let contents = store.examine(report)?;
        Ok((store, contents))
    };
    open().map_err(|error| match error {
        Error::Damaged(_) => Error::Failed(
            "cannot recover the damaged spool in a folder that can only be read; make it writable and start again",
            error.into(),
        ),
        error => error,
    })
}
