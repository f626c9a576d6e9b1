//! Whether a file that this process has open is still the one under its name.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::error::Error;

/// The device and inode of a file. No other file gets them while this one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }
}

/// The name of an open file, and which file that is.
#[derive(Debug, Clone)]
pub(super) struct Named {
    path: PathBuf,
    identity: Identity,
}

impl Named {
    pub(super) fn new(path: PathBuf, file: &Metadata) -> Self {
        Self {
            path,
            identity: Identity::of(file),
        }
    }

    /// Takes the file that has the name now.
    pub(super) fn now(path: PathBuf) -> io::Result<Self> {
        let file = fs::metadata(&path)?;
        Ok(Self::new(path, &file))
    }

    /// Requires that the name still leads to the file. What is written to a file without a name is
    /// gone with the process.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`], or another one if that cannot be found out now.
    pub(super) fn verify(&self) -> Result<(), Error> {
        match fs::metadata(&self.path) {
            Ok(file) if Identity::of(&file) == self.identity => Ok(()),
            Ok(_) => Err(self.lost("replaced")),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(self.lost("removed"))
            }
            Err(error) => Err(Error::io("cannot find the files of the spool")(error)),
        }
    }

    fn lost(&self, how: &'static str) -> Error {
        let path = self.path.clone();
        Error::Replaced { how, path }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}
