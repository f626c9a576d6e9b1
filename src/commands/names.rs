//! Values of flags that are names of a closed set, which shells complete.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};

use crate::config::nearest;

/// Parses a name. Unlike clap's own parser of a list of names, the message for another name is that
/// of `parse`, which knows what is probably meant.
#[derive(Debug, Clone)]
pub(super) struct Named<T> {
    parse: fn(&str) -> Result<T, String>,
    names: Vec<&'static str>,
}

impl<T> Named<T> {
    pub(super) fn of(
        parse: fn(&str) -> Result<T, String>,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self {
            parse,
            names: names.into_iter().collect(),
        }
    }
}

impl Named<String> {
    /// Takes other names too: they are checked with other flags.
    pub(super) fn any(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self::of(|name| Ok(name.to_owned()), names)
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let parser = StringValueParser::new().try_map({
            let parse = self.parse;
            move |name: String| parse(&name)
        });
        parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names.iter().map(PossibleValue::new)))
    }
}

/// Parses one of these names.
///
/// # Errors
///
/// What it is not, and the name that is probably meant, or all of them.
pub(super) fn one_of<T: Copy + Into<&'static str>>(
    kind: &str,
    known: &[T],
    name: &str,
) -> Result<T, String> {
    let names = known.iter().map(|known| (*known).into());
    if let Some((_, found)) = names.clone().zip(known).find(|(known, _)| *known == name) {
        return Ok(*found);
    }
    // Words as `nearest` compares them, in the letters of each.
    let typed = name.to_ascii_lowercase().replace('-', "_");
    let words: Vec<_> = names
        .clone()
        .map(|name: &str| name.replace('-', "_"))
        .collect();
    let meant = nearest(&typed, words.iter().map(String::as_str));
    let at = words.iter().position(|word| Some(word.as_str()) == meant);
    let instead = match at.and_then(|at| names.clone().nth(at)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("write one of {}", names.collect::<Vec<_>>().join(", ")),
    };
    Err(format!("{name:?} is not {kind}; {instead}"))
}
