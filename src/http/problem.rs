//! Answers that are no 2xx: `application/problem+json` by RFC 9457.

use std::fmt;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::intake::Refusal;
use crate::metrics::Outcome;

/// Why a request was not answered with 2xx. One exhaustive match each to the status, the sentence
/// and the outcome that is counted.
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
    HeadTooLarge,
    NotSafeInTime,
    Panicked,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(Refusal::Malformed(_)) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::Unauthorized(_)) => StatusCode::UNAUTHORIZED,
            Self::Refused(Refusal::Full(_)) | Self::NotSafeInTime => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The outcome that a callback ended with. A request to another path or with another method never
    /// became a callback, and nobody asks for its outcome.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(Refusal::Malformed(_)) | Self::BodyBroken => Outcome::Malformed,
            Self::Refused(Refusal::Unauthorized(_)) => Outcome::Unauthorized,
            Self::Refused(Refusal::Full(_)) | Self::NotSafeInTime => Outcome::Unavailable,
            Self::BodyTooSlow => Outcome::TimedOut,
            Self::BodyTooLarge { .. } | Self::ContentEncoding | Self::HeadTooLarge => {
                Outcome::TooLarge
            }
            Self::Forbidden => Outcome::Forbidden,
            Self::NotFound | Self::MethodNotAllowed(_) | Self::Panicked => Outcome::Failed,
        }
    }

    /// What a header of the answer says besides.
    fn header(&self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::Refused(Refusal::Unauthorized(_)) => {
                Some((header::WWW_AUTHENTICATE, "ZEGO-Signature"))
            }
            Self::Refused(Refusal::Full(_)) | Self::NotSafeInTime => {
                Some((header::RETRY_AFTER, "2"))
            }
            Self::MethodNotAllowed(allowed) => Some((header::ALLOW, allowed)),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Forbidden => f.write_str("this network may not send here"),
            Self::NotFound => f.write_str("there is nothing here"),
            Self::MethodNotAllowed(allowed) => write!(f, "use {allowed}"),
            Self::BodyTooSlow => f.write_str("the body did not arrive in time"),
            Self::BodyTooLarge { limit } => write!(f, "the body has more than {limit} bytes"),
            Self::BodyBroken => f.write_str("the body could not be read to its end"),
            Self::ContentEncoding => f.write_str("send the body without a Content-Encoding"),
            Self::HeadTooLarge => f.write_str("the header has too many fields or bytes"),
            Self::NotSafeInTime => {
                f.write_str("the event could not be made safe in time; send it again")
            }
            Self::Panicked => f.write_str("the service failed on this request"),
        }
    }
}

/// The members of RFC 9457 that say something here.
#[derive(Serialize)]
struct Body {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = Body {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
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
