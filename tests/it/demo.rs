//! What people try out first: the demo, the sender and the subscriber that come with the service.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::app::callback;
use crate::support::process::{Process, Service, request, run, shell, zim2kafka};
use crate::support::start::Start;

const ON_FREE_PORTS: [&str; 5] = [
    "demo",
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
];

#[test]
fn the_demo_shows_one_event_of_each_family_and_ends_after_as_many_as_it_was_asked_for() {
    let ended = run(&[&ON_FREE_PORTS[..], &["--count=5"]].concat(), &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let count = |text: &str| {
        ended
            .stdout
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    assert_eq!(count("answered 200 OK {\"status\":\"published\""), 5);
    for (topic, key, happened) in [
        ("zim.group", "group-", "  group group-"),
        ("zim.room", "room-", "  room room-"),
        // In a one-to-one chat, both users are the key.
        ("zim.message", "", "  message "),
        ("zim.call", "", "  call "),
        ("zim.user", "user-", "  user user-"),
    ] {
        let record = |line: &&str| {
            line.starts_with(&format!("{topic} partition "))
                && line.contains(" offset 0 ")
                && line.contains(&format!(" key {key}"))
        };
        let records = ended.stdout.lines().filter(record).count();
        assert_eq!(records, 1, "{topic}: {}", ended.stdout);
        assert_eq!(count(happened), 1, "{topic}: {}", ended.stdout);
    }
    assert_eq!(count("  ce_id: "), 5);
    assert_eq!(count("  {\"event_id\":\""), 5);
    assert_eq!(count("  curl -sS "), 1);
    let topics = "\\n' -G demo zim.group zim.room zim.message zim.call zim.user";
    let kcat = |line: &&str| line.starts_with("  kcat ") && line.ends_with(topics);
    assert_eq!(ended.stdout.lines().filter(kcat).count(), 1);
}

#[test]
fn the_demo_sends_events_where_the_settings_say() {
    let routes = [
        ("ZIM2KAFKA_TOPICS", "message=chat,room=discard,user=chat"),
        ("ZIM2KAFKA_TOPIC", "joins"),
        // Its own events are signed in both units.
        ("ZIM2KAFKA_TIMESTAMP_UNIT", "s"),
    ];
    let ended = run(&[&ON_FREE_PORTS[..], &["--count=5"]].concat(), &routes);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ignored = "ZIM2KAFKA_TIMESTAMP_UNIT is ignored";
    assert!(ended.stderr.contains(ignored), "{}", ended.stderr);
    for line in [
        "callback 1, group_create, answered 200 OK {\"status\":\"dead_lettered\"",
        "callback 2, room_create, answered 200 OK {\"status\":\"discarded\"",
        "callback 3, send_msg, answered 200 OK {\"status\":\"published\"",
        "callback 4, call_create, answered 200 OK {\"status\":\"dead_lettered\"",
        "callback 5, user_action, answered 200 OK {\"status\":\"published\"",
        " -G demo joins chat\n",
        &format!(
            "  ZIM2KAFKA_TOPIC=joins {} tail ",
            env!("CARGO_BIN_EXE_zim2kafka")
        ),
        " --topics message=chat,room=discard,user=chat ",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    let records = ended.stdout.matches("\nchat partition ").count();
    assert_eq!(records, 2, "{}", ended.stdout);
}

#[test]
fn the_commands_that_the_demo_suggests_work_and_ctrl_c_ends_it() {
    let mut demo = Process::start(zim2kafka(&ON_FREE_PORTS, &[]));
    let printed = demo.prints("callback 1, group_create, answered 200");
    let line = |begin: &str| {
        let line = printed
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("no {begin} line in {printed}"))
    };
    assert_eq!(curl(line("curl ")), Some("published".to_owned()));

    let send = Process::start(shell(line("ZIM2KAFKA_CALLBACK_SECRETS="))).end();
    assert_eq!(send.code, Some(0), "{send:?}");
    assert!(send.stdout.contains("2xx         10 "), "{send:?}");

    // Of the mix, most are published.
    let tail = format!(
        "{} --count 9",
        line(&format!("{} tail ", env!("CARGO_BIN_EXE_zim2kafka")))
    );
    let tail = Process::start(shell(&tail)).end();
    assert_eq!(tail.code, Some(0), "{tail:?}");
    let records = |topic: &str| tail.stdout.matches(&format!("{topic} partition ")).count();
    let topics = ["group", "room", "message", "call", "user"].map(|family| format!("zim.{family}"));
    let records = topics.map(|topic| records(&topic));
    assert_eq!(records.iter().sum::<usize>(), 9, "{}", tail.stdout);
    let several = records.iter().filter(|count| **count > 0).count();
    assert!(several > 2, "{records:?}");

    demo.signal("INT");
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn the_demo_prints_the_program_as_it_was_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let blank = folder.path().join("with blank");
    std::fs::create_dir(&blank).expect("it is new");
    let link = blank.join("zim2kafka");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_zim2kafka"), &link).expect("a link");
    let arguments = format!("{} --count=1", ON_FREE_PORTS.join(" "));
    let path = link.display();
    for (called, printed) in [
        ("zim2kafka".to_owned(), "zim2kafka".to_owned()),
        (format!("'{path}'"), format!("'{path}'")),
        (
            format!("cd '{}' && ./zim2kafka", blank.display()),
            "./zim2kafka".to_owned(),
        ),
    ] {
        let ended = Process::start(shell(&format!("{called} {arguments}"))).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stdout.contains(&format!("\n  {printed} tail ")),
            "{called}: {}",
            ended.stdout
        );
        assert!(
            ended.stdout.contains(&format!(" {printed} send ")),
            "{called}: {}",
            ended.stdout
        );
    }
}

#[test]
fn tail_prints_what_send_posted() {
    let service = Service::embedded(&[], &[]);
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let url = service.url();
    let sent = run(
        &[
            "send",
            "--url",
            &url,
            "--count=20",
            "--rate=50",
            "--groups=3",
        ],
        &secrets,
    );
    assert_eq!(sent.code, Some(0), "{sent:?}");
    for line in [
        "sent        20 in",
        "2xx         20 (",
        "retried     0",
        "given up    0",
        "answered in p50",
    ] {
        assert!(sent.stdout.contains(line), "{}", sent.stdout);
    }
    assert!(!sent.stdout.contains("cut off"), "{}", sent.stdout);
    let records = service.tail(&["--count=20"]);
    assert_eq!(records.len(), 20);
    for record in &records {
        assert_eq!(record["topic"], "zim.group-joined");
        assert!(record["partition"].is_i64() && record["offset"].is_i64());
        assert_eq!(record["key"], record["value"]["group_id"]);
        assert_eq!(record["headers"]["ce_id"], record["value"]["event_id"]);
        assert_eq!(record["timestamp"], record["value"]["timestamp"]);
        assert_eq!(record.as_object().map(|members| members.len()), Some(7));
    }
    let groups = |record: &Value| record["key"].as_str().map(str::to_owned);
    let groups: BTreeSet<_> = records.iter().filter_map(groups).collect();
    assert_eq!(groups.len(), 3);

    let pretty = [
        "tail",
        "--from-beginning",
        "--count=1",
        "--pretty",
        "--kafka-brokers",
        &service.brokers,
    ];
    let pretty = run(&pretty, &[]).stdout;
    assert!(
        pretty.starts_with("zim.group-joined partition "),
        "{pretty}"
    );
    assert!(pretty.lines().count() > 9, "{pretty}");

    let answer = service.post(callback(json!({"event": "group_exit"})));
    assert!(answer.contains("dead_lettered"), "{answer}");
    let dead = &service.tail(&["--dead-letter", "--count=1"])[0];
    assert_eq!(dead["headers"]["dead_letter_reason"], "stale");
    assert!(
        dead["value"]
            .as_str()
            .is_some_and(|value| value.contains("group_exit")),
        "{dead}"
    );
}

#[test]
fn tail_reads_all_topics_and_shows_one_event_if_asked() {
    let routes = [("ZIM2KAFKA_TOPICS", "all,bot_msg=dead-letter")];
    let service = Service::embedded(&[], &routes);
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let url = service.url();
    let sent = run(
        &["send", "--event=mix", "--count=101", "--url", &url],
        &secrets,
    );
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.stdout.contains("2xx         101 ("), "{sent:?}");

    // One mix, without 8 questions and 4 dead letters.
    let all = ["--topics=all", "--count=89"];
    let records = service.tail(&all);
    let mut events: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in &records {
        let event = record["value"]["event"].as_str().expect("text");
        let topic = record["topic"].as_str().expect("text");
        events.entry(topic).or_default().insert(event);
    }
    let counts: Vec<_> = events
        .iter()
        .map(|(topic, events)| (*topic, events.len()))
        .collect();
    let expected = [
        ("zim.call", 6),
        ("zim.group", 4),
        ("zim.message", 1),
        ("zim.room", 4),
        ("zim.user", 1),
    ];
    assert_eq!(counts, expected, "{events:?}");

    let exits = service.tail(&["--topics=all", "--event=room_exit", "--count=5"]);
    assert!(
        exits
            .iter()
            .all(|record| record["value"]["event"] == "room_exit")
    );
    assert_eq!(exits.len(), 5);
    let calls = service.tail(&["--topic=zim.call", "--count=8"]);
    assert!(calls.iter().all(|record| record["topic"] == "zim.call"));
    assert_eq!(calls.len(), 8);
    // The variable sets where joins go, not which topic is read.
    let variables = [
        ("ZIM2KAFKA_TOPIC", "zim.group"),
        ("ZIM2KAFKA_TOPICS", "all"),
    ];
    let arguments = [
        "tail",
        "--from-beginning",
        "--kafka-brokers",
        &service.brokers,
    ];
    let read = run(&[&arguments[..], &["--count=89"]].concat(), &variables);
    assert_eq!((read.code, read.stdout.lines().count()), (Some(0), 89));

    let form = "event=something_new&appid=1&timestamp=1499676978&nonce=350176&signature=264b7f500b4935a082fef1da1760769245880d7c";
    let answer = service.post(form);
    assert!(answer.contains("dead_lettered"), "{answer}");
    for (event, count) in [("something_new", 1), ("bot_msg", 4)] {
        let (event, limit) = (format!("--event={event}"), format!("--count={count}"));
        let dead = service.tail(&["--dead-letter", &event, &limit]);
        let name = event.trim_start_matches("--event=");
        let is_wanted = |record: &Value| {
            let body = record["value"].as_str().expect("text");
            body.contains(&format!("\"{name}\"")) || body.contains(&format!("event={name}&"))
        };
        assert!(dead.iter().all(is_wanted), "{dead:?}");
        assert_eq!(dead.len(), count);
    }
}

#[test]
fn tail_without_from_beginning_prints_what_comes_and_ends_with_a_signal() {
    let service = Service::embedded(&[], &[]);
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let (url, brokers) = (service.url(), &service.brokers);
    assert_eq!(
        run(&["send", "--url", &url, "--groups=1"], &secrets).code,
        Some(0)
    );
    let mut tail = Process::start(zim2kafka(&["tail", "--kafka-brokers", brokers], &[]));
    // It does not say when it has begun, so others are sent until one of them is printed.
    while tail.stdout().lines().count() == 0 {
        assert_eq!(
            run(&["send", "--url", &url, "--groups=1"], &secrets).code,
            Some(0)
        );
    }
    let first = tail.prints("\n");
    let first: Value =
        serde_json::from_str(first.lines().next().unwrap_or_default()).expect("JSON");
    assert_ne!(first["offset"], 0, "the one from before is not printed");
    tail.signal("INT");
    assert_eq!(tail.end().code, Some(0));
}

#[test]
fn the_curl_line_of_send_is_accepted() {
    let service = Service::embedded(&[], &[("ZIM2KAFKA_TOPICS", "all")]);
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let url = service.url();
    for (more, event) in [
        (&[][..], "group_join"),
        (&["--event=call_invite"], "call_invite"),
        (&["--event", "send_msg"], "send_msg"),
    ] {
        let printed = run(
            &[&["send", "--print", "--url", &url], more].concat(),
            &secrets,
        );
        assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
        let (body, line) = printed
            .stdout
            .trim()
            .split_once("\n\n")
            .expect("a body and a line");
        let body: Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(body["event"], event);
        assert_eq!(curl(line), Some("published".to_owned()), "{event}");
        assert_eq!(curl(line), Some("duplicate".to_owned()), "{event}");
    }
}

/// Runs a printed curl line in a shell, and returns the `status` that it is answered with. Without
/// curl, the shell shows what it would be given, and that is posted.
fn curl(line: &str) -> Option<String> {
    let answer = if Command::new("curl").arg("-V").finish().is_ok() {
        Process::start(shell(line)).end().stdout
    } else {
        let shown = shell(&format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{line}"));
        let shown = Process::start(shown).end().stdout;
        let words: Vec<&str> = shown.split_terminator('\0').collect();
        let [
            "-sS",
            "-H",
            "content-type: application/json",
            "-d",
            body,
            url,
        ] = words[..]
        else {
            panic!("{words:?}");
        };
        let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
        let answer = request(
            address.parse().ok()?,
            "POST",
            &format!("/{path}"),
            body.as_bytes(),
        );
        answer.split_once("\r\n\r\n")?.1.to_owned()
    };
    let answer: Value = serde_json::from_str(&answer).ok()?;
    Some(answer["status"].as_str()?.to_owned())
}

#[test]
fn send_without_a_service_retries_and_its_summary_reports_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let url = format!("http://{}/", nobody.local_addr().expect("it is bound"));
    let secrets = [("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret")];
    let send = Process::start(zim2kafka(&["send", "--url", &url], &secrets));
    // Two attempts that are hung up on: the second comes after the first has failed.
    for _ in 0..2 {
        let (mut attempt, _) = nobody.accept().expect("an attempt comes");
        let read = attempt.read(&mut [0; 16]).expect("it is a request");
        assert!(read > 0);
    }
    send.signal("INT");
    let ended = send.end();
    assert!(ended.stdout.contains("sent        1 in"), "{ended:?}");
    assert!(ended.stdout.contains("2xx         0 ("), "{ended:?}");
    assert!(ended.stdout.contains("unfinished  1"), "{ended:?}");
    assert!(
        ended.stdout.contains(" × "),
        "the reason is shown: {ended:?}"
    );
}
