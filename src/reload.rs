//! Reloads the secrets and the certificate while the service runs: when their files change, and on
//! SIGHUP. If that fails, the previous ones stay in use, and a metric and the log report it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::callback::Secrets;
use crate::config::{ConfigError, Source};
use crate::http::{Certificate, Tls};
use crate::intake::Intake;
use crate::metrics::Metrics;

/// How often the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What is reloaded, and when.
#[derive(Default)]
pub struct Reload {
    /// The file of secrets, if they are in one.
    pub secrets: Option<Source<Secrets>>,
    /// The files of the certificate, if HTTPS is served.
    pub certificate: Option<Source<Certificate>>,
    /// Changes with every request to reload; `None` if there are no such requests.
    pub requests: Option<watch::Receiver<u32>>,
}

/// The parts of the service that get what was reloaded.
pub(crate) struct ReloadTargets {
    pub(crate) intake: Arc<Intake>,
    pub(crate) tls: Option<Tls>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reload {
    /// Checks the files for as long as it is polled.
    pub(crate) async fn run(mut self, targets: ReloadTargets) {
        let (mut secrets_ok, mut certificate_ok) = (true, true);
        loop {
            let is_requested = self.wait().await;
            if is_requested && self.secrets.is_none() && self.certificate.is_none() {
                tracing::warn!(
                    "SIGHUP: neither secrets nor a certificate are read from files; restart the service to change other settings"
                );
            }
            if let Some((source, parsed)) = check(self.secrets.take(), is_requested).await {
                if let Some(parsed) = parsed {
                    let variables = source.variables();
                    secrets_ok = apply(parsed, |secrets: Secrets| {
                        let count = secrets.len();
                        tracing::info!("reloaded {variables}: secrets of {count} applications");
                        targets.intake.replace_secrets(secrets);
                    });
                }
                self.secrets = Some(source);
            }
            if let (Some(tls), Some((source, parsed))) = (
                &targets.tls,
                check(self.certificate.take(), is_requested).await,
            ) {
                if let Some(parsed) = parsed {
                    let variables = source.variables();
                    certificate_ok = apply(parsed, |certificate: Certificate| {
                        tracing::info!("reloaded {variables}");
                        use_certificate(&certificate, &targets.metrics);
                        tls.replace(&certificate);
                    });
                }
                self.certificate = Some(source);
            }
            (targets.metrics).set_reload_successful(secrets_ok && certificate_ok);
        }
    }

    /// Waits until the next check is due. True if a reload was requested.
    async fn wait(&mut self) -> bool {
        let Some(requests) = &mut self.requests else {
            tokio::time::sleep(CHECK_INTERVAL).await;
            return false;
        };
        match timeout(CHECK_INTERVAL, requests.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                // The sender is gone.
                self.requests = None;
                false
            }
            Err(_) => false,
        }
    }
}

/// Reports the certificate that is served from now on.
pub(crate) fn use_certificate(certificate: &Certificate, metrics: &Metrics) {
    metrics.set_certificate_not_after(certificate.not_after());
    if certificate.is_expired() {
        tracing::error!(
            "the certificate in ZIM2KAFKA_TLS_CERT has expired: senders that verify it cannot connect; replace the file"
        );
    }
}

type Checked<T> = (Source<T>, Option<Result<T, ConfigError>>);

/// Checks a source on a blocking thread, because a network file system may be slow.
async fn check<T: Send + 'static>(source: Option<Source<T>>, now: bool) -> Option<Checked<T>> {
    let mut source = source?;
    let checked = tokio::task::spawn_blocking(move || {
        let parsed = source.check(now);
        (source, parsed)
    });
    match checked.await {
        Ok(checked) => Some(checked),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Applies what was parsed, or logs why that failed. Returns whether it was applied.
fn apply<T>(parsed: Result<T, ConfigError>, apply: impl FnOnce(T)) -> bool {
    match parsed {
        Ok(parsed) => {
            apply(parsed);
            true
        }
        Err(error) => {
            tracing::error!(
                "reload failed: {error}; the previous contents stay in use until the file is corrected"
            );
            false
        }
    }
}
