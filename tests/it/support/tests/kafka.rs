//! What `support::kafka` promises.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{SOON, publish};
use crate::support::kafka::{Cluster, SaslSsl, TestRecord, kafka, now, shared_cluster};

#[test]
fn a_record_is_read_as_it_was_published() {
    let Some(kafka) = kafka() else { return };
    let topic = kafka.unique_topic("support");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "1000000")]);
    assert_eq!(kafka.read_all(&topic), []);

    let before = now();
    publish(&kafka.client(), &topic, "a key").expect("it is published");
    let read = kafka.read_until(&topic, 1, SOON);
    let timestamp = read[0].timestamp;
    assert!((before..=now()).contains(&timestamp), "{timestamp}");
    let published = TestRecord {
        partition: 0,
        offset: 0,
        timestamp,
        key: Some(b"a key".to_vec()),
        headers: vec![
            ("first".to_owned(), b"1".to_vec()),
            ("second".to_owned(), b"zwei".to_vec()),
        ],
        value: b"value".to_vec(),
    };
    assert_eq!(published.header("second"), Some("zwei".as_bytes()));
    assert_eq!(kafka.read_all(&topic), read);
    assert_eq!(read, [published]);
    assert_eq!(kafka.ends(&topic, [0]), [(0, 1)].into());
}

#[test]
fn the_secure_listener_wants_the_password_and_the_certificate() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let topic = cluster.unique_topic("support-secure");
    cluster.create_topic(&topic, 1, &[]);
    let secure = cluster.sasl_ssl();
    let client = |mechanism| {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &secure.brokers);
        let properties = secure.properties(mechanism);
        client.extend(properties.map(|(name, value)| (name.to_owned(), value)));
        client
    };
    for mechanism in SaslSsl::MECHANISMS {
        publish(&client(mechanism), &topic, mechanism).expect("it is published");
    }
    let keys: Vec<_> = cluster
        .read_all(&topic)
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(
        keys,
        SaslSsl::MECHANISMS.map(|mechanism| Some(mechanism.as_bytes().to_vec()))
    );

    let answers = |client: &ClientConfig| {
        let client: BaseConsumer = client.create().expect("the settings are sound");
        client.fetch_metadata(None, Duration::from_secs(2)).is_ok()
    };
    let mut client = client("SCRAM-SHA-256");
    assert!(answers(&client));
    assert!(
        !answers(client.clone().set("sasl.password", "another")),
        "any password will do"
    );
    assert!(
        !answers(client.remove("ssl.ca.location")),
        "any certificate will do"
    );
}

#[test]
fn an_acl_stops_the_sasl_user_and_nobody_else_until_it_is_taken_back() {
    let Some(cluster) = shared_cluster() else {
        return;
    };
    let topic = cluster.unique_topic("support-acl");
    cluster.create_topic(&topic, 1, &[]);
    let mut client = ClientConfig::new();
    let secure = cluster.sasl_ssl();
    client
        .set("bootstrap.servers", &secure.brokers)
        .set("enable.idempotence", "true");
    client.extend(
        secure
            .properties("SCRAM-SHA-256")
            .map(|(name, value)| (name.to_owned(), value)),
    );

    let becomes = |wanted: Option<RDKafkaErrorCode>| {
        let deadline = Instant::now() + SOON;
        loop {
            let result = publish(&client, &topic, "secure");
            if result
                .as_ref()
                .err()
                .and_then(KafkaError::rdkafka_error_code)
                == wanted
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{result:?} instead of {wanted:?}"
            );
        }
    };
    becomes(None);
    cluster.deny(&topic, "WRITE");
    becomes(Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    publish(&cluster.client(), &topic, "plain").expect("the plain listener is not concerned");
    cluster.allow_again(&topic, "WRITE");
    becomes(None);
}

#[test]
fn a_killed_broker_comes_back_with_its_records_on_the_same_address() {
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    let topic = cluster.unique_topic("support-outage");
    cluster.create_topic(&topic, 1, &[]);
    publish(&cluster.client(), &topic, "before").expect("it is published");
    let mut client = cluster.client();
    client.set("message.timeout.ms", "1000");

    let keys = thread::scope(|scope| {
        // Begun before the outage, ended after it: a start of Kafka is part of the time.
        let reader = scope.spawn(|| cluster.read_until(&topic, 2, 5 * SOON));
        cluster.stop(1);
        publish(&client, &topic, "while it is gone").expect_err("nobody is there");
        cluster.start_again(1);
        publish(&cluster.client(), &topic, "after").expect("it is published");
        let records = reader.join().expect("it reads to the end");
        records
            .into_iter()
            .map(|record| record.key)
            .collect::<Vec<_>>()
    });
    assert_eq!(keys, [Some(b"before".to_vec()), Some(b"after".to_vec())]);

    cluster.freeze(1);
    publish(&client, &topic, "while it is frozen").expect_err("nobody answers");
    cluster.thaw(1);
    publish(&cluster.client(), &topic, "thawed").expect("it is published");
}

#[test]
fn a_cluster_of_three_serves_on_while_one_is_gone() {
    let Some(cluster) = Cluster::exclusive(3) else {
        return;
    };
    let topic = cluster.unique_topic("support-three");
    cluster.create_topic(&topic, 3, &[]);
    publish(&cluster.client(), &topic, "three").expect("it is published");
    cluster.stop(2);
    publish(&cluster.client(), &topic, "two").expect("it is published");
    cluster.start_again(2);
    publish(&cluster.client(), &topic, "three again").expect("it is published");
    assert_eq!(cluster.read_all(&topic).len(), 3);
}

#[test]
fn nothing_of_a_cluster_stays_behind_when_it_ends() {
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    let folder = cluster
        .sasl_ssl()
        .ca_pem
        .parent()
        .expect("it lies in the cluster's folder")
        .to_owned();
    let address = cluster.brokers().to_owned();
    assert!(folder.is_dir());
    assert!(std::net::TcpStream::connect(&address).is_ok());
    cluster.end();
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn a_cluster_that_is_given_back_serves_and_passes_whatever_was_done_to_it() {
    let Some(cluster) = Cluster::exclusive(1) else {
        return;
    };
    // Three ways to leave it unusable.
    cluster.stop(1);
    cluster.restore().expect("a killed broker serves again");
    cluster.freeze(1);
    cluster.restore().expect("a frozen broker serves again");
    cluster.proxy(1).refuse();
    cluster.restore().expect("nothing is wrong with the broker");
    let topic = cluster.unique_topic("support-restored");
    cluster.create_topic(&topic, 1, &[]);
    let mut client = cluster.client();
    client.set("bootstrap.servers", cluster.proxied());
    publish(&client, &topic, "passed").expect("it is published");
}
