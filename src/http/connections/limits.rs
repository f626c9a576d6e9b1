//! The limits of a port's connections.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How many connections there may be, and how long they may be idle.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The most at the same time, without the reserve.
    pub connections: usize,
    /// How many more there may be while all of those are being served.
    pub reserved: usize,
    /// The most at the same time from one address, trusted proxies excepted; `None` for no limit.
    pub per_address: Option<usize>,
    /// The longest time without a byte, from the start or since the last answer.
    pub idle: Duration,
}

/// The most connections beyond `ZIM2KAFKA_MAX_CONNECTIONS`.
pub const MAX_RESERVED_CONNECTIONS: usize = 256;

/// The fewest connections beyond `ZIM2KAFKA_MAX_CONNECTIONS`.
const MIN_RESERVED_CONNECTIONS: usize = 16;

impl ConnectionLimits {
    /// The reserve for this many connections: a sixteenth, within limits.
    pub fn reserve_for(connections: usize) -> usize {
        (connections / 16).clamp(MIN_RESERVED_CONNECTIONS, MAX_RESERVED_CONNECTIONS)
    }
}

/// All addresses that share the first 64 bits of an IPv6 address count as one sender.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}
