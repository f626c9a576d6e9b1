//! The admin port: metrics, health and a status page. None of it is on the callback port.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::Handler;
use super::connections::Connection;
use super::problem::Problem;
use crate::event::Label;
use crate::health::Health;
use crate::metrics::Metrics;

/// The handler of the admin port.
pub(crate) fn admin(metrics: Arc<Metrics>, health: Arc<Health>) -> impl Handler {
    let not_allowed = || async { Problem::MethodNotAllowed("GET, HEAD") };
    let router = Router::new()
        .route("/", get(status_page).fallback(not_allowed))
        .route("/livez", get(livez).fallback(not_allowed))
        .route("/readyz", get(readyz).fallback(not_allowed))
        .route("/metrics", get(scrape).fallback(not_allowed))
        .fallback(|| async { Problem::NotFound })
        .with_state(Admin { metrics, health });
    move |_: Arc<Connection>, request: Request<Incoming>| {
        let answer = router.clone().oneshot(request);
        async {
            answer
                .await
                .unwrap_or_else(|error: Infallible| match error {})
        }
    }
}

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// A self-contained page that reads `/metrics` once a second.
async fn status_page() -> Html<&'static str> {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let mut events: Vec<_> = Label::all().collect();
        // The events that are not known come last.
        events.sort_by_key(|event| event.family().map_or(usize::MAX, |family| family as usize));
        let families: Vec<_> = events.into_iter().map(name_and_family).collect();
        let families = serde_json::to_string(&families).expect("names are JSON");
        include_str!("status_page.html").replace("new Map([]);", &format!("new Map({families});"))
    });
    Html(&PAGE)
}

fn name_and_family(event: Label) -> (&'static str, &'static str) {
    let family = event.family().map(<&str>::from);
    (event.name(), family.unwrap_or("not known"))
}

/// The process is running.
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether events become durable, and why or why not.
async fn readyz(State(admin): State<Admin>) -> Response {
    let readiness = admin.health.readiness();
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{readiness}\n")).into_response()
}

async fn scrape(State(admin): State<Admin>) -> Response {
    // Updates the gauge, which otherwise only a probe would do.
    admin.health.readiness();
    let format = (header::CONTENT_TYPE, prometheus::TEXT_FORMAT);
    ([format], admin.metrics.text()).into_response()
}
