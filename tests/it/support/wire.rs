//! HTTP as no client would speak it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{Answer, App, PATIENCE};

/// A connection on which a test says what it likes.
pub(crate) struct Wire(Box<dyn Stream>);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Wire {
    /// To the callback port.
    pub(crate) async fn to(app: &App) -> Self {
        Self::at(app.callbacks).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await;
        Self::over(stream.expect("the service listens"))
    }

    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Waits until the service ends the connection; whatever it says before is passed over.
    pub(crate) async fn end(&mut self) {
        self.hear_all().await;
    }

    /// What the service says until it ends the connection.
    pub(crate) async fn hear_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // A connection that is cut off with bytes unread ends with an error.
        self.0.read_to_end(&mut all).await.ok();
        all
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("it is heard");
    }

    /// Half of the connection ends.
    pub(crate) async fn say_no_more(&mut self) {
        self.0.shutdown().await.expect("it is open");
    }

    /// A whole callback, and its answer.
    pub(crate) async fn post(&mut self, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        self.say([of_length(body.len()).as_bytes(), body].concat())
            .await;
        self.hear().await
    }

    /// As [`Wire::say`], to a service that may have ended the connection: whether it was heard.
    pub(crate) async fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next answer on this connection.
    pub(crate) async fn hear(&mut self) -> Answer {
        let hear = tokio::time::timeout(PATIENCE, self.hear_patiently());
        hear.await.expect("the service answers")
    }

    /// As [`Wire::hear`], however long it takes.
    pub(crate) async fn hear_patiently(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer has a head"));
        }
        let head = String::from_utf8(head).expect("a head is text");
        let (status, fields) = head.split_once("\r\n").expect("a status line");
        let status = status.split(' ').nth(1).expect("a status").parse();
        let mut response = hyper::Response::builder().status::<u16>(status.expect("a number"));
        for field in fields.lines().filter(|line| !line.is_empty()) {
            let (name, value) = field.split_once(": ").expect("a field");
            response = response.header(name, value);
        }
        let (head, ()) = response.body(()).expect("a response").into_parts();
        let length = head.headers.get("content-length");
        let length = length.map_or("0", |length| length.to_str().expect("a length"));
        let mut body = vec![0; length.parse().expect("a length")];
        self.0.read_exact(&mut body).await.expect("the whole body");
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.into(),
        }
    }
}

/// One callback on a connection of its own, and its answer.
pub(crate) async fn post(to: SocketAddr, body: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::at(to).await;
    wire.post(body).await
}

/// A callback's head, but for these fields.
pub(crate) fn head(fields: &str) -> String {
    format!("POST /callbacks/zim HTTP/1.1\r\nHost: here\r\n{fields}\r\n\r\n")
}

/// The head of a callback with a body of so many bytes.
pub(crate) fn of_length(length: usize) -> String {
    head(&format!("Content-Length: {length}"))
}
