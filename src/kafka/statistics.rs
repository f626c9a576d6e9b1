//! librdkafka's statistics, of which this service uses a small part.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a producer knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Brokers with an open connection.
    pub(crate) brokers_up: usize,
    /// The shortest time from a request to its response in the last second, of the broker that is
    /// farthest away. `None` without a request.
    pub(crate) round_trip: Option<Duration>,
    /// Topics that the producer has asked for or written to, with their number of partitions.
    pub(crate) partitions: Vec<(String, usize)>,
}

impl Statistics {
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
            partitions: BTreeMap<&'a str, IgnoredAny>,
        }
        /// Of records whose partition is not known yet.
        const UNASSIGNED: &str = "-1";

        let Json { brokers, topics } = serde_json::from_slice(json).ok()?;
        let is_up = |broker: &&Broker<'_>| matches!(broker.state, "UP" | "REAUTH");
        let measured = brokers.values().filter(|broker| broker.rtt.cnt > 0);
        let known = |(name, topic): (&str, Topic<'_>)| {
            let partitions = topic.partitions.keys().filter(|id| **id != UNASSIGNED);
            (name.to_owned(), partitions.count())
        };
        let partitions = topics.into_iter().map(known);
        Some(Self {
            brokers_up: brokers.values().filter(is_up).count(),
            round_trip: measured
                .map(|broker| Duration::from_micros(broker.rtt.min.unsigned_abs()))
                .max(),
            partitions: partitions.filter(|(_, count)| *count > 0).collect(),
        })
    }
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
            "a:1/1":{"state":"UP","rtt":{"min":900,"max":2000,"cnt":3}},
            "b:1/2":{"state":"UP","rtt":{"min":5000,"max":5000,"cnt":1}},
            "c:1/3":{"state":"DOWN","rtt":{"min":0,"max":0,"cnt":0}}},
            "topics":{"t":{"partitions":{"0":{"partition":0},"1":{},"-1":{}}},"new":{"partitions":{"-1":{}}}}}"#;
        let statistics = Statistics::parse(json).expect("valid");
        assert_eq!(
            statistics,
            Statistics {
                brokers_up: 2,
                round_trip: Some(Duration::from_millis(5)),
                partitions: vec![("t".to_owned(), 2)],
            }
        );
        assert_eq!(Statistics::parse(b"{}"), None);
    }
}
