//! The cost of a form before authentication, compared with JSON of the same size.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit};

use super::load::{APPID, SECRET};

/// No form may cost more than this many times the JSON.
const MAX_RATIO: f64 = 3.0;

const SIZES: [usize; 3] = [2_000, 20_000, 500_000];
const TIMES: usize = 50;

/// Prints a table, and panics if a form costs too much.
pub(crate) fn measure() {
    println!(
        "| form | bytes | fields | µs | JSON, µs | ratio |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    let mut worst: f64 = 0.0;
    for bytes in SIZES {
        for (name, field) in [
            ("one long value", "&a=".to_owned() + &"x".repeat(bytes)),
            ("one long name", "&n".to_owned() + &"x".repeat(bytes)),
            (
                "one encoded value",
                "&a=".to_owned() + &"%41".repeat(bytes / 3),
            ),
            (
                "one encoded name",
                "&".to_owned() + &"%6e".repeat(bytes / 3),
            ),
            ("deep brackets", "&a".to_owned() + &"[0]".repeat(bytes / 3)),
            (
                "the longest appid",
                "&appid=".to_owned() + &"%31".repeat(128),
            ),
            (
                "a long nonce",
                "&nonce=".to_owned() + &"%31".repeat(bytes / 3),
            ),
            ("many empty fields", "&".to_owned()),
            ("many short fields", "&a=".to_owned()),
            ("many longer fields", "&a=xxxxxxxxxxxxxxxxx".to_owned()),
            (
                "many names like nonce",
                "&nonce[1111111111111111111".to_owned(),
            ),
            (
                "many encoded names like nonce",
                "&%6e%6f%6e%63%65%5b%31".to_owned(),
            ),
        ] {
            // One signed field alone is not repeated.
            let fields = match name {
                "the longest appid" => 1,
                _ => bytes.div_ceil(field.len()),
            };
            let form = format!("timestamp=1757577600{}", field.repeat(fields));
            let members = fields.min(zim2kafka::callback::MAX_FORM_FIELDS);
            let json = json_of(form.len(), members);
            let (form_time, json_time) = (time(&form), time(&json));
            let ratio = form_time / json_time;
            worst = worst.max(ratio);
            println!(
                "| {name} | {} | {fields} | {form_time:.1} | {json_time:.1} | {ratio:.2} |",
                form.len()
            );
        }
    }
    assert!(worst <= MAX_RATIO, "a form costs {worst:.1} times the JSON");
}

/// An object of this many members, and of as many bytes unless they need more.
fn json_of(bytes: usize, members: usize) -> String {
    let value = "x".repeat((bytes / members).saturating_sub(r#","a":"""#.len()));
    let members = format!(r#","a":"{value}""#).repeat(members);
    format!(r#"{{"timestamp":"1757577600"{members}}}"#)
}

/// The shortest time that a body costs until it is refused, in µs.
fn time(body: &str) -> f64 {
    let secrets = Secrets::parse_list(&format!("{APPID}={SECRET}")).expect("valid");
    let raw = RawCallback {
        body: Bytes::copy_from_slice(body.as_bytes()),
        content_type: None,
        trace: None,
        received_at: 0,
    };
    let once = || {
        let began = Instant::now();
        let refused = match raw.json().expect("JSON or a form").decode() {
            Ok(callback) => (secrets.authenticate(callback, TimestampUnit::Auto)).is_err(),
            Err(_) => true,
        };
        assert!(black_box(refused), "it is not signed");
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..TIMES).map(|_| once()).fold(f64::INFINITY, f64::min)
}
