//! `ZIM2KAFKA_TEST_KAFKA=off`: what was left out is said, and at the end.

use std::env;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::support::start::Start;

/// Whether the tests that need Kafka are to run. Where they are not, the calling one is noted.
///
/// # Panics
///
/// When the variable holds anything but `off`: a mistyped one must not decide either way.
#[track_caller]
pub(crate) fn is_wanted() -> bool {
    match env::var("ZIM2KAFKA_TEST_KAFKA").as_deref() {
        Err(env::VarError::NotPresent) | Ok("") => true,
        Ok("off") => {
            note();
            false
        }
        other => panic!("ZIM2KAFKA_TEST_KAFKA may be `off` or not set, it is {other:?}"),
    }
}

/// libtest reports a test that was left out as passed, hides what it prints, and has no hook at the
/// end. So a shell, which holds one end of a pipe, collects the names and tells them when the pipe
/// closes: when this process has ended, after libtest's summary, on the real stderr, also when
/// tests failed.
fn note() {
    static TELLER: Mutex<Option<Child>> = Mutex::new(None);
    let mut teller = TELLER.lock().unwrap_or_else(PoisonError::into_inner);
    let teller = teller.get_or_insert_with(|| {
        Command::new("sh")
            .args(["-c", TELL])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .start()
            .expect("`sh` can be run")
    });
    // libtest names the thread after its test.
    let thread = thread::current();
    let name = thread.name().unwrap_or("a test on a thread without a name");
    let names = teller.stdin.as_mut().expect("its stdin is a pipe");
    writeln!(names, "{name}").expect("it reads to the end");
}

const TELL: &str = r#"
trap '' HUP INT TERM
names=$(sort -u)
printf '\nZIM2KAFKA_TEST_KAFKA=off: %s tests need a real Apache Kafka and were left out, not passed:\n' \
    "$(printf '%s\n' "$names" | wc -l)" >&2
printf '%s\n' "$names" | sed 's/^/    /' >&2
"#;
