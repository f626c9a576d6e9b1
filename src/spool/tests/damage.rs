//! Damage, and what a crash leaves that is not damage.

use super::*;

/// Flips single bytes all over a file. Each record is then read back unchanged or named as lost,
/// and not more are lost than one page holds.
fn survives_flips(original: &Path, name: &str, numbers: std::ops::Range<u64>, size: usize) {
    let length = fs::metadata(original.join(name))
        .expect("it is there")
        .len() as usize;
    // All bytes of headers, and samples of the rest.
    let dense = (0..108).chain(4096..4124).chain(8192..8220);
    let places = dense
        .chain((200..length).step_by(length / 60))
        .chain(length - 40..length);
    for at in places.filter(|at| *at < length) {
        let folder = killed(original);
        flip(folder.path(), name, at);
        let spool = open(folder.path());
        let contents = contents(&spool);
        let lost = spool.recovery().map_or(&[][..], |recovery| &recovery.lost);
        for number in numbers.clone() {
            let found = contents.get(&number);
            assert!(
                found.is_some_and(|found| is_same(found, &record(number, size)))
                    || found.is_none() && lost.contains(&number),
                "{name} at {at}: {number} is neither there nor named as lost ({:?})",
                spool.recovery()
            );
        }
        assert!(
            contents.keys().all(|number| numbers.contains(number)),
            "{name} at {at}"
        );
        if let Some(recovery) = spool.recovery() {
            assert!(recovery.moved_to.join(DATABASE_FILE).exists());
            assert!(recovery.lost.len() <= 8, "{name} at {at}: {recovery:?}");
        }
        drop(spool);
        assert!(
            open(folder.path()).recovery().is_none(),
            "{name} at {at}: recovered once, and undamaged then"
        );
    }
}

#[test]
fn a_flipped_byte_of_the_file_loses_only_rows_that_are_named() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it is written");
    drop(spool);
    survives_flips(folder.path(), DATABASE_FILE, 0..300, 200);
}

#[test]
fn a_flipped_byte_of_the_wal_loses_only_rows_that_are_named() {
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
fn remains_of_a_failed_write_in_the_wal_are_truncated_and_not_taken_for_damage() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it is written");
    let path = folder.path().join(WAL_FILE);
    let log = fs::read(&path).expect("it can be read");
    // Frames of the same generation behind the last commit.
    let failed = [&log[..], &log[32..32 + 3 * 4120]].concat();
    fs::write(&path, failed).expect("it can be written");
    assert!(open(killed(folder.path()).path()).recovery().is_some());
    spool.note_write(true);
    assert_eq!(fs::read(&path).expect("it can be read"), log);
    spool.write(&rows(100..110, 200)).expect("it is written");
    let spool = open(killed(folder.path()).path());
    assert!(spool.recovery().is_none());
    assert_eq!(contents(&spool).len(), 110);
}

#[test]
fn deleted_rows_do_not_come_back_with_a_recovery() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it is written");
    delete(&mut spool, 20..300);
    drop(spool);
    // The root of the index, without which the rows are not listed.
    flip(folder.path(), DATABASE_FILE, 3 * 4096);
    let spool = open(folder.path());
    assert!(spool.recovery().is_some());
    assert!(contents(&spool).into_keys().eq(0..20));
}

#[test]
fn a_wal_without_its_first_block_is_recovered() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    for from in (0..100).step_by(10) {
        spool
            .write(&rows(from..from + 10, 200))
            .expect("it is written");
    }
    let copy = killed(folder.path());
    let mut log = fs::read(copy.path().join(WAL_FILE)).expect("it can be read");
    log[..4096].fill(0);
    fs::write(copy.path().join(WAL_FILE), log).expect("it can be written");
    let spool = open(copy.path());
    assert!(
        contents(&spool).into_keys().eq(0..100),
        "{:?}",
        spool.recovery()
    );
}

#[test]
fn an_unreadable_end_of_the_wal_is_damage_and_one_never_written_is_not() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 200)).expect("it is written");
    spool.write(&rows(10..60, 200)).expect("it is written");
    let mut log = fs::read(folder.path().join(WAL_FILE)).expect("it can be read");
    assert!(!Wal::read(&log, true).is_damaged());
    // The last frame.
    let from = log.len() - 4120;
    log[from..].fill(0);
    assert!(!Wal::read(&log, true).is_damaged());
    assert!(Wal::read(&log, false).is_damaged());
}

#[test]
fn a_truncated_file_is_recovered_as_far_as_it_goes() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it is written");
    drop(spool);
    for length in [4096, 5000, 8192, 20_000] {
        let copy = killed(folder.path());
        let file = fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join(DATABASE_FILE));
        file.and_then(|file| file.set_len(length))
            .expect("it can be cut");
        let mut spool = open(copy.path());
        assert!(spool.recovery().is_some(), "{length}");
        spool.write(&rows(100..101, 10)).expect("it is written");
    }
}

#[test]
fn a_wal_without_its_database_file_is_recovered() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it is written");
    for lose in [fs::remove_file, |path: PathBuf| fs::write(path, b"")] {
        let copy = killed(folder.path());
        lose(copy.path().join(DATABASE_FILE)).expect("it was there");
        let spool = open(copy.path());
        assert!(contents(&spool).into_keys().eq(0..100));
        assert!(
            spool
                .recovery()
                .is_some_and(|recovery| recovery.lost.is_empty())
        );
    }
}

#[test]
fn a_wal_truncated_by_a_crash_is_not_damage_and_loses_only_what_was_not_synced() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 200)).expect("it is written");
    let synced = fs::metadata(folder.path().join(WAL_FILE))
        .expect("it is there")
        .len() as usize;
    spool.write(&rows(10..60, 200)).expect("it is written");
    let log = fs::read(folder.path().join(WAL_FILE)).expect("it can be read");
    for end in (synced..log.len()).step_by(997) {
        let copy = killed(folder.path());
        fs::write(copy.path().join(WAL_FILE), &log[..end]).expect("it can be written");
        let spool = open(copy.path());
        assert!(spool.recovery().is_none(), "{end} of {}", log.len());
        assert!(
            contents(&spool).into_keys().eq(0..10),
            "{end} of {}",
            log.len()
        );
    }
}

#[test]
fn frames_of_an_earlier_generation_behind_the_end_of_the_wal_are_not_damage() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    // Beyond the automatic checkpoint, after which SQLite begins at the front of the log again.
    for from in (0..600).step_by(60) {
        spool
            .write(&rows(from..from + 60, 10_000))
            .expect("it is written");
    }
    spool.write(&rows(600..601, 10)).expect("it is written");
    let spool = open(killed(folder.path()).path());
    assert!(spool.recovery().is_none());
    assert_eq!(contents(&spool).len(), 601);
}

#[test]
fn an_interrupted_recovery_is_repeated_or_completed_by_the_next_start() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it is written");
    drop(spool);
    // Before the new file was whole.
    let copy = killed(folder.path());
    fs::write(copy.path().join("spool.new"), b"half").expect("it can be written");
    fs::create_dir(copy.path().join("salvage")).expect("it can be made");
    let spool = open(copy.path());
    assert_eq!(contents(&spool).len(), 100);
    assert!(!copy.path().join("spool.new").exists() && !copy.path().join("salvage").exists());
    drop(spool);
    // After the damaged file was moved, before its log was.
    fs::rename(
        copy.path().join(DATABASE_FILE),
        copy.path().join("spool.new"),
    )
    .expect("it can be moved");
    fs::write(copy.path().join(WAL_FILE), b"of the damaged one").expect("it can be written");
    let spool = open(copy.path());
    assert_eq!(contents(&spool).len(), 100);
}

#[test]
fn nothing_is_appended_to_a_wal_that_may_not_be_on_disk() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it is written");
    let before = spool.store.wal_bytes();
    spool.wal_in_doubt = true;
    spool.write(&rows(100..101, 200)).expect("it is written");
    // What the log held is in the file, and a new log begins.
    assert!(spool.store.wal_bytes() < before);
    assert_eq!(contents(&open(killed(folder.path()).path())).len(), 101);
}

#[test]
fn damage_that_a_run_has_found_is_recovered_although_a_start_does_not_find_it() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..20, 200)).expect("it is written");
    spool.mark_damaged();
    drop(spool);
    let spool = open(folder.path());
    let recovery = spool.recovery().expect("it is recovered");
    assert_eq!((recovery.recovered, recovery.lost.len()), (20, 0));
    assert_eq!(contents(&spool).len(), 20);
    drop(spool);
    assert!(open(folder.path()).recovery().is_none());
}
