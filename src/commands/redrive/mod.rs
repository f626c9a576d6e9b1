//! `redrive`: judges dead letters anew and publishes what has become valid.

mod batch;
mod job;
mod judge;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha1::{Digest, Sha1};

use super::filter::Filter;
use super::progress::Counter;
use super::{Failure, Stop, blocking, output, read_settings, unless_stopped};
use crate::config::{self, CallbackArgs, Faults, KafkaArgs, RegistryArgs};
use crate::event::{Policy, Rules};
use crate::intake::IntakeSettings;
use crate::kafka::{KafkaSettings, REDRIVE_PREFIX, SchemaIds};
use crate::log::Chain;
use crate::schema_registry;
use job::Job;
use judge::Judge;
use table::{Outcome, Table};

/// The flags of `redrive`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("callback_path", |arg| arg.hide(true)),
    mut_arg("body_limit", |arg| arg.hide(true)),
    mut_arg("before_send", |arg| arg.hide(true)),
    mut_arg("before_send_reason", |arg| arg.hide(true)),
    after_help = AFTER_HELP
)]
pub(super) struct Args {
    /// Only print the table: publish nothing and store no progress
    #[arg(long)]
    dry_run: bool,
    /// Publish stale dead letters too, whatever their age
    #[arg(long)]
    ignore_age: bool,
    /// Publish values of rejected_by_kafka too. They have no signature, so anyone who can
    /// write to the dead-letter topic can forge them
    #[arg(long)]
    trust_topic: bool,
    /// Judge all dead letters again, also those that an earlier run with the same filters has judged
    #[arg(long)]
    from_beginning: bool,
    /// Do not look for the records of earlier runs in the topics of events; they are published again
    #[arg(long)]
    republish: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    callback: CallbackArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    filter: Filter,
}

const AFTER_HELP: &str = "\
Each dead letter is judged as if it arrived again at the time when it was received, by today's \
secrets, topics, tolerance and omitted fields. What has become valid is published with the key, the \
event_id and the value that it would have had, and the header redriven: true. The others stay dead \
letters. Stale ones are judged by the clock of that time: if it was wrong, use --ignore-age.\n\n\
Progress is stored for each set of filters, in one Kafka transaction with the records. Subscribers \
get nothing twice, even if this command is killed, if they read with isolation.level=read_committed. \
The same command continues where it ended. Run one redrive at a time.\n\n\
Rights: Read and Describe on the dead-letter topic and the topics of events, Write on the topics of \
events; Read and Describe on the consumer groups, and Write and Describe on the transactional ids, \
that begin with zim2kafka-redrive-.";

/// What the job needs, owned.
struct Settings {
    kafka: KafkaSettings,
    intake: IntakeSettings,
}

pub(super) async fn run(args: Args, mut faults: Faults, stop: &Stop) -> Result<(), Failure> {
    args.filter.check(&mut faults);
    for warning in args.filter.warnings() {
        tracing::warn!("{warning}");
    }
    let (kafka, callback) = (args.kafka.clone(), args.callback.clone());
    let registry = args.registry.clone();
    let read = move || {
        let kafka = faults.take(kafka.settings(None));
        let secrets = faults.take(config::secrets(&callback.secrets));
        let omit = faults.take(callback.omit());
        let registry = faults.take(registry.settings());
        let settings = kafka.zip(secrets).zip(omit);
        let settings = settings.map(|((kafka, (secrets, _)), omit)| Settings {
            kafka,
            intake: callback.intake(secrets, omit),
        });
        faults.finish(settings.zip(registry))
    };
    let Some((mut settings, registry)) = read_settings(stop, read).await? else {
        return Ok(());
    };
    if let Some(registry) = registry.filter(|_| !args.dry_run) {
        if let Some(warning) = registry.warning() {
            tracing::warn!("schema registry: {warning}");
        }
        let mut ids = BTreeMap::new();
        let errors = registry.ids(&settings.kafka.routes, registry.registration(), &mut ids);
        let errors = unless_stopped(stop, async { Ok(errors.await) }).await?;
        if let Some(reason) = schema_registry::summary(&errors) {
            return Err(Failure::Failed(reason));
        }
        let known = SchemaIds::default();
        known.set(ids, None);
        settings.kafka.schema_ids = Some(Arc::new(known));
    }
    let topic = settings.kafka.routes.dead_letter_topic().to_owned();
    let (filters, is_dry) = (args.filter.to_string(), args.dry_run);
    let counter = Arc::new(Counter::default());
    let progress = counter.show();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let work = {
        let (counter, is_stopped) = (Arc::clone(&counter), Arc::clone(&is_stopped));
        blocking(move || args.work(&settings, &counter, &is_stopped))
    };
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = stop.first() => {
            // The transaction that is under way is ended in order.
            is_stopped.store(true, Ordering::Relaxed);
            work.await
        }
    };
    progress.finish().await;
    let (table, failed) = done?;
    output::print(table.text(&topic, &filters, is_dry)).await?;
    failed?;
    if is_stopped.load(Ordering::Relaxed) {
        return Err(Failure::Failed(
            "stopped by a signal; the same command continues where this one ended".to_owned(),
        ));
    }
    match table.count(|outcome| *outcome == Outcome::Rejected) {
        0 => Ok(()),
        rejected => Err(Failure::Failed(format!(
            "Kafka has rejected {rejected} of the records; raise max.message.bytes of their topic, or correct the setting that the table names, and judge them again with --from-beginning"
        ))),
    }
}

impl Args {
    /// Does the work, and returns the table even if it fails.
    fn work(
        &self,
        settings: &Settings,
        counter: &Counter,
        stop: &AtomicBool,
    ) -> (Table, Result<(), Failure>) {
        let Settings { kafka, intake } = settings;
        let policy = Policy {
            omit: intake.omit.clone(),
            tolerance: intake.timestamp_tolerance,
        };
        let age_limit = intake.timestamp_tolerance.filter(|_| !self.ignore_age);
        let group = group(kafka.routes.dead_letter_topic(), &self.filter);
        let job = Job {
            kafka,
            judge: Judge {
                secrets: &intake.secrets,
                timestamp_unit: intake.timestamp_unit,
                rules: Rules {
                    routes: &kafka.routes,
                    policy: &policy,
                    age_limit,
                },
                trust_topic: self.trust_topic,
            },
            filter: &self.filter,
            group: &group,
            is_dry: self.dry_run,
            from_beginning: self.from_beginning,
            republish: self.republish,
            stop,
            counter,
        };
        let mut table = Table::default();
        let done = job.run(&mut table);
        let done = done.map_err(|error| Failure::Failed(Chain(&error).to_string()));
        (table, done)
    }
}

/// The consumer group of these filters on this topic. It is also the transactional id, so that of two
/// runs at once the first one ends.
fn group(topic: &str, filter: &Filter) -> String {
    let hash = Sha1::digest(filter.canonical());
    let hash = hex::encode(hash.get(..8).unwrap_or_default());
    format!("{REDRIVE_PREFIX}{topic}-{hash}")
}

#[cfg(test)]
mod tests;
