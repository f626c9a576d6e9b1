//! The settings in force: the value of each, and where it comes from.

use clap::ArgMatches;
use serde::Serialize;

use super::{Faults, WITHOUT_FLAG};

const CALLBACK_PATH: &str = "ZIM2KAFKA_CALLBACK_PATH";

/// A setting, as far as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its variable.
    pub name: String,
    /// Where it is set.
    pub origin: Origin,
    /// Whether it has a value.
    pub state: State,
    /// The value, if the state is [`State::Set`].
    pub value: Option<String>,
}

/// Where a setting is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Origin {
    /// By a flag.
    Flag,
    /// By a variable.
    Variable,
    /// In a file that another setting names.
    File,
    /// Nowhere: this is the default.
    Default,
}

/// Whether a setting has a value, and whether it may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has this value.
    Set,
    /// It has none, and is not needed.
    Unset,
    /// Its value is, or may contain, a secret.
    Hidden,
    /// It is at fault.
    Invalid,
}

impl Setting {
    /// The setting without its value, for this reason.
    pub fn conceal(&mut self, state: State) {
        self.state = state;
        self.value = None;
    }
}

/// All settings of the command, in the order of its help. `is_set`: whether a variable is set.
pub(super) fn settings(
    definition: &clap::Command,
    matches: &ArgMatches,
    faults: &Faults,
    is_set: fn(&str) -> bool,
) -> Vec<Setting> {
    let chosen = matches.subcommand();
    let chosen =
        chosen.and_then(|(name, matches)| Some((definition.find_subcommand(name)?, matches)));
    // `None` if it is not set.
    let origin_of = |name: &str| match faults.flags.contains_key(name) {
        true => Some(Origin::Flag),
        false => is_set(name).then_some(Origin::Variable),
    };
    let mut settings = Vec::new();
    for (command, matches) in chosen.into_iter().chain([(definition, matches)]) {
        for arg in command.get_arguments() {
            let Some(name) = arg.get_env().and_then(|name| name.to_str()) else {
                continue;
            };
            // What has no flag stands before the file that can stand for it.
            for listed in WITHOUT_FLAG {
                if name.strip_prefix(listed) == Some("_FILE") {
                    let file = origin_of(name).map(|_| Origin::File);
                    settings.push(without_flag(listed, origin_of(listed).or(file)));
                }
            }
            let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
            let value = raw.and_then(|mut values| values.next());
            let value = value.map(|value| value.to_string_lossy().into_owned());
            let mut setting = Setting {
                name: name.to_owned(),
                origin: origin_of(name).unwrap_or(Origin::Default),
                state: value.as_ref().map_or(State::Unset, |_| State::Set),
                value,
            };
            if name == CALLBACK_PATH && setting.origin != Origin::Default {
                setting.conceal(State::Hidden);
            }
            settings.push(setting);
        }
    }
    settings
}

/// A setting that is a secret or may contain one.
fn without_flag(name: &str, origin: Option<Origin>) -> Setting {
    Setting {
        name: name.to_owned(),
        origin: origin.unwrap_or(Origin::Default),
        state: origin.map_or(State::Unset, |_| State::Hidden),
        value: None,
    }
}
