//! The callback port: two paths, one method, and an answer within the deadline.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use subtle::{Choice, ConstantTimeEq};
use tokio::time::Instant;
use uuid::Uuid;

use super::access::AccessLine;
use super::body::{BodyReader, check_encoding};
use super::connections::Connection;
use super::problem::Problem;
use super::refusals::{Refusals, Refused};
use super::senders::SenderSettings;
use super::{BeforeSend, Handler};
use crate::callback::{RawCallback, TraceContext};
use crate::delivery::{Durability, Settled};
use crate::failpoint;
use crate::intake::{Accepted, Authentic, Intake, Refusal};
use crate::log::REPEAT_INTERVAL;
use crate::metrics::{Arrival, Metrics, Outcome};

/// The limits of a header. The sender's are far smaller.
const MAX_HEADER_FIELDS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The last segment of the second path. Bodies on that path have memory of their own, so that
/// `before_send_msg` is answered while other bodies fill the shared memory. The path accepts every
/// callback.
const BEFORE_SEND_SEGMENT: &str = "before-send";

/// The settings of the callback port.
#[derive(Clone)]
pub struct CallbackSettings {
    /// The first path. It may contain an unguessable segment. The second path is the first one with
    /// `/before-send` behind it.
    pub path: String,
    /// The largest body, in bytes.
    pub body_limit: usize,
    /// The time for an answer, from the last byte of the body.
    pub answer_deadline: Duration,
    /// Which addresses may send.
    pub senders: SenderSettings,
    /// The answer to `before_send_msg`.
    pub before_send: BeforeSend,
}

/// Answers callbacks.
pub(crate) struct CallbackService {
    settings: CallbackSettings,
    /// The body of the answer to `before_send_msg`.
    before_send: Bytes,
    before_send_path: String,
    bodies: BodyReader,
    before_send_bodies: BodyReader,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
}

/// The handler of the callback port. It has no router, because the path is a secret that may
/// contain what a router would take for a pattern.
pub(crate) fn callbacks(service: Arc<CallbackService>) -> impl Handler {
    move |connection: Arc<Connection>, request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { service.route(&connection, request).await }
    }
}

impl CallbackService {
    /// A service that passes callbacks to this intake.
    pub(crate) fn new(
        settings: CallbackSettings,
        intake: Arc<Intake>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            before_send: settings.before_send.body(),
            before_send_path: format!(
                "{}/{BEFORE_SEND_SEGMENT}",
                settings.path.trim_end_matches('/')
            ),
            bodies: BodyReader::new(settings.body_limit),
            before_send_bodies: BodyReader::reserve(settings.body_limit),
            settings,
            intake,
            refusals: Arc::new(Refusals::new(
                metrics.connections().clone(),
                Arc::clone(metrics.problems()),
            )),
            metrics,
        }
    }

    async fn route(&self, connection: &Arc<Connection>, request: Request<Incoming>) -> Response {
        let trace = request.extensions().get();
        let trace_id = trace.map(TraceContext::trace_id);
        let senders = &self.settings.senders;
        if !senders.allow(connection.address, request.headers()) {
            // Checked first, so that an address that is not allowed cannot probe for the path. The
            // connection is not kept either.
            let after = self.metrics.callback_arrived().finished(Outcome::Forbidden);
            AccessLine::new(trace_id).answered(Outcome::Forbidden, None, after);
            self.refusals.count(Refused::Forbidden, trace_id);
            let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
            return (close, Problem::Forbidden.answer(trace_id)).into_response();
        }
        let path = request.uri().path();
        let Some(bodies) = self.bodies_of(path) else {
            let refused = self.other_path(request.method(), path);
            self.refusals.count(refused, trace_id);
            return Problem::NotFound.answer(trace_id);
        };
        if request.method() != Method::POST {
            let refused = match *request.method() {
                Method::GET | Method::HEAD => Refused::Get,
                _ => Refused::OtherMethod,
            };
            self.refusals.count(refused, trace_id);
            return Problem::MethodNotAllowed("POST").answer(trace_id);
        }
        let mut arrival = self.metrics.callback_arrived();
        let mut line = AccessLine::new(trace_id);
        failpoint::hit("handler");
        match (self.answer(connection, bodies, request, &mut arrival, &mut line)).await {
            Ok(answer) => {
                let outcome = answer.outcome();
                line.answered(outcome, answer.event_id(), arrival.finished(outcome));
                answer.into_response()
            }
            Err(problem) => {
                let outcome = problem.outcome();
                if let Some(refused) = problem.refused() {
                    self.refusals.count(refused, trace_id);
                    if refused.is_authentic() {
                        self.refusals.list(refused, line.appid(), line.event());
                    }
                }
                line.answered(outcome, None, arrival.finished(outcome));
                problem.answer(trace_id)
            }
        }
    }

    async fn answer(
        &self,
        connection: &Arc<Connection>,
        bodies: &BodyReader,
        request: Request<Incoming>,
        arrival: &mut Arrival<'_>,
        line: &mut AccessLine,
    ) -> Result<Answer, Problem> {
        let (mut head, body) = request.into_parts();
        check_header(&head.headers)?;
        let body = bodies.read(&head.headers, body).await?;
        connection.request_received();
        let deadline = Instant::now() + self.settings.answer_deadline;
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let raw = RawCallback {
            body: body.bytes.clone(),
            content_type: content_type.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            trace: head.extensions.remove(),
            received_at: now(),
        };
        let accepted = self.intake.accept(&raw);
        // A body in the reserve is released before the wait for its record, so that such waits
        // cannot fill the reserve. The queue bounds the memory of records.
        let _body = (!bodies.is_reserve()).then_some((raw, body));
        let Authentic {
            event,
            appid,
            result,
        } = accepted.map_err(|refusal| {
            if let Refusal::Unauthorized { appid, .. } = &refusal {
                line.set_appid(appid.clone());
            }
            Problem::Refused(refusal)
        })?;
        arrival.set_event(event);
        line.set_event(event);
        line.set_appid(appid);
        let ticket = match result.map_err(Problem::QueueFull)? {
            Accepted::Passed => return Ok(Answer::Passed(self.before_send.clone())),
            Accepted::Discarded => return Ok(Answer::Discarded),
            Accepted::Pending(ticket) => ticket,
            Accepted::Duplicate(event_id) => {
                return Ok(Answer::Durable(Outcome::Duplicate, event_id));
            }
        };
        let settled = tokio::select! {
            biased;
            settled = tokio::time::timeout_at(deadline, ticket.wait()) => settled,
            () = connection.gives_way() => return Err(Problem::ConnectionsFull),
        };
        match settled {
            Ok(Settled::Durable(durability, event_id)) => {
                let outcome = match durability {
                    Durability::Published => Outcome::Published,
                    Durability::Spooled => Outcome::Spooled,
                    Durability::DeadLettered => Outcome::DeadLettered,
                };
                Ok(Answer::Durable(outcome, *event_id))
            }
            Ok(Settled::Refused) => Err(Problem::Rejected),
            // A disk that hangs reports nothing, and neither does a slow Kafka.
            Err(_) => Err(Problem::NotDurableInTime),
        }
    }

    /// The reader of bodies for a path, if it is one of the two. Compares with both in constant time,
    /// because they are secrets.
    fn bodies_of(&self, path: &str) -> Option<&BodyReader> {
        let is_main = is_equal(path, &self.settings.path);
        let is_before_send = is_equal(path, &self.before_send_path);
        match (bool::from(is_main), bool::from(is_before_send)) {
            (true, _) => Some(&self.bodies),
            (_, true) => Some(&self.before_send_bodies),
            _ => None,
        }
    }

    fn other_path(&self, method: &Method, path: &str) -> Refused {
        let [path, main] = [path, &self.settings.path].map(|path| path.trim_end_matches('/'));
        let is_ours = is_equal(path, main) | is_equal(path, &self.before_send_path);
        match *method {
            Method::POST if is_ours.into() => Refused::SlashAtTheEnd,
            Method::POST => Refused::OtherPath,
            _ => Refused::OtherPathNotPost,
        }
    }

    /// Counts and logs the refused requests of this port.
    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Logs refusals that wait for their line, each second for as long as it is polled.
    pub(crate) async fn log_refusals(&self) -> ! {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.log_due_refusals(std::time::Instant::now());
        }
    }

    /// Logs all refusals that wait for their line; to be called once the port has ended.
    pub(crate) fn log_last_refusals(&self) {
        // A minute from now, every line is due.
        self.log_due_refusals(std::time::Instant::now() + REPEAT_INTERVAL);
    }

    fn log_due_refusals(&self, now: std::time::Instant) {
        self.refusals.log_due(now);
        self.intake.log_refusals(now);
    }
}

fn is_equal(path: &str, ours: &str) -> Choice {
    path.as_bytes().ct_eq(ours.as_bytes())
}

/// Refuses a request by its header, before its body is read.
fn check_header(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > MAX_HEADER_FIELDS || bytes > MAX_HEADER_BYTES {
        return Err(Problem::HeaderTooLarge);
    }
    check_encoding(headers)
}

/// An answer with status 200.
enum Answer {
    /// To `before_send_msg`.
    Passed(Bytes),
    /// The operator discards the event.
    Discarded,
    /// The event is stored durably.
    Durable(Outcome, Uuid),
}

impl Answer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Passed(_) => Outcome::Passed,
            Self::Discarded => Outcome::Discarded,
            Self::Durable(outcome, _) => *outcome,
        }
    }

    /// The id of the event, if it is stored.
    fn event_id(&self) -> Option<Uuid> {
        match self {
            Self::Passed(_) | Self::Discarded => None,
            Self::Durable(_, event_id) => Some(*event_id),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = match self {
            Self::Passed(body) => body,
            Self::Discarded => Bytes::from_static(br#"{"status":"discarded"}"#),
            Self::Durable(outcome, event_id) => {
                let status: &str = outcome.into();
                format!(r#"{{"status":"{status}","event_id":"{event_id}"}}"#).into()
            }
        };
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// Milliseconds since 1970-01-01 UTC. A clock before that has never been set.
fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
