//! Watches for requests that end before the port's handler gets them.
//!
//! hyper itself answers bytes that are not HTTP/1, and axum-server drops its error. So only bytes
//! show that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Connection;
use super::opening::{Opening, Protocol};
use crate::http::refusals::{Refusals, Refused};
use crate::metrics::CloseReason;

/// The bytes of HTTP in both directions: behind the TLS handshake, if there is one.
pub(in crate::http) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    /// `None` on the admin port.
    refusals: Option<Arc<Refusals>>,
    opening: Opening,
    /// hyper ends a connection after its own refusal.
    is_refused: bool,
    /// The other side has ended the connection or its half of it.
    has_ended: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(
        stream: S,
        connection: Arc<Connection>,
        refusals: Option<Arc<Refusals>>,
    ) -> Self {
        Self {
            stream,
            connection,
            refusals,
            opening: Opening::default(),
            is_refused: false,
            has_ended: false,
        }
    }

    fn refuse(&mut self, refused: Refused) {
        if !std::mem::replace(&mut self.is_refused, true)
            && let Some(refusals) = &self.refusals
        {
            refusals.count(refused, None);
        }
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.opening.record(bytes);
        // hyper ends such a connection without an answer.
        if self.opening.protocol() == Protocol::Http2 {
            self.refuse(Refused::Http2);
        }
    }

    fn has_written(&mut self, bytes: &[u8]) {
        let Some(status) = hyper_refusal(bytes) else {
            return;
        };
        self.refuse(match (self.opening.protocol(), status) {
            (Protocol::ProxyHeader, _) => Refused::ProxyHeader,
            (Protocol::Tls, _) => Refused::TlsWithoutCertificate,
            (_, b"400") => Refused::NotHttp,
            _ => Refused::HeadTooLarge,
        });
    }
}

/// Counts on drop: until the connection ends, a request may still arrive.
impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        let state = self.connection.state.lock();
        let (closed_for, has_requested) = (state.closed_for, state.has_requested);
        drop(state);
        let refused = match closed_for {
            Some(CloseReason::SlowHead) => Refused::SlowHead,
            // After the first request, an end is an ordinary one.
            None if self.has_ended && !has_requested => Refused::CutOff,
            _ => return,
        };
        match self.opening.protocol() {
            // It was only opened, as the checks of load balancers are.
            Protocol::Nothing => {}
            Protocol::ProxyHeader => self.refuse(Refused::ProxyHeader),
            Protocol::Tls => self.refuse(Refused::TlsWithoutCertificate),
            Protocol::Http2 | Protocol::Text | Protocol::Other => self.refuse(refused),
        }
    }
}

/// The status of an answer that hyper gives by itself. It has no body and so no `content-type`,
/// which all answers of the service have.
fn hyper_refusal(bytes: &[u8]) -> Option<&[u8]> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let is_refusal = [&b"400"[..], b"414", b"431"].contains(&status);
    let has_type = |bytes: &[u8]| {
        let name = b"content-type:";
        (bytes.windows(name.len())).any(|part| part.eq_ignore_ascii_case(name))
    };
    (is_refusal && !has_type(bytes)).then_some(status)
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match (&read, buffer.filled().get(before..)) {
            (Ok(()), Some(bytes)) if !bytes.is_empty() => self.has_read(bytes),
            (Ok(()), _) if buffer.remaining() > 0 => self.has_ended = true,
            (Err(_), _) => self.has_ended = true,
            _ => {}
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.has_written(bytes);
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_hyper_itself_are_refusals() {
        for (answer, status) in [
            (
                "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Some("400"),
            ),
            (
                "HTTP/1.0 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n",
                Some("431"),
            ),
            (
                "HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\n\r\n",
                Some("414"),
            ),
            (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\r\n{}",
                None,
            ),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None),
            ("HTTP/1.1 100 Continue\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\n{\"status\":400}", None),
            ("HTTP/1.1 40", None),
            ("", None),
        ] {
            assert_eq!(
                hyper_refusal(answer.as_bytes()),
                status.map(str::as_bytes),
                "{answer}"
            );
        }
    }
}
