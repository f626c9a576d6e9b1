//! Spools that are damaged, of other versions, or cannot be read, and settings that do not fit.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::failing::without_privilege;
use super::super::{Scene, format, send, spool_all, stop, users};
use super::{objects, spool, state, status, variables};
use crate::support::app::callback;
use crate::support::process::{Process, run, zim2kafka};

/// Changes one byte in the value that has this user.
fn damage(file: &Path, user: &str) {
    let bytes = fs::read(file).expect("it can be read");
    let needle = format!("\"new_user_ids\":[\"{user}\"]");
    let found = bytes
        .windows(needle.len())
        .position(|window| window == needle.as_bytes());
    let file = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("it can be opened");
    let at = found.expect("it is there") as u64 + 20;
    file.write_all_at(b"X", at).expect("it can be written");
}

#[test]
fn of_a_damaged_spool_the_rest_is_shown_with_what_is_lost_and_the_exit_code_is_1() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    spool_all(&service, &users(0..30));
    stop(service);
    damage(&scene.file("spool.db"), "u011");
    let before = state(&scene.folder);
    let shown = status(&scene.folder, 1);
    assert_eq!(shown["damage"]["lost"], json!([12]));
    assert_eq!(shown["damage"]["lost_is_complete"], true);
    assert_eq!(shown["total"]["records"], 29);
    for words in [&["status"][..], &["list"], &["export"]] {
        let ended = spool(&scene.folder, words);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(
            last.contains("1 record cannot be read (numbers: 12)"),
            "{ended:?}"
        );
    }
    let exported = objects(&spool(&scene.folder, &["export"]), 1);
    assert_eq!(exported.len(), 29);
    assert!(state(&scene.folder) == before, "nothing changes");
    let checked = run(
        &["check", "--kafka-brokers", "127.0.0.1:1"],
        &[
            &variables(&scene.folder)[..],
            &[("ZIM2KAFKA_CALLBACK_SECRETS", "1=s")],
        ]
        .concat(),
    );
    assert!(
        checked
            .stdout
            .contains("holds 29 records, the oldest received"),
        "{checked:?}"
    );
    assert!(
        checked.stdout.contains("1 record cannot be read"),
        "{checked:?}"
    );
    assert!(state(&scene.folder) == before, "nothing changes");
    // The start recovers the same, and leaves the damaged files.
    let service = scene.start(&[]);
    assert_eq!(service.metric("zim2kafka_spool_records"), 29.0);
    assert_eq!(service.metric("zim2kafka_spool_lost_records_total"), 1.0);
    let shown = status(&scene.folder, 0);
    let left = shown["leftovers"][0]["name"].as_str().expect("a name");
    assert!(left.starts_with("damaged-"), "{left}");
    stop(service);
}

#[test]
fn a_spool_of_a_newer_version_is_refused_and_one_of_an_earlier_version_is_shown() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for name in ["full", "half-drained"] {
        let folder = home.path().join(name);
        format::copy(name, &folder);
        let before = state(&folder);
        let shown = status(&folder, 0);
        assert_eq!(shown["format"], 1);
        let rows = Path::new(format::FIXTURES).join(name).join("rows.tsv");
        let rows = fs::read_to_string(rows)
            .expect("it can be read")
            .lines()
            .count()
            - 1;
        assert_eq!(shown["total"]["records"], rows, "{name}");
        assert_eq!(objects(&spool(&folder, &["export"]), 0).len(), rows);
        assert!(state(&folder) == before, "{name}");
        let path = folder.join("spool.db");
        let mut file = fs::read(&path).expect("it can be read");
        file[61] = 3;
        file[63] = 3;
        fs::write(&path, file).expect("it can be written");
        let before = state(&folder);
        for words in [&["status"][..], &["list"], &["export"]] {
            let ended = spool(&folder, words);
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (Some(1), ""),
                "{ended:?}"
            );
            assert!(
                ended.stderr.contains("format 3, of a newer version"),
                "{ended:?}"
            );
            assert!(
                ended.stderr.contains("Use the version that wrote it"),
                "{ended:?}"
            );
        }
        assert!(state(&folder) == before, "{name}");
    }
}

#[test]
fn a_folder_that_cannot_be_read_is_named_with_what_to_do() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let missing = home.path().join("missing");
    for words in [&["status"][..], &["list"], &["export"]] {
        let ended = run(&[&["spool"], words].concat(), &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended
                .stderr
                .contains("ZIM2KAFKA_SPOOL_DIR: is not set; write the folder"),
            "{ended:?}"
        );
        let ended = spool(&missing, words);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(1), ""),
            "{ended:?}"
        );
        assert!(
            ended.stderr.contains("/missing; set ZIM2KAFKA_SPOOL_DIR"),
            "{ended:?}"
        );
    }
    assert!(!missing.exists());
    let file = home.path().join("file");
    fs::write(&file, "").expect("it can be written");
    assert_eq!(spool(&file, &["status"]).code, Some(2));
    let folder = home.path().join("full");
    format::copy("full", &folder);
    let as_other = |words: &[&str]| {
        let words = [&["spool"], words].concat();
        Process::start(without_privilege(zim2kafka(&words, &variables(&folder)))).end()
    };
    let may = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    // One that can only be read.
    may(&folder.join("spool.db"), 0o400);
    may(&folder, 0o500);
    assert_eq!(
        as_other(&["export"]).stdout.lines().count(),
        objects(&spool(&folder, &["export"]), 0).len()
    );
    for (path, mode) in [(folder.join("spool.db"), 0o000), (folder.clone(), 0o000)] {
        may(&path, mode);
        let ended = as_other(&["status"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let part = format!("cannot read {}: Permission denied", path.display());
        assert!(ended.stderr.contains(&part), "{ended:?}");
        assert!(
            ended
                .stderr
                .contains("as the user of the service (its owner has the user id "),
            "{ended:?}"
        );
    }
    may(&folder, 0o700);
}

#[test]
fn records_without_a_topic_are_shown_with_the_setting_that_brings_it_back() {
    let scene = Scene::new();
    let service = scene.start(&[("ZIM2KAFKA_TOPICS", "all,group_join=joined")]);
    send(&service, "u1", "\"spooled\"");
    let room = json!({"event": "room_create", "room_id": "r1", "operator_account": "a"});
    let answer = service.post(callback(room));
    assert!(answer.contains("\"spooled\""), "{answer}");
    let ended = spool(&scene.folder, &["status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("set room_create=TOPIC in ZIM2KAFKA_TOPICS"),
        "{ended:?}"
    );
    let exported = objects(&spool(&scene.folder, &["export"]), 0);
    assert_eq!(exported[1]["topic"], Value::Null);
    stop(service);
}
