//! How properties are written: in a file, as Java's `.properties` format has it, or as a list in a
//! variable. No crate reads the format as Java does: they lose a last line that is continued, or
//! refuse surrogate pairs.

use std::iter::Peekable;

use super::errors::{Place, Problem, PropertyError};
use super::tables::is_known;

/// A property as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) value: String,
}

/// What could be read, and every fault.
pub(super) type Entries = (Vec<Entry>, Vec<PropertyError>);

const BLANKS: [char; 3] = [' ', '\t', '\x0c'];
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// Reads a file in Java's format: comments, continued lines and escapes.
pub(super) fn file(text: &str) -> Entries {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    let text = line_feeds(text);
    let mut lines = (1..).zip(text.split('\n')).peekable();
    while let Some((number, line)) = lines.next() {
        let mut logical = line.trim_start_matches(BLANKS).to_owned();
        if logical.starts_with(['#', '!']) {
            continue;
        }
        while count_of_last_backslashes(&logical) % 2 == 1 {
            logical.pop();
            // A line that is empty but for its backslash continues nothing.
            match lines.next_if(|_| !logical.is_empty()) {
                Some((_, next)) => logical.push_str(next.trim_start_matches(BLANKS)),
                None => break,
            }
        }
        if logical.is_empty() {
            continue;
        }
        let place = Place::Line(number);
        let (key, value) = split(&logical);
        if logical.starts_with(PEM_BEGIN) {
            let problem = "a PEM text is the value of a property, such as ssl.ca.pem=…";
            faults.push(fault(place, Problem::Text(problem)));
            skip_pem(&logical, &mut lines);
            continue;
        }
        let (key, value) = (unescape(key), unescape(value));
        let named = |problem: &'static str| match &key {
            Ok(name) if is_known(name) => Problem::Value {
                name: name.clone(),
                instead: problem.to_owned(),
            },
            _ => Problem::Text(problem),
        };
        match (&key, value) {
            (Ok(_), Ok(value)) if is_open_pem(&value) => {
                let problem = "the PEM text ends with its line; write \\n\\ at the end of each of its lines but the last";
                faults.push(fault(place, named(problem)));
                skip_pem(&value, &mut lines);
            }
            (Ok(key), Ok(value)) => {
                let key = key.clone();
                entries.push(Entry { place, key, value });
            }
            (Err(problem), _) => faults.push(fault(place, Problem::Text(problem))),
            (_, Err(problem)) => faults.push(fault(place, named(problem))),
        }
    }
    (entries, faults)
}

/// Reads a list: `key=value`, separated by new lines or `;`, without escapes. Only PEM texts may have
/// more than one line.
pub(super) fn list(text: &str) -> Entries {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    let text = line_feeds(text.trim_start_matches('\u{feff}'));
    let lines = text
        .split('\n')
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', '!']));
    // A `#` behind a `;` may be a part of a password.
    let pieces = lines.flat_map(|line| line.split(';')).map(str::trim);
    let mut pieces = pieces.peekable();
    let mut number = 0;
    while let Some(piece) = pieces.next() {
        if piece.is_empty() {
            continue;
        }
        number += 1;
        let place = Place::Entry(number);
        let Some((key, value)) = piece.split_once('=') else {
            let name = piece.split([':', ' ', '\t']).next().unwrap_or_default();
            let name = is_known(name).then(|| name.to_owned());
            faults.push(fault(place, Problem::Form { name }));
            continue;
        };
        let mut value = value.trim().to_owned();
        while let Some(line) = pieces.next_if(|line| {
            let may_go_on = line.is_empty() || line.starts_with(PEM_BEGIN);
            is_open_pem(&value) || (value.contains(PEM_END) && may_go_on)
        }) {
            // An empty line ends the headers of an encrypted key.
            if is_open_pem(&value) || !line.is_empty() {
                value.push('\n');
                value.push_str(line);
            }
        }
        let key = key.trim().to_owned();
        entries.push(Entry { place, key, value });
    }
    (entries, faults)
}

/// Skips the other lines of a PEM text, and the PEM texts behind it. They are not properties, which
/// have known names or dots in them, and may be a private key.
fn skip_pem<'a>(first: &str, lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>) {
    let mut is_open = is_open_pem(first);
    while let Some((_, line)) = lines.next_if(|(_, line)| {
        let line = line.trim();
        match is_open {
            true => !line.contains('.') && !is_known(split(line).0),
            false => line.is_empty() || line.starts_with(PEM_BEGIN),
        }
    }) {
        is_open = !line.contains(PEM_END) && (is_open || line.contains(PEM_BEGIN));
    }
}

/// Whether a PEM text lacks its end.
pub(super) fn is_open_pem(text: &str) -> bool {
    text.matches(PEM_BEGIN).count() > text.matches(PEM_END).count()
}

/// Whether the text is PEM, complete or not.
pub(super) fn is_pem(text: &str) -> bool {
    text.contains(PEM_BEGIN)
}

fn fault(place: Place, problem: Problem) -> PropertyError {
    PropertyError { place, problem }
}

/// The text with every kind of line end as a line feed.
fn line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn count_of_last_backslashes(text: &str) -> usize {
    text.len() - text.trim_end_matches('\\').len()
}

/// Splits a line at the first `=`, `:` or blank that is not escaped. Blanks around it do not count.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|char| {
        let ends = !is_escaped && (char == '=' || char == ':' || BLANKS.contains(&char));
        is_escaped = !is_escaped && char == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(BLANKS))
}

/// Resolves the escapes. A backslash before any other character is dropped, as Java does.
fn unescape(text: &str) -> Result<String, &'static str> {
    const MALFORMED: &str =
        "a \\u is not followed by four hexadecimal digits; write \\\\ for a backslash";
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let is_hex = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                    units.push(unit.ok_or(MALFORMED)?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            char => char,
        };
        units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).map_err(|_| "a \\u is half of a surrogate pair; write both halves")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs((entries, faults): Entries) -> Vec<(usize, String, String)> {
        assert_eq!(faults, []);
        let pair = |entry: Entry| {
            let (Place::Line(number) | Place::Entry(number)) = entry.place;
            (number, entry.key, entry.value)
        };
        entries.into_iter().map(pair).collect()
    }

    #[track_caller]
    fn is_read_as(text: &str, expected: &[(usize, &str, &str)]) {
        let own = |(number, key, value): &(usize, &str, &str)| {
            (*number, (*key).to_owned(), (*value).to_owned())
        };
        let expected: Vec<_> = expected.iter().map(own).collect();
        assert_eq!(pairs(file(text)), expected, "{text:?}");
    }

    #[test]
    fn a_file_is_read_as_java_reads_it() {
        // Every row was compared with java.util.Properties.
        is_read_as("a=1", &[(1, "a", "1")]);
        is_read_as(
            "a:1\nb 2\nc\t3\nd\x0c4",
            &[(1, "a", "1"), (2, "b", "2"), (3, "c", "3"), (4, "d", "4")],
        );
        is_read_as(" \t a \t=\x0c 1 ", &[(1, "a", "1 ")]);
        is_read_as("a = = 1", &[(1, "a", "= 1")]);
        is_read_as("a : = 1", &[(1, "a", "= 1")]);
        is_read_as("a  b = c", &[(1, "a", "b = c")]);
        is_read_as("a==", &[(1, "a", "=")]);
        is_read_as("a=\nb", &[(1, "a", ""), (2, "b", "")]);
        is_read_as("=v", &[(1, "", "v")]);
        is_read_as("# c=1\n  ! c=2\n\n \t\na=1 # 2", &[(5, "a", "1 # 2")]);
        is_read_as(
            "a=1\rb=2\r\nc=3\n",
            &[(1, "a", "1"), (2, "b", "2"), (3, "c", "3")],
        );
    }

    #[test]
    fn a_line_is_continued_by_an_odd_number_of_backslashes() {
        is_read_as(
            "a=1\\\n  2\\\r\n\t3\nb=4",
            &[(1, "a", "123"), (4, "b", "4")],
        );
        is_read_as("a=1\\\\\nb=2", &[(1, "a", "1\\"), (2, "b", "2")]);
        is_read_as("a=1\\\\\\\n2", &[(1, "a", "1\\2")]);
        is_read_as("a=1\\\n#2", &[(1, "a", "1#2")]);
        is_read_as("a=1\\\n\nb=2", &[(1, "a", "1"), (3, "b", "2")]);
        is_read_as("# c\\\na=1", &[(2, "a", "1")]);
        is_read_as("a\\\n=1", &[(1, "a", "1")]);
        is_read_as("a=1\\", &[(1, "a", "1")]);
        is_read_as("\\\n# c=1\n \\\n\na=1", &[(5, "a", "1")]);
        is_read_as("a=1\\\n", &[(1, "a", "1")]);
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        is_read_as(r"a=\t\n\r\f\\\=\:\ \#\!", &[(1, "a", "\t\n\r\x0c\\=: #!")]);
        is_read_as(r"a\=b\:c\ d\\=1", &[(1, r"a=b:c d\", "1")]);
        is_read_as(r"a=\u00e4\u0041B\uD83D\uDE00", &[(1, "a", "äAB😀")]);
        is_read_as(r"a=\b\z\'\ü", &[(1, "a", "bz'ü")]);
        is_read_as(r"a=\  1", &[(1, "a", "  1")]);
        is_read_as("ä=ö", &[(1, "ä", "ö")]);
    }

    #[test]
    fn a_malformed_escape_is_reported_with_its_line() {
        for text in [
            r"\u12",
            r"\u12g4",
            r"\u",
            r"\u+123",
            r"\uD83D",
            r"\uDE00\uD83D",
        ] {
            let (entries, faults) = file(&format!("a=1\nb={text}\nc=2"));
            assert_eq!(entries.len(), 2, "{text}");
            assert_eq!(faults.len(), 1, "{text}");
            assert_eq!(faults[0].place, Place::Line(2), "{text}");
            assert!(matches!(faults[0].problem, Problem::Text(_)), "{text}");
        }
    }

    #[test]
    fn a_list_has_no_escapes() {
        let expected = [(1, "a", r"1\n\u0041\"), (2, "b", "x=y"), (3, "c", "z")];
        let expected = expected.map(|(number, key, value)| (number, key.into(), value.into()));
        assert_eq!(
            pairs(list("a=1\\n\\u0041\\; b = x=y ;\r\n;\n# no=1\nc=z")),
            expected
        );
    }

    #[test]
    fn an_entry_without_an_equals_sign_is_reported_by_its_number() {
        let (entries, faults) = list("a=1;#geheim\nb=2;linger.ms: 5");
        assert_eq!(entries.len(), 2);
        let form = |name: Option<&str>| Problem::Form {
            name: name.map(str::to_owned),
        };
        let expected = [(2, form(None)), (4, form(Some("linger.ms")))];
        assert_eq!(
            faults,
            expected.map(|(number, problem)| fault(Place::Entry(number), problem))
        );
    }

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB/+==\nAA==\n-----END CERTIFICATE-----";

    #[test]
    fn a_pem_text_in_a_list_keeps_its_lines() {
        let chain = format!("{PEM}\n{PEM}");
        let found = pairs(list(&format!("a=1;ssl.ca.pem={chain}\nb=2")));
        assert_eq!(found[1], (2, "ssl.ca.pem".to_owned(), chain.clone()));
        assert_eq!(found[2], (3, "b".to_owned(), "2".to_owned()));
        let found = pairs(list(&format!(
            "ssl.ca.pem={};b=2",
            chain.replace('\n', "\r\n")
        )));
        assert_eq!(found[0].2, chain);
        assert_eq!(found.len(), 2);
        let found = pairs(list(&format!("ssl.ca.pem={PEM}\n\n;\n{PEM}\n\nb=2")));
        assert_eq!(found[0].2, chain);
        assert_eq!(found[1], (2, "b".to_owned(), "2".to_owned()));
    }

    #[test]
    fn the_headers_of_an_encrypted_key_in_a_list_keep_their_end() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,A1\n\nMIIB/+==\n-----END RSA PRIVATE KEY-----";
        for written in [
            key.to_owned(),
            key.replace('\n', "\r\n"),
            key.replace('\n', "\r"),
        ] {
            let found = pairs(list(&format!("ssl.key.pem={written}\r\n\r\nb=2")));
            assert_eq!(found[0].2, key);
            assert_eq!(found[1], (2, "b".to_owned(), "2".to_owned()));
        }
    }

    #[test]
    fn a_pem_text_in_a_file_is_escaped_or_continued() {
        let escaped = PEM.replace('\n', "\\n");
        let continued = PEM.replace('\n', "\\n\\\n  ");
        for text in [escaped, continued] {
            assert_eq!(pairs(file(&format!("ssl.ca.pem={text}")))[0].2, PEM);
        }
        let (entries, faults) = file(&format!("a=1\nssl.key.pem={PEM}\nlinger.ms=2"));
        assert_eq!(entries.len(), 2);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].place, Place::Line(2));
        assert!(!faults[0].to_string().contains("MIIB"));
    }

    #[test]
    fn nothing_behind_a_raw_pem_text_in_a_file_is_skipped() {
        let cut = PEM.replace("-----END CERTIFICATE-----", "MIIC");
        for (text, first) in [
            (PEM.to_owned(), 5),
            (format!("{PEM}\n\n{PEM}"), 10),
            (PEM.replace('\n', ""), 2),
            (cut, 5),
        ] {
            for begin in ["", "ssl.ca.pem="] {
                let (entries, faults) = file(&format!("{begin}{text}\nacks=0\nlinger=1"));
                let places: Vec<_> = entries.iter().map(|entry| entry.place).collect();
                let behind = [first, first + 1].map(Place::Line);
                assert!(places.ends_with(&behind), "{begin}{text}: {places:?}");
                assert!(
                    entries.len() - 2 + faults.len() == 1,
                    "{begin}{text}: {faults:?}"
                );
            }
        }
    }
}
