//! The brokers that the client knows, for the status page.

use super::failures::Failures;
use super::statistics::is_up;

/// A broker, for the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its `host:port`.
    pub address: String,
    /// Whether a connection to it is up.
    pub is_up: bool,
    /// Why it is not, as far as librdkafka reports it. Otherwise the state of the connection.
    pub reason: String,
}

/// A broker, as the statistics list it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) broker: String,
    /// Whether the address is one that Kafka advertises.
    pub(super) is_advertised: bool,
    /// The state of the connection.
    pub(super) state: String,
}

impl Listed {
    /// Whether a connection is being set up.
    pub(super) fn is_attempt(&self) -> bool {
        !is_up(&self.state) && !matches!(self.state.as_str(), "INIT" | "DOWN")
    }
}

/// The brokers for the status page, each address once. A bootstrap server without a failure is left
/// out once Kafka has advertised its addresses: librdkafka has ended that connection.
pub(super) fn shown(listed: &[Listed], failures: &Failures) -> Vec<Broker> {
    let knows_cluster = listed.iter().any(|listed| listed.is_advertised);
    let is_shown = |listed: &&Listed| {
        let has_news = is_up(&listed.state) || failures.of(&listed.broker).is_some();
        listed.is_advertised || has_news || !knows_cluster
    };
    let broker = |listed: &Listed| {
        let is_up = is_up(&listed.state);
        let failure = failures.of(&listed.broker).filter(|_| !is_up);
        Broker {
            address: listed.broker.clone(),
            is_up,
            reason: failure.map_or_else(|| listed.state.clone(), |why| why.without_broker()),
        }
    };
    let mut brokers: Vec<_> = listed.iter().filter(is_shown).map(broker).collect();
    // Of an address that is listed twice, the connection that is up stays.
    brokers.sort_by(|a, b| (&a.address, !a.is_up).cmp(&(&b.address, !b.is_up)));
    brokers.dedup_by(|a, b| a.address == b.address);
    brokers
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::failures::Failure;
    use super::*;

    fn listed(list: &[(&str, bool, &str)]) -> Vec<Listed> {
        let listed = list.iter().map(|(broker, is_advertised, state)| Listed {
            broker: (*broker).to_owned(),
            is_advertised: *is_advertised,
            state: (*state).to_owned(),
        });
        listed.collect()
    }

    #[test]
    fn each_broker_stands_once_with_its_reason() {
        let mut failures = Failures::default();
        let refused = "b:1/2: Connect to ipv4#10.0.0.2:1 failed: Connection refused (after 0ms in state CONNECT)";
        let failure = Failure::parse(refused).expect("a failure");
        failures.add(failure, Instant::now());
        let of = |list: &[(&str, bool, &str)]| -> Vec<(String, bool, String)> {
            let brokers = shown(&listed(list), &failures).into_iter();
            brokers
                .map(|broker| (broker.address, broker.is_up, broker.reason))
                .collect()
        };
        let row =
            |address: &str, is_up, reason: &str| (address.to_owned(), is_up, reason.to_owned());
        let reason = "connect: Connect to ipv4#10.0.0.2:1 failed: Connection refused";
        let start = [("a:1", false, "TRY_CONNECT"), ("b:1", false, "DOWN")];
        let expected = [row("a:1", false, "TRY_CONNECT"), row("b:1", false, reason)];
        assert_eq!(of(&start), expected);
        // The name of the load balancer is not a broker, and its connection has ended.
        let known = [
            ("a:1", false, "DOWN"),
            ("a:1", true, "UP"),
            ("b:1", true, "CONNECT"),
            ("balancer:1", false, "INIT"),
        ];
        let expected = [row("a:1", true, "UP"), row("b:1", false, reason)];
        assert_eq!(of(&known), expected);
    }
}
