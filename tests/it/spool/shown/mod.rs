//! `spool status`, `spool list` and `spool export`: what they show, and that they change nothing.

mod faults;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use super::{DEAD_LETTER_TOPIC, Scene, TOPIC, send, spool_all, stop, users};
use crate::support::app::callback;
use crate::support::process::{Ended, Process, run, zim2kafka};
use crate::support::schema::conforms;

/// Runs `spool` with these words, on this folder.
fn spool(folder: &Path, words: &[&str]) -> Ended {
    run(&[&["spool"], words].concat(), &variables(folder))
}

fn variables(folder: &Path) -> [(&'static str, &str); 3] {
    [
        ("ZIM2KAFKA_SPOOL_DIR", folder.to_str().expect("text")),
        ("ZIM2KAFKA_TOPIC", TOPIC),
        ("ZIM2KAFKA_DEAD_LETTER_TOPIC", DEAD_LETTER_TOPIC),
    ]
}

/// What it printed, as JSON, if it ended with this code.
#[track_caller]
fn objects(ended: &Ended, code: i32) -> Vec<Value> {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[track_caller]
fn status(folder: &Path, code: i32) -> Value {
    let ended = spool(folder, &["status", "--json"]);
    let [status] = &objects(&ended, code)[..] else {
        panic!("it is one object: {ended:?}");
    };
    conforms("urn:zim2kafka:schema:spool-status:v1", status);
    status.clone()
}

/// Each file's name, identity, bytes, and times of change.
fn state(folder: &Path) -> Vec<(String, u64, Vec<u8>, [i64; 4])> {
    let about = |name: String, path: &Path| {
        let file = fs::metadata(path).expect("it is there");
        let bytes = match file.is_file() {
            true => fs::read(path).expect("it can be read"),
            false => Vec::new(),
        };
        let times = [
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ];
        (name, file.ino(), bytes, times)
    };
    let mut state = vec![about(".".to_owned(), folder)];
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        state.push(about(
            entry.file_name().to_string_lossy().into_owned(),
            &entry.path(),
        ));
    }
    state.sort();
    state
}

/// A spooled form, percent-encoded JSON, and JSON, each signed and with an unknown kind of join.
fn invalid_bodies() -> [Vec<u8>; 3] {
    let body = || callback(json!({"join_type": "Nope", "Signature": "not signed"}));
    let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    let object: Value = serde_json::from_slice(&body()).expect("JSON");
    let fields = object.as_object().expect("an object").iter();
    let fields = fields
        .filter(|(name, _)| *name != "Signature")
        .map(|(name, value)| {
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            format!("{name}={}", encode(value.as_bytes()))
        });
    let form = fields.collect::<Vec<_>>().join("&");
    [body(), encode(&body()).into_bytes(), form.into_bytes()]
}

/// The signature and the nonce in a body.
fn secrets(body: &[u8]) -> [String; 2] {
    let text = String::from_utf8_lossy(body);
    ["signature", "nonce"].map(|name| {
        let at = text.find(name).expect("it is signed") + name.len();
        let value = text[at..].trim_start_matches(|char: char| "%\":=23A".contains(char));
        let end = value.find(|char: char| !char.is_ascii_alphanumeric());
        value[..end.unwrap_or(value.len())].to_owned()
    })
}

#[test]
fn a_running_service_is_shown_with_its_records_and_nothing_changes() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    spool_all(&service, &users(0..40));
    let bodies = invalid_bodies();
    for body in &bodies {
        let answer = service.post(body);
        assert!(answer.contains("dead_lettered"), "{answer}");
    }
    let before = state(&scene.folder);

    let shown = status(&scene.folder, 0);
    assert_eq!(shown["service"]["process_id"], service.process.id());
    assert_eq!(
        (&shown["format"], &shown["damage"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(shown["total"]["records"], 43);
    assert_eq!(shown["max_bytes"], 1_u64 << 30);
    assert_eq!(
        shown["used_bytes"],
        service.metric("zim2kafka_spool_bytes") as u64
    );
    let counts: Vec<_> = (shown["events"].as_array().expect("a list").iter())
        .map(|group| {
            (
                group["event"].as_str(),
                group["topic"].as_str(),
                group["records"].as_u64(),
            )
        })
        .collect();
    let dead = (None, Some(DEAD_LETTER_TOPIC), Some(3));
    assert_eq!(counts, [dead, (Some("group_join"), Some(TOPIC), Some(40))]);
    let text = spool(&scene.folder, &["status"]).stdout;
    for part in [
        "records    43",
        "group_join",
        "all records can be read",
        "process id",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );

    let list = spool(&scene.folder, &["list"]);
    assert_eq!(
        (list.code, list.stdout.lines().count()),
        (Some(0), 44),
        "{list:?}"
    );
    let listed = objects(&spool(&scene.folder, &["list", "--json"]), 0);
    assert_eq!(listed.len(), 43);
    for line in &listed {
        conforms("urn:zim2kafka:schema:spool-list:v1", line);
    }
    assert_eq!(listed[40]["dead_letter_reason"], "invalid_event");
    for printed in [list.stdout, json!(listed).to_string()] {
        for hidden in [
            "new_user_ids",
            "u001",
            "ce_",
            "content-type",
            "Nope",
            "Apply",
        ] {
            assert!(!printed.contains(hidden), "{hidden}: {printed}");
        }
    }
    let listed = |flags: &[&str]| {
        let ended = spool(&scene.folder, &[&["list", "--json"], flags].concat());
        objects(&ended, 0).len()
    };
    assert_eq!(listed(&["--reason", "invalid_event"]), 3);
    assert_eq!(listed(&["--event", "group_join"]), 43);
    assert_eq!(listed(&["--key", "g1"]), 3);
    assert_eq!(listed(&["--key", "g"]), 40);
    assert_eq!(listed(&["--since", "10m"]), 3);
    assert_eq!(listed(&["--until", "10m"]), 40);

    let exported = objects(&spool(&scene.folder, &["export"]), 0);
    let joined: Vec<_> = (exported.iter())
        .filter_map(|line| line["value"]["new_user_ids"][0].as_str())
        .collect();
    assert_eq!(joined, users(0..40));
    let numbers: Vec<_> = exported
        .iter()
        .map(|line| line["number"].as_u64())
        .collect();
    assert!(numbers.is_sorted());
    let first = exported[0].as_object().expect("an object").keys().cloned();
    assert_eq!(
        first.collect::<Vec<_>>().join(" "),
        "headers key number offset partition received_at refused timestamp topic value"
    );
    assert_eq!(
        (&exported[0]["topic"], &exported[0]["key"]),
        (&json!(TOPIC), &json!("g"))
    );
    assert_eq!(
        exported[0]["headers"]["ce_type"],
        "com.zegocloud.zim.group.joined.v1"
    );
    let printed = json!(exported).to_string();
    for secret in bodies.iter().flat_map(|body| secrets(body)) {
        assert!(
            secret.len() > 5 && !printed.contains(&secret),
            "{secret}: {printed}"
        );
    }
    for letter in &exported[40..] {
        let value = letter["value"].as_str().expect("a text");
        // JSON has a second, unsigned one.
        let masks = 2 + usize::from(value.contains("Signature"));
        assert_eq!(value.matches("***").count(), masks, "{value}");
        assert!(value.contains("Nope"), "{value}");
    }
    let whole = objects(
        &spool(
            &scene.folder,
            &["export", "--with-signatures", "--reason=invalid_event"],
        ),
        0,
    );
    let values: Vec<_> = whole
        .iter()
        .map(|line| line["value"].as_str().expect("a text"))
        .collect();
    let expected = bodies.each_ref().map(|body| String::from_utf8_lossy(body));
    assert_eq!(values, expected);

    assert!(state(&scene.folder) == before, "nothing changes");
    send(&service, "after", "\"spooled\"");
    stop(service);
    // The same without the service, as it has left its files.
    let before = state(&scene.folder);
    let shown = status(&scene.folder, 0);
    assert_eq!(shown["service"]["is_running"], false);
    assert_eq!(shown["total"]["records"], 44);
    assert_eq!(objects(&spool(&scene.folder, &["export"]), 0).len(), 44);
    assert!(state(&scene.folder) == before, "nothing changes");
}

/// The WAL of a service that was killed is a part of what it has stored.
#[test]
fn what_a_killed_service_has_stored_is_shown_and_then_published() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    spool_all(&service, &users(0..25));
    drop(service);
    assert!(
        fs::metadata(scene.file("spool.db-wal"))
            .expect("it is there")
            .len()
            > 0
    );
    let before = state(&scene.folder);
    assert_eq!(status(&scene.folder, 0)["total"]["records"], 25);
    assert_eq!(objects(&spool(&scene.folder, &["export"]), 0).len(), 25);
    assert!(state(&scene.folder) == before, "nothing changes");
    scene.kafka_comes();
    let service = scene.start(&[]);
    assert_eq!(scene.published(25), users(0..25));
    stop(service);
}

/// Sets the flag when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_service_under_load_is_not_held_up_by_commands_that_are_killed() {
    let scene = Scene::new();
    let service = scene.start(&[]);
    let (is_over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        // The scope waits for the sender after a failed assertion too.
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                send(&service, &format!("u{number:05}"), "\"spooled\"");
                sent.store(number + 1, Ordering::Relaxed);
            }
        });
        for round in 0..20_u64 {
            let known = sent.load(Ordering::Relaxed) as usize;
            let started = || {
                let words = ["spool", if round % 2 == 0 { "export" } else { "status" }];
                Process::start(zim2kafka(&words, &variables(&scene.folder)))
            };
            let victim = started();
            // At any moment of its work.
            thread::sleep(Duration::from_millis(3 * round));
            victim.signal("KILL");
            drop(victim);
            let exported = objects(&spool(&scene.folder, &["export"]), 0);
            assert!(exported.len() >= known, "{} of {known}", exported.len());
            for (number, line) in exported.iter().enumerate() {
                assert_eq!(line["value"]["new_user_ids"][0], format!("u{number:05}"));
            }
        }
    });
    let mut names: Vec<_> = state(&scene.folder)
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    names.sort();
    assert_eq!(names, [".", "ballast", "lock", "spool.db", "spool.db-wal"]);
    let sent = sent.load(Ordering::Relaxed);
    scene.kafka_comes();
    let all: Vec<_> = (0..sent).map(|number| format!("u{number:05}")).collect();
    assert_eq!(scene.published(sent as usize), all);
    stop(service);
}
