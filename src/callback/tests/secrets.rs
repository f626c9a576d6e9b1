use super::*;

fn live<'a>(secrets: &'a Secrets, appid: &str) -> Vec<&'a str> {
    let live = secrets.of(appid).unwrap_or_default();
    live.iter().map(|secret| secret.as_str()).collect()
}

#[test]
fn a_list_holds_several_applications_and_the_same_one_twice() {
    let secrets = Secrets::parse_list(" 1 = new , 2=b=c=,1=old,*=any\n").expect("a list");
    assert_eq!(live(&secrets, "1"), ["new", "old"]);
    assert_eq!(live(&secrets, "2"), ["b=c="]);
    assert_eq!(live(&secrets, "3"), ["any"]);
    assert_eq!(secrets.first(), Some(("1", "new")));
    assert_eq!(secrets.secret_of("2"), Some("b=c="));
    assert_eq!(secrets.secret_of("3"), Some("any"));
}

#[test]
fn without_a_wildcard_an_application_that_is_not_named_has_no_secret() {
    let secrets = Secrets::parse_list("1=a").expect("a list");
    assert_eq!(live(&secrets, "2"), Vec::<&str>::new());
    assert_eq!(secrets.secret_of("2"), None);
}

#[test]
fn a_file_holds_comments_empty_lines_and_secrets_with_commas() {
    let file = "# ours\r\n1=a,b=c\r\n\r\n  # theirs\n * = d\n1=e";
    let secrets = Secrets::parse_lines(file).expect("a file");
    assert_eq!(live(&secrets, "1"), ["a,b=c", "e"]);
    assert_eq!(live(&secrets, "2"), ["d"]);
    assert_eq!(secrets.first(), Some(("1", "a,b=c")));
}

#[test]
fn invalid_secrets_are_named_by_their_place_and_never_shown() {
    for (list, says) in [
        ("", "holds no secret; write appid=secret"),
        (" \n", "holds no secret; write appid=secret"),
        ("hunter2", "entry 1 is not of the form appid=secret"),
        ("1=a,hunter2", "entry 2 is not of the form appid=secret"),
        ("1=a,", "entry 2 is not of the form appid=secret"),
        (",1=a", "entry 1 is not of the form appid=secret"),
        ("1=a, =hunter2", "entry 2 has no appid before its ="),
        ("hunter2=", "entry 1 has an empty secret"),
        ("1=a,1= ", "entry 2 has an empty secret"),
    ] {
        let error = Secrets::parse_list(list).expect_err(list);
        assert_eq!(error.to_string(), says, "{list:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    for (file, says) in [
        ("", "holds no secret; write appid=secret"),
        ("# 1=a\n", "holds no secret; write appid=secret"),
        (
            "# ours\n\n1=a\nhunter2",
            "line 4 is not of the form appid=secret",
        ),
        ("\n=hunter2", "line 2 has no appid before its ="),
        ("1=a\r\nhunter2=\r\n", "line 2 has an empty secret"),
    ] {
        let error = Secrets::parse_lines(file).expect_err(file);
        assert_eq!(error.to_string(), says, "{file:?}");
    }
}

/// Refused, alone in a file, without showing any of it, and with this reason.
#[track_caller]
fn is_refused(line: &str, reason: &str) {
    let error = Secrets::parse_lines(line).expect_err(line).to_string();
    assert!(error.starts_with("line 1 "), "{line:?}: {error}");
    assert!(error.contains(reason), "{line:?}: {error}");
    assert!(!error.contains("hunter2"), "{line:?}: {error}");
}

#[test]
fn an_appid_is_an_asterisk_or_letters_digits_underscores_and_hyphens() {
    for appid in ["*", "1234567890", "app_1", "my-APP", "-", "_"] {
        let secrets = Secrets::parse_lines(&format!("{appid}=hunter2")).expect(appid);
        assert_eq!(secrets.first(), Some((appid, "hunter2")));
    }
    for appid in [
        "\"1\"",
        "'1",
        "1 2",
        "export 1",
        "1:",
        "**",
        "1*",
        "ä",
        "\u{feff}1",
        "1\u{a0}",
        "\u{200b}1",
        "1\0",
        "<html lang",
        "{\"1\": \"a",
        "appid.1",
    ] {
        is_refused(&format!("{appid}=hunter2"), "neither * nor letters");
    }
    is_refused("ZIM2KAFKA_CALLBACK_SECRETS=1=hunter2", "sets a variable");
}

#[test]
fn quotes_blanks_and_what_people_cannot_see_are_not_part_of_a_secret() {
    for quoted in [
        "\"hunter2\"",
        "'hunter2'",
        "`hunter2`",
        "hunter2\"",
        "hun'ter2",
    ] {
        is_refused(&format!("1={quoted}"), "a quotation mark");
    }
    for blank in [" ", "\u{a0}", "\u{2003}", "\u{3000}", "\u{2028}"] {
        is_refused(&format!("1=hunter2{blank}x"), "a blank");
        is_refused(&format!("1=hunter2 {blank}# ours"), "a blank");
    }
    // Other blanks than those that separate fields are not ignored at an end.
    is_refused("1=hunter2\u{a0}", "a blank");
    for control in [
        "\t", "\0", "\x1b", "\x7f", "\u{b}", "\u{85}", "\u{9f}", "\r",
    ] {
        is_refused(&format!("1=hunter2{control}x"), "a control character");
    }
    for other in [
        "\u{200b}", "\u{feff}", "\u{ad}", "\u{202e}", "\u{fffd}", "\u{201c}", "…",
    ] {
        is_refused(&format!("1=hunter2{other}"), "neither ASCII nor a letter");
    }
    is_refused("1=hunter2\\n", "written out");
    is_refused("1=hunter2\\n2=hunter2", "written out");
}

#[test]
fn what_stands_in_place_of_a_secret_is_not_one() {
    for placeholder in [
        "${SECRET}",
        "$(cat_hunter2)",
        "$SECRET",
        "$",
        "{{.Values.hunter2}}",
        "<your-secret>",
        "***",
        "==",
        "-",
    ] {
        is_refused(&format!("1={placeholder}"), "a placeholder");
    }
    for secret in [
        "$hunter2",
        "<hunter2",
        "hunter2>",
        "a$SECRET",
        "{hunter2}",
        "Sécret",
    ] {
        let secrets = Secrets::parse_lines(&format!("1={secret}")).expect(secret);
        assert_eq!(live(&secrets, "1"), [secret]);
    }
    let graphic: String = ('!'..='~').filter(|sign| !"\"'`".contains(*sign)).collect();
    let secrets = Secrets::parse_lines(&format!("1={graphic}")).expect("all that ASCII shows");
    assert_eq!(live(&secrets, "1"), [graphic]);
}

#[test]
fn a_line_holds_one_pair() {
    for line in [
        "1=hunter2,2=b",
        "1=hunter2,*=b",
        "1=hunter2;2=b",
        "1=hunter2 2=b",
        "1=hunter2\r2=b\r",
        "1=a,hunter2,33=c",
    ] {
        let error = Secrets::parse_lines(line).expect_err(line).to_string();
        assert!(error.starts_with("line 1 holds several pairs"), "{error}");
    }
    for list in ["1=hunter2\n2=b", "1=hunter2;2=b", "1=hunter2 *=b"] {
        let error = Secrets::parse_list(list).expect_err("no comma").to_string();
        assert!(error.starts_with("entry 1 holds several pairs"), "{error}");
    }
}

#[test]
fn every_invalid_line_is_reported_and_of_a_web_page_the_first_ten() {
    let error = Secrets::parse_lines("1=a\n2=\n# x\nb\n3=c\n=d\n").expect_err("three");
    assert_eq!(
        error.to_string(),
        "line 2 has an empty secret; line 4 is not of the form appid=secret; line 6 has no appid before its ="
    );
    let page = "<p class=\"error\">503</p>\n".repeat(200);
    let error = Secrets::parse_lines(&page).expect_err("a page").to_string();
    assert!(error.contains("line 10 has an appid"), "{error}");
    assert!(!error.contains("line 11"), "{error}");
    assert!(error.ends_with("; 190 more are invalid"), "{error}");
}

#[test]
fn a_secret_that_is_given_twice_counts_once() {
    let secrets = Secrets::parse_list("1=a,1=b,1=a,*=a,*=a").expect("a list");
    assert_eq!(live(&secrets, "1"), ["a", "b"]);
    assert_eq!(live(&secrets, "2"), ["a"]);
}

#[test]
fn secrets_are_not_printed() {
    let secrets = Secrets::parse_list("1=hunter2").expect("a list");
    let printed = format!("{secrets:?} {secrets:#?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}
