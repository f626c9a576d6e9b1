//! The commands of operators: how they end, what they print where, how they stop.

use serde_json::Value;

use crate::support::process::{Service, run, taken};

#[test]
fn an_unknown_command_or_flag_is_a_usage_error() {
    for arguments in [
        &["publish"][..],
        &["serve", "--spool"],
        &["send", "--count", "x"],
        &[],
    ] {
        let ended = run(arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "");
        assert!(!ended.stderr.is_empty());
    }
    for (arguments, about) in [
        (&["send", "--url", "ftp://h/"][..], "--url"),
        (&["send", "--url", "/zim"], "--url"),
        (&["send", "--rate", "0"], "--rate"),
        (&["send", "--rate", "1e-300", "--count", "2"], "--rate"),
        (&["send", "--rate", "1e-19", "--count", "2"], "--rate"),
        (&["send", "--rate", "nan"], "--rate"),
        (&["send", "--appid", "2"], "--appid"),
        (
            &["send", "--event", "group_jion"],
            "did you mean group_join?",
        ),
        (
            &["send", "--event", "zim_send_msg"],
            "did you mean send_msg?",
        ),
        (
            &["tail", "--event", "call_cancle"],
            "did you mean call_cancel?",
        ),
        (&["tail", "--event", "mix"], "--event"),
        (&["tail", "--reason", "stale"], "add --dead-letter"),
        (
            &["tail", "--dead-letter", "--reason", "late"],
            "write one of unsupported_event, invalid_event, stale, rejected_by_kafka",
        ),
        (&["tail", "--since", "10"], "an age such as 10m"),
        (&["tail", "--since", "-10m"], "an age such as 10m"),
        (&["tail", "--since", "1m", "--until", "2m"], "--until"),
        (
            &["tail", "--since", "1m", "--from-beginning"],
            "--from-beginning",
        ),
        (&["tail", "--key="], "--key"),
        (&["send", "--scenario", "resent"], "did you mean resend?"),
        (&["send", "--json", "--print"], "--json"),
        (&["send", "--seed", "x"], "--seed"),
    ] {
        let ended = run(arguments, &[("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim")]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(about), "{ended:?}");
    }
}

#[test]
fn a_port_in_use_is_reported_in_one_line_with_its_address_and_variable() {
    let (_port, address) = taken();
    for (command, flag, variable) in [
        ("serve", "--listen", "ZIM2KAFKA_LISTEN"),
        ("serve", "--admin-listen", "ZIM2KAFKA_ADMIN_LISTEN"),
        ("demo", "--listen", "ZIM2KAFKA_LISTEN"),
    ] {
        let free = if flag == "--listen" {
            "--admin-listen"
        } else {
            "--listen"
        };
        let ended = run(
            &[command, flag, &address, free, "127.0.0.1:0"],
            &[
                ("ZIM2KAFKA_CALLBACK_SECRETS", "1=geheim"),
                ("ZIM2KAFKA_KAFKA_BROKERS", "127.0.0.1:1"),
            ],
        );
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(ended.stdout, "");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(
            ended.stderr.contains(&address) && ended.stderr.contains(variable),
            "{ended:?}"
        );
    }
}

#[test]
fn the_version_names_the_revision_and_librdkafka() {
    let ended = run(&["--version"], &[]);
    assert_eq!(ended.code, Some(0));
    let version = ended.stdout.trim();
    let rest = version.strip_prefix(concat!(
        "zim2kafka ",
        env!("CARGO_PKG_VERSION"),
        " (revision "
    ));
    let (revision, librdkafka) = rest
        .and_then(|rest| rest.strip_suffix(')')?.split_once(", librdkafka "))
        .unwrap_or_else(|| panic!("{version}"));
    assert!(!revision.is_empty(), "{version}");
    assert!(
        librdkafka.starts_with(|first: char| first.is_ascii_digit()),
        "{version}"
    );
}

#[test]
fn a_log_for_machines_is_one_json_object_a_line() {
    let service = Service::embedded(
        &["--drain-delay=0s"],
        &[
            ("ZIM2KAFKA_LOG_FORMAT", "json"),
            ("ZIM2KAFKA_LOG", "trace"),
            ("ZIM2KAFKA_TYPO", "x"),
        ],
    );
    service.ready();
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "", "logs go to stderr");
    assert!(ended.stderr.lines().count() > 4, "{}", ended.stderr);
    for line in ended.stderr.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
}

#[test]
fn healthcheck_ends_as_the_service_answers() {
    let service = Service::embedded(&["--drain-delay=5s"], &[]);
    let admin = service.admin.to_string();
    let check = |more: &[&str]| {
        run(
            &[&["healthcheck", "--admin-listen", &admin], more].concat(),
            &[],
        )
    };
    service.ready();
    assert_eq!(check(&[]).code, Some(0));
    assert_eq!(check(&["--live"]).code, Some(0));
    service.process.signal("TERM");
    let mut process = service.process;
    process.logs("stopping");
    // The flag is set right after that line.
    while check(&[]).code == Some(0) {}
    let ended = check(&[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("503"), "{ended:?}");
    assert_eq!(check(&["--live"]).code, Some(0));
    drop(process);
    for more in [&[][..], &["--live"]] {
        let ended = check(more);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&admin), "{ended:?}");
    }
}

#[test]
fn a_signal_stops_the_service_in_order() {
    for signal in ["TERM", "INT"] {
        let service = Service::embedded(&["--drain-delay=100ms"], &[]);
        service.ready();
        service.process.signal(signal);
        let ended = service.process.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let log: Vec<_> = ended.stderr.lines().collect();
        assert!(log[log.len() - 2].contains("stopping"), "{ended:?}");
        assert!(log[log.len() - 1].contains("stopped"), "{ended:?}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut service = Service::embedded(&["--drain-delay=30m", "--stop-deadline=1h"], &[]);
    service.process.signal("TERM");
    service.process.logs("stopping");
    service.process.signal("TERM");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("second signal"), "{ended:?}");
}
