//! The callback secrets, as an operator writes them.

use std::collections::HashMap;
use std::fmt;

use zeroize::Zeroizing;

/// The callback secrets, by application. Wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Secrets {
    /// Applications in the order given. The first one signs samples.
    order: Vec<String>,
    by_appid: HashMap<String, Vec<Zeroizing<String>>>,
    dummy: [Zeroizing<String>; 1],
}

/// Stands for every application that is not named.
const ANY: &str = "*";

/// Why the secrets are invalid. It names the place and never shows the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// There are no secrets.
    #[error("holds no secret; write appid=secret")]
    Empty,
    /// There is no `=`.
    #[error("{0} is not of the form appid=secret")]
    Form(EntryPosition),
    /// Nothing before the `=`.
    #[error("{0} has no appid before its =")]
    NoAppid(EntryPosition),
    /// Nothing behind the `=`.
    #[error("{0} has an empty secret")]
    EmptySecret(EntryPosition),
}

/// Where an entry stands, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPosition {
    /// In a list.
    Entry(usize),
    /// In a file. Comments and empty lines count too.
    Line(usize),
}

impl fmt::Display for EntryPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::Line(number) => write!(f, "line {number}"),
        }
    }
}

impl Secrets {
    /// Parses `appid=secret` pairs separated by commas. The same appid twice is a rotation: both
    /// secrets are valid.
    ///
    /// Whitespace around an entry, an appid or a secret is ignored. An empty entry is an error,
    /// because an unset variable in `$NEW,$OLD` leaves one.
    ///
    /// # Errors
    ///
    /// The first invalid entry.
    pub fn parse_list(text: &str) -> Result<Self, SecretsError> {
        if text.trim().is_empty() {
            return Err(SecretsError::Empty);
        }
        Self::parse(text.split(',').zip((1..).map(EntryPosition::Entry)))
    }

    /// Parses one pair per line; `#` begins a comment line. Secrets may contain commas here.
    ///
    /// # Errors
    ///
    /// The first invalid line.
    pub fn parse_lines(text: &str) -> Result<Self, SecretsError> {
        // Some editors write a byte order mark, which would become part of an appid.
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().zip((1..).map(EntryPosition::Line));
        Self::parse(lines.filter(|(line, _)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with('#')
        }))
    }

    fn parse<'a>(
        entries: impl Iterator<Item = (&'a str, EntryPosition)>,
    ) -> Result<Self, SecretsError> {
        let mut secrets = Self {
            order: Vec::new(),
            by_appid: HashMap::new(),
            dummy: [Zeroizing::new("no application has this secret".to_owned())],
        };
        for (entry, place) in entries {
            let (appid, secret) = entry.split_once('=').ok_or(SecretsError::Form(place))?;
            let (appid, secret) = (appid.trim(), secret.trim());
            if appid.is_empty() {
                return Err(SecretsError::NoAppid(place));
            }
            if secret.is_empty() {
                return Err(SecretsError::EmptySecret(place));
            }
            if !secrets.by_appid.contains_key(appid) {
                secrets.order.push(appid.to_owned());
            }
            let valid = secrets.by_appid.entry(appid.to_owned()).or_default();
            valid.push(Zeroizing::new(secret.to_owned()));
        }
        if secrets.order.is_empty() {
            return Err(SecretsError::Empty);
        }
        Ok(secrets)
    }

    /// The first application and its first secret, for signing samples.
    pub fn first(&self) -> Option<(&str, &str)> {
        let appid = self.order.first()?;
        Some((appid, self.secret_of(appid)?))
    }

    /// An application's first secret, for signing samples.
    pub fn secret_of(&self, appid: &str) -> Option<&str> {
        self.of(appid)?.first().map(|secret| secret.as_str())
    }

    /// How many applications have secrets; `*` counts as one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The applications that are named, in the order given, without `*`.
    pub fn appids(&self) -> impl Iterator<Item = &str> {
        let named = self.order.iter().filter(|appid| *appid != ANY);
        named.map(String::as_str)
    }

    /// All valid secrets of an application.
    pub(super) fn of(&self, appid: &str) -> Option<&[Zeroizing<String>]> {
        let secrets = self.by_appid.get(appid).or_else(|| self.by_appid.get(ANY));
        secrets.map(Vec::as_slice)
    }

    /// The secret that stands in for those of an unknown application, so that the check takes as
    /// long.
    pub(super) fn dummy(&self) -> &[Zeroizing<String>] {
        &self.dummy
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}
