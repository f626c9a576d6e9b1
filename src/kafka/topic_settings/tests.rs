use super::*;
use crate::finding::Level::{self, Error, Ok, Warning};

const TOLERANCE: Duration = Duration::from_secs(600);

const SOUND: Partition = Partition {
    id: 0,
    has_leader: true,
    replicas: 3,
    in_sync: 3,
};

fn topic(tolerance: Option<Duration>) -> Topic<'static> {
    Topic {
        name: "t",
        partitions: &[SOUND; 4],
        content: Content::Events {
            tolerance,
            has_own_times: false,
        },
        spool_bytes: Some(1 << 30),
    }
}

fn settings(changed: &[(&str, &str)]) -> Settings {
    // The defaults of Kafka 4, with the one that is advised.
    let defaults = [
        ("cleanup.policy", "delete"),
        ("compression.type", "producer"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.type", "CreateTime"),
        ("min.insync.replicas", "2"),
        ("retention.bytes", "-1"),
        ("retention.ms", "604800000"),
        ("segment.bytes", "1073741824"),
        ("unclean.leader.election.enable", "false"),
    ];
    let both = defaults.iter().chain(changed);
    both.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// The one finding that is not `Ok`, if there is one.
fn finding(topic: Topic<'_>, changed: &[(&str, &str)]) -> (Level, String) {
    let mut findings = topic.judge(&settings(changed));
    findings.retain(|finding| finding.level != Ok);
    assert!(findings.len() <= 1, "{findings:?}");
    let found = findings.pop();
    found.map_or((Ok, String::new()), |found| (found.level, found.text))
}

#[test]
fn a_setting_that_deletes_changes_or_rejects_records_is_found() {
    for (key, value, level, text) in [
        ("cleanup.policy", "delete", Ok, ""),
        (
            "cleanup.policy",
            "compact",
            Error,
            "is compact: Kafka keeps only the last record of each key; set cleanup.policy=delete",
        ),
        (
            "cleanup.policy",
            "compact,delete",
            Error,
            "is compact,delete: ",
        ),
        (
            "cleanup.policy",
            "delete, compact",
            Error,
            "set cleanup.policy=delete",
        ),
        ("retention.ms", "-1", Ok, ""),
        ("retention.ms", "86400000", Ok, ""),
        (
            "retention.ms",
            "86399999",
            Warning,
            "is 86399999 (86399999 ms): ",
        ),
        ("retention.ms", "3600000", Warning, "is 3600000 (1 h): "),
        (
            "retention.ms",
            "3599999",
            Error,
            "set retention.ms=604800000 (7 d) or more",
        ),
        (
            "retention.ms",
            "1000",
            Error,
            "is 1000 (1 s): Kafka deletes older records, read or not, also those that waited longer in the spool; set",
        ),
        ("retention.bytes", "268435456", Ok, ""),
        ("retention.bytes", "268435455", Warning, "268435456 or more"),
        (
            "retention.bytes",
            "33554431",
            Error,
            "is 33554431 for each partition",
        ),
        (
            "message.timestamp.type",
            "LogAppendTime",
            Warning,
            "set message.timestamp.type=CreateTime",
        ),
        ("message.timestamp.before.max.ms", "605400000", Ok, ""),
        (
            "message.timestamp.before.max.ms",
            "605399999",
            Warning,
            "wait longer in the spool, and they become dead letters; set message.timestamp.before.max.ms=605400000 or more",
        ),
        (
            "message.timestamp.before.max.ms",
            "600000",
            Warning,
            "is 600000 (10 min): ",
        ),
        (
            "message.timestamp.before.max.ms",
            "599999",
            Error,
            "below ZIM2KAFKA_TIMESTAMP_TOLERANCE (10 min): Kafka rejects events that the service accepts, and they become dead letters; set message.timestamp.before.max.ms=605400000 or more",
        ),
        (
            "message.timestamp.before.max.ms",
            "60000",
            Error,
            "is 60000 (1 min), below",
        ),
        ("message.timestamp.after.max.ms", "600000", Ok, ""),
        (
            "message.timestamp.after.max.ms",
            "599999",
            Error,
            "set message.timestamp.after.max.ms=600000 or more",
        ),
        (
            "message.timestamp.difference.max.ms",
            "60000",
            Error,
            "message.timestamp.difference.max.ms is 60000 (1 min), below",
        ),
        ("max.message.bytes", "1000000", Ok, ""),
        (
            "max.message.bytes",
            "999999",
            Error,
            "set max.message.bytes=1000000 or more",
        ),
        (
            "segment.bytes",
            "999999",
            Error,
            "set segment.bytes=1073741824 or more",
        ),
        (
            "min.insync.replicas",
            "1",
            Warning,
            "set min.insync.replicas=2",
        ),
        (
            "min.insync.replicas",
            "3",
            Warning,
            "the same as the replication factor",
        ),
        (
            "min.insync.replicas",
            "4",
            Error,
            "more than the replication factor 3",
        ),
        (
            "unclean.leader.election.enable",
            "true",
            Warning,
            "set it to false",
        ),
        ("message.format.version", "3.0-IV1", Ok, ""),
        ("message.format.version", "0.11.0", Ok, ""),
        (
            "message.format.version",
            "0.10.2-IV0",
            Error,
            "set message.format.version=0.11.0",
        ),
        (
            "confluent.value.schema.validation",
            "true",
            Error,
            "confluent.value.schema.validation=false",
        ),
        ("redpanda.key.schema.id.validation", "false", Ok, ""),
    ] {
        let (found, said) = finding(topic(Some(TOLERANCE)), &[(key, value)]);
        assert_eq!(found, level, "{key}={value}: {said}");
        assert!(said.contains(text), "{key}={value}: {said}");
        assert!(said.is_empty() || said.starts_with(key), "{said}");
    }
}

#[test]
fn the_tolerance_and_the_spool_decide_which_limits_are_enough() {
    const BEFORE: &str = "message.timestamp.before.max.ms";
    const AFTER: &str = "message.timestamp.after.max.ms";
    const DIFFERENCE: &str = "message.timestamp.difference.max.ms";
    let day = topic(Some(DAY));
    let of_messages = |tolerance| Topic {
        content: Content::Events {
            tolerance,
            has_own_times: true,
        },
        ..topic(None)
    };
    let any = topic(None);
    let without_spool = Topic {
        spool_bytes: None,
        ..topic(Some(TOLERANCE))
    };
    let dead_letters = Topic {
        content: Content::DeadLetters,
        ..topic(None)
    };
    let letters_without_spool = Topic {
        spool_bytes: None,
        ..dead_letters
    };
    let unlimited = i64::MAX.to_string();
    let for_ever = ("retention.ms", "-1");
    let month = "2592000000";
    for (topic, changed, level, text) in [
        (
            day,
            &[(AFTER, "86400000"), ("retention.ms", "86399999")][..],
            Error,
            "retention.ms",
        ),
        (
            day,
            &[],
            Error,
            "message.timestamp.after.max.ms is 3600000 (1 h), below",
        ),
        // A message's own time may be a tolerance from its callback's.
        (
            of_messages(Some(TOLERANCE)),
            &[(AFTER, "1199999")],
            Error,
            "message.timestamp.after.max.ms is 1199999 (1199999 ms), below twice ZIM2KAFKA_TIMESTAMP_TOLERANCE, by which a message's time may differ from now (20 min)",
        ),
        (
            of_messages(Some(TOLERANCE)),
            &[(AFTER, "1200000"), (BEFORE, "606000000")],
            Ok,
            "",
        ),
        (
            of_messages(Some(TOLERANCE)),
            &[(BEFORE, "605999999")],
            Warning,
            "set message.timestamp.before.max.ms=606000000 or more",
        ),
        (
            of_messages(Some(DAY)),
            &[(AFTER, "172800000"), ("retention.ms", "172799999")],
            Error,
            "retention.ms",
        ),
        (
            of_messages(None),
            &[for_ever],
            Warning,
            "but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off",
        ),
        // Kafka's own default limits timestamps that lie ahead.
        (
            any,
            &[for_ever],
            Warning,
            "but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off",
        ),
        (any, &[for_ever, (AFTER, &unlimited)], Ok, ""),
        // An event may be of any age when it is published.
        (
            any,
            &[(AFTER, &unlimited), ("retention.ms", month)],
            Warning,
            "retention.ms is 2592000000 (30 d), but ZIM2KAFKA_TIMESTAMP_TOLERANCE is off: Kafka deletes events that are older when they arrive, read or not; set retention.ms=-1",
        ),
        (
            any,
            &[(AFTER, &unlimited), ("retention.ms", "3599999")],
            Error,
            "set retention.ms=-1",
        ),
        (
            any,
            &[for_ever, (AFTER, &unlimited), (BEFORE, month)],
            Error,
            "set message.timestamp.before.max.ms=9223372036854775807",
        ),
        (
            any,
            &[(AFTER, "0"), ("message.timestamp.type", "LogAppendTime")],
            Warning,
            "LogAppendTime",
        ),
        (without_spool, &[(BEFORE, "600000")], Ok, ""),
        (without_spool, &[("retention.bytes", "33554432")], Ok, ""),
        (
            without_spool,
            &[("retention.ms", "1000")],
            Error,
            "is 1000 (1 s): Kafka deletes older records, read or not; set",
        ),
        (
            without_spool,
            &[("message.timestamp.type", "LogAppendTime")],
            Warning,
            "the time at which they arrive; set",
        ),
        // The older setting counts for a side without a limit of its own.
        (
            without_spool,
            &[(DIFFERENCE, "1"), (BEFORE, month), (AFTER, month)],
            Ok,
            "",
        ),
        (
            without_spool,
            &[(DIFFERENCE, "1"), (BEFORE, month), (AFTER, &unlimited)],
            Error,
            DIFFERENCE,
        ),
        (dead_letters, &[], Ok, ""),
        (
            dead_letters,
            &[(BEFORE, "1000")],
            Error,
            "below a usual difference of clocks (1 min)",
        ),
        (
            dead_letters,
            &[(BEFORE, "3600000")],
            Warning,
            "wait longer in the spool, and they stay in the spool; set",
        ),
        (
            letters_without_spool,
            &[(BEFORE, "1000")],
            Error,
            "and their callbacks are answered 503; set",
        ),
        (
            dead_letters,
            &[("cleanup.policy", "compact")],
            Error,
            "rejects those without one",
        ),
    ] {
        let (found, said) = finding(topic, changed);
        assert_eq!(found, level, "{changed:?}: {said}");
        assert!(said.contains(text), "{changed:?}: {said}");
        let has_spool = topic.spool_bytes.is_some();
        assert!(has_spool || !said.contains("spool"), "{said}");
    }
    let small = Topic {
        partitions: &[Partition {
            replicas: 1,
            in_sync: 1,
            ..SOUND
        }],
        ..topic(Some(TOLERANCE))
    };
    let (found, said) = finding(small, &[]);
    assert_eq!(found, Error, "{said}");
    let unbounded = topic(Some(Duration::MAX)).judge(&settings(&[]));
    let errors = unbounded.iter().filter(|finding| finding.level == Error);
    assert_eq!(errors.count(), 2, "{unbounded:?}");
    let few = small.judge(&Settings::new());
    assert_eq!(
        few.len(),
        1,
        "a setting that Kafka does not return is not judged: {few:?}"
    );
    assert!(few[0].text.starts_with("min.insync.replicas is unknown"));
}

#[test]
fn partitions_that_take_no_records_are_named() {
    let partition = |id, has_leader, in_sync| Partition {
        id,
        has_leader,
        in_sync,
        ..SOUND
    };
    let found = |partitions: &[Partition]| {
        let topic = Topic {
            partitions,
            ..topic(Some(TOLERANCE))
        };
        let leaders = topic.judge_leaders();
        assert!(leaders.iter().all(|found| found.level == Error));
        let (level, in_sync) = finding(topic, &[]);
        let is_found = !in_sync.is_empty();
        assert_eq!(level, if is_found { Error } else { Ok });
        (leaders.map(|found| found.text).unwrap_or_default(), in_sync)
    };
    let none = String::new();
    let sound = [partition(0, true, 3), partition(1, true, 2)];
    assert_eq!(found(&sound), (none.clone(), none.clone()));
    let (leaders, in_sync) = found(&[
        partition(3, false, 1),
        partition(2, true, 1),
        partition(0, true, 1),
        partition(1, false, 0),
    ]);
    assert!(
        leaders.contains("takes no records: 1, 3; start"),
        "{leaders}"
    );
    let expected = "min.insync.replicas is 2, but these partitions have fewer replicas in sync, and Kafka rejects their records: 0, 2; start";
    assert!(in_sync.starts_with(expected), "{in_sync}");
    let many = Vec::from_iter((0..12).map(|id| partition(id, false, 0)));
    let (leaders, _) = found(&many);
    assert!(
        leaders.contains(": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more; "),
        "{leaders}"
    );
    assert!(!found(&many[..10]).0.contains("more"));
}
