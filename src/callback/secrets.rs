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

/// Why the secrets are invalid: every invalid entry. It names the places and never shows the text,
/// which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsError(Vec<(EntryPosition, EntryError)>);

/// Why an entry is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// There is no `=`.
    #[error("is not of the form appid=secret")]
    Form,
    /// Nothing before the `=`.
    #[error("has no appid before its =")]
    NoAppid,
    /// The appid has a character that no appid has.
    #[error(
        "has an appid that is neither * nor letters, digits, _ and -; write the AppID without quotes and blanks"
    )]
    Appid,
    /// It sets a variable, as in a file of environment variables.
    #[error("sets a variable; write appid=secret alone")]
    Variable,
    /// Nothing behind the `=`.
    #[error("has an empty secret")]
    EmptySecret,
    /// The secret has a character that no secret has.
    #[error("has a secret with {0}; write the CallbackSecret without quotes and blanks")]
    Secret(&'static str),
    /// The secret is a placeholder from a template or an example.
    #[error("has a placeholder; write the CallbackSecret from ZEGOCLOUD's console")]
    Placeholder,
    /// The secret holds the pair of another application.
    #[error("holds several pairs; write each on its own line, in the variable with commas between")]
    SeveralPairs,
}

/// How many invalid entries a message lists. A file of another kind, such as a web page, may have
/// thousands.
const ERRORS_SHOWN: usize = 10;

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(errors) = self;
        if errors.is_empty() {
            return f.write_str("holds no secret; write appid=secret");
        }
        for (at, (place, error)) in errors.iter().take(ERRORS_SHOWN).enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{place} {error}")?;
        }
        match errors.len().saturating_sub(ERRORS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; {more} more are invalid"),
        }
    }
}

impl std::error::Error for SecretsError {}

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
    /// Blanks around an entry, an appid or a secret are ignored. An empty entry is an error, because
    /// an unset variable in `$NEW,$OLD` leaves one.
    ///
    /// # Errors
    ///
    /// Every invalid entry.
    pub fn parse_list(text: &str) -> Result<Self, SecretsError> {
        if trim(text).is_empty() {
            return Err(SecretsError(Vec::new()));
        }
        Self::parse(text.split(',').zip((1..).map(EntryPosition::Entry)))
    }

    /// Parses one pair per line; `#` begins a comment line. Secrets may contain commas here.
    ///
    /// # Errors
    ///
    /// Every invalid line.
    pub fn parse_lines(text: &str) -> Result<Self, SecretsError> {
        let lines = text.lines().zip((1..).map(EntryPosition::Line));
        Self::parse(lines.filter(|(line, _)| {
            let line = trim(line);
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
        let mut errors = Vec::new();
        for (entry, place) in entries {
            match pair(entry) {
                Ok((appid, secret)) => secrets.insert(appid, secret),
                Err(error) => errors.push((place, error)),
            }
        }
        if secrets.order.is_empty() || !errors.is_empty() {
            return Err(SecretsError(errors));
        }
        Ok(secrets)
    }

    fn insert(&mut self, appid: &str, secret: &str) {
        if !self.by_appid.contains_key(appid) {
            self.order.push(appid.to_owned());
        }
        let valid = self.by_appid.entry(appid.to_owned()).or_default();
        // Every secret of an application is tried with every callback, so a duplicate costs time.
        if valid.iter().all(|known| known.as_str() != secret) {
            valid.push(Zeroizing::new(secret.to_owned()));
        }
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

/// Splits an entry. Text that cannot be a secret must not replace a valid one, so it is an error
/// rather than a secret that no signature matches.
fn pair(entry: &str) -> Result<(&str, &str), EntryError> {
    let (appid, secret) = entry.split_once('=').ok_or(EntryError::Form)?;
    let (appid, secret) = (trim(appid), trim(secret));
    if appid.is_empty() {
        return Err(EntryError::NoAppid);
    }
    if !is_appid(appid) {
        return Err(EntryError::Appid);
    }
    if appid.starts_with("ZIM2KAFKA_") {
        return Err(EntryError::Variable);
    }
    if secret.is_empty() {
        return Err(EntryError::EmptySecret);
    }
    // Only numbers, as ZEGOCLOUD's appids are: a secret may contain other text with an `=`.
    let is_pair = |(text, _): (&str, &str)| {
        text == ANY || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let separates = |sign: char| sign.is_whitespace() || ",;".contains(sign);
    let mut others = secret.split(separates).skip(1);
    if others.any(|other| other.split_once('=').is_some_and(is_pair)) {
        return Err(EntryError::SeveralPairs);
    }
    if let Some(character) = secret.chars().find_map(impossible) {
        return Err(EntryError::Secret(character));
    }
    if secret.contains("\\n") {
        return Err(EntryError::Secret("\\n written out"));
    }
    if is_placeholder(secret) {
        return Err(EntryError::Placeholder);
    }
    Ok((appid, secret))
}

/// Other blanks than these are part of the text, and invalid there: people cannot see them.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

fn is_appid(appid: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    appid == ANY || appid.bytes().all(is_valid)
}

/// Describes a character that no secret has; `None` for the others.
fn impossible(character: char) -> Option<&'static str> {
    match character {
        '"' | '\'' | '`' => Some("a quotation mark"),
        _ if character.is_control() => Some("a control character"),
        _ if character.is_whitespace() => Some("a blank"),
        _ if character.is_ascii_graphic() || character.is_alphanumeric() => None,
        // Among them: invisible characters, typographic quotation marks, and U+FFFD for bytes
        // that could not be decoded.
        _ => Some("a character that is neither ASCII nor a letter"),
    }
}

/// Whether it is a placeholder of a template, or a mask such as `***`.
fn is_placeholder(secret: &str) -> bool {
    let is_variable = |name: &str| {
        name.starts_with(['{', '('])
            || name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    secret.strip_prefix('$').is_some_and(is_variable)
        || secret.starts_with("{{")
        || (secret.starts_with('<') && secret.ends_with('>'))
        || !secret.contains(char::is_alphanumeric)
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}
