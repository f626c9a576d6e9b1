//! How the values of settings are written. Each function parses one kind of value, or returns what
//! is wrong with it and what to write instead.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::LogFormat;
use crate::callback::TimestampUnit;
use crate::http::Networks;

/// An option that is written as a value or `off`. The alias hides it from clap, which would take an
/// `Option` for a flag that can be left out.
pub(super) type OrOff<T> = Option<T>;

/// A parser for clap, of a value that is text.
pub(super) fn value<T, P>(parse: P) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    P: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(move |value: OsString| {
        let text = value.to_str().ok_or(NOT_UTF_8)?;
        check_ends(text)?;
        parse(text)
    })
}

/// A parser for clap, of a path, which need not be UTF-8.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|value: OsString| {
        check_path(&value.to_string_lossy())?;
        Ok::<_, String>(PathBuf::from(value))
    })
}

/// Refuses text that names a file in shells or URLs, but would be used as a relative path, and the
/// content of a file, which may be secret and is therefore not quoted.
fn check_path(text: &str) -> Result<(), String> {
    if holds_content(text) {
        return Err(
            "is the content of a file and not its path; write a path such as /etc/zim2kafka/file"
                .to_owned(),
        );
    }
    check_ends(text)?;
    let problem = if text.is_empty() {
        "is empty"
    } else if text.starts_with(['~', '$']) {
        "begins with ~ or $, which only a shell expands"
    } else if text.contains("://") {
        "is a URL and not a path"
    } else {
        return Ok(());
    };
    Err(format!(
        "{text:?} {problem}; write a path such as /etc/zim2kafka/file"
    ))
}

/// Whether it looks like a PEM, secrets or properties. A path with `=` in it is one if it has a
/// folder in front of it.
fn holds_content(text: &str) -> bool {
    let has_assignment = text.find('=').is_some_and(|at| !text[..at].contains('/'));
    text.contains("-----BEGIN") || text.trim().contains(['\n', '\r']) || has_assignment
}

/// Any text.
pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) const NOT_UTF_8: &str = "is not valid UTF-8; write it in UTF-8";

/// Refuses text around a value that is not part of it: quotes and line ends of a file that is read
/// by a program that knows neither, as `docker run --env-file` does.
fn check_ends(text: &str) -> Result<(), String> {
    check_quotes(text)?;
    Err(if text.trim().len() < text.len() {
        if text.trim().is_empty() {
            "is blank; write a value, or unset it"
        } else {
            "begins or ends with a blank or a line break; remove it"
        }
    } else if text.contains(" #") {
        "has a comment behind it, which counts as a part of the value; remove the comment"
    } else {
        return Ok(());
    }
    .to_owned())
}

/// The part of [`check_ends`] that applies to text of several lines too.
pub(super) fn check_quotes(text: &str) -> Result<(), String> {
    Err(if text.ends_with('\r') {
        "ends with a carriage return; save the file that sets it with line ends of Unix (LF)"
    } else if text.starts_with(['"', '\'']) {
        "has quotes around it, which count as a part of the value; write it without them"
    } else {
        return Ok(());
    }
    .to_owned())
}

/// Parses a duration such as `250ms` or `5m`.
///
/// # Errors
///
/// What is wrong, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_like(text, "2s")
}

/// Parses a duration within limits.
pub(super) fn duration_in(
    range: RangeInclusive<Duration>,
    example: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let duration = duration_like(text, example)?;
        let (min, max) = (range.start(), range.end());
        if range.contains(&duration) {
            return Ok(duration);
        }
        let problem = if duration > *max {
            format!("is more than {}m", max.as_secs() / 60)
        } else {
            format!("is less than {min:?}")
        };
        Err(format!("{text:?} {problem}; write {example}"))
    }
}

fn duration_like(text: &str, example: &str) -> Result<Duration, String> {
    let wrong = |problem: &str| format!("{text:?} {problem}; write {example}");
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
    if is_number(text) {
        return Err(wrong("has no unit"));
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| {
        wrong(if text.starts_with(|char: char| char.is_ascii_digit()) {
            "is not a duration in ms, s, m or h, or is too long"
        } else {
            "is not a duration"
        })
    })?;
    Duration::try_from(duration).map_err(|_| wrong("is negative"))
}

/// Parses `off`, or something else.
pub(super) fn or_off<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<OrOff<T>, String> + Clone {
    move |text| match text {
        "off" => Ok(None),
        text => parse(text)
            .map(Some)
            .map_err(|problem| format!("{problem}, or off")),
    }
}

/// Parses a number within limits.
pub(super) fn number_in<T: FromStr + PartialOrd + Display + Clone>(
    range: RangeInclusive<T>,
    example: T,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            format!("{text:?} is not a number from {min} to {max}; write {example}")
        })
    }
}

/// Parses a size such as `512KiB`, in bytes.
pub(super) fn size_in(
    range: RangeInclusive<usize>,
    example: &'static str,
) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let wrong = |problem: &str| format!("{text:?} {problem}; write {example}");
        let size: bytesize::ByteSize = text.parse().map_err(|_| wrong("is not a size"))?;
        let size = usize::try_from(size.as_u64()).ok();
        let size = size.filter(|size| range.contains(size));
        size.ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            wrong(&if *max == usize::MAX {
                format!("is less than {min} bytes")
            } else {
                format!("is not a size from {min} to {max} bytes")
            })
        })
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false; write true")),
    }
}

pub(super) fn timestamp_unit(text: &str) -> Result<TimestampUnit, String> {
    text.parse()
        .map_err(|write| format!("{text:?} is not a unit of timestamps; {write}"))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a log format; write text or json")),
    }
}

/// Parses a list of networks.
pub(super) fn networks(text: &str) -> Result<Networks, String> {
    text.parse().map_err(|write| {
        let is_wrong = |part: &&str| part.parse::<Networks>().is_err();
        let wrong = text.split(',').find(is_wrong).unwrap_or(text);
        format!("{wrong:?} is not a network; {write}")
    })
}

/// Parses directives of the log: levels, and `target=level`. `Targets` takes any other word for a
/// target, and then logs nothing else, not even errors. For the same reason errors stay on if only
/// targets are listed.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const WRITE: &str =
        "write error, warn, info, debug, trace or off, or as in info,zim2kafka::delivery=debug";
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_target = |target: &str| {
        let is_part = |char: char| char.is_alphanumeric() || "_:-.".contains(char);
        target.starts_with(|first: char| first.is_alphanumeric() || first == '_')
            && target.chars().all(is_part)
    };
    let mut directives: Vec<_> = text.split(',').map(str::trim).collect();
    let mut has_level = false;
    for directive in &directives {
        match directive.split_once('=') {
            None if is_level(directive) => has_level = true,
            None => return Err(format!("{directive:?} is not a level; {WRITE}")),
            Some((target, _)) if !is_target(target) => {
                return Err(format!("{target:?} is not a log target; {WRITE}"));
            }
            Some((_, level)) if !is_level(level) => {
                return Err(format!("{level:?} is not a level; {WRITE}"));
            }
            Some(_) => {}
        }
    }
    if !has_level {
        directives.insert(0, "error");
    }
    Ok(directives.join(","))
}

#[cfg(test)]
mod tests;
