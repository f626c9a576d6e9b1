use super::*;

const ASKED: &str = "before_send_msg";

#[track_caller]
fn claims(body: &str) -> bool {
    let raw = raw(body);
    let json = raw.json().expect("one of the encodings");
    json.decode().expect("valid").names_event(ASKED)
}

#[test]
fn the_event_that_a_callback_claims_to_be_is_known_before_its_signature_is() {
    for (body, expected) in [
        (r#"{"event":"before_send_msg"}"#, true),
        (r#"{"a":1,"\u0065vent" : "before\u005fsend_msg"}"#, true),
        ("%7B%22event%22%3A%22before_send_msg%22%7D", true),
        ("appid=1&event=before_send_msg&x=y", true),
        ("%65vent=before%5fsend%5Fmsg", true),
        (r#"{"event":"send_msg"}"#, false),
        (r#"{"event":["before_send_msg"]}"#, false),
        (r#"{"event":null}"#, false),
        (r#"{"Event":"before_send_msg"}"#, false),
        (r#"{"x":"before_send_msg"}"#, false),
        ("{}", false),
        ("event=before_send_msg2", false),
        ("event=before_send_ms", false),
        ("event[]=before_send_msg", false),
        ("events=before_send_msg", false),
        ("x=1&event", false),
        ("x=before_send_msg&eve=nt", false),
    ] {
        assert_eq!(claims(body), expected, "{body}");
    }
}

#[test]
fn a_callback_with_two_events_claims_neither() {
    for body in [
        r#"{"event":"before_send_msg","event":"before_send_msg"}"#,
        r#"{"event":"before_send_msg","event":null}"#,
        "event=before_send_msg&event=before_send_msg",
        "event=before_send_msg&%65vent",
    ] {
        assert!(!claims(body), "{body}");
    }
}

#[test]
fn no_form_is_converted_to_learn_its_event() {
    let raw = raw("appid=1&event=before_send_msg");
    let json = raw.json().expect("a form");
    let callback = json.decode().expect("a form");
    assert!(callback.names_event(ASKED));
    let OtherFields::Form(form) = callback.others else {
        panic!("it is a form");
    };
    assert!(form.is_unread());
}
