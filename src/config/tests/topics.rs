//! `ZIM2KAFKA_TOPICS`: where it sends each event, and what it refuses.

use crate::event::{EVENTS, Routes, Target};

use super::{Faults, read_well, variable_of};

const WRITE: &str = "write 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', as in zim.events";

fn routes(flags: &[&str]) -> Result<Routes, Vec<String>> {
    let settings = read_well(flags).serve.kafka.settings_with("b:9092", None);
    settings.map(|kafka| kafka.routes).map_err(|errors| {
        let errors = errors.iter().map(ToString::to_string);
        errors.collect()
    })
}

#[track_caller]
fn routes_of(list: &str) -> Routes {
    routes(&["--topics", list]).expect("valid")
}

#[track_caller]
fn faults(list: &str) -> Vec<String> {
    let faults = routes(&["--topics", list]).expect_err("refused");
    let of_topics = |fault: &String| {
        let problem = fault.strip_prefix("ZIM2KAFKA_TOPICS: ");
        problem.unwrap_or_else(|| panic!("{fault}")).to_owned()
    };
    faults.iter().map(of_topics).collect()
}

/// Where an event goes, in the words of the setting.
fn place(routes: &Routes, event: &str) -> String {
    match (routes.target_of(event), routes.topic_of(event)) {
        (Target::Topic(_), Some(topic)) => topic.to_owned(),
        (Target::Discard, None) => "discard".to_owned(),
        (Target::DeadLetters, None) => "dead-letter".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_nothing_set_only_joins_have_a_topic() {
    for (flags, topic) in [
        (&[][..], "zim.group-joined"),
        (&["--topic=joined"], "joined"),
        // The words are words of ZIM2KAFKA_TOPICS only.
        (&["--topic=discard"], "discard"),
        (&["--topic=dead-letter"], "dead-letter"),
    ] {
        let routes = routes(flags).expect("valid");
        assert!(routes.topics().eq([topic, "zim.dead-letter"]));
        for event in EVENTS {
            let expected = match event.name {
                "group_join" => Target::Topic(0),
                _ => Target::DeadLetters,
            };
            assert_eq!(routes.target_of(event.name), expected, "{}", event.name);
        }
    }
}

#[test]
fn all_is_a_topic_for_each_family_in_the_order_of_the_families() {
    let all = routes_of("all");
    let topics = [
        "zim.group",
        "zim.room",
        "zim.message",
        "zim.call",
        "zim.user",
    ];
    assert_eq!(all.event_topics(), topics);
    let written = routes_of(
        "user=zim.user,call=zim.call,message=zim.message,room=zim.room,group=zim.group,group_join=zim.group",
    );
    assert_eq!(written.event_topics(), topics);
    for event in EVENTS {
        let topic = format!("zim.{}", <&str>::from(event.family));
        assert_eq!(place(&all, event.name), topic);
        assert_eq!(place(&written, event.name), topic);
    }
}

#[test]
fn an_event_precedes_its_family_and_both_precede_all_in_any_order() {
    for list in [
        "all,message=discard,bot_msg=zim.bots,room=dead-letter,room_enter=zim.group",
        "all , room_enter = zim.group,bot_msg=zim.bots,\n  message =discard,room= dead-letter",
    ] {
        let routes = routes_of(list);
        for (event, expected) in [
            ("group_create", "zim.group"),
            ("group_join", "zim.group"),
            ("send_msg", "discard"),
            ("bot_msg", "zim.bots"),
            ("room_create", "dead-letter"),
            ("room_enter", "zim.group"),
            ("call_timeout", "zim.call"),
            ("user_action", "zim.user"),
        ] {
            assert_eq!(place(&routes, event), expected, "{event} with {list}");
        }
    }
    // Without `all`, what is not named goes to the dead letters.
    let routes = routes_of("room_exit=left,user=discard");
    for (event, expected) in [
        ("room_exit", "left"),
        ("room_enter", "dead-letter"),
        ("user_action", "discard"),
        ("group_join", "zim.group-joined"),
        ("group_exit", "dead-letter"),
    ] {
        assert_eq!(place(&routes, event), expected, "{event}");
    }
}

#[test]
fn the_topic_of_group_join_is_the_first_that_is_given() {
    for (flags, expected) in [
        (&["--topics=group=g,group_join=j", "--topic=t"][..], "j"),
        (&["--topics=group_join=discard", "--topic=t"], "discard"),
        (&["--topics=group_join=dead-letter"], "dead-letter"),
        (&["--topics=all,group_join=discard"], "discard"),
        (&["--topics=group=discard,group_join=j"], "j"),
        (&["--topics=group=g", "--topic=t"], "t"),
        (&["--topics=all", "--topic=t"], "t"),
        (&["--topics=all,group=g", "--topic=t"], "t"),
        (&["--topics=group=discard", "--topic=t"], "t"),
        // Set, although it is the default.
        (
            &["--topics=all", "--topic=zim.group-joined"],
            "zim.group-joined",
        ),
        (&["--topics=all"], "zim.group"),
        (&["--topics=all,group=g"], "g"),
        (&["--topics=all,group_exit=g"], "zim.group"),
        (&["--topics=group_exit=g"], "zim.group-joined"),
        (&["--topics=room=r"], "zim.group-joined"),
        (&["--topics=group=g,group_join=g"], "g"),
    ] {
        let routes = routes(flags).expect("valid");
        assert_eq!(place(&routes, "group_join"), expected, "{flags:?}");
    }
}

#[test]
fn a_group_topic_that_may_or_may_not_be_for_joins_is_refused_with_both_lines() {
    const OWN: &str =
        "does not move group_join, because consumers may read the topic that it had alone";
    assert_eq!(
        faults(" room=r , group=zim.group".trim()),
        [format!(
            "group=zim.group {OWN}; write ZIM2KAFKA_TOPICS=room=r,group=zim.group,group_join=zim.group for one topic with the other events of the group, or ZIM2KAFKA_TOPICS=room=r,group=zim.group,group_join=zim.group-joined for the topic that it had"
        )]
    );
    for (list, word) in [
        ("group=discard", "discard"),
        ("all,group=discard", "discard"),
        ("group=dead-letter", "dead-letter"),
        ("all,group=dead-letter", "dead-letter"),
    ] {
        assert_eq!(
            faults(list),
            [format!(
                "group={word} {OWN}; write ZIM2KAFKA_TOPICS={list},group_join={word} to treat it alike, or ZIM2KAFKA_TOPICS={list},group_join=zim.group-joined to publish it"
            )]
        );
    }
    // Both lines are valid.
    for list in ["room=r,group=zim.group", "all,group=discard"] {
        let [fault] = &faults(list)[..] else {
            panic!("one fault");
        };
        let lines = fault.split("ZIM2KAFKA_TOPICS=").skip(1);
        let lines: Vec<_> = lines.filter_map(|rest| rest.split(' ').next()).collect();
        assert_eq!(lines.len(), 2, "{fault}");
        lines.into_iter().for_each(|line| drop(routes_of(line)));
    }
}

#[test]
fn invalid_entries_are_refused_with_what_to_write() {
    const NO_NAME: &str = "is neither a family nor an event";
    const ONE_ENTRY: &str = "is not one entry; write = between a name and its topic, and a comma between entries, as in room=zim.room,message=discard";
    let message = "message=zim.message, message=dead-letter or message=discard";
    let send = "send_msg=zim.message, send_msg=dead-letter or send_msg=discard";
    let before = "before_send_msg is a question of the sender, which is answered and not published; remove it, and set the answer with ZIM2KAFKA_BEFORE_SEND";
    let all = "all cannot have a topic, because it stands for one topic for each family; write all,message=discard";
    let letters = "is the topic of dead letters (ZIM2KAFKA_DEAD_LETTER_TOPIC), whose records have another format";
    for (list, expected) in [
        // Names.
        ("grup=g", format!(r#""grup" {NO_NAME}; did you mean group?"#)),
        ("messages=m", format!(r#""messages" {NO_NAME}; did you mean message?"#)),
        ("join=j", format!(r#""join" {NO_NAME}; did you mean group_join?"#)),
        ("group-exit=j", format!(r#""group-exit" {NO_NAME}; did you mean group_exit?"#)),
        ("call_accepted=j", format!(r#""call_accepted" {NO_NAME}; did you mean call_accept?"#)),
        (
            "x=j",
            format!(r#""x" {NO_NAME}; write all, or NAME=TOPIC for each of group, room, message, call, user, or of events such as group_exit"#),
        ),
        ("Room=r", r#""Room" is in the wrong case; write room"#.to_owned()),
        ("ROOM_EXIT=r", r#""ROOM_EXIT" is in the wrong case; write room_exit"#.to_owned()),
        (
            "create_group=g",
            r#""create_group" is another name of group_create; write group_create"#.to_owned(),
        ),
        (
            "Apply_join_group=g",
            r#""Apply_join_group" is another name of group_join; write group_join"#.to_owned(),
        ),
        ("before_send_msg=m", before.to_owned()),
        ("before_send_msg=discard", before.to_owned()),
        ("before_send_msg", before.to_owned()),
        ("Before_send_msg=m", before.to_owned()),
        ("before_send=m", before.to_owned()),
        (
            "apply_join_group=g",
            r#""apply_join_group" is another name of group_join; write group_join"#.to_owned(),
        ),
        (
            "group.left=g",
            r#""group.left" is another name of group_exit; write group_exit"#.to_owned(),
        ),
        (
            "com.zegocloud.zim.message.bot-received.v1=g",
            r#""com.zegocloud.zim.message.bot-received.v1" is another name of bot_msg; write bot_msg"#.to_owned(),
        ),
        ("=m", "an entry has no name in front of =; write as in group=zim.group".to_owned()),
        ("room=r,room=r", "room is given more than once; write it once".to_owned()),
        ("room=r,room=s,user=u", "room is given more than once; write it once".to_owned()),
        // Entries.
        ("room=r,", "entry 2 is empty; remove its comma, or write as in group=zim.group".to_owned()),
        ("room=r,,user=u", "entry 2 is empty; remove its comma, or write as in group=zim.group".to_owned()),
        ("message", format!(r#""message" has no topic; write {message}"#)),
        ("message= ", format!(r#""message=" has no topic; write {message}"#)),
        ("send_msg=", format!(r#""send_msg=" has no topic; write {send}"#)),
        // all.
        ("all=zim", format!(r#""all=zim": {all}"#)),
        ("all=discard", format!(r#""all=discard": {all}"#)),
        ("All", r#""All" is in the wrong case; write all"#.to_owned()),
        ("all,all", "all is given more than once; write it once".to_owned()),
        (
            "message=discard,all",
            "all is not the first entry; write exceptions behind it, as in all,message=discard".to_owned(),
        ),
        // Topics.
        ("room=a b", format!(r#""room=a b": "a b" has a character that no topic may have; {WRITE}"#)),
        ("room=a=b", format!(r#""room=a=b" {ONE_ENTRY}"#)),
        ("all;message=discard", format!(r#""all;message=discard" {ONE_ENTRY}"#)),
        ("room=r;user=u", format!(r#""room=r;user=u" {ONE_ENTRY}"#)),
        ("room=r user=u", format!(r#""room=r user=u" {ONE_ENTRY}"#)),
        ("room=r\nuser=u", format!(r#""room=r\nuser=u" {ONE_ENTRY}"#)),
        ("room:zim.room", format!(r#""room:zim.room" {ONE_ENTRY}"#)),
        ("room->r", format!(r#""room->r" {NO_NAME}; did you mean room?"#)),
        ("room=..", format!(r#""room=..": ".." is a name that Kafka reserves; {WRITE}"#)),
        (
            "room=zim.dead-letter",
            format!(r#""room=zim.dead-letter" {letters}; write room=dead-letter, or another topic"#),
        ),
        (
            "room=Discard",
            r#""room=Discard": "Discard" is nearly the word discard; write room=discard, or a topic with another name"#.to_owned(),
        ),
        (
            "room=dead_letters",
            r#""room=dead_letters": "dead_letters" is nearly the word dead-letter; write room=dead-letter, or a topic with another name"#.to_owned(),
        ),
        (
            "room=dicard",
            r#""room=dicard": "dicard" is nearly the word discard; write room=discard, or a topic with another name"#.to_owned(),
        ),
    ] {
        let list = list.trim_end_matches(' ');
        assert_eq!(faults(list), [expected], "{list}");
    }
    let long = format!("room={}", "t".repeat(250));
    assert!(faults(&long)[0].contains("is longer than 249 characters"));
}

#[test]
fn all_faults_of_the_list_are_found_in_one_run_without_their_consequences() {
    let list = "grup=g,message,all,user=a b,call=c,call=d,rooom=r,group=g";
    let found = faults(list);
    let beginnings = [
        r#""grup" is neither"#,
        r#""message" has no topic"#,
        "all is not the first",
        r#""user=a b": "a b" has"#,
        "call is given more than once",
        r#""rooom" is neither"#,
    ];
    assert_eq!(found.len(), beginnings.len(), "{found:?}");
    for (fault, beginning) in found.iter().zip(beginnings) {
        assert!(fault.starts_with(beginning), "{fault}");
    }
    // The topic of joins is open only because of another fault.
    for list in [
        "group=g,group=h",
        "Group=g",
        "group=g,group_joined=g",
        "group=g,ALL",
    ] {
        assert_eq!(faults(list).len(), 1, "{list}");
    }
    // But not here.
    assert_eq!(faults("group=g,rooom=r").len(), 2);
    let all = ["--topics=x=y", "--topic=a b", "--dead-letter-topic=c d"];
    let found = routes(&all).expect_err("three faults");
    let variables: Vec<_> = found
        .iter()
        .filter_map(|fault| fault.split(':').next())
        .collect();
    let expected = [
        "ZIM2KAFKA_TOPIC",
        "ZIM2KAFKA_DEAD_LETTER_TOPIC",
        "ZIM2KAFKA_TOPICS",
    ];
    assert_eq!(variables, expected);
}

#[test]
fn no_topic_of_events_is_that_of_dead_letters() {
    let refused = |flags: &[&str]| match routes(flags) {
        Ok(_) => None,
        Err(faults) => Some(faults.join("\n")),
    };
    let same = "ZIM2KAFKA_DEAD_LETTER_TOPIC: is the same as ZIM2KAFKA_TOPIC; write another topic, such as zim.dead-letter";
    let own = "--dead-letter-topic=zim.group-joined";
    assert_eq!(refused(&[own]).as_deref(), Some(same));
    assert_eq!(refused(&[own, "--topics=room=r"]).as_deref(), Some(same));
    assert_eq!(
        refused(&["--topic=t", "--dead-letter-topic=t", "--topics=all"]).as_deref(),
        Some(same)
    );
    // Not if joins go to another topic than ZIM2KAFKA_TOPIC.
    assert_eq!(refused(&[own, "--topics=all"]), None);
    assert_eq!(refused(&[own, "--topics=group_join=j"]), None);
    assert_eq!(
        refused(&["--dead-letter-topic=zim.user", "--topics=all"]).as_deref(),
        Some(
            "ZIM2KAFKA_TOPICS: all stands for user=zim.user too, which is the topic of dead letters (ZIM2KAFKA_DEAD_LETTER_TOPIC); add user=dead-letter or user= with another topic, or set ZIM2KAFKA_DEAD_LETTER_TOPIC=zim.dead-letter"
        )
    );
    assert_eq!(
        refused(&["--dead-letter-topic=zim.user", "--topics=all,user=discard"]),
        None
    );
    assert_eq!(
        refused(&["--dead-letter-topic=discarded", "--topics=room=discard"]),
        None
    );
    let letters = routes(&[
        "--dead-letter-topic=dead-letters",
        "--topics=room=dead-letters",
    ]);
    let faults = letters.expect_err("refused").join("\n");
    assert!(
        faults.contains("whose records have another format; write room=dead-letter"),
        "{faults}"
    );
}

#[test]
fn a_topic_that_another_setting_overrides_is_a_warning() {
    let warning = |flags: &[&str]| read_well(flags).serve.kafka.chosen_topics().warning();
    assert_eq!(
        warning(&["--topic=t", "--topics=group_join=j"]).as_deref(),
        Some(
            "ZIM2KAFKA_TOPIC is t, but ZIM2KAFKA_TOPICS has group_join=j, which takes precedence; unset ZIM2KAFKA_TOPIC"
        )
    );
    assert!(warning(&["--topic=t", "--topics=group_join=discard"]).is_some());
    for flags in [
        &["--topics=group_join=j"][..],
        &["--topic=j", "--topics=group_join=j"],
        &["--topic=t", "--topics=all"],
        &["--topic=t"],
    ] {
        assert_eq!(warning(flags), None, "{flags:?}");
    }
}

#[test]
fn a_unit_of_timestamps_that_excludes_a_family_with_a_topic_is_refused() {
    let refused = |flags: &[&str]| {
        let serve = read_well(flags).serve;
        let routes = serve.kafka.routes().expect("valid");
        let families = serve.check_unit(&routes).err().map(|error| {
            assert_eq!(error.variable, "ZIM2KAFKA_TIMESTAMP_UNIT");
            let (_, families) = error.problem.split_once("401: ").expect("the families");
            let (families, _) = families.split_once(';').expect("what to write");
            families.to_owned()
        });
        families.unwrap_or_default()
    };
    for (unit, topics, expected) in [
        ("auto", "all", ""),
        ("ms", "all", "message, user"),
        ("s", "all", "group, room"),
        ("ms", "bot_msg=b", "bot_msg"),
        ("s", "room_exit=b,group_join=discard", "room_exit"),
        (
            "s",
            "all,group_exit=discard,room=discard",
            "group_create, group_join, group_destroy",
        ),
        ("ms", "group=g,group_join=g,room=r", ""),
        ("s", "message=m,user=u,group_join=dead-letter", ""),
        // Joins have a topic, whether it is named or not.
        ("s", "message=m", "group_join"),
        // The pages do not specify the unit of calls.
        ("ms", "call=c", ""),
        ("s", "call=c,group_join=discard", ""),
    ] {
        let flags = ["--timestamp-unit", unit, "--topics", topics];
        assert_eq!(refused(&flags), expected, "{flags:?}");
    }
    // The message says why, and what it tells to write is valid.
    for (topics, named, entries) in [
        ("message=m", true, "group_join=dead-letter"),
        ("message=m,group_join=j", false, "group_join=dead-letter"),
        (
            "all,room_exit=discard,group_exit=discard",
            true,
            "group_create=dead-letter,group_join=dead-letter,group_destroy=dead-letter,room_create=dead-letter,room_enter=dead-letter,room_destroy=dead-letter",
        ),
        (
            "all",
            false,
            "group=dead-letter,room=dead-letter,group_join=dead-letter",
        ),
    ] {
        let flags = ["--timestamp-unit=s", "--topics", topics];
        let serve = read_well(&flags).serve;
        let routes = serve.kafka.routes().expect("valid");
        let error = serve.check_unit(&routes).expect_err("refused").problem;
        let default = "ZIM2KAFKA_TOPICS does not name group_join, which therefore goes to ";
        assert_eq!(error.contains(default), named, "{error}");
        assert!(error.contains("; write auto, or ") || named, "{error}");
        let (_, told) = error.split_once("and write ").expect("entries");
        let (told, _) = told.split_once(" (or discard)").expect("the other word");
        assert_eq!(told, entries, "{error}");
        // In place of the entries of the same names.
        let kept = topics
            .split(',')
            .filter(|entry| !entry.starts_with("group_join="));
        let cured = kept.chain([told]).collect::<Vec<_>>().join(",");
        assert_eq!(
            refused(&["--timestamp-unit=s", "--topics", &cured]),
            "",
            "{cured}"
        );
    }
    // As in versions that published only group_join.
    assert_eq!(refused(&["--timestamp-unit=s"]), "");
    for (unit, count) in [("auto", 0), ("s", 1), ("ms", 1)] {
        let warnings = read_well(&["--timestamp-unit", unit]).serve.warnings();
        assert_eq!(warnings.len(), count, "{warnings:?}");
    }
    let mut faults = Faults::default();
    let serve = read_well(&["--timestamp-unit=ms", "--topics=all"]).serve;
    serve.ports(&mut faults);
    let errors = faults.finish(Some(())).expect_err("refused");
    assert_eq!(variable_of(errors), "ZIM2KAFKA_TIMESTAMP_UNIT");
}
