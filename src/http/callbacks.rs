//! The callback port: one path, one method, and an answer within the deadline.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tower::service_fn;
use uuid::Uuid;

use super::body::Bodies;
use super::connections::Connection;
use super::networks::SenderSettings;
use super::problem::Problem;
use super::{Seldom, Service};
use crate::callback::RawCallback;
use crate::config::panic_if_asked;
use crate::delivery::{Safe, Settled};
use crate::intake::{Accepted, Intake};
use crate::metrics::{Metrics, Outcome};

/// A sender's header is small; more than this is somebody else's.
const MAX_FIELDS: usize = 64;
const MAX_FIELD_BYTES: usize = 16 * 1024;

/// What the callback port answers to.
#[derive(Clone)]
pub struct CallbackSettings {
    /// The one path. It may hold a segment that nobody is to guess.
    pub path: String,
    /// The largest body, in bytes.
    pub body_limit: usize,
    /// Every callback is answered within it, counted from the last byte of its body.
    pub answer_deadline: Duration,
    /// Who may send.
    pub senders: SenderSettings,
}

/// The edge of the service: what a request meets first.
pub struct Edge {
    settings: CallbackSettings,
    bodies: Bodies,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    unavailable: Seldom,
}

impl Edge {
    /// An edge in front of an intake.
    pub fn new(settings: CallbackSettings, intake: Arc<Intake>, metrics: Arc<Metrics>) -> Self {
        Self {
            bodies: Bodies::new(settings.body_limit),
            settings,
            intake,
            metrics,
            unavailable: Seldom::default(),
        }
    }
}

/// The callback port. It has no router, since there is one path, which is no pattern: it is a secret and
/// may hold what a pattern would take for its own.
pub fn callbacks(edge: Arc<Edge>) -> impl Service {
    service_fn(move |request: Request<Incoming>| {
        let edge = Arc::clone(&edge);
        async move { Ok(edge.route(request).await) }
    })
}

impl Edge {
    async fn route(&self, mut request: Request<Incoming>) -> Response {
        let connection: Arc<Connection> =
            (request.extensions_mut().remove()).expect("a request carries its connection");
        let senders = &self.settings.senders;
        if !senders.allow(connection.address, request.headers()) {
            // Before anything else is looked at: who is refused learns nothing of the path either.
            self.metrics.callback_arrived().finished(Outcome::Forbidden);
            // Nor is a connection kept for them.
            let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
            return (close, Problem::Forbidden).into_response();
        }
        let path = request.uri().path().as_bytes();
        if !bool::from(path.ct_eq(self.settings.path.as_bytes())) {
            return Problem::NotFound.into_response();
        }
        if request.method() != Method::POST {
            return Problem::MethodNotAllowed("POST").into_response();
        }
        let arrival = self.metrics.callback_arrived();
        panic_if_asked("handler");
        match self.answer(&connection, request).await {
            Ok(answer) => {
                arrival.finished(answer.outcome());
                answer.into_response()
            }
            Err(problem) => {
                let outcome = problem.outcome();
                arrival.finished(outcome);
                if matches!(outcome, Outcome::Unavailable) {
                    self.say_unavailable(&problem);
                }
                problem.into_response()
            }
        }
    }

    async fn answer(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        check(&head.headers)?;
        let body = self.bodies.read(&head.headers, body).await?;
        connection.request_is_whole();
        let deadline = Instant::now() + self.settings.answer_deadline;
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let raw = RawCallback {
            body: body.bytes.clone(),
            content_type: content_type.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            received_at: now(),
        };
        let (ticket, duplicate) = match self.intake.accept(&raw).map_err(Problem::Refused)? {
            Accepted::Passed => return Ok(Answer::Passed),
            Accepted::OnItsWay(ticket) => (ticket, false),
            Accepted::Duplicate(ticket) => (ticket, true),
        };
        match tokio::time::timeout_at(deadline, ticket.wait()).await {
            Ok(Settled::Safe(_, id)) if duplicate => Ok(Answer::Safe(Outcome::Duplicate, *id)),
            Ok(Settled::Safe(Safe::Published, id)) => Ok(Answer::Safe(Outcome::Published, *id)),
            Ok(Settled::Safe(Safe::Spooled, id)) => Ok(Answer::Safe(Outcome::Spooled, *id)),
            Ok(Settled::Safe(Safe::DeadLettered, id)) => {
                Ok(Answer::Safe(Outcome::DeadLettered, *id))
            }
            Ok(Settled::Refused) | Err(_) => Err(Problem::NotSafeInTime),
        }
    }

    /// A disk that hangs says nothing, and neither does a slow Kafka: only the answers show it.
    fn say_unavailable(&self, problem: &Problem) {
        if self.unavailable.is_due() {
            tracing::warn!(
                "a callback was answered 503: {problem}. The sender gives an event up after 62 s of this; look at Kafka, and at the disk of ZIM2KAFKA_SPOOL_DIR"
            );
        }
    }
}

/// What is said before the body is read.
fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > MAX_FIELDS || bytes > MAX_FIELD_BYTES {
        return Err(Problem::HeadTooLarge);
    }
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    if encodings
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::ContentEncoding);
    }
    Ok(())
}

/// What is answered with 200.
enum Answer {
    /// To `before_send_msg`: no opinion, by ZEGOCLOUD's page "Message not sent yet".
    Passed,
    /// The event is safe.
    Safe(Outcome, Uuid),
}

impl Answer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Passed => Outcome::Passed,
            Self::Safe(outcome, _) => *outcome,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = match self {
            Self::Passed => r#"{"result":0}"#.to_owned(),
            Self::Safe(outcome, id) => {
                format!(r#"{{"status":"{}","event_id":"{id}"}}"#, outcome.as_str())
            }
        };
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// Milliseconds since 1970-01-01 UTC. A clock before that is a clock that was never set.
fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
