//! Secrets and certificate, read again while the service runs: when their files have changed, and when
//! SIGHUP asks for it. What cannot be taken changes nothing but a metric and the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::callback::Secrets;
use crate::config::{ConfigError, Source};
use crate::http::{Certificate, Tls};
use crate::intake::Intake;
use crate::metrics::Metrics;

/// The files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is read again, and who asks for it.
#[derive(Default)]
pub struct Reload {
    /// Where the secrets are in a file.
    pub secrets: Option<Source<Secrets>>,
    /// Where HTTPS is served.
    pub certificate: Option<Source<Certificate>>,
    /// Changes whenever somebody asks; none where nobody can.
    pub asked: Option<watch::Receiver<u32>>,
}

/// Who uses what is read again.
pub(crate) struct Users {
    pub(crate) intake: Arc<Intake>,
    pub(crate) tls: Option<Tls>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reload {
    /// Looks at the files for as long as it is polled.
    pub(crate) async fn run(mut self, users: Users) {
        let (mut secrets_are_well, mut certificate_is_well) = (true, true);
        loop {
            let now = self.is_asked().await;
            if now && self.secrets.is_none() && self.certificate.is_none() {
                tracing::warn!(
                    "SIGHUP: nothing is read from files that can change; restart the service for other settings"
                );
            }
            if let Some((source, found)) = look(self.secrets.take(), now).await {
                if let Some(found) = found {
                    let what = source.variables();
                    secrets_are_well = judge(found, |secrets: Secrets| {
                        tracing::info!(applications = secrets.len(), "{what} was read again");
                        users.intake.replace_secrets(secrets);
                    });
                }
                self.secrets = Some(source);
            }
            if let (Some(tls), Some((source, found))) =
                (&users.tls, look(self.certificate.take(), now).await)
            {
                if let Some(found) = found {
                    let what = source.variables();
                    certificate_is_well = judge(found, |certificate: Certificate| {
                        tracing::info!("{what} were read again");
                        serves(&certificate, &users.metrics);
                        tls.replace(&certificate);
                    });
                }
                self.certificate = Some(source);
            }
            users
                .metrics
                .reloaded(secrets_are_well && certificate_is_well);
        }
    }

    /// Waits until it is time to look. True where somebody has asked.
    async fn is_asked(&mut self) -> bool {
        let Some(asked) = &mut self.asked else {
            tokio::time::sleep(LOOK_EVERY).await;
            return false;
        };
        match timeout(LOOK_EVERY, asked.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                // Whoever could ask is gone.
                self.asked = None;
                false
            }
            Err(_) => false,
        }
    }
}

/// A certificate is served from now on.
pub(crate) fn serves(certificate: &Certificate, metrics: &Metrics) {
    metrics.serves_certificate(certificate.not_after());
    if certificate.is_expired() {
        tracing::error!(
            "the certificate in ZIM2KAFKA_TLS_CERT has expired: senders that check it will not send; replace the file"
        );
    }
}

type Looked<T> = (Source<T>, Option<Result<T, ConfigError>>);

/// Reading can block, on a network file system for long.
async fn look<T: Send + 'static>(source: Option<Source<T>>, now: bool) -> Option<Looked<T>> {
    let mut source = source?;
    let looked = tokio::task::spawn_blocking(move || {
        let found = source.look(now);
        (source, found)
    });
    match looked.await {
        Ok(looked) => Some(looked),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Takes what was found, or says why not. True where it was taken.
fn judge<T>(found: Result<T, ConfigError>, take: impl FnOnce(T)) -> bool {
    match found {
        Ok(found) => {
            take(found);
            true
        }
        Err(error) => {
            tracing::error!("{error}; what was read before stays in use");
            false
        }
    }
}
