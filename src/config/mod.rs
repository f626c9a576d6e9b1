//! The settings, from flags and environment variables.
//!
//! Every setting is a variable. All but secrets and Kafka properties are also flags; every user of
//! a machine can read the flags of its processes. An empty variable counts as not set, because
//! compose files pass unset variables that way.
//!
//! [`parse`] and the functions that check settings collect what is wrong in [`Faults`], so that a
//! command reports all of it in one run.
//!
//! This module fills the settings of the modules below it and knows all of them. It is the only
//! reader of the environment, apart from `failpoint`.

mod addresses;
mod arguments;
mod authorities;
mod callbacks;
mod environment;
mod faults;
mod file;
mod in_force;
mod omit;
mod registry;
mod source;
mod suggestions;
mod topics;
mod units;
mod values;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;

use crate::event::Routes;
use crate::kafka::{
    CreateTopics, KafkaSettings, Place, Problem, Properties, PropertyError, check_brokers,
};
use crate::spool::SpoolSettings;
pub use arguments::{
    AdminArgs, CallbackArgs, ConnectionArgs, DeadlineArgs, KafkaArgs, ListenArgs, LogArgs,
    LogFormat, SecretsArgs, ServeArgs, SpoolArgs, TopicArg, TopicArgs,
};
pub use authorities::AuthoritiesSettings;
pub use callbacks::{PortParts, PortSettings, secrets};
use environment::variable;
pub use environment::{columns, parse, program, unknown_variables, variables};
pub use faults::{ConfigError, ConfigErrors, Faults};
use faults::{NOT_SET, contradiction, invalid};
pub use file::{Content, MAX_FILE_BYTES, read_text};
pub use in_force::{Origin, Setting, State};
pub use registry::{RegistryArgs, SCHEMA_REGISTRY_AUTH};
pub use source::{Reading, Source};
pub use suggestions::nearest;
use topics::Chosen;
pub use units::unit_of;
pub use values::{duration, path};

/// `appid=secret` pairs.
pub const CALLBACK_SECRETS: &str = "ZIM2KAFKA_CALLBACK_SECRETS";

/// librdkafka properties.
pub const KAFKA_PROPERTIES: &str = "ZIM2KAFKA_KAFKA_PROPERTIES";

/// The settings that are variables only: each is a secret or may hold one. A file can stand for
/// each, which another setting names.
pub const WITHOUT_FLAG: [&str; 3] = [CALLBACK_SECRETS, KAFKA_PROPERTIES, SCHEMA_REGISTRY_AUTH];

/// The settings for Kafka. Those that are at fault are missing.
#[derive(Debug, Clone)]
pub struct KafkaParts {
    /// The brokers.
    pub brokers: Option<String>,
    /// The properties.
    pub properties: Option<Properties>,
    /// Where events go.
    pub routes: Option<Routes>,
    /// How missing topics are created, if they are.
    pub create_topics: Option<CreateTopics>,
}

impl KafkaParts {
    /// The settings, if none is missing.
    pub fn complete(self) -> Option<KafkaSettings> {
        Some(KafkaSettings {
            brokers: self.brokers?,
            properties: self.properties?,
            routes: self.routes?,
            create_topics: self.create_topics,
            schema_ids: None,
        })
    }
}

impl SpoolArgs {
    /// The settings of the spool; `None` if no folder is set.
    ///
    /// # Errors
    ///
    /// If it contradicts a deadline.
    pub fn settings(&self, deadlines: &DeadlineArgs) -> Result<Option<SpoolSettings>, ConfigError> {
        let settings = self.unchecked();
        let after = self.spool_after;
        if settings.is_some() && after >= deadlines.answer_deadline {
            return Err(contradiction(
                "ZIM2KAFKA_SPOOL_AFTER",
                "ZIM2KAFKA_ANSWER_DEADLINE",
                format!(
                    "{after:?} must be shorter than ZIM2KAFKA_ANSWER_DEADLINE ({:?}), or callbacks are answered 503 before the spool is used; write {:?}",
                    deadlines.answer_deadline,
                    deadlines.answer_deadline / 8
                ),
            ));
        }
        Ok(settings)
    }

    /// The settings of the spool, even if they contradict a deadline.
    pub fn unchecked(&self) -> Option<SpoolSettings> {
        let folder = self.spool_dir.as_ref()?;
        Some(SpoolSettings {
            // Messages show where a relative path leads.
            folder: std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
            max_bytes: self.spool_max_bytes as u64,
            after: self.spool_after,
        })
    }

    /// The folder of the spool, for a command that needs one.
    ///
    /// # Errors
    ///
    /// If it is not set.
    pub fn folder(&self) -> Result<PathBuf, ConfigError> {
        let folder = self.spool_dir.as_ref().ok_or_else(|| {
            invalid(
                "ZIM2KAFKA_SPOOL_DIR",
                format!(
                    "{NOT_SET}; write the folder of the service's spool, such as /var/lib/zim2kafka"
                ),
            )
        })?;
        // Messages show where a relative path leads.
        Ok(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
    }

    /// Checks that the path of the spool is not that of a file. `check` has a finding for it.
    ///
    /// # Errors
    ///
    /// If it is.
    pub fn check_folder(&self) -> Result<(), ConfigError> {
        match &self.spool_dir {
            Some(folder) if fs::metadata(folder).is_ok_and(|file| !file.is_dir()) => Err(invalid(
                "ZIM2KAFKA_SPOOL_DIR",
                format!(
                    "{} is not a folder; write the path of a folder, such as /var/lib/zim2kafka",
                    folder.display()
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl KafkaArgs {
    /// The settings for Kafka, for commands that need brokers. Logs the warnings of the properties.
    ///
    /// # Errors
    ///
    /// All invalid settings.
    pub fn settings(&self, topics: Option<&TopicArgs>) -> Result<KafkaSettings, ConfigErrors> {
        let mut faults = Faults::default();
        let parts = self.parts(topics, &mut faults);
        let settings = faults.finish(parts.complete())?;
        for warning in settings.properties.warnings() {
            tracing::warn!("Kafka properties: {warning}");
        }
        Ok(settings)
    }

    /// The settings for Kafka, each as far as it is valid, for a command that has findings instead
    /// of a log.
    pub fn parts(&self, topics: Option<&TopicArgs>, faults: &mut Faults) -> KafkaParts {
        const BROKERS: &str = "ZIM2KAFKA_KAFKA_BROKERS";
        let written = self.kafka_brokers.as_deref();
        let properties = self.properties(written.unwrap_or_default());
        let protocol = properties.as_ref().map(Properties::security_protocol).ok();
        let brokers = match written.map(|list| check_brokers(list, protocol.as_deref())) {
            None => Err(ConfigErrors::from(invalid(
                BROKERS,
                format!("{NOT_SET}; write the brokers as host:port,host:port"),
            ))),
            Some(checked) => checked
                .map_err(|errors| errors.iter().map(|error| invalid(BROKERS, error)).collect()),
        };
        let brokers = faults.take(brokers);
        self.with_properties(brokers, properties, topics, faults)
    }

    /// The settings for Kafka, with these brokers.
    ///
    /// # Errors
    ///
    /// All invalid settings.
    pub fn settings_with(
        &self,
        brokers: &str,
        topics: Option<&TopicArgs>,
    ) -> Result<KafkaSettings, ConfigErrors> {
        let mut faults = Faults::default();
        let (owned, properties) = (Some(brokers.to_owned()), self.properties(brokers));
        let parts = self.with_properties(owned, properties, topics, &mut faults);
        faults.finish(parts.complete())
    }

    fn with_properties(
        &self,
        brokers: Option<String>,
        properties: Result<Properties, ConfigErrors>,
        topics: Option<&TopicArgs>,
        faults: &mut Faults,
    ) -> KafkaParts {
        let topics = topics.filter(|topics| topics.create_topics);
        KafkaParts {
            brokers,
            routes: faults.take(self.routes()),
            properties: faults.take(properties),
            create_topics: topics.map(|topics| CreateTopics {
                partitions: topics.topic_partitions,
                replication: topics.topic_replication,
            }),
        }
    }

    /// The topics of events that a subscriber reads: the one of the flag `--topic`, or else all.
    pub fn topics_to_read(&self, routes: &Routes) -> Vec<String> {
        match self.topic.is_flag {
            true => vec![self.topic.name.clone()],
            false => routes.event_topics().to_vec(),
        }
    }

    /// Where events go.
    ///
    /// # Errors
    ///
    /// All invalid topics.
    pub fn routes(&self) -> Result<Routes, ConfigErrors> {
        self.chosen_topics().routes()
    }

    fn chosen_topics(&self) -> Chosen<'_> {
        Chosen {
            list: self.topics.as_deref(),
            topic: &self.topic.name,
            topic_is_given: self.topic.is_given,
            dead_letter_topic: &self.dead_letter_topic,
        }
    }

    /// The properties of the variable and of the file.
    fn properties(&self, brokers: &str) -> Result<Properties, ConfigErrors> {
        const FILE: &str = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE";
        let path = self.kafka_properties_file.as_deref();
        let mut faults = Faults::default();
        let list = faults.take(variable(KAFKA_PROPERTIES)).flatten();
        let file = path.and_then(|path| faults.take(file::read_text(FILE, path)));
        let given = list.as_ref().map_or(FILE, |_| KAFKA_PROPERTIES);
        let owned = brokers.to_owned();
        let (reading, read) = mpsc::channel();
        let parse = move || {
            let file = file.as_ref().map(|text| text.as_str());
            Properties::parse(list.as_deref(), file, &owned, |place, name| {
                // The receiver may have given up.
                reading.send((place, name.to_owned())).unwrap_or_default();
            })
        };
        // The disk of a file that a property names may not answer.
        let parsed = match file::within(file::START_TIMEOUT, parse) {
            Ok(Some(parsed)) => parsed,
            failed => match read.try_iter().last() {
                Some(file) => Err(vec![unread(file)]),
                None => {
                    let reason = failed
                        .err()
                        .map_or("too slow".to_owned(), |e| e.to_string());
                    let problem = format!("could not be checked ({reason}); start again");
                    faults.add(invalid(given, problem));
                    Err(Vec::new())
                }
            },
        };
        let parsed = parsed.map_err(|errors| -> ConfigErrors {
            let named = errors.iter().map(|error| match (error.place, path) {
                (Place::Line(_), Some(path)) => {
                    invalid(FILE, format!("{}, {error}", path.display()))
                }
                _ => invalid(KAFKA_PROPERTIES, error),
            });
            named.collect()
        });
        let parsed = faults.take(parsed);
        faults.finish(parsed)
    }
}

/// The fault of a property whose file was not read in time.
fn unread((place, name): (Place, String)) -> PropertyError {
    let instead = format!(
        "its file was not read within {:?}; check its disk, or name a file on another one",
        file::START_TIMEOUT
    );
    let problem = Problem::Value { name, instead };
    PropertyError { place, problem }
}

#[cfg(test)]
mod tests;
