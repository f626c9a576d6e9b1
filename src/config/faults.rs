//! The faults of the settings, collected so that one run reports all of them.

use std::collections::BTreeMap;
use std::fmt;

/// An invalid setting. The message names the setting and never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    /// The variable, or a flag that has none.
    pub variable: String,
    /// What is wrong with its value, and what to write instead.
    pub problem: String,
    /// The other setting, if the two contradict each other.
    pub other: Option<&'static str>,
}

impl ConfigError {
    /// A fault of a flag that has no variable.
    pub fn of_flag(flag: &str, problem: impl fmt::Display) -> Self {
        invalid(flag, problem)
    }
}

pub(super) fn invalid(variable: impl Into<String>, problem: impl fmt::Display) -> ConfigError {
    ConfigError {
        variable: variable.into(),
        problem: problem.to_string(),
        other: None,
    }
}

/// A fault of two settings, of which each alone is valid.
pub(super) fn contradiction(
    variable: &'static str,
    other: &'static str,
    problem: impl fmt::Display,
) -> ConfigError {
    ConfigError {
        other: Some(other),
        ..invalid(variable, problem)
    }
}

impl IntoIterator for ConfigError {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

/// All faults of a configuration, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// Each fault.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl FromIterator<ConfigError> for ConfigErrors {
    fn from_iter<I: IntoIterator<Item = ConfigError>>(errors: I) -> Self {
        Self(errors.into_iter().collect())
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Collects the faults of all settings. A command takes every setting it needs, and then
/// [`Self::finish`] returns the settings or all faults.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    errors: Vec<ConfigError>,
    /// The flags of the command line, by their variables.
    pub(super) flags: BTreeMap<String, String>,
    /// Variables that are set and are not settings, by the settings that they resemble.
    pub(super) mistyped: BTreeMap<String, String>,
}

impl Faults {
    /// Adds faults, apart from those of settings that are at fault already. The default stands for
    /// such a setting, so a fault of it, or a contradiction to it, is a mere consequence.
    pub fn add(&mut self, errors: impl IntoIterator<Item = ConfigError>) {
        let errors = errors.into_iter();
        let is_known = |variable: &str| self.is_at_fault(variable);
        let is_new =
            |error: &ConfigError| !is_known(&error.variable) && !error.other.is_some_and(is_known);
        let new: Vec<_> = errors.filter(is_new).collect();
        self.errors.extend(new);
    }

    /// Returns the setting, or adds its faults.
    pub fn take<T, E>(&mut self, setting: Result<T, E>) -> Option<T>
    where
        E: IntoIterator<Item = ConfigError>,
    {
        match setting {
            Ok(setting) => Some(setting),
            Err(errors) => {
                self.add(errors);
                None
            }
        }
    }

    /// Whether a setting is at fault, by its variable.
    pub fn is_at_fault(&self, variable: &str) -> bool {
        self.errors.iter().any(|error| error.variable == variable)
    }

    /// All faults, by the names that the user gave.
    pub fn named(&self) -> ConfigErrors {
        self.errors.iter().map(|error| self.name(error)).collect()
    }

    /// Returns the settings.
    ///
    /// # Errors
    ///
    /// All faults, if there is any.
    pub fn finish<T>(self, settings: Option<T>) -> Result<T, ConfigErrors> {
        match settings {
            Some(settings) if self.errors.is_empty() => Ok(settings),
            _ => Err(self.named()),
        }
    }

    /// Names a setting as the user did: by its flag too, if that is on the command line. If the
    /// setting is missing, names the mistyped variable, which may also mean the setting that can
    /// stand for it.
    fn name(&self, error: &ConfigError) -> ConfigError {
        let mut named = error.clone();
        if let Some(rest) = error.problem.strip_prefix(NOT_SET) {
            let but = |typed: &String| format!("{NOT_SET}, but {typed} is, which is not a setting");
            let mistyped = |variable: &str| self.mistyped.get(variable).map(but);
            // Not if `rest` states that the other setting is set.
            let other = error.other.zip(rest.strip_prefix("; "));
            if let Some(problem) = mistyped(&error.variable) {
                named.problem = format!("{problem}{rest}");
            } else if let Some((other, write)) = other
                && let Some(problem) = mistyped(other)
            {
                named.problem = format!("{problem}; use {other} instead, or {write}");
            }
        }
        if let Some(flag) = self.flags.get(&error.variable) {
            named.variable = format!("{flag} ({})", error.variable);
        }
        named
    }
}

/// How the problem of a missing setting begins.
pub(super) const NOT_SET: &str = "is not set";

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ZIM2KAFKA_A";
    const B: &str = "ZIM2KAFKA_B";

    fn lines(faults: Faults) -> Vec<String> {
        let errors = faults.finish(Some(())).expect_err("there are faults");
        errors.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn all_faults_are_reported_one_per_line() {
        let mut faults = Faults::default();
        assert_eq!(faults.take(Ok::<_, ConfigError>(1)), Some(1));
        assert_eq!(faults.clone().finish(Some(1)), Ok(1));
        assert_eq!(faults.take(Err::<u8, _>(invalid(A, "is odd"))), None);
        let several: ConfigErrors = [invalid(B, "is odd"), invalid(B, "is low")]
            .into_iter()
            .collect();
        assert_eq!(faults.take(Err::<u8, _>(several)), None);
        assert_eq!(
            lines(faults),
            [
                "ZIM2KAFKA_A: is odd",
                "ZIM2KAFKA_B: is odd",
                "ZIM2KAFKA_B: is low"
            ]
        );
    }

    #[test]
    fn a_consequence_of_a_fault_is_not_reported() {
        let mut faults = Faults::default();
        faults.add(invalid(A, "is odd"));
        faults.add(invalid(A, "is low"));
        faults.add(contradiction(B, A, "is longer than ZIM2KAFKA_A"));
        assert_eq!(lines(faults), ["ZIM2KAFKA_A: is odd"]);
    }

    #[test]
    fn a_setting_is_named_as_the_user_gave_it() {
        let mut faults = Faults::default();
        faults.flags.insert(A.to_owned(), "--a".to_owned());
        faults
            .mistyped
            .insert(B.to_owned(), "ZIM2KAFKA_BB".to_owned());
        faults.add(invalid(A, "is odd"));
        faults.add(invalid(B, "is not set; write 1"));
        assert_eq!(
            lines(faults),
            [
                "--a (ZIM2KAFKA_A): is odd",
                "ZIM2KAFKA_B: is not set, but ZIM2KAFKA_BB is, which is not a setting; write 1"
            ]
        );
    }

    #[test]
    fn a_missing_setting_names_what_was_mistyped_for_the_other_that_can_stand_for_it() {
        let mut faults = Faults::default();
        let typed = "--aa".to_owned();
        faults.mistyped.insert(A.to_owned(), typed);
        faults.add(contradiction(B, A, "is not set; write 1"));
        faults.add(contradiction("C", A, "is not set, but ZIM2KAFKA_A is"));
        assert_eq!(
            lines(faults),
            [
                "ZIM2KAFKA_B: is not set, but --aa is, which is not a setting; use ZIM2KAFKA_A instead, or write 1",
                "C: is not set, but ZIM2KAFKA_A is"
            ]
        );
    }
}
