//! Why a property is refused, and what to write instead.

use std::fmt;

use crate::kafka::librdkafka_version;

/// The position of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An entry of the list in the variable, counted from 1.
    Entry(usize),
    /// The first line of an entry in the file, counted from 1.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::Line(number) => write!(f, "line {number}"),
        }
    }
}

/// A property that is refused. The message never shows a value, which may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PropertyError {
    /// The position of the property.
    pub place: Place,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not of the form `key=value`.
    #[error("{}", form(.name.as_deref()))]
    Form {
        /// The name that it begins with, if librdkafka knows it.
        name: Option<String>,
    },
    /// The name has characters that no name has, so it may be something else.
    #[error("not the name of a property; write name=value")]
    Name,
    /// The file is not in Java's format.
    #[error("{0}")]
    Text(&'static str),
    /// librdkafka does not know it. Without a name if that may be a piece of a secret value.
    #[error("{}", unknown(.name.as_deref(), *.nearest))]
    Unknown {
        /// The name as it was written.
        name: Option<String>,
        /// The nearest name that librdkafka knows.
        nearest: Option<&'static str>,
    },
    /// librdkafka does not know it, but other clients do.
    #[error("{name} is not a property of librdkafka; {instead}")]
    Foreign {
        /// The name as it was written.
        name: String,
        /// What to write instead.
        instead: String,
    },
    /// A promise depends on our value.
    #[error("{name} cannot be set: {reason}")]
    Refused {
        /// The name as it was written.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// librdkafka does not accept the value, or reads something else than was written.
    #[error("the value of {name} is not valid; {instead}")]
    Value {
        /// The name as it was written.
        name: String,
        /// What to write instead.
        instead: String,
    },
    /// This build of librdkafka cannot do that.
    #[error("{name}: {reason}")]
    Unsupported {
        /// The name as it was written.
        name: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The same property is set in two places.
    #[error("{name} is set in {other} already; keep one of the two")]
    Twice {
        /// The name as it was written.
        name: String,
        /// The first of the two places.
        other: String,
    },
    /// It contradicts another property or needs another one.
    #[error("{0}")]
    Together(String),
    /// Each is valid, but no client can be created with all of them.
    #[error("librdkafka cannot use these properties: {0}")]
    Unusable(String),
}

fn form(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name} has no = after it; write {name}=…"),
        None => "not of the form key=value; put a value that contains ; into a file".to_owned(),
    }
}

fn unknown(name: Option<&str>, nearest: Option<&str>) -> String {
    let version = librdkafka_version();
    match (name, nearest) {
        (Some(name), Some(nearest)) => {
            format!("{name} is not a property of librdkafka {version}; did you mean {nearest}?")
        }
        (Some(name), None) => {
            format!("{name} is not a property of librdkafka {version}; leave it out")
        }
        (None, _) => format!(
            "not a property of librdkafka {version}; put a value that contains ; into a file"
        ),
    }
}
