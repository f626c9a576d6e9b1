//! Findings of an inspection of Kafka, a topic or the spool.

use std::fmt;

use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How severe it is.
    pub level: Level,
    /// What was checked, such as a topic.
    pub subject: String,
    /// The step on the way to a record in Kafka that failed, if one did.
    pub step: Option<Step>,
    /// What was found and, if that is a problem, what to do.
    pub text: String,
}

/// A step on the way to a record in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The name of the broker has no address.
    Resolve,
    /// Nothing listens at the address, or what listens there does not answer as a broker.
    Connect,
    /// Encryption, or one side uses it and the other does not.
    Tls,
    /// The login.
    Sasl,
    /// The rights of the user.
    Authorization,
    /// The topic is missing, or cannot be used yet.
    Topic,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Sasl => "SASL",
            Self::Authorization => "authorization",
            Self::Topic => "topic",
        })
    }
}

/// How severe a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
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
            step: None,
            text,
        }
    }

    /// The same finding, about this step.
    #[must_use]
    pub fn at(self, step: Step) -> Self {
        Self {
            step: Some(step),
            ..self
        }
    }

    /// Logs the finding; one without a problem at debug level.
    pub fn log(&self) {
        let Self {
            level,
            subject,
            text,
            ..
        } = self;
        match level {
            Level::Ok => tracing::debug!("{subject}: {text}"),
            Level::Warning => tracing::warn!("{subject}: {text}"),
            Level::Error => tracing::error!("{subject}: {text}"),
        }
    }
}
