use super::*;

const UP: Connection = Connection::Up;

/// A service that is observed once a second.
struct Service {
    outage: Outage,
    start: Instant,
    second: u64,
}

/// All is well, with a spool.
fn well() -> Observed {
    Observed {
        connection: UP,
        has_failed: false,
        errors: String::new(),
        noun: "events",
        obstacle: String::new(),
        advertised: String::new(),
        topics: "t".to_owned(),
        records: 0,
        bytes: 0,
        oldest_in_memory: Duration::ZERO,
        oldest_on_disk: Some(Duration::ZERO),
        spool: Some(SpoolUse {
            records: 0,
            used: 20_000,
            limit: 1_000_000_000,
            works: true,
            is_full: false,
            is_always_used: false,
            published: 0,
        }),
    }
}

fn without_spool() -> Observed {
    Observed {
        spool: None,
        ..well()
    }
}

impl Service {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            outage: Outage::new(false, start),
            start,
            second: 0,
        }
    }

    /// Observes that many seconds. Returns the lines, each with its second.
    fn observe(&mut self, seconds: u64, seen: impl Fn(u64) -> Observed) -> Vec<String> {
        let mut logged = Vec::new();
        for second in 0..seconds {
            let now = self.start + Duration::from_secs(self.second);
            for Line { level, text } in self.outage.observe(now, &seen(second)) {
                logged.push(format!("{} {level} {text}", self.second));
            }
            self.second += 1;
        }
        logged
    }
}

fn lost(second: u64) -> Connection {
    Connection::Lost(Duration::from_secs(second))
}

/// Kafka is away for this many seconds, and takes `rate` records of 1 kB a second to the spool.
fn away(second: u64, rate: u64) -> Observed {
    let mut seen = well();
    seen.connection = lost(second);
    seen.errors = "connect: a:1: refused".to_owned();
    seen.oldest_in_memory = Duration::from_secs(second);
    seen.records = (second * rate) as usize;
    if let Some(spool) = &mut seen.spool {
        spool.records = seen.records;
        spool.used += second * rate * 1000;
    }
    seen
}

#[test]
fn the_log_is_quiet_when_all_is_well() {
    let mut service = Service::new();
    let lines = service.observe(300, |second| {
        let mut seen = well();
        // Some records go to the spool for a second, and are published.
        if second % 10 == 3 {
            seen.records = 5;
            seen.oldest_in_memory = Duration::from_millis(900);
            if let Some(spool) = &mut seen.spool {
                spool.records = 5;
                spool.published = second * 5;
            }
        }
        // A broker that restarts.
        if second % 60 == 30 {
            seen.connection = lost(1);
        }
        seen
    });
    assert_eq!(lines, ["0 INFO connected to Kafka"]);
}

#[test]
fn an_outage_is_logged_when_it_begins_once_a_minute_and_when_it_ends() {
    let mut service = Service::new();
    service.observe(10, |_| well());
    let lines = service.observe(121, |second| away(second, 10));
    assert_eq!(
        lines,
        [
            "15 WARN events go to the spool: Kafka unreachable since 5 s (connect: a:1: refused); 50 records wait (70.0 kB on disk), the oldest for 5 s; the spool has room for 83 h at this rate",
            "75 WARN events still go to the spool: Kafka unreachable since 65 s (connect: a:1: refused); 650 records wait (670.0 kB on disk), the oldest for 65 s; the spool has room for 28 h at this rate",
        ]
    );
    let lines = service.observe(10, |second| {
        let mut seen = well();
        seen.oldest_in_memory = Duration::from_secs(120);
        seen.records = 1200 - 300 * second.min(4) as usize;
        if let Some(spool) = &mut seen.spool {
            spool.records = seen.records;
            spool.published = 300 * second.min(4);
        }
        seen
    });
    assert_eq!(
        lines,
        [
            "131 INFO connected to Kafka after 2 min",
            "135 INFO the spool is drained: 1200 records published in 3 s; events went to the spool for 2 min",
        ]
    );
}

#[test]
fn a_kafka_that_was_never_reached_is_logged_by_our_own_clock() {
    let never = |has_failed, errors: &'static str| {
        move |second| Observed {
            connection: Connection::NeverUp(Duration::from_secs(second)),
            has_failed,
            errors: errors.to_owned(),
            ..well()
        }
    };
    for (has_failed, errors, expected) in [
        (
            false,
            "",
            "10 WARN Kafka unreachable: no broker reached since the start 10 s ago (no answer, and no reason from the client library); events go to the spool. ",
        ),
        (
            false,
            "a:1: no answer in state TRY_CONNECT",
            "10 WARN Kafka unreachable: no broker reached since the start 10 s ago (a:1: no answer in state TRY_CONNECT); events go to the spool. ",
        ),
        (
            true,
            "connect: a:1: refused",
            "2 WARN Kafka unreachable: no broker reached since the start 2 s ago (connect: a:1: refused); events go to the spool. ",
        ),
    ] {
        let lines = Service::new().observe(600, never(has_failed, errors));
        assert!(lines[0].starts_with(expected), "{lines:?}");
        assert_eq!(lines.len(), 10, "once a minute: {lines:?}");
        // Also while records wait already.
        let lines = Service::new().observe(11, |second| Observed {
            records: 1,
            ..never(has_failed, errors)(second)
        });
        assert!(lines[0].starts_with(expected), "{lines:?}");
    }
}

#[test]
fn a_connection_that_comes_and_goes_is_logged_once_a_minute() {
    let mut service = Service::new();
    let lines = service.observe(600, |second| match second % 10 {
        0..5 => well(),
        since => away(since - 5, 0),
    });
    let warnings = lines.iter().filter(|line| line.contains("WARN")).count();
    assert_eq!((warnings, lines.len()), (10, 21), "{lines:#?}");
}

#[test]
fn without_a_spool_no_line_mentions_one() {
    let mut service = Service::new();
    let waiting = |connection, second: u64, obstacle: &str| Observed {
        connection,
        obstacle: obstacle.to_owned(),
        records: 3,
        bytes: 3_400,
        oldest_in_memory: Duration::from_secs(second),
        ..without_spool()
    };
    let mut lines = service.observe(3, |_| without_spool());
    lines.extend(service.observe(4, |second| Observed {
        connection: lost(second),
        ..without_spool()
    }));
    lines.extend(service.observe(2, |_| without_spool()));
    lines.extend(service.observe(60, |second| waiting(lost(second), second, "")));
    lines.extend(service.observe(2, |_| without_spool()));
    lines.extend(service.observe(70, |second| {
        waiting(UP, second, "the topic t does not exist")
    }));
    lines.extend(service.observe(2, |_| without_spool()));
    lines.extend(service.observe(20, |second| waiting(UP, second, "")));
    lines.extend(service.observe(2, |_| without_spool()));
    for line in &lines {
        assert!(!line.to_lowercase().contains("spool"), "{line}");
    }
    let has = |text: &str| {
        assert!(
            lines.iter().any(|line| line.contains(text)),
            "{text}: {lines:#?}"
        )
    };
    has(
        "Kafka unreachable since 2 s (no answer, and no reason from the client library); events are answered 503, and the sender drops each after 62 s",
    );
    has(
        "WARN events wait for Kafka: Kafka unreachable since 5 s (no answer, and no reason from the client library); 3 records (3.4 kB) in memory, the oldest for 5 s; events are answered 503",
    );
    has("INFO Kafka takes events again after 60 s");
    has("WARN events wait for Kafka: the topic t does not exist; 3 records");
    has("WARN events wait for Kafka: Kafka acknowledges no record of t; ");
}

#[test]
fn the_reason_why_records_wait_is_given_while_a_broker_is_connected() {
    let waits = |obstacle: &'static str, published: bool, oldest: u64| {
        move |second: u64| {
            let mut seen = well();
            seen.obstacle = obstacle.to_owned();
            seen.records = 7;
            seen.oldest_in_memory = Duration::from_secs(oldest);
            if let Some(spool) = &mut seen.spool {
                spool.records = 7;
                spool.published = if published { second } else { 0 };
            }
            seen
        }
    };
    for (obstacle, published, oldest, expected) in [
        (
            "the topic t has no leader for partitions 0, 3",
            true,
            9,
            "events go to the spool: the topic t has no leader for partitions 0, 3; 7 records wait",
        ),
        (
            "the topic t is not writable",
            false,
            9,
            "events go to the spool: the topic t is not writable; 7 records wait",
        ),
        (
            "",
            true,
            1,
            "events go to the spool: Kafka answers slower than ZIM2KAFKA_SPOOL_AFTER; 7 records wait",
        ),
        (
            "",
            false,
            9,
            "events go to the spool: Kafka acknowledges no record of t; ",
        ),
    ] {
        let mut service = Service::new();
        let lines = service.observe(30, waits(obstacle, published, oldest));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains(expected), "{lines:?}");
        let (cause, _) = expected.split_once("; ").expect("two parts");
        let cause = cause.replace("events go to the spool: ", "");
        assert!(
            service
                .outage
                .cause()
                .is_some_and(|known| known.starts_with(&cause))
        );
        service.observe(2, |_| well());
        assert_eq!(service.outage.cause(), None);
    }
    // All records go to the spool because that is wanted.
    let mut service = Service::new();
    let lines = service.observe(90, |second| {
        let mut seen = waits("", true, 1)(second);
        seen.spool = seen.spool.map(|spool| SpoolUse {
            is_always_used: true,
            ..spool
        });
        seen
    });
    assert_eq!(lines, ["0 INFO connected to Kafka"]);
}

#[test]
fn a_spool_that_takes_no_records_is_reported_with_what_to_do() {
    for (is_full, reason) in [
        (
            false,
            "the spool takes no records (check the disk of ZIM2KAFKA_SPOOL_DIR)",
        ),
        (true, "the spool is full (raise ZIM2KAFKA_SPOOL_MAX_BYTES)"),
    ] {
        let lines = Service::new().observe(10, |second| {
            let mut seen = away(second, 1);
            seen.spool = seen.spool.map(|spool| SpoolUse {
                works: false,
                is_full,
                ..spool
            });
            seen
        });
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        let begin = "5 WARN events wait for Kafka, and the spool takes none: Kafka unreachable";
        assert!(line.starts_with(begin), "{line}");
        let ending = ", so events are answered 503, and the sender drops each after 62 s";
        assert!(line.ends_with(&format!("; {reason}{ending}")), "{line}");
    }
}

#[test]
fn a_broker_that_is_down_is_not_the_reason_while_records_are_published() {
    let mut service = Service::new();
    let seen = |published: bool| {
        move |second: u64| {
            let mut seen = well();
            seen.advertised = "connect: c:1: refused".to_owned();
            seen.records = 7;
            seen.oldest_in_memory = Duration::from_secs(90);
            if let Some(spool) = &mut seen.spool {
                spool.records = 7;
                spool.published = if published { second } else { 0 };
            }
            seen
        }
    };
    let lines = service.observe(70, seen(true));
    assert!(
        lines[2].contains(" INFO the spool is being published: "),
        "{lines:?}"
    );
    let lines = Service::new().observe(10, seen(false));
    assert!(
        lines[1].contains("events go to the spool: brokers cannot be reached at the addresses that Kafka advertises (connect: c:1: refused); check that they run, and their advertised.listeners; 7 records wait"),
        "{lines:?}"
    );
}

#[test]
fn dead_letters_that_wait_are_not_called_events() {
    let mut outage = Outage::default();
    let now = Instant::now();
    let seen = |second| Observed {
        noun: "dead letters",
        obstacle: "the topic d does not exist".to_owned(),
        records: 1,
        bytes: 700,
        oldest_in_memory: Duration::from_secs(second),
        ..without_spool()
    };
    assert_eq!(outage.observe_records(now, &seen(4)), None);
    let line = outage.observe_records(now, &seen(5)).expect("it is due");
    assert_eq!(
        line.text,
        "dead letters wait for Kafka: the topic d does not exist; 1 record (700 bytes) in memory, the oldest for 5 s; dead letters are answered 503, and the sender drops each after 62 s"
    );
}

#[test]
fn the_age_of_records_on_disk_is_that_of_their_wait_if_the_spool_does_not_know_it() {
    let mut outage = Outage::default();
    let start = Instant::now();
    let seen = |records: usize| {
        let mut seen = well();
        seen.obstacle = "the topic t is not writable".to_owned();
        seen.records = records;
        seen.oldest_on_disk = None;
        if let Some(spool) = &mut seen.spool {
            spool.records = records;
        }
        seen
    };
    let mut lines = Vec::new();
    for second in 0..10 {
        let now = start + Duration::from_secs(second);
        let line = outage.observe_records(now, &seen(usize::from(second > 0)));
        lines.extend(line.map(|line| (second, line.text)));
    }
    let [(6, text)] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(
        text.contains("1 record waits (20.0 kB on disk), the oldest for 5 s"),
        "{text}"
    );
}

#[test]
fn the_backlog_of_an_earlier_run_is_logged_while_it_is_published_and_at_its_end() {
    let start = Instant::now();
    let mut service = Service {
        outage: Outage::new(true, start),
        start,
        second: 0,
    };
    let lines = service.observe(130, |second| {
        let mut seen = well();
        seen.records = 12_000 - 100 * second.min(120) as usize;
        seen.oldest_in_memory = Duration::from_secs(3 * 3600);
        if let Some(spool) = &mut seen.spool {
            spool.records = seen.records;
            spool.published = 100 * second.min(120);
        }
        seen
    });
    assert_eq!(
        lines,
        [
            "0 INFO connected to Kafka",
            "60 INFO the spool is being published: 6000 records left, the oldest from 3 h ago; done in 60 s at this rate",
            "120 INFO the spool is drained: 12000 records published in 2 min",
        ]
    );
}
