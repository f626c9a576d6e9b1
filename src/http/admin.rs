//! The admin port: metrics, health and a status page. Nothing of it is on the callback port.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::problem::Problem;
use crate::health::Health;
use crate::metrics::Metrics;

/// The admin port's routes.
pub fn admin(metrics: Arc<Metrics>, health: Arc<Health>) -> Router {
    let allowed = || async { Problem::MethodNotAllowed("GET, HEAD") };
    Router::new()
        .route("/", get(status).fallback(allowed))
        .route("/livez", get(livez).fallback(allowed))
        .route("/readyz", get(readyz).fallback(allowed))
        .route("/metrics", get(scrape).fallback(allowed))
        .fallback(|| async { Problem::NotFound })
        .with_state(Admin { metrics, health })
}

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// A page that reads `/metrics` once a second. It needs nothing from elsewhere.
async fn status() -> Html<&'static str> {
    Html(include_str!("status.html"))
}

/// The process turns, and that is all it says.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.health.is_ready() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn scrape(State(admin): State<Admin>) -> Response {
    // Brings the gauge up to date, which otherwise only a probe would.
    admin.health.is_ready();
    let format = (header::CONTENT_TYPE, prometheus::TEXT_FORMAT);
    ([format], admin.metrics.text()).into_response()
}
