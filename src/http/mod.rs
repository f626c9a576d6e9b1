//! The two ports: callbacks for the sender, and the admin port for operators.
//!
//! The only module that imports axum and that answers with HTTP status codes.

mod access;
mod admin;
mod before_send;
mod body;
mod callbacks;
mod connections;
mod problem;
mod protection;
mod refusals;
mod senders;
mod status;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{Handle, Server};
use hyper::body::Incoming;
use tower::service_fn;

use crate::log::LogThrottle;
use crate::metrics::ConnectionMetrics;
use connections::{
    Connection, Connections, HEAD_DEADLINE, Listener, Peer, Protocol, TrackedAcceptor,
    TrackedService,
};

pub(crate) use admin::admin;
pub use before_send::BeforeSend;
pub use body::{MAX_BYTES_IN_FLIGHT, RESERVED_BODY_BYTES, UNSHARED_BODY_BYTES};
pub use callbacks::CallbackSettings;
pub(crate) use callbacks::{CallbackService, callbacks};
pub(crate) use connections::listen;
pub use connections::{ConnectionLimits, MAX_RESERVED_CONNECTIONS};
pub(crate) use refusals::Refusals;
use refusals::Refused;
pub use senders::{Networks, SenderSettings};
pub(crate) use status::Status;
pub use status::{MAX_HISTORY_SECONDS, ShownSetting};
pub use tls::{Certificate, CertificateError, Tls};

/// hyper's own limit of a head, above the one that the callback port answers with a problem. hyper
/// also limits the fields of a head to 100.
const MAX_HEAD_BYTES: usize = 24 * 1024;

/// The most connections on the admin port, which serves a few scrapers, probes and people.
pub const MAX_ADMIN_CONNECTIONS: usize = 32;

/// Answers the requests of a port.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    /// The answer on its way.
    type Future: Future<Output = Response> + Send + 'static;

    /// Answers one request on this connection.
    fn handle(&self, connection: Arc<Connection>, request: Request<Incoming>) -> Self::Future;
}

impl<H, F> Handler for H
where
    H: Fn(Arc<Connection>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    type Future = F;

    fn handle(&self, connection: Arc<Connection>, request: Request<Incoming>) -> F {
        self(connection, request)
    }
}

/// A port to serve.
pub(crate) struct Port {
    /// The listening socket: see [`listen`].
    pub(crate) listener: TcpListener,
    /// The limits of its connections.
    pub(crate) limits: ConnectionLimits,
    /// Proxies, whose addresses stand for many senders and have no limit of their own.
    pub(crate) trusted_proxies: Networks,
    /// The certificate; with one, the port serves HTTPS only.
    pub(crate) tls: Option<Tls>,
    /// Counts and logs refused requests; `None` on the admin port.
    pub(crate) refusals: Option<Arc<Refusals>>,
}

/// Stops a port and its connections.
#[derive(Clone)]
pub(crate) struct PortHandle(Handle<Peer>);

impl PortHandle {
    /// For a port that is not served yet.
    pub(crate) fn new() -> Self {
        Self(Handle::new())
    }

    /// Accepts no new connections. Existing ones end after their current request, and within this
    /// time.
    pub(crate) fn finish(&self, within: Duration) {
        self.0.graceful_shutdown(Some(within));
    }

    /// Ends everything at once.
    pub(crate) fn stop(&self) {
        self.0.shutdown();
    }
}

/// Serves one port until its handle stops it. HTTP/1.1 only: a sender of single requests gains
/// nothing from HTTP/2, which brings attacks of its own.
///
/// # Errors
///
/// If the listener fails permanently.
pub(crate) async fn serve(
    port: Port,
    handler: impl Handler,
    handle: PortHandle,
    metrics: ConnectionMetrics,
) -> io::Result<()> {
    let connections = Connections::new(port.limits, port.trusted_proxies, metrics.clone());
    let accept_failures = LogThrottle::default();
    let refusals = port.refusals.clone();
    let port_number = port.listener.local_addr()?.port();
    let mut server = Server::<Peer>::from_listener(Listener::new(port.listener, connections)?)
        .handle(handle.0)
        .accept_error_handler(move |peer, error| match peer {
            // Port scanners make handshakes fail.
            Some(peer) => {
                metrics.handshake_failed();
                tracing::debug!("TLS handshake with {peer} failed: {error}");
                let refused = handshake_refusal(peer.connection.protocol(), error);
                if let (Some(refusals), Some(refused)) = (&refusals, refused) {
                    refusals.count(refused, None);
                }
            }
            None if accept_failures.is_due() => {
                tracing::warn!(
                    "cannot accept connections on port {port_number}: {error}; if the limit of open files is reached, raise it (ulimit -n)"
                );
            }
            None => {}
        })
        .http1_only();
    // The streams enforce the deadline of heads, because they can distinguish a slow head from an
    // idle connection.
    server
        .http_builder()
        .http1()
        .header_read_timeout(None)
        // A client that has closed its sending side still wants the answer.
        .half_close(true)
        .max_buf_size(MAX_HEAD_BYTES);
    let service = service_fn(move |peer: Peer| {
        let service = TrackedService {
            handler: handler.clone(),
            connection: peer.connection,
        };
        std::future::ready(Ok::<_, Infallible>(service))
    });
    let refusals = port.refusals;
    match port.tls {
        None => {
            let tracked = |acceptor| TrackedAcceptor { acceptor, refusals };
            server.map(tracked).serve(service).await
        }
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls.config()).handshake_timeout(HEAD_DEADLINE);
            let tracked = TrackedAcceptor { acceptor, refusals };
            server.acceptor(tracked).serve(service).await
        }
    }
}

/// What a failed handshake indicates. `None` for a connection that was only opened, as the checks
/// of load balancers are.
fn handshake_refusal(spoken: Protocol, error: &io::Error) -> Option<Refused> {
    let cause = (error.get_ref()).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    Some(match (spoken, cause) {
        (Protocol::Nothing, _) => return None,
        (Protocol::ProxyHeader, _) => Refused::ProxyHeaderBeforeTls,
        (Protocol::Text | Protocol::Http2, _) => Refused::PlainHttp,
        (_, Some(rustls::Error::AlertReceived(_))) => Refused::UntrustedCertificate,
        (Protocol::Tls | Protocol::Other, _) => Refused::Handshake,
    })
}
