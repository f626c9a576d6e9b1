//! Properties that need or contradict each other, where librdkafka ignores one of them without a
//! word.

use std::collections::BTreeMap;

use super::super::brokers::PROTOCOLS;
use super::Set;
use super::errors::{Problem, PropertyError};
use super::tables::{MECHANISMS, is_mechanism};

/// The faults of properties that are valid by themselves.
pub(super) fn faults(set: &BTreeMap<String, Set>) -> Vec<PropertyError> {
    let mut faults = Vec::new();
    let has = |name: &str| set.get(name).is_some_and(|set| !set.value.is_empty());
    let Some(protocol) = set.get("security.protocol") else {
        return faults;
    };
    let name = protocol.value.to_ascii_lowercase();
    if !PROTOCOLS.contains(&name.as_str()) {
        return faults;
    }
    let mut report = |at: &Set, problem: String| {
        let problem = Problem::Together(problem);
        faults.push(PropertyError {
            place: at.place,
            problem,
        });
    };
    if name.starts_with("sasl_") {
        if !has("sasl.mechanism") {
            let problem =
                format!("security.protocol={name} needs sasl.mechanism; write {MECHANISMS}");
            report(protocol, problem);
        }
        let is_other = |set: &Set| !set.value.is_empty() && !is_mechanism(&set.value);
        let has_other_mechanism = set.get("sasl.mechanism").is_some_and(is_other);
        if !has_other_mechanism && (!has("sasl.username") || !has("sasl.password")) {
            let problem = format!("security.protocol={name} needs sasl.username and sasl.password");
            report(protocol, problem);
        }
    } else if let Some((unused, at)) = first(set, &CREDENTIALS) {
        let meant = if name == "ssl" {
            "sasl_ssl"
        } else {
            "sasl_plaintext"
        };
        let problem = format!(
            "{unused} has no effect with security.protocol={name}; write security.protocol={meant}, or leave it out"
        );
        report(at, problem);
    }
    if name.ends_with("ssl") {
        let certificate = first(set, &["ssl.certificate.location", "ssl.certificate.pem"]);
        let key = first(set, &["ssl.key.location", "ssl.key.pem"]);
        match (certificate, key) {
            (Some((name, at)), None) if !has("ssl.engine.location") => {
                let problem =
                    format!("{name} has no effect without ssl.key.location or ssl.key.pem");
                report(at, problem);
            }
            (None, Some((name, at))) => {
                let problem = format!(
                    "{name} has no effect without ssl.certificate.location or ssl.certificate.pem"
                );
                report(at, problem);
            }
            _ => {}
        }
    }
    for texts in ["ssl.certificate", "ssl.key"] {
        let [pem, location] = ["pem", "location"].map(|end| format!("{texts}.{end}"));
        if let (true, Some(at)) = (has(&location), set.get(&pem)) {
            report(
                at,
                format!("{pem} and {location} are both set; keep one of the two"),
            );
        }
    }
    faults
}

/// The properties that have no effect because `security.protocol` is missing.
pub(super) fn warning(set: &BTreeMap<String, Set>) -> Option<String> {
    if set.contains_key("security.protocol") {
        return None;
    }
    let (unused, meant) = match (first(set, &CREDENTIALS), first(set, &CERTIFICATES)) {
        (Some((name, _)), _) => (name, "sasl_ssl or sasl_plaintext"),
        (None, Some((name, _))) => (name, "ssl"),
        (None, None) => return None,
    };
    Some(format!(
        "{unused} has no effect without security.protocol, and the connection to Kafka is not \
         encrypted; write security.protocol={meant}"
    ))
}

const CREDENTIALS: [&str; 3] = ["sasl.mechanism", "sasl.username", "sasl.password"];
const CERTIFICATES: [&str; 7] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.keystore.location",
];

fn first<'a>(
    set: &'a BTreeMap<String, Set>,
    names: &[&'static str],
) -> Option<(&'static str, &'a Set)> {
    let found = |name: &&'static str| {
        let set = set.get(*name).filter(|set| !set.value.is_empty())?;
        Some((*name, set))
    };
    names.iter().find_map(found)
}
