//! Damage, and what of it a crash leaves that is none.

use super::*;

/// Flips single bytes all over a file: whatever is hit, each record comes back as it was or is named
/// as lost, and no more are than a page holds.
fn survives_flips(original: &Path, name: &str, numbers: std::ops::Range<u64>, size: usize) {
    let length = fs::metadata(original.join(name))
        .expect("it is there")
        .len() as usize;
    // All of what is dense with meaning, and samples of the rest.
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
            "{name} at {at}: saved once, and well then"
        );
    }
}

#[test]
fn a_flipped_byte_of_the_file_costs_what_it_hit_and_says_so() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it writes");
    drop(spool);
    survives_flips(folder.path(), DATABASE_FILE, 0..300, 200);
}

#[test]
fn a_flipped_byte_of_the_log_costs_what_it_hit_and_says_so() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    for from in (0..100).step_by(10) {
        spool.write(&rows(from..from + 10, 200)).expect("it writes");
    }
    let copy = killed(folder.path());
    survives_flips(copy.path(), WAL_FILE, 0..100, 200);
}

#[test]
fn what_a_failed_write_leaves_in_the_log_is_cut_off_and_not_taken_for_damage() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it writes");
    let path = folder.path().join(WAL_FILE);
    let log = fs::read(&path).expect("it can be read");
    // As if frames of the same round had been written behind the last commit.
    let failed = [&log[..], &log[32..32 + 3 * 4120]].concat();
    fs::write(&path, failed).expect("it can be written");
    assert!(open(killed(folder.path()).path()).recovery().is_some());
    spool.note_write(true);
    assert_eq!(fs::read(&path).expect("it can be read"), log);
    spool.write(&rows(100..110, 200)).expect("it writes");
    let spool = open(killed(folder.path()).path());
    assert!(spool.recovery().is_none());
    assert_eq!(contents(&spool).len(), 110);
}

#[test]
fn what_was_deleted_does_not_come_back_with_a_salvage() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..300, 200)).expect("it writes");
    delete(&mut spool, 20..300);
    drop(spool);
    // The root of the index, without which nobody lists what is there.
    flip(folder.path(), DATABASE_FILE, 2 * 4096);
    let spool = open(folder.path());
    assert!(spool.recovery().is_some());
    assert!(contents(&spool).into_keys().eq(0..20));
}

#[test]
fn a_log_without_its_first_block_is_read_by_the_rest() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    for from in (0..100).step_by(10) {
        spool.write(&rows(from..from + 10, 200)).expect("it writes");
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
fn an_end_of_the_log_that_cannot_be_read_is_damage_and_one_that_was_never_written_is_none() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 200)).expect("it writes");
    spool.write(&rows(10..60, 200)).expect("it writes");
    let mut log = fs::read(folder.path().join(WAL_FILE)).expect("it can be read");
    assert!(!Wal::read(&log, true).is_damaged());
    // The last frame.
    let from = log.len() - 4120;
    log[from..].fill(0);
    assert!(!Wal::read(&log, true).is_damaged());
    assert!(Wal::read(&log, false).is_damaged());
}

#[test]
fn a_file_that_was_cut_short_is_salvaged_as_far_as_it_goes() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it writes");
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
        spool.write(&rows(100..101, 10)).expect("it writes");
    }
}

#[test]
fn a_log_that_has_lost_its_file_is_not_thrown_away() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it writes");
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
fn a_log_cut_short_by_a_crash_is_not_damage_and_costs_only_what_was_not_synced() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..10, 200)).expect("it writes");
    let synced = fs::metadata(folder.path().join(WAL_FILE))
        .expect("it is there")
        .len() as usize;
    spool.write(&rows(10..60, 200)).expect("it writes");
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
fn frames_of_an_earlier_round_behind_the_end_of_the_log_are_not_damage() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    // Beyond the automatic checkpoint, after which SQLite begins at the front of the log again.
    for from in (0..600).step_by(60) {
        spool
            .write(&rows(from..from + 60, 10_000))
            .expect("it writes");
    }
    spool.write(&rows(600..601, 10)).expect("it writes");
    let spool = open(killed(folder.path()).path());
    assert!(spool.recovery().is_none());
    assert_eq!(contents(&spool).len(), 601);
}

#[test]
fn a_salvage_that_was_cut_short_is_begun_or_ended_by_the_next_start() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it writes");
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
fn nothing_is_written_behind_a_log_that_may_not_be_on_disk() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(0..100, 200)).expect("it writes");
    let before = spool.store.wal_bytes();
    spool.wal_in_doubt = true;
    spool.write(&rows(100..101, 200)).expect("it writes");
    // What the log held is in the file, and a new log begins.
    assert!(spool.store.wal_bytes() < before);
    assert_eq!(contents(&open(killed(folder.path()).path())).len(), 101);
}
