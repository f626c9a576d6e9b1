//! The result of `check`.

use serde::Serialize;

use crate::config::{Origin, Setting};
use crate::finding::{Finding, Level};

/// All findings, the settings in force, and what they come to. `schemas/check-report.schema.json`
/// describes its JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    result: Level,
    errors: usize,
    warnings: usize,
    is_configuration_valid: bool,
    /// The worst first.
    pub(super) findings: Vec<Finding>,
    /// Those that are set first.
    pub(super) settings: Vec<Setting>,
    pub(super) kafka_properties: Vec<Property>,
}

/// A Kafka property that is set.
#[derive(Debug, Serialize)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) origin: Origin,
}

impl Report {
    pub(super) fn new(
        is_configuration_valid: bool,
        mut findings: Vec<Finding>,
        mut settings: Vec<Setting>,
        kafka_properties: Vec<Property>,
    ) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        settings.sort_by_key(|setting| setting.origin == Origin::Default);
        let count = |level| findings.iter().filter(|found| found.level == level).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            result: findings.first().map_or(Level::Ok, |worst| worst.level),
            errors: count(Level::Error),
            warnings: count(Level::Warning),
            is_configuration_valid,
            findings,
            settings,
            kafka_properties,
        }
    }

    /// The most severe level.
    pub(super) fn result(&self) -> Level {
        self.result
    }

    pub(super) fn is_valid(&self) -> bool {
        self.is_configuration_valid
    }

    pub(super) fn json(&self) -> String {
        // Text and numbers only, so it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As in `2 errors, 1 warning`.
    pub(super) fn summary(&self) -> String {
        let count = |number: usize, noun: &str| match number {
            0 => format!("no {noun}s"),
            number => crate::log::count(number as u64, noun),
        };
        let (errors, warnings) = (count(self.errors, "error"), count(self.warnings, "warning"));
        format!("{errors}, {warnings}")
    }
}
