//! The spool's folder: whose it is, who may read it, and the room that is kept for bad times.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

/// A second process waits so long for the first to end: a restart that overlaps.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Room that is given up when the disk is full, so that what Kafka has can still be deleted.
pub const BALLAST_BYTES: usize = 8 * 1024 * 1024;

/// A folder that this process has for itself. The lock ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and waits for its lock.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where another process keeps the lock, else whatever the system says.
    pub(super) fn claim(path: &Path, patience: Duration) -> io::Result<Self> {
        let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
        // Live signatures are in there.
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for folder in new {
            let holder = folder.parent().filter(|path| !path.as_os_str().is_empty());
            sync(holder.unwrap_or(Path::new(".")))?;
        }
        let lock = private().open(path.join("lock"))?;
        let deadline = Instant::now() + patience;
        let mut said = false;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        tracing::info!("another process has the spool; waiting for it to end");
                        said = true;
                    }
                    thread::sleep(LOCK_PAUSE);
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a file that only we can read, and so one that is there. SQLite gives its log the same mode.
    pub(super) fn create(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.file(name);
        let file = private().open(&path)?;
        // Somebody else's may be used, though its mode is theirs to set.
        drop(file.set_permissions(fs::Permissions::from_mode(0o600)));
        Ok(path)
    }

    /// Makes names that came or went last, also beyond a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync(&self.path)
    }

    /// Takes up the ballast; false where there is no room for it.
    pub(super) fn load_ballast(&self) -> bool {
        let path = self.file("ballast");
        if fs::metadata(&path).is_ok_and(|file| file.len() == BALLAST_BYTES as u64) {
            return true;
        }
        let fill = || -> io::Result<()> {
            // Not tried in vain: even for a moment it would take the room of others.
            let disk = statvfs(&self.path)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < BALLAST_BYTES as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut file = private().truncate(true).open(&path)?;
            // Written, not only sized, and nothing that a file system could compress: a hole would keep
            // no room.
            let mut noise = vec![0; 64 * 1024];
            for _ in 0..BALLAST_BYTES / noise.len() {
                rand::fill(noise.as_mut_slice());
                file.write_all(&noise)?;
            }
            file.sync_all()
        };
        let filled = fill();
        if filled.is_err() {
            self.drop_ballast();
        }
        filled.is_ok()
    }

    /// Gives the ballast up; false where there was none.
    pub(super) fn drop_ballast(&self) -> bool {
        fs::remove_file(self.file("ballast")).is_ok()
    }
}

/// Makes the names in a folder last beyond a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_waits_until_the_first_is_gone_and_gives_up_after_its_patience() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("deep/er");
        let first = Folder::claim(&path, Duration::ZERO).expect("it is free");
        let refused = Folder::claim(&path, Duration::ZERO).expect_err("it is taken");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        thread::scope(|scope| {
            let second = scope.spawn(|| Folder::claim(&path, LOCK_PATIENCE));
            drop(first);
            second.join().expect("no panic").expect("it is free now");
        });
    }

    #[test]
    fn nobody_else_can_read_what_is_in_the_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::claim(&root.path().join("spool"), Duration::ZERO).expect("free");
        let file = folder.create("spool.db").expect("it can be made");
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&file) & 0o777, 0o600);
        assert_eq!(mode(&folder.file("lock")) & 0o777, 0o600);
        assert_eq!(mode(&folder.path) & 0o777, 0o700);
    }

    #[test]
    fn the_ballast_takes_real_room_and_can_be_given_up() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::claim(root.path(), Duration::ZERO).expect("free");
        assert!(!folder.drop_ballast());
        assert!(folder.load_ballast() && folder.load_ballast());
        let file = fs::metadata(folder.file("ballast")).expect("it is there");
        assert!(file.blocks() * 512 >= BALLAST_BYTES as u64);
        assert!(folder.drop_ballast());
        assert!(!folder.file("ballast").exists());
    }
}
