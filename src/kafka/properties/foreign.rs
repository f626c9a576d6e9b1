//! Names of properties that other clients of Kafka have, and what to write instead.

use super::tables::{is_known, matches, plain};

/// What to write instead of a name that librdkafka does not know, if it is known elsewhere.
pub(super) fn instead_of(name: &str) -> Option<String> {
    let plain = plain(name);
    if is_known(&plain) {
        return (plain != name).then(|| format!("write {plain}"));
    }
    let found = FOREIGN.iter().find(|(foreign, _)| matches(foreign, &plain));
    found.map(|(_, instead)| (*instead).to_owned())
}

/// Names of Kafka's Java clients, of Confluent's and of common frameworks that librdkafka does not
/// have. A `*` stands for any characters.
const FOREIGN: &[(&str, &str)] = &[
    (
        "sasl.jaas.config",
        "write sasl.username=… and sasl.password=… (without quotes) and sasl.mechanism=…",
    ),
    ("sasl.jaas*", "write sasl.username=… and sasl.password=…"),
    ("sasl.user", "write sasl.username"),
    ("sasl.login*", CODE),
    ("sasl.client.callback.handler.class", CODE),
    ("sasl.server.callback.handler.class", CODE),
    (
        "ssl.truststore.location",
        "write ssl.ca.location=… with a PEM file of the CA's certificates (keytool -exportcert -rfc)",
    ),
    (
        "ssl.truststore.certificates",
        "write ssl.ca.pem=… with the same PEM text",
    ),
    (
        "ssl.truststore*",
        "leave it out; ssl.ca.location=… is a PEM file without a password",
    ),
    (
        "ssl.keystore.certificate.chain",
        "write ssl.certificate.pem=… with the same PEM text",
    ),
    (
        "ssl.keystore.key",
        "write ssl.key.pem=… with the same PEM text",
    ),
    (
        "ssl.keystore.type",
        "leave it out; ssl.keystore.location=… is always PKCS#12, and PEM files are ssl.certificate.location=… and ssl.key.location=…",
    ),
    (
        "ssl.client.auth",
        "leave it out; a client certificate is ssl.certificate.location=… and ssl.key.location=…",
    ),
    ("ssl.enabled.protocols", TLS),
    ("ssl.protocol", TLS),
    ("ssl.provider", TLS),
    ("ssl.secure.random.implementation", TLS),
    ("ssl.trustmanager.algorithm", TLS),
    ("ssl.keymanager.algorithm", TLS),
    ("ssl.engine.factory.class", TLS),
    ("security.providers", TLS),
    ("ssl.cafile", "write ssl.ca.location"),
    ("ssl.certfile", "write ssl.certificate.location"),
    ("ssl.keyfile", "write ssl.key.location"),
    ("ssl.ca", "write ssl.ca.location or ssl.ca.pem"),
    (
        "ssl.certificate",
        "write ssl.certificate.location or ssl.certificate.pem",
    ),
    ("ssl.key", "write ssl.key.location or ssl.key.pem"),
    ("*.serializer", BYTES),
    ("*.deserializer", BYTES),
    ("*.serializer.*", BYTES),
    ("*.deserializer.*", BYTES),
    ("serializer", BYTES),
    ("key.converter*", BYTES),
    ("value.converter*", BYTES),
    ("schema.registry*", REGISTRY),
    ("*schemas.enable", REGISTRY),
    ("basic.auth*", REGISTRY),
    ("bearer.auth*", REGISTRY),
    ("auto.register.schemas", REGISTRY),
    ("use.latest.version", REGISTRY),
    ("*subject.name.strategy", REGISTRY),
    ("specific.avro.reader", REGISTRY),
    ("confluent*", CONFLUENT),
    ("interceptor*", CODE),
    (
        "partitioner*",
        "leave it out; the service computes the partition as Kafka's Java clients do by default",
    ),
    (
        "buffer.memory",
        "leave it out; the service itself limits the records that wait",
    ),
    (
        "max.block.ms",
        "leave it out; ZIM2KAFKA_ANSWER_DEADLINE bounds how long a callback waits",
    ),
    (
        "max.request.size",
        "leave it out; the service sets the largest message itself",
    ),
    (
        "default.api.timeout.ms",
        "write socket.timeout.ms or leave it out",
    ),
    ("timeout.ms", "write request.timeout.ms"),
    ("send.buffer.bytes", "write socket.send.buffer.bytes"),
    ("receive.buffer.bytes", "write socket.receive.buffer.bytes"),
    (
        "socket.connection.setup.timeout.max.ms",
        "leave it out; socket.connection.setup.timeout.ms does not grow here",
    ),
    ("compression", "write compression.type"),
    ("compression.*.level", "write compression.level"),
    ("fetch.max.wait.ms", "write fetch.wait.max.ms"),
    (
        "max.poll.records",
        "leave it out; the service does not need it",
    ),
    (
        "metadata.max.idle.ms",
        "write topic.metadata.refresh.interval.ms or leave it out",
    ),
    (
        "exclude.internal.topics",
        "leave it out; the service does not need it",
    ),
    ("metric*", METRICS),
    ("auto.include.jmx.reporter", METRICS),
    (
        "transaction*",
        "leave it out; the service does not use transactions",
    ),
    (
        "bootstrap.*",
        "leave it out and set ZIM2KAFKA_KAFKA_BROKERS",
    ),
    ("bootstrap", "leave it out and set ZIM2KAFKA_KAFKA_BROKERS"),
    ("brokers", "leave it out and set ZIM2KAFKA_KAFKA_BROKERS"),
    ("*topic", "leave it out and set ZIM2KAFKA_TOPIC"),
    ("protocol", "write security.protocol"),
    ("mechanism", "write sasl.mechanism"),
    ("username", "write sasl.username"),
    ("password", "write sasl.password"),
];
const CODE: &str = "leave it out; it names a Java class";
const TLS: &str = "leave it out; the TLS version is negotiated";
const BYTES: &str = "leave it out; the service serializes keys and values itself";
const REGISTRY: &str = "leave it out and set ZIM2KAFKA_SCHEMA_REGISTRY";
const CONFLUENT: &str = "leave it out; it concerns Confluent's own clients";
const METRICS: &str = "leave it out; the metrics are at /metrics of the admin port";

#[cfg(test)]
mod tests {
    use super::super::tables::is_of_librdkafka;
    use super::*;

    #[test]
    fn the_names_are_not_those_of_the_librdkafka_that_is_linked() {
        // Those two are known to librdkafka, which names the page of its documentation.
        let foreign = FOREIGN.iter().filter(|(name, _)| {
            !name.contains('*') && !["ssl.truststore.location", "sasl.jaas.config"].contains(name)
        });
        for (name, _) in foreign {
            assert!(!is_of_librdkafka(name), "{name}");
        }
    }

    #[test]
    fn names_of_frameworks_and_of_containers_lead_to_the_plain_one() {
        for (name, instead) in [
            ("SASL_MECHANISM", "write sasl.mechanism"),
            ("KAFKA_SASL_USERNAME", "write sasl.username"),
            ("Linger.Ms", "write linger.ms"),
            ("linger_ms", "write linger.ms"),
            (
                "spring.kafka.properties.security.protocol",
                "write security.protocol",
            ),
            ("spring.kafka.producer.acks", "write acks"),
            ("producer.linger.ms", "write linger.ms"),
            ("topic.acks", "write acks"),
            ("LOG_LEVEL", "write log_level"),
        ] {
            assert_eq!(instead_of(name).as_deref(), Some(instead), "{name}");
        }
        let jaas = instead_of("spring.kafka.properties.sasl.jaas.config");
        assert!(jaas.expect("known").contains("sasl.username=…"));
        assert_eq!(instead_of("linger.ms"), None);
        assert_eq!(instead_of("topic.metadata.refresh.interval.ms"), None);
        assert_eq!(instead_of("no.such.name"), None);
    }
}
