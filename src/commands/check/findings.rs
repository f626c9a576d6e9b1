//! What `check` finds. A fault ends no check that does not depend on it.

use std::collections::BTreeMap;

use clap::CommandFactory;

use super::super::{Cli, Failure, blocking, serve};
use super::report::{Property, Report};
use crate::config::{self, Faults, KafkaParts, Origin, ServeArgs, Setting, State};
use crate::event::{GROUP_JOIN, Omit, Routes};
use crate::finding::Finding;
use crate::kafka::{self, Address, KafkaSettings, Place, Properties, TopicUse, Topics, Unreached};
use crate::log::count;
use crate::schema_registry::{Registration, RegistryError, SchemaRegistry};
use crate::spool;

const TOPIC: &str = "ZIM2KAFKA_TOPIC";
const SPOOL_DIR: &str = "ZIM2KAFKA_SPOOL_DIR";

/// Checks everything.
pub(super) async fn all(
    arguments: &ServeArgs,
    mut faults: Faults,
    mut settings: Vec<Setting>,
) -> Result<Report, Failure> {
    let kafka = arguments.kafka.parts(Some(&arguments.topics), &mut faults);
    faults.take(config::secrets(&arguments.callback.secrets));
    let registry = faults.take(arguments.registry.settings()).flatten();
    let ports = arguments.port_parts(&mut faults);
    let spool = arguments.spool.unchecked();

    let invalid = faults.named();
    let invalid = invalid.iter();
    let mut findings: Vec<_> = invalid
        .map(|fault| Finding::error(&fault.variable, &fault.problem))
        .collect();
    let is_valid = findings.is_empty();
    if is_valid {
        findings.push(Finding::ok("configuration", "valid"));
    }
    let open_files = serve::check_open_files(&arguments.connections).err();
    let open_files = open_files.map(|failure| Finding::error("open files", failure.to_string()));
    findings.extend(open_files);
    let warnings = arguments.warnings().into_iter();
    findings.extend(warnings.map(|text| Finding::warning("configuration", text)));
    let unknown = config::unknown_variables(&Cli::command()).into_iter();
    findings.extend(unknown.map(|text| Finding::warning("variables", text)));
    if let Some(properties) = &kafka.properties {
        let warnings = properties.warnings().into_iter();
        findings.extend(warnings.map(|text| Finding::warning("Kafka properties", text)));
    }
    let before_send = arguments.callback.before_send.warning().into_iter();
    findings.extend(before_send.map(|text| Finding::warning("before_send_msg", text)));
    if let Some(Some((certificate, _))) = &ports.certificate {
        findings.extend(certificate.findings());
    }
    if let Some(routes) = &kafka.routes {
        findings.extend(kafka::judge_routes(routes));
        findings.extend(judge_omit(&ports.omit.unwrap_or_default(), routes));
    }
    match &spool {
        Some(spool) => findings.extend(spool::inspect(spool)),
        None if faults.is_at_fault(SPOOL_DIR) => {}
        None => findings.push(Finding::warning(
            "spool",
            "there is none, so an outage of Kafka longer than a minute loses events; set ZIM2KAFKA_SPOOL_DIR",
        )),
    }
    let usage = TopicUse {
        timestamp_tolerance: arguments.callback.timestamp_tolerance,
        spool,
    };
    findings.extend(of_kafka(&kafka, &usage).await?);
    if let Some((registry, routes)) = registry.as_ref().zip(kafka.routes.as_ref()) {
        findings.extend(of_registry(registry, routes).await);
    }

    conceal(&mut settings, &faults, kafka.routes.as_ref());
    let properties = properties(&kafka);
    Ok(Report::new(is_valid, findings, settings, properties))
}

/// Leaves out the values that are not in force.
fn conceal(settings: &mut [Setting], faults: &Faults, routes: Option<&Routes>) {
    let topic = routes.map(|routes| routes.topic_of(GROUP_JOIN));
    for setting in settings {
        // ZIM2KAFKA_TOPICS takes precedence over the default.
        let is_default = setting.name == TOPIC && setting.origin == Origin::Default;
        let is_in_force = topic.is_none_or(|topic| topic == setting.value.as_deref());
        // A setting that is missing is shown as that.
        let is_given = setting.origin != Origin::Default || setting.value.is_some();
        if is_given && faults.is_at_fault(&setting.name) {
            setting.conceal(State::Invalid);
        } else if is_default && !is_in_force {
            setting.conceal(State::Unset);
        }
    }
}

fn properties(kafka: &KafkaParts) -> Vec<Property> {
    let names = kafka.properties.iter().flat_map(Properties::names);
    let property = |(name, place): (&str, Place)| Property {
        name: name.to_owned(),
        origin: match place {
            Place::Entry(_) => Origin::Variable,
            Place::Line(_) => Origin::File,
        },
    };
    names.map(property).collect()
}

/// The connection to Kafka and the topics, as far as the settings for them are valid.
async fn of_kafka(kafka: &KafkaParts, usage: &TopicUse) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    // Only the connection is checked if it is not known where events go.
    let no_routes = || Routes::new([], "zim.dead-letter");
    let settings = KafkaParts {
        routes: Some(kafka.routes.clone().unwrap_or_else(no_routes)),
        ..kafka.clone()
    };
    let Some(settings) = settings.complete() else {
        let text =
            "was not checked, because its settings are invalid; correct them and check again";
        return Ok(vec![Finding::warning("Kafka", text)]);
    };
    let probed = settings.clone();
    let reachability = match blocking(move || kafka::probe(&probed)).await? {
        Ok(reachability) => reachability,
        Err(error) => return Ok(vec![unusable(&error)]),
    };
    let unreached = reachability.unreached.into_iter();
    findings.extend(unreached.map(judge_unreached));
    if !reachability.is_any_reached {
        return Ok(findings);
    }
    if kafka.routes.is_none() {
        let text = "were not checked, because the settings of topics are invalid; correct them and check again";
        findings.extend([
            Finding::ok("Kafka", "answers"),
            Finding::warning("topics", text),
        ]);
        return Ok(findings);
    }
    findings.extend(of_topics(&settings, usage).await);
    Ok(findings)
}

async fn of_topics(settings: &KafkaSettings, usage: &TopicUse) -> Vec<Finding> {
    let topics = match Topics::new(settings) {
        // Creating topics is left to `serve`.
        Ok(topics) => topics.validate_only(),
        Err(error) => return vec![unusable(&error)],
    };
    match topics.inspect(usage).await {
        Ok(inspection) => inspection.findings,
        Err(error) => vec![Finding::error(
            "Kafka",
            format!("does not answer ({error}); check ZIM2KAFKA_KAFKA_BROKERS and the network"),
        )],
    }
}

/// Looks up the schemas of all events with a topic. Registering them is left to `serve`.
async fn of_registry(registry: &SchemaRegistry, routes: &Routes) -> Vec<Finding> {
    const SUBJECT: &str = "schema registry";
    let warning = registry.warning().into_iter();
    let warning = warning.map(|text| Finding::warning(SUBJECT, text));
    let mut ids = BTreeMap::new();
    let errors = registry.ids(routes, Registration::LookUp, &mut ids).await;
    let is_registered_later = |error: &RegistryError| {
        registry.registration() == Registration::Register
            && matches!(error, RegistryError::NotRegistered { .. })
    };
    let (later, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_registered_later);
    let known = count(ids.len() as u64, "schema");
    let found = match (later.len(), errors.is_empty()) {
        (0, true) => Some(format!("has {known}")),
        (0, false) => None,
        (later, _) => Some(format!(
            "answers and has {known}; `serve` registers {later} more, if it is allowed to"
        )),
    };
    let found = found.map(|text| Finding::ok(SUBJECT, text));
    let errors = errors
        .iter()
        .map(|error| Finding::error(SUBJECT, error.to_string()));
    found.into_iter().chain(warning).chain(errors).collect()
}

/// librdkafka does not create a client.
fn unusable(error: &kafka::Error) -> Finding {
    Finding::error(
        "Kafka",
        format!(
            "cannot be used ({error}); check ZIM2KAFKA_KAFKA_PROPERTIES and the limits of this process"
        ),
    )
}

/// Warns that dead letters still have the fields that are left out of records.
fn judge_omit(omit: &Omit, routes: &Routes) -> Option<Finding> {
    (*omit != Omit::default()).then(|| {
        Finding::warning(
            "ZIM2KAFKA_OMIT",
            format!(
                "applies to records only: dead letters, in {} and in the spool, keep whole bodies; restrict who can read them, or send an event to discard",
                routes.dead_letter_topic()
            ),
        )
    })
}

/// The finding about a broker that cannot be reached, with advice.
fn judge_unreached(unreached: Unreached) -> Finding {
    let Unreached {
        address,
        step,
        text,
    } = unreached;
    let text = match text.as_str() {
        "" => "no answer",
        text => text,
    };
    let is_advertised = address == Address::Advertised;
    let advice = match step {
        Some(step) => step.advice(is_advertised),
        None if is_advertised => "check its advertised.listeners and the network",
        None => "check ZIM2KAFKA_KAFKA_BROKERS and the network",
    };
    let finding = match address {
        Address::Bootstrap => {
            Finding::error("Kafka", format!("does not answer ({text}); {advice}"))
        }
        Address::OneBootstrap => Finding::warning(
            "Kafka",
            format!(
                "one of ZIM2KAFKA_KAFKA_BROKERS does not answer ({text}), so Kafka is not found if the others are down at a start; {advice}"
            ),
        ),
        Address::Advertised => Finding::error(
            "Kafka",
            format!(
                "a broker does not answer at the address that Kafka advertises ({text}); {advice}"
            ),
        ),
    };
    match step {
        Some(step) => finding.at(step),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Level, Step};

    #[test]
    fn the_advice_is_about_the_setting_that_has_the_address() {
        const OWN: &str = "check ZIM2KAFKA_KAFKA_BROKERS";
        const NAME: &str = "check the name in ZIM2KAFKA_KAFKA_BROKERS";
        const KAFKAS: &str = "check its advertised.listeners";
        use Address::{Advertised, Bootstrap, OneBootstrap};
        for (address, step, level, named) in [
            (Bootstrap, None, Level::Error, OWN),
            (Bootstrap, Some(Step::Resolve), Level::Error, NAME),
            (Bootstrap, Some(Step::Connect), Level::Error, OWN),
            (OneBootstrap, None, Level::Warning, OWN),
            (OneBootstrap, Some(Step::Resolve), Level::Warning, NAME),
            (Advertised, None, Level::Error, KAFKAS),
            (Advertised, Some(Step::Resolve), Level::Error, KAFKAS),
            (Advertised, Some(Step::Connect), Level::Error, KAFKAS),
        ] {
            let finding = judge_unreached(Unreached {
                address,
                step,
                text: "a:1: refused".to_owned(),
            });
            assert_eq!((finding.level, finding.step), (level, step));
            let text = finding.text;
            assert!(text.contains("(a:1: refused)"), "{text}");
            assert!(text.contains(&format!("; {named}")), "{text}");
        }
        let login = judge_unreached(Unreached {
            address: Advertised,
            step: Some(Step::Sasl),
            text: String::new(),
        });
        assert!(login.text.contains("(no answer); check security.protocol"));
    }
}
