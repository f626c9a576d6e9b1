//! The settings, from flags and environment variables.
//!
//! Every setting is a variable. All but secrets and Kafka properties are also flags; every user of
//! a machine can read the flags of its processes. An empty variable counts as not set, because
//! compose files pass unset variables that way.
//!
//! This module fills the settings of the modules below it and knows all of them. It is the only
//! reader of the environment, apart from `failpoint`.

mod arguments;
mod callbacks;
mod file;
mod source;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::event::{GroupJoined, Routes};
use crate::kafka::{CreateTopics, KafkaSettings, Properties};
use crate::spool::SpoolSettings;
pub use arguments::{
    AdminArgs, CallbackArgs, ConnectionArgs, DeadlineArgs, KafkaArgs, ListenArgs, LogArgs,
    LogFormat, ServeArgs, SpoolArgs, TopicArgs, duration,
};
pub use callbacks::secrets;
pub use file::{Content, MAX_FILE_BYTES};
pub use source::Source;

/// The prefix of every variable.
const PREFIX: &str = "ZIM2KAFKA_";

/// `appid=secret` pairs.
pub const CALLBACK_SECRETS: &str = "ZIM2KAFKA_CALLBACK_SECRETS";

/// librdkafka properties.
pub const KAFKA_PROPERTIES: &str = "ZIM2KAFKA_KAFKA_PROPERTIES";

/// Prefixes of variables that are not settings. Kubernetes sets the first two for a Service of this
/// name; the tests and the build use the others.
const IGNORED_PREFIXES: [&str; 4] = ["SERVICE_", "PORT", "TEST_", "REVISION"];

/// An invalid setting. The message names the variable and never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with its value, and what to write instead.
    pub problem: String,
}

fn invalid(variable: &'static str, problem: impl fmt::Display) -> ConfigError {
    let problem = problem.to_string();
    ConfigError { variable, problem }
}

/// The lowest limit of the spool: enough for SQLite's own pages and a few records of the largest
/// size.
const SPOOL_MAX_BYTES_MIN: usize = 4 * 1024 * 1024;

/// The longest deadline.
const DEADLINE_MAX: Duration = Duration::from_secs(3600);

impl SpoolArgs {
    /// The settings of the spool; `None` if no folder is set.
    ///
    /// # Errors
    ///
    /// The first invalid setting.
    pub fn settings(&self, deadlines: &DeadlineArgs) -> Result<Option<SpoolSettings>, ConfigError> {
        let after = self.spool_after;
        if self.spool_max_bytes < SPOOL_MAX_BYTES_MIN {
            return Err(invalid(
                "ZIM2KAFKA_SPOOL_MAX_BYTES",
                "must be at least 4MiB",
            ));
        }
        let Some(folder) = &self.spool_dir else {
            return Ok(None);
        };
        if after >= deadlines.answer_deadline {
            let problem = "must be shorter than ZIM2KAFKA_ANSWER_DEADLINE, or callbacks are answered 503 before the spool is used";
            return Err(invalid("ZIM2KAFKA_SPOOL_AFTER", problem));
        }
        Ok(Some(SpoolSettings {
            folder: folder.clone(),
            max_bytes: self.spool_max_bytes as u64,
            after,
        }))
    }
}

impl KafkaArgs {
    /// The settings for Kafka, for commands that need brokers.
    ///
    /// # Errors
    ///
    /// The first invalid setting.
    pub fn settings(&self, topics: Option<&TopicArgs>) -> Result<KafkaSettings, ConfigError> {
        const BROKERS: &str = "ZIM2KAFKA_KAFKA_BROKERS";
        let brokers = self.kafka_brokers.as_deref().ok_or_else(|| {
            invalid(
                BROKERS,
                "is not set; write the brokers as host:port,host:port",
            )
        })?;
        if !are_brokers(brokers) {
            let problem = "is not a list of brokers; write host:port,host:port";
            return Err(invalid(BROKERS, problem));
        }
        self.settings_with(brokers, topics)
    }

    /// The settings for Kafka, with these brokers.
    ///
    /// # Errors
    ///
    /// The first invalid setting.
    pub fn settings_with(
        &self,
        brokers: &str,
        topics: Option<&TopicArgs>,
    ) -> Result<KafkaSettings, ConfigError> {
        for (variable, name) in [
            ("ZIM2KAFKA_TOPIC", &self.topic),
            ("ZIM2KAFKA_DEAD_LETTER_TOPIC", &self.dead_letter_topic),
        ] {
            if !is_topic_name(name) {
                let problem =
                    "is not a topic name; write 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'";
                return Err(invalid(variable, problem));
            }
        }
        if self.topic == self.dead_letter_topic {
            let problem = "is the same as ZIM2KAFKA_TOPIC; choose another topic";
            return Err(invalid("ZIM2KAFKA_DEAD_LETTER_TOPIC", problem));
        }
        Ok(KafkaSettings {
            brokers: brokers.to_owned(),
            properties: self.properties()?,
            routes: Routes::new(
                [(GroupJoined::EVENT, self.topic.as_str())],
                &self.dead_letter_topic,
            ),
            create_topics: topics.filter(|topics| topics.create_topics).map(|topics| {
                CreateTopics {
                    partitions: topics.topic_partitions,
                    replication: topics.topic_replication,
                }
            }),
        })
    }

    fn properties(&self) -> Result<Properties, ConfigError> {
        const FILE: &str = "ZIM2KAFKA_KAFKA_PROPERTIES_FILE";
        match (variable(KAFKA_PROPERTIES)?, &self.kafka_properties_file) {
            (Some(_), Some(_)) => Err(invalid(
                KAFKA_PROPERTIES,
                format!("is set together with {FILE}; set one of the two"),
            )),
            (Some(list), None) => {
                Properties::parse_list(&list).map_err(|error| invalid(KAFKA_PROPERTIES, error))
            }
            (None, Some(path)) => Properties::parse_file(&file::read_text(FILE, path)?)
                .map_err(|error| invalid(FILE, error)),
            (None, None) => Ok(Properties::default()),
        }
    }
}

/// librdkafka ignores entries that it cannot parse, and then waits silently for brokers.
fn are_brokers(list: &str) -> bool {
    let is_broker = |broker: &str| {
        let address = broker
            .split_once("://")
            .map_or(broker, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            // An IPv6 address without a port: the last colon is a part of it.
            Some((_, rest)) if rest.ends_with(']') => (address, None),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    list.split(',').map(str::trim).all(is_broker)
}

fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && (name.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The value of a variable; `None` if it is empty.
fn variable(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(invalid(name, "is not valid UTF-8")),
    }
}

/// Parses the arguments and the variables by the definition of a command line.
///
/// # Errors
///
/// clap's, with the name of the variable if its value is invalid.
pub fn parse<C: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<C, clap::Error> {
    let quiet = |arg: clap::Arg| {
        // An empty variable counts as not set, and help never shows a value.
        let unset = (arg.get_env())
            .is_none_or(|name| env::var_os(name).is_none_or(|value| value.is_empty()));
        let arg = arg.hide_env_values(true);
        match arg.get_env().map(|name| name.to_owned()) {
            Some(name) if unset && env::var_os(&name).is_some() => arg.env(None::<&'static str>),
            _ => arg,
        }
    };
    let mut command = C::command()
        .mut_args(quiet)
        .mut_subcommands(|subcommand| subcommand.mut_args(quiet));
    let variables = variables(&command);
    let matches = command.try_get_matches_from_mut(arguments);
    matches
        .and_then(|matches| C::from_arg_matches(&matches))
        .map_err(|error| name_the_variable(error, &variables))
}

/// Pairs of a flag and its variable, as clap knows them.
pub fn variables(command: &clap::Command) -> BTreeSet<(String, String)> {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let arguments = commands.flat_map(clap::Command::get_arguments);
    let pairs = arguments.filter_map(|arg| {
        let variable = arg.get_env()?.to_str()?;
        Some((format!("--{}", arg.get_long()?), variable.to_owned()))
    });
    pairs.collect()
}

fn name_the_variable(
    mut error: clap::Error,
    variables: &BTreeSet<(String, String)>,
) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    // clap writes `--flag <VALUE>` or `--flag[=<VALUE>]`.
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    if let Some((flag, variable)) = variables.iter().find(|(name, _)| name == flag) {
        let named = ContextValue::String(format!("{flag} ({variable})"));
        error.insert(ContextKind::InvalidArg, named);
    }
    error
}

/// Returns a warning for each unknown `ZIM2KAFKA_*` variable that is set, with the nearest known
/// name.
pub fn unknown_variables(command: &clap::Command) -> Vec<String> {
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let set = set.filter_map(|(name, _)| name.into_string().ok());
    check_names(set, command)
}

fn check_names(set: impl Iterator<Item = String>, command: &clap::Command) -> Vec<String> {
    let mut known: BTreeSet<_> = variables(command)
        .into_iter()
        .map(|(_, variable)| variable)
        .collect();
    known.extend([CALLBACK_SECRETS, KAFKA_PROPERTIES].map(str::to_owned));
    let mut warnings = Vec::new();
    for name in set {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if known.contains(&name)
            || IGNORED_PREFIXES
                .iter()
                .any(|prefix| rest.starts_with(prefix))
        {
            continue;
        }
        let nearest = known
            .iter()
            .min_by_key(|known| strsim::damerau_levenshtein(known, &name));
        let nearest = nearest.map_or(String::new(), |nearest| {
            format!("; did you mean {nearest}?")
        });
        warnings.push(format!("{name} is not a setting{nearest}"));
    }
    warnings
}

#[cfg(test)]
mod tests;
