//! `check`: finds what would weaken or break a promise, before the first callback.

use super::{Failure, blocking};
use crate::config::{self, ServeArgs};
use crate::finding::{Finding, Level};
use crate::kafka::{self, Topics, Unreached};
use crate::spool;

/// The flags of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Fail on a warning too
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let serve = args.serve;
    serve
        .callback
        .callback_settings(&serve.deadlines, &serve.connections)?;
    serve.connections.limits()?;
    serve.connections.certificate()?;
    config::secrets(serve.callback.callback_secrets_file.as_deref())?;
    // Creating topics is left to `serve`.
    let settings = serve.kafka.settings(None)?;
    let mut findings = vec![Finding::ok("configuration", "valid")];
    let spool = serve.spool.settings(&serve.deadlines)?;
    findings.extend(match &spool {
        Some(spool) => spool::inspect(spool),
        None => vec![Finding::warning(
            "spool",
            "there is none, so an outage of Kafka longer than a minute loses events; set ZIM2KAFKA_SPOOL_DIR",
        )],
    });
    let probed = settings.clone();
    let reachability = blocking(move || kafka::probe(&probed)).await??;
    let unreached = reachability.unreached.into_iter();
    findings.extend(unreached.map(judge_unreached));
    let inspected = match reachability.is_any_reached {
        true => Some(
            Topics::new(&settings)?
                .inspect(spool.map(|spool| spool.after))
                .await,
        ),
        false => None,
    };
    match inspected {
        None => {}
        Some(Ok(inspection)) => {
            findings.push(Finding::ok("Kafka", "answers"));
            findings.extend(inspection.findings);
        }
        Some(Err(error)) => findings.push(Finding::error(
            "Kafka",
            format!("does not answer ({error}); check ZIM2KAFKA_KAFKA_BROKERS and the network"),
        )),
    }
    let width = findings
        .iter()
        .map(|finding| finding.subject.len())
        .max()
        .unwrap_or(0);
    for Finding {
        level,
        subject,
        text,
    } in &findings
    {
        println!("{level:<7}  {subject:<width$}  {text}");
    }
    let limit = if args.strict {
        Level::Warning
    } else {
        Level::Error
    };
    if findings.iter().any(|finding| finding.level >= limit) {
        return Err(Failure::Reported);
    }
    Ok(())
}

/// What to check if a broker cannot be reached.
fn judge_unreached(unreached: Unreached) -> Finding {
    let Unreached {
        is_advertised,
        step,
        text,
    } = unreached;
    let text = match text.as_str() {
        "" => "no answer",
        text => text,
    };
    let advice = match step {
        Some(step) => step.advice(),
        None => "check ZIM2KAFKA_KAFKA_BROKERS and the network",
    };
    Finding::error(
        "Kafka",
        match is_advertised {
            false => format!("does not answer ({text}); {advice}"),
            true => format!(
                "a broker does not answer at the address that Kafka advertises ({text}); check its advertised.listeners; {advice}"
            ),
        },
    )
}
