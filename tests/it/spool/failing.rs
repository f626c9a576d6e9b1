//! A disk that fails, is full or may not be written to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Scene, is_ready, join, send, spool_all, stop, users, wait_until};
use crate::support::disk::{Disk, EIO, ENOSPC};
use crate::support::process::{Process, zim2kafka};
use crate::support::volume::Volume;

#[test]
fn a_failing_disk_causes_no_false_answer_and_recovers_by_itself() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    let mut spooled = users(0..3);
    spool_all(&service, &spooled);
    type Switch = fn(&Scene, bool);
    let faults: [(&str, Switch); 5] = [
        ("hanging syncs", |scene, on| scene.disk.hang_syncs(on)),
        ("failing syncs", |scene, on| scene.disk.fail_syncs(on)),
        ("failing writes", |scene, on| {
            scene.disk.fail_writes(on.then_some(EIO));
        }),
        ("no room", |scene, on| {
            scene.disk.fail_writes(on.then_some(ENOSPC));
        }),
        // The rows are on disk, and nobody can say whether the next start finds them.
        ("files that cannot be looked up", hide),
    ];
    for (fault, switch) in faults {
        let log_before = service.process.stderr().len();
        switch(&scene, true);
        send(&service, fault, "HTTP/1.1 503");
        send(&service, fault, "retry-after: 2");
        assert!(!is_ready(&service), "{fault}");
        let log = || service.process.stderr().split_off(log_before);
        wait_until(&service, "it is logged", || {
            log().contains("ZIM2KAFKA_SPOOL_DIR")
        });
        let log = log();
        // A failure is logged as an error, once. A sync that hangs is seen by the log of outages.
        let errors = usize::from(fault != "hanging syncs");
        assert_eq!(log.matches("ERROR").count(), errors, "{fault}: {log}");
        switch(&scene, false);
        wait_until(&service, "it is ready again", || is_ready(&service));
        let after = format!("after {fault}");
        send(&service, &after, "\"spooled\"");
        // What was answered 503 kept its place, and is safe by now as well.
        spooled.extend([fault.to_owned(), after]);
    }
    drop(service);
    scene.kafka_comes();
    let service = scene.start(&[]);
    let mut published = scene.published(spooled.len() + 4);
    // Each that was refused was sent twice, as two joins.
    published.dedup();
    assert_eq!(published, spooled);
    assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
    stop(service);
}

/// Puts a symbolic link to itself in place of the folder, and takes it away again.
fn hide(scene: &Scene, on: bool) {
    let aside = scene.folder.with_extension("aside");
    if on {
        fs::rename(&scene.folder, &aside).expect("it is there");
        symlink(&scene.folder, &scene.folder).expect("the name is free");
    } else {
        fs::remove_file(&scene.folder).expect("it is a link");
        fs::rename(&aside, &scene.folder).expect("the name is free");
    }
}

#[test]
fn a_failing_disk_changes_nothing_while_kafka_is_in_time() {
    let scene = Scene::new();
    scene.kafka_comes();
    let service = scene.start(&[("ZIM2KAFKA_SPOOL_AFTER", "50ms")]);
    wait_until(&service, "Kafka takes records", || {
        service.post(join("first")).contains("\"published\"")
    });
    // Slow enough for the spool to try, fast enough for the answer.
    let delay = Duration::from_millis(400);
    (scene.kafka.broker_round_trip_time(1, delay)).expect("there is one");
    for writes_fail_with in [None, Some(ENOSPC)] {
        scene.disk.fail_syncs(true);
        scene.disk.fail_writes(writes_fail_with);
        let failed = format!("{writes_fail_with:?}");
        send(&service, &failed, "\"published\"");
        // Kafka has to have told of the topic, for which nobody else waits.
        wait_until(&service, "it is ready", || is_ready(&service));
        wait_until(&service, "it is logged", || {
            service.process.stderr().contains("ZIM2KAFKA_SPOOL_DIR")
        });
    }
}

#[test]
fn a_kill_after_failed_writes_loses_nothing_and_is_not_taken_for_damage() {
    type Switch = fn(&Disk, bool);
    let faults: [Switch; 3] = [
        |disk, on| disk.fail_syncs(on),
        |disk, on| disk.fail_writes(on.then_some(ENOSPC)),
        |disk, on| disk.fail_syncs_from(if on { disk.syncs_begun() + 2 } else { u64::MAX }),
    ];
    for switch in faults {
        let scene = Scene::new();
        let service = scene.start(&[]);
        spool_all(&service, &users(0..5));
        switch(&scene.disk, true);
        let answer = service.post(join("in doubt"));
        let is_refused = answer.starts_with("HTTP/1.1 503");
        assert!(is_refused || answer.contains("\"spooled\""), "{answer}");
        drop(service);
        switch(&scene.disk, false);
        scene.kafka_comes();
        let service = scene.start(&[]);
        assert_eq!(service.metric("zim2kafka_spool_corruptions_total"), 0.0);
        send(&service, "after", "HTTP/1.1 200");
        wait_until(&service, "the spool is empty", || {
            service.metric("zim2kafka_spool_records") == 0.0
        });
        stop(service);
        // What was answered 503 may be there or not.
        let mut published = scene.published(0);
        published.retain(|user| user != "in doubt" || !is_refused);
        let mut expected = users(0..5);
        if !is_refused {
            expected.push("in doubt".to_owned());
        }
        expected.push("after".to_owned());
        assert_eq!(published, expected);
    }
}

#[test]
fn a_start_on_a_full_disk_publishes_the_spool() {
    starts_and_publishes_on_full(&Volume::of(24 << 20));
}

#[test]
fn a_start_at_the_disk_quota_publishes_the_spool() {
    starts_and_publishes_on_full(&Volume::with_quota(24 << 20));
}

fn starts_and_publishes_on_full(volume: &Volume) {
    let scene = Scene::new();
    let folder = volume.path().join("spool");
    let start = || scene.start_on(volume.disk(), &folder, &[]);
    let service = start();
    spool_all(&service, &users(0..10));
    volume.fill();
    // What is left in the file is used up first.
    let mut number = 10;
    loop {
        let user = format!("u{number:03}");
        let answer = service.post(join(&user));
        number += 1;
        if answer.starts_with("HTTP/1.1 503") {
            break;
        }
        assert!(answer.contains("\"spooled\""), "{answer}");
    }
    assert!(!is_ready(&service));
    drop(service);

    let service = start();
    send(&service, "refused", "HTTP/1.1 503");
    scene.kafka_comes();
    let published = scene.published(number as usize - 1);
    let published: BTreeSet<_> = published.into_iter().collect();
    let spooled: BTreeSet<_> = users(0..number - 1).into_iter().collect();
    assert!(published.is_superset(&spooled), "{published:?}");
    wait_until(&service, "the spool is empty", || {
        service.metric("zim2kafka_spool_records") == 0.0
    });
    volume.free_up();
    wait_until(&service, "it is ready again", || is_ready(&service));
    scene.kafka_goes();
    send(&service, "room", "\"spooled\"");
    wait_until(&service, "it is logged", || {
        service.process.stderr().contains("the spool works again")
    });
}

/// Starts a `serve` that cannot, and returns what it said.
#[track_caller]
pub(super) fn refused(folder: &Path, by: impl FnOnce(Command) -> Command) -> String {
    let variables = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
        ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
    ];
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let arguments = [&["serve"][..], &ports].concat();
    let ended = Process::start(by(zim2kafka(&arguments, &variables))).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("ZIM2KAFKA_SPOOL_DIR"), "{ended:?}");
    last
}

/// Without the right of the superuser to write everywhere, where the test has it.
pub(super) fn without_privilege(program: Command) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return program;
    }
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear();
    let variables = program.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn a_folder_that_cannot_be_used_ends_the_start_and_is_named() {
    let home = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = home.path().join("file");
    fs::write(&file, "").expect("it can be written");
    refused(&file.join("below"), |command| command);

    let read_only = home.path().join("read-only");
    fs::create_dir(&read_only).expect("its parent is ours");
    let may = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&read_only, mode).expect("it is ours");
    };
    may(0o500);
    refused(&read_only, without_privilege);
    refused(&read_only.join("below"), without_privilege);
    may(0o700);

    let broken = home.path().join("broken");
    fs::create_dir(&broken).expect("its parent is ours");
    let disk = Disk::new(&broken);
    disk.fail_syncs(true);
    refused(&broken, |mut command| {
        disk.apply(&mut command);
        command
    });
}
