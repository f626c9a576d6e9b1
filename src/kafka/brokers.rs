//! The list of bootstrap servers, checked. librdkafka drops an entry that it cannot read together
//! with all that follow, and then waits for brokers.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// The port that librdkafka uses without one.
const DEFAULT_PORT: u16 = 9092;

/// The security protocols.
pub(super) const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// An entry of the list that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {number}{}: {problem}", .entry.as_ref().map_or(String::new(), |entry| format!(" ({entry})")))]
pub struct BrokerError {
    /// The entry's position, from 1.
    number: usize,
    /// The entry; `None` if it is empty or may hold a password.
    entry: Option<String>,
    /// What is wrong with it, and what to write instead.
    problem: String,
}

/// Checks a list of brokers for a client with this security protocol, in lower case. Without one,
/// the properties are at fault, and a scheme is not compared with them. Returns the list without
/// blanks, which librdkafka would take for a part of a host or a port.
///
/// # Errors
///
/// Every entry that librdkafka would not use as it was written.
pub fn check_brokers(list: &str, protocol: Option<&str>) -> Result<String, Vec<BrokerError>> {
    let entries: Vec<_> = list.split(',').map(str::trim).collect();
    let faults = (1..).zip(&entries).filter_map(|(number, entry)| {
        let problem = parse(entry, protocol).err()?;
        let is_shown = !entry.is_empty() && !entry.contains('@');
        let entry = is_shown.then(|| entry.escape_debug().to_string());
        Some(BrokerError {
            number,
            entry,
            problem,
        })
    });
    match faults.collect::<Vec<_>>() {
        faults if faults.is_empty() => Ok(entries.join(",")),
        faults => Err(faults),
    }
}

/// Whether two lists name the same brokers.
pub(super) fn are_same(one: &str, other: &str) -> bool {
    let addresses = |list: &str| -> Option<BTreeSet<(String, u16)>> {
        let entry = |entry: &str| parse(entry.trim(), None).ok();
        list.split(',').map(entry).collect()
    };
    addresses(one).is_some_and(|one| Some(one) == addresses(other))
}

/// The host, in lower case, and the port of an entry.
fn parse(entry: &str, protocol: Option<&str>) -> Result<(String, u16), String> {
    if entry.is_empty() {
        return Err("it is empty; write host:port,host:port".to_owned());
    }
    let (scheme, address) = match entry.split_once("://") {
        Some((scheme, address)) => (Some(scheme.to_ascii_lowercase()), address),
        None => (None, entry),
    };
    if address.contains('@') {
        let instead = "write sasl.username and sasl.password into the Kafka properties";
        return Err(format!("an address has no credentials; {instead}"));
    }
    if let Some(scheme) = scheme {
        let write = address.split('/').next().unwrap_or_default();
        if !PROTOCOLS.contains(&scheme.as_str()) {
            let known = PROTOCOLS.join(", ");
            return Err(format!("the scheme is not one of {known}; write {write}"));
        }
        if let Some(protocol) = protocol.filter(|protocol| *protocol != scheme) {
            return Err(format!(
                "the scheme contradicts security.protocol={protocol}; write {write} and set the \
                 property security.protocol={scheme}, or leave the scheme out"
            ));
        }
    }
    let (host, port) = host_and_port(address)?;
    Ok((host.to_ascii_lowercase(), port))
}

fn host_and_port(address: &str) -> Result<(&str, u16), String> {
    let wrong = |problem: &str| Err(problem.to_owned());
    if address.contains('/') {
        return wrong("a broker has no path; write host:port");
    }
    if address.contains([';', ' ', '\t', '\n', '\r']) {
        return wrong("it has a blank or ; in it; separate brokers by commas");
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let Some((host, rest)) = rest.split_once(']') else {
                return wrong("the bracket is not closed; write [::1]:9092");
            };
            let zoneless = host.split_once('%').map_or(host, |(host, _)| host);
            if zoneless.parse::<Ipv6Addr>().is_err() {
                return wrong("it is not an IPv6 address; write [::1]:9092");
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return wrong("there is text after the bracket; write [::1]:9092"),
            }
        }
        None if address.matches(':').count() > 1 => {
            return wrong(
                "write an IPv6 address in brackets, as [::1]:9092, and others as host:port",
            );
        }
        None => {
            let (host, port) = match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            };
            let is_valid = |char: char| char.is_ascii_alphanumeric() || ".-_".contains(char);
            if host.is_empty() {
                return wrong("the host is missing; write host:port");
            }
            if port.is_none() && host.bytes().all(|byte| byte.is_ascii_digit()) {
                return wrong("the host is missing; write host:9092");
            }
            if !host.chars().all(is_valid) {
                return wrong("a host has only letters, digits, '.', '-' and '_'; write host:port");
            }
            (host, port)
        }
    };
    let port = match port {
        None => Some(DEFAULT_PORT),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
    };
    match port {
        Some(port @ 1..) => Ok((host, port)),
        _ => wrong("the port is not a number from 1 to 65535; write host:9092"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(list: &str, protocol: &str) -> Vec<String> {
        let faults = check_brokers(list, Some(protocol))
            .err()
            .unwrap_or_default();
        faults.iter().map(BrokerError::to_string).collect()
    }

    #[test]
    fn brokers_that_librdkafka_reads_are_accepted() {
        for list in [
            "b:9092",
            "b",
            "10.0.0.1:9092, b-2.example:9093",
            "[::1]:9092",
            "[::1]",
            "[fe80::1%eth0]:9092",
            "b_1.example.:65535",
            "PLAINTEXT://b:9092,plaintext://c",
        ] {
            assert_eq!(problems(list, "plaintext"), Vec::<String>::new(), "{list}");
        }
        assert_eq!(
            problems("Sasl_SSL://b:9092", "sasl_ssl"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn librdkafka_gets_no_blank_of_the_list() {
        for (list, given) in [
            ("a:9092,\n b:9092", "a:9092,b:9092"),
            ("a:9092,\tb:9092", "a:9092,b:9092"),
            (" kafka-1 ,kafka-2:9092\r\n", "kafka-1,kafka-2:9092"),
            ("SSL://a , [::1]:1", "SSL://a,[::1]:1"),
        ] {
            assert_eq!(check_brokers(list, Some("ssl")).as_deref(), Ok(given));
        }
    }

    #[test]
    fn entries_that_librdkafka_would_drop_or_misread_are_refused() {
        for (list, part) in [
            ("", "entry 1: it is empty"),
            ("b:9092,", "entry 2: it is empty"),
            ("a:1,,b:1", "entry 2: it is empty"),
            (":9092", "the host is missing"),
            ("plaintext://:9092", "the host is missing"),
            (
                "9092",
                "entry 1 (9092): the host is missing; write host:9092",
            ),
            ("plaintext://9092", "the host is missing"),
            ("a:9092,9093", "entry 2 (9093): the host is missing"),
            ("b:", "the port is not a number"),
            ("b:kafka", "the port is not a number"),
            ("b:0", "the port is not a number"),
            ("b:65536", "the port is not a number"),
            ("b:+9092", "the port is not a number"),
            ("[::1]:0", "the port is not a number"),
            ("a b:1", "separate brokers by commas"),
            ("a:1 b:1", "separate brokers by commas"),
            ("a:1;b:1", "separate brokers by commas"),
            ("b:9092/topic", "no path"),
            ("plaintext://b:9092/", "no path"),
            ("::", "in brackets"),
            ("::1:9092", "in brackets"),
            ("a:1:2", "in brackets"),
            ("[::1:9092", "is not closed"),
            ("[::1]9092", "after the bracket"),
            ("[b]:9092", "not an IPv6 address"),
            ("\"b:9092\"", "only letters"),
            ("${BROKER}:9092", "only letters"),
            ("bröker:9092", "only letters"),
            ("b:9092\u{0}", "the port is not a number"),
        ] {
            let problems = problems(list, "plaintext");
            assert_eq!(problems.len(), 1, "{list}: {problems:?}");
            assert!(problems[0].contains(part), "{list}: {problems:?}");
        }
    }

    #[test]
    fn a_scheme_that_librdkafka_does_not_know_is_refused_with_the_entry() {
        let problems = problems("b:1,tcp://10.0.0.1:9092,https://c:9092,://d:1", "plaintext");
        assert_eq!(problems.len(), 3);
        let first = "entry 2 (tcp://10.0.0.1:9092): the scheme is not one of plaintext, ssl, \
                     sasl_plaintext, sasl_ssl; write 10.0.0.1:9092";
        assert_eq!(problems[0], first);
        assert!(problems[1].contains("write c:9092"), "{problems:?}");
        let problem = self::tests::problems("http://c:8082/v3", "ssl").concat();
        assert!(problem.ends_with("write c:8082"), "{problem}");
        assert!(check_brokers("SSL://b,sasl_ssl://c", None).is_ok());
    }

    #[test]
    fn a_scheme_that_contradicts_the_security_protocol_is_refused() {
        let problem = problems("SSL://b:9092", "plaintext").concat();
        assert!(
            problem.contains("contradicts security.protocol=plaintext"),
            "{problem}"
        );
        assert!(
            problem.contains("set the property security.protocol=ssl"),
            "{problem}"
        );
        assert_eq!(problems("plaintext://b:9092", "sasl_ssl").len(), 1);
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_shown() {
        let problem = problems("sasl_ssl://app:geheim@b:9092", "sasl_ssl").concat();
        assert!(problem.contains("sasl.username"), "{problem}");
        assert!(!problem.contains("geheim"), "{problem}");
    }

    #[test]
    fn lists_of_the_same_brokers_are_the_same() {
        assert!(are_same("b:9092,a", "A:9092, plaintext://b"));
        assert!(!are_same("b:9092", "b:9093"));
        assert!(!are_same("b:9092", "b:9092,c"));
        assert!(!are_same("", ""));
    }
}
