//! `check`: finds what would weaken or break a promise, before the first callback.

use clap::CommandFactory;

use super::{Cli, Failure, blocking, output};
use crate::config::{self, Faults, ServeArgs};
use crate::finding::{Finding, Level};
use crate::kafka::{self, TopicUse, Topics, Unreached};
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

pub(super) async fn run(args: Args, mut faults: Faults) -> Result<(), Failure> {
    let serve = args.serve;
    // Creating topics is left to `serve`.
    let kafka = faults.take(serve.kafka.unlogged_settings(None));
    let secrets = config::secrets(serve.callback.callback_secrets_file.as_deref());
    faults.take(secrets);
    let ports = serve.ports(&mut faults);
    let (settings, ports) = faults.finish(kafka.zip(ports))?;
    let mut findings = vec![Finding::ok("configuration", "valid")];
    let unknown = config::unknown_variables(&Cli::command()).into_iter();
    findings.extend(unknown.map(|text| Finding::warning("variables", text)));
    let properties = settings.properties.warnings().into_iter();
    findings.extend(properties.map(|text| Finding::warning("Kafka properties", text)));
    let certificate = ports.certificate.iter();
    findings.extend(certificate.flat_map(|(certificate, _)| certificate.findings()));
    let spool = ports.spool;
    findings.extend(match &spool {
        Some(spool) => spool::inspect(spool),
        None => vec![Finding::warning(
            "spool",
            "there is none, so an outage of Kafka longer than a minute loses events; set ZIM2KAFKA_SPOOL_DIR",
        )],
    });
    let usage = TopicUse {
        timestamp_tolerance: serve.callback.timestamp_tolerance,
        spool,
    };
    let probed = settings.clone();
    let reachability = blocking(move || kafka::probe(&probed)).await??;
    let unreached = reachability.unreached.into_iter();
    findings.extend(unreached.map(judge_unreached));
    let inspected = match reachability.is_any_reached {
        true => Some(Topics::new(&settings)?.inspect(&usage).await),
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
    let mut table = Vec::new();
    for Finding {
        level,
        subject,
        text,
    } in &findings
    {
        table.push(format!("{level:<7}  {subject:<width$}  {text}"));
    }
    output::print(table.join("\n")).await?;
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
