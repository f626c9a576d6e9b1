//! Findings of an inspection of Kafka, a topic or the spool.

use std::fmt;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How severe it is.
    pub level: Level,
    /// What was checked, such as a topic.
    pub subject: String,
    /// What was found and, if that is a problem, what to do.
    pub text: String,
}

/// How severe a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No problem.
    Ok,
    /// Weakens a promise.
    Warning,
    /// Breaks a promise.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl Finding {
    /// A check that found no problem.
    pub fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, text)
    }

    /// A problem that weakens a promise.
    pub fn warning(subject: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, text)
    }

    /// A problem that breaks a promise.
    pub fn error(subject: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Error, subject, text)
    }

    fn new(level: Level, subject: &str, text: impl Into<String>) -> Self {
        let (subject, text) = (subject.to_owned(), text.into());
        Self {
            level,
            subject,
            text,
        }
    }

    /// Logs the finding; one without a problem at debug level.
    pub fn log(&self) {
        let Self {
            level,
            subject,
            text,
        } = self;
        match level {
            Level::Ok => tracing::debug!("{subject}: {text}"),
            Level::Warning => tracing::warn!("{subject}: {text}"),
            Level::Error => tracing::error!("{subject}: {text}"),
        }
    }
}
