//! The headers that protect a browser which shows an answer.

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// The policy of answers that are not a page.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// No cache keeps the answer, and no browser takes it for something else.
pub(super) fn protect(answer: &mut Response) {
    let headers = answer.headers_mut();
    let no_sniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, no_sniff);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(NOTHING);
}
