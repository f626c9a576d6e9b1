//! Plays ZEGOCLOUD: posts signed callbacks at a rate, retries by its schedule, and takes down every
//! answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::Plan;

/// After the first attempt and each further one; then the callback is given up.
pub(crate) const SCHEDULE: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// Longer than any answer may take, so that a late one is seen and not cut off.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is posted where, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) plan: Plan,
    pub(crate) address: SocketAddr,
    /// Callbacks a second, as long as a group is free: of a group, one callback is on its way at a
    /// time, so that their order can be judged.
    pub(crate) rate: u32,
    /// The numbers of the groups, which take turns in this order.
    pub(crate) groups: Vec<u32>,
    pub(crate) schedule: [Duration; 5],
}

/// One callback, as its sender knows it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) group: u32,
    /// Its own, in ms.
    pub(crate) timestamp: u64,
    pub(crate) attempts: Vec<Attempt>,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// When it was begun and when its answer was whole, in µs since the run began.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// 0 where there was no answer.
    pub(crate) status: u16,
    /// Whether the answer named Kafka or the disk.
    pub(crate) durable: Option<Durable>,
}

/// Where the answer says that the event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Published,
    Spooled,
}

impl Attempt {
    pub(crate) fn is_2xx(self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Everything that was sent, by number.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) plan: Plan,
    pub(crate) sent: Vec<Sent>,
}

impl Log {
    /// Callbacks that were all answered 2xx at once, with these timestamps, which are what a dead
    /// letter of each is made of.
    pub(crate) fn of_dead_letters(plan: Plan, timestamps: &[u64], groups: u32) -> Self {
        let attempt = Attempt {
            began: 0,
            ended: 0,
            status: 200,
            durable: None,
        };
        let sent = timestamps.iter().zip((0..groups).cycle());
        let sent = sent.map(|(timestamp, group)| Sent {
            group,
            timestamp: *timestamp,
            attempts: vec![attempt],
        });
        Self {
            plan,
            sent: sent.collect(),
        }
    }

    /// The body and the timestamp of each.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (Vec<u8>, u64)> {
        (0..).zip(&self.sent).map(|(number, sent)| {
            let group = group_name(sent.group);
            let body = self.plan.body(number, &group, sent.timestamp);
            (body, sent.timestamp)
        })
    }
}

pub(crate) fn group_name(group: u32) -> String {
    format!("#group-{group}+%")
}

/// Sends until it is stopped.
pub(crate) struct Sender {
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    running: JoinHandle<Log>,
    began: Instant,
}

impl Sender {
    pub(crate) fn start(load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let running = tokio::spawn(run(
            load,
            began,
            Arc::clone(&stop),
            Arc::clone(&pause),
            Arc::clone(&answered),
        ));
        Self {
            stop,
            pause,
            answered,
            running,
            began,
        }
    }

    /// How long the load has been running.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many callbacks have been answered 2xx so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Begins nothing new until it is resumed. What is on its way goes on.
    pub(crate) fn pause(&self) {
        self.pause.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.pause.store(false, Ordering::Relaxed);
    }

    /// Begins nothing new, and waits until each callback is answered or given up.
    pub(crate) async fn stop(self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.expect("the sender does not panic")
    }
}

async fn run(
    load: Load,
    began: Instant,
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Log {
    let load = Arc::new(load);
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (free, mut groups) = mpsc::unbounded_channel();
    for group in &load.groups {
        free.send(*group).expect("the receiver is here");
    }
    let mut chains = JoinSet::new();
    let mut number = 0;
    let mut due_since = began;
    while !stop.load(Ordering::Relaxed) {
        if pause.load(Ordering::Relaxed) {
            const LOOK: Duration = Duration::from_millis(10);
            tokio::time::sleep(LOOK).await;
            // Or all that would have been due would be sent at once.
            due_since += LOOK;
            continue;
        }
        let due = due_since + Duration::from_secs(1).mul_f64(number as f64 / f64::from(load.rate));
        tokio::time::sleep_until(due.into()).await;
        let Ok(Some(group)) = tokio::time::timeout(Duration::from_millis(100), groups.recv()).await
        else {
            continue;
        };
        let chain = Chain {
            load: Arc::clone(&load),
            client: client.clone(),
            began,
            answered: Arc::clone(&answered),
        };
        let (sent, free) = (Arc::clone(&sent), free.clone());
        let of = number;
        chains.spawn(async move {
            let callback = chain.send(of, group).await;
            sent.lock().expect("no panic").push((of, callback));
            // The receiver may be gone: then nothing new begins.
            free.send(group).ok();
        });
        number += 1;
        while chains.try_join_next().is_some() {}
    }
    while chains.join_next().await.is_some() {}
    let mut sent = std::mem::take(&mut *sent.lock().expect("no panic"));
    sent.sort_unstable_by_key(|(number, _)| *number);
    Log {
        plan: load.plan.clone(),
        sent: sent.into_iter().map(|(_, sent)| sent).collect(),
    }
}

struct Chain {
    load: Arc<Load>,
    client: Client<HttpConnector, Full<Bytes>>,
    began: Instant,
    answered: Arc<AtomicU64>,
}

impl Chain {
    async fn send(&self, number: u64, group: u32) -> Sent {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let timestamp = now.as_millis() as u64;
        let body: Bytes = (self.load.plan.body(number, &group_name(group), timestamp)).into();
        let mut attempts = Vec::new();
        for pause in self.load.schedule.iter().map(Some).chain([None]) {
            let attempt = self.attempt(body.clone()).await;
            attempts.push(attempt);
            match pause {
                _ if attempt.is_2xx() => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {}
            }
        }
        Sent {
            group,
            timestamp,
            attempts,
        }
    }

    async fn attempt(&self, body: Bytes) -> Attempt {
        let began = self.began.elapsed().as_micros() as u64;
        let uri = format!("http://{}/callbacks/zim", self.load.address);
        let request = Request::post(uri).header("content-type", "application/json");
        let request = request.body(Full::new(body)).expect("valid");
        let answer = async {
            let answer = self.client.request(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            let says = |what: &str| String::from_utf8_lossy(&body).contains(what);
            let durable = match (says("\"published\""), says("\"spooled\"")) {
                (true, _) => Some(Durable::Published),
                (_, true) => Some(Durable::Spooled),
                _ => None,
            };
            Some((status, durable))
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let (status, durable) = answer.ok().flatten().unwrap_or((0, None));
        Attempt {
            began,
            ended: self.began.elapsed().as_micros() as u64,
            status,
            durable,
        }
    }
}
