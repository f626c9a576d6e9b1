//! A small disk that can be full.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::disk::{Disk, EDQUOT, ENOSPC};
use super::start::Start;

/// What ends with the volume, in whatever way the test process goes: by its end, a panic or
/// SIGKILL, the system closes the pipe. A program that still has files open keeps the file system
/// alive, but nobody finds it any more.
const LEASH: &str = "trap '' HUP INT TERM; cat >/dev/null; \
    umount \"$1/volume\" || umount -l \"$1/volume\"; rm -rf \"$1\"";

/// A folder with room for so much and no more.
///
/// Where this process may mount, it is a file system of its own: ext4 in a file, not tmpfs, which
/// the service would refuse as no disk at all. Elsewhere the preloaded [`Disk`] plays it, so that
/// no test is skipped anywhere. Either way, a program is on it once [`Volume::apply`] was asked
/// for it.
pub(crate) struct Volume {
    disk: Disk,
    path: PathBuf,
    /// The bound, where there is none but the disk's.
    bound: Option<u64>,
    leash: Child,
}

impl Volume {
    /// One of that many bytes, at least 4 MiB. A file system takes some of them, up to 2 MiB, for
    /// itself.
    pub(crate) fn of(bytes: u64) -> Self {
        Self::new(bytes, ENOSPC, mount)
    }

    /// One whose owner may use no more, by a quota: nothing else tells so, and least of all the
    /// room that the system says is left.
    pub(crate) fn with_quota(bytes: u64) -> Self {
        Self::new(bytes, EDQUOT, |_, _| false)
    }

    /// The one for machines where nothing can be mounted.
    pub(crate) fn without_mount(bytes: u64) -> Self {
        Self::new(bytes, ENOSPC, |_, _| false)
    }

    fn new(bytes: u64, errno: i32, mount: impl FnOnce(&Path, u64) -> bool) -> Self {
        // Not where temporary files usually go: that may be in memory. And not a folder that
        // deletes itself: the leash does that.
        let folder = tempfile::Builder::new()
            .prefix("volume-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("Cargo makes the folder that it names")
            .keep();
        let leash = leash(&folder);
        let path = folder.join("volume");
        fs::create_dir(&path).expect("its folder is new");
        let bound = (!mount(&folder, bytes)).then_some(bytes);
        let disk = Disk::new(&path);
        if let Some(bytes) = bound {
            disk.give_room(bytes, errno);
        }
        Self {
            disk,
            path,
            bound,
            leash,
        }
    }

    /// The folder, empty at first.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a file system of its own.
    pub(crate) fn is_mounted(&self) -> bool {
        self.bound.is_none()
    }

    /// Puts a program on it, and on [`Volume::disk`].
    pub(crate) fn apply(&self, command: &mut Command) {
        self.disk.apply(command);
    }

    /// For faults other than a full disk. One program cannot be on two disks.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Takes all the room that is left: to write where a file is already still succeeds. Again
    /// takes what has become free since.
    pub(crate) fn fill(&self) {
        let filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler());
        let mut filler = filler.expect("it can be opened");
        if let Some(bytes) = self.bound {
            let own = filler.metadata().expect("it is open").len();
            let others = used_in(&self.path) - own;
            let all = filler.set_len(bytes.saturating_sub(others));
            return all.expect("a file that holds nothing needs no room");
        }
        // Smaller and smaller pieces, because the last big one does not fit.
        for size in [64 * 1024, 1024, 1] {
            while writes(&mut filler, &vec![b'x'; size]) {}
        }
    }

    /// Gives back what [`Volume::fill`] took.
    pub(crate) fn free_up(&self) {
        let filler = OpenOptions::new().write(true).open(self.filler());
        let filler = filler.expect("it was filled");
        // Between its fork and its exec a child of another test may have the file open. Then its
        // removal alone would free nothing yet.
        filler.set_len(0).expect("it can be emptied");
        fs::remove_file(self.filler()).expect("it was filled");
        // ext4 hands out freed blocks again only once their release is committed.
        rustix::fs::syncfs(filler).expect("it can be synced");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Letting go is what the end of the process does too; waiting makes sure that it has
        // worked.
        drop(self.leash.stdin.take());
        self.leash.wait().ok();
    }
}

/// Starts the leash. Rust opens pipes close-on-exec, so no other child holds this one's write end.
fn leash(folder: &Path) -> Child {
    let mut leash = Command::new("sh");
    leash.args(["-c", LEASH, "sh"]).arg(folder);
    leash.stdin(Stdio::piped()).stdout(Stdio::null());
    let started = leash.stderr(Stdio::null()).process_group(0).start();
    started.expect("there is a shell")
}

/// Mounts a file system of that size on `volume` in this folder, if this process may.
fn mount(folder: &Path, bytes: u64) -> bool {
    let image = folder.join("image");
    let sized = File::create(&image).and_then(|image| image.set_len(bytes));
    sized.expect("a file that holds nothing needs no room");
    // No blocks are kept for root, who else could write on; few inodes and the smallest journal
    // leave most of it for data.
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args([
        "-q", "-F", "-b", "1024", "-m", "0", "-N", "128", "-J", "size=1",
    ]);
    let mut mount = Command::new("mount");
    mount
        .args(["-o", "loop"])
        .arg(&image)
        .arg(folder.join("volume"));
    let mounted = succeeds(mkfs.arg(&image)) && succeeds(&mut mount);
    if mounted {
        fs::remove_dir(folder.join("volume/lost+found")).expect("mkfs.ext4 makes it");
    }
    mounted
}

/// Whether it can be run here, and does what it should.
fn succeeds(command: &mut Command) -> bool {
    let ended = command.stdin(Stdio::null()).finish();
    ended.is_ok_and(|ended| ended.status.success())
}

/// Whether all of it could be written.
fn writes(file: &mut File, piece: &[u8]) -> bool {
    match file.write_all(piece) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::StorageFull => false,
        Err(error) => panic!("{error}"),
    }
}

/// The bytes of all files in a folder and those below, as `disk.c` adds them up.
fn used_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let used = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("the folder can be read");
        match entry.metadata() {
            Ok(file) if file.is_dir() => used_in(&entry.path()),
            Ok(file) if file.is_file() => file.len(),
            // A link, or a file that was deleted just now.
            _ => 0,
        }
    };
    entries.map(used).sum()
}
