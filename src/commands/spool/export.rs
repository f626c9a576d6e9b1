//! `spool export`: the records as `tail` prints them.

use memchr::memchr2;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::mask::masked;
use super::{Source, print_each, topic_of};
use crate::commands::Failure;
use crate::commands::filter::Filter;
use crate::config::Faults;
use crate::event::Routes;
use crate::spool::{Snapshot, Spooled};

/// The flags of `spool export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the bodies of dead letters as they are, with the signatures and nonces in them. Anyone
    /// who has these can send forged callbacks while they are fresh
    #[arg(long)]
    with_signatures: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: &Args, mut faults: Faults) -> Result<(), Failure> {
    args.filter.check(&mut faults);
    let (folder, routes) = args.source.settings(faults)?;
    let snapshot = Snapshot::take(&folder)?;
    print_each(snapshot, &args.filter, |spooled| {
        line(spooled, &routes, args.with_signatures)
    })
}

/// One JSON object on one line, with the members that `tail` prints, and what the spool knows. Kafka
/// has given the record neither a partition nor an offset.
fn line(spooled: &Spooled, routes: &Routes, with_signatures: bool) -> String {
    let record = &spooled.record;
    let headers: Map<String, Value> = (record.headers.iter())
        .map(|(name, value)| (name.clone().into_owned(), text(value)))
        .collect();
    let mut withheld = "";
    let value = match record.event {
        Some(_) => json_or_text(&record.value),
        None if with_signatures => text(&record.value).to_string(),
        None => match masked(&record.value) {
            Some(masked) => Value::from(masked).to_string(),
            None => {
                withheld = r#","withheld":"the body has an encoding in which its signature cannot be found; --with-signatures prints it""#;
                "null".to_owned()
            }
        },
    };
    format!(
        r#"{{"topic":{},"partition":null,"offset":null,"timestamp":{},"key":{},"headers":{},"value":{value}{withheld},"number":{},"received_at":{},"refused":{}}}"#,
        Value::from(topic_of(routes, record)),
        record.timestamp,
        record.key.as_deref().map_or(Value::Null, text),
        Value::from(headers),
        spooled.number,
        record.times.received,
        spooled.refused,
    )
}

fn text(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

/// The JSON of an event, with its digits unchanged and without the line breaks between its tokens.
fn json_or_text(value: &[u8]) -> String {
    match serde_json::from_slice::<&RawValue>(value) {
        Ok(json) if memchr2(b'\n', b'\r', json.get().as_bytes()).is_none() => json.get().to_owned(),
        Ok(json) => json.get().replace(['\n', '\r'], ""),
        Err(_) => text(value).to_string(),
    }
}
