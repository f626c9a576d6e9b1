//! What an inspection reports, apart from the settings of a topic. Pure.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::CreateTopics;
use crate::finding::{Finding, Step};

/// How long brokers remember a producer unless they are told otherwise: the default of
/// `producer.id.expiration.ms`.
pub(super) const DEFAULT_PRODUCER_EXPIRATION: Duration = Duration::from_secs(86_400);

/// The code for a topic that does not exist.
pub(super) const TOPIC_MISSING: RDKafkaErrorCode = RDKafkaErrorCode::UnknownTopicOrPartition;

/// What is missing without the settings, and what to do.
pub(super) const UNJUDGED: &str = "so it is not known whether they delete, change or reject acknowledged records; grant the right DescribeConfigs on it";

/// Whether Kafka has an answer like this for a topic that has just been created.
pub(super) fn is_of_new_topic(code: RDKafkaErrorCode) -> bool {
    matches!(code, TOPIC_MISSING | RDKafkaErrorCode::LeaderNotAvailable)
}

/// Why Kafka does not describe a topic. `is_created`: the service has just created it if it was
/// missing.
pub(super) fn undescribed(name: &str, code: RDKafkaErrorCode, is_created: bool) -> Finding {
    let reason = reason_of(code);
    let (step, text) = match code {
        TOPIC_MISSING if is_created => (
            Step::Topic,
            "the topic was created, but brokers do not report it yet; if this lasts, check the right Describe on it".to_owned(),
        ),
        TOPIC_MISSING => (
            Step::Topic,
            format!(
                "the topic does not exist (topic: {reason}); create it, or set ZIM2KAFKA_CREATE_TOPICS=true"
            ),
        ),
        RDKafkaErrorCode::LeaderNotAvailable => (
            Step::Topic,
            format!(
                "the topic has no leaders yet, as just after its creation (topic: {reason}); if this lasts, check that all brokers run"
            ),
        ),
        code if is_denied(code) => (
            Step::Authorization,
            format!(
                "cannot describe the topic (authorization: {reason}); grant the service's user the right Describe on it"
            ),
        ),
        _ => (
            Step::Topic,
            format!("cannot describe the topic (topic: {reason}); check the logs of the brokers"),
        ),
    };
    Finding::error(name, text).at(step)
}

/// librdkafka's text for a code, such as `Broker: Unknown topic or partition`.
fn reason_of(code: RDKafkaErrorCode) -> String {
    // rust-rdkafka puts its own name for the code in front of it.
    let text = code.to_string();
    let reason = text
        .split_once(" (")
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    reason.unwrap_or(&text).to_owned()
}

/// Whether the user lacks a right.
fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// Why a missing topic cannot be created.
pub(super) fn not_created(name: &str, error: &KafkaError) -> Finding {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    let reason = code.map_or_else(|| error.to_string(), reason_of);
    let (step, advice) = match code {
        Some(code) if is_denied(code) => (
            Step::Authorization,
            "grant the service's user the right Create on it, or create it yourself",
        ),
        Some(RDKafkaErrorCode::InvalidReplicationFactor) => (
            Step::Topic,
            "set ZIM2KAFKA_TOPIC_REPLICATION to at most the number of brokers",
        ),
        _ => (Step::Topic, "create it yourself"),
    };
    let text = format!("cannot create the topic ({step}: {reason}); {advice}");
    Finding::error(name, text).at(step)
}

/// A topic that the service cannot write to.
pub(super) fn not_writable(name: &str) -> Finding {
    let text = "is not writable (authorization: Kafka lists no right Write); grant the service's user the right Write on it";
    Finding::error(name, text).at(Step::Authorization)
}

/// A missing topic that `serve` creates.
pub(super) fn to_be_created(name: &str, create: CreateTopics) -> Vec<Finding> {
    let text = format!(
        "does not exist; serve creates it with {} partitions",
        create.partitions
    );
    let replicas = create.replication.and_then(|number| number.try_into().ok());
    let replication = replicas.map(|replicas| judge_replication(name, replicas));
    [Finding::ok(name, text)]
        .into_iter()
        .chain(replication)
        .collect()
}

/// How many copies there are of a record.
pub(super) fn judge_replication(name: &str, replicas: usize) -> Finding {
    match replicas {
        0..3 => Finding::warning(
            name,
            format!(
                "replication factor {replicas}: an acknowledged record has fewer than 3 copies; use 3"
            ),
        ),
        replicas => Finding::ok(name, format!("replication factor {replicas}")),
    }
}

/// Why the request for the settings of a topic failed. It goes to another broker than those before
/// it.
pub(super) fn unread(name: &str, error: &KafkaError) -> Finding {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    match code {
        Some(
            RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::TimedOutQueue,
        ) => Finding::error(
            name,
            format!(
                "cannot read its settings ({error}): a broker does not answer at the address that it advertises; check advertised.listeners of all brokers, and the network"
            ),
        ),
        _ => Finding::warning(
            name,
            format!("Kafka does not return its settings ({error}), {UNJUDGED}"),
        ),
    }
}

/// A record may wait for the requests before it, and is written by the broker: with less than three
/// round trips of time, events would be written to the spool while Kafka works.
pub(super) fn judge_round_trip(round_trip: Duration, spool_after: Option<Duration>) -> Finding {
    let needed = 3 * round_trip;
    let milliseconds = round_trip.as_millis().max(1);
    match spool_after.filter(|after| needed > *after && !after.is_zero()) {
        None => Finding::ok("Kafka", format!("answers a request in {milliseconds} ms")),
        Some(after) => Finding::warning(
            "Kafka",
            format!(
                "a request takes {milliseconds} ms; three take longer than ZIM2KAFKA_SPOOL_AFTER ({} ms), so events go to the spool while Kafka works; set it to {}ms or more",
                after.as_millis(),
                2 * needed.as_millis()
            ),
        ),
    }
}

/// Kafka refuses a record that comes after a missing one only if it remembers the producer. If it
/// forgets one, the events of a group cannot leave the spool in large requests.
pub(super) fn judge_producer_expiration(expiration: Duration, has_spool: bool) -> Option<Finding> {
    (has_spool && expiration < DEFAULT_PRODUCER_EXPIRATION).then(|| {
        Finding::warning(
            "Kafka",
            format!(
                "producer.id.expiration.ms is {}: events of a group that have waited in the spool for half of that time are published one by one; set it to {} on the brokers",
                expiration.as_millis(),
                DEFAULT_PRODUCER_EXPIRATION.as_millis()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    #[test]
    fn settings_that_cannot_be_read_are_reported_with_what_to_do() {
        use RDKafkaErrorCode as Code;
        for (code, level, text) in [
            (
                Code::TopicAuthorizationFailed,
                Level::Warning,
                "DescribeConfigs",
            ),
            (
                Code::OperationTimedOut,
                Level::Error,
                "advertised.listeners",
            ),
            (Code::Resolve, Level::Error, "advertised.listeners"),
            (Code::UnsupportedFeature, Level::Warning, "it is not known"),
        ] {
            let finding = unread("t", &KafkaError::AdminOp(code));
            assert_eq!(
                (finding.level, finding.subject.as_str()),
                (level, "t"),
                "{code}"
            );
            assert!(finding.text.contains(text), "{}", finding.text);
        }
    }

    #[test]
    fn a_kafka_that_is_too_far_away_for_the_time_before_the_spool_is_a_warning() {
        let ms = Duration::from_millis;
        for (round_trip, after, is_warning) in [
            (90, Some(250), true),
            (83, Some(250), false),
            (90, Some(0), false),
            (90, None, false),
        ] {
            let finding = judge_round_trip(ms(round_trip), after.map(ms));
            let is_found = finding.level == Level::Warning;
            assert_eq!(is_found, is_warning, "{round_trip} {after:?}");
        }
        let finding = judge_round_trip(ms(83), None);
        assert_eq!(finding, Finding::ok("Kafka", "answers a request in 83 ms"));
        let finding = judge_round_trip(ms(90), Some(ms(250)));
        assert!(finding.text.contains("540ms"), "{}", finding.text);
    }

    #[test]
    fn a_finding_about_the_spool_needs_a_spool() {
        for (seconds, has_spool, is_warning) in [
            (86_399, true, true),
            (86_399, false, false),
            (86_400, true, false),
        ] {
            let finding = judge_producer_expiration(Duration::from_secs(seconds), has_spool);
            assert_eq!(finding.is_some(), is_warning, "{seconds} {has_spool}");
        }
    }

    #[test]
    fn a_topic_that_kafka_does_not_describe_is_an_error_with_what_to_do() {
        use RDKafkaErrorCode as Code;
        for (code, is_created, is_new, text) in [
            (
                TOPIC_MISSING,
                false,
                true,
                "create it, or set ZIM2KAFKA_CREATE_TOPICS=true",
            ),
            (TOPIC_MISSING, true, true, "brokers do not report it yet"),
            (Code::LeaderNotAvailable, true, true, "no leaders yet"),
            (
                Code::LeaderNotAvailable,
                false,
                true,
                "check that all brokers run",
            ),
            (
                Code::TopicAuthorizationFailed,
                true,
                false,
                "(authorization: Broker: Topic authorization failed); grant the service's user the right Describe on it",
            ),
            (
                Code::InvalidTopic,
                false,
                false,
                "(topic: Broker: Invalid topic); check the logs",
            ),
        ] {
            let finding = undescribed("t", code, is_created);
            assert_eq!(
                (finding.level, finding.subject.as_str()),
                (Level::Error, "t")
            );
            assert!(finding.text.contains(text), "{code}: {}", finding.text);
            assert_eq!(is_of_new_topic(code), is_new, "{code}");
        }
    }

    #[test]
    fn a_topic_that_cannot_be_created_gets_advice_by_the_reason() {
        use RDKafkaErrorCode as Code;
        for (code, step, text) in [
            (
                Code::TopicAuthorizationFailed,
                Step::Authorization,
                "(authorization: Broker: Topic authorization failed); grant the service's user the right Create",
            ),
            (
                Code::InvalidReplicationFactor,
                Step::Topic,
                "(topic: Broker: Invalid replication factor); set ZIM2KAFKA_TOPIC_REPLICATION",
            ),
            (
                Code::PolicyViolation,
                Step::Topic,
                "(topic: Broker: Policy violation); create it yourself",
            ),
        ] {
            let finding = not_created("t", &KafkaError::AdminOp(code));
            assert_eq!((finding.level, finding.step), (Level::Error, Some(step)));
            let begin = format!("cannot create the topic {text}");
            assert!(finding.text.starts_with(&begin), "{}", finding.text);
        }
    }

    #[test]
    fn a_topic_that_serve_creates_is_judged_as_far_as_it_is_known() {
        for (replication, level) in [
            (None, None),
            (Some(1), Some(Level::Warning)),
            (Some(3), Some(Level::Ok)),
        ] {
            let create = CreateTopics {
                partitions: 7,
                replication,
            };
            let findings = to_be_created("t", create);
            assert_eq!(findings[0].level, Level::Ok);
            assert!(
                findings[0]
                    .text
                    .ends_with("serve creates it with 7 partitions")
            );
            assert_eq!(findings.get(1).map(|finding| finding.level), level);
        }
    }
}
