//! What looking at Kafka, at a topic or at the spool has found.

use std::fmt;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found, and what to do about it.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It weakens a promise.
    Warning,
    /// It breaks one.
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
    /// Something that is as it should be.
    pub fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, text)
    }

    /// Something that weakens a promise.
    pub fn warning(subject: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, text)
    }

    /// Something that breaks a promise.
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

    /// Says it in the log; what is as it should be only to those who look for it.
    pub fn log(&self) {
        let Self {
            level,
            subject,
            text,
        } = self;
        match level {
            Level::Ok => tracing::debug!(subject, "{text}"),
            Level::Warning => tracing::warn!(subject, "{text}"),
            Level::Error => tracing::error!(subject, "{text}"),
        }
    }
}
