//! Which addresses may send, and which proxies are trusted to name the address of a request.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Networks in CIDR notation, such as `10.0.0.0/8`. A single address is a network of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Which addresses may send, and which proxies are trusted.
#[derive(Debug, Clone, Default)]
pub struct SenderSettings {
    /// The networks that callbacks may come from; `None` for all.
    pub allowed: Option<Networks>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Networks,
}

/// Each proxy appends the address of its client to this header.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

impl Networks {
    /// Whether one of the networks contains the address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = String;

    /// Parses a list separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |part: &str| -> Option<IpNet> {
            let part = part.trim();
            let alone = || Some(part.parse::<IpAddr>().ok()?.into());
            let network = part.parse::<IpNet>().ok().or_else(alone)?;
            // 10.1.2.3/8 may be a typo of 10.1.2.3/32, and would admit more than intended.
            // IPv4-mapped addresses are compared as IPv4, so a network of them would match nothing.
            let is_mapped =
                matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
            (network.trunc() == network && !is_mapped).then_some(network)
        };
        let mistake = "write networks as 203.0.113.0/24,2001:db8::/32: an address whose bits beyond the prefix are 0";
        let networks: Option<Vec<_>> = text.split(',').map(network).collect();
        networks.map(Self).ok_or_else(|| mistake.to_owned())
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, network) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl SenderSettings {
    /// Whether a request is allowed, by the address of its connection and its headers.
    pub(super) fn allow(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let Some(allowed) = &self.allowed else {
            return true;
        };
        self.sender(peer, headers)
            .is_some_and(|sender| allowed.contain(sender))
    }

    /// The address that a request was sent from: the nearest one that is not a trusted proxy,
    /// beginning with the connection and followed by what trusted proxies have appended. `None` if
    /// one of them appended something that is not an address.
    fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut sender = peer;
        // Several fields form one list, in their order. Its empty elements are skipped, as RFC 9110
        // requires (5.6.1.2).
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let elements = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
        let hops = (elements.map(<[u8]>::trim_ascii))
            .filter(|element| !element.is_empty())
            .map(address);
        for hop in hops {
            if !self.trusted_proxies.contain(sender) {
                break;
            }
            sender = hop?;
        }
        Some(sender)
    }
}

/// Parses an address as proxies write it; some add a port.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let address: Option<IpAddr> = text.parse().ok().or_else(with_port).or_else(bracketed);
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().expect("networks")
    }

    fn sender(peer: &str, fields: &[&str]) -> Option<String> {
        let settings = SenderSettings {
            allowed: None,
            trusted_proxies: networks("10.0.0.0/8, fd00::/8"),
        };
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(X_FORWARDED_FOR, field.parse().expect("a value"));
        }
        let sender = settings.sender(peer.parse().expect("an address"), &headers);
        sender.map(|sender| sender.to_string())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let both = networks("203.0.113.0/24,2001:db8::1");
        for (address, is_in) in [
            ("203.0.113.0", true),
            ("203.0.113.255", true),
            ("203.0.114.0", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(both.contain(address), is_in, "{address}");
        }
        assert_eq!(both.to_string(), "203.0.113.0/24,2001:db8::1/128");
    }

    #[test]
    fn an_entry_that_is_not_a_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/8,",
            "host",
            "::/129",
            "::ffff:203.0.113.0/120",
            "::ffff:203.0.113.0/120",
        ] {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(
            sender("192.0.2.1", &["198.51.100.1"]),
            Some("192.0.2.1".into())
        );
        assert_eq!(sender("192.0.2.1", &["nonsense"]), Some("192.0.2.1".into()));
        assert_eq!(sender("10.0.0.1", &[]), Some("10.0.0.1".into()));
    }

    #[test]
    fn the_header_is_read_from_the_right_up_to_the_first_that_is_not_trusted() {
        // The sender can write anything to the left of it.
        let fields = ["203.0.113.9, 198.51.100.1, 10.0.0.2"];
        assert_eq!(sender("10.0.0.1", &fields), Some("198.51.100.1".into()));
        let fields = ["203.0.113.9, 198.51.100.1", "fd00::2,10.0.0.2"];
        assert_eq!(sender("10.0.0.1", &fields), Some("198.51.100.1".into()));
        // Only proxies: the sender is one of them.
        assert_eq!(sender("10.0.0.1", &["10.0.0.3"]), Some("10.0.0.3".into()));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_parsed_and_anything_else_is_no_sender() {
        for (hop, is) in [
            ("198.51.100.1:443", Some("198.51.100.1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("::ffff:198.51.100.1", Some("198.51.100.1")),
            ("unknown", None),
            ("\"198.51.100.1\"", None),
            ("for=198.51.100.1", None),
            ("198.51.100.1:", None),
            ("198.51.100.1:99999", None),
            ("fe80::1%eth0", None),
            ("198.51.100.1 198.51.100.2", None),
        ] {
            let sender = sender("10.0.0.1", &[hop]);
            assert_eq!(sender.as_deref(), is, "{hop}");
        }
    }

    #[test]
    fn empty_elements_of_the_list_are_skipped() {
        for fields in [
            &["198.51.100.1, , 10.0.0.2"][..],
            &["198.51.100.1,,\t ,10.0.0.2,"],
            &[",198.51.100.1,"],
            &["198.51.100.1", "", " , "],
            &["203.0.113.9,", ",198.51.100.1", ",10.0.0.2"],
        ] {
            let sender = sender("10.0.0.1", fields);
            assert_eq!(sender.as_deref(), Some("198.51.100.1"), "{fields:?}");
        }
        // Nothing was appended: the sender is the proxy, as without the header.
        for field in ["", " ", ",", " ,\t, "] {
            assert_eq!(sender("10.0.0.1", &[field]), Some("10.0.0.1".into()));
        }
    }

    #[test]
    fn an_element_that_cannot_be_read_is_not_skipped() {
        let settings = SenderSettings {
            allowed: None,
            trusted_proxies: networks("10.0.0.0/8"),
        };
        for last in [&b"\xff"[..], b"198.51.100.1\xa0", b"\xc2\xa0"] {
            let mut headers = HeaderMap::new();
            let value = [b"198.51.100.1, ", last].concat();
            let value = axum::http::HeaderValue::from_bytes(&value).expect("a value");
            headers.append(X_FORWARDED_FOR, value);
            let peer = "10.0.0.1".parse().expect("an address");
            assert_eq!(settings.sender(peer, &headers), None, "{last:?}");
        }
    }
}
