//! The two ports: callbacks for the sender, and everything else for operators.
//!
//! The only room that knows status codes, and with `server.rs` the only one that knows axum.

mod admin;
mod body;
mod callbacks;
mod problem;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;

pub use admin::admin;
pub use body::MAX_BYTES_IN_FLIGHT;
pub use callbacks::{CallbackSettings, Edge, callbacks};

/// A kept-alive connection may be silent for so long: longer than the idle time of usual balancers,
/// so that it is they who close, and never we while a callback is on its way.
const IDLE: Duration = Duration::from_secs(75);

/// hyper's own bounds, above those that the callback port answers with a proper problem.
const MAX_HEADERS: usize = 128;
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves one port until its handle says stop. HTTP/1.1 only: a sender of single requests gains
/// nothing from HTTP/2, and its attacks stay out.
///
/// # Errors
///
/// Where the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?.http1_only();
    server
        .http_builder()
        .http1()
        .header_read_timeout(IDLE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    server
        .map(|_| axum_server::accept::NoDelayAcceptor::new())
        .handle(handle)
        .accept_error_handler(
            |_, error| tracing::warn!(%error, "a connection could not be accepted"),
        )
        .serve(router.into_make_service())
        .await
}
