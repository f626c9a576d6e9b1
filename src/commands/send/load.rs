//! Posts callbacks at a rate, each with the sender's retries, and summarises the results.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::progress::Sent;
use super::sample::{Post, now};
use super::scenario::{Callbacks, Scenario};
use super::summary::Summary;
use crate::client::HttpClient;
use crate::commands::Stop;
use crate::commands::progress::Progress;

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

/// The longest name of an answer.
const MAX_NAME_BYTES: usize = 20;

/// The most callbacks that are unfinished, including those that wait for their next attempt.
const MAX_UNFINISHED: usize = 100_000;

/// What to send.
pub(super) struct Load {
    pub(super) client: HttpClient,
    pub(super) url: Uri,
    pub(super) callbacks: Callbacks,
    pub(super) rate: Option<f64>,
    pub(super) count: Option<u64>,
    pub(super) duration: Option<Duration>,
    pub(super) concurrency: u32,
    pub(super) pauses: Vec<Duration>,
}

impl Load {
    /// Posts until the count, the duration or a signal ends it. Then waits for unfinished callbacks
    /// and their retries, unless a signal came.
    pub(super) async fn run(mut self, stop: &Stop) -> Summary {
        let began = Instant::now();
        let sender = Arc::new(Sender {
            client: self.client.clone(),
            url: self.url.clone(),
            pauses: self.pauses.clone(),
            slots: Semaphore::new(self.concurrency as usize),
            summary: Mutex::default(),
        });
        let posts = Scenario::posts(self.callbacks.scenario);
        let progress = {
            let sender = Arc::clone(&sender);
            Progress::start(Sent {
                total: self.count.map(|count| count.saturating_mul(posts)),
                counts: move || sender.summary().progress(),
            })
        };
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
            let posts = self.callbacks.posts(number, now());
            let sender = Arc::clone(&sender);
            tokio::spawn(async move {
                for post in posts {
                    if !sender.deliver(post).await {
                        break;
                    }
                }
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
        progress.finish().await;
        let mut summary = std::mem::take(&mut *sender.summary());
        summary.end(began.elapsed());
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
    pauses: Vec<Duration>,
    slots: Semaphore,
    summary: Mutex<Summary>,
}

impl Sender {
    /// Posts one body until it is answered with 2xx, or the attempts are used up. Returns whether it
    /// was.
    async fn deliver(&self, post: Post) -> bool {
        self.summary().sent += 1;
        let body = Bytes::from(post.body);
        for pause in self.pauses.iter().map(Some).chain([None]) {
            if self.attempt(&body, post.content_type).await {
                self.summary().succeeded += 1;
                return true;
            }
            if let Some(pause) = pause {
                self.summary().retried += 1;
                tokio::time::sleep(*pause).await;
            }
        }
        self.summary().given_up += 1;
        false
    }

    /// Posts it once. Returns whether it was answered with 2xx.
    async fn attempt(&self, body: &Bytes, content_type: &'static str) -> bool {
        let slot = self.slots.acquire().await;
        let began = Instant::now();
        let answer = self
            .client
            .post(&self.url, content_type, body.clone(), ANSWER_TIMEOUT)
            .await;
        drop(slot);
        let mut summary = self.summary();
        if answer.is_ok() {
            summary.record_latency(began.elapsed());
        }
        let failure = match answer {
            Ok((status, answer)) if status.is_success() => {
                *summary.answers.entry(name(status, &answer)).or_default() += 1;
                return true;
            }
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

/// What the service answered: its `status`, or the `result` of `before_send_msg`.
fn name(status: StatusCode, answer: &[u8]) -> String {
    let answer = serde_json::from_slice(answer).unwrap_or(Value::Null);
    let is_word = |text: &&str| {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_part)
    };
    let word = answer.get("status").and_then(Value::as_str);
    if let Some(word) = word.filter(is_word) {
        return word.to_owned();
    }
    match answer.get("result").and_then(Value::as_i64) {
        Some(result) => format!("result {result}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::callback::Secrets;
    use crate::commands::send::events::Sequence;
    use crate::commands::send::sample::Signer;

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
        let secrets = Secrets::parse_list("1=s").expect("valid");
        let signer = Signer::new(&secrets, None, 1).expect("known");
        Load {
            client: HttpClient::new(),
            url: format!("http://{address}/").parse().expect("a URL"),
            callbacks: Callbacks::new(signer, Sequence::mix(), None, 1),
            rate: None,
            count: Some(2),
            duration: None,
            concurrency: 1,
            pauses: vec![Duration::from_millis(1); 5],
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
