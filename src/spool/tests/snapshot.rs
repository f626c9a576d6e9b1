//! What is read of a spool without opening it.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::spool::snapshot::{Reading, Snapshot, Spooled, Summary, User, leftovers, user_of};

/// All records of a snapshot, in order, and what became known.
fn read_within(folder: &Path, in_memory_max: u64) -> (Vec<Spooled>, Reading) {
    let before = state(folder);
    let mut all = Vec::new();
    let snapshot = Snapshot::take_within(folder, in_memory_max).expect("it can be read");
    let reading = snapshot.read(&mut |spooled| {
        all.push(spooled);
        ControlFlow::Continue(())
    });
    let reading = reading.expect("it can be read");
    assert_eq!(state(folder), before, "nothing changes");
    assert!(all.is_sorted_by_key(|spooled| spooled.number));
    (all, reading)
}

/// The same with the file in memory and with the file on disk, which must agree.
#[track_caller]
fn read(folder: &Path) -> (Vec<Spooled>, Reading) {
    let (all, reading) = read_within(folder, u64::MAX);
    let (on_disk, other) = read_within(folder, 0);
    assert_eq!(numbers(&all), numbers(&on_disk));
    let lost = |reading: &Reading| {
        let damage = reading.damage.as_ref();
        damage.map(|damage| (damage.lost.clone(), damage.lost_is_complete))
    };
    assert_eq!(lost(&reading), lost(&other));
    assert!(!reading.has_changed && !other.has_changed);
    (all, reading)
}

fn numbers(all: &[Spooled]) -> Vec<u64> {
    all.iter().map(|spooled| spooled.number).collect()
}

/// A file's name, bytes and times of change.
type FileState = (String, Vec<u8>, [i64; 4]);

/// Each file in a folder, and the folder itself.
fn state(folder: &Path) -> Vec<FileState> {
    let times = |file: fs::Metadata| {
        [
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ]
    };
    let entries = fs::read_dir(folder).expect("it can be listed");
    let mut state: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("it can be listed");
            let metadata = entry.metadata().expect("it is there");
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = match metadata.is_file() && name != RESERVE_FILE {
                true => fs::read(entry.path()).expect("it can be read"),
                false => Vec::new(),
            };
            (name, bytes, times(metadata))
        })
        .collect();
    let own = fs::metadata(folder).expect("it is there");
    state.push((".".to_owned(), Vec::new(), times(own)));
    state.sort();
    state
}

#[track_caller]
fn is_intact(reading: &Reading) {
    assert!(reading.damage.is_none(), "{:?}", reading.damage);
}

#[test]
fn a_snapshot_has_the_records_that_sqlite_reads_in_the_file_and_in_the_wal() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    let compare = |spool: &Spool| {
        let (all, reading) = read(folder.path());
        is_intact(&reading);
        // The service's reader skips refused rows.
        let waiting = all.iter().filter(|spooled| !spooled.refused);
        let expected = contents(spool);
        assert!(
            waiting
                .clone()
                .map(|spooled| spooled.number)
                .eq(expected.keys().copied())
        );
        for spooled in waiting {
            assert!(
                is_same(&spooled.record, &expected[&spooled.number]),
                "{}",
                spooled.number
            );
        }
        let (records, refused) = spool.records();
        assert_eq!(all.len() as i64, records);
        assert_eq!(
            all.iter().filter(|spooled| spooled.refused).count() as i64,
            refused
        );
        let snapshot = Snapshot::take(folder.path()).expect("it can be read");
        assert_eq!(
            snapshot.used_bytes(),
            spool.used_bytes().expect("it can be asked")
        );
        assert_eq!(snapshot.format(), Some(2));
    };
    compare(&spool);
    // Around the length from which a row has further pages, and over many of them.
    let mut number = 0;
    for size in [
        0, 10, 500, 3800, 3900, 3950, 4000, 4050, 4100, 8000, 8200, 100_000, 890_000,
    ] {
        spool
            .write(&rows(number..number + 7, size))
            .expect("it is written");
        number += 7;
    }
    compare(&spool);
    spool
        .write(&rows(number..number + 3000, 120))
        .expect("it is written");
    compare(&spool);
    spool.store.checkpoint().expect("it is written");
    compare(&spool);
    delete(&mut spool, (20..2500).filter(|number| number % 11 != 0));
    spool.mark_refused(&[0, 22, 3000]).expect("it marks");
    compare(&spool);
    spool.tidy().expect("it tidies");
    compare(&spool);
    delete(&mut spool, 0..number + 3000);
    compare(&spool);
    spool.tidy().expect("it tidies");
    compare(&spool);
    spool
        .write(&rows([u64::MAX >> 2], 10))
        .expect("it is written");
    compare(&spool);
    drop(spool);
    let (all, _) = read(folder.path());
    assert_eq!(numbers(&all), [u64::MAX >> 2]);
}

#[test]
fn an_empty_folder_has_no_records_and_a_missing_one_is_an_error_that_says_what_to_do() {
    let folder = new_folder();
    let (all, reading) = read(folder.path());
    is_intact(&reading);
    assert!(all.is_empty());
    fs::write(folder.path().join(DATABASE_FILE), "").expect("it can be written");
    assert!(read(folder.path()).0.is_empty());
    let missing = Snapshot::take(&folder.path().join("none")).map(|_| ());
    let missing = missing.expect_err("it is missing").to_string();
    assert!(
        missing.contains("/none; set ZIM2KAFKA_SPOOL_DIR"),
        "{missing}"
    );
    let file = Snapshot::take(&folder.path().join(DATABASE_FILE)).map(|_| ());
    let file = file.expect_err("it is a file").to_string();
    assert!(file.contains("set ZIM2KAFKA_SPOOL_DIR"), "{file}");
}

#[test]
fn a_summary_counts_by_event_with_the_first_and_the_last_time() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 10)).expect("it is written");
    spool.mark_refused(&[3, 4]).expect("it marks");
    let mut summary = Summary::default();
    let (all, _) = read(folder.path());
    all.iter().for_each(|spooled| summary.add(spooled));
    let counts: Vec<_> = (summary.groups.iter())
        .map(|(event, group)| (event.as_deref(), group.records, group.refused))
        .collect();
    let expected = [
        (None, 25, 1),
        (Some("event_0"), 25, 1),
        (Some("event_1"), 25, 0),
        (Some("event_2"), 25, 0),
    ];
    assert_eq!(counts, expected);
    let times = |number| record(number, 0).times.received;
    let total = summary.total();
    assert_eq!((total.records, total.refused), (100, 2));
    assert_eq!(total.received, Some((times(0), times(99))));
    let letters = &summary.groups[&None];
    assert_eq!(letters.received, Some((times(3), times(99))));
}

/// Flips single bytes all over a file. Each record is then read unchanged or named as lost, and the
/// next start recovers the same.
fn survives_flips(original: &Path, name: &str, expected: std::ops::Range<u64>, size: usize) {
    let length = fs::metadata(original.join(name))
        .expect("it is there")
        .len() as usize;
    let dense = (0..108)
        .chain(4096..4124)
        .chain(8192..8220)
        .chain(12_288..12_316);
    let places = dense
        .chain((200..length).step_by(length / 50))
        .chain(length - 40..length);
    for at in places.filter(|at| *at < length) {
        let folder = killed(original);
        flip(folder.path(), name, at);
        // The other way to read must agree, which a few places show.
        let (all, reading) = match at % 7 {
            0 => read(folder.path()),
            _ => read_within(folder.path(), u64::MAX),
        };
        let damage = reading.damage.as_ref();
        let found = numbers(&all);
        for spooled in &all {
            assert!(
                is_same(&spooled.record, &record(spooled.number, size)),
                "{name} at {at}: {}",
                spooled.number
            );
        }
        for number in expected.clone() {
            let is_lost = damage.is_some_and(|damage| damage.lost.contains(&number));
            assert!(
                found.binary_search(&number).is_ok() != is_lost,
                "{name} at {at}: {number} is neither there nor named as lost ({damage:?})"
            );
        }
        assert!(
            found.iter().all(|number| expected.contains(number)),
            "{name} at {at}"
        );
        let spool = open(folder.path());
        let recovered: Vec<_> = contents(&spool).into_keys().collect();
        assert_eq!(
            found,
            recovered,
            "{name} at {at}: {damage:?} {:?}",
            spool.recovery()
        );
        assert!(
            damage.is_some()
                || spool.recovery().is_none()
                || found.len() == expected.clone().count()
        );
    }
}

#[test]
fn of_a_file_with_a_flipped_byte_all_records_are_read_but_those_named_as_lost() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it is written");
    drop(spool);
    survives_flips(folder.path(), DATABASE_FILE, 0..300, 200);
}

#[test]
fn of_a_wal_with_a_flipped_byte_all_records_are_read_but_those_named_as_lost() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    for from in (0..100).step_by(10) {
        spool
            .write(&rows(from..from + 10, 200))
            .expect("it is written");
    }
    let copy = killed(folder.path());
    survives_flips(copy.path(), WAL_FILE, 0..100, 200);
}

#[test]
fn of_a_truncated_file_or_wal_the_rest_is_read() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it is written");
    drop(spool);
    let file = fs::read(folder.path().join(DATABASE_FILE)).expect("it can be read");
    for length in [0, 50, 4096, 4097, 20_000, file.len() / 2, file.len() - 1] {
        let copy = killed(folder.path());
        fs::write(copy.path().join(DATABASE_FILE), &file[..length]).expect("it can be written");
        let (all, reading) = read(copy.path());
        let recovered: Vec<_> = contents(&open(copy.path())).into_keys().collect();
        assert_eq!(numbers(&all), recovered, "{length}");
        assert_eq!(reading.damage.is_some(), length > 0, "{length}");
    }
    // A WAL whose end was never written, or whose file is gone.
    let mut spool = open(folder.path());
    spool.write(&rows(300..330, 200)).expect("it is written");
    spool.write(&rows(330..360, 200)).expect("it is written");
    let log = fs::read(folder.path().join(WAL_FILE)).expect("it can be read");
    for (length, known) in [(log.len() - 1, 330), (log.len() - 5000, 330), (100, 300)] {
        let copy = killed(folder.path());
        fs::write(copy.path().join(WAL_FILE), &log[..length]).expect("it can be written");
        let (all, reading) = read(copy.path());
        is_intact(&reading);
        assert!(numbers(&all).into_iter().eq(0..known), "{length}");
    }
    let copy = killed(folder.path());
    fs::remove_file(copy.path().join(DATABASE_FILE)).expect("it is there");
    let (all, reading) = read(copy.path());
    assert!(!reading.damage.expect("the file is gone").loses_nothing());
    let numbers = numbers(&all);
    assert_eq!(numbers.last(), Some(&359));
    let recovered: Vec<_> = contents(&open(copy.path())).into_keys().collect();
    assert_eq!(numbers, recovered);
}

#[test]
fn a_marked_spool_is_damaged_and_what_recoveries_left_is_listed() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 10)).expect("it is written");
    spool.mark_damaged();
    let names = |folder: &Path| {
        let left = leftovers(folder).expect("it can be listed");
        left.into_iter().map(|left| left.name).collect::<Vec<_>>()
    };
    drop(spool);
    let (all, reading) = read(folder.path());
    assert!(numbers(&all).into_iter().eq(0..10));
    assert!(reading.damage.expect("it is marked").loses_nothing());
    assert_eq!(names(folder.path()), ["damaged"]);
    let spool = open(folder.path());
    let moved = spool.recovery().expect("it is recovered").moved_to.clone();
    let moved = moved
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    assert_eq!(names(folder.path()), [moved]);
    let left = leftovers(folder.path()).expect("it can be listed");
    assert!(left[0].bytes > 4096, "{left:?}");
    // A crash between the moves of a recovery.
    drop(spool);
    let copy = killed(folder.path());
    let rename = |from: &str, to: &str| fs::rename(copy.path().join(from), copy.path().join(to));
    rename(DATABASE_FILE, "spool.new").expect("it can be renamed");
    fs::write(copy.path().join(WAL_FILE), [7; 5000]).expect("it can be written");
    let (all, reading) = read(copy.path());
    is_intact(&reading);
    assert!(numbers(&all).into_iter().eq(0..10));
}

#[test]
fn whether_a_service_uses_it_is_seen_without_a_lock() {
    let folder = new_folder();
    assert_eq!(user_of(folder.path()), User::Nobody);
    let spool = open(folder.path());
    // A process does not see its own locks on a file, but those on a folder.
    assert_eq!(user_of(folder.path()), User::Service(None));
    drop(spool);
    assert_eq!(user_of(folder.path()), User::Nobody);
    assert_eq!(user_of(&folder.path().join("none")), User::Nobody);
}

/// Reads while another thread appends and deletes, and checkpoints in between. No record is missing
/// that was there all the time, none is there twice, and none is altered.
fn reads_beside_a_writer(in_memory_max: u64) -> bool {
    const SIZE: usize = 2000;
    const FIXED: u64 = 2000;
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..FIXED, SIZE)).expect("it is written");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut first, mut next) = (FIXED, FIXED);
            while !is_over.load(Ordering::Relaxed) {
                spool
                    .write(&rows(next..next + 20, SIZE))
                    .expect("it is written");
                next += 20;
                if next - first > 400 {
                    delete(&mut spool, first..first + 300);
                    first += 300;
                }
                thread::sleep(Duration::from_millis(1));
            }
            spool
        });
        let mut has_changed = false;
        for _ in 0..30 {
            let mut all = Vec::new();
            let snapshot = Snapshot::take_within(folder.path(), in_memory_max);
            let reading = snapshot.and_then(|snapshot| {
                snapshot.read(&mut |spooled| {
                    assert!(is_same(&spooled.record, &record(spooled.number, SIZE)));
                    all.push(spooled.number);
                    ControlFlow::Continue(())
                })
            });
            let reading = reading.expect("it can be read");
            is_intact(&reading);
            has_changed |= reading.has_changed;
            let (fixed, others) = all.split_at(FIXED as usize);
            assert!(fixed.iter().copied().eq(0..FIXED));
            // What comes and goes does so in order, and in batches.
            let (first, last) = (others.first().copied(), others.last().copied());
            let is_gapless = others.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(is_gapless || reading.has_changed, "{first:?} to {last:?}");
            assert!(others.is_sorted());
            assert!(last.is_none_or(|last| last % 20 == 19), "{last:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        let spool = writer.join().expect("it writes all the time");
        assert!(contents(&spool).len() as u64 >= FIXED);
        has_changed
    })
}

#[test]
fn a_small_spool_is_read_as_it_was_at_one_moment_beside_a_writer() {
    assert!(!reads_beside_a_writer(u64::MAX));
}

#[test]
fn of_a_large_spool_no_record_that_stays_is_missed_beside_a_writer() {
    reads_beside_a_writer(0);
}
