//! The record that the library makes of each golden callback.

use bytes::Bytes;
use zim2kafka::callback::{RawCallback, Secrets, TimestampUnit, VerifiedCallback};
use zim2kafka::event::{self, Family, GROUP_JOIN, Policy, Record};

use super::*;

/// The record of a callback if nothing is configured.
fn record_of<'a>(callback: &'a VerifiedCallback<'a>) -> Record {
    let kind = event::kind_of(callback);
    let family = kind
        .clone()
        .ok()
        .filter(|kind| kind.family == Family::Group);
    kind.and_then(|kind| match kind.name {
        GROUP_JOIN => kind.record(callback, &Policy::default()),
        _ => Err(event::unsupported(callback)),
    })
    .unwrap_or_else(|why| Record::dead_letter(callback, family, &why))
}

/// What the library makes of a case, or the status of the refusal.
fn made(case: &Case) -> Result<Found, u16> {
    let raw = RawCallback {
        body: case.bytes().into(),
        content_type: case.content_type.clone().map(Bytes::from),
        trace: None,
        received_at: RECEIVED_AT,
    };
    let json = raw.json().map_err(|_| 400_u16)?;
    let unverified = json.decode().map_err(|_| 400_u16)?;
    let callback = Secrets::parse_list(SECRETS)
        .expect("a list")
        .authenticate(unverified, TimestampUnit::Auto)
        .map_err(|_| 401_u16)?;
    let mut record = record_of(&callback);
    if case.reused {
        record = record.marked_as_reuse();
    }
    if let Some(detail) = &case.rejected {
        record = record.rejected(detail);
    }
    let headers = record.headers.iter();
    Ok(Found {
        topic: match record.is_dead_letter() {
            true => DEAD_LETTER_TOPIC.to_owned(),
            false => TOPIC.to_owned(),
        },
        key: record.key.as_deref().map(<[u8]>::to_vec),
        timestamp: record.timestamp,
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_vec()))
            .collect(),
        value: record.value.to_vec(),
    })
}

#[test]
fn every_golden_record_is_reproduced_byte_for_byte() {
    let cases = cases();
    let mut all = Vec::new();
    for case in &cases {
        // Answered before a record is made.
        if case.passed {
            continue;
        }
        let lines = match (made(case), case.expected()) {
            (Ok(found), Some(expected)) => differences(&expected, &found),
            (Err(status), None) if case.status == Some(status) => Vec::new(),
            (found, expected) => vec![format!(
                "  expected {:?} or status {:?}, found {:?}",
                expected.map(|record| record.topic),
                case.status,
                found.map(|record| record.topic)
            )],
        };
        if !lines.is_empty() {
            all.push(format!("{}:\n{}", case.name, lines.join("\n")));
        }
    }
    report(&all, cases.len());
}
