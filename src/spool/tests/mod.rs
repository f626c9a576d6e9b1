use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::folder::RESERVE_FILE;
use super::recovery::wal::Wal;
use super::scan::LIMITS;
use super::*;
use crate::event::Times;

fn record(number: u64, size: usize) -> Record {
    Record {
        event: match number % 4 {
            3 => None,
            // Also names that no version knows.
            other => Some(format!("event_{other}").into()),
        },
        event_id: Uuid::from_u128(u128::from(number) << 64 | 7),
        key: (number % 5 != 4).then(|| Bytes::from(format!("group {}", number % 7))),
        timestamp: 1_757_577_600_123 + number as i64,
        headers: vec![
            ("ce_id".into(), Bytes::from(number.to_string())),
            ("content-type".into(), Bytes::from_static(b"\xff")),
        ],
        value: format!("{number} ").repeat(size / 4 + 1).into(),
        counted: None,
        times: Times {
            callback: 5,
            received: 1_757_577_600_000 + number as i64,
        },
    }
}

fn rows(numbers: impl IntoIterator<Item = u64>, size: usize) -> Vec<Row> {
    let row = |number| Row::new(number, record(number, size));
    numbers.into_iter().map(row).collect()
}

/// In memory, where there is such a place: hundreds of spools are opened here, each with its
/// reserve, and no test here is about syncs.
fn new_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder")
}

fn settings(folder: &Path) -> SpoolSettings {
    SpoolSettings {
        folder: folder.to_owned(),
        max_bytes: 1 << 30,
        after: Duration::from_millis(250),
    }
}

/// Waits for the lock, which a process that another test starts may have for a moment.
fn open(folder: &Path) -> Spool {
    Spool::open_within(&settings(folder), LOCK_TIMEOUT).expect("it opens")
}

fn delete(spool: &mut Spool, numbers: impl IntoIterator<Item = u64>) {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    while !numbers.is_empty() {
        numbers.drain(..spool.delete(&numbers).expect("it deletes"));
    }
}

/// The backlog of all events, and that of dead letters.
fn backlogs(spool: &mut Spool) -> [Backlog; 2] {
    let mut backlogs = [Backlog::default(), Backlog::default()];
    for (event, backlog) in spool.take_backlogs() {
        backlogs[usize::from(event.is_none())].merge(backlog);
    }
    backlogs
}

/// All rows, by number.
fn contents(spool: &Spool) -> BTreeMap<u64, Record> {
    let mut contents = BTreeMap::new();
    let reader = spool.reader.as_ref().expect("it was not taken");
    let mut after = None;
    loop {
        let scan = reader.scan_within(after, LIMITS, |_| true);
        let scan = scan.expect("it can be read");
        assert!(scan.records.is_sorted_by_key(|(number, _)| *number));
        contents.extend(scan.records);
        if scan.complete {
            return contents;
        }
        assert!(scan.end > after);
        after = scan.end;
    }
}

fn is_same(one: &Record, two: &Record) -> bool {
    format!("{one:?}") == format!("{two:?}")
        && (&one.key, one.timestamp, &one.headers, &one.value, one.times)
            == (&two.key, two.timestamp, &two.headers, &two.value, two.times)
}

/// A copy of what is on disk now, as a process finds it after this one was killed.
fn killed(folder: &Path) -> TempDir {
    let copy = new_folder();
    for name in [DATABASE_FILE, WAL_FILE] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).expect("it can be copied");
        }
    }
    // Its bytes never change, and allocating it takes longer than most of these tests.
    let reserve = folder.join(RESERVE_FILE);
    if reserve.exists() {
        fs::hard_link(reserve, copy.path().join(RESERVE_FILE)).expect("it can be linked");
    }
    copy
}

fn flip(folder: &Path, name: &str, at: usize) {
    let mut bytes = fs::read(folder.join(name)).expect("it can be read");
    bytes[at] ^= 0x55;
    fs::write(folder.join(name), bytes).expect("it can be written");
}

#[test]
fn records_are_read_back_unchanged_and_in_order_also_after_a_kill() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..40, 10)).expect("it is written");
    spool.write(&rows(40..60, 3000)).expect("it is written");
    for spool in [&open(killed(folder.path()).path()), &spool] {
        let contents = contents(spool);
        assert!(contents.keys().copied().eq(0..60));
        for (number, found) in &contents {
            let size = if *number < 40 { 10 } else { 3000 };
            assert!(is_same(found, &record(*number, size)), "{number}");
        }
        assert!(spool.recovery().is_none());
        assert_eq!(spool.records(), (60, 0));
    }
    let mut spool = open(killed(folder.path()).path());
    let left = backlogs(&mut spool).map(|backlog| (backlog.rows, backlog.last));
    assert_eq!(left, [(45, Some(58)), (15, Some(59))]);
}

#[test]
fn deleted_rows_are_gone_and_a_dead_letter_replaces_its_event_in_one_transaction() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 10)).expect("it is written");
    delete(&mut spool, [0, 1, 99]);
    let mut letter = Row::new(11, record(11, 10));
    letter.replaces = Some(5);
    spool.write(&[letter]).expect("it is written");
    let numbers: Vec<u64> = contents(&spool).into_keys().collect();
    assert_eq!(numbers, [2, 3, 4, 6, 7, 8, 9, 11]);
    assert_eq!(spool.records(), (8, 0));
    assert_eq!(
        spool.oldest().expect("it can be asked"),
        Some(record(2, 0).times.received)
    );
}

#[test]
fn deletions_do_at_least_one_row_and_stop_when_their_time_is_over() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..9, 10)).expect("it is written");
    let (none, much) = (Duration::ZERO, Duration::from_secs(3600));
    let mut delete = |time| spool.store.delete(&[1, 0, 5], time).expect("it deletes");
    assert_eq!((delete(none), delete(much)), (1, 3));
    assert!(contents(&spool).into_keys().eq([2, 3, 4, 6, 7, 8]));
}

#[test]
fn refused_rows_are_not_read_again_and_a_start_retries_only_dead_letters() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    let mut all = rows(0..12, 10);
    all[7].refused = true;
    spool.write(&all).expect("it is written");
    spool.mark_refused(&[3, 9]).expect("it marks");
    spool.mark_refused(&[3, 99]).expect("it marks none");
    assert!(
        contents(&spool)
            .into_keys()
            .eq([0, 1, 2, 4, 5, 6, 8, 10, 11])
    );
    assert_eq!(spool.records(), (12, 3));
    // A refused row does not count as waiting.
    spool.mark_refused(&[0, 1]).expect("it marks");
    let oldest = |spool: &Spool| spool.oldest().expect("it can be asked");
    assert_eq!(oldest(&spool), Some(record(2, 0).times.received));
    drop(spool);
    let mut spool = open(folder.path());
    assert!(
        contents(&spool)
            .into_keys()
            .eq([2, 3, 4, 5, 6, 7, 8, 10, 11])
    );
    assert_eq!(spool.records(), (12, 3));
    let left = backlogs(&mut spool).map(|backlog| (backlog.rows, backlog.last));
    assert_eq!(left, [(6, Some(10)), (3, Some(11))]);
    let refused = |spool: &Spool, after| -> Vec<u64> {
        let scan = spool.refused_events(after).expect("it reads");
        assert!(scan.complete);
        (scan.records.into_iter())
            .map(|(number, found)| {
                assert!(is_same(&found, &record(number, 10)));
                number
            })
            .collect()
    };
    assert_eq!(refused(&spool, 0), [1, 9]);
    assert_eq!(refused(&spool, 1), [9]);
    // The dead letter of a refused event.
    let mut letter = Row::new(15, record(15, 10));
    letter.replaces = Some(1);
    spool.write(&[letter]).expect("it is written");
    assert_eq!((spool.records(), refused(&spool, 0)), ((12, 2), vec![9]));
    delete(&mut spool, 0..16);
    assert_eq!((spool.records(), oldest(&spool)), ((0, 0), None));
}

#[test]
fn no_number_that_was_ever_on_disk_is_given_again() {
    let folder = new_folder();
    let next = |folder: &TempDir| open(folder.path()).next_number();
    assert_eq!(next(&folder), 1);
    let mut spool = open(folder.path());
    spool.write(&rows([7, 3], 10)).expect("it is written");
    assert_eq!(next(&killed(folder.path())), 8);
    spool.write(&rows([5], 10)).expect("it is written");
    delete(&mut spool, [3, 5, 7]);
    spool.tidy().expect("it tidies");
    assert_eq!(next(&killed(folder.path())), 8);
    drop(spool);
    assert_eq!(next(&folder), 8);
    // The number of a row that a recovery may still find.
    let skips = |at: usize| {
        let copy = killed(folder.path());
        flip(copy.path(), DATABASE_FILE, at);
        let spool = open(copy.path());
        assert!(spool.recovery().is_some(), "{at}");
        spool.next_number()
    };
    // The header, and the page of the number itself.
    assert_eq!(skips(20), 8 + (1 << 48));
    assert_eq!(skips(3 * 4096 - 1), 1 + (1 << 48));
}

#[test]
fn used_space_counts_pages_and_the_wal_and_shrinks_with_deletions() {
    let folder = new_folder();
    let limit = 8 << 20;
    let mut settings = settings(folder.path());
    settings.max_bytes = limit;
    let mut spool = Spool::open_within(&settings, Duration::ZERO).expect("it opens");
    let mut number = 0;
    while spool
        .has_space(Share::Events, 1 << 20)
        .expect("it can be asked")
    {
        spool
            .write(&rows(number..number + 10, 100_000))
            .expect("it is written");
        number += 10;
        assert!(spool.used_bytes().expect("it can be asked") <= limit + (2 << 20));
    }
    assert!(number >= 40, "{number}");
    delete(&mut spool, 0..number);
    assert!(
        spool
            .has_space(Share::Events, 6 << 20)
            .expect("it can be asked")
    );
    spool.tidy().expect("it tidies");
    assert!(spool.used_bytes().expect("it can be asked") < 1 << 16);
}

#[test]
fn events_and_dead_letters_each_have_a_part_of_the_quota_that_the_other_cannot_use() {
    const SIZE: usize = 100_000;
    let limit = 8 << 20;
    let numbers = |share| {
        let is_dead_letter = share == Share::DeadLetters;
        (0..).filter(move |number| (number % 4 == 3) == is_dead_letter)
    };
    let fill = |spool: &mut Spool, share| {
        let mut written = Vec::new();
        for number in numbers(share) {
            if !spool.has_space(share, SIZE).expect("it can be asked") {
                break;
            }
            spool.write(&rows([number], SIZE)).expect("it is written");
            written.push(number);
        }
        assert!(spool.used_bytes().expect("it can be asked") <= limit + (1 << 18));
        written
    };
    for (first, second, at_most) in [
        (Share::Events, Share::DeadLetters, limit / 8 * 7),
        (Share::DeadLetters, Share::Events, limit / 4 * 3),
    ] {
        let folder = new_folder();
        let mut settings = settings(folder.path());
        settings.max_bytes = limit;
        let mut spool = Spool::open_within(&settings, LOCK_TIMEOUT).expect("it opens");
        let mut all = fill(&mut spool, first);
        let used = spool.used_bytes().expect("it can be asked");
        assert!(used <= at_most + (1 << 18), "{first:?}: {used}");
        // What is known about the shares is the same after a start.
        let event_bytes = spool.store.event_bytes();
        drop(spool);
        let mut spool = Spool::open_within(&settings, LOCK_TIMEOUT).expect("it opens");
        assert_eq!(spool.store.event_bytes(), event_bytes);
        let others = fill(&mut spool, second);
        assert!(others.len() >= 5, "{second:?}: {others:?}");
        assert!(!spool.has_space(first, SIZE).expect("it can be asked"));
        all.extend(others);
        delete(&mut spool, all);
        assert_eq!(spool.store.event_bytes(), 0);
        assert!(spool.has_space(first, 5 << 20).expect("it can be asked"));
    }
}

#[test]
fn a_large_file_is_compacted_once_it_is_nearly_empty() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 100_000)).expect("it is written");
    delete(&mut spool, 1..300);
    spool.tidy().expect("it tidies");
    let length = |name: &str| fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
    assert!(length(DATABASE_FILE) < 1 << 20, "{}", length(DATABASE_FILE));
    assert!(contents(&spool).into_keys().eq([0]));
    // Recovery relies on where the tables begin.
    drop(spool);
    flip(folder.path(), DATABASE_FILE, 20);
    let spool = open(folder.path());
    assert!(
        contents(&spool).into_keys().eq([0]),
        "{:?}",
        spool.recovery()
    );
}

#[test]
fn a_second_process_cannot_open_it_and_other_users_cannot_read_it() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    let refused = Spool::open_within(&settings(folder.path()), Duration::ZERO).map(|_| ());
    let refused = refused.expect_err("it is taken").to_string();
    assert!(refused.contains("another process"), "{refused}");
    spool.write(&rows(0..3, 10)).expect("it is written");
    for name in [DATABASE_FILE, WAL_FILE, "lock", "ballast"] {
        let mode = fs::metadata(folder.path().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let names = fs::read_dir(folder.path())
        .expect("it can be listed")
        .count();
    assert_eq!(names, 4, "no mapped file");
}

mod damage;
mod migration;
mod reader;
mod snapshot;
