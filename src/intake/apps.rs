//! The state of each application that has a secret.

use std::collections::HashMap;
use std::sync::Arc;

use super::secret_check::SecretCheck;
use crate::callback::Secrets;
use crate::metrics::{AppCounters, AppMetrics};

/// One application, or all that have no secret of their own.
#[derive(Debug)]
pub(super) struct App {
    /// `None` for all others.
    pub(super) appid: Option<Arc<str>>,
    pub(super) counters: AppCounters,
    pub(super) secret_check: SecretCheck,
}

/// The secrets, and the state of their applications. ZIM2KAFKA_CALLBACK_SECRETS bounds it.
pub(super) struct Apps {
    pub(super) secrets: Secrets,
    pub(super) named: HashMap<String, Arc<App>>,
    pub(super) other: Arc<App>,
}

impl App {
    fn new(appid: Option<&str>, metrics: &AppMetrics) -> Arc<Self> {
        Arc::new(Self {
            appid: appid.map(Arc::from),
            counters: metrics.of(appid),
            secret_check: SecretCheck::default(),
        })
    }

    /// For the log.
    pub(super) fn whose(&self) -> String {
        match &self.appid {
            Some(appid) => format!("appid {appid}"),
            None => "an appid that ZIM2KAFKA_CALLBACK_SECRETS does not name".to_owned(),
        }
    }
}

impl Apps {
    /// The applications of these secrets. Those that were known before keep their state.
    pub(super) fn new(secrets: Secrets, before: Option<&Self>, metrics: &AppMetrics) -> Self {
        let known = |appid: &str| before.and_then(|before| before.named.get(appid));
        let named: HashMap<_, _> = (secrets.appids())
            .map(|appid| {
                let app = known(appid).map_or_else(|| App::new(Some(appid), metrics), Arc::clone);
                (appid.to_owned(), app)
            })
            .collect();
        let other = before.map_or_else(
            || App::new(None, metrics),
            |before| Arc::clone(&before.other),
        );
        for app in named.values().chain([&other]) {
            app.secret_check.reset();
        }
        let gone = before.into_iter().flat_map(|before| before.named.keys());
        for appid in gone.filter(|appid| !named.contains_key(*appid)) {
            metrics.remove(appid);
        }
        Self {
            secrets,
            named,
            other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::secret_check::Suspicion;
    use crate::metrics::Metrics;

    const NOW: i64 = 1_757_577_600_000;

    fn suspicion(app: &App) -> Option<Suspicion> {
        (0..5).find_map(|_| app.secret_check.record_unauthorized(NOW))
    }

    #[test]
    fn new_secrets_keep_what_is_known_of_an_application_and_warn_again() {
        let metrics = Metrics::new();
        let parse = |list: &str| Secrets::parse_list(list).expect("a list");
        let before = Apps::new(parse("1=one,2=two,*=any"), None, metrics.apps());
        assert_eq!(before.named.len(), 2, "* is not an appid");
        before.named["1"].secret_check.record_accepted(NOW);
        let mix = Some(Suspicion::SomeFail { last_accepted: 0 });
        assert_eq!(suspicion(&before.named["1"]), mix);
        assert_eq!(suspicion(&before.other), Some(Suspicion::AllFail));
        assert_eq!(suspicion(&before.other), None);

        let after = Apps::new(parse("1=new,3=three"), Some(&before), metrics.apps());
        assert_eq!(suspicion(&after.named["1"]), mix);
        assert_eq!(suspicion(&after.named["3"]), Some(Suspicion::AllFail));
        assert_eq!(suspicion(&after.other), Some(Suspicion::AllFail));
        for (appid, is_shown) in [("1", true), ("2", false), ("3", true), ("other", true)] {
            let series = format!("zim2kafka_app_callbacks_total{{appid=\"{appid}\"");
            assert_eq!(metrics.text().contains(&series), is_shown, "{appid}");
        }
    }
}
