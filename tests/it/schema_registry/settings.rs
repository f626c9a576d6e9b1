//! Settings of the schema registry that contradict each other, or whose files are unusable.

use crate::support::process::run;
use crate::support::tls::{Authority, write};

use super::{AUTH, REGISTRY};

const AUTH_FILE: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_AUTH_FILE";
const CA: &str = "ZIM2KAFKA_SCHEMA_REGISTRY_CA";

#[track_caller]
fn is_refused(variables: &[(&str, &str)], expected: &str) {
    let always = [
        ("ZIM2KAFKA_CALLBACK_SECRETS", "1=secret"),
        ("ZIM2KAFKA_KAFKA_BROKERS", "b:9092"),
    ];
    for command in ["serve", "redrive"] {
        let ended = run(&[command], &[&always, variables].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(
            ended.stderr.trim(),
            format!("error: {expected}"),
            "{command}"
        );
        assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    }
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let authority = Authority::new();
    authority.write(2099);
    let (ca, key) = (authority.ca(), authority.key());
    let (ca, key) = (ca.to_str().expect("text"), key.to_str().expect("text"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        write(&path, text);
        path.to_str().expect("text").to_owned()
    };
    let password = file("password", "u:geheim");
    let (http, https) = ("http://a:8081", "https://a:8081");
    let alone =
        |name: &str| format!("{name}: is set, but {REGISTRY} is not; set it too, or unset this");
    is_refused(&[(AUTH, "u:geheim")], &alone(AUTH));
    is_refused(&[(AUTH_FILE, &password)], &alone(AUTH_FILE));
    is_refused(&[(CA, ca)], &alone(CA));
    is_refused(
        &[
            (REGISTRY, https),
            (AUTH, "u:geheim"),
            (AUTH_FILE, &password),
        ],
        &format!("{AUTH}: is set together with {AUTH_FILE}; set one of the two"),
    );
    for bad in ["geheim", ":geheim", "u:ge\nheim"] {
        let expected = "is not user:password in one line";
        is_refused(
            &[(REGISTRY, https), (AUTH, bad)],
            &format!("{AUTH}: {expected}"),
        );
        let bad = file("bad", bad);
        is_refused(
            &[(REGISTRY, https), (AUTH_FILE, &bad)],
            &format!("{AUTH_FILE}: {expected}"),
        );
    }
    is_refused(
        &[(REGISTRY, http), (CA, ca)],
        &format!(
            "{CA}: is for HTTPS, but {REGISTRY} begins with http://; write https:// there, or leave out {CA}"
        ),
    );
    is_refused(
        &[(REGISTRY, https), (CA, key)],
        &format!(
            "{CA}: {key}: has no certificate; write the authority's certificate as a CERTIFICATE PEM block"
        ),
    );
}
