//! Reloads the secrets and the certificate while the service runs: when their files change, and on
//! SIGHUP. If that fails, the previous ones stay in use, and a metric and the log report it.
//!
//! The secrets and the certificate are watched independently. A file system that does not answer
//! holds up one of the two, and occupies one thread.

use std::mem;
use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval_at, timeout};

use crate::callback::Secrets;
use crate::config::{Reading, Source};
use crate::finding::Finding;
use crate::http::{Certificate, Tls};
use crate::intake::Intake;
use crate::log::LogThrottle;
use crate::metrics::Metrics;

/// How often the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A check that takes longer counts as a failed reload until it ends.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(crate) async fn run(self, targets: ReloadTargets) {
        let requests = Requests(self.requests);
        if self.secrets.is_none() && self.certificate.is_none() {
            return warn_without_files(requests).await;
        }
        let status = Mutex::new([true; 2]);
        let set = |part: usize, is_successful: bool| {
            let mut status = status.lock();
            if let Some(part) = status.get_mut(part) {
                *part = is_successful;
            }
            targets.metrics.set_reload_successful(*status == [true; 2]);
        };
        let secrets = async {
            let Some(source) = self.secrets else { return };
            let apply = |secrets: Secrets, variables: &str| {
                let count = secrets.len();
                tracing::info!("reloaded {variables}: secrets of {count} applications");
                targets.intake.replace_secrets(secrets);
            };
            let watch = Watch::new(&source, requests.clone(), |is_ok| set(0, is_ok));
            watch.run(source, apply).await;
        };
        let certificate = async {
            let (Some(source), Some(tls)) = (self.certificate, &targets.tls) else {
                return;
            };
            let apply = |certificate: Certificate, variables: &str| {
                tracing::info!("reloaded {variables}");
                use_certificate(&certificate, &targets.metrics);
                tls.replace(&certificate);
            };
            let watch = Watch::new(&source, requests.clone(), |is_ok| set(1, is_ok));
            watch.run(source, apply).await;
        };
        tokio::join!(secrets, certificate);
    }
}

/// Requests to reload. Several that come while nobody waits for one count as one.
#[derive(Clone)]
struct Requests(Option<watch::Receiver<u32>>);

impl Requests {
    /// Completes with a request. Never completes if none can come any more.
    async fn next(&mut self) {
        if let Some(requests) = &mut self.0
            && requests.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

async fn warn_without_files(mut requests: Requests) {
    loop {
        requests.next().await;
        tracing::warn!(
            "SIGHUP: neither secrets nor a certificate are read from files; restart the service to change other settings"
        );
    }
}

/// Watches the files of one source.
struct Watch<F> {
    requests: Requests,
    /// A request came that no check has begun after.
    is_requested: bool,
    /// Whether the last contents that were parsed are in use.
    is_current: bool,
    /// A request came for a file that is read only at the start.
    is_refused: bool,
    set_successful: F,
    variables: String,
    reading: Reading,
    hang_throttle: LogThrottle,
}

impl<F: Fn(bool)> Watch<F> {
    fn new<T>(source: &Source<T>, requests: Requests, set_successful: F) -> Self {
        Self {
            requests,
            is_requested: false,
            is_current: true,
            is_refused: false,
            set_successful,
            variables: source.variables(),
            reading: source.reading(),
            hang_throttle: LogThrottle::default(),
        }
    }

    async fn run<T: Send + 'static>(mut self, mut source: Source<T>, apply: impl Fn(T, &str)) {
        let read_once = source.read_once();
        for file in &read_once {
            tracing::warn!(
                "{file}, so it was read once; changes to it need a restart of the service"
            );
        }
        loop {
            if !self.is_requested {
                let interval = if source.is_watched() {
                    CHECK_INTERVAL
                } else {
                    Duration::MAX
                };
                self.is_requested = timeout(interval, self.requests.next()).await.is_ok();
            }
            let is_requested = mem::take(&mut self.is_requested);
            if is_requested && !read_once.is_empty() {
                self.is_refused = true;
                for file in &read_once {
                    tracing::error!(
                        "reload failed: {file}, which cannot be read again; restart the service, or name a regular file"
                    );
                }
            }
            if source.is_watched() {
                let check = tokio::task::spawn_blocking(move || {
                    let parsed = source.check(is_requested);
                    (source, parsed)
                });
                let (checked, parsed) = self.finish(check).await;
                source = checked;
                match parsed {
                    None => {}
                    Some(Ok(parsed)) => {
                        self.is_current = true;
                        apply(parsed, &self.variables);
                    }
                    Some(Err(error)) => {
                        self.is_current = false;
                        tracing::error!(
                            "reload failed: {error}; the previous contents stay in use until the file is corrected"
                        );
                    }
                }
            }
            (self.set_successful)(self.is_current && !self.is_refused);
        }
    }

    /// Waits for a check on a blocking thread. It may hang for as long as a network file system
    /// does not answer; no other check begins until then.
    async fn finish<C>(&mut self, mut check: JoinHandle<C>) -> C {
        let began = Instant::now();
        let mut clock = interval_at((began + CHECK_TIMEOUT).into(), CHECK_TIMEOUT);
        let (mut hangs, mut logged) = (false, None);
        loop {
            let is_due = tokio::select! {
                biased;
                checked = &mut check => {
                    if let Some(file) = logged {
                        let seconds = began.elapsed().as_secs();
                        tracing::info!("{file} works again; it took {seconds} s");
                    }
                    return checked.unwrap_or_else(|panic| panic::resume_unwind(panic.into_panic()));
                }
                () = self.requests.next() => {
                    self.is_requested = true;
                    hangs
                }
                _ = clock.tick() => {
                    (self.set_successful)(false);
                    hangs = true;
                    self.hang_throttle.is_due()
                }
            };
            if is_due {
                let file = self.reading.file().to_owned();
                tracing::error!(
                    "reload failed: {file} has not ended for {} s, as on a network disk that does not answer; the previous contents stay in use until it ends",
                    began.elapsed().as_secs()
                );
                logged = Some(file);
            }
        }
    }
}

/// Reports the certificate that is served from now on.
pub(crate) fn use_certificate(certificate: &Certificate, metrics: &Metrics) {
    metrics.set_certificate_not_after(certificate.not_after());
    certificate.findings().iter().for_each(Finding::log);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (watch::Sender<u32>, Watch<impl Fn(bool)>) {
        let (send, requests) = watch::channel(0);
        let watch = Watch {
            requests: Requests(Some(requests)),
            is_requested: false,
            is_current: true,
            is_refused: false,
            set_successful: |_| (),
            variables: "FILE".to_owned(),
            reading: Reading::default(),
            hang_throttle: LogThrottle::default(),
        };
        (send, watch)
    }

    async fn comes(requests: &mut Requests) -> bool {
        timeout(Duration::from_millis(20), requests.next())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn requests_that_nobody_waits_for_count_as_one_and_none_is_lost() {
        let (send, mut watch) = watch();
        assert!(!comes(&mut watch.requests).await);
        for _ in 0..3 {
            send.send_modify(|count| *count += 1);
        }
        assert!(comes(&mut watch.requests).await);
        assert!(!comes(&mut watch.requests).await);
        send.send_modify(|count| *count += 1);
        drop(send);
        assert!(comes(&mut watch.requests).await);
        assert!(!comes(&mut watch.requests).await, "there is no sender");
    }

    #[tokio::test]
    async fn a_request_that_comes_during_a_check_is_for_the_next_one() {
        let (send, mut watch) = watch();
        for is_requested in [false, true] {
            watch.is_requested = false;
            let (end, ends) = std::sync::mpsc::channel();
            let check = tokio::task::spawn_blocking(move || ends.recv());
            let during = async {
                if is_requested {
                    send.send_modify(|count| *count += 1);
                    tokio::task::yield_now().await;
                }
                end.send(7).expect("it waits");
            };
            let (checked, ()) = tokio::join!(watch.finish(check), during);
            assert_eq!(checked, Ok(7));
            // It was taken by `finish`, or waits.
            let is_left = watch.is_requested || comes(&mut watch.requests).await;
            assert_eq!(is_left, is_requested);
        }
    }
}
