//! The second connection: what it reads, and what the two connections do to each other.

use super::super::scan::Limits;
use super::*;
use crate::event::key_hash;
use crate::spool::reader::RowHead;
use crate::spool::scan::Scan;

const NO_LIMITS: Limits = Limits {
    records: usize::MAX,
    bytes: usize::MAX,
    time: Duration::from_secs(3600),
};

/// A spool with these rows, and its reader.
fn open_with(folder: &Path, rows: &[Row]) -> (Spool, SpoolReader) {
    let mut spool = open(folder);
    spool.write(rows).expect("it is written");
    let reader = spool.take_reader().expect("it was not taken");
    (spool, reader)
}

fn numbers(scan: &Scan) -> Vec<u64> {
    scan.records.iter().map(|(number, _)| *number).collect()
}

/// The numbers that a scan of everything returns.
fn all(reader: &SpoolReader) -> Vec<u64> {
    let scan = reader.scan_within(None, NO_LIMITS, |_| true);
    let scan = scan.expect("it reads");
    assert!(scan.complete);
    numbers(&scan)
}

fn length(folder: &Path, name: &str) -> u64 {
    fs::metadata(folder.join(name)).map_or(0, |file| file.len())
}

#[test]
fn a_scan_asks_for_each_row_in_order_and_reads_the_wanted_ones() {
    let folder = new_folder();
    let mut written = rows([7, 1, 5, 2, 3, 12, 11, 4], 3000);
    written[2].refused = true;
    let (_spool, mut reader) = open_with(folder.path(), &written);
    let mut asked = Vec::new();
    let scan = reader.scan_within(Some(1), NO_LIMITS, |head: RowHead<'_>| {
        let record = record(head.number, 0);
        assert_eq!(
            (head.event, head.key),
            (record.event.as_deref(), record.key.as_deref())
        );
        asked.push(head.number);
        head.number % 2 == 1
    });
    let scan = scan.expect("it reads");
    assert_eq!(asked, [2, 3, 4, 7, 11, 12]);
    assert_eq!(numbers(&scan), [3, 7, 11]);
    for (number, found) in &scan.records {
        assert!(is_same(found, &record(*number, 3000)), "{number}");
    }
    assert_eq!((scan.end, scan.complete), (Some(12), true));
    let behind = reader.scan(Some(12), |_| true).expect("it reads");
    assert_eq!((behind.end, behind.complete), (None, true));
    assert!(behind.records.is_empty());
}

#[test]
fn a_scan_ends_at_each_limit_and_looks_at_one_row_at_least() {
    let folder = new_folder();
    let (_spool, mut reader) = open_with(folder.path(), &rows(0..1010, 10));
    let limits = NO_LIMITS;
    let read = |after, limits, is_wanted: bool| {
        let scan = reader.scan_within(after, limits, |_| is_wanted);
        let scan = scan.expect("it reads");
        (scan.records.len(), scan.end, scan.complete)
    };
    let no_time = Limits {
        time: Duration::ZERO,
        ..limits
    };
    assert_eq!(read(None, no_time, true), (1, Some(0), false));
    assert_eq!(read(Some(4), no_time, false), (0, Some(5), false));
    let three = Limits {
        records: 3,
        ..limits
    };
    assert_eq!(read(Some(4), three, true), (3, Some(7), false));
    assert_eq!(read(Some(4), three, false), (0, Some(1009), true));
    let bytes = Limits {
        bytes: record(5, 10).size() + 1,
        ..limits
    };
    assert_eq!(read(Some(4), bytes, true), (2, Some(6), false));
    let (mut scans, mut after, mut found) = (0, None, Vec::new());
    while found.len() < 1010 {
        let scan = reader.scan(after, |_| true).expect("it reads");
        assert!((1..=MAX_READ_RECORDS).contains(&scan.records.len()));
        found.extend(numbers(&scan));
        (scans, after) = (scans + 1, scan.end);
    }
    assert!(found.into_iter().eq(0..1010) && scans > 1);
}

#[test]
fn skipping_a_row_does_not_read_the_pages_of_its_value() {
    const LEAF_PAGE: u8 = 0x0d;
    const INNER_PAGE: u8 = 0x05;
    const INDEX_PAGE: u8 = 0x0a;
    let folder = new_folder();
    let mut written = rows(0..40, 100_000);
    written[20].refused = true;
    let (spool, reader) = open_with(folder.path(), &written);
    assert!(spool.store.checkpoint().expect("nothing is read"));
    let path = folder.path().join(DATABASE_FILE);
    let mut file = fs::read(&path).expect("it can be read");
    let mut erased = 0;
    for page in file[4096..].chunks_mut(4096) {
        if ![LEAF_PAGE, INNER_PAGE, INDEX_PAGE].contains(&page[0]) {
            page.fill(0);
            erased += 1;
        }
    }
    assert!(erased > 40 * 10, "{erased}");
    fs::write(&path, file).expect("it can be written");
    let mut asked = 0;
    let skipped = reader.scan_within(None, NO_LIMITS, |_| {
        asked += 1;
        false
    });
    assert!(skipped.expect("it reads").complete);
    assert_eq!(asked, 39);
    let altered = reader.scan_within(None, NO_LIMITS, |head| head.number == 30);
    assert!(matches!(altered, Err(Error::Damaged(_))), "{altered:?}");
    spool.abandon();
}

#[test]
fn an_altered_row_is_damage_if_it_is_wanted() {
    let folder = new_folder();
    let (spool, reader) = open_with(folder.path(), &rows(0..10, 10));
    let alter = |sql| spool.store.connection().execute_batch(sql);
    alter("UPDATE records SET value = x'00' WHERE number = 5").expect("it is altered");
    let scan = reader.scan_within(None, NO_LIMITS, |head| head.number != 5);
    assert_eq!(scan.expect("it reads").records.len(), 9);
    let altered = reader.scan_within(None, NO_LIMITS, |_| true);
    let altered = altered.expect_err("it is altered");
    assert!(format!("{altered:?}").contains("record 5"), "{altered:?}");
    alter("UPDATE records SET refused = 2 WHERE number = 3").expect("it is altered");
    let altered = reader.scan_within(None, NO_LIMITS, |_| false);
    let altered = altered.expect_err("it is altered");
    assert!(format!("{altered:?}").contains("record 3"), "{altered:?}");
}

#[test]
fn a_read_does_not_wait_for_an_open_write_and_sees_it_once_it_is_committed() {
    let folder = new_folder();
    let (mut spool, reader) = open_with(folder.path(), &rows(0..10, 200));
    let sql = |sql| spool.store.connection().execute_batch(sql);
    sql("BEGIN EXCLUSIVE; DELETE FROM records WHERE number = 4").expect("it begins");
    assert!(all(&reader).into_iter().eq(0..10));
    sql("COMMIT").expect("it commits");
    assert_eq!(all(&reader), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    spool.write(&rows([4], 200)).expect("it is written");
    assert!(all(&reader).into_iter().eq(0..10));
    // Another thread reads while this one writes, syncs, checkpoints and deletes.
    std::thread::scope(|scope| {
        let reads = scope.spawn(move || {
            let (mut reads, end) = (0, Instant::now() + Duration::from_secs(60));
            while all(&reader).first() == Some(&0) && Instant::now() < end {
                reads += 1;
            }
            reads
        });
        let (mut length, mut truncations) = (0, 0);
        for number in 10..200 {
            spool.write(&rows([number], 40_000)).expect("it is written");
            delete(&mut spool, [number]);
            spool.tidy().expect("it tidies");
            let before = std::mem::replace(&mut length, spool.store.wal_bytes());
            truncations += usize::from(length < before);
        }
        delete(&mut spool, [0]);
        assert!(truncations > 0, "reads let checkpoints in");
        assert!(reads.join().expect("no panic") > 0);
    });
}

#[test]
fn a_checkpoint_that_meets_a_read_fails_nothing_and_is_made_up_for() {
    let folder = new_folder();
    let (mut spool, reader) = open_with(folder.path(), &rows(0..10, 200));
    let scan = reader.scan_within(None, NO_LIMITS, |head| {
        if head.number == 5 {
            assert!(!spool.store.checkpoint().expect("it is no failure"));
            assert!(spool.store.checkpoint_is_due());
            // Beyond the length at which the WAL is truncated.
            for number in 10..60 {
                let rows = rows([number], 100_000);
                spool.write(&rows).expect("it is written");
            }
            assert!(spool.has_space(Share::Events, 1).expect("it can be asked"));
            delete(&mut spool, 1..60);
            spool.tidy().expect("it tidies");
            assert!(spool.store.wal_bytes() > 4 << 20);
        }
        true
    });
    let scan = scan.expect("it reads on");
    assert!(numbers(&scan).into_iter().eq(0..10), "as it was");
    assert_eq!(all(&reader), [0]);
    let killed = open(killed(folder.path()).path());
    assert!(killed.recovery().is_none());
    assert!(contents(&killed).into_keys().eq([0]));
    assert!(spool.store.checkpoint().expect("no read is under way"));
    assert_eq!(spool.store.wal_bytes(), 0);
    assert!(!spool.store.checkpoint_is_due());
}

#[test]
fn a_write_over_a_wal_that_could_not_be_truncated_does_not_look_like_damage() {
    let folder = new_folder();
    let (mut spool, reader) = open_with(folder.path(), &rows(0..100, 200));
    let scan = reader.scan_within(None, NO_LIMITS, |head| {
        if head.number == 0 {
            // Copies all of the WAL, but the read still uses it.
            assert!(!spool.store.checkpoint().expect("it is no failure"));
        }
        true
    });
    scan.expect("it reads");
    let before = length(folder.path(), WAL_FILE);
    assert!(before > 0);
    spool.write(&rows(100..101, 10)).expect("it is written");
    let after = length(folder.path(), WAL_FILE);
    assert!(0 < after && after < before, "{after} of {before}");
    let mut killed = open(killed(folder.path()).path());
    assert!(killed.recovery().is_none());
    let copy = killed.take_reader().expect("it was not taken");
    for reader in [&reader, &copy] {
        assert!(all(reader).into_iter().eq(0..101));
    }
}

#[test]
fn a_file_that_is_compacted_during_a_read_stays_readable() {
    let folder = new_folder();
    let (mut spool, reader) = open_with(folder.path(), &rows(0..40, 100_000));
    assert!(spool.store.checkpoint().expect("nothing is read"));
    let scan = reader.scan_within(None, NO_LIMITS, |head| {
        if head.number == 0 {
            delete(&mut spool, 1..40);
            assert!(!spool.store.compact().expect("it is no failure"));
        }
        true
    });
    assert!(numbers(&scan.expect("it reads on")).into_iter().eq(0..40));
    assert_eq!(all(&reader), [0]);
    assert!(spool.store.checkpoint().expect("nothing is read"));
    assert!(length(folder.path(), DATABASE_FILE) < 1 << 20);
    assert_eq!(all(&reader), [0]);
}

#[test]
fn a_spool_that_closes_before_its_reader_stays_locked_and_loses_nothing() {
    let folder = new_folder();
    let (spool, reader) = open_with(folder.path(), &rows(0..10, 200));
    drop(spool);
    assert!(all(&reader).into_iter().eq(0..10));
    let refused = Spool::open_within(&settings(folder.path()), Duration::ZERO).map(|_| ());
    refused.expect_err("the reader still has it open");
    drop(reader);
    let spool = open(folder.path());
    assert!(spool.recovery().is_none());
    assert!(contents(&spool).into_keys().eq(0..10));
    drop(spool);
    assert_eq!(length(folder.path(), WAL_FILE), 0);
}

#[test]
fn a_file_with_an_index_of_the_wal_is_ignored() {
    const INDEX_FILE: &str = "spool.db-shm";
    let folder = new_folder();
    let (mut spool, _reader) = open_with(folder.path(), &rows(0..100, 200));
    spool.write(&rows(100..120, 200)).expect("it is written");
    assert!(!folder.path().join(INDEX_FILE).exists());
    let foreign = new_folder();
    let other = rusqlite::Connection::open(foreign.path().join("db")).expect("it opens");
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (c); INSERT INTO t VALUES (1)")
        .expect("it is written");
    let of_another_file = fs::read(foreign.path().join("db-shm")).expect("it is there");
    for index in [b"garbage".repeat(5000), vec![0; 32768], of_another_file] {
        for damaged in [false, true] {
            let copy = killed(folder.path());
            fs::write(copy.path().join(INDEX_FILE), &index).expect("it can be written");
            if damaged {
                flip(copy.path(), WAL_FILE, 5000);
            }
            let mut spool = open(copy.path());
            assert_eq!(spool.recovery().is_some(), damaged);
            let lost = spool.recovery().map_or(0, |recovery| recovery.lost.len());
            let reader = spool.take_reader().expect("it was not taken");
            assert_eq!(all(&reader).len(), 120 - lost);
            spool.write(&rows([120], 200)).expect("it is written");
            assert_eq!(all(&reader).last(), Some(&120));
        }
    }
}

/// The keys of all events that earlier runs have left.
fn keys(spool: &mut Spool) -> KeyRows {
    let [events, dead_letters] = backlogs(spool);
    assert_eq!(dead_letters.keys, KeyRows::default());
    events.keys
}

#[test]
fn the_keys_are_those_of_the_events_on_disk_also_after_a_recovery() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    assert_eq!(keys(&mut spool), KeyRows::default());
    spool.write(&rows(0..300, 200)).expect("it is written");
    spool.mark_refused(&[0]).expect("it marks");
    delete(&mut spool, 10..20);
    drop(spool);
    let expected = |numbers: &mut dyn Iterator<Item = u64>| {
        let mut rows = hashbrown::HashMap::new();
        for record in numbers.map(|number| record(number, 0)) {
            if let (Some(_), Some(key)) = (record.event, record.key) {
                *rows.entry(key_hash(&key)).or_insert(0) += 1;
            }
        }
        KeyRows { rows, untracked: 0 }
    };
    let mut spool = open(folder.path());
    let found = keys(&mut spool);
    assert_eq!(found, expected(&mut (1..10).chain(20..300)));
    assert_eq!(found.rows.len(), 7);
    assert_eq!(keys(&mut spool), KeyRows::default(), "they are taken once");
    drop(spool);
    // A page of rows.
    let pages = length(folder.path(), DATABASE_FILE) / 4096;
    let mut file = fs::read(folder.path().join(DATABASE_FILE)).expect("it can be read");
    let leaf = (10..pages as usize).find(|page| file[page * 4096] == 0x0d);
    let leaf = leaf.expect("there are leaf pages");
    file[leaf * 4096 + 200..(leaf + 1) * 4096].fill(0);
    fs::write(folder.path().join(DATABASE_FILE), file).expect("it can be written");
    let mut spool = open(folder.path());
    let lost = spool.recovery().map_or(0, |recovery| recovery.lost.len());
    assert!(lost > 0);
    let numbers = contents(&spool).into_keys();
    assert_eq!(keys(&mut spool), expected(&mut numbers.into_iter()));
}
