//! What becomes of single produce requests, and the proof that it did.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::types::RDKafkaRespErr;
use tokio::time::Instant;

use super::Broken;
use super::produce::{self, Correlation, Message, Request};

/// What becomes of a produce request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The broker never sees it, and its client gets this error.
    Refuse(RDKafkaRespErr),
    /// The broker takes it, and its client gets this error.
    RefuseAfterAppend(RDKafkaRespErr),
    /// The broker answers it, and its client sees the connection reset.
    LoseResponse,
    /// It only takes longer; see [`Faults::after`].
    Delay,
}

/// Faults to be injected.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    fault: Fault,
    times: usize,
    delay: Duration,
    only_first: bool,
    of: Option<(String, Option<i32>)>,
}

impl Fault {
    /// For the next requests.
    pub(crate) fn next(self, times: usize) -> Faults {
        Faults {
            fault: self,
            times,
            delay: Duration::ZERO,
            only_first: false,
            of: None,
        }
    }

    /// For every request from now on.
    pub(crate) fn every(self) -> Faults {
        self.next(usize::MAX / 2)
    }

    /// For the first request from now on of each producer to each partition.
    pub(crate) fn first_of_each_producer(self) -> Faults {
        Faults {
            only_first: true,
            ..self.every()
        }
    }
}

impl Faults {
    /// Each response arrives this much later. As all of a connection do, later ones wait behind it;
    /// the requests do not.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Only for this topic, and this partition of it if it is given.
    pub(crate) fn of(mut self, topic: &str, partition: Option<i32>) -> Self {
        self.of = Some((topic.to_owned(), partition));
        self
    }
}

/// Faults that are being injected, until there were enough or all are ended.
pub(crate) struct Injection {
    faults: Faults,
    left: AtomicUsize,
    has_ended: AtomicBool,
    injected: AtomicUsize,
    overtaken: AtomicUsize,
    /// The producers that have begun with a partition.
    seen: Mutex<HashSet<(i64, String, i32)>>,
}

impl Injection {
    /// How many are still to come.
    pub(crate) fn left(&self) -> usize {
        match self.has_ended.load(Ordering::SeqCst) {
            true => 0,
            false => self.left.load(Ordering::SeqCst),
        }
    }

    /// How many requests have met the fault. Another one is to meet it instead of one that was to
    /// be refused after the append and that the broker itself refused, or whose connection ended
    /// before.
    pub(crate) fn injected(&self) -> usize {
        self.injected.load(Ordering::SeqCst)
    }

    /// How many requests the broker took that followed a refused one of the same producer and
    /// partition, and were under way before its client knew of the refusal. A broker that remembers
    /// the producer takes none.
    pub(crate) fn overtaken(&self) -> usize {
        self.overtaken.load(Ordering::SeqCst)
    }

    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    fn count(&self) {
        self.injected.fetch_add(1, Ordering::SeqCst);
    }

    fn not_met(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether this request is to meet the fault. It then counts as one of those to come.
    fn concerns(&self, request: &Request) -> bool {
        let Faults { only_first, of, .. } = &self.faults;
        let is_of_it = of.as_ref().is_none_or(|(topic, partition)| {
            *topic == request.topic && partition.is_none_or(|at| at == request.partition)
        });
        if !is_of_it || self.left() == 0 {
            return false;
        }
        let producer = (request.producer, request.topic.clone(), request.partition);
        if *only_first && !lock(&self.seen).insert(producer) {
            return false;
        }
        let fewer = |left: usize| left.checked_sub(1);
        let order = Ordering::SeqCst;
        self.left.fetch_update(order, order, fewer).is_ok()
    }
}

/// The injections of a proxy.
#[derive(Default)]
pub(super) struct Injections(Mutex<Vec<Arc<Injection>>>);

impl Injections {
    pub(super) fn add(&self, faults: Faults) -> Arc<Injection> {
        let injection = Arc::new(Injection {
            left: faults.times.into(),
            faults,
            has_ended: false.into(),
            injected: 0.into(),
            overtaken: 0.into(),
            seen: Mutex::default(),
        });
        lock(&self.0).push(Arc::clone(&injection));
        injection
    }

    pub(super) fn end(&self) {
        lock(&self.0)
            .drain(..)
            .for_each(|injection| injection.end());
    }

    fn of(&self, request: &Request) -> Option<Arc<Injection>> {
        let mut all = lock(&self.0);
        all.retain(|injection| !injection.has_ended.load(Ordering::SeqCst));
        all.iter().find(|one| one.concerns(request)).cloned()
    }
}

/// The requests of one connection that are not answered yet.
#[derive(Default)]
pub(super) struct Exchange {
    /// In their order, which is also that of the responses.
    waiting: VecDeque<Waiting>,
    refused: HashMap<(i64, String, i32), Refused>,
}

struct Waiting {
    correlation: Correlation,
    request: Option<Request>,
    injection: Option<Arc<Injection>>,
    /// The refused request that this one follows.
    overtakes: Option<Arc<Injection>>,
}

struct Refused {
    epoch: i16,
    sequence: i32,
    /// When its client knows; none before it is its turn.
    known: Option<Instant>,
    injection: Arc<Injection>,
}

/// A response, and how much later than others it is to arrive.
pub(super) type Late = (Duration, Bytes);

impl Exchange {
    /// A request. Returns whether the broker is to see it.
    pub(super) fn request(&mut self, injections: &Injections, message: &[u8]) -> bool {
        let (correlation, request) = match produce::request(message) {
            Message::Unanswered => return true,
            Message::Other(correlation) => (correlation, None),
            Message::Produce(request) => (request.correlation, Some(request)),
        };
        let injection = request.as_ref().and_then(|request| injections.of(request));
        let overtakes = request
            .as_ref()
            .and_then(|request| self.overtaken_by(request));
        let waiting = Waiting {
            correlation,
            request,
            injection,
            overtakes,
        };
        let is_refused = waiting.refused_with().is_some();
        if let (true, Some(request), Some(injection)) =
            (is_refused, &waiting.request, &waiting.injection)
        {
            let refused = Refused {
                epoch: request.epoch,
                sequence: request.sequence,
                known: None,
                injection: Arc::clone(injection),
            };
            self.refused.insert(partition_of(request), refused);
        }
        self.waiting.push_back(waiting);
        !is_refused
    }

    /// The broker's response. Returns what the client gets of it.
    pub(super) fn response(&mut self, message: Bytes) -> Result<Late, Broken> {
        let correlation = message[4..8].to_owned();
        let of = |waiting: &Waiting| waiting.correlation[..] == correlation;
        let at = self.waiting.iter().position(of);
        let waiting = at.and_then(|at| self.waiting.remove(at));
        let waiting = waiting.expect("a broker answers requests, and each once");
        let Some(request) = &waiting.request else {
            return Ok((Duration::ZERO, message));
        };
        let is_taken = produce::error_of(&message, request) == 0;
        if let (true, Some(refused)) = (is_taken, &waiting.overtakes) {
            refused.overtaken.fetch_add(1, Ordering::SeqCst);
        }
        let Some(injection) = &waiting.injection else {
            return Ok((Duration::ZERO, message));
        };
        let delay = injection.faults.delay;
        match injection.faults.fault {
            Fault::RefuseAfterAppend(error) if is_taken => {
                injection.count();
                Ok((delay, produce::refusal(request, error).into()))
            }
            Fault::LoseResponse => {
                injection.count();
                Err(Broken)
            }
            Fault::Delay => {
                injection.count();
                Ok((delay, message))
            }
            Fault::RefuseAfterAppend(_) | Fault::Refuse(_) => {
                injection.not_met();
                Ok((Duration::ZERO, message))
            }
        }
    }

    /// The next refusal whose turn it is. `now` is when it would arrive without a delay.
    pub(super) fn next_refusal(&mut self, now: Instant) -> Option<Late> {
        let error = self.waiting.front()?.refused_with()?;
        let waiting = self.waiting.pop_front()?;
        let (request, injection) = (waiting.request?, waiting.injection?);
        let delay = injection.faults.delay;
        if let Some(refused) = self.refused.get_mut(&partition_of(&request))
            && refused.sequence == request.sequence
        {
            refused.known = Some(now + delay);
        }
        injection.count();
        Some((delay, produce::refusal(&request, error).into()))
    }

    fn overtaken_by(&self, request: &Request) -> Option<Arc<Injection>> {
        let refused = self.refused.get(&partition_of(request))?;
        let is_unknown = refused.known.is_none_or(|known| Instant::now() < known);
        let follows = refused.epoch == request.epoch && refused.sequence < request.sequence;
        (is_unknown && follows).then(|| Arc::clone(&refused.injection))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let injections = self.waiting.iter().filter_map(|one| one.injection.as_ref());
        injections.for_each(|injection| injection.not_met());
    }
}

impl Waiting {
    /// The error, if the broker does not see the request.
    fn refused_with(&self) -> Option<RDKafkaRespErr> {
        match self.injection.as_ref()?.faults.fault {
            Fault::Refuse(error) => Some(error),
            _ => None,
        }
    }
}

fn partition_of(request: &Request) -> (i64, String, i32) {
    (request.producer, request.topic.clone(), request.partition)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
