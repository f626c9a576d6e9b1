//! `check`: finds what would weaken or break a promise, before the first callback.

use clap::CommandFactory;

use super::{Cli, Failure, blocking, output};
use crate::config::{self, Faults, ServeArgs};
use crate::event::Omit;
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
    let kafka = faults.take(serve.kafka.unlogged_settings(Some(&serve.topics)));
    let secrets = config::secrets(&serve.callback.secrets);
    faults.take(secrets);
    let ports = serve.ports(&mut faults);
    let (settings, ports) = faults.finish(kafka.zip(ports))?;
    let mut findings = vec![Finding::ok("configuration", "valid")];
    let warnings = serve.warnings().into_iter();
    findings.extend(warnings.map(|text| Finding::warning("configuration", text)));
    let unknown = config::unknown_variables(&Cli::command()).into_iter();
    findings.extend(unknown.map(|text| Finding::warning("variables", text)));
    let properties = settings.properties.warnings().into_iter();
    findings.extend(properties.map(|text| Finding::warning("Kafka properties", text)));
    let before_send = ports.callbacks.before_send.warning().into_iter();
    findings.extend(before_send.map(|text| Finding::warning("before_send_msg", text)));
    let certificate = ports.certificate.iter();
    findings.extend(certificate.flat_map(|(certificate, _)| certificate.findings()));
    findings.extend(kafka::judge_routes(&settings.routes));
    findings.extend(judge_omit(&ports.omit, settings.routes.dead_letter_topic()));
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
        // Creating topics is left to `serve`.
        true => {
            let topics = Topics::new(&settings)?.validate_only();
            Some(topics.inspect(&usage).await)
        }
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

/// Warns that dead letters still have the fields that are left out of records.
fn judge_omit(omit: &Omit, dead_letter_topic: &str) -> Option<Finding> {
    (*omit != Omit::default()).then(|| {
        Finding::warning(
            "ZIM2KAFKA_OMIT",
            format!(
                "applies to records only: dead letters, in {dead_letter_topic} and in the spool, keep whole bodies; restrict who can read them, or send an event to discard"
            ),
        )
    })
}

/// The finding about a broker that cannot be reached, with advice.
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
        Some(step) => step.advice(is_advertised),
        None if is_advertised => "check its advertised.listeners and the network",
        None => "check ZIM2KAFKA_KAFKA_BROKERS and the network",
    };
    Finding::error(
        "Kafka",
        match is_advertised {
            false => format!("does not answer ({text}); {advice}"),
            true => format!(
                "a broker does not answer at the address that Kafka advertises ({text}); {advice}"
            ),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Step;

    #[test]
    fn the_advice_is_about_the_setting_that_has_the_address() {
        const OWN: &str = "ZIM2KAFKA_KAFKA_BROKERS";
        const KAFKAS: &str = "check its advertised.listeners";
        for step in [None, Some(Step::Resolve), Some(Step::Connect)] {
            for (is_advertised, named, other) in [(false, OWN, KAFKAS), (true, KAFKAS, OWN)] {
                let Finding { text, .. } = judge_unreached(Unreached {
                    is_advertised,
                    step,
                    text: "a:1: refused".to_owned(),
                });
                assert!(text.contains("(a:1: refused); check "), "{text}");
                assert!(text.contains(named) && !text.contains(other), "{text}");
            }
        }
        let login = judge_unreached(Unreached {
            is_advertised: true,
            step: Some(Step::Sasl),
            text: String::new(),
        });
        assert!(login.text.contains("(no answer); check security.protocol"));
    }
}
