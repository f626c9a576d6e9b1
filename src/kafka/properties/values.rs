//! What librdkafka makes of a value. It reads the digits of a number and drops the rest, and a
//! leading zero means octal: `10s` is 10 and `010` is 8. So what it has read is compared with what
//! was written.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::tables::words;

/// Why librdkafka does not read a value as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misread {
    /// librdkafka has no such property.
    Unknown,
    /// What to write instead.
    Write(String),
}

/// The value as librdkafka has it after this property was set; `None` is an empty value.
pub(super) fn read(name: &str, value: &str) -> Result<Option<String>, Misread> {
    // Creates the part of the configuration that holds the properties of topics, too.
    let mut config = ClientConfig::new();
    config.set("partitioner", "murmur2_random");
    let default = value_in(&config, name);
    let native = match config.set(name, value).create_native_config() {
        Ok(native) => native,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            return Err(Misread::Unknown);
        }
        Err(error) => {
            let instead = instead(name, default.as_deref(), &error.to_string());
            return Err(Misread::Write(instead));
        }
    };
    let read = native.get(name).ok();
    match (default.filter(|default| is_number(default)), &read) {
        (Some(default), Some(read)) if !is_same_number(name, value, read) => {
            Err(Misread::Write(write_number(name, &default, None)))
        }
        (None, Some(read)) if read != value && read == value.trim_start() => {
            let instead = "librdkafka drops the blanks in front of it";
            Err(Misread::Write(instead.to_owned()))
        }
        _ => Ok(read),
    }
}

/// The value that a configuration gives to a property; `None` if it has none.
pub(super) fn value_in(config: &ClientConfig, name: &str) -> Option<String> {
    config.create_native_config().ok()?.get(name).ok()
}

/// What to write instead of a value that librdkafka does not accept. Its message may hold the value,
/// so only the parts that cannot are used.
fn instead(name: &str, default: Option<&str>, message: &str) -> String {
    let behind = |words: &str| message.split_once(words).map(|(_, rest)| rest.trim_end());
    if message.contains("must be set through") || message.contains("not settable") {
        return "only a program can set it; leave it out".to_owned();
    }
    if message.contains("not supported in this build") || message.contains("nsupported value") {
        return "this build of librdkafka cannot do that; leave it out".to_owned();
    }
    match (words(name), default) {
        (Some(words), _) => format!("write {words}"),
        (None, Some("true" | "false")) => "write true or false".to_owned(),
        (None, Some(default)) if is_number(default) => {
            write_number(name, default, behind("outside allowed range "))
        }
        _ => "see librdkafka's CONFIGURATION.md for its values".to_owned(),
    }
}

fn write_number(name: &str, default: &str, range: Option<&str>) -> String {
    let number = if name.ends_with(".ms") {
        "milliseconds as a plain number without a unit"
    } else {
        "a plain number without a unit"
    };
    let range = range.and_then(|range| {
        let end = range.find(|char: char| !char.is_ascii_digit() && !"-.".contains(char));
        let (least, most) = range.get(..end.unwrap_or(range.len()))?.split_once("..")?;
        Some(format!(" from {least} to {most}"))
    });
    let range = range.unwrap_or_default();
    format!("write {number}{range}, such as {default}")
}

/// The only number that may have a fraction.
const FRACTION: &str = "linger.ms";

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// Whether librdkafka has read the number that was written. It returns six digits of a fraction.
fn is_same_number(name: &str, written: &str, read: &str) -> bool {
    // A word, such as `all` for `acks`. `nan` is not one.
    if written.starts_with(|char: char| char.is_ascii_alphabetic()) {
        return read.parse::<i64>().is_ok();
    }
    let (whole, fraction) = written.split_once('.').unwrap_or((written, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_plain =
        is_digits(digits) && is_digits(fraction) && (digits == "0" || !digits.starts_with('0'));
    match (written.parse::<f64>(), read.parse::<f64>()) {
        _ if !is_plain => false,
        _ if whole == written => written == read,
        (Ok(number), Ok(found)) => {
            name == FRACTION && (number - found).abs() <= number.abs() * 1e-5
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead_of(name: &str, value: &str) -> String {
        match read(name, value) {
            Err(Misread::Write(instead)) => instead,
            other => panic!("{name}={value}: {other:?}"),
        }
    }

    #[test]
    fn a_number_is_read_as_it_is_written_or_refused() {
        for (name, value) in [
            ("socket.timeout.ms", "10"),
            ("socket.timeout.ms", "300000"),
            ("linger.ms", "0"),
            ("linger.ms", "0.5"),
            ("linger.ms", "1234.5678"),
            ("linger.ms", "5.0"),
            ("linger.ms", "0.00"),
            ("linger.ms", "899999"),
            ("compression.level", "-1"),
            ("topic.metadata.refresh.interval.ms", "-1"),
            ("retries", "2147483647"),
        ] {
            assert!(read(name, value).is_ok(), "{name}={value}");
        }
        for name in [
            "socket.timeout.ms",
            "linger.ms",
            "batch.num.messages",
            "request.timeout.ms",
        ] {
            for value in [
                "10s",
                "400s",
                "60,000",
                "60.000,5",
                "60_000",
                "60 000",
                "1h",
                "5  # ms",
                "10 ms",
                "0x10",
                "010",
                "00",
                "+5",
                "1e3",
                "1e",
                "5.",
                ".5",
                "5-",
                "--5",
                "ten",
                "nan",
                "inf",
                "",
                "\"10\"",
                "4294967306",
                "99999999999999999999",
                "\u{661}\u{660}",
            ] {
                let instead = instead_of(name, value);
                assert!(
                    instead.contains("a plain number without a unit"),
                    "{value}: {instead}"
                );
            }
        }
        assert!(read("batch.num.messages", "5.5").is_err());
        assert!(read("batch.num.messages", "5.0").is_err());
        let range =
            "write milliseconds as a plain number without a unit from 10 to 300000, such as 60000";
        assert_eq!(instead_of("socket.timeout.ms", "9"), range);
    }

    #[test]
    fn words_are_read_in_any_case() {
        assert_eq!(read("acks", "ALL"), Ok(Some("-1".to_owned())));
        assert_eq!(read("enable.idempotence", "T"), Ok(Some("true".to_owned())));
        assert_eq!(
            read("security.protocol", "SASL_SSL"),
            Ok(Some("sasl_ssl".to_owned()))
        );
        assert!(read("auto.offset.reset", "earliest").is_ok());
        assert!(read("debug", "broker, security").is_ok());
        assert_eq!(
            instead_of("enable.idempotence", "yes"),
            "write true or false"
        );
        let words = "write plaintext, ssl, sasl_plaintext or sasl_ssl";
        assert_eq!(instead_of("security.protocol", "tls"), words);
        let empty = instead_of("ssl.endpoint.identification.algorithm", "");
        assert!(empty.starts_with("write none"), "{empty}");
    }

    #[test]
    fn a_text_is_read_as_it_is_written_or_refused() {
        assert_eq!(read("client.id", "010"), Ok(Some("010".to_owned())));
        assert_eq!(read("sasl.password", "a b "), Ok(Some("a b ".to_owned())));
        assert!(instead_of("sasl.password", " a").contains("blanks in front"));
        assert_eq!(read("ssl.ca.location", ""), Ok(None));
    }

    #[test]
    fn what_only_a_program_can_set_and_what_does_not_exist_is_refused() {
        assert!(instead_of("error_cb", "1").contains("only a program"));
        assert!(instead_of("ssl_key", "1").contains("only a program"));
        assert!(instead_of("sasl.oauthbearer.method", "oidc").contains("this build"));
        assert_eq!(read("no.such.property", "1"), Err(Misread::Unknown));
        assert_eq!(read("ACKS", "all"), Err(Misread::Unknown));
    }
}
