//! A spool that is read and published although nothing can be written to it any more.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use super::failing::without_privilege;
use super::{Scene, is_ready, join, send, spool_all, stop, users, wait_until};
use crate::support::disk::{Disk, EIO, ENOSPC, EROFS};
use crate::support::process::Service;

type Switch = fn(&Disk, bool);

const FAULTS: [(&str, Switch); 4] = [
    ("a read-only disk", |disk, on| {
        disk.fail_writes(on.then_some(EROFS));
    }),
    ("failing writes", |disk, on| {
        disk.fail_writes(on.then_some(EIO));
    }),
    ("no room", |disk, on| disk.fail_writes(on.then_some(ENOSPC))),
    ("failing syncs", |disk, on| disk.fail_syncs(on)),
];

/// Tests each case on a thread of its own, because they mostly wait.
fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// Every user's join is published, the first time in this order.
#[track_caller]
fn is_published(scene: &Scene, expected: &[String]) {
    let mut published = Vec::new();
    for user in scene.published(expected.len()) {
        if !published.contains(&user) {
            published.push(user);
        }
    }
    assert_eq!(published, expected);
}

#[track_caller]
fn empties(service: &Service) {
    wait_until(service, "the spool is empty", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
}

#[test]
fn a_backlog_is_published_from_a_disk_that_fails_and_new_events_of_its_key_follow() {
    let hangs: (&str, Switch) = ("hanging syncs", |disk, on| disk.hang_syncs(on));
    at_once(FAULTS.into_iter().chain([hangs]), |(fault, switch)| {
        let scene = Scene::new();
        let service = scene.start(&[]);
        let mut all = users(0..50);
        spool_all(&service, &all);
        // So that the rows are on disk only.
        drop(service);
        let service = scene.start(&[]);
        switch(&scene.disk, true);
        scene.kafka_comes();
        for number in 0..3 {
            let user = format!("new {number}");
            wait_until(&service, fault, || {
                service.post(join(&user)).contains("\"published\"")
            });
            all.push(user);
        }
        wait_until(&service, fault, || is_ready(&service));
        is_published(&scene, &all);
        wait_until(&service, "it logs what a crash would repeat", || {
            let log = service.process.stderr();
            log.contains("records that Kafka has cannot be deleted from the spool")
        });
        switch(&scene.disk, false);
        empties(&service);
        scene.kafka_goes();
        wait_until(&service, "the spool works again", || {
            service.post(join("last")).contains("\"spooled\"")
        });
        stop(service);
    });
}

#[test]
fn a_start_on_a_disk_that_takes_no_writes_publishes_the_spool_and_recovers() {
    at_once(FAULTS, |(fault, switch)| {
        let scene = Scene::new();
        let service = scene.start(&[]);
        let mut all = users(0..20);
        spool_all(&service, &all);
        drop(service);
        switch(&scene.disk, true);
        for number in 0..2 {
            scene.kafka_goes();
            let service = scene.start(&[]);
            send(&service, &format!("refused {fault}"), "HTTP/1.1 503");
            assert!(!is_ready(&service), "{fault}");
            drop(service);
            scene.kafka_comes();
            let service = scene.start(&[]);
            let user = format!("new {number}");
            wait_until(&service, fault, || {
                service.post(join(&user)).contains("\"published\"")
            });
            all.push(user);
            wait_until(&service, fault, || is_ready(&service));
            assert_eq!(service.metric("zim2kafka_spool_records"), 20.0, "{fault}");
        }
        is_published(&scene, &all);
        let service = scene.start(&[]);
        switch(&scene.disk, false);
        empties(&service);
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
        stop(service);
    });
}

/// Sets the mode of a folder and of the files in it.
fn set_modes(folder: &Path, of_folder: u32, of_files: u32) {
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    set(folder, 0o700);
    for entry in fs::read_dir(folder).expect("it can be read") {
        set(&entry.expect("it can be read").path(), of_files);
    }
    set(folder, of_folder);
}

#[test]
fn a_folder_that_can_only_be_read_is_published_at_each_start_and_events_go_to_kafka() {
    let cases = [(true, true), (false, true), (true, false)];
    at_once(cases, |(has_wal, has_lock)| {
        let scene = Scene::new();
        let service = scene.start(&[]);
        let mut all = users(0..20);
        spool_all(&service, &all);
        if has_wal {
            drop(service);
        } else {
            stop(service);
        }
        assert_eq!(scene.file("spool.db-wal").exists(), has_wal);
        if !has_lock {
            fs::remove_file(scene.file("lock")).expect("it is there");
        }
        set_modes(&scene.folder, 0o500, 0o400);
        scene.kafka_comes();
        let begin = || {
            let by = without_privilege;
            scene.begin_by("127.0.0.1:0", &scene.disk, &scene.folder, &[], by)
        };
        for number in 0..2 {
            let service = begin().listening();
            let user = format!("new {number}");
            wait_until(&service, "Kafka takes it", || {
                service.post(join(&user)).contains("\"published\"")
            });
            all.push(user);
            wait_until(&service, "it is ready", || is_ready(&service));
            let ready = service.admin("/readyz");
            assert!(ready.contains("the spool takes no records"), "{ready}");
            let mut second = begin();
            second.process.logs("another process uses the spool");
            drop(second);
            let ended = stop(service);
            let log = ended.stderr;
            assert!(log.contains("can only be read"), "{log}");
            assert!(
                log.contains("its 20 records are published and cannot be deleted"),
                "{log}"
            );
        }
        is_published(&scene, &all);
        set_modes(&scene.folder, 0o700, 0o600);
        let service = scene.start(&[]);
        empties(&service);
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
        stop(service);
    });
}

#[test]
fn files_that_are_removed_or_replaced_are_noticed_before_anything_more_is_answered_from_disk() {
    type Loss = fn(&Scene);
    let losses: [(&str, Loss); 6] = [
        ("spool.db", |scene| {
            fs::remove_file(scene.file("spool.db")).expect("it is there");
        }),
        ("spool.db-wal", |scene| {
            fs::remove_file(scene.file("spool.db-wal")).expect("it is there");
        }),
        ("lock", |scene| {
            fs::remove_file(scene.file("lock")).expect("it is there");
        }),
        ("spool.db", |scene| {
            let copy = scene.file("copy");
            fs::copy(scene.file("spool.db"), &copy).expect("it can be read");
            fs::rename(copy, scene.file("spool.db")).expect("it can be replaced");
        }),
        ("spool", |scene| {
            fs::remove_dir_all(&scene.folder).expect("it is there");
        }),
        ("spool", |scene| {
            fs::rename(&scene.folder, scene.folder.with_extension("old")).expect("it is there");
            fs::create_dir(&scene.folder).expect("its parent is ours");
        }),
    ];
    at_once(losses, |(name, lose)| {
        let scene = Scene::new();
        let service = scene.start(&[]);
        let mut all = users(0..5);
        spool_all(&service, &all);
        lose(&scene);
        send(&service, "refused", "HTTP/1.1 503");
        assert!(!is_ready(&service), "{name}");
        wait_until(&service, "it is logged", || {
            service.process.stderr().contains("ERROR")
        });
        let log = service.process.stderr();
        let lost = log.lines().find(|line| line.contains("ERROR"));
        let lost = lost.expect("it is logged");
        assert!(lost.contains(&format!("{name} was re")), "{lost}");
        assert!(lost.contains("ZIM2KAFKA_SPOOL_DIR"), "{lost}");

        scene.kafka_comes();
        wait_until(&service, "Kafka takes it", || {
            service.post(join("new")).contains("\"published\"")
        });
        wait_until(&service, name, || is_ready(&service));
        all.extend(["refused", "new"].map(str::to_owned));
        is_published(&scene, &all);
        stop(service);
    });
}

#[test]
fn a_folder_without_its_files_still_belongs_to_the_process_that_uses_it() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    for entry in fs::read_dir(&scene.folder).expect("it is there") {
        fs::remove_file(entry.expect("it can be read").path()).expect("it is a file");
    }
    // Without a request that would write.
    wait_until(&service, "it is not ready", || !is_ready(&service));
    let mut second = scene.begin("127.0.0.1:0");
    second.process.logs("another process uses the spool");
    stop(service);
    let second = second.listening();
    send(&second, "new", "\"spooled\"");
    stop(second);
}
