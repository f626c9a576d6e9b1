use std::cell::RefCell;
use std::fs;
use std::io::Write;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn parse(
    list: Option<&str>,
    file: Option<&str>,
    brokers: &str,
) -> Result<Properties, Vec<PropertyError>> {
    Properties::parse(list, file, brokers, |_, _| {})
}

fn list(text: &str) -> Vec<String> {
    messages(parse(Some(text), None, "b:9092"))
}

fn file(text: &str) -> Vec<String> {
    messages(parse(None, Some(text), "b:9092"))
}

fn messages(parsed: Result<Properties, Vec<PropertyError>>) -> Vec<String> {
    let faults = parsed.err().unwrap_or_default();
    faults.iter().map(PropertyError::to_string).collect()
}

/// The only message.
#[track_caller]
fn one(messages: &[String]) -> &str {
    let [message] = messages else {
        panic!("one fault: {messages:?}");
    };
    message
}

const NONE: [&str; 0] = [];

fn value<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    properties.0.get(name).map(|set| set.value.as_str())
}

#[test]
fn properties_are_parsed_from_the_file_and_from_the_list() {
    let list = "linger.ms=7; compression.type = zstd\n";
    let parsed = parse(Some(list), Some("# ours\nclient.id : a\\:b\r\n!no\n"), "");
    let parsed = parsed.expect("valid");
    assert_eq!(value(&parsed, "linger.ms"), Some("7"));
    assert_eq!(value(&parsed, "compression.type"), Some("zstd"));
    assert_eq!(value(&parsed, "client.id"), Some("a:b"));
    assert_eq!(parsed.client().get("client.id"), Some("a:b"));
}

#[test]
fn a_secret_keeps_every_character_and_other_values_lose_blanks_at_their_ends() {
    let parsed = Properties::parse_list("sasl.password=a=b==").expect("valid");
    assert_eq!(value(&parsed, "sasl.password"), Some("a=b=="));
    let parsed = parse(None, Some("sasl.password=\"a;b\" \nlinger.ms=7 \t"), "");
    let parsed = parsed.expect("valid");
    assert_eq!(value(&parsed, "sasl.password"), Some("\"a;b\" "));
    assert_eq!(value(&parsed, "linger.ms"), Some("7"));
}

#[test]
fn every_property_that_a_guarantee_depends_on_is_refused() {
    for (name, reason) in REFUSED {
        let name = match name {
            "max.in.flight*" => "max.in.flight.requests.per.connection",
            "test.mock*" => "test.mock.num.brokers",
            name => name,
        };
        for value in ["0", "1", "geheim"] {
            let ours = "enable.idempotence=1 enable.gapless.guarantee=0 \
                        delivery.report.only.error=0 allow.auto.create.topics=0 \
                        test.mock.num.brokers=0";
            if ours
                .split(' ')
                .any(|ours| ours == format!("{name}={value}"))
            {
                continue;
            }
            let expected = format!("{name} cannot be set: {reason}");
            let found = list(&format!("linger.ms=5;{name}={value}"));
            assert_eq!(one(&found), format!("entry 2: {expected}"));
            assert_eq!(
                one(&file(&format!("{name}={value}"))),
                format!("line 1: {expected}")
            );
        }
    }
    assert!(one(&list("max.in.flight=1")).contains("max.in.flight cannot be set"));
}

#[test]
fn a_refused_property_may_have_the_value_that_we_set_anyway() {
    for property in [
        "acks=all",
        "acks=ALL",
        "acks=-1",
        "request.required.acks=all",
        "enable.idempotence=TRUE",
        "enable.idempotence=1",
        "enable.gapless.guarantee=false",
        "max.in.flight.requests.per.connection=5",
        "max.in.flight=5",
        "retries=2147483647",
        "message.send.max.retries=2147483647",
        "message.timeout.ms=2147483647",
        "delivery.timeout.ms=2147483647",
        "message.max.bytes=1000000",
        "partitioner=murmur2_random",
        "transactional.id=",
        "allow.auto.create.topics=f",
        "delivery.report.only.error=false",
        "statistics.interval.ms=1000",
        "bootstrap.servers=B:9092",
        "metadata.broker.list=plaintext://b",
    ] {
        assert_eq!(list(property), NONE, "{property}");
        assert_eq!(file(property), NONE, "{property}");
        let parsed = parse(Some(property), None, "b:9092").expect("ours");
        assert!(parsed.0.is_empty(), "ours counts: {property}");
    }
    for property in [
        "retries=02147483647",
        "acks=al",
        "acks=1",
        "partitioner=murmur2",
    ] {
        assert!(one(&list(property)).contains("cannot be set"), "{property}");
    }
}

#[test]
fn names_of_other_clients_get_a_line_on_what_to_write_instead() {
    for (property, instead) in [
        (
            "sasl.jaas.config=org.x.PlainLoginModule required username=\"app\" password=\"geheim\";",
            "sasl.username=… and sasl.password=…",
        ),
        (
            "ssl.truststore.location=/trust.jks",
            "write ssl.ca.location=…",
        ),
        ("ssl.truststore.password=geheim", "ssl.ca.location=…"),
        ("ssl.truststore.type=PEM", "ssl.ca.location=…"),
        ("ssl.truststore.certificates=geheim", "write ssl.ca.pem=…"),
        (
            "ssl.keystore.certificate.chain=x",
            "write ssl.certificate.pem=…",
        ),
        ("ssl.keystore.key=geheim", "write ssl.key.pem=…"),
        ("ssl.keystore.type=JKS", "PKCS#12"),
        ("ssl.endpoint.identification.algorithm=", "write none"),
        ("key.serializer=a.B", "leave it out"),
        ("value.deserializer=a.B", "leave it out"),
        ("value.serializer.schemas=a.B", "leave it out"),
        ("schema.registry.url=https://r", "leave it out"),
        ("basic.auth.user.info=u:geheim", "leave it out"),
        ("confluent.monitoring.interceptor.topic=x", "leave it out"),
        ("interceptor.classes=a.B", "leave it out"),
        ("partitioner.class=a.B", "leave it out"),
        ("buffer.memory=1", "leave it out"),
        ("max.block.ms=1", "ZIM2KAFKA_ANSWER_DEADLINE"),
        ("max.request.size=1", "leave it out"),
        ("send.buffer.bytes=1", "write socket.send.buffer.bytes"),
        ("sasl.login.callback.handler.class=x", "leave it out"),
        ("sasl.client.callback.handler.class=x", "leave it out"),
        ("metric.reporters=x", "/metrics"),
        ("SASL_MECHANISM=PLAIN", "write sasl.mechanism"),
        ("KAFKA_SECURITY_PROTOCOL=ssl", "write security.protocol"),
        (
            "spring.kafka.properties.sasl.mechanism=PLAIN",
            "write sasl.mechanism",
        ),
        ("producer.linger.ms=1", "write linger.ms"),
        ("topic.acks=1", "write acks"),
        ("client.dns.lookup=default", "write use_all_dns_ips"),
    ] {
        let (name, _) = property.split_once('=').expect("a pair");
        for (messages, place) in [(file(property), "line 1"), (list(property), "entry 1")] {
            let message = one(&messages);
            assert!(message.starts_with(place), "{message}");
            assert!(message.contains(name), "{property}: {message}");
            assert!(message.contains(instead), "{property}: {message}");
            assert!(!message.contains("geheim"), "{message}");
        }
    }
}

#[test]
fn an_unknown_property_is_named_with_the_nearest_name() {
    let message = list("linger.ms=5;sasl.passwort=geheim");
    let message = one(&message);
    assert!(message.starts_with("entry 2: sasl.passwort is not a property of librdkafka 2."));
    assert!(
        message.ends_with("did you mean sasl.password?"),
        "{message}"
    );
    let message = file("a.b=1\n");
    assert!(
        one(&message).starts_with("line 1: a.b is not a property"),
        "{message:?}"
    );
    for (text, expected) in [
        (
            "linger.ms=5\n\"acks\"=all",
            "line 2: not the name of a property",
        ),
        ("=geheim", "line 1: not the name of a property"),
        ("geheim+/x", "line 1: not the name of a property"),
    ] {
        let messages = file(text);
        let message = one(&messages);
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains("geheim"), "{message}");
    }
}

#[test]
fn the_rest_of_a_secret_with_a_semicolon_is_not_shown() {
    for text in [
        "sasl.password=x;geheim",
        "sasl.password=x;geheim=y",
        "sasl.password=x;y=z;geheim=y",
        "sasl.password=x;ge.geheim=y",
        "sasl.password=x;geheim topic=y",
        "sasl.password=x;geheimtopic=y",
        "ssl.key.password=x;geheim=y",
        "sasl.passwort=x;geheim=y",
        "sasl.jaas.config=x y='z;geheim=w';",
    ] {
        let messages = list(text);
        let message = messages.last().expect("a fault");
        assert!(
            message.contains("put a value that contains ; into a file"),
            "{message}"
        );
        assert!(!messages.concat().contains("geheim"), "{messages:?}");
    }
    assert_eq!(file("sasl.password=x;geheim=y"), NONE);
}

#[test]
fn a_value_that_librdkafka_misreads_is_refused_with_what_to_write() {
    for (property, instead) in [
        (
            "socket.timeout.ms=10s",
            "write milliseconds as a plain number without a unit",
        ),
        ("linger.ms=5  # ms", "a plain number"),
        ("linger.ms=geheim", "a plain number"),
        ("batch.size=1MiB", "a plain number"),
        ("socket.keepalive.enable=yes", "write true or false"),
        ("compression.type=\"zstd\"", "without quotes"),
        ("client.id='geheim'", "without quotes"),
        (
            "compression.type=geheim",
            "write none, gzip, snappy, lz4 or zstd",
        ),
        (
            "security.protocol=geheim",
            "write plaintext, ssl, sasl_plaintext or sasl_ssl",
        ),
        (
            "sasl.mechanism=geheim",
            "write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
        (
            "sasl.mechanism=plain",
            "write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
        ("sasl.mechanism=PLAIN,SCRAM-SHA-512", "write PLAIN, "),
        ("client.id=a\u{1}b", "control character"),
        ("sasl.password=a\0b", "NUL"),
        ("sasl.password=${geheim}", "placeholders are not resolved"),
        (
            "sasl.username={{ geheim }}",
            "placeholders are not resolved",
        ),
        ("client.id=a,linger.ms=5", "another property stands in it"),
        ("client.id=a linger.ms=5", "another property stands in it"),
        ("client.id=a\\nlinger.ms=5", "another property stands in it"),
        ("dr_msg_cb=geheim", "only a program"),
    ] {
        let (name, _) = property.split_once('=').expect("a pair");
        let messages = list(property);
        let message = one(&messages);
        assert!(
            message.contains(&format!("entry 1: the value of {name} is not valid")),
            "{message}"
        );
        assert!(message.contains(instead), "{property}: {message}");
        assert!(!message.contains("geheim"), "{message}");
    }
    assert!(one(&file("client.id=a;linger.ms=5")).contains("another property"));
    assert_eq!(file("client.id=a;b=c,d=e"), NONE);
    assert!(one(&file("ab\0=1")).contains("not the name of a property"));
    let message = file("sasl.password=\\ geheim");
    assert!(one(&message).contains("drops the blanks"), "{message:?}");
}

#[test]
fn a_mechanism_that_this_build_does_not_have_is_refused() {
    for property in [
        "sasl.mechanism=OAUTHBEARER",
        "sasl.mechanisms=oauthbearer",
        "sasl.mechanism=AWS_MSK_IAM",
        "sasl.mechanism=OAUTHBEARER,PLAIN",
        "sasl.oauthbearer.method=oidc",
        "sasl.oauthbearer.token.endpoint.url=https://x",
        "sasl.oauthbearer.client.secret=geheim",
        "enable.sasl.oauthbearer.unsecure.jwt=true",
        "sasl.oauthbearer.jwks.endpoint.url=https://x",
    ] {
        let (name, _) = property.split_once('=').expect("a pair");
        let messages = file(property);
        let message = one(&messages);
        let expected = format!("line 1: {name}: this build can fetch no token (OAUTHBEARER)");
        assert!(message.starts_with(&expected), "{message}");
    }
    for property in ["sasl.mechanism=gssapi", "sasl.kerberos.keytab=/k"] {
        assert!(
            one(&list(property)).contains("no Kerberos (GSSAPI)"),
            "{property}"
        );
    }
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let properties = format!(
            "security.protocol=sasl_plaintext;sasl.mechanism={mechanism};sasl.username=u;sasl.password=p"
        );
        assert_eq!(list(&properties), NONE, "{mechanism}");
    }
}

#[test]
fn a_property_that_is_set_twice_is_refused_with_both_places() {
    let both = parse(Some("a.b=1;linger.ms=1"), Some("\nlinger.ms=1"), "");
    let twice = "line 2: linger.ms is set in entry 2 of ZIM2KAFKA_KAFKA_PROPERTIES already; keep one of the two";
    assert_eq!(messages(both).last().expect("a fault"), twice);
    let twice = "line 3: linger.ms is set in line 1 already; keep one of the two";
    assert_eq!(one(&file("linger.ms=1\n\nlinger.ms=1")), twice);
    let alias = "entry 2: queue.buffering.max.ms is set in entry 1 already; keep one of the two";
    assert_eq!(one(&list("linger.ms=1;queue.buffering.max.ms=1")), alias);
    assert!(one(&list("acks=all;acks=all")).contains("is set in entry 1 already"));
}

#[test]
fn every_fault_is_reported_in_the_order_of_the_places() {
    let (list, file) = (
        "acks=1;x;linger.ms=1s",
        "linger.ms=1\nsasl.jaas.config=x\na=\\u1\nb.c=2",
    );
    let parsed = parse(Some(list), Some(file), "");
    let faults = parsed.expect_err("faults");
    let places: Vec<_> = faults.iter().map(|fault| fault.place).collect();
    let expected = [1, 2, 3].map(Place::Entry).into_iter();
    let expected: Vec<_> = expected.chain([1, 2, 3, 4].map(Place::Line)).collect();
    assert_eq!(places, expected, "{faults:?}");
}

#[test]
fn properties_that_need_or_contradict_each_other_are_refused() {
    for (properties, expected) in [
        (
            "security.protocol=SASL_SSL;sasl.username=u;sasl.password=p",
            "entry 1: security.protocol=sasl_ssl needs sasl.mechanism; write PLAIN",
        ),
        (
            "security.protocol=sasl_ssl;sasl.mechanism=PLAIN;sasl.password=p",
            "entry 1: security.protocol=sasl_ssl needs sasl.username and sasl.password",
        ),
        (
            "sasl.mechanism=PLAIN;sasl.username=u;security.protocol=ssl;sasl.password=p",
            "entry 1: sasl.mechanism has no effect with security.protocol=ssl; write security.protocol=sasl_ssl",
        ),
        (
            "security.protocol=plaintext;sasl.username=u",
            "entry 2: sasl.username has no effect with security.protocol=plaintext",
        ),
        (
            "security.protocol=ssl;ssl.certificate.location=Cargo.toml",
            "entry 2: ssl.certificate.location has no effect without ssl.key.location",
        ),
        (
            "security.protocol=ssl;ssl.key.location=Cargo.toml",
            "entry 2: ssl.key.location has no effect without ssl.certificate.location",
        ),
    ] {
        let messages = list(properties);
        let message = one(&messages);
        assert!(message.starts_with(expected), "{message}");
    }
    let messages = list("security.protocol=geheim;sasl.username=u;sasl.password=p");
    assert!(!one(&messages).contains("geheim"), "{messages:?}");
    // The jaas.config stands for both.
    let messages = list("security.protocol=sasl_ssl;sasl.mechanism=PLAIN;sasl.jaas.config=x");
    assert!(one(&messages).contains("sasl.jaas.config"));
}

#[test]
fn what_has_no_effect_or_another_one_is_warned_of() {
    let warnings = |text: &str| Properties::parse_list(text).expect("valid").warnings();
    let found = warnings("sasl.username=u;sasl.password=geheim");
    let found = one(&found);
    assert!(found.starts_with("sasl.username has no effect without security.protocol"));
    assert!(!found.contains("geheim"));
    let found = warnings("ssl.ca.location=/ca.pem");
    assert!(
        one(&found).ends_with("write security.protocol=ssl"),
        "{found:?}"
    );
    let found = warnings("ssl.key.password='geheim'");
    let quotes = "the value of ssl.key.password has quotes around it, taken as a part of it";
    assert_eq!(one(&found), quotes);
    let parsed = parse(None, Some("ssl.key.password=geheim "), "").expect("valid");
    assert!(one(&parsed.warnings()).contains("has a blank at its end"));
    let found = warnings("socket.timeout.ms=10000;request.timeout.ms=2000");
    assert!(
        one(&found).starts_with("socket.timeout.ms is raised to 12000"),
        "{found:?}"
    );
    for text in [
        "linger.ms=1",
        "security.protocol=plaintext;ssl.ca.location=/ca.pem",
        "socket.timeout.ms=18000",
        "request.timeout.ms=2000",
    ] {
        assert_eq!(warnings(text), NONE, "{text}");
    }
}

/// A certificate and its key.
fn pem() -> (String, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    (certificate.replace('\r', ""), key.replace('\r', ""))
}

#[test]
fn pem_texts_can_be_given_in_every_way() {
    let (certificate, key) = pem();
    let escaped = |text: &str| text.replace('\n', "\\n");
    let continued = |text: &str| text.replace('\n', "\\n\\\n\t");
    for spell in [escaped, continued] {
        let properties = format!(
            "security.protocol=ssl\nssl.ca.pem={}\nssl.certificate.pem={}\nssl.key.pem={}\n",
            spell(&format!("{certificate}{certificate}")),
            spell(&certificate),
            spell(&key),
        );
        assert_eq!(file(&properties), NONE);
        assert_eq!(file(&properties.replace('\n', "\r\n")), NONE);
    }
    let properties = format!(
        "security.protocol=ssl;ssl.ca.pem={certificate}{certificate};ssl.certificate.pem={certificate}\nssl.key.pem={key}"
    );
    assert_eq!(list(&properties), NONE);
    let parsed = Properties::parse_list(&properties).expect("valid");
    assert_eq!(value(&parsed, "ssl.key.pem"), Some(key.trim()));
}

#[test]
fn a_broken_pem_text_is_refused_with_its_name() {
    let (certificate, key) = pem();
    let (lines, _) = certificate.split_once("-----END").expect("it ends");
    let escaped = |text: &str| text.replace('\n', "\\n");
    let broken = escaped(&certificate.replacen("MII", "!!!", 1));
    let cut = escaped(&format!("{certificate}{lines}-----END"));
    let of = |name: &str, value: &str| {
        file(&format!(
            "linger.ms=1\nsecurity.protocol=ssl\n{name}={value}"
        ))
    };
    for (value, instead) in [
        (broken.as_str(), "ssl.ca.pem"),
        (cut.as_str(), "ends with its line"),
        ("/etc/ssl/ca.pem", "the path of a file"),
        (
            &certificate.replace('\n', " "),
            "write \\n for each line end",
        ),
        (
            &certificate.replace('\n', "\\\n"),
            "write \\n for each line end",
        ),
        ("\"-----BEGIN", "the path of a file"),
        (
            &escaped(&format!("\u{feff}{certificate}{certificate}")),
            "has a byte order mark",
        ),
        (
            &escaped(&format!("{certificate}\u{feff}{certificate}")),
            "has a byte order mark",
        ),
        (&certificate, "\\n\\ at the end of each of its lines"),
    ] {
        let messages = of("ssl.ca.pem", value);
        let message = one(&messages);
        assert!(message.starts_with("line 3: "), "{message}");
        assert!(message.contains(instead), "{message}");
        assert!(!message.contains("MII"), "{message}");
    }
    let properties = format!(
        "ssl.key.pem={}\nssl.certificate.pem={}",
        escaped(&key),
        broken
    );
    let messages = file(&format!("security.protocol=ssl\n{properties}"));
    assert!(one(&messages).starts_with("line 3: "), "{messages:?}");
    let messages = list(&format!(
        "security.protocol=ssl;ssl.ca.pem={}",
        escaped(&certificate)
    ));
    assert!(one(&messages).contains("ssl.ca.pem is not valid; the variable has no escapes"));
    let messages = of("ssl.ca.location", &escaped(&certificate));
    assert!(
        one(&messages).contains("path of a file; a PEM text belongs to"),
        "{messages:?}"
    );
    let messages = file(&format!("{key}linger.ms=1s"));
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].starts_with("line 1: a PEM text is the value of a property"));
}

#[test]
fn properties_that_no_client_can_be_created_with_are_refused_at_once() {
    let messages = list(
        "client.id=a;security.protocol=ssl;ssl.ca.location=/no/such/file.pem;ssl.key.password=geheim",
    );
    let message = one(&messages);
    assert!(
        message.starts_with("entry 3: the value of ssl.ca.location is not valid; its file cannot"),
        "{message}"
    );
    assert!(!message.contains("geheim"));
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.jks");
    fs::write(&store, b"\xfe\xed\xfe\xed").expect("it can be written");
    let messages = list(&format!(
        "security.protocol=ssl;ssl.keystore.location={};ssl.keystore.password=geheim",
        store.display()
    ));
    let message = one(&messages);
    assert!(
        message.contains("entry 2: ") && message.contains("PKCS#12"),
        "{message}"
    );
    assert!(!message.contains("geheim"));
    let message = list("queuing.strategy=lifo");
    assert!(one(&message).contains("queuing.strategy"), "{message:?}");
}

#[test]
fn every_file_that_librdkafka_cannot_read_each_time_is_refused_beside_other_faults() {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = |name: &str| temporary.path().join(name).display().to_string();
    let (pipe, marked) = (path("pipe"), path("marked.pem"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    // It has a text, so that a client that reads it does not hold up this test.
    let opened = fs::OpenOptions::new().read(true).write(true).open(&pipe);
    let mut opened = opened.expect("it is opened");
    opened.write_all(&[b'-'; 64]).expect("it is written");
    fs::write(&marked, format!("\u{feff}{}", pem().0)).expect("it can be written");
    let folder = temporary.path().display().to_string();
    let (pipe, marked, folder) = (pipe.as_str(), marked.as_str(), folder.as_str());
    let (none, missing) = ("/no/such/file", "cannot be read (No such file or directory");
    for (name, path, expected) in [
        ("ssl.ca.location", none, missing),
        ("ssl.certificate.location", none, missing),
        ("ssl.key.location", none, missing),
        ("ssl.crl.location", none, missing),
        ("ssl.keystore.location", none, missing),
        (
            "ssl.ca.location",
            "Cargo.toml/ca.pem",
            "cannot be read (Not a directory",
        ),
        (
            "ssl.ca.location",
            pipe,
            "it is a pipe, a device or a socket, and several clients",
        ),
        ("ssl.key.location", pipe, "name a regular file"),
        ("ssl.keystore.location", "/dev/null", "name a regular file"),
        (
            "ssl.key.location",
            folder,
            "it is a folder; name a regular file",
        ),
        (
            "ssl.ca.location",
            marked,
            "begins with a byte order mark; save it without one",
        ),
        (
            "ssl.certificate.location",
            marked,
            "begins with a byte order mark",
        ),
        ("ssl.key.location", marked, "begins with a byte order mark"),
        ("ssl.crl.location", marked, "begins with a byte order mark"),
    ] {
        let messages = list(&format!(
            "linger.ms=1s;security.protocol=sasl_SSL;{name}={path}"
        ));
        let begin = format!("entry 3: the value of {name} is not valid; ");
        let found = messages.iter().find(|message| message.starts_with(&begin));
        let found = found.unwrap_or_else(|| panic!("{name}={path}: {messages:?}"));
        assert!(found.contains(expected), "{found}");
        assert!(
            messages[0].starts_with("entry 1: the value of linger.ms"),
            "{messages:?}"
        );
    }
    for name in [
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
    ] {
        let text = format!("security.protocol=ssl;{name}=/no/such/file;{name}=x");
        let count = |messages: Vec<String>| {
            let files = messages
                .iter()
                .filter(|message| message.contains("its file"));
            files.count()
        };
        assert_eq!(count(list(&text)), 1, "{name}");
        assert_eq!(
            count(list(&text.replace("ssl;", "plaintext;"))),
            0,
            "{name}"
        );
    }
    for path in ["probe", folder, ""] {
        let properties = format!("security.protocol=ssl;ssl.ca.location={path}");
        assert_eq!(list(&properties), NONE, "{path}");
    }
}

#[test]
fn each_file_is_announced_before_it_is_read() {
    let announced = RefCell::new(Vec::new());
    let reading = |place, name: &str| announced.borrow_mut().push((place, name.to_owned()));
    let list = "security.protocol=ssl;ssl.key.location=/no/k";
    let file = "linger.ms=1\nssl.certificate.location=/no/c\nssl.ca.location=probe";
    let parsed = Properties::parse(Some(list), Some(file), "", reading);
    assert_eq!(parsed.map(drop).expect_err("two files").len(), 2);
    let expected = [
        (Place::Line(2), "ssl.certificate.location".to_owned()),
        (Place::Entry(2), "ssl.key.location".to_owned()),
    ];
    assert_eq!(announced.take(), expected);
}

#[test]
fn an_alias_of_a_property_that_we_set_too_replaces_our_value() {
    let properties = Properties::parse_list("queue.buffering.max.ms=7").expect("valid");
    let config = client_config::of_producer(properties.client(), Ordering::Relaxed);
    assert_eq!(config.get("linger.ms"), Some("7"));
}

#[test]
fn the_debug_output_of_properties_shows_no_value() {
    let properties = Properties::parse_list("sasl.password=geheim").expect("valid");
    assert_eq!(format!("{properties:?}"), "{\"sasl.password\"}");
}

#[test]
fn the_security_protocol_is_known() {
    let protocol = |text: &str| {
        Properties::parse_list(text)
            .expect("valid")
            .security_protocol()
    };
    assert_eq!(protocol("linger.ms=1"), "plaintext");
    assert_eq!(protocol("security.protocol=SSL"), "ssl");
}
