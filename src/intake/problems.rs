//! Lists callbacks that become no event as problems, for the status page. No line contains text of a
//! callback.

use super::Intake;
use super::apps::App;
use crate::callback::{Malformed, Unauthorized};
use crate::event::{Kind, Reason, Unpublishable};
use crate::metrics::Problem;

impl Intake {
    pub(super) fn list_dead_letter(
        &self,
        appid: Option<&str>,
        kind: Option<&'static Kind>,
        why: &Unpublishable,
    ) {
        let problem = Problem {
            kind: "dead letter",
            appid,
            event: kind.map(|kind| kind.name),
            reason: why.reason.into(),
        };
        let detail = || match (why.reason, kind) {
            // The detail has the name of the event, which may be any text.
            (Reason::UnsupportedEvent, None) => "this version does not know the event".to_owned(),
            (Reason::UnsupportedEvent, Some(_)) => {
                "ZIM2KAFKA_TOPICS names no topic for it".to_owned()
            }
            _ => why.detail.to_string(),
        };
        self.metrics.problems().add(problem, detail);
    }

    pub(super) fn list_reused_signature(&self, appid: Option<&str>) {
        let problem = Problem {
            kind: "signature reused",
            appid,
            event: None,
            reason: "with another body",
        };
        let detail = "accepted, because the sender's nonces can collide. If there are many, a third party may use signatures that it has seen";
        self.metrics.problems().add(problem, || detail.to_owned());
    }

    pub(super) fn list_malformed(&self, why: &Malformed) {
        let text = why.to_string();
        let (reason, detail) = text.split_once(": ").unwrap_or((&text, ""));
        let problem = Problem {
            reason,
            ..Problem::of_service("answered 400")
        };
        let problems = self.metrics.problems();
        problems.add_unauthenticated(problem, || detail.to_owned());
    }

    pub(super) fn list_unauthorized(&self, app: &App, why: Unauthorized) {
        let problem = Problem {
            kind: "answered 401",
            appid: app.appid.as_deref(),
            event: None,
            reason: &why.failed_check().to_string(),
        };
        let advice = "check ZIM2KAFKA_CALLBACK_SECRETS; if it is right, a third party sends";
        let problems = self.metrics.problems();
        problems.add_unauthenticated(problem, || advice.to_owned());
    }
}
