//! Connects the limits of connections with axum-server: its listener yields streams that hold a
//! slot, watch their time limits, and know their requests.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tower::Service;

use super::watched::Watched;
use super::{Connection, Connections, Expiry, Slot};
use crate::callback::{TraceContext, TraceId};
use crate::http::Handler;
use crate::http::problem::Problem;
use crate::http::protection::protect;
use crate::http::refusals::Refusals;
use crate::metrics::CloseReason;

/// The most connections that wait to be accepted; the system may have a lower limit.
const ACCEPT_BACKLOG: i32 = 4096;

/// Makes a bound port listen. Until then its connections are refused.
///
/// The standard library asks for a backlog of 128. Beyond the backlog the system drops connections
/// that the other side takes for established.
pub(crate) fn listen(port: &std::net::TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(port, ACCEPT_BACKLOG)?)
}

/// The other end of a connection, as axum-server passes it on.
#[derive(Clone)]
pub(in crate::http) struct Peer {
    address: SocketAddr,
    pub(in crate::http) connection: Arc<Connection>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Address for Peer {
    type Stream = Stream;
    type Listener = Listener;
}

/// A port whose connections need a slot.
pub(in crate::http) struct Listener {
    tcp: TcpListener,
    connections: Arc<Connections>,
}

impl Listener {
    pub(in crate::http) fn new(
        tcp: std::net::TcpListener,
        connections: Connections,
    ) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Ok(Self {
            tcp: TcpListener::from_std(tcp)?,
            connections: Arc::new(connections),
        })
    }
}

impl AddrListener<Stream, Peer> for Listener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        // The ports are bound before the service starts.
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let (tcp, address) = self.tcp.accept().await?;
            // One connection waits here for its slot, the others in the system's backlog.
            let Some(slot) = self.connections.admit(address.ip().to_canonical()).await else {
                continue;
            };
            // An answer is one small write. If this fails, the connection is closed already.
            tcp.set_nodelay(true).ok();
            let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
            let connection = Arc::clone(&slot.connection);
            let peer = Peer {
                address,
                connection,
            };
            return Ok((Stream { tcp, slot, timer }, peer));
        }
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        // axum-server asks once and accepts an error: only `Handle::listening`, which is not used
        // here, needs the address.
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A TCP connection that ends with an error when its time is over or its slot is needed.
pub(in crate::http) struct Stream {
    tcp: TcpStream,
    slot: Slot,
    /// Set for the nearest time limit. It is reset only if a limit comes nearer, so that a request
    /// costs no timer.
    timer: Pin<Box<Sleep>>,
}

impl Stream {
    /// Called while no bytes move. Completes when the connection is to be closed.
    fn poll_expiry(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            match self.slot.expiry(cx.waker()) {
                Expiry::WaitUntil(until) => {
                    let until = tokio::time::Instant::from_std(until);
                    if self.timer.is_elapsed() || until < self.timer.deadline() {
                        self.timer.as_mut().reset(until);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                }
                Expiry::Close(reason) => {
                    self.slot.count_close(reason);
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// Passes on the result of an attempt to move bytes; if none moved, checks the time limits.
    fn or_expire<T>(
        &mut self,
        moved: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match moved {
            Poll::Pending => self.poll_expiry(cx).map(Err),
            moved => moved,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..)
            && !self.slot.connection.bytes_received(bytes)
        {
            self.slot.count_close(CloseReason::Displaced);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.or_expire(read, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.or_expire(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Marks a connection as idle once the acceptor inside has completed its handshake, and watches it
/// from then on.
#[derive(Debug, Clone)]
pub(in crate::http) struct TrackedAcceptor<A> {
    pub(in crate::http) acceptor: A,
    /// `None` on the admin port.
    pub(in crate::http) refusals: Option<Arc<Refusals>>,
}

impl<A, S> Accept<Stream, S> for TrackedAcceptor<A>
where
    A: Accept<Stream, S>,
    A::Future: Send + 'static,
{
    type Stream = Watched<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: Stream, service: S) -> Self::Future {
        let connection = Arc::clone(&stream.slot.connection);
        let refusals = self.refusals.clone();
        let accepted = self.acceptor.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            connection.mark_idle();
            Ok((Watched::new(stream, connection, refusals), service))
        })
    }
}

/// Calls a port's handler with each request and its connection, and marks in the connection when
/// the request begins and ends.
#[derive(Clone)]
pub(in crate::http) struct TrackedService<H> {
    pub(in crate::http) handler: H,
    pub(in crate::http) connection: Arc<Connection>,
}

impl<H: Handler> Service<Request<Incoming>> for TrackedService<H> {
    type Response = Response;
    type Error = Infallible;
    type Future = TrackedAnswer<H::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    // hyper-util's adapter calls this on the first poll of its future, so the handler runs from
    // here on, and with it the deadline of the body.
    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.connection.head_received();
        let trace = TraceContext::from_headers(|name| request.headers().get_all(name));
        let trace_id = trace.as_ref().map(TraceContext::trace_id);
        if let Some(trace) = trace {
            request.extensions_mut().insert(trace);
        }
        TrackedAnswer {
            trace_id,
            answer: self.handler.handle(Arc::clone(&self.connection), request),
            connection: Arc::clone(&self.connection),
        }
    }
}

pin_project! {
    /// A request that is being answered.
    pub(in crate::http) struct TrackedAnswer<F> {
        #[pin]
        answer: F,
        connection: Arc<Connection>,
        trace_id: Option<TraceId>,
    }
}

impl<F: Future<Output = Response>> Future for TrackedAnswer<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A panic is a bug, and should fail its own request only. That is safe: no code panics
        // under a lock that is shared, halfway through a change.
        let polled = catch_unwind(AssertUnwindSafe(|| this.answer.poll(cx)));
        let answer = ready!(polled.unwrap_or_else(|_| Poll::Ready(panicked(*this.trace_id))));
        this.connection.mark_idle();
        Poll::Ready(Ok(answer))
    }
}

/// The answer to a request on which a panic occurred. The line of the panic does not know the
/// request.
fn panicked(trace_id: Option<TraceId>) -> Response {
    if let Some(trace_id) = trace_id {
        tracing::error!(
            trace_id = tracing::field::display(trace_id),
            "a request was answered 500 because of the panic above; report it as a bug"
        );
    }
    let mut answer = Problem::Panicked.answer(trace_id);
    // The admin port's own answer is lost.
    protect(&mut answer);
    answer
}
