//! A disk that fails, hangs, is slow or is full, while a program runs: a library, preloaded into
//! the program, that stands between it and the C library (`tests/preload/disk.c`, which says what
//! it cannot see). Linux only, and built by `cc`, which building librdkafka needs anyway.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::start::Start;

/// "No space left on device", as Linux numbers it.
pub(crate) const ENOSPC: i32 = 28;
/// "Disk quota exceeded", as Linux numbers it.
pub(crate) const EDQUOT: i32 = 122;
/// "Read-only file system", as Linux numbers it.
pub(crate) const EROFS: i32 = 30;
/// "Input/output error", as Linux numbers it.
pub(crate) const EIO: i32 = 5;

/// The regular files below one folder, as every program sees them that [`Disk::apply`] was asked
/// for: they share its switches and its counts, one after the other or at once. Nothing is ever
/// lost of what they wrote: a failed sync fails, but the system's cache goes on to hold the data.
pub(crate) struct Disk {
    folder: PathBuf,
    control: File,
    control_path: PathBuf,
    _home: TempDir,
}

/// The fields of `struct control` in `disk.c`: eight bytes each, in this order, 0 at the start.
#[derive(Clone, Copy)]
enum Field {
    SyncsBegun,
    Syncs,
    SyncDelayMs,
    SyncsFailFrom,
    SyncsHang,
    WritesFailWith,
    Room,
    FullWith,
    ReadDelayMs,
}

impl Disk {
    /// # Panics
    ///
    /// Where the folder does not exist.
    pub(crate) fn new(folder: &Path) -> Self {
        let home = TempDir::new().expect("a temporary folder can be made");
        let control_path = home.path().join("control");
        fs::write(&control_path, [0; 4096]).expect("it can be written");
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&control_path);
        Self {
            // The library compares it with the links of `/proc`, which hold no links themselves.
            folder: folder.canonicalize().expect("the folder exists"),
            control: control.expect("it was just written"),
            control_path,
            _home: home,
        }
    }

    /// Puts a program on this disk.
    ///
    /// # Panics
    ///
    /// Where there is no `cc`.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.envs(self.variables());
    }

    /// What puts a program on this disk: variables of its environment.
    ///
    /// # Panics
    ///
    /// Where there is no `cc`.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 3] {
        let paths = [library(), &self.control_path, &self.folder];
        let [library, control, folder] = paths.map(|path| path.to_str().expect("text"));
        [
            ("LD_PRELOAD", library),
            ("TEST_DISK_CONTROL", control),
            ("TEST_DISK_FOLDER", folder),
        ]
    }

    /// How many syncs have succeeded so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.read(Field::Syncs)
    }

    /// How many syncs have begun so far, those included that failed or hang.
    pub(crate) fn syncs_begun(&self) -> u64 {
        self.read(Field::SyncsBegun)
    }

    /// Makes each sync that begins from now on take this much longer, in whole milliseconds.
    pub(crate) fn delay_syncs(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a short delay");
        self.write(Field::SyncDelayMs, delay);
    }

    /// Makes each read that begins from now on take this much longer, in whole milliseconds.
    pub(crate) fn delay_reads(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a short delay");
        self.write(Field::ReadDelayMs, delay);
    }

    /// Makes every sync fail (EIO), or none.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.write(Field::SyncsFailFrom, fail.into());
    }

    /// Makes syncs fail (EIO) from the k-th on, counted as [`Disk::syncs_begun`] counts, from 1.
    /// [`Disk::fail_syncs`] takes it back.
    pub(crate) fn fail_syncs_from(&self, k: u64) {
        assert_ne!(k, 0, "syncs are counted from 1");
        self.write(Field::SyncsFailFrom, k);
    }

    /// Makes syncs hang until this is switched off, those that wait out a delay included.
    pub(crate) fn hang_syncs(&self, hang: bool) {
        self.write(Field::SyncsHang, hang.into());
    }

    /// Makes every write fail with this errno, where a file stands as well as at its end, and every
    /// growth by other means. To shorten a file always succeeds. [`super::volume`] is the disk that
    /// is really full.
    pub(crate) fn fail_writes(&self, errno: Option<i32>) {
        let errno = errno.map_or(0, |errno| u64::try_from(errno).expect("an errno"));
        self.write(Field::WritesFailWith, errno);
    }

    /// How many bytes all files together may hold: what would make it more fails with this errno.
    /// Whoever is not on this disk may fill it too.
    pub(crate) fn give_room(&self, bytes: u64, errno: i32) {
        assert_ne!(bytes, 0, "0 stands for no bound");
        self.write(Field::FullWith, errno.try_into().expect("an errno"));
        self.write(Field::Room, bytes);
    }

    fn read(&self, field: Field) -> u64 {
        let mut value = [0; 8];
        let read = self.control.read_exact_at(&mut value, field as u64 * 8);
        read.expect("the control file can be read");
        u64::from_ne_bytes(value)
    }

    /// The program has mapped the file: it sees the change at its next call.
    fn write(&self, field: Field, value: u64) {
        let written = self
            .control
            .write_all_at(&value.to_ne_bytes(), field as u64 * 8);
        written.expect("the control file can be written");
    }
}

impl Drop for Disk {
    /// A program that hangs when its test has failed would hang for ever.
    fn drop(&mut self) {
        self.delay_syncs(Duration::ZERO);
        self.delay_reads(Duration::ZERO);
        self.hang_syncs(false);
    }
}

/// The preloaded library, built once for the process.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build("disk.c", &["-shared", "-fPIC", "-ldl"]))
}

/// Builds a source of `tests/preload`, and returns what came of it.
///
/// # Panics
///
/// Where there is no `cc`, and where it says no, with what it says.
#[track_caller]
pub(crate) fn build(source: &str, options: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = target.join(source).with_extension("built");
    // Made aside and then renamed: another test process may build, or use, the same one now.
    let aside = tempfile::Builder::new().tempdir_in(target);
    let aside = aside.expect("Cargo makes the folder that it names");
    let output = aside.path().join("built");
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/preload")
        .join(source);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&output, &path])
        .args(options);
    let said = cc.finish().unwrap_or_else(|error| {
        panic!("this test builds {source} with a C compiler, and `cc` cannot be run: {error}")
    });
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{source}: {complaint}");
    fs::rename(&output, &built).expect("both are in one folder");
    built
}
