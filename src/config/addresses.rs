//! The addresses of the two ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::Errno;

use super::ListenArgs;
use super::faults::{ConfigError, ConfigErrors, Faults, contradiction, invalid};

/// Parses the address of the callback port.
pub(super) fn callback_address(text: &str) -> Result<SocketAddr, String> {
    address(text, 8080)
}

/// Parses the address of the admin port.
pub(super) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    address(text, 9464)
}

/// Parses an address. The message contains an address with the port of `text`, or else with
/// `default_port`.
fn address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let is_url = rest.len() < text.len() || rest.contains('/');
    let rest = rest.split('/').next().unwrap_or_default();
    // An IPv6 address without its brackets contains colons too.
    let is_bare_ipv6 = rest.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    let (host, port) = match rest.rsplit_once(':') {
        _ if is_bare_ipv6 || rest.ends_with(']') => (rest, None),
        Some((host, port)) => (host, Some(port)),
        None if is_number(rest) => ("", Some(rest)),
        None => (rest, None),
    };
    let valid_port = port.and_then(|port| port.parse::<u16>().ok());
    let example = valid_port.unwrap_or(default_port);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let problem = match (port, &ip) {
        _ if is_url => "is a URL".to_owned(),
        (Some(port), _) if valid_port.is_none() && is_number(port) => {
            format!("has the port {port}, which is above 65535")
        }
        (Some(_), _) if valid_port.is_none() => "has no valid port".to_owned(),
        (_, Ok(IpAddr::V6(_))) if !host.starts_with('[') => {
            "is an IPv6 address without brackets".to_owned()
        }
        (None, Ok(_)) => "has no port".to_owned(),
        _ if host.is_empty() => "has no IP address".to_owned(),
        _ if host.contains('%') => "has a zone, which must be a number".to_owned(),
        _ if host.contains(|char: char| char.is_ascii_alphabetic()) => {
            "has a host name instead of an IP address".to_owned()
        }
        _ => "has no valid IP address".to_owned(),
    };
    let advice = match ip {
        Ok(ip) => format!("write {}", SocketAddr::new(ip, example)),
        Err(_) if host == "localhost" => format!("write 127.0.0.1:{example}"),
        Err(_) => format!(
            "write 0.0.0.0:{example} for every address of this machine, or 127.0.0.1:{example} for this machine only"
        ),
    };
    Err(format!("{text:?} {problem}; {advice}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl ListenArgs {
    /// Checks that the addresses are of this machine and that the two ports are different.
    ///
    /// # Errors
    ///
    /// If the system could not bind both.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        const CALLBACKS: &str = "ZIM2KAFKA_LISTEN";
        const ADMIN: &str = "ZIM2KAFKA_ADMIN_LISTEN";
        let (callbacks, admin) = (self.listen, self.admin.admin_listen);
        let mut faults = Faults::default();
        faults.take(check_is_local(CALLBACKS, callbacks));
        faults.take(check_is_local(ADMIN, admin));
        if overlap(callbacks, admin) {
            let free = if callbacks.port() == 9464 { 9465 } else { 9464 };
            faults.add(contradiction(
                ADMIN,
                CALLBACKS,
                format!(
                    "{admin} is the port of {CALLBACKS} ({callbacks}) too; write another port, such as {}",
                    SocketAddr::new(admin.ip(), free)
                ),
            ));
        }
        faults.finish(Some(()))
    }
}

/// Checks that an address is of this machine, whether or not its port is free.
fn check_is_local(variable: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    // An IPv6 address keeps its zone.
    let mut any_port = address;
    any_port.set_port(0);
    let Err(error) = TcpListener::bind(any_port) else {
        return Ok(());
    };
    let Some(all) = instead_of_foreign(address.ip(), &error) else {
        // Such as the limit of open files. The bind to the real port reports it.
        return Ok(());
    };
    Err(invalid(
        variable,
        format!(
            "{} is not an address of this machine ({error}); write {} for every address of it",
            address.ip(),
            SocketAddr::new(all, address.port())
        ),
    ))
}

/// What to bind instead of an address that this machine does not have; `None` if the error has
/// another reason.
fn instead_of_foreign(ip: IpAddr, error: &io::Error) -> Option<IpAddr> {
    match Errno::from_io_error(error)? {
        Errno::ADDRNOTAVAIL if ip.is_ipv6() => Some(Ipv6Addr::UNSPECIFIED.into()),
        // Without IPv6, or a link-local address without its zone or with one that does not exist.
        Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::INVAL | Errno::NODEV => {
            Some(Ipv4Addr::UNSPECIFIED.into())
        }
        _ => None,
    }
}

/// Whether the system refuses to bind the second of these. Port 0 stands for any free port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // `::` accepts connections to IPv4 addresses too.
    let covers = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_contains_the_address_to_write() {
        const ALL: &str = "write 0.0.0.0:8080 for every address of this machine, or 127.0.0.1:8080 for this machine only";
        for (text, problem, advice) in [
            ("8080", "has no IP address", ALL),
            (":8080", "has no IP address", ALL),
            ("*:8080", "has no valid IP address", ALL),
            ("", "has no IP address", ALL),
            (
                "localhost:8080",
                "has a host name instead of an IP address",
                "write 127.0.0.1:8080",
            ),
            (
                "localhost",
                "has a host name instead of an IP address",
                "write 127.0.0.1:8080",
            ),
            (
                "localhost:99",
                "has a host name instead of an IP address",
                "write 127.0.0.1:99",
            ),
            (
                "service.example:8080",
                "has a host name instead of an IP address",
                ALL,
            ),
            ("0.0.0.0", "has no port", "write 0.0.0.0:8080"),
            ("0.0.0.0:", "has no valid port", "write 0.0.0.0:8080"),
            ("0.0.0.0:http", "has no valid port", "write 0.0.0.0:8080"),
            ("0.0.0.0:-1", "has no valid port", "write 0.0.0.0:8080"),
            ("10.0.0.1", "has no port", "write 10.0.0.1:8080"),
            ("[::]", "has no port", "write [::]:8080"),
            (
                "::",
                "is an IPv6 address without brackets",
                "write [::]:8080",
            ),
            (
                "::1",
                "is an IPv6 address without brackets",
                "write [::1]:8080",
            ),
            ("http://0.0.0.0:8080", "is a URL", "write 0.0.0.0:8080"),
            ("https://[::1]:99/zim", "is a URL", "write [::1]:99"),
            ("http://localhost/", "is a URL", "write 127.0.0.1:8080"),
            ("0.0.0.0:8080/zim", "is a URL", "write 0.0.0.0:8080"),
            (
                "0.0.0.0:65536",
                "has the port 65536, which is above 65535",
                "write 0.0.0.0:8080",
            ),
            ("70000", "has the port 70000, which is above 65535", ALL),
            ("256.0.0.1:8080", "has no valid IP address", ALL),
        ] {
            let expected = format!("{text:?} {problem}; {advice}");
            assert_eq!(callback_address(text), Err(expected));
        }
        let admin = admin_address("127.0.0.1").expect_err("no port");
        assert!(admin.ends_with("write 127.0.0.1:9464"), "{admin}");
    }

    #[test]
    fn an_address_is_an_ip_address_and_a_port() {
        for text in ["0.0.0.0:8080", "127.0.0.1:0", "[::]:8080", "[::1]:1"] {
            let address = callback_address(text).map(|address| address.to_string());
            assert_eq!(address.as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_address_that_this_machine_does_not_have_is_refused_whether_its_port_is_free_or_not() {
        let check = |address: &str| {
            let address = address.parse().expect("an address");
            check_is_local("LISTEN", address).map_err(|error| error.to_string())
        };
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let taken = taken.local_addr().expect("it is bound");
        for address in [
            "0.0.0.0:80",
            "127.0.0.1:1",
            "127.0.0.2:0",
            &taken.to_string(),
        ] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        // Addresses for documentation, which no machine has; a link-local one without a zone, and
        // with one that no machine has.
        for (address, ip, reason, write) in [
            ("192.0.2.1:80", "192.0.2.1", "Cannot assign", "0.0.0.0:80"),
            ("[2001:db8::1]:80", "2001:db8::1", "", ""),
            ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1", "", ""),
            ("[fe80::1]:80", "fe80::1", "", "0.0.0.0:80"),
            ("[fe80::1%4000000]:80", "fe80::1", "", "0.0.0.0:80"),
        ] {
            let problem = check(address).expect_err(address);
            let beginning = format!("LISTEN: {ip} is not an address of this machine ({reason}");
            assert!(problem.starts_with(&beginning), "{problem}");
            let write = format!("{write} for every address of it");
            assert!(problem.ends_with(&write), "{problem}");
        }
    }

    #[test]
    fn a_machine_without_ipv6_gets_the_advice_to_use_ipv4() {
        let all = |ip: &str, error: Errno| {
            let ip = ip.parse().expect("an IP address");
            instead_of_foreign(ip, &error.into()).map(|ip| ip.to_string())
        };
        for (ip, error, expected) in [
            ("::", Errno::AFNOSUPPORT, Some("0.0.0.0")),
            ("fe80::1", Errno::INVAL, Some("0.0.0.0")),
            ("fe80::1", Errno::NODEV, Some("0.0.0.0")),
            ("2001:db8::1", Errno::ADDRNOTAVAIL, Some("::")),
            ("192.0.2.1", Errno::ADDRNOTAVAIL, Some("0.0.0.0")),
            ("127.0.0.1", Errno::ADDRINUSE, None),
            ("127.0.0.1", Errno::MFILE, None),
            ("127.0.0.1", Errno::ACCESS, None),
        ] {
            assert_eq!(all(ip, error).as_deref(), expected, "{ip}: {error}");
        }
    }

    #[test]
    fn addresses_overlap_if_the_system_cannot_bind_both() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let [a, b] = [one, other].map(|text| text.parse().expect("an address"));
            assert_eq!(overlap(a, b), expected, "{one} {other}");
            assert_eq!(overlap(b, a), expected, "{other} {one}");
        }
    }
}
