//! Opens the file, whatever an earlier run has left.

use super::error::Error;
use super::folder::Folder;
use super::format::Format;
use super::recovery::{self, RecoveryReport};
use super::store::{Contents, Store};
use super::{DATABASE_FILE, OpenStage, connection, migration};

/// The open file, what is in it, and what was recovered if it was damaged.
type Opened = (Store, Contents, Option<RecoveryReport>);

/// Opens the file, and recovers it if it is damaged.
pub(super) fn open(folder: &Folder, report: &dyn Fn(OpenStage)) -> Result<Opened, Error> {
    let io =
        Error::io("cannot read or write spool.db or its WAL; check the disk and the permissions");
    let file = folder.create(DATABASE_FILE).map_err(io)?;
    let open_undamaged = || -> Result<(Store, Contents), Error> {
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
            // A full disk must not prevent a start: what is on disk can be published and deleted.
            Err(Error::Unwritable(_)) | Ok(_) => Ok((store, contents)),
            Err(error) => Err(error),
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
