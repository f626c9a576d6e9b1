//! The metrics of each application.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::series::register;

/// The label value for every appid that has no secret of its own.
const OTHER: &str = "other";
const ACCEPTED: &str = "accepted";
const UNAUTHORIZED: &str = "unauthorized";

/// The callbacks by application. The configuration bounds the label's values.
#[derive(Debug)]
pub struct AppMetrics(IntCounterVec);

/// The callbacks of one application.
#[derive(Debug)]
pub struct AppCounters {
    /// Those whose signature is right.
    pub accepted: IntCounter,
    /// Those that name the application and are not authentic.
    pub unauthorized: IntCounter,
}

impl AppMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let options = Opts::new(
            "zim2kafka_app_callbacks_total",
            "Callbacks by the configured appid that they name (other: any other appid, or none) and by whether their signature was right.",
        );
        let callbacks = IntCounterVec::new(options, &["appid", "outcome"]);
        let metrics = Self(register(registry, callbacks));
        metrics.of(None);
        metrics
    }

    /// The series of a configured appid, or of all others. They exist from now on.
    pub fn of(&self, appid: Option<&str>) -> AppCounters {
        let appid = appid.unwrap_or(OTHER);
        AppCounters {
            accepted: self.0.with_label_values(&[appid, ACCEPTED]),
            unauthorized: self.0.with_label_values(&[appid, UNAUTHORIZED]),
        }
    }

    /// Removes the series of an appid that is not configured any more.
    pub fn remove(&self, appid: &str) {
        if appid == OTHER {
            return;
        }
        for outcome in [ACCEPTED, UNAUTHORIZED] {
            // It fails only if there is no such series.
            self.0.remove_label_values(&[appid, outcome]).ok();
        }
    }
}
