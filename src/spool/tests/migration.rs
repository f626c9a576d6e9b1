//! Spools of earlier versions, and one of a newer version.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rusqlite::{Connection, params};
use sha1::{Digest, Sha1};

use super::super::new_file::{KEPT_NUMBER_MAX, NEW_FILE};
use super::super::row::{self, encode, format_1};
use super::*;
use crate::spool::connection::create_tables;
use crate::spool::format::Format;
use crate::spool::migration::migrate;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/spool/format-1");

/// Spools that need no recovery.
const INTACT: [&str; 4] = ["full", "half-drained", "dead-letters", "refused"];

/// A copy of a spool that the program with format 1 wrote.
fn fixture(name: &str) -> TempDir {
    killed(&Path::new(FIXTURES).join(name))
}

/// The rows of a fixture, as `rows.tsv` lists them.
fn expected(name: &str) -> Vec<String> {
    let rows = Path::new(FIXTURES).join(name).join("rows.tsv");
    let rows = fs::read_to_string(rows).expect("it can be read");
    rows.lines().skip(1).map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("it is text");
        text
    })
}

/// A row as `rows.tsv` has it.
fn line(number: u64, record: &Record, refused: bool) -> String {
    let key = record.key.as_ref();
    [
        number.to_string(),
        record.event.as_deref().unwrap_or("-").to_owned(),
        u8::from(refused).to_string(),
        key.map_or("-".into(), |key| String::from_utf8_lossy(key).into_owned()),
        record.event_id.to_string(),
        record.timestamp.to_string(),
        record.times.callback.to_string(),
        record.times.received.to_string(),
        hex(&Sha1::digest(encode(&record.headers))),
        hex(&Sha1::digest(&record.value)),
    ]
    .join("\t")
}

/// All rows of a file of the current format, in order.
fn lines(connection: &Connection) -> Vec<String> {
    let sql = format!("SELECT {} FROM records ORDER BY number", row::COLUMNS);
    let mut statement = connection.prepare(&sql).expect("it has the current format");
    let mut rows = statement.query([]).expect("it can be read");
    let mut lines = Vec::new();
    while let Some(next) = rows.next().expect("it can be read") {
        let (number, stored) = row::read(next).expect("it can be read");
        let stored = stored.expect("it is intact");
        lines.push(line(
            number,
            &stored.record,
            stored.refused.expect("0 or 1"),
        ));
    }
    lines
}

/// The rows that a start must make of these: it clears the marks of dead letters.
fn started(mut rows: Vec<String>) -> Vec<String> {
    for row in &mut rows {
        *row = row.replacen("\t-\t1\t", "\t-\t0\t", 1);
    }
    rows
}

fn version(folder: &Path) -> [u8; 4] {
    let file = fs::read(folder.join(DATABASE_FILE)).expect("it can be read");
    *file[60..].first_chunk().expect("it has a header")
}

#[test]
fn every_row_of_an_earlier_version_is_taken_over_in_order() {
    for name in INTACT {
        let folder = fixture(name);
        assert_eq!(version(folder.path()), [0x7a, 1, 0x6b, 1]);
        let claimed = Folder::claim(folder.path(), Duration::ZERO).expect("it is free");
        migrate(&claimed).expect(name);
        assert_eq!(version(folder.path()), [0x7a, 2, 0x6b, 2]);
        drop(claimed);
        let file = Connection::open(folder.path().join(DATABASE_FILE)).expect("it opens");
        assert_eq!(lines(&file), expected(name), "{name}");
        file.close().expect("nothing uses it");
        let names = fs::read_dir(folder.path()).expect("it can be listed");
        assert_eq!(names.count(), 2, "{name}: the lock and the file");
    }
    for name in [&INTACT[..], &["damaged"]].concat() {
        let folder = fixture(name);
        let mut spool = open(folder.path());
        assert_eq!(spool.recovery().is_some(), name == "damaged");
        let lost = spool.recovery().map_or(0, |recovery| recovery.lost.len());
        assert_eq!(lost, 0, "{name}");
        let expected = started(expected(name));
        assert_eq!(lines(spool.store.connection()), expected, "{name}");
        let refused = expected
            .iter()
            .filter(|row| row.contains("\tgroup_join\t1\t"));
        assert_eq!(
            spool.records(),
            (expected.len() as i64, refused.count() as i64)
        );
        let last = expected.last().and_then(|row| row.split('\t').next());
        let last: u64 = last.expect("there are rows").parse().expect("a number");
        assert_eq!(spool.next_number(), last + (1 << 48) + 1);
        spool
            .write(&rows([spool.next_number()], 10))
            .expect("it is written");
        drop(spool);
        let spool = open(folder.path());
        assert_eq!(spool.records().0 as usize, expected.len() + 1, "{name}");
        assert!(spool.recovery().is_none(), "{name}");
    }
}

/// Flips single bytes of a fixture. Each row is then there, unchanged, or named as lost.
fn survives_flips(name: &str, file: &str) {
    let length = fs::metadata(fixture(name).path().join(file))
        .expect("it is there")
        .len() as usize;
    let expected = started(expected(name));
    let dense = (0..108)
        .step_by(2)
        .chain([61, 63])
        .chain(4096..4106)
        .chain(8192..8202);
    let places = dense.chain((200..length).step_by(length / 25));
    for at in places.chain(length - 8..length) {
        let folder = fixture(name);
        flip(folder.path(), file, at);
        let spool = open(folder.path());
        let lost = spool.recovery().map_or(&[][..], |recovery| &recovery.lost);
        assert!(lost.len() <= 8, "{file} at {at}: {:?}", spool.recovery());
        let found = lines(spool.store.connection());
        let missing = expected.iter().filter(|row| !found.contains(row));
        let missing: Vec<u64> = missing
            .map(|row| {
                row.split('\t')
                    .next()
                    .and_then(|number| number.parse().ok())
                    .expect("a number")
            })
            .collect();
        assert!(
            missing.iter().all(|number| lost.contains(number)),
            "{file} at {at}: {missing:?} are neither there nor named as lost ({:?})",
            spool.recovery()
        );
        // Damage to the WAL also undoes deletions.
        let more = found.len() + missing.len() - expected.len();
        assert!(more == 0 || file == WAL_FILE, "{file} at {at}: {more}");
        assert_eq!(version(folder.path()), [0x7a, 2, 0x6b, 2], "{file} at {at}");
    }
}

#[test]
fn a_flipped_byte_of_an_earlier_version_loses_only_rows_that_are_named() {
    survives_flips("refused", DATABASE_FILE);
    survives_flips("half-drained", DATABASE_FILE);
    survives_flips("half-drained", WAL_FILE);
}

#[test]
fn without_its_first_page_the_format_is_found_by_the_checksums_of_the_rows() {
    // The WAL of the other one has the page too.
    for name in ["full", "dead-letters", "refused"] {
        let folder = fixture(name);
        let path = folder.path().join(DATABASE_FILE);
        let mut file = fs::read(&path).expect("it can be read");
        file[..4096].fill(0);
        fs::write(&path, file).expect("it can be written");
        let spool = open(folder.path());
        let recovery = spool.recovery().expect("it was damaged");
        assert!(
            recovery.lost.is_empty() && recovery.lost_is_complete,
            "{recovery:?}"
        );
        assert_eq!(
            lines(spool.store.connection()),
            started(expected(name)),
            "{name}"
        );
    }
}

/// Writes a spool of format 1 with rows like those of the tests of the current format.
fn write_format_1(folder: &Path, numbers: impl IntoIterator<Item = u64>) {
    let mut file = Connection::open(folder.join(DATABASE_FILE)).expect("it opens");
    create_tables(&mut file, Format::One).expect("they are new");
    let new = file.transaction().expect("it begins");
    let sql = "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)";
    for number in numbers {
        let mut record = record(number % 10_000, 300);
        let lane = i64::from(record.is_dead_letter());
        record.event = record.event.map(|_| "group_join".into());
        let headers = encode(&record.headers);
        let kind = "anything";
        let crc = format_1::checksum(number, lane, kind, &record, &headers);
        let columns = params![
            number as i64,
            lane,
            kind,
            record.event_id.as_bytes(),
            record.key.as_deref(),
            record.timestamp,
            record.times.callback,
            record.times.received,
            headers,
            &record.value[..],
            crc,
        ];
        new.execute(sql, columns).expect("it is written");
    }
    new.commit().expect("it commits");
}

#[test]
fn numbers_from_a_clock_that_is_centuries_ahead_are_replaced_in_order() {
    let folder = new_folder();
    let high = [
        KEPT_NUMBER_MAX,
        KEPT_NUMBER_MAX + 3,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX,
    ];
    write_format_1(folder.path(), [5].into_iter().chain(high));
    let spool = open(folder.path());
    assert!(spool.recovery().is_none());
    let found = contents(&spool);
    let kept = KEPT_NUMBER_MAX;
    assert!(
        found
            .keys()
            .copied()
            .eq([5, kept, kept + 1, kept + 2, kept + 3, kept + 4])
    );
    for (record, original) in found.values().skip(1).zip(high) {
        assert_eq!(
            record.event_id,
            super::record(original % 10_000, 0).event_id
        );
    }
    assert!(spool.next_number() < 1 << 63);
}

/// The folder that the child of the test below opens.
const CHILD_FOLDER: &str = "TEST_SPOOL";

/// A process that opens the spool, and has just begun to: it runs the test below, as its child.
#[expect(
    clippy::disallowed_methods,
    reason = "no unit test depends on ports, and `open` waits for a lock that the child has for a moment"
)]
fn open_in_a_child(folder: &Path) -> Child {
    let name = format!(
        "{}::kills_at_random_points_of_a_migration_lose_nothing",
        module_path!()
    );
    let (_, name) = name.split_once("::").expect("the crate comes first");
    let mut child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut line = String::new();
    while !line.contains("begins") {
        line.clear();
        let read = output.read_line(&mut line).expect("it can be read");
        assert!(read > 0, "it does not begin");
    }
    child.stdout = Some(output.into_inner());
    child
}

#[test]
fn kills_at_random_points_of_a_migration_lose_nothing() {
    const KILLS: u32 = 50;
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        println!("begins");
        drop(open(Path::new(&folder)));
        return;
    }
    let original = new_folder();
    let numbers = (1 << 40..).step_by(3).take(2500);
    write_format_1(original.path(), numbers.clone());
    let whole = killed(original.path());
    let mut child = open_in_a_child(whole.path());
    let began = Instant::now();
    let mut output = String::new();
    let mut stdout = child.stdout.take().expect("it is a pipe");
    stdout.read_to_string(&mut output).expect("it can be read");
    assert!(child.wait().expect("it ends").success(), "{output}");
    let whole = began.elapsed();
    let (mut before, mut during) = (0, 0);
    for kill in 0..KILLS {
        let folder = killed(original.path());
        for _ in 0..=kill % 2 {
            let mut child = open_in_a_child(folder.path());
            std::thread::sleep(
                whole.mul_f64((f64::from(kill) + rand::random::<f64>()) / f64::from(KILLS)),
            );
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
        if version(folder.path())[1] == 1 {
            before += 1;
            during += usize::from(folder.path().join(NEW_FILE).exists());
        }
        let mut spool = open(folder.path());
        assert!(spool.recovery().is_none(), "{kill}");
        let found = contents(&spool);
        assert!(found.keys().copied().eq(numbers.clone()), "{kill}");
        for (number, found) in &found {
            let mut expected = record(number % 10_000, 300);
            expected.event = expected.event.map(|_| "group_join".into());
            assert!(is_same(found, &expected), "{number}");
        }
        spool
            .write(&rows([spool.next_number()], 10))
            .expect("it is written");
        assert!(!folder.path().join(NEW_FILE).exists());
    }
    assert!(
        before > 0 && during > 0,
        "{before} before its end, {during} with a new file"
    );
}

#[test]
fn a_spool_of_a_newer_version_is_refused_and_not_changed() {
    let folder = new_folder();
    let mut spool = open(folder.path());
    spool.write(&rows(1..50, 200)).expect("it is written");
    let newer = |folder: &Path, file: &str, at: usize| {
        let mut bytes = fs::read(folder.join(file)).expect("it can be read");
        bytes[at + 1] = 3;
        bytes[at + 3] = 3;
        fs::write(folder.join(file), bytes).expect("it can be written");
    };
    let in_wal = killed(folder.path());
    drop(spool);
    let in_file = killed(folder.path());
    newer(in_file.path(), DATABASE_FILE, 60);
    // The header of the file is older than the one in the WAL.
    let wal = fs::read(in_wal.path().join(WAL_FILE)).expect("it can be read");
    let frame = (32..wal.len()).step_by(4120).rfind(|at| wal[at + 3] == 1);
    newer(
        in_wal.path(),
        WAL_FILE,
        frame.expect("the first page is in it") + 24 + 60,
    );
    for folder in [in_file, in_wal] {
        fs::write(folder.path().join(NEW_FILE), b"of the newer version")
            .expect("it can be written");
        let state = || {
            let files = fs::read_dir(folder.path()).expect("it can be listed");
            let file = |file: std::io::Result<fs::DirEntry>| {
                let file = file.expect("it can be listed");
                let about = file.metadata().expect("it is there");
                let bytes = fs::read(file.path()).expect("it can be read");
                (
                    file.file_name(),
                    (
                        about.modified().expect("a time"),
                        about.permissions().mode(),
                        bytes,
                    ),
                )
            };
            files
                .map(file)
                .filter(|(name, _)| name != "lock")
                .collect::<BTreeMap<_, _>>()
        };
        let before = state();
        let refused = Spool::open_within(&settings(folder.path()), Duration::ZERO).map(|_| ());
        let refused = refused.expect_err("it is another format").to_string();
        assert!(
            refused.contains("newer version") && refused.contains("format 3"),
            "{refused}"
        );
        assert!(state() == before);
    }
}

#[test]
fn a_snapshot_reads_earlier_formats_and_refuses_newer_ones() {
    use crate::spool::snapshot::{Snapshot, SnapshotError};
    for name in [&INTACT[..], &["damaged"]].concat() {
        let folder = fixture(name);
        let mut lines = Vec::new();
        let snapshot = Snapshot::take(folder.path()).expect("it can be read");
        assert_eq!(snapshot.format(), Some(1), "{name}");
        let reading = snapshot.read(&mut |spooled| {
            lines.push(line(spooled.number, &spooled.record, spooled.refused));
            std::ops::ControlFlow::Continue(())
        });
        let damage = reading.expect("it can be read").damage;
        assert_eq!(damage.is_some(), name == "damaged", "{name}: {damage:?}");
        assert!(damage.is_none_or(|damage| damage.loses_nothing()));
        assert_eq!(lines, expected(name), "{name}");
    }
    for version in [3, 200] {
        let folder = fixture("full");
        let mut file = fs::read(folder.path().join(DATABASE_FILE)).expect("it can be read");
        file[60..64].copy_from_slice(&[0x7a, version, 0x6b, version]);
        fs::write(folder.path().join(DATABASE_FILE), &file).expect("it can be written");
        let refused = Snapshot::take(folder.path()).map(|_| ());
        assert!(matches!(refused, Err(SnapshotError::Newer(found)) if found == version));
    }
}
