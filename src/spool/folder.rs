//! The spool's folder: its lock, its permissions and its reserve file.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::Error;
use super::identity::Named;
use super::{DATABASE_FILE, WAL_FILE};

/// How long a process waits for another one to release the lock, as in a restart that overlaps.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the lock is tried.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a file that is deleted if the disk is full, so that rows that Kafka has can still be
/// deleted from the database.
pub const RESERVE_BYTES: usize = 8 * 1024 * 1024;

/// The name of that file, kept for compatibility with earlier versions.
pub(super) const RESERVE_FILE: &str = "ballast";

/// The name of the lock file.
pub(super) const LOCK_FILE: &str = "lock";

/// The name of an empty file that tells the next start that a run has found damage. The checks of a
/// start need not find the same damage again.
pub(super) const DAMAGE_MARK: &str = "damaged";

/// A folder that belongs to this process. The lock ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    read_only: Option<Errno>,
    /// The names that must still lead to what is locked.
    names: Vec<Named>,
    // The folder itself is locked too: a process that finds no lock file, or creates another one,
    // must still not use the folder.
    _locks: Vec<File>,
}

impl Folder {
    /// Creates the folder if it is missing, and waits for its lock.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another process holds the lock, else the error of the system.
    pub(super) fn claim(path: &Path, timeout: Duration) -> io::Result<Self> {
        let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
        // It will hold live signatures.
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for folder in new {
            let holder = folder.parent().filter(|path| !path.as_os_str().is_empty());
            sync(holder.unwrap_or(Path::new(".")))?;
        }
        let folder = File::open(path)?;
        let lock_file = path.join(LOCK_FILE);
        // On a disk that takes no writes it may be missing, or can only be read.
        let lock = private()
            .open(&lock_file)
            .or_else(|error| File::open(&lock_file).map_err(|_| error));
        let deadline = Instant::now() + timeout;
        let is_locked = match try_lock_until(&folder, deadline, path) {
            // Network file systems do not lock folders.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => false,
            locked => locked.map(|()| true)?,
        };
        let mut names = vec![Named::new(path.to_owned(), &folder.metadata()?)];
        let mut locks = vec![folder];
        match lock {
            Ok(lock) => {
                match try_lock_until(&lock, deadline, path) {
                    // Network file systems do not lock what can only be read.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock && is_locked => {}
                    locked => locked?,
                }
                names.push(Named::new(lock_file, &lock.metadata()?));
                locks.push(lock);
            }
            Err(_) if is_locked => {}
            Err(error) => return Err(error),
        }
        let claimed = Self {
            path: path.to_owned(),
            read_only: find_read_only(path),
            names,
            _locks: locks,
        };
        // Whoever held the lock may have replaced what was opened before.
        claimed.verify().map_err(io::Error::other)?;
        Ok(claimed)
    }

    /// Why the files can only be read; `None` if they can be written.
    pub(super) fn read_only(&self) -> Option<io::Error> {
        self.read_only.map(io::Error::from)
    }

    /// Requires that the folder and its lock file are still under their names.
    ///
    /// # Errors
    ///
    /// As [`Named::verify`].
    pub(super) fn verify(&self) -> Result<(), Error> {
        self.names.iter().try_for_each(Named::verify)
    }

    /// Lets the next start recover the spool, whatever its checks find. Does nothing if the mark
    /// cannot be written, or if the folder now belongs to others.
    pub(super) fn mark_damaged(&self) {
        if self.verify().is_ok() {
            let marked = private().open(self.file(DAMAGE_MARK));
            drop(
                marked
                    .and_then(|mark| mark.sync_all())
                    .and_then(|()| self.sync()),
            );
        }
    }

    /// Whether an earlier run has found damage that is not recovered yet.
    pub(super) fn is_marked_damaged(&self) -> bool {
        self.file(DAMAGE_MARK).exists()
    }

    /// Removes the mark, once the spool is recovered.
    pub(super) fn clear_damage_mark(&self) -> io::Result<()> {
        match fs::remove_file(self.file(DAMAGE_MARK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync()),
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates a file, or takes an existing one, that only this user can read. SQLite gives its WAL
    /// the same mode.
    pub(super) fn create(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.file(name);
        let file = private().open(&path)?;
        // A file of another user may be usable, but only that user can change its mode.
        drop(file.set_permissions(fs::Permissions::from_mode(0o600)));
        Ok(path)
    }

    /// Makes created, renamed and removed names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync(&self.path)
    }

    /// Allocates the reserve file. False if there is no space for it.
    pub(super) fn allocate_reserve(&self) -> bool {
        let path = self.file(RESERVE_FILE);
        if fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64) {
            return true;
        }
        let fill = || -> io::Result<()> {
            // Checked first, because even a failed attempt would briefly take the space of others.
            let disk = statvfs(&self.path)?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE_BYTES as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut file = private().truncate(true).open(&path)?;
            // Random bytes: a file system could store a hole, or bytes that compress, in no space.
            // The system's, because those of a crate take several times as long in a debug build.
            let mut random = [0; 64 * 1024];
            let mut left = RESERVE_BYTES;
            while left > 0 {
                let (wanted, _) = random.split_at_mut(left.min(64 * 1024));
                let filled = getrandom(&mut *wanted, GetRandomFlags::empty())?;
                file.write_all(wanted.get(..filled).unwrap_or_default())?;
                left -= filled;
            }
            file.sync_all()
        };
        let filled = fill();
        if filled.is_err() {
            self.release_reserve();
        }
        filled.is_ok()
    }

    /// Deletes the reserve file. False if there was none.
    pub(super) fn release_reserve(&self) -> bool {
        fs::remove_file(self.file(RESERVE_FILE)).is_ok()
    }
}

/// Waits for a lock.
fn try_lock_until(file: &File, deadline: Instant, folder: &Path) -> io::Result<()> {
    let mut logged = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(TryLockError::WouldBlock) => {
                if !logged {
                    tracing::info!(
                        "another process uses the spool in {}; waiting up to {LOCK_TIMEOUT:?} for it to end",
                        folder.display()
                    );
                    logged = true;
                }
                thread::sleep(LOCK_RETRY_PAUSE);
            }
        }
    }
}

/// Why the folder, or a file in it, can only be read; `None` if all can be written.
fn find_read_only(folder: &Path) -> Option<Errno> {
    let [file, wal] = [DATABASE_FILE, WAL_FILE].map(|name| folder.join(name));
    let checks = [
        access(folder, Access::WRITE_OK | Access::EXEC_OK),
        access(&file, Access::WRITE_OK),
        access(&wal, Access::WRITE_OK),
    ];
    let mut errors = checks.into_iter().filter_map(Result::err);
    errors.find(|error| matches!(*error, Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

/// Makes the names in a folder durable.
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
    fn a_second_owner_waits_for_the_first_to_end_and_gives_up_after_a_timeout() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("deep/er");
        let first = Folder::claim(&path, Duration::ZERO).expect("it is free");
        let refused = Folder::claim(&path, Duration::ZERO).expect_err("it is taken");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        thread::scope(|scope| {
            let second = scope.spawn(|| Folder::claim(&path, LOCK_TIMEOUT));
            drop(first);
            second.join().expect("no panic").expect("it is free now");
        });
    }

    #[test]
    fn other_users_cannot_read_the_folder() {
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
    fn the_reserve_file_takes_real_space_and_can_be_released() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::claim(root.path(), Duration::ZERO).expect("free");
        assert!(!folder.release_reserve());
        assert!(folder.allocate_reserve() && folder.allocate_reserve());
        let file = fs::metadata(folder.file(RESERVE_FILE)).expect("it is there");
        assert!(file.blocks() * 512 >= RESERVE_BYTES as u64);
        assert!(folder.release_reserve());
        assert!(!folder.file(RESERVE_FILE).exists());
    }
}
