//! Whether a service uses a spool.

use std::fs::{File, TryLockError};
use std::path::Path;

use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::spool::DATABASE_FILE;
use crate::spool::folder::LOCK_FILE;

/// Who uses a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// No service.
    Nobody,
    /// A service, with its process id if that can be seen from here.
    Service(Option<i32>),
}

/// Whether a service uses the spool in this folder.
pub fn user_of(folder: &Path) -> User {
    // SQLite holds a lock on the file, which can be looked at without taking it.
    let holder = File::open(folder.join(DATABASE_FILE))
        .ok()
        .and_then(|file| fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)).ok()?);
    if let Some(lock) = holder {
        return User::Service(lock.pid.map(|pid| pid.as_raw_nonzero().get()));
    }
    // A service that is starting, or that cannot write, has only the locks of the folder. Nobody
    // can look at these without taking them: if a service starts just now, it tries again 50 ms
    // later.
    let is_locked = |path: &Path| {
        let file = File::open(path);
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    match is_locked(folder) || is_locked(&folder.join(LOCK_FILE)) {
        true => User::Service(None),
        false => User::Nobody,
    }
}
