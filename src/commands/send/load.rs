//! Posts callbacks at a rate, each with the sender's retries, and summarises the results.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::{Method, Uri};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::events::Sequence;
use super::sample::{Signer, now};
use crate::commands::Stop;
use crate::commands::client::HttpClient;
use crate::log;

/// The pauses before the sender's five further attempts, as on ZEGOCLOUD's page "Callback on group
/// joined". After the last attempt it drops the event.
pub(super) const RETRY_PAUSES: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// The time for an answer. ZEGOCLOUD does not document how long it waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The most callbacks that are unfinished, including those that wait for their next attempt.
const MAX_UNFINISHED: usize = 100_000;

/// What to send.
pub(super) struct Load {
    pub(super) url: Uri,
    pub(super) signer: Signer,
    pub(super) events: Sequence,
    pub(super) rate: Option<f64>,
    pub(super) count: Option<u64>,
    pub(super) duration: Option<Duration>,
    pub(super) concurrency: u32,
    pub(super) pauses: [Duration; 5],
}

/// The results.
pub(super) struct Summary {
    sent: u64,
    succeeded: u64,
    retried: u64,
    given_up: u64,
    unfinished: u64,
    failures: BTreeMap<String, u64>,
    /// Microseconds from the start of an attempt to its answer, for all answers.
    latency: Histogram<u64>,
    elapsed: Duration,
}

impl Load {
    /// Posts until the count, the duration or a signal ends it. Then waits for unfinished callbacks
    /// and their retries, unless a signal came.
    pub(super) async fn run(self, stop: &Stop) -> Summary {
        let began = Instant::now();
        let sender = Arc::new(Sender {
            client: HttpClient::new(),
            url: self.url.clone(),
            pauses: self.pauses,
            slots: Semaphore::new(self.concurrency as usize),
            summary: Mutex::new(Summary::new()),
            answered: Arc::default(),
        });
        let progress = Progress::start(self.count, &sender.answered);
        let unfinished = Arc::new(Semaphore::new(MAX_UNFINISHED));
        let mut stopped = false;
        for number in 0..self.count.unwrap_or(u64::MAX) {
            let due = self.due(number);
            if self
                .duration
                .is_some_and(|duration| due.max(began.elapsed()) >= duration)
            {
                break;
            }
            let ready = async {
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                // Acquired here too, so that a load without a rate does not sign callbacks in
                // advance.
                drop(sender.slots.acquire().await);
                Arc::clone(&unfinished).acquire_owned().await
            };
            let permit = tokio::select! {
                permit = ready => permit.expect("never closed"),
                () = stop.first() => {
                    stopped = true;
                    break;
                }
            };
            let body = self.signer.callback(self.events.at(number), number, now());
            let sender = Arc::clone(&sender);
            tokio::spawn(async move {
                sender.deliver(body.into()).await;
                drop(permit);
            });
        }
        if !stopped {
            let all = u32::try_from(MAX_UNFINISHED).expect("small");
            tokio::select! {
                _ = unfinished.acquire_many(all) => {}
                () = stop.first() => {}
            }
        }
        if let Some(progress) = progress {
            progress.finish().await;
        }
        let mut summary = std::mem::replace(&mut *sender.summary(), Summary::new());
        summary.unfinished = summary.sent - summary.succeeded - summary.given_up;
        summary.elapsed = began.elapsed();
        summary
    }

    /// When a callback is due, from the start. The schedule does not wait for answers.
    fn due(&self, number: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX)
        })
    }
}

struct Sender {
    client: HttpClient,
    url: Uri,
    pauses: [Duration; 5],
    slots: Semaphore,
    summary: Mutex<Summary>,
    /// Callbacks that are answered with 2xx or given up.
    answered: Arc<AtomicU64>,
}

impl Sender {
    /// Posts one callback until it is answered with 2xx, or the attempts are used up.
    async fn deliver(&self, body: Bytes) {
        self.summary().sent += 1;
        for pause in self.pauses.into_iter().map(Some).chain([None]) {
            if self.attempt(&body).await {
                self.summary().succeeded += 1;
                self.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            match pause {
                Some(pause) => {
                    self.summary().retried += 1;
                    tokio::time::sleep(pause).await;
                }
                None => {
                    self.summary().given_up += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn attempt(&self, body: &Bytes) -> bool {
        let slot = self.slots.acquire().await;
        let began = Instant::now();
        let answer = self
            .client
            .request(Method::POST, &self.url, body.clone(), ANSWER_TIMEOUT)
            .await;
        drop(slot);
        let mut summary = self.summary();
        if answer.is_ok() {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            summary.latency.saturating_record(micros);
        }
        let failure = match answer {
            Ok((status, _)) if status.is_success() => return true,
            Ok((status, _)) => format!("answer {status}"),
            Err(reason) => reason,
        };
        *summary.failures.entry(failure).or_default() += 1;
        false
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock()
    }
}

impl Summary {
    fn new() -> Self {
        Self {
            sent: 0,
            succeeded: 0,
            retried: 0,
            given_up: 0,
            unfinished: 0,
            failures: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, 60_000_000, 3)
                .expect("constant bounds are valid"),
            elapsed: Duration::ZERO,
        }
    }

    /// Callbacks that the sender would have dropped.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let milliseconds = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        writeln!(f, "sent        {} in {seconds:.1} s", self.sent)?;
        writeln!(
            f,
            "2xx         {} ({:.0}/s)",
            self.succeeded,
            self.succeeded as f64 / seconds
        )?;
        writeln!(f, "retried     {}", self.retried)?;
        writeln!(f, "given up    {}", self.given_up)?;
        if self.unfinished > 0 {
            writeln!(f, "unfinished  {}", self.unfinished)?;
        }
        for (failure, count) in &self.failures {
            writeln!(f, "            {count} × {failure}")?;
        }
        write!(
            f,
            "answered in p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            milliseconds(0.5),
            milliseconds(0.9),
            milliseconds(0.99),
            milliseconds(0.999),
            milliseconds(1.0),
        )
    }
}

/// A progress bar on a terminal, drawn by a thread of its own: a terminal may stop taking output
/// (ctrl-s), which must hold up neither callbacks nor signals.
struct Progress {
    /// Dropped at the end.
    is_over: mpsc::Sender<()>,
    drawing: JoinHandle<()>,
}

/// How often the bar is drawn.
const DRAW_PAUSE: Duration = Duration::from_millis(100);

/// The time for the terminal to remove the bar.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(1);

impl Progress {
    /// None if stderr is not a terminal.
    fn start(count: Option<u64>, answered: &Arc<AtomicU64>) -> Option<Self> {
        if !log::is_terminal() {
            return None;
        }
        let answered = Arc::clone(answered);
        let (is_over, over) = mpsc::channel();
        let drawing = tokio::task::spawn_blocking(move || {
            let bar = bar(count);
            while over.recv_timeout(DRAW_PAUSE) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(answered.load(Ordering::Relaxed));
            }
            bar.finish_and_clear();
        });
        Some(Self { is_over, drawing })
    }

    async fn finish(self) {
        drop(self.is_over);
        // A terminal that blocks must not prevent the summary.
        let _ = tokio::time::timeout(CLEAR_TIMEOUT, self.drawing).await;
    }
}

fn bar(count: Option<u64>) -> ProgressBar {
    match count {
        Some(count) => ProgressBar::new(count).with_style(
            ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}")
                .expect("a constant template is valid"),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {pos} answered, {per_sec}")
                .expect("a constant template is valid"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::callback::Secrets;

    #[test]
    fn the_sender_drops_an_event_after_sixty_two_seconds() {
        assert_eq!(
            RETRY_PAUSES.iter().sum::<Duration>(),
            Duration::from_secs(62)
        );
    }

    /// Two callbacks to a port where nothing listens.
    fn load() -> Load {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = taken.local_addr().expect("it is bound");
        // Released again.
        drop(taken);
        Load {
            url: format!("http://{address}/").parse().expect("a URL"),
            signer: Signer::new(&Secrets::parse_list("1=s").expect("valid"), None, 1)
                .expect("known"),
            events: Sequence::mix(),
            rate: None,
            count: Some(2),
            duration: None,
            concurrency: 1,
            pauses: [Duration::from_millis(1); 5],
        }
    }

    #[tokio::test]
    async fn a_callback_that_is_due_after_the_end_of_time_is_waited_for() {
        for rate in [1e-18, 1e-19, 1e-300] {
            let rate = Some(rate);
            let load = Load { rate, ..load() };
            assert!(load.due(1) > Duration::from_secs(1 << 59), "{rate:?}");
            let stop = Stop::listen();
            let running = tokio::time::timeout(Duration::from_millis(100), load.run(&stop));
            assert!(running.await.is_err(), "the second callback is not due");
        }
    }

    #[tokio::test]
    async fn a_callback_without_an_answer_is_given_up_after_six_attempts() {
        let load = load();
        let summary = load.run(&Stop::listen()).await;
        assert_eq!((summary.sent, summary.succeeded), (2, 0));
        assert_eq!((summary.retried, summary.given_up), (10, 2));
        assert_eq!(summary.unfinished, 0);
        assert_eq!(summary.failures.values().sum::<u64>(), 12);
        let text = summary.to_string();
        assert!(text.contains("given up    2\n"), "{text}");
        assert!(text.contains("12 × Connection refused"), "{text}");
    }
}
