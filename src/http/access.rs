//! The access line: one line for each callback, at debug level.

use std::sync::Arc;
use std::time::Duration;

use tracing::field;
use uuid::Uuid;

use crate::callback::TraceId;
use crate::event::Label;
use crate::metrics::Outcome;

/// The target of the line, so that it can be enabled alone: `ZIM2KAFKA_LOG=info,zim2kafka::access=debug`.
const TARGET: &str = "zim2kafka::access";

/// What the line of a callback contains. It is logged when this is dropped.
///
/// It contains nothing that a request chooses freely: no body, no path, and an appid only if it is
/// configured.
pub(super) struct AccessLine {
    trace_id: Option<TraceId>,
    event: Option<Label>,
    appid: Option<Arc<str>>,
    event_id: Option<Uuid>,
    answer: Option<(Outcome, Duration)>,
}

impl AccessLine {
    /// The line of a callback that is not answered yet.
    pub(super) fn new(trace_id: Option<TraceId>) -> Self {
        Self {
            trace_id,
            event: None,
            appid: None,
            event_id: None,
            answer: None,
        }
    }

    /// The callback is authentic, and of this event.
    pub(super) fn set_event(&mut self, event: Label) {
        self.event = Some(event);
    }

    /// The callback names this application, which is configured.
    pub(super) fn set_appid(&mut self, appid: Option<Arc<str>>) {
        self.appid = appid;
    }

    /// The event, once the callback is authentic.
    pub(super) fn event(&self) -> Option<Label> {
        self.event
    }

    /// The application, if it is configured.
    pub(super) fn appid(&self) -> Option<&str> {
        self.appid.as_deref()
    }

    /// The callback was answered in this way, after this time.
    pub(super) fn answered(mut self, outcome: Outcome, event_id: Option<Uuid>, after: Duration) {
        self.answer = Some((outcome, after));
        self.event_id = event_id;
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            return;
        }
        let event = self.event.map(Label::name).map(field::display);
        let appid = self.appid.as_deref().map(field::display);
        let trace_id = self.trace_id.map(field::display);
        match self.answer {
            Some((outcome, after)) => tracing::debug!(
                target: TARGET,
                event,
                appid,
                outcome = field::display(<&str>::from(outcome)),
                ms = after.as_micros() as f64 / 1000.0,
                event_id = self.event_id.map(field::display),
                trace_id,
                "callback answered"
            ),
            None => tracing::debug!(
                target: TARGET,
                event,
                appid,
                trace_id,
                "callback not answered, because its connection ended or answering it panicked"
            ),
        }
    }
}
