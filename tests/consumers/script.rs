//! What happens in the groups, and the member lists that must come of it.
//!
//! The expected lists are written down here, case by case. Nothing computes them by the rules that
//! the consumers apply.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::ledger::Members;
use crate::records::{Event, MINUTE, Record, start};

/// Events of one group in the order in which they are published, and who is a member at the end.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) events: Vec<Event>,
    pub(crate) members: &'static [&'static str],
    /// Of the events, those with the id of an earlier one.
    pub(crate) duplicates: i64,
}

pub(crate) const APP: &str = "1234567890";

/// In ms, as ZIM signs the events of groups.
pub(crate) const T: i64 = 1_757_577_600_000;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, events: Vec<Event>, members, duplicates| Case {
        name,
        // Within minutes, as they were published.
        events: (0..)
            .zip(events)
            .map(|(index, event)| event.received_at(start() + index * MINUTE))
            .collect(),
        members,
        duplicates,
    };
    vec![
        {
            let g = "a-life";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada", "bao", "cem"]), T),
                    Event::join(g, &["dot", "eli"], T + 1),
                    Event::exit(g, &["bao"], T + 2),
                    Event::exit(g, &["eli", "cem"], T + 3),
                    Event::join(g, &["cem"], T + 4),
                ],
                &["ada", "cem", "dot"],
                0,
            )
        },
        {
            // Characters that a consumer must take as they are.
            let g = "a+b%25&c=#1 {x}|~";
            case(
                g,
                vec![
                    Event::create(g, Some(&["u 1", "@RBT#7", "%41", "+"]), T),
                    Event::exit(g, &["A", "%41"], T + 1),
                    Event::join(g, &["zo\u{eb} \u{1f600}", "o'neil", "null"], T + 2),
                ],
                &["+", "@RBT#7", "null", "o'neil", "u 1", "zo\u{eb} \u{1f600}"],
                0,
            )
        },
        {
            let g = "a-join-that-is-late";
            case(
                g,
                vec![
                    Event::join(g, &["ada", "bao"], T),
                    Event::exit(g, &["ada"], T + 20),
                    Event::join(g, &["ada", "cem"], T + 10),
                ],
                &["bao", "cem"],
                0,
            )
        },
        {
            let g = "an-exit-that-is-late";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada", "bao"]), T),
                    Event::join(g, &["ada"], T + 20),
                    Event::exit(g, &["ada", "bao"], T + 10),
                ],
                &["ada"],
                0,
            )
        },
        {
            // The exit comes before everything that it is about.
            let g = "an-exit-that-is-first";
            case(
                g,
                vec![
                    Event::exit(g, &["ada"], T + 10),
                    Event::join(g, &["ada", "bao"], T + 5),
                    Event::create(g, Some(&["ada", "cem"]), T),
                ],
                &["bao", "cem"],
                0,
            )
        },
        {
            let g = "redriven";
            case(
                g,
                vec![
                    Event::join(g, &["ada", "bao"], T + 10),
                    Event::exit(g, &["bao"], T + 40),
                    Event::exit(g, &["ada"], T + 5).redriven(),
                    Event::join(g, &["bao", "cem"], T + 30).redriven(),
                    Event::join(g, &["dot"], T + 50).redriven(),
                    Event::create(g, Some(&["bao", "eli"]), T).redriven(),
                ],
                &["ada", "cem", "dot", "eli"],
                0,
            )
        },
        {
            let g = "destroyed";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada", "bao"]), T),
                    Event::join(g, &["cem"], T + 10),
                    // Not all members are in the list; all memberships end.
                    Event::destroy(g, Some(&["ada"]), T + 20),
                    Event::join(g, &["dot"], T + 15),
                    Event::join(g, &["eli"], T + 20),
                ],
                &[],
                0,
            )
        },
        {
            let g = "destroyed-without-a-list";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada"]), T),
                    Event::destroy(g, None, T + 20),
                ],
                &[],
                0,
            )
        },
        {
            let g = "destroyed-and-created-again";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada", "bao"]), T),
                    Event::destroy(g, Some(&["ada", "bao"]), T + 20),
                    Event::create(g, Some(&["bao"]), T + 30),
                    Event::join(g, &["cem"], T + 15),
                    Event::join(g, &["dot"], T + 40),
                    Event::create(g, Some(&["ada", "bao"]), T),
                ],
                &["bao", "dot"],
                1,
            )
        },
        {
            // The destroy is published again later, when the group has been created again.
            let g = "a-destroy-that-is-late";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada"]), T),
                    Event::exit(g, &["eve"], T + 10),
                    Event::create(g, Some(&["bao"]), T + 30),
                    Event::join(g, &["cem"], T + 40),
                    Event::destroy(g, None, T + 20).redriven(),
                    Event::join(g, &["dot", "eve"], T + 12).redriven(),
                ],
                &["bao", "cem"],
                0,
            )
        },
        {
            let g = "a-create-that-is-late";
            case(
                g,
                vec![
                    Event::join(g, &["bao"], T + 10),
                    Event::exit(g, &["cem"], T + 20),
                    Event::create(g, Some(&["ada", "cem"]), T).redriven(),
                ],
                &["ada", "bao"],
                0,
            )
        },
        {
            // Unknown is not empty: nobody is removed.
            let g = "created-without-a-list";
            case(
                g,
                vec![
                    Event::join(g, &["ada"], T),
                    Event::create(g, None, T + 10),
                    Event::create(g, Some(&[]), T + 15),
                    Event::join(g, &["bao"], T + 20),
                ],
                &["ada", "bao"],
                0,
            )
        },
        {
            let g = "equal-timestamps";
            case(
                g,
                vec![
                    Event::join(g, &["in-out", "in"], T),
                    Event::exit(g, &["in-out", "out-in"], T),
                    Event::join(g, &["out-in"], T).redriven(),
                ],
                &["in", "out-in"],
                0,
            )
        },
        {
            let g = "repeated";
            case(
                g,
                vec![
                    Event::join(g, &["ada"], T),
                    Event::join(g, &["ada"], T),
                    Event::exit(g, &["ada"], T),
                    // Of equal timestamps the later record wins, but this one was seen.
                    Event::join(g, &["ada"], T),
                    Event::join(g, &["ada"], T).redriven(),
                ],
                &[],
                3,
            )
        },
        {
            let g = "of-another-application";
            case(
                g,
                vec![
                    Event::create(g, Some(&["ada", "bao"]), T),
                    Event::exit(g, &["ada"], T + 10).of_app("2"),
                    Event::destroy(g, None, T + 20).of_app("2"),
                    Event::join(g, &["ada"], T + 5).of_app("2"),
                ],
                &["ada", "bao"],
                0,
            )
        },
    ]
}

/// The lists that these cases end with.
pub(crate) fn expected(cases: &[Case]) -> Members {
    let with_members = cases.iter().filter(|case| !case.members.is_empty());
    with_members
        .map(|case| {
            let members = case.members.iter().map(|&user| user.to_owned());
            ((APP.to_owned(), case.name.to_owned()), members.collect())
        })
        .collect()
}

/// Records that no consumer can read, each with the reason for which it is skipped.
pub(crate) fn unreadable() -> Vec<(&'static str, Record)> {
    let event = Event::join("a-life", &["mallory"], T + 1_000).received_at(start());
    let good = event.record();
    let with_value = |value: Option<&[u8]>| Record {
        value: value.map(<[u8]>::to_vec),
        ..good.clone()
    };
    let with_type = |of_type: &str| {
        let mut record = good.clone();
        for header in &mut record.headers {
            if header.0 == "ce_type" {
                header.1 = of_type.into();
            }
        }
        record
    };
    let with_field = |name: &str, field: Value| {
        let mut value = event.value();
        value[name] = field;
        with_value(Some(value.to_string().as_bytes()))
    };
    let without_field = |name: &str| {
        let mut value = event.value();
        value.as_object_mut().expect("an object").remove(name);
        with_value(Some(value.to_string().as_bytes()))
    };
    let replaced = |from: &str, to: &str| {
        let value = event.value().to_string().replace(from, to);
        with_value(Some(value.as_bytes()))
    };

    let mut records = vec![("no value", with_value(None))];
    records.extend(
        [
            "com.zegocloud.zim.group.joined.v2",
            "com.zegocloud.zim.group.joined.v11",
            "com.zegocloud.zim.group.joined",
            "com.zegocloud.zim.group.renamed.v1",
            "com.zegocloud.zim.message.sent.v1",
            "",
        ]
        .map(|of_type| ("unknown type", with_type(of_type))),
    );
    records.push(("unknown type", {
        let mut record = good.clone();
        record.headers.clear();
        record
    }));
    let not_json: [&[u8]; 8] = [
        b"",
        b"   ",
        b"garbage",
        b"\xff\xfe{\x00}\x00",
        b"{\"event_id\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"{\"event_id\":",
    ];
    records.extend(not_json.map(|value| ("not JSON", with_value(Some(value)))));
    let not_objects: [&[u8]; 4] = [b"[]", b"null", b"7", b"\"text\""];
    records.extend(not_objects.map(|value| ("not an object", with_value(Some(value)))));
    for name in [
        "event_id",
        "appid",
        "group_id",
        "new_user_ids",
        "timestamp",
        "received_at",
    ] {
        records.push(("invalid field", without_field(name)));
        for field in [
            json!(null),
            json!({}),
            json!(true),
            json!([7]),
            json!(-1),
            json!(1.5),
        ] {
            records.push(("invalid field", with_field(name, field)));
        }
    }
    for field in [json!(""), json!(7)] {
        records.push(("invalid field", with_field("event_id", field)));
    }
    for field in [
        json!("1757577600000"),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(10_i64.pow(13)),
    ] {
        records.push(("invalid field", with_field("timestamp", field)));
    }
    for field in [
        json!("mallory"),
        json!(["mallory", null]),
        json!([["mallory"]]),
        json!([""]),
    ] {
        records.push(("invalid field", with_field("new_user_ids", field)));
    }
    records.push((
        "not JSON",
        replaced("1757577601000", "1757577601000,\"more\":NaN"),
    ));
    records.push((
        "not JSON",
        replaced("1757577601000", "1757577601000,\"timestamp\""),
    ));
    records.push(("not JSON", replaced("mallory", "\u{1}")));
    records.push(("invalid field", replaced("1757577601000", "1e12")));
    records.push(("invalid field", replaced("1757577601000", &"9".repeat(30))));
    records
}

/// How often each reason occurs.
pub(crate) fn reasons(records: &[(&'static str, Record)]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (reason, _) in records {
        *counts.entry(format!("skipped: {reason}")).or_default() += 1;
    }
    counts
}
