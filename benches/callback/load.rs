//! The load: signed callbacks on a number of connections, as fast as they are answered or at a rate
//! that does not wait for answers.
//!
//! It writes requests and reads answers as bytes, because a general client costs more than the
//! service that it measures. Each body has its own signature: a repeated one would be answered from
//! the deduplication window.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zim2kafka::callback::sign;

pub(crate) const APPID: &str = "1234567890";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A connection that was free for longer is replaced, as clients do: the service closes it after
/// `ZIM2KAFKA_IDLE_TIMEOUT`.
const MAX_IDLE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// The least bytes of a body.
    pub(crate) bytes: usize,
    pub(crate) groups: u64,
    /// The beginning of their names.
    pub(crate) prefix: &'static str,
    pub(crate) content: Content,
    pub(crate) partitions: i32,
    pub(crate) duration: Duration,
    /// Callbacks whose number is a multiple of this have a timestamp of `age`; 0 for none.
    pub(crate) aged_each: u64,
    pub(crate) age: Duration,
    pub(crate) path: &'static str,
    pub(crate) event: &'static str,
}

/// Which event the callbacks report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A user joins a group.
    Join,
    /// A message to a group, with a timestamp in seconds and a nonce of six digits, as the sender's
    /// page shows. So its signatures repeat.
    Message,
}

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends its next callback as soon as it has an answer.
    Saturation,
    /// Callbacks per second. A latency counts from the time when its callback was due, so that a
    /// service that stalls is charged for all callbacks that could not be sent meanwhile.
    Rate(f64),
}

pub(crate) struct Outcome {
    latency: Histogram<u64>,
    elapsed: Duration,
    pub(crate) answers: Answers,
    pub(crate) not_2xx: u64,
}

/// Answers, counted by the `status` of their body. Subject a sends no body.
#[derive(Clone, Copy, Default)]
pub(crate) struct Answers {
    pub(crate) published: u64,
    pub(crate) spooled: u64,
    pub(crate) duplicate: u64,
    /// By the code 503.
    pub(crate) unavailable: u64,
}

impl Answers {
    /// Counts an answer. Returns whether it was 2xx.
    fn count(&mut self, answer: &[u8]) -> bool {
        let head = answer.get(..12).unwrap_or_default();
        if head == b"HTTP/1.1 503" {
            self.unavailable += 1;
        }
        if !head.starts_with(b"HTTP/1.1 2") {
            return false;
        }
        const STATUS: &[u8] = br#""status":""#;
        let status = find(answer, STATUS).map_or(&b""[..], |at| &answer[at + STATUS.len()..]);
        if status.starts_with(b"published\"") {
            self.published += 1;
        } else if status.starts_with(b"spooled\"") {
            self.spooled += 1;
        } else if status.starts_with(b"duplicate\"") {
            self.duplicate += 1;
        }
        true
    }
}

const NOTE_BYTES: usize = 1_000_000;

/// Random text that fills a body up: compression would make a record smaller than it is meant to be.
static NOTE: LazyLock<String> = LazyLock::new(|| {
    let letters = rand::rng().sample_iter(Alphanumeric).take(NOTE_BYTES);
    letters.map(char::from).collect()
});

/// One run: which callback is due when, and the results.
struct Run {
    pace: Pace,
    began: Instant,
    duration: Duration,
    /// Different in each run, so that no signature repeats.
    nonce: u32,
    next: AtomicU64,
    due: Semaphore,
    results: Mutex<Results>,
}

struct Results {
    latency: Histogram<u64>,
    answers: Answers,
    not_2xx: u64,
}

impl Run {
    fn new(pace: Pace, duration: Duration) -> Self {
        Self {
            pace,
            began: Instant::now(),
            duration,
            nonce: rand::random(),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            results: Mutex::new(Results {
                latency: Histogram::new_with_max(60_000_000, 3).expect("valid bounds"),
                answers: Answers::default(),
                not_2xx: 0,
            }),
        }
    }

    /// The number of the next callback, and when it is due. `None` if that is after the end.
    fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.pace {
            Pace::Saturation => Instant::now(),
            Pace::Rate(rate) => self.began + Duration::from_secs_f64(number as f64 / rate),
        };
        (due < self.began + self.duration).then_some((number, due))
    }

    fn record(&self, due: Instant, answer: &[u8]) {
        let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut results = self.results.lock().expect("no panic");
        results.latency.saturating_record(took);
        let is_2xx = results.answers.count(answer);
        results.not_2xx += u64::from(!is_2xx);
    }

    fn outcome(&self) -> Outcome {
        let results = self.results.lock().expect("no panic");
        Outcome {
            latency: results.latency.clone(),
            elapsed: self.began.elapsed(),
            answers: results.answers,
            not_2xx: results.not_2xx,
        }
    }

    /// Runs on its own thread, because tokio's timers have a resolution of whole milliseconds.
    fn come_due(&self, rate: f64) {
        let mut before = 0;
        loop {
            let elapsed = self.began.elapsed();
            let due = (elapsed.min(self.duration).as_secs_f64() * rate) as usize + 1;
            self.due.add_permits(due - before);
            before = due;
            if elapsed >= self.duration {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Load {
    /// Opens the connections. This is not part of the measurement.
    pub(crate) fn connect(&self, target: SocketAddr) -> Connected {
        // One thread, so that the generator leaves the other cores to the service.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let streams = (0..self.connections).map(|_| runtime.block_on(open(target)));
        Connected {
            free: streams.map(Free::new).collect(),
            target,
            load: *self,
            runtime,
        }
    }

    async fn work(&self, stream: &mut TcpStream, run: &Run) {
        let (mut request, mut answer) = (Vec::new(), Vec::new());
        while let Some((number, due)) = run.next() {
            if matches!(run.pace, Pace::Rate(_)) {
                // The semaphore is fair, so each worker gets the turn of its own number.
                let turn = run.due.acquire().await;
                turn.expect("it is never closed").forget();
            }
            self.write(&mut request, run.nonce, number);
            stream.write_all(&request).await.expect("it reads");
            read(stream, &mut answer).await;
            run.record(due, &answer);
        }
    }

    /// Sends each callback when it is due, on the connection that was used last of those that are
    /// free. If none is free, another one is opened.
    async fn dispatch(self, target: SocketAddr, free: Arc<Mutex<Vec<Free>>>, run: Arc<Run>) {
        let mut sent = JoinSet::new();
        while let Some((number, due)) = run.next() {
            let turn = run.due.acquire().await;
            turn.expect("it is never closed").forget();
            let (free, run) = (Arc::clone(&free), Arc::clone(&run));
            sent.spawn(async move {
                let last = free.lock().expect("no panic").pop();
                let mut stream = match last {
                    Some(last) if last.since.elapsed() < MAX_IDLE => last.stream,
                    _ => open(target).await,
                };
                let (mut request, mut answer) = (Vec::new(), Vec::new());
                self.write(&mut request, run.nonce, number);
                stream.write_all(&request).await.expect("it reads");
                read(&mut stream, &mut answer).await;
                run.record(due, &answer);
                free.lock().expect("no panic").push(Free::new(stream));
            });
            // Frees the memory of those that are done.
            while let Some(done) = sent.try_join_next() {
                done.expect("no panic");
            }
        }
        while let Some(done) = sent.join_next().await {
            done.expect("no panic");
        }
    }

    /// Writes one request.
    fn write(&self, request: &mut Vec<u8>, nonce: u32, number: u64) {
        use std::io::Write;
        let body = self.body(nonce, number);
        request.clear();
        write!(
            request,
            "POST {} HTTP/1.1\r\nhost: zim2kafka\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.path,
            body.len()
        )
        .expect("memory takes it");
    }

    /// A body that was not sent before.
    pub(crate) fn body(&self, nonce: u32, number: u64) -> String {
        let is_aged = self.aged_each > 0 && number.is_multiple_of(self.aged_each);
        let age = if is_aged { self.age } else { Duration::ZERO };
        let now = (SystemTime::now() - age).duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis().to_string();
        let group = number % self.groups;
        if self.content == Content::Message {
            return self.message(&now, number, group);
        }
        let nonce = format!("{nonce}{number:09}");
        let signature = sign(SECRET, &now, &nonce).to_hex();
        let mut body = format!(
            r#"{{"appid":"{APPID}","event":"{}","group_id":"{}-{group}","join_type":"Apply","new_user_ids":["user-{number}"],"nonce":"{nonce}","signature":"{signature}","timestamp":"{now}""#,
            self.event, self.prefix
        );
        let missing = self
            .bytes
            .saturating_sub(body.len() + r#","note":""}"#.len());
        if missing > 0 {
            body.push_str(r#","note":""#);
            let begin = number as usize % (NOTE_BYTES - missing);
            body.push_str(&NOTE[begin..begin + missing]);
            body.push('"');
        }
        body.push('}');
        body
    }
}

impl Load {
    /// A message of a user to a group, received at this time in ms.
    fn message(&self, now: &str, number: u64, group: u64) -> String {
        let seconds = &now[..now.len() - 3];
        let nonce = rand::random_range(100_000..1_000_000).to_string();
        let signature = sign(SECRET, seconds, &nonce).to_hex();
        let msg_id = rand::random_range(10_u64.pow(17)..10_u64.pow(18));
        let text = &NOTE[number as usize % (NOTE_BYTES / 2)..][..40];
        format!(
            r#"{{"appid":"{APPID}","event":"send_msg","nonce":"{nonce}","signature":"{signature}","timestamp":{seconds},"from_user_id":"user-{number}","conv_type":2,"conv_id":"{}-{group}","msg_type":1,"sub_msg_type":0,"msg_body":"{text}","msg_id":"{msg_id}","msg_seq":{number},"payload":"","msg_time":{now},"send_result":0}}"#,
            self.prefix
        )
    }
}

async fn open(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Reads one answer to its end.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    loop {
        let read = stream.read_buf(answer).await.expect("it answers");
        assert!(read > 0, "the service has closed a connection");
        let Some(head) = find(answer, b"\r\n\r\n") else {
            continue;
        };
        let length = find(answer, b"content-length: ").map_or(0, |at| {
            let digits = answer[at + 16..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
        });
        if answer.len() >= head + 4 + length {
            return;
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// A load with its open connections, for several runs.
pub(crate) struct Connected {
    free: Vec<Free>,
    target: SocketAddr,
    load: Load,
    runtime: Runtime,
}

/// A connection without a request.
struct Free {
    stream: TcpStream,
    since: Instant,
}

impl Free {
    fn new(stream: TcpStream) -> Self {
        let since = Instant::now();
        Self { stream, since }
    }
}

impl Connected {
    pub(crate) fn run(&mut self, pace: Pace, duration: Duration) -> Outcome {
        let run = Arc::new(Run::new(pace, duration));
        if let Pace::Rate(rate) = pace {
            let run = Arc::clone(&run);
            std::thread::spawn(move || run.come_due(rate));
        }
        let workers: Vec<_> = (self.free.drain(..))
            .map(|Free { mut stream, .. }| {
                let (load, run) = (self.load, Arc::clone(&run));
                self.runtime.spawn(async move {
                    load.work(&mut stream, &run).await;
                    stream
                })
            })
            .collect();
        for worker in workers {
            let stream = self.runtime.block_on(worker);
            self.free.push(Free::new(stream.expect("no panic")));
        }
        run.outcome()
    }

    /// Like [`Connected::run`] at a rate, but never waits for a free connection. With a fixed
    /// number of connections, a service whose answers are late would get fewer callbacks.
    pub(crate) fn run_open(&mut self, rate: f64, duration: Duration) -> Outcome {
        let run = Arc::new(Run::new(Pace::Rate(rate), duration));
        let come_due = Arc::clone(&run);
        std::thread::spawn(move || come_due.come_due(rate));
        let free = Arc::new(Mutex::new(std::mem::take(&mut self.free)));
        let sent = (self.load).dispatch(self.target, Arc::clone(&free), Arc::clone(&run));
        self.runtime.block_on(sent);
        self.free = std::mem::take(&mut free.lock().expect("no panic"));
        run.outcome()
    }
}

impl Outcome {
    pub(crate) fn answered(&self) -> u64 {
        self.latency.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64()
    }

    /// p50, p99 and p99.9, in ms.
    pub(crate) fn percentiles(&self) -> [f64; 3] {
        [0.5, 0.99, 0.999].map(|share| self.latency.value_at_quantile(share) as f64 / 1000.0)
    }
}

/// The results of one measurement. Latencies in ms: p50, p99, p99.9.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    /// CPU time of the process per callback, user and system, in µs.
    pub(crate) cpu_us: f64,
    pub(crate) saturation: [f64; 3],
    pub(crate) half_load: [f64; 3],
    pub(crate) rss_mb: f64,
    pub(crate) not_2xx: u64,
}
