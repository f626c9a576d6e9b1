//! What `support::disk` promises, tried on a program that calls one function after the other.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::SOON;
use crate::support::disk::{Disk, EIO, ENOSPC, build, library};
use crate::support::start::Start;

/// What makes a file eight bytes longer.
const WRITES: [&str; 12] = [
    "write",
    "pwrite",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev64",
    "ftruncate",
    "ftruncate64",
    "fallocate",
    "fallocate64",
    "posix_fallocate",
    "posix_fallocate64",
];
const READS: [&str; 3] = ["read", "pread", "pread64"];
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "sync_file_range"];

/// What else changes a file or syncs it.
const OTHERS: [&str; 6] = [
    "pwritev2",
    "syncfs",
    "msync",
    "copy_file_range",
    "sendfile",
    "splice",
];

/// The files that the program has open, as it numbers them.
const SOCKET: usize = 0;
const INSIDE: usize = 1;
const OUTSIDE: usize = 2;

/// Two folders, of which one is on the disk under test.
struct Scene {
    disk: Disk,
    inside: TempDir,
    outside: TempDir,
}

/// The program of `tests/preload/writer.c`. It ends when its input does.
pub(super) struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Scene {
    fn new() -> Self {
        let [inside, outside] = [(); 2].map(|()| TempDir::new().expect("a temporary folder"));
        Self {
            disk: Disk::new(inside.path()),
            inside,
            outside,
        }
    }

    fn writer(&self) -> Writer {
        let files = [&self.inside, &self.outside].map(|folder| folder.path().join("file"));
        Writer::start(&files, |command| self.disk.apply(command))
    }
}

impl Writer {
    pub(super) fn start(files: &[PathBuf], apply: impl FnOnce(&mut Command)) -> Self {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        let mut command = Command::new(PROGRAM.get_or_init(|| build("writer.c", &[])));
        command
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        apply(&mut command);
        let mut child = command.start().expect("it was just built");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("it is a pipe")),
            child,
        }
    }

    /// Calls a function on a file: "ok", or the name of its errno.
    #[track_caller]
    pub(super) fn call(&mut self, file: usize, function: &str) -> String {
        self.begin(file, function);
        self.answer()
    }

    #[track_caller]
    fn begin(&mut self, file: usize, function: &str) {
        let input = self.input.as_mut().expect("it is a pipe");
        writeln!(input, "{file} {function}").expect("it reads");
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    /// Answers from a thread, for calls that may hang.
    fn answer_later(mut self) -> Receiver<String> {
        let (answers, answered) = channel();
        // It ends at the latest with the program, when nobody writes to it any more.
        thread::spawn(move || answers.send(self.answer()));
        answered
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may hang in a sync; then the end of its input would not end it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_sound_disk_does_what_it_is_asked_and_counts_syncs_of_its_own_files() {
    let scene = Scene::new();
    let mut writer = scene.writer();
    for (at, function) in WRITES.into_iter().enumerate() {
        for file in [INSIDE, OUTSIDE] {
            assert_eq!(writer.call(file, function), "ok", "{function}");
        }
        for folder in [&scene.inside, &scene.outside] {
            let written = folder.path().join("file").metadata().expect("it is there");
            assert_eq!(written.len(), 8 * (at as u64 + 1), "{function}");
        }
    }
    assert_eq!(writer.call(SOCKET, "write"), "ok");
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (0, 0));

    assert_eq!(writer.call(INSIDE, "fsync"), "ok");
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (1, 1));
    assert_eq!(writer.call(INSIDE, "fdatasync"), "ok");
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (2, 2));
    // It makes nothing safe.
    assert_eq!(writer.call(INSIDE, "sync_file_range"), "ok");
    for function in SYNCS {
        assert_eq!(writer.call(OUTSIDE, function), "ok");
    }
    // What fails of itself is no sync.
    assert_eq!(writer.call(SOCKET, "fsync"), "EINVAL");
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (2, 2));
    // Another program's syncs count too, as after a restart.
    assert_eq!(scene.writer().call(INSIDE, "fsync"), "ok");
    assert_eq!(scene.disk.syncs(), 3);
}

#[test]
fn syncs_fail_while_switched_on_or_from_a_given_one_on() {
    let scene = Scene::new();
    let mut writer = scene.writer();
    scene.disk.fail_syncs(true);
    for function in SYNCS {
        assert_eq!(writer.call(INSIDE, function), "EIO");
        assert_eq!(writer.call(OUTSIDE, function), "ok");
    }
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (2, 0));
    scene.disk.fail_syncs(false);
    assert_eq!(writer.call(INSIDE, "fsync"), "ok");

    scene.disk.fail_syncs_from(5);
    let answers = [(); 4].map(|()| writer.call(INSIDE, "fdatasync"));
    assert_eq!(answers, ["ok", "EIO", "EIO", "EIO"]);
    assert_eq!(writer.call(OUTSIDE, "fdatasync"), "ok");
    assert_eq!((scene.disk.syncs_begun(), scene.disk.syncs()), (7, 2));
    assert_eq!(
        writer.call(INSIDE, "write"),
        "ok",
        "writes are not concerned"
    );
}

#[test]
fn writes_fail_with_the_given_error_and_space_can_still_be_freed() {
    let scene = Scene::new();
    let mut writer = scene.writer();
    assert_eq!(writer.call(INSIDE, "write"), "ok");
    for (errno, name) in [(ENOSPC, "ENOSPC"), (EIO, "EIO")] {
        scene.disk.fail_writes(Some(errno));
        for function in WRITES.into_iter().chain(["overwrite"]) {
            assert_eq!(writer.call(INSIDE, function), name, "{function}");
            assert_eq!(writer.call(OUTSIDE, function), "ok", "{function}");
        }
        assert_eq!(writer.call(SOCKET, "write"), "ok");
        assert_eq!(
            writer.call(INSIDE, "fsync"),
            "ok",
            "syncs are not concerned"
        );
    }
    let written = || {
        let file = scene.inside.path().join("file").metadata();
        file.expect("it is there").len()
    };
    assert_eq!(written(), 8);
    assert_eq!(writer.call(INSIDE, "shorten"), "ok");
    scene.disk.fail_writes(None);
    assert_eq!(written(), 0);
    assert_eq!(writer.call(INSIDE, "write"), "ok");
}

#[test]
fn a_sync_takes_as_long_as_it_is_told() {
    const DELAY: Duration = Duration::from_millis(300);
    let scene = Scene::new();
    let mut writer = scene.writer();
    let mut takes = |file, function| {
        let began = Instant::now();
        assert_eq!(writer.call(file, function), "ok");
        began.elapsed()
    };
    scene.disk.delay_syncs(DELAY);
    for function in SYNCS {
        assert!(takes(INSIDE, function) >= DELAY, "{function}");
    }
    let others = takes(OUTSIDE, "fsync") + takes(INSIDE, "write") + takes(SOCKET, "write");
    scene.disk.delay_syncs(Duration::ZERO);
    let sound = takes(INSIDE, "fsync");
    // A busy machine is slow too, but not three times by chance.
    assert!(others < 3 * DELAY, "{others:?}");
    assert!(sound < DELAY, "{sound:?}");
}

#[test]
fn a_read_takes_as_long_as_asked() {
    const DELAY: Duration = Duration::from_millis(300);
    let scene = Scene::new();
    let mut writer = scene.writer();
    let mut takes = |file, function| {
        let began = Instant::now();
        assert_eq!(writer.call(file, function), "ok");
        began.elapsed()
    };
    scene.disk.delay_reads(DELAY);
    for function in READS {
        assert!(takes(INSIDE, function) >= DELAY, "{function}");
    }
    let others = takes(OUTSIDE, "read") + takes(INSIDE, "write") + takes(INSIDE, "fsync");
    scene.disk.delay_reads(Duration::ZERO);
    let sound = takes(INSIDE, "read");
    assert!(others < 3 * DELAY, "{others:?}");
    assert!(sound < DELAY, "{sound:?}");
}

#[test]
fn a_hanging_sync_ends_when_it_may() {
    let scene = Scene::new();
    let mut writer = scene.writer();
    scene.disk.hang_syncs(true);
    assert_eq!(writer.call(OUTSIDE, "fsync"), "ok");
    writer.begin(INSIDE, "fsync");
    let answer = writer.answer_later();
    let deadline = Instant::now() + SOON;
    while scene.disk.syncs_begun() == 0 {
        assert!(Instant::now() < deadline, "it never begins");
        thread::sleep(Duration::from_millis(1));
    }
    let hangs = answer.recv_timeout(Duration::from_millis(300));
    assert!(hangs.is_err(), "{hangs:?}");
    assert_eq!(scene.disk.syncs(), 0);
    scene.disk.hang_syncs(false);
    assert_eq!(answer.recv_timeout(SOON).as_deref(), Ok("ok"));
    assert_eq!(scene.disk.syncs(), 1);
}

#[test]
fn a_program_that_cannot_be_controlled_does_not_run() {
    let mut command = Command::new("true");
    command.env("LD_PRELOAD", library()).stderr(Stdio::null());
    let ended = command.finish().expect("it is everywhere");
    assert!(!ended.status.success());
}

/// The library meets only what a program imports from the C library by a name that it has too.
#[test]
fn the_program_writes_and_syncs_by_functions_that_the_disk_stands_in_for() {
    let program = Path::new(env!("CARGO_BIN_EXE_zim2kafka"));
    let stands_in = symbols(library(), " T ");
    let mut imports = symbols(program, " U ");
    imports.extend(symbols(program, " w "));
    let writes = |name: &&String| {
        let stem = name.trim_end_matches("64");
        WRITES.contains(&stem) || SYNCS.contains(&stem) || OTHERS.contains(&stem)
    };
    let concerned: Vec<_> = imports.iter().filter(writes).collect();
    assert!(concerned.iter().any(|name| *name == "write"), "{imports:?}");
    assert!(
        concerned.iter().any(|name| name.ends_with("sync")),
        "{imports:?}"
    );
    for name in concerned {
        assert!(stands_in.contains(name), "{name} passes by");
    }
}

/// The names of a file's dynamic symbols of one kind.
fn symbols(of: &Path, kind: &str) -> Vec<String> {
    let mut nm = Command::new("nm");
    let said = nm.arg("-D").arg(of).finish().expect("`nm` comes with `cc`");
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines = said.lines().filter_map(|line| line.split_once(kind));
    // Imports carry the version of the C library that they are from.
    let name = |(_, name): (_, &str)| name.split('@').next().map(str::to_owned);
    lines.filter_map(name).collect()
}
