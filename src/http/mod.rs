//! The two ports: callbacks for the sender, and everything else for operators.
//!
//! The only room that knows status codes, and with `server.rs` the only one that knows axum.

mod admin;
mod body;
mod callbacks;
mod connections;
mod listener;
mod networks;
mod problem;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Request;
use axum::response::Response;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{Handle, Server};
use hyper::body::Incoming;
use tower::make::Shared;

use crate::metrics::ConnectionMetrics;
use connections::{Connections, HEAD_DEADLINE};
use listener::{Listener, Peer, Watching};

pub use admin::admin;
pub use body::{BYTES_OF_EACH, MAX_BYTES_IN_FLIGHT};
pub use callbacks::{CallbackSettings, Edge, callbacks};
pub use connections::ConnectionLimits;
pub use networks::{Networks, SenderSettings};
pub use tls::{Certificate, CertificateError, Tls};

/// hyper's own bound, above the one that the callback port answers with a proper problem. Its other bound,
/// on the fields of a head, is 100.
const MAX_HEAD_BYTES: usize = 24 * 1024;

/// The admin port is for a few scrapers, probes and people.
pub const MAX_ADMIN_CONNECTIONS: usize = 256;

/// What answers the requests of a port: a name for the bounds, which Rust wants stated twice for it.
pub trait Service:
    tower::Service<
        Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Service for S where
    S: tower::Service<
            Request<Incoming>,
            Response = Response,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// A port to serve, bound already.
pub struct Port {
    /// Where it listens.
    pub listener: TcpListener,
    /// Who may hold a connection.
    pub limits: ConnectionLimits,
    /// Whose addresses stand for many senders, so that no limit for an address counts for them.
    pub trusted_proxies: Networks,
    /// With it, HTTPS and nothing else.
    pub tls: Option<Tls>,
}

/// Stops a port: its connections, too.
#[derive(Clone)]
pub struct PortHandle(Handle<Peer>);

impl PortHandle {
    /// Of a port that is not served yet.
    #[expect(
        clippy::new_without_default,
        reason = "a default handle would be of no port"
    )]
    pub fn new() -> Self {
        Self(Handle::new())
    }

    /// No new connections; those that there are end after the request that is under way, and within
    /// this time.
    pub fn finish(&self, within: Duration) {
        self.0.graceful_shutdown(Some(within));
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.0.shutdown();
    }
}

/// Serves one port until its handle says stop. HTTP/1.1 only: a sender of single requests gains
/// nothing from HTTP/2, and its attacks stay out.
///
/// # Errors
///
/// Where the listener fails for good.
pub async fn serve(
    port: Port,
    service: impl Service,
    handle: PortHandle,
    metrics: ConnectionMetrics,
) -> io::Result<()> {
    let connections = Connections::new(port.limits, port.trusted_proxies, metrics.clone());
    let failed = Seldom::default();
    let mut server = Server::<Peer>::from_listener(Listener::new(port.listener, connections)?)
        .handle(handle.0)
        .accept_error_handler(move |peer, error| match peer {
            // Whoever scans the net for ports makes handshakes fail.
            Some(peer) => {
                metrics.handshake_failed();
                tracing::debug!(%peer, %error, "a TLS handshake has failed");
            }
            None if failed.is_due() => {
                tracing::warn!(%error, "connections cannot be accepted; the limit of open files may be too low");
            }
            None => {}
        })
        .http1_only();
    // Heads have their deadline in our own streams, which can tell a slow one from an idle connection.
    server
        .http_builder()
        .http1()
        .header_read_timeout(None)
        // Who says that nothing more comes still wants the answer.
        .half_close(true)
        .max_buf_size(MAX_HEAD_BYTES);
    let service = Shared::new(service);
    match port.tls {
        None => server.map(Watching).serve(service).await,
        Some(tls) => {
            let tls = RustlsAcceptor::new(tls.config()).handshake_timeout(HEAD_DEADLINE);
            server.acceptor(Watching(tls)).serve(service).await
        }
    }
}

/// What would be said with every request is said once a minute.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_due(&self) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|said| said.elapsed() > Duration::from_secs(60));
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}
