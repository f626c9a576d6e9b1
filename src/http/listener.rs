//! Where the limits of connections meet axum-server: its listener hands out streams that have a place,
//! watch their time, and know their requests.

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
use axum::response::{IntoResponse, Response};
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tower::Service;

use super::connections::{Connection, Connections, Place, Verdict};
use super::problem::Problem;

/// So many connections may wait to be accepted; the system may have a lower limit of its own.
const BACKLOG: i32 = 4096;

/// The other end's address, as axum-server sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(SocketAddr);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Address for Peer {
    type Stream = Stream;
    type Listener = Listener;
}

/// A port whose connections have their places.
pub(super) struct Listener {
    tcp: TcpListener,
    connections: Arc<Connections>,
}

impl Listener {
    pub(super) fn new(tcp: std::net::TcpListener, connections: Connections) -> io::Result<Self> {
        // The standard library asks for 128 connections that wait to be accepted. Over it the system
        // forgets some that the other side takes for established, and many may come at once.
        rustix::net::listen(&tcp, BACKLOG)?;
        tcp.set_nonblocking(true)?;
        Ok(Self {
            tcp: TcpListener::from_std(tcp)?,
            connections: Arc::new(connections),
        })
    }
}

impl AddrListener<Stream, Peer> for Listener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        // Ours are bound before the service starts.
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let (tcp, peer) = self.tcp.accept().await?;
            let address = peer.ip().to_canonical();
            // One connection waits here for its place, the others in the system's queue.
            let Some(place) = self.connections.admit(address).await else {
                continue;
            };
            // An answer is one small write. Where this fails, the connection is gone already.
            tcp.set_nodelay(true).ok();
            let alarm = Box::pin(tokio::time::sleep(Duration::ZERO));
            return Ok((Stream { tcp, place, alarm }, Peer(peer)));
        }
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.tcp.local_addr().map(Peer)
    }
}

/// A TCP connection that ends with an error when its time is over or its place is needed.
pub(super) struct Stream {
    tcp: TcpStream,
    place: Place,
    /// Set for a limit that was the nearest once. It is moved only where the limit comes nearer, so that
    /// a request costs no timer.
    alarm: Pin<Box<Sleep>>,
}

impl Stream {
    /// Nothing moves on the connection. Completes when it is to be cut off.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            match self.place.verdict(cx.waker()) {
                Verdict::WaitUntil(until) => {
                    let until = tokio::time::Instant::from_std(until);
                    if self.alarm.is_elapsed() || until < self.alarm.deadline() {
                        self.alarm.as_mut().reset(until);
                    }
                    ready!(self.alarm.as_mut().poll(cx));
                }
                Verdict::Cut(why) => {
                    self.place.cut(why);
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// What became of an attempt to move bytes; or, where none moved, of the connection.
    fn unless_cut<T>(
        &mut self,
        moved: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match moved {
            Poll::Pending => self.poll_cut(cx).map(Err),
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
        if buffer.filled().len() > before {
            self.place.connection.heard();
        }
        self.unless_cut(read, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.unless_cut(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Lets a connection know of its handshake, done by the acceptor inside, and of its requests.
#[derive(Debug, Clone)]
pub(super) struct Watching<A>(pub(super) A);

impl<A, S> Accept<Stream, S> for Watching<A>
where
    A: Accept<Stream, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Watched<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: Stream, service: S) -> Self::Future {
        let connection = Arc::clone(&stream.place.connection);
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            connection.is_idle();
            let watched = Watched {
                service,
                connection,
            };
            Ok((stream, watched))
        })
    }
}

/// A service whose requests carry their [`Connection`], which knows when they begin and end.
#[derive(Clone)]
pub(super) struct Watched<S> {
    service: S,
    connection: Arc<Connection>,
}

impl<S: super::Service> Service<Request<Incoming>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    // hyper-util's adapter calls it with the first poll of its future, so that from here on the handler
    // runs, and with it the deadline of the body.
    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.connection.head_is_whole();
        (request.extensions_mut()).insert(Arc::clone(&self.connection));
        Answering {
            answer: self.service.call(request),
            connection: Arc::clone(&self.connection),
        }
    }
}

pin_project! {
    /// A request that is being answered.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        connection: Arc<Connection>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A panic is a bug of ours, and costs its request only: nothing under a lock that others share
        // panics half-way through a change.
        let polled = catch_unwind(AssertUnwindSafe(|| this.answer.poll(cx)));
        let answer = ready!(
            polled.unwrap_or_else(|_| { Poll::Ready(Ok(Problem::Panicked.into_response())) })
        );
        this.connection.is_idle();
        Poll::Ready(answer)
    }
}
