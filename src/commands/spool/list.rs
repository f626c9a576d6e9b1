//! `spool list`: one line for each record, without its value and headers.

use serde_json::json;

use super::{Source, print_each, printable, reason_of, second, topic_of};
use crate::commands::filter::Filter;
use crate::commands::{Failure, output};
use crate::config::Faults;
use crate::event::Routes;
use crate::spool::{Snapshot, Spooled};

/// The flags of `spool list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object per line, described by schemas/spool-list.schema.json
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: &Args, mut faults: Faults) -> Result<(), Failure> {
    args.filter.check(&mut faults);
    let (folder, routes) = args.source.settings(faults)?;
    let snapshot = Snapshot::take(&folder)?;
    if args.json {
        return print_each(snapshot, &args.filter, |spooled| object(spooled, &routes));
    }
    output::write(&row("number", "received", "event", "note", "bytes", "key"))?;
    output::write("\n")?;
    print_each(snapshot, &args.filter, line)
}

fn line(
    Spooled {
        number,
        record,
        refused,
    }: &Spooled,
) -> String {
    let event = record.event.as_deref().unwrap_or("dead letter");
    let note = [reason_of(record), refused.then_some("refused")];
    let note: Vec<_> = note.into_iter().flatten().collect();
    let key = record.key.as_deref().map_or("(none)".to_owned(), printable);
    row(
        &number.to_string(),
        &second(record.times.received),
        event,
        &note.join(", "),
        &record.value.len().to_string(),
        &key,
    )
}

fn row(number: &str, received: &str, event: &str, note: &str, bytes: &str, key: &str) -> String {
    let note = if note.is_empty() { "-" } else { note };
    format!("{number:>8}  {received:<20}  {event:<13}  {note:<17}  {bytes:>6}  {key}")
}

fn object(
    Spooled {
        number,
        record,
        refused,
    }: &Spooled,
    routes: &Routes,
) -> String {
    let key = record.key.as_deref().map(String::from_utf8_lossy);
    json!({
        "number": number,
        "event": record.event,
        "dead_letter_reason": reason_of(record),
        "topic": topic_of(routes, record),
        "key": key,
        "event_id": record.event_id,
        "timestamp": record.timestamp,
        "received_at": record.times.received,
        "bytes": record.value.len(),
        "refused": refused,
    })
    .to_string()
}
