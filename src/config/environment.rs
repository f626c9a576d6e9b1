//! Reads the command line and the environment.

use std::collections::BTreeSet;
use std::env;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::faults::{ConfigError, Faults, invalid};
use super::in_force::{Setting, settings};
use super::suggestions::{PREFIX, nearest, setting_of};
use super::values::{NOT_UTF_8, check_quotes};
use super::{CALLBACK_SECRETS, SCHEMA_REGISTRY_AUTH, WITHOUT_FLAG};

/// The value of a variable; `None` if it is empty.
pub(super) fn variable(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => match check_quotes(&value) {
            Ok(()) => Ok(Some(value)),
            Err(problem) => Err(invalid(name, problem)),
        },
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(invalid(name, NOT_UTF_8)),
    }
}

/// Whether a variable is set, and not empty.
fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// How this program was called, such as `target/release/zim2kafka`: the same works again in the same
/// folder.
pub fn program() -> String {
    let first = env::args_os().next().filter(|name| !name.is_empty());
    let path = first.or_else(|| env::current_exe().ok().map(OsString::from));
    path.map_or_else(
        || env!("CARGO_PKG_NAME").to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// The width for printed text that `COLUMNS` sets.
pub fn columns() -> Option<usize> {
    let columns = env::var("COLUMNS").ok()?.parse().ok();
    columns.filter(|columns| *columns > 0)
}

/// Parses the arguments and the variables by the definition of a command line. Returns the settings
/// in force too.
///
/// clap stops at the first fault. So a setting at fault is taken out and the rest is parsed again,
/// with its default, until all faults are found.
///
/// # Errors
///
/// clap's, if the fault is not one of a setting, and for `--help` and `--version`.
pub fn parse<C: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(C, Faults, Vec<Setting>), clap::Error> {
    let definition = C::command();
    let mut line = CommandLine::new(&definition, arguments);
    let mut faults = Faults::default();
    let mut unset = BTreeSet::new();
    for (flag, variable) in variables(&definition) {
        // An empty variable counts as not set. clap reads the variable of a flag that all commands
        // share even if the flag is given, and would refuse its value.
        let is_empty = env::var_os(&variable).is_some_and(|value| value.is_empty());
        let is_given = line.position(&flag).is_some();
        if is_empty || is_given {
            unset.insert(variable.clone());
        }
        if is_given {
            faults.flags.insert(variable, flag);
        }
    }
    for unknown in unknown_names(set_variables(), &definition) {
        if let (name, Some(meant)) = unknown {
            faults.mistyped.insert(meant, name);
        }
    }
    loop {
        let reduced = |arg: clap::Arg| {
            // Help never shows a value.
            let arg = arg.hide_env_values(true);
            let is_unset = |name: &OsStr| name.to_str().is_some_and(|name| unset.contains(name));
            match arg.get_env() {
                Some(name) if is_unset(name) => arg.env(None::<&'static str>),
                _ => arg,
            }
        };
        let mut command = (C::command().mut_args(reduced))
            .mut_subcommands(|subcommand| subcommand.mut_args(reduced));
        let error = match command
            .try_get_matches_from_mut(&line.arguments)
            .and_then(|matches| Ok((C::from_arg_matches(&matches)?, matches)))
        {
            Ok((parsed, matches)) => {
                let settings = settings(&definition, &matches, &faults, is_set);
                return Ok((parsed, faults, settings));
            }
            Err(error) => error,
        };
        let Some(Fault {
            name,
            problem,
            meant,
        }) = fault(&error, &line.flags)
        else {
            return Err(error);
        };
        let pairs = variables(&definition);
        let variable_of = |name: &str| {
            let pair = pairs.iter().find(|(flag, _)| flag == name);
            pair.map(|(_, variable)| variable.clone())
        };
        let variable = variable_of(&name);
        let is_found = line.remove(&name)
            | (variable.as_ref()).is_some_and(|variable| unset.insert(variable.clone()));
        if !is_found {
            return Err(error);
        }
        if let Some(meant) = meant {
            let meant = variable_of(&meant).unwrap_or(meant);
            faults.mistyped.insert(meant, name.clone());
        }
        faults.add(invalid(variable.unwrap_or(name), problem));
    }
}

/// The arguments, of which faulty ones are taken out.
struct CommandLine {
    arguments: Vec<OsString>,
    /// The flags of the command, and those that apply to all commands.
    flags: Vec<String>,
    commands: Vec<String>,
}

impl CommandLine {
    fn new(definition: &clap::Command, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let commands = definition.get_subcommands();
        let commands: Vec<_> = commands
            .map(|command| command.get_name().to_owned())
            .collect();
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let is_command = |argument: &&OsString| {
            let is_name = |name: &String| *argument == OsStr::new(name);
            commands.iter().any(is_name)
        };
        let chosen = arguments.iter().skip(1).find(is_command);
        let chosen = chosen.and_then(|name| definition.find_subcommand(name));
        let all = std::iter::once(definition).chain(chosen);
        let all: Vec<_> = all.flat_map(clap::Command::get_arguments).collect();
        let flags = (all.iter()).filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
        let flags: Vec<_> = flags.collect();
        // clap takes a negative value for a flag, and the value of `--create-topics` must follow
        // behind `=`. With `=` the message is about the value.
        for at in (1..arguments.len()).rev() {
            let [flag, value] = [at - 1, at].map(|at| arguments.get(at).and_then(|a| a.to_str()));
            let (Some(flag), Some(value)) = (flag, value) else {
                continue;
            };
            let is_negative = value
                .strip_prefix('-')
                .is_some_and(|rest| rest.starts_with(|char: char| char.is_ascii_digit()));
            let needs_equals = all.iter().any(|arg| {
                arg.is_require_equals_set() && arg.get_long() == flag.strip_prefix("--")
            });
            if (is_negative && flags.iter().any(|name| name == flag))
                || (needs_equals && ["true", "false"].contains(&value))
            {
                let joined = format!("{flag}={value}");
                arguments.splice(at - 1..=at, [OsString::from(joined)]);
            }
        }
        Self {
            flags,
            arguments,
            commands,
        }
    }

    /// Where a flag is, and whether its value is the next argument.
    fn position(&self, flag: &str) -> Option<(usize, bool)> {
        let arguments = self
            .arguments
            .iter()
            .take_while(|argument| *argument != "--");
        arguments.enumerate().skip(1).find_map(|(at, argument)| {
            // A value that is not UTF-8 may follow the flag.
            let argument = argument.to_string_lossy();
            let rest = argument.strip_prefix(flag)?;
            (rest.is_empty() || rest.starts_with('=')).then_some((at, rest.is_empty()))
        })
    }

    /// Removes a flag with its value. False if it is not there.
    fn remove(&mut self, flag: &str) -> bool {
        let Some((at, is_flag)) = self.position(flag) else {
            return false;
        };
        let is_separate = is_flag && flag.starts_with('-');
        self.arguments.remove(at);
        let is_value = |argument: &OsString| {
            let text = argument.to_string_lossy();
            !text.starts_with('-') && !self.commands.contains(&text.into_owned())
        };
        if is_separate && self.arguments.get(at).is_some_and(is_value) {
            self.arguments.remove(at);
        }
        true
    }
}

/// A fault that clap has found.
struct Fault {
    /// The flag or argument.
    name: String,
    problem: String,
    /// The flag or variable that a mistyped flag means.
    meant: Option<String>,
}

/// The fault that an error of clap is about; `None` for `--help` and faults of other kinds.
fn fault(error: &clap::Error, flags: &[String]) -> Option<Fault> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let Some(word) = text(ContextKind::InvalidSubcommand) {
        // The value may be a secret. clap's message suggests a command instead of any other word.
        return word
            .starts_with(PREFIX)
            .then(|| unknown_argument(word, flags))?;
    }
    let argument = text(ContextKind::InvalidArg)?;
    if error.kind() == ErrorKind::UnknownArgument {
        return unknown_argument(argument, flags);
    }
    // clap writes `--flag <VALUE>` or `--flag[=<VALUE>]`.
    let flag = argument.split([' ', '=', '[']).next()?;
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let problem = match error.kind() {
        ErrorKind::ValueValidation => {
            let problem = error.source()?.to_string();
            // Our own parsers return what to write too. clap parses only numbers.
            if problem.contains(';') {
                problem
            } else {
                format!("{value:?} cannot be used ({problem}); write a number, such as 10")
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            "has no value; write one after it".to_owned()
        }
        ErrorKind::ArgumentConflict => "is given more than once; write it once".to_owned(),
        ErrorKind::TooManyValues => "takes no value; write it alone".to_owned(),
        _ => return None,
    };
    Some(Fault {
        name: flag.to_owned(),
        problem,
        meant: None,
    })
}

fn unknown_argument(argument: &str, flags: &[String]) -> Option<Fault> {
    // What stands behind `=` may be a secret.
    let argument = argument.split('=').next()?;
    let fault = |problem: &str, meant: Option<&str>| {
        Some(Fault {
            name: argument.to_owned(),
            problem: problem.to_owned(),
            meant: meant.map(str::to_owned),
        })
    };
    if argument.starts_with(PREFIX) {
        return fault(
            "is a variable and not an argument; write it in front of the command",
            None,
        );
    }
    let Some(typed) = argument.strip_prefix("--") else {
        return fault("is not expected here; --help lists the flags", None);
    };
    if flags.iter().any(|flag| flag == argument) {
        return fault("is a flag of the command; write it after the command", None);
    }
    let name = |flag: &str| flag.replace('-', "_").to_uppercase();
    let typed = name(typed);
    let without_flag = WITHOUT_FLAG.map(|name| &name[PREFIX.len()..]);
    let names: Vec<_> = (flags.iter())
        .map(|flag| name(flag.trim_start_matches('-')))
        .collect();
    let known = names.iter().map(String::as_str).chain(without_flag);
    let Some(meant) = nearest(&typed, known) else {
        return fault("is not a flag of this command; --help lists them", None);
    };
    let at = names.iter().position(|name| name == meant);
    if let Some(flag) = at.and_then(|at| flags.get(at)) {
        let problem = format!("is not a flag of this command; did you mean {flag}?");
        return fault(&problem, Some(flag));
    }
    let variable = format!("{PREFIX}{meant}");
    let content = match variable.as_str() {
        CALLBACK_SECRETS => "secrets have no flag, because",
        SCHEMA_REGISTRY_AUTH => "passwords have no flag, because",
        _ => "Kafka properties have no flag, because they may hold a password and",
    };
    let problem =
        format!("{content} every user of the machine can read flags; set the variable {variable}");
    fault(&problem, Some(&variable))
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

/// Returns a warning for each variable that is set and looks like a setting, but is not one.
pub fn unknown_variables(command: &clap::Command) -> Vec<String> {
    let unknown = unknown_names(set_variables(), command);
    unknown
        .into_iter()
        .map(|(name, meant)| match meant {
            Some(meant) => format!("{name} is not a setting; did you mean {meant}?"),
            None => format!("{name} is not a setting; `zim2kafka serve --help` lists them"),
        })
        .collect()
}

/// The variables that are not empty, with their values.
fn set_variables() -> impl Iterator<Item = (String, String)> {
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    set.filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    })
}

/// The variables that look like a setting but are not one, with the setting that each may mean.
pub(super) fn unknown_names(
    set: impl Iterator<Item = (String, String)>,
    command: &clap::Command,
) -> Vec<(String, Option<String>)> {
    let known = variables(command).into_iter().map(|(_, variable)| variable);
    let known: BTreeSet<_> = known
        .chain(WITHOUT_FLAG.map(str::to_owned))
        .filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned()))
        .collect();
    let mut unknown = Vec::new();
    for (name, value) in set {
        let Some(setting) = setting_of(&name, &value) else {
            continue;
        };
        if known.contains(&setting) && name == format!("{PREFIX}{setting}") {
            continue;
        }
        let has_prefix = name.to_ascii_uppercase().starts_with(PREFIX);
        let meant = nearest(&setting, known.iter().map(String::as_str));
        // Another prefix may be that of another program.
        if has_prefix || meant.is_some() {
            // A blank or a byte order mark would not be seen.
            let is_plain = |char: char| char.is_ascii_graphic();
            let shown = if name.chars().all(is_plain) {
                name
            } else {
                format!("{name:?}")
            };
            unknown.push((shown, meant.map(|meant| format!("{PREFIX}{meant}"))));
        }
    }
    unknown
}
