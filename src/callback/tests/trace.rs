//! Which trace contexts are passed on.

use proptest::prelude::*;

use super::*;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The trace context of a request with these headers.
fn of(headers: &[(&str, &[u8])]) -> Option<TraceContext> {
    TraceContext::from_headers(|name| {
        let values = headers.iter().filter(move |(found, _)| *found == name);
        values.map(|(_, value)| *value)
    })
}

/// The headers that are passed on.
fn passed_on(headers: &[(&str, &[u8])]) -> Vec<(String, String)> {
    let trace = of(headers);
    let headers = trace.iter().flat_map(TraceContext::headers);
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).expect("it is ASCII");
    headers
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

#[test]
fn a_valid_traceparent_is_passed_on_and_its_trace_id_displayed() {
    for (traceparent, trace_id) in [
        (TRACEPARENT, TRACE_ID),
        // Unknown flags are not ours to change.
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            TRACE_ID,
        ),
        (
            "00-00000000000000000000000000000001-0000000000000001-00",
            "00000000000000000000000000000001",
        ),
        (
            "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-03",
            "ffffffffffffffffffffffffffffffff",
        ),
    ] {
        let trace = of(&[("traceparent", traceparent.as_bytes())]).expect(traceparent);
        assert_eq!(trace.trace_id().to_string(), trace_id);
        let headers = passed_on(&[("traceparent", traceparent.as_bytes())]);
        assert_eq!(headers, [("traceparent".into(), traceparent.into())]);
    }
}

#[test]
fn every_other_traceparent_is_dropped_with_its_tracestate() {
    let invalid = [
        "",
        "00",
        "00-",
        "---",
        // Lengths.
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47366-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b77-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b70-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        // More fields than version 00 has.
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,",
        // Other versions.
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "fe-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        // All zero.
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        // Digits.
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-.1",
        "00-4bf92f35-77b3-4da6-a3ce-929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47\u{e4}-00f067aa0ba902b7-01",
        // Separators.
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736--00f067aa0ba902b-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7-01",
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\0",
        "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"",
    ];
    for traceparent in invalid {
        let headers = [
            ("traceparent", traceparent.as_bytes()),
            ("tracestate", b"a=1"),
        ];
        assert_eq!(of(&headers), None, "{traceparent:?}");
    }
    let mut not_utf_8 = TRACEPARENT.as_bytes().to_vec();
    not_utf_8[10] = 0xff;
    assert_eq!(of(&[("traceparent", &not_utf_8)]), None);
}

#[test]
fn a_traceparent_that_is_repeated_is_dropped_even_if_both_are_equal() {
    let other = "00-ffffffffffffffffffffffffffffffff-00f067aa0ba902b7-01";
    for second in [TRACEPARENT, other, "", "x"] {
        for [one, two] in [[TRACEPARENT, second], [second, TRACEPARENT]] {
            let headers = [
                ("traceparent", one.as_bytes()),
                ("traceparent", two.as_bytes()),
            ];
            assert_eq!(of(&headers), None, "{one:?} {two:?}");
        }
    }
}

#[test]
fn a_tracestate_without_a_traceparent_is_dropped() {
    assert_eq!(of(&[("tracestate", b"a=1")]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn tracestates_are_joined_in_order_and_kept_up_to_512_printable_bytes() {
    let long = "x".repeat(512);
    let half = "x".repeat(255);
    let joined_half = format!("{half},{half}");
    let (more, joined_more) = ("x".repeat(256), format!("{half},{}", "x".repeat(256)));
    for (values, kept) in [
        (&["congo=t61rcWkgMzE"][..], Some("congo=t61rcWkgMzE")),
        (&["a=1,b=2", "c=3"], Some("a=1,b=2,c=3")),
        (&["b=2", "a=1", "b=3"], Some("b=2,a=1,b=3")),
        // Its syntax is that of the tracing systems.
        (&["no list at all ~"], Some("no list at all ~")),
        (&[&long], Some(long.as_str())),
        (&[&half, &half], Some(&joined_half)),
        (&[&half, &more], Some(&joined_more)),
        // Empty ones are nothing to join.
        (&["", "a=1", "", "b=2", ""], Some("a=1,b=2")),
        (&[""], None),
        (&["", ""], None),
        (&[], None),
        // 513 bytes, also in several headers.
        (&[&format!("{long}x")], None),
        (&[&more, &more], None),
        (&["a=1", &long, "b=2"], None),
        (&["a=\t1"], None),
        (&["a=1", "b=\u{e4}"], None),
        (&["a=\n"], None),
        (&["a=\0"], None),
        (&["a=\x7f"], None),
    ] {
        let mut headers = vec![("traceparent", TRACEPARENT.as_bytes())];
        headers.extend(values.iter().map(|value| ("tracestate", value.as_bytes())));
        let mut expected = vec![("traceparent".to_owned(), TRACEPARENT.to_owned())];
        expected.extend(kept.map(|kept| ("tracestate".to_owned(), kept.to_owned())));
        assert_eq!(passed_on(&headers), expected, "{values:?}");
    }
}

/// Bytes that are nearly a valid `traceparent`.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    (0..TRACEPARENT.len(), any::<u8>(), 0..3).prop_map(|(at, byte, change)| {
        let mut bytes = TRACEPARENT.as_bytes().to_vec();
        match change {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_passed_on_is_what_was_received_and_valid(
        traceparent in prop_oneof![
            Just(TRACEPARENT.as_bytes().to_vec()),
            nearly_valid(),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
        tracestates in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..3),
    ) {
        let mut headers = vec![("traceparent", traceparent.as_slice())];
        headers.extend(tracestates.iter().map(|value| ("tracestate", value.as_slice())));
        let valid = follows_the_grammar(&traceparent);
        let trace = of(&headers);
        prop_assert_eq!(trace.is_some(), valid);
        let Some(trace) = trace else {
            return Ok(());
        };
        let trace_id = trace.trace_id().to_string();
        prop_assert_eq!(trace_id.as_bytes(), &traceparent[3..35]);
        for (name, value) in trace.headers() {
            prop_assert!(TraceContext::is_header(name));
            match name {
                "traceparent" => prop_assert_eq!(value, &traceparent),
                _ => {
                    prop_assert!((1..=512).contains(&value.len()));
                    prop_assert!(value.iter().all(|byte| (32..127).contains(byte)));
                }
            }
        }
        // It is read back from the headers of a record as it was.
        let headers: Vec<_> = trace.headers().collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        prop_assert_eq!(of(&headers), Some(trace.clone()));
    }
}

/// The specification's grammar of version 00, read byte by byte.
fn follows_the_grammar(traceparent: &[u8]) -> bool {
    let is_valid = |(at, byte): (usize, &u8)| match at {
        0 | 1 => *byte == b'0',
        2 | 35 | 52 => *byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
    };
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    traceparent.len() == 55
        && traceparent.iter().enumerate().all(is_valid)
        && !is_zero(&traceparent[3..35])
        && !is_zero(&traceparent[36..52])
}
