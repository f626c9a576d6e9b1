//! The files that properties name. librdkafka reads them again for each client: a pipe would hold up
//! the second one without end.

use std::fs::{self, File};
use std::io::{self, Read};

/// Whether the value is the path of a file.
pub(super) fn is_path(name: &str, value: &str) -> bool {
    name.ends_with(".location")
        && !value.is_empty()
        && !(is_of_authorities(name) && value == "probe")
}

/// Whether a folder may be named too.
fn is_of_authorities(name: &str) -> bool {
    name.ends_with(".ca.location")
}

/// Checks that librdkafka can read a file as often as it needs to, from its first line on.
///
/// # Errors
///
/// What to write or do instead.
pub(super) fn check(name: &str, path: &str) -> Result<(), String> {
    let unreadable = |error: io::Error| {
        format!(
            "its file cannot be read ({error}); name a file that the user of the service can read"
        )
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() && is_of_authorities(name) {
        return fs::read_dir(path).map(drop).map_err(unreadable);
    }
    if !metadata.is_file() {
        let kind = if metadata.is_dir() {
            "it is a folder"
        } else {
            "it is a pipe, a device or a socket, and several clients read it"
        };
        return Err(format!("{kind}; name a regular file"));
    }
    let mut begin = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(3).read_to_end(&mut begin).map_err(unreadable)?;
    // OpenSSL ignores the line behind it, and so the first certificate of several. A keystore is
    // not text.
    if begin == *b"\xef\xbb\xbf" && name != "ssl.keystore.location" {
        return Err("its file begins with a byte order mark; save it without one".to_owned());
    }
    Ok(())
}
