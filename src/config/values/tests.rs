//! How values are written and refused.

use super::*;

#[track_caller]
fn refuses<T: std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, String>, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = parse(text).expect_err(text);
        assert_eq!(error, *expected);
    }
}

#[test]
fn durations_are_written_with_their_unit() {
    let parse = duration_in(Duration::from_millis(1)..=Duration::from_secs(3600), "2s");
    for (text, milliseconds) in [
        ("250ms", 250),
        ("2s", 2000),
        ("1.5s", 1500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1m30s", 90_000),
        ("1 m", 60_000),
    ] {
        let duration = Duration::from_millis(milliseconds);
        assert_eq!(parse(text), Ok(duration), "{text}");
    }
    refuses(
        parse,
        &[
            ("", r#""" is not a duration; write 2s"#),
            ("forever", r#""forever" is not a duration; write 2s"#),
            ("off", r#""off" is not a duration; write 2s"#),
            ("10", r#""10" has no unit; write 2s"#),
            ("0", r#""0" has no unit; write 2s"#),
            ("-1", r#""-1" has no unit; write 2s"#),
            ("-1s", r#""-1s" is negative; write 2s"#),
            (
                "10M",
                r#""10M" is not a duration in ms, s, m or h, or is too long; write 2s"#,
            ),
            (
                "5 parsecs",
                r#""5 parsecs" is not a duration in ms, s, m or h, or is too long; write 2s"#,
            ),
            (
                "99999999999999999999h",
                r#""99999999999999999999h" is not a duration in ms, s, m or h, or is too long; write 2s"#,
            ),
            ("0s", r#""0s" is less than 1ms; write 2s"#),
            ("61m", r#""61m" is more than 60m; write 2s"#),
        ],
    );
}

#[test]
fn off_is_accepted_where_the_message_offers_it() {
    let parse = or_off(duration_in(Duration::from_millis(1)..=Duration::MAX, "10m"));
    assert_eq!(parse("off"), Ok(None));
    assert_eq!(parse("5m"), Ok(Some(Duration::from_secs(300))));
    refuses(
        parse,
        &[
            ("0s", r#""0s" is less than 1ms; write 10m, or off"#),
            ("10", r#""10" has no unit; write 10m, or off"#),
            ("OFF", r#""OFF" is not a duration; write 10m, or off"#),
        ],
    );
}

#[test]
fn sizes_are_written_with_or_without_their_unit() {
    let parse = size_in(1024..=900_000, "512KiB");
    for (text, bytes) in [
        ("512KiB", 524_288),
        ("512kb", 512_000),
        ("500kB", 500_000),
        ("1 KiB", 1024),
        ("900000", 900_000),
    ] {
        assert_eq!(parse(text), Ok(bytes), "{text}");
    }
    const RANGE: &str = "is not a size from 1024 to 900000 bytes; write 512KiB";
    for text in ["0", "512", "1023", "1MiB", "900001", "99999999TiB"] {
        assert_eq!(parse(text), Err(format!("{text:?} {RANGE}")));
    }
    for text in ["", "-1", "KiB", "much", "5 loaves", "1,5KiB"] {
        let expected = format!("{text:?} is not a size; write 512KiB");
        assert_eq!(parse(text), Err(expected));
    }
    refuses(
        size_in(4_194_304..=usize::MAX, "1GiB"),
        &[("4MB", r#""4MB" is less than 4194304 bytes; write 1GiB"#)],
    );
}

#[test]
fn what_surrounds_a_value_is_refused() {
    for text in ["\"info\"", "'info'", "\"info"] {
        let problem =
            "has quotes around it, which count as a part of the value; write it without them";
        assert_eq!(check_ends(text), Err(problem.to_owned()), "{text}");
    }
    let carriage_return =
        "ends with a carriage return; save the file that sets it with line ends of Unix (LF)";
    assert_eq!(check_ends("info\r"), Err(carriage_return.to_owned()));
    for text in [" info", "info ", "info\n", "info\t"] {
        let problem = "begins or ends with a blank or a line break; remove it";
        assert_eq!(check_ends(text), Err(problem.to_owned()), "{text:?}");
    }
    for text in [" ", "\t"] {
        let problem = "is blank; write a value, or unset it";
        assert_eq!(check_ends(text), Err(problem.to_owned()), "{text:?}");
    }
    for text in ["info # quiet", "/spool #"] {
        let problem =
            "has a comment behind it, which counts as a part of the value; remove the comment";
        assert_eq!(check_ends(text), Err(problem.to_owned()), "{text:?}");
    }
    for text in ["", "info", "a b", "it's", "a#b"] {
        assert_eq!(check_ends(text), Ok(()), "{text:?}");
    }
}

#[test]
fn a_path_names_a_file_of_this_machine() {
    for text in ["/var/lib/zim2kafka", "spool", "./~", "/a b"] {
        assert_eq!(check_path(text), Ok(()), "{text}");
    }
    refuses(
        check_path,
        &[
            (
                "",
                r#""" is empty; write a path such as /etc/zim2kafka/file"#,
            ),
            (
                "~/spool",
                r#""~/spool" begins with ~ or $, which only a shell expands; write a path such as /etc/zim2kafka/file"#,
            ),
            (
                "${HOME}/spool",
                r#""${HOME}/spool" begins with ~ or $, which only a shell expands; write a path such as /etc/zim2kafka/file"#,
            ),
            (
                "file:///spool",
                r#""file:///spool" is a URL and not a path; write a path such as /etc/zim2kafka/file"#,
            ),
        ],
    );
}

#[test]
fn a_filter_of_logs_never_silences_errors_unless_it_is_off() {
    for (text, filter) in [
        ("info", "info"),
        ("WARN", "WARN"),
        ("off", "off"),
        (
            "info,zim2kafka::delivery=debug",
            "info,zim2kafka::delivery=debug",
        ),
        ("info, hyper=warn", "info,hyper=warn"),
        ("hyper=debug", "error,hyper=debug"),
        ("hyper=debug,warn", "hyper=debug,warn"),
    ] {
        assert_eq!(log_filter(text).as_deref(), Ok(filter));
    }
    for (text, problem) in [
        ("warning", r#""warning" is not a level"#),
        ("verbose", r#""verbose" is not a level"#),
        ("inf", r#""inf" is not a level"#),
        ("infoo", r#""infoo" is not a level"#),
        ("3", r#""3" is not a level"#),
        ("debug2", r#""debug2" is not a level"#),
        ("zim2kafka", r#""zim2kafka" is not a level"#),
        ("info,warning", r#""warning" is not a level"#),
        ("info,", r#""" is not a level"#),
        ("", r#""" is not a level"#),
        ("zim2kafka=loud", r#""loud" is not a level"#),
        ("zim2kafka=", r#""" is not a level"#),
        ("a=b=c", r#""b=c" is not a level"#),
        ("=info", r#""" is not a log target"#),
        (".x=debug", r#"".x" is not a log target"#),
        ("[span]=info", r#""[span]" is not a log target"#),
    ] {
        let error = log_filter(text).expect_err(text);
        let (found, write) = error.split_once("; ").expect("what to write");
        assert_eq!(found, problem);
        assert_eq!(
            write,
            "write error, warn, info, debug, trace or off, or as in info,zim2kafka::delivery=debug"
        );
    }
}
