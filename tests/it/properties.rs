//! Kafka properties and brokers on the program itself: what is refused, and how it is named.

use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::process::{Ended, run, taken};

const LIST: &str = "ZIM2KAFKA_KAFKA_PROPERTIES";
const FILE: &str = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE";
const BROKERS: &str = "ZIM2KAFKA_KAFKA_BROKERS";

/// `serve` up to the point where it would listen. The admin port is taken, so it ends with exit code
/// 1 if every setting is accepted.
fn serve(variables: &[(&str, &str)]) -> Ended {
    let (_port, address) = taken();
    let always = [
        ("ZIM2KAFKA_LISTEN", "127.0.0.1:0"),
        ("ZIM2KAFKA_ADMIN_LISTEN", &address),
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=abc"),
        (BROKERS, "127.0.0.1:1"),
    ];
    run(&["serve"], &[&always, variables].concat())
}

#[track_caller]
fn is_accepted(ended: &Ended) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot listen on"), "{ended:?}");
}

/// The errors of a run that ended with exit code 2.
#[track_caller]
fn errors(ended: &Ended) -> Vec<&str> {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let lines = ended.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("error: "))
        .collect()
}

/// A file with these properties.
struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl File {
    fn of(content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("client.properties");
        std::fs::write(&path, content).expect("it can be written");
        let _folder = folder;
        Self { path, _folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("it is UTF-8")
    }
}

#[test]
fn every_fault_of_a_java_clients_file_is_named_with_its_line() {
    let file = File::of(
        "# A Java client's\n\
         security.protocol = SASL_SSL\n\
         sasl.mechanism = PLAIN\n\
         sasl.jaas.config=a.b.PlainLoginModule required \\\n    \
             username=\"u\" password=\"geheim\";\n\
         ssl.truststore.location: /trust.jks\n\
         ssl.truststore.password geheim\n\
         ssl.endpoint.identification.algorithm=\n\
         value.serializer=a.b.StringSerializer\n\
         schema.registry.url=https://registry.example\n\
         request.timeout.ms=30s\n\
         acks=1\n\
         retries=2147483647\n\
         linger.mss=5\n\
         client.id=\\u00g0\n",
    );
    let ended = serve(&[(FILE, file.path())]);
    let errors = errors(&ended);
    let expected = [
        (
            4,
            "sasl.jaas.config is not a property of librdkafka; write sasl.username=…",
        ),
        (
            6,
            "ssl.truststore.location is not a property of librdkafka; write ssl.ca.location=…",
        ),
        (
            7,
            "ssl.truststore.password is not a property of librdkafka; leave it out",
        ),
        (
            8,
            "the value of ssl.endpoint.identification.algorithm is not valid; write none",
        ),
        (
            9,
            "value.serializer is not a property of librdkafka; leave it out",
        ),
        (
            10,
            "schema.registry.url is not a property of librdkafka; leave it out and set ZIM2KAFKA_SCHEMA_REGISTRY",
        ),
        (
            11,
            "the value of request.timeout.ms is not valid; write milliseconds as a plain number",
        ),
        (12, "acks cannot be set: "),
        (14, "linger.mss is not a property of librdkafka 2."),
        (
            15,
            "the value of client.id is not valid; a \\u is not followed by four hexadecimal digits",
        ),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, (line, part)) in errors.iter().zip(expected) {
        let begin = format!("{FILE}: {}, line {line}: {part}", file.path());
        assert!(error.starts_with(&begin), "{error}\n{begin}");
    }
    assert!(errors[8].ends_with("did you mean linger.ms?"), "{errors:?}");
}

#[test]
fn a_file_and_the_variable_may_both_be_set_but_not_with_the_same_property() {
    let file = File::of("\u{feff}client.id=a\\=b\r\nsasl.password=geheim\r\n");
    is_accepted(&serve(&[
        (FILE, file.path()),
        (LIST, "linger.ms=5;debug=broker"),
    ]));
    let ended = serve(&[(FILE, file.path()), (LIST, "linger.ms=5;client.id=c")]);
    let place = "line 1: client.id is set in entry 2 of ZIM2KAFKA_KAFKA_PROPERTIES already";
    let expected = format!("{FILE}: {}, {place}; keep one of the two", file.path());
    assert_eq!(errors(&ended), [expected]);
    let ended = serve(&[(FILE, file.path()), (LIST, "sasl.passwort=geheim;acks=0")]);
    let errors = errors(&ended);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with(&format!("{LIST}: entry 1: sasl.passwort")),
        "{errors:?}"
    );
    assert!(
        errors[1].starts_with(&format!("{LIST}: entry 2: acks cannot")),
        "{errors:?}"
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_its_line() {
    for (content, expected) in [
        (
            &b"client.id=a\n\nsasl.password=geheim\xe4\n"[..],
            ": line 3 is not valid UTF-8; save the file as UTF-8",
        ),
        (b"\xff\xfec\0l\0", ": is UTF-16; save it as UTF-8"),
    ] {
        let file = File::of(content);
        let ended = serve(&[(FILE, file.path())]);
        let errors = errors(&ended);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn certificates_can_be_given_as_pem_texts() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let [certificate, key] = [signed.cert.pem(), signed.signing_key.serialize_pem()]
        .map(|pem| pem.replace('\r', "").trim().to_owned());
    for spell in [
        |pem: &str| pem.replace('\n', "\\n"),
        |pem: &str| pem.replace('\n', "\\n\\\n  "),
    ] {
        let file = File::of(format!(
            "security.protocol=ssl\nssl.ca.pem={0}\nssl.certificate.pem={0}\nssl.key.pem={1}",
            spell(&certificate),
            spell(&key)
        ));
        is_accepted(&serve(&[(FILE, file.path())]));
    }
    let list = format!("security.protocol=ssl\nssl.ca.pem={certificate}\nclient.id=a");
    is_accepted(&serve(&[(LIST, &list)]));
    let broken = certificate
        .replace('\n', "\\n")
        .replacen("MII", "geheim", 1);
    let file = File::of(format!("security.protocol=ssl\nssl.ca.pem={broken}\n"));
    let ended = serve(&[(FILE, file.path())]);
    let [error] = errors(&ended)[..] else {
        panic!("one error: {ended:?}");
    };
    assert!(
        error.contains("line 2: ") && error.contains("ssl.ca.pem"),
        "{error}"
    );
}

#[test]
fn every_file_that_no_client_can_read_is_named_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("ca.pem");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let list = format!(
        "security.protocol=ssl;ssl.ca.location={};linger.ms=1s",
        pipe.display()
    );
    let file = File::of("ssl.certificate.location=/no/c\nssl.key.location=/no/k");
    let ended = serve(&[(FILE, file.path()), (LIST, &list)]);
    let errors = errors(&ended);
    let in_file = |line: &str| format!("{FILE}: {}, {line} is not valid; its file", file.path());
    let expected = [
        format!("{LIST}: entry 2: the value of ssl.ca.location is not valid; it is a pipe"),
        format!("{LIST}: entry 3: the value of linger.ms is not valid"),
        in_file("line 1: the value of ssl.certificate.location"),
        in_file("line 2: the value of ssl.key.location"),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

#[test]
fn a_mechanism_that_this_build_does_not_have_is_refused() {
    for mechanism in ["OAUTHBEARER", "oauthbearer", "GSSAPI", "AWS_MSK_IAM"] {
        let list = format!("security.protocol=sasl_plaintext;sasl.mechanism={mechanism}");
        let ended = serve(&[(LIST, &list)]);
        let expected = format!("{LIST}: entry 2: sasl.mechanism: this build ");
        assert!(errors(&ended)[0].starts_with(&expected), "{ended:?}");
    }
}

#[test]
fn credentials_without_a_security_protocol_are_warned_of() {
    let ended = serve(&[(LIST, "sasl.username=u;sasl.password=geheim")]);
    is_accepted(&ended);
    assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    let mut lines = ended.stderr.lines();
    let is_warning = |line: &str| {
        line.contains("WARN")
            && line.contains("sasl.username has no effect without security.protocol")
    };
    assert!(lines.any(is_warning), "{ended:?}");
    let ended = run(
        &["check", "--strict"],
        &[
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=abc"),
            (BROKERS, "127.0.0.1:1"),
            (LIST, "sasl.username=u;sasl.password=geheim"),
        ],
    );
    let mut lines = ended.stdout.lines();
    let is_finding = |line: &str| {
        line.starts_with("warning  Kafka properties")
            && line.contains("sasl.username has no effect without security.protocol")
    };
    assert!(lines.any(is_finding), "{ended:?}");
    assert!(!ended.stderr.contains("no effect"), "{ended:?}");
    let ended = serve(&[(LIST, "security.protocol=ssl;sasl.username=u")]);
    assert!(
        errors(&ended)[0].contains("write security.protocol=sasl_ssl"),
        "{ended:?}"
    );
}

#[test]
fn the_embedded_kafka_has_no_other_security_protocol() {
    for arguments in [&["demo", "--count=1"][..], &["serve", "--embedded-kafka"]] {
        let variables = [
            (LIST, "security.protocol=SSL"),
            ("ZIM2KAFKA_CALLBACK_SECRETS", "1=abc"),
            ("ZIM2KAFKA_LISTEN", "127.0.0.1:0"),
            ("ZIM2KAFKA_ADMIN_LISTEN", "127.0.0.1:0"),
        ];
        let ended = run(arguments, &variables);
        let [error] = errors(&ended)[..] else {
            panic!("one error: {ended:?}");
        };
        assert!(
            error.contains("no security.protocol=ssl; leave it out"),
            "{error}"
        );
    }
}

#[test]
fn every_broker_that_librdkafka_would_ignore_is_named() {
    for (brokers, properties, expected) in [
        (
            "b:1,tcp://c:1",
            "linger.ms=1",
            "entry 2 (tcp://c:1): the scheme is not one of",
        ),
        (
            "https://c:1",
            "linger.ms=1",
            "entry 1 (https://c:1): the scheme is not one of",
        ),
        (
            "SSL://c:1",
            "linger.ms=1",
            "contradicts security.protocol=plaintext",
        ),
        (
            "plaintext://c:1",
            "security.protocol=ssl",
            "contradicts security.protocol=ssl",
        ),
        ("::1:9092", "linger.ms=1", "in brackets"),
        ("c:1,", "linger.ms=1", "entry 2: it is empty"),
        ("c:1/t", "linger.ms=1", "no path"),
    ] {
        let ended = serve(&[(BROKERS, brokers), (LIST, properties)]);
        let [error] = errors(&ended)[..] else {
            panic!("one error: {ended:?}");
        };
        assert!(error.starts_with(&format!("{BROKERS}: entry ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    is_accepted(&serve(&[
        (BROKERS, "SSL://c:1,ssl://d"),
        (LIST, "security.protocol=ssl"),
    ]));
    is_accepted(&serve(&[
        (BROKERS, "c:1"),
        (LIST, "bootstrap.servers=C:1;acks=all"),
    ]));
    let ended = serve(&[
        (BROKERS, "c:1,tcp://d"),
        (LIST, "acks=0;linger.ms=1s"),
        (FILE, "/no/such/file"),
        ("ZIM2KAFKA_TOPIC", "a b"),
    ]);
    assert_eq!(errors(&ended).len(), 5, "{ended:?}");
    let ended = serve(&[(BROKERS, "ssl://c:1"), ("ZIM2KAFKA_TOPIC", "a b")]);
    assert_eq!(errors(&ended).len(), 2, "{ended:?}");
}
