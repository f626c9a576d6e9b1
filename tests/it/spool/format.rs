//! Spools of other versions: an earlier one is taken over, a newer one is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::failing::refused;
use super::{DEAD_LETTER_TOPIC, Scene, stop, wait_until};
use crate::support::app::PATIENCE;
use crate::support::disk::{Disk, ENOSPC};
use crate::support::kafka::Kafka;

pub(super) const FIXTURES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/spool/format-1");

/// The program's own files, which a start that fails may create.
const OWN: [&str; 2] = ["lock", "ballast"];

pub(super) fn copy(name: &str, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for file in ["spool.db", "spool.db-wal"] {
        let from = Path::new(FIXTURES).join(name).join(file);
        if from.exists() {
            fs::copy(from, to.join(file)).expect("it can be copied");
        }
    }
}

/// The other files in a folder: when each was changed, and its bytes.
fn state(folder: &Path) -> BTreeMap<PathBuf, (std::time::SystemTime, Vec<u8>)> {
    let files = fs::read_dir(folder).expect("it can be listed");
    let file = |file: std::io::Result<fs::DirEntry>| {
        let file = file.expect("it can be listed");
        let changed = file.metadata().and_then(|about| about.modified());
        let bytes = fs::read(file.path()).expect("it can be read");
        (file.path(), (changed.expect("a time"), bytes))
    };
    let is_own = |path: &Path| OWN.iter().any(|name| path.ends_with(name));
    files.map(file).filter(|(path, _)| !is_own(path)).collect()
}

#[test]
fn a_spool_of_a_newer_version_ends_the_start_and_is_not_changed() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for name in ["full", "half-drained"] {
        let folder = home.path().join(name);
        copy(name, &folder);
        let path = folder.join("spool.db");
        let mut file = fs::read(&path).expect("it can be read");
        file[61] = 3;
        file[63] = 3;
        fs::write(&path, file).expect("it can be written");
        let before = state(&folder);
        let log = refused(&folder, |command| command);
        assert!(
            log.contains("format 3") && log.contains("newer version"),
            "{log}"
        );
        assert!(state(&folder) == before, "{name}");
    }
}

#[test]
fn a_spool_of_an_earlier_version_is_published_once_there_is_space_to_take_it_over() {
    let scene = Scene::new();
    copy("full", &scene.folder);
    let before = state(&scene.folder);
    // Less than both files need.
    let full = Disk::new(&scene.folder);
    full.give_room(400_000, ENOSPC);
    let log = refused(&scene.folder, |mut command| {
        full.apply(&mut command);
        command
    });
    assert!(log.contains("free space on the disk"), "{log}");
    let bytes = |state: BTreeMap<PathBuf, (_, Vec<u8>)>| -> Vec<Vec<u8>> {
        state.into_values().map(|(_, bytes)| bytes).collect()
    };
    let left = state(&scene.folder);
    assert!(left.keys().eq(before.keys()), "{:?}", left.keys());
    assert!(bytes(left) == bytes(before));

    scene.kafka_comes();
    let service = scene.start(&[]);
    let mut published = scene.published(240);
    published.sort();
    let expected: Vec<String> = (0..240).map(|at| format!("user-{at:04}-0")).collect();
    assert_eq!(published, expected);
    let kafka = Kafka::at(&scene.kafka.bootstrap_servers());
    kafka.read_until(DEAD_LETTER_TOPIC, 40, PATIENCE);
    wait_until(&service, "the spool is empty", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
    stop(service);
}
