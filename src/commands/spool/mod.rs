//! `spool`: shows what is in the spool, without changing anything in its folder.

mod export;
mod list;
mod mask;
mod status;

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Arg;
use jiff::Timestamp;

use super::{Failure, filter, output};
use crate::config::{Faults, KafkaArgs, SpoolArgs};
use crate::event::{Record, Routes};
use crate::spool::{Damage, Reading, Snapshot, SnapshotError, Spooled};

/// The flags of `spool`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "All three read the files of the folder and change nothing in it: beside a running service, on a\n\
        stopped one, and on a disk that can only be read. Run them as the user of the service, with its\n\
        ZIM2KAFKA_SPOOL_DIR and its topics. Of a damaged spool they show every record that can be read,\n\
        which are those that the next start recovers; exit code 1 if others are lost. Up to 64 MiB are\n\
        read at once. Of a larger spool, records that the service publishes meanwhile may be left out;\n\
        that is reported on stderr."
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how many records there are, since when, the space they use, and whether all can be read
    #[command(mut_args(hide_unused))]
    Status(status::Args),
    /// List the records, one per line, without their values and headers
    #[command(mut_args(hide_unused))]
    List(list::Args),
    /// Print the records as `tail` does, one JSON object per line
    #[command(mut_args(hide_unused))]
    Export(export::Args),
}

/// Which spool is read, and the topics that its records are for.
#[derive(Debug, Clone, clap::Args)]
struct Source {
    #[command(flatten)]
    spool: SpoolArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Hides the settings that only the service needs.
fn hide_unused(arg: Arg) -> Arg {
    let unused = ["kafka_brokers", "kafka_properties_file", "spool_after"];
    let is_unused = unused.contains(&arg.get_id().as_str());
    arg.hide(is_unused)
}

/// Runs the command. Blocks.
pub(super) fn run(args: Args, faults: Faults) -> Result<(), Failure> {
    match args.action {
        Action::Status(args) => status::run(&args, faults),
        Action::List(args) => list::run(&args, faults),
        Action::Export(args) => export::run(&args, faults),
    }
}

impl Source {
    /// The folder and the topics.
    fn settings(&self, mut faults: Faults) -> Result<(PathBuf, Routes), Failure> {
        let folder = faults.take(self.spool.folder());
        faults.take(self.spool.check_folder());
        let routes = faults.take(self.kafka.routes());
        Ok(faults.finish(folder.zip(routes))?)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The topic of a record; `None` if its event has none.
fn topic_of<'r>(routes: &'r Routes, record: &Record) -> Option<&'r str> {
    match &record.event {
        Some(event) => routes.topic_of(event),
        None => Some(routes.dead_letter_topic()),
    }
}

/// Why a record is a dead letter; `None` for an event.
fn reason_of(record: &Record) -> Option<&str> {
    let mut headers = record.headers.iter();
    let (_, value) = headers.find(|(name, _)| name == "dead_letter_reason")?;
    str::from_utf8(value).ok()
}

/// Prints a line for each record that is taken, as they are read.
fn print_each(
    snapshot: Snapshot,
    filter: &filter::Filter,
    line: impl Fn(&Spooled) -> String,
) -> Result<(), Failure> {
    const BUFFERED_BYTES: usize = 64 * 1024;
    for warning in filter.warnings() {
        tracing::warn!("{warning}");
    }
    let mut lines = String::new();
    let mut printed = Ok(());
    let reading = snapshot.read(&mut |spooled| {
        if takes(filter, &spooled.record) {
            lines += &line(&spooled);
            lines.push('\n');
        }
        if lines.len() >= BUFFERED_BYTES {
            printed = output::write(&lines);
            lines.clear();
        }
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    printed?;
    output::write(&lines)?;
    judge(&reading)
}

fn takes(filter: &filter::Filter, record: &Record) -> bool {
    let event = match &record.event {
        Some(event) => filter::EventName::Known(event),
        None => filter::EventName::InValue(&record.value),
    };
    filter.takes(filter::Parts {
        key: record.key.as_deref(),
        event,
        reason: reason_of(record).map(str::as_bytes),
        timestamp: Some(record.timestamp),
    })
}

/// Reports what could not be read.
fn judge(reading: &Reading) -> Result<(), Failure> {
    if reading.has_changed {
        tracing::warn!(
            "the service changed the spool while it was read: records that left it meanwhile may be missing here"
        );
    }
    match &reading.damage {
        None => Ok(()),
        Some(damage) if damage.loses_nothing() => {
            tracing::warn!("the spool: {damage}");
            Ok(())
        }
        Some(damage) => Err(lost(damage)),
    }
}

fn lost(damage: &Damage) -> Failure {
    Failure::Failed(format!(
        "not all records of the spool can be read: {damage}"
    ))
}

/// A time as RFC 3339 writes it, in UTC.
fn time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => milliseconds.to_string(),
    }
}

/// The same without the part of a second.
fn second(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => milliseconds.to_string(),
    }
}

/// Control characters and line breaks as escapes.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let chars = text.chars().map(|char| match char {
        '"' | '\'' => char.to_string(),
        other => other.escape_debug().to_string(),
    });
    chars.collect()
}
