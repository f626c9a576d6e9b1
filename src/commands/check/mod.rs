//! `check`: finds what would weaken or break a promise, before the first callback.

mod findings;
mod report;
mod table;

use super::{Failure, output};
use crate::config::{Faults, ServeArgs, Setting};
use crate::finding::Level;
use table::Layout;

/// The flags of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Changes nothing: creates neither topics nor the spool, and writes no record.

The table lists the settings in force and where each is set (flag, variable, file, default), then the
findings, the worst last, and a summary:
  ok       no problem
  warning  weakens a promise, such as replication factor 1
  error    breaks one, such as a topic that is missing, or an invalid setting
Secrets, the values of Kafka properties and a callback path are not shown. A failed connection is
reported with the step that failed (resolve, connect, TLS, SASL, authorization, topic) and librdkafka's
reason. On a terminal, or if COLUMNS is set, lines are wrapped; elsewhere each finding is one line.

Exit codes: 0 no error; 1 an error, with --strict also a warning; 2 invalid configuration.")]
pub(super) struct Args {
    /// Fail on a warning too
    #[arg(long)]
    strict: bool,
    /// Print one JSON object, described by schemas/check-report.schema.json, instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) async fn run(args: Args, faults: Faults, settings: Vec<Setting>) -> Result<(), Failure> {
    let report = findings::all(&args.serve, faults, settings).await?;
    let text = match args.json {
        true => report.json(),
        false => table::of(
            &report,
            Layout {
                columns: output::columns(),
                has_colours: output::has_colours(),
            },
        ),
    };
    output::print(text).await?;
    let limit = match args.strict {
        true => Level::Warning,
        false => Level::Error,
    };
    match report.result() {
        _ if !report.is_valid() => Err(Failure::Arguments),
        result if result >= limit => Err(Failure::Reported),
        _ => Ok(()),
    }
}
