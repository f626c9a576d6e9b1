//! A disk that does not give back what was written.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use super::{Scene, send, spool_all, stop, users};
use crate::support::app::callback;

/// Changes one byte in the middle of what a user's record is stored as, wherever it is in the file:
/// the log repeats a page as often as a row is added to it.
fn damage(file: &Path, user: &str) {
    let bytes = fs::read(file).expect("it can be read");
    let needle = format!("\"new_user_ids\":[\"{user}\"]");
    let all = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes()));
    let open = OpenOptions::new().write(true).open(file);
    let open = open.expect("it can be opened");
    let damaged = all.map(|at| {
        open.write_at(b"X", at as u64 + 5)
            .expect("it can be written")
    });
    assert_ne!(damaged.count(), 0, "{user} is not in {}", file.display());
}

#[test]
fn a_changed_byte_costs_one_record_which_is_counted_and_named() {
    for (file, in_order) in [("spool.db-wal", false), ("spool.db", true)] {
        let scene = Scene::new();
        let service = scene.start(&[]);
        spool_all(&service, &users(0..20));
        if in_order {
            stop(service);
        } else {
            drop(service);
        }
        damage(&scene.file(file), "u007");
        scene.kafka_comes();
        let mut service = scene.start(&[]);
        let mut left = users(0..20);
        left.remove(7);
        assert_eq!(scene.published(19), left, "{file}");
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 1.0);
        assert_eq!(service.metric("zim2kafka_spool_lost_records_total"), 1.0);
        service.process.logs("the spool is damaged");
        let kept = fs::read_dir(&scene.folder).expect("it is there");
        let is_kept = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.expect("it can be read").file_name();
            name.to_string_lossy().starts_with("damaged-")
        };
        assert_eq!(kept.map(is_kept).filter(|kept| *kept).count(), 1);
        stop(service);
    }
}

#[test]
fn damage_found_at_run_time_ends_the_process_and_the_next_start_recovers() {
    end_by_damage(false);
}

#[test]
fn damage_found_at_run_time_is_recovered_although_the_next_start_does_not_find_it() {
    end_by_damage(true);
}

/// `passes`: the disk reads back correctly again by the next start.
fn end_by_damage(passes: bool) {
    let scene = Scene::new();
    let service = scene.start(&[]);
    // More than the producer is given at once, so that the rest is only on disk.
    let note = "n".repeat(400 * 1024);
    let large = |number: u32| {
        callback(json!({"group_id": "g", "new_user_ids": [format!("u{number:03}")], "note": note}))
    };
    let count = 100;
    for number in 0..count {
        let answer = service.post(large(number));
        assert!(answer.contains("\"spooled\""), "{answer}");
    }
    let files = ["spool.db", "spool.db-wal"];
    let originals = files.map(|name| fs::read(scene.file(name)).expect("it is there"));
    // Behind the first pages, so that something can be saved.
    for name in files {
        let path = scene.file(name);
        let length = fs::metadata(&path).expect("it is there").len();
        let open = OpenOptions::new().write(true).open(&path);
        let file = open.expect("it can be opened");
        let from = length.min(1 << 20);
        let garbage = vec![0x5a; (length - from) as usize];
        file.write_all_at(&garbage, from)
            .expect("it can be written");
    }
    scene.kafka_comes();
    let ended = service.process.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("damaged"), "{}", ended.stderr);

    if passes {
        for (name, original) in files.iter().zip(originals) {
            fs::write(scene.file(name), original).expect("it can be written");
        }
    }
    let service = scene.start(&[]);
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 1.0);
    let lost = service.metric("zim2kafka_spool_lost_records_total");
    assert_eq!(lost == 0.0, passes, "{lost}");
    send(&service, "new", "HTTP/1.1 200");
    assert!(!scene.file("damaged").exists());
    stop(service);
}
