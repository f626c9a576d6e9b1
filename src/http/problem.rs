//! Answers other than 2xx: `application/problem+json` as in RFC 9457.

use std::fmt;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::refusals::Refused;
use crate::callback::TraceId;
use crate::delivery::Full;
use crate::intake::Refusal;
use crate::metrics::Outcome;

/// Why a request was not answered with 2xx. Exhaustive matches map it to the status, the text and
/// the outcome that is counted.
#[derive(Debug)]
pub(super) enum Problem {
    Refused(Refusal),
    Forbidden,
    NotFound,
    MethodNotAllowed(&'static str),
    BodyTooSlow,
    BodyTooLarge { limit: usize },
    BodyBroken,
    ContentEncoding,
    HeaderTooLarge,
    BodiesFull,
    QueueFull(Full),
    ConnectionsFull,
    NotDurableInTime,
    Rejected,
    Panicked,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(Refusal::Malformed(_)) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::Unauthorized { .. }) => StatusCode::UNAUTHORIZED,
            Self::QueueFull(_)
            | Self::BodiesFull
            | Self::ConnectionsFull
            | Self::NotDurableInTime
            | Self::Rejected => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The outcome of the callback. Requests to another path or with another method are not
    /// callbacks, and their outcome is not used.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(Refusal::Malformed(_)) | Self::BodyBroken | Self::ContentEncoding => {
                Outcome::Malformed
            }
            Self::Refused(Refusal::Unauthorized { .. }) => Outcome::Unauthorized,
            Self::QueueFull(_)
            | Self::BodiesFull
            | Self::ConnectionsFull
            | Self::NotDurableInTime
            | Self::Rejected => Outcome::Unavailable,
            Self::BodyTooSlow => Outcome::TimedOut,
            Self::BodyTooLarge { .. } | Self::HeaderTooLarge => Outcome::TooLarge,
            Self::Forbidden => Outcome::Forbidden,
            Self::NotFound | Self::MethodNotAllowed(_) | Self::Panicked => Outcome::Failed,
        }
    }

    /// The line that it leaves in the log. `None` for what is logged elsewhere: by `intake`, with
    /// the request's path and method, or as a panic.
    pub(super) fn refused(&self) -> Option<Refused> {
        match self {
            Self::Refused(Refusal::Malformed(_) | Refusal::Unauthorized { .. })
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::Panicked => None,
            Self::QueueFull(_) => Some(Refused::QueueFull),
            Self::Forbidden => Some(Refused::Forbidden),
            Self::BodyTooSlow => Some(Refused::BodyTooSlow),
            Self::BodyTooLarge { .. } => Some(Refused::BodyTooLarge),
            Self::BodyBroken => Some(Refused::BodyBroken),
            Self::ContentEncoding => Some(Refused::ContentEncoding),
            Self::HeaderTooLarge => Some(Refused::HeaderTooLarge),
            Self::BodiesFull => Some(Refused::BodiesFull),
            Self::ConnectionsFull => Some(Refused::ConnectionsFull),
            Self::NotDurableInTime => Some(Refused::NotDurableInTime),
            Self::Rejected => Some(Refused::Rejected),
        }
    }

    /// An additional header of the answer.
    fn header(&self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::Refused(Refusal::Unauthorized { .. }) => {
                Some((header::WWW_AUTHENTICATE, "ZEGO-Signature"))
            }
            Self::QueueFull(_)
            | Self::BodiesFull
            | Self::ConnectionsFull
            | Self::NotDurableInTime
            | Self::Rejected => Some((header::RETRY_AFTER, "2")),
            Self::MethodNotAllowed(allowed) => Some((header::ALLOW, allowed)),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::QueueFull(full) => full.fmt(f),
            Self::Forbidden => f.write_str("source address not allowed"),
            Self::NotFound => f.write_str("not found"),
            Self::MethodNotAllowed(allowed) => write!(f, "use {allowed}"),
            Self::BodyTooSlow => f.write_str("the body did not arrive in time"),
            Self::BodyTooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::BodyBroken => f.write_str("the body could not be read to its end"),
            Self::ContentEncoding => f.write_str(
                "send the body without a Content-Encoding; a charset such as UTF-8 belongs in Content-Type",
            ),
            Self::HeaderTooLarge => f.write_str("the header has too many fields or bytes"),
            Self::BodiesFull => f.write_str(
                "the bodies that are being received fill the memory for bodies; send it again",
            ),
            Self::ConnectionsFull => f.write_str(
                "the event is not durable yet, and a newer connection needs the slot of this one; send it again",
            ),
            Self::NotDurableInTime => {
                f.write_str("the event could not be stored durably in time; send it again")
            }
            Self::Rejected => {
                f.write_str("Kafka rejects it and no dead letter could be stored; send it again")
            }
            Self::Panicked => f.write_str("internal error"),
        }
    }
}

/// The members of RFC 9457 that are used here, and the id of the request's trace.
#[derive(Serialize)]
struct ProblemBody {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl Problem {
    /// The answer to a request that belongs to this trace, if it belongs to one.
    pub(super) fn answer(&self, trace_id: Option<TraceId>) -> Response {
        let status = self.status();
        let body = ProblemBody {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
            trace_id: trace_id.map(|id| id.to_string()),
        };
        let body = serde_json::to_string(&body).expect("text and a number always serialise");
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, json)], body).into_response();
        if let Some((name, value)) = self.header() {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.answer(None)
    }
}
