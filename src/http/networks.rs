//! Which networks may send, and whom we believe about where a request comes from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Networks in CIDR notation, such as `10.0.0.0/8`; an address alone is a network of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Who may send, and whom we believe about who sends.
#[derive(Debug, Clone, Default)]
pub struct SenderSettings {
    /// The networks that callbacks may come from; none for all.
    pub allowed: Option<Networks>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
}

/// Where each proxy adds the address that it was called from, at the end.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

impl Networks {
    /// Whether one of them contains the address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = String;

    /// Reads a list separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |part: &str| -> Option<IpNet> {
            let part = part.trim();
            let alone = || Some(part.parse::<IpAddr>().ok()?.into());
            let network = part.parse::<IpNet>().ok().or_else(alone)?;
            // 10.1.2.3/8 may be a slip for 10.1.2.3/32, and would let in more than was meant. Addresses
            // of IPv4 in those of IPv6 are taken for what they are, so a network of them has none.
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
    /// Whether a request may come in, by the address of its connection and by its header.
    pub(super) fn allow(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let Some(allowed) = &self.allowed else {
            return true;
        };
        self.sender(peer, headers)
            .is_some_and(|sender| allowed.contain(sender))
    }

    /// The address that a request was sent from, as far as it can be believed: the last that is no
    /// trusted proxy's, read from the connection back through what trusted proxies have added. None
    /// where one of them has added what is no address.
    fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut sender = peer;
        // Several fields are one list, in the order in which they stand.
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = fields.flat_map(|field| {
            let text = field.to_str().unwrap_or_default();
            text.rsplit(',').map(address)
        });
        for hop in hops {
            if !self.trusted_proxies.contain(sender) {
                break;
            }
            sender = hop?;
        }
        Some(sender)
    }
}

/// An address as proxies write it: some add a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
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
    fn what_is_no_network_is_refused() {
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
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(
            sender("192.0.2.1", &["198.51.100.1"]),
            Some("192.0.2.1".into())
        );
        assert_eq!(sender("192.0.2.1", &["nonsense"]), Some("192.0.2.1".into()));
        assert_eq!(sender("10.0.0.1", &[]), Some("10.0.0.1".into()));
    }

    #[test]
    fn the_header_is_read_from_the_right_up_to_the_first_that_is_not_trusted() {
        // What stands left of it is what the sender wrote itself.
        let fields = ["203.0.113.9, 198.51.100.1, 10.0.0.2"];
        assert_eq!(sender("10.0.0.1", &fields), Some("198.51.100.1".into()));
        let fields = ["203.0.113.9, 198.51.100.1", "fd00::2,10.0.0.2"];
        assert_eq!(sender("10.0.0.1", &fields), Some("198.51.100.1".into()));
        // Proxies all the way: the sender is one of them.
        assert_eq!(sender("10.0.0.1", &["10.0.0.3"]), Some("10.0.0.3".into()));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_read_and_nonsense_is_nobody() {
        for (hop, is) in [
            ("198.51.100.1:443", Some("198.51.100.1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("::ffff:198.51.100.1", Some("198.51.100.1")),
            ("unknown", None),
            ("", None),
            ("198.51.100.1 198.51.100.2", None),
        ] {
            let sender = sender("10.0.0.1", &[hop]);
            assert_eq!(sender.as_deref(), is, "{hop}");
        }
    }
}
