//! Requests that two readers may read in two ways: what stands before us and we ourselves must
//! agree where one ends and the next begins, or nothing that follows on the connection may count.

use serde_json::json;
use tokio::time::timeout;

use crate::support::app::{App, PATIENCE, callback};
use crate::support::wire::{Wire, head};

/// What the service says to these bytes until it ends the connection, which it must.
async fn said_to(app: &App, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::to(app).await;
    wire.try_say(bytes).await;
    let said = timeout(PATIENCE, wire.hear_all()).await;
    String::from_utf8_lossy(&said.expect("it ends the connection")).into_owned()
}

fn callback_of(group: &str) -> Vec<u8> {
    callback(json!({"group_id": group}))
}

/// A whole request, as somebody would smuggle it in.
fn smuggled() -> String {
    let body = callback_of("smuggled");
    let body = String::from_utf8(body).expect("JSON");
    format!("{}{body}", head(&format!("Content-Length: {}", body.len())))
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut chunks = format!("{:x}\r\n", body.len()).into_bytes();
    chunks.extend_from_slice(body);
    chunks.extend_from_slice(b"\r\n0\r\n\r\n");
    chunks
}

/// Two groups that no request of these tests means to reach.
async fn assert_nothing_was_smuggled(app: &App, published: usize) {
    let records = app.records(published).await;
    assert_eq!(records.len(), published);
    assert!(
        records
            .iter()
            .all(|record| record.key.as_deref() != Some(b"smuggled"))
    );
}

#[tokio::test]
async fn content_length_is_ignored_beside_chunks_and_the_connection_ends() {
    let app = App::embedded(|settings| settings);
    let body = chunked(&callback_of("first"));
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "transfer-encoding: Chunked\r\ncontent-length: 5",
    ] {
        let request = [head(fields).as_bytes(), &body, smuggled().as_bytes()].concat();
        let said = said_to(&app, request).await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        assert!(said.contains("connection: close"), "{said}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    }
    // The first, and twice its resend.
    assert_nothing_was_smuggled(&app, 1).await;
}

#[tokio::test]
async fn an_ambiguous_request_is_refused_and_ends_the_connection() {
    let app = App::embedded(|settings| settings);
    let smuggled = smuggled();
    let two_lengths = format!("Content-Length: 0\r\nContent-Length: {}", smuggled.len());
    let bodies = [
        head(&two_lengths),
        head("Content-Length: 0, 10"),
        head("Content-Length: +0"),
        head("Content-Length: -1"),
        head("Content-Length: 0x0"),
        head("Content-Length: 99999999999999999999"),
        head("Content-Length : 0"),
        head("Transfer-Encoding: chunked, identity"),
        head("Transfer-Encoding: xchunked"),
        head("Transfer-Encoding: \u{b}chunked"),
        head("Transfer-Encoding : chunked"),
        // A field continued on the next line.
        head("Content-Length: 0\r\n x: y"),
        head("x: y\r\n\tContent-Length: 0"),
        // A bare CR, or a NUL, in a value and in place of an end of line.
        head("x: y\rContent-Length: 0"),
        head("x: a\rb"),
        head("x: a\0b"),
        head("Content-Length: 0\rx: y"),
        head("x y: z"),
        head(": z"),
        "POST /callbacks/zim HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "POST /callbacks/zim HTTP/1.2\r\nHost: here\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "POST  /callbacks/zim HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for request in bodies {
        let said = said_to(&app, format!("{request}{smuggled}")).await;
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 400 ");
        assert!(refused, "{request:?} is answered {said}");
        assert!(said.matches("HTTP/1.1").count() <= 1, "{said}");
    }
    for chunks in [
        "5\r\nhello0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        "5\rhello\r\n0\r\n\r\n",
    ] {
        let request = format!("{}{chunks}{smuggled}", head("Transfer-Encoding: chunked"));
        let said = said_to(&app, request).await;
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 400 ");
        assert!(refused, "{chunks:?} is answered {said}");
    }
    assert_nothing_was_smuggled(&app, 0).await;
    assert_eq!(app.post(callback(json!({}))).await.status.as_u16(), 200);
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_one_after_the_other() {
    let app = App::embedded(|settings| settings);
    let mut wire = Wire::to(&app).await;
    let requests: Vec<u8> = (0..3)
        .flat_map(|number| {
            let body = callback_of(&number.to_string());
            let head = head(&format!("Content-Length: {}", body.len()));
            [head.into_bytes(), body].concat()
        })
        .collect();
    wire.say(requests).await;
    for _ in 0..3 {
        assert_eq!(wire.hear().await.json()["status"], "published");
    }
}
