//! What `support::volume` promises, of both kinds.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::SOON;
use super::disk::Writer;
use crate::support::disk::EIO;
use crate::support::volume::Volume;

const SIZE: u64 = 8 << 20;
const KINDS: [fn(u64) -> Volume; 3] = [Volume::of, Volume::without_mount, Volume::with_quota];

/// A program with two files on the volume, the second in a folder of its own.
fn writer(volume: &Volume) -> Writer {
    let folder = volume.path().join("folder");
    fs::create_dir_all(&folder).expect("there is room");
    let files = [volume.path().join("first"), folder.join("second")];
    Writer::start(&files, |command| volume.apply(command))
}

#[test]
fn a_full_volume_takes_nothing_more_until_there_is_room_again() {
    for (of, full) in KINDS.into_iter().zip(["ENOSPC", "ENOSPC", "EDQUOT"]) {
        let volume = of(SIZE);
        let mut writer = writer(&volume);
        assert_eq!(writer.call(2, "write"), "ok");
        assert_eq!(writer.call(1, "allocate_1_MiB"), "ok");
        volume.fill();
        assert_eq!(writer.call(2, "allocate_1_MiB"), full);
        assert_eq!(writer.call(1, "write"), full);
        assert_eq!(writer.call(1, "overwrite"), "ok");
        assert_eq!(writer.call(1, "fsync"), "ok");
        // Its own file given up is room too, as the service's ballast is, until that is taken.
        assert_eq!(writer.call(1, "shorten"), "ok");
        assert_eq!(writer.call(1, "fsync"), "ok");
        assert_eq!(writer.call(2, "allocate_1_MiB"), "ok");
        volume.fill();
        assert_eq!(writer.call(1, "allocate_1_MiB"), full);
        volume.free_up();
        assert_eq!(writer.call(1, "allocate_1_MiB"), "ok");
        assert_eq!(writer.call(1, "write"), "ok");
    }
}

#[test]
fn a_volume_has_the_size_that_was_asked_for() {
    for volume in KINDS.map(|of| of(SIZE)) {
        volume.fill();
        let filler = volume.path().join("filler").metadata();
        let room = filler.expect("it is filled").len();
        assert!((SIZE - (2 << 20)..=SIZE).contains(&room), "{room}");
    }
}

#[test]
fn a_volume_is_a_disk_too() {
    for volume in KINDS.map(|of| of(SIZE)) {
        let mut writer = writer(&volume);
        volume.disk().fail_writes(Some(EIO));
        assert_eq!(writer.call(1, "write"), "EIO");
        volume.disk().fail_writes(None);
        assert_eq!(writer.call(1, "fsync"), "ok");
        assert_eq!(volume.disk().syncs(), 1);
    }
}

#[test]
fn nothing_of_a_volume_stays_behind_even_if_its_test_panics() {
    for of in KINDS {
        let volume = of(SIZE);
        let path = volume.path().to_owned();
        assert_eq!(is_mounted(&path), volume.is_mounted());
        assert_eq!(
            loop_devices_of(&path).len(),
            usize::from(volume.is_mounted())
        );
        volume.fill();
        // Outlives the volume, and holds its files open.
        let writer = writer_of_one(&volume);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _volume = volume;
            // Unlike `panic!`, it does not print a message that looks like a failure.
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert!(!is_mounted(&path));
        assert!(!path.parent().expect("a folder of its own").exists());
        drop(writer);
        let deadline = Instant::now() + SOON;
        while !loop_devices_of(&path).is_empty() {
            assert!(Instant::now() < deadline, "{:?}", loop_devices_of(&path));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn writer_of_one(volume: &Volume) -> Writer {
    Writer::start(&[volume.path().join("filler")], |command| {
        volume.apply(command);
    })
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("Linux has it");
    let path = path.display().to_string();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&path))
}

/// The loop devices whose file lies beside this mount point.
fn loop_devices_of(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().expect("a folder of its own");
    let devices = fs::read_dir("/sys/block").expect("Linux has it").flatten();
    devices
        .map(|device| device.path().join("loop/backing_file"))
        .filter(|file| {
            fs::read_to_string(file).is_ok_and(|of| Path::new(of.trim()).starts_with(folder))
        })
        .collect()
}
