//! librdkafka's statistics, of which this service uses a small part.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use serde::Deserialize;

use super::failures::parse_name;

/// What a producer knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// The name of each broker and the state of its connection.
    pub(crate) brokers: Vec<(String, String)>,
    /// The shortest time from a request to its response in the last second, of the broker that is
    /// farthest away. `None` without a request.
    pub(crate) round_trip: Option<Duration>,
    /// The topics that the producer has asked for or written to.
    pub(crate) topics: Vec<TopicStatistics>,
}

/// What a producer knows of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicStatistics {
    pub(crate) name: String,
    /// Its number of partitions; 0 until that is known.
    pub(crate) partitions: usize,
    /// The partitions that have no leader.
    pub(crate) leaderless: Vec<i32>,
}

impl Statistics {
    /// Whether any connection is open: also that to a bootstrap server, which the client library
    /// closes once it knows the brokers' own addresses.
    pub(super) fn is_any_up(&self) -> bool {
        self.brokers.iter().any(|(_, state)| is_up(state))
    }

    /// How many brokers have an open connection at the address that Kafka advertises.
    pub(super) fn brokers_up(&self) -> usize {
        let is_broker = |name: &str| matches!(parse_name(name), Some((_, true)));
        let up = (self.brokers.iter()).filter(|(name, state)| is_up(state) && is_broker(name));
        up.count()
    }

    /// Reads the JSON that librdkafka's STATISTICS.md describes. `None` if it is something else.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Json<'a> {
            #[serde(borrow)]
            brokers: BTreeMap<&'a str, Broker<'a>>,
            #[serde(borrow)]
            topics: BTreeMap<&'a str, Topic<'a>>,
        }
        #[derive(Deserialize)]
        struct Broker<'a> {
            state: &'a str,
            rtt: Window,
        }
        /// In µs.
        #[derive(Deserialize)]
        struct Window {
            min: i64,
            cnt: i64,
        }
        #[derive(Deserialize)]
        struct Topic<'a> {
            #[serde(borrow)]
            partitions: BTreeMap<&'a str, Partition>,
        }
        #[derive(Deserialize)]
        struct Partition {
            /// The number of the leader that Kafka named, negative if it named none.
            #[serde(default)]
            leader: i32,
            /// The broker that librdkafka sends to, negative if there is none.
            #[serde(default)]
            broker: i32,
        }
        /// Of records whose partition is not known yet.
        const UNASSIGNED: &str = "-1";

        let Json { brokers, topics } = serde_json::from_slice(json).ok()?;
        let measured = brokers.values().filter(|broker| broker.rtt.cnt > 0);
        let topic = |(name, topic): (&str, Topic<'_>)| {
            let partitions = topic.partitions.iter().filter(|(id, _)| **id != UNASSIGNED);
            let leaderless = partitions
                .clone()
                .filter(|(_, known)| known.leader.min(known.broker) < 0);
            let mut leaderless: Vec<i32> =
                leaderless.filter_map(|(id, _)| id.parse().ok()).collect();
            leaderless.sort_unstable();
            TopicStatistics {
                name: name.to_owned(),
                partitions: partitions.count(),
                leaderless,
            }
        };
        Some(Self {
            round_trip: measured
                .map(|broker| Duration::from_micros(broker.rtt.min.unsigned_abs()))
                .max(),
            brokers: (brokers.iter())
                .map(|(name, broker)| ((*name).to_owned(), broker.state.to_owned()))
                .collect(),
            topics: topics.into_iter().map(topic).collect(),
        })
    }
}

/// Whether a broker with a connection in this state takes requests.
pub(super) fn is_up(state: &str) -> bool {
    matches!(state, "UP" | "REAUTH")
}

/// Lets the statistics of this client cover these topics from now on, and not only once it has a
/// record for them. librdkafka keeps asking for each topic that it was asked for, so the answer is
/// not waited for.
pub(super) fn cover<'a, C: ClientContext>(
    client: &Client<C>,
    topics: impl Iterator<Item = &'a str>,
) {
    for topic in topics {
        let _no_answer_yet = client.fetch_metadata(Some(topic), Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_round_trip_and_partitions_are_read() {
        let json = br#"{"name":"x","brokers":{
            "a:1/bootstrap":{"state":"UP","rtt":{"min":700,"max":700,"cnt":1}},
            "a:1/1":{"state":"UP","rtt":{"min":900,"max":2000,"cnt":3}},
            "b:1/2":{"state":"UP","rtt":{"min":5000,"max":5000,"cnt":1}},
            "c:1/3":{"state":"DOWN","rtt":{"min":0,"max":0,"cnt":0}}},
            "topics":{"t":{"partitions":{"0":{"leader":2},"1":{"leader":-1},"10":{"leader":-1},"2":{"leader":-1},"-1":{"leader":-1}}},
            "new":{"partitions":{"-1":{"leader":-1}}}}}"#;
        let statistics = Statistics::parse(json).expect("valid");
        assert_eq!(
            statistics.brokers_up(),
            2,
            "a bootstrap server is no broker"
        );
        assert!(statistics.is_any_up());
        assert_eq!(statistics.round_trip, Some(Duration::from_millis(5)));
        let broker = ("c:1/3".to_owned(), "DOWN".to_owned());
        assert!(statistics.brokers.contains(&broker), "{statistics:?}");
        let topic = |name: &str, partitions, leaderless: &[i32]| TopicStatistics {
            name: name.to_owned(),
            partitions,
            leaderless: leaderless.to_vec(),
        };
        let expected = [topic("new", 0, &[]), topic("t", 4, &[1, 2, 10])];
        assert_eq!(statistics.topics, expected);
        assert_eq!(Statistics::parse(b"{}"), None);
    }
}
