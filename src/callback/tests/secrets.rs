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
    let file = "\u{feff}# ours\r\n1=a,b=c\r\n\r\n  # theirs\n * = d\n1=e";
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

#[test]
fn secrets_are_not_printed() {
    let secrets = Secrets::parse_list("1=hunter2").expect("a list");
    let printed = format!("{secrets:?} {secrets:#?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}
