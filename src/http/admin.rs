//! The admin port: metrics, health and a status page. None of it is on the callback port.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::Handler;
use super::connections::Connection;
use super::problem::Problem;
use super::protection::protect;
use super::status::{Page, Status};
use crate::failpoint;

/// The handler of the admin port.
pub(crate) fn admin(status: Arc<Status>) -> impl Handler {
    let not_allowed = || async { Problem::MethodNotAllowed("GET, HEAD") };
    let router = Router::new()
        .route("/", get(status_page).fallback(not_allowed))
        .route("/status.json", get(status_json).fallback(not_allowed))
        .route("/livez", get(livez).fallback(not_allowed))
        .route("/readyz", get(readyz).fallback(not_allowed))
        .route("/metrics", get(scrape).fallback(not_allowed))
        .fallback(|| async { Problem::NotFound })
        .with_state(status);
    move |_: Arc<Connection>, request: Request<Incoming>| {
        let answer = router.clone().oneshot(request);
        async {
            failpoint::hit("admin");
            let mut answer = answer
                .await
                .unwrap_or_else(|error: Infallible| match error {});
            protect(&mut answer);
            answer
        }
    }
}

/// A self-contained page that reads `/status.json` once a second.
async fn status_page(State(status): State<Arc<Status>>) -> Response {
    let Page { html, policy } = status.page();
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// The data of the status page. `after` is the last second that the client knows.
async fn status_json(State(status): State<Arc<Status>>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let after = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "after");
    let after = after.and_then(|(_, number)| number.parse().ok());
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, status.json(after.unwrap_or(0)).to_string()).into_response()
}

/// The process is running.
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether events become durable, and why or why not.
async fn readyz(State(status): State<Arc<Status>>) -> Response {
    let readiness = status.health.readiness();
    let code = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{readiness}\n")).into_response()
}

async fn scrape(State(status): State<Arc<Status>>) -> Response {
    // Updates the gauge, which otherwise only a probe would do.
    status.health.readiness();
    let format = (header::CONTENT_TYPE, prometheus::TEXT_FORMAT);
    ([format], status.metrics.text()).into_response()
}
