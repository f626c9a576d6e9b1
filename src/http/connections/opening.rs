//! The first bytes of a connection, which show the client's protocol.

/// The first bytes of a connection, as many as distinguish the protocols.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct Opening {
    bytes: [u8; HTTP_2.len()],
    length: usize,
}

/// The protocol of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Protocol {
    /// It has sent nothing.
    Nothing,
    /// A proxy announces its client, as HAProxy and network load balancers do.
    ProxyHeader,
    Tls,
    Http2,
    /// Letters, as the methods of HTTP/1 are.
    Text,
    Other,
}

/// Where HTTP/2 without TLS begins.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0";
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// A record of a handshake, and the first byte of its version.
const TLS: &[u8] = &[0x16, 3];

impl Opening {
    /// Adds bytes that have arrived.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let free = self.bytes.iter_mut().skip(self.length);
        for (free, byte) in free.zip(bytes) {
            *free = *byte;
            self.length += 1;
        }
    }

    pub(in crate::http) fn protocol(&self) -> Protocol {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        match bytes {
            [] => Protocol::Nothing,
            _ if bytes.starts_with(PROXY_V1) || bytes.starts_with(PROXY_V2) => {
                Protocol::ProxyHeader
            }
            _ if bytes.starts_with(TLS) => Protocol::Tls,
            _ if bytes.starts_with(HTTP_2) => Protocol::Http2,
            [first, ..] if first.is_ascii_alphabetic() => Protocol::Text,
            _ => Protocol::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_known_by_their_first_bytes_in_any_pieces() {
        for (bytes, protocol) in [
            (&b""[..], Protocol::Nothing),
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
                Protocol::ProxyHeader,
            ),
            (b"PROXY UNKNOWN\r\n", Protocol::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Protocol::ProxyHeader),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", Protocol::Tls),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
            (b"PRI * HTTP/1.1\r\n\r\n", Protocol::Text),
            (b"POST /callbacks/zim HTTP/1.1\r\n", Protocol::Text),
            (b"PROXYING / HTTP/1.1\r\n", Protocol::Text),
            (b"G", Protocol::Text),
            (b"\r\nPOST / HTTP/1.1\r\n", Protocol::Other),
            (b"\0\0\0\0", Protocol::Other),
        ] {
            for size in [1, 3, 100] {
                let mut opening = Opening::default();
                bytes.chunks(size).for_each(|piece| opening.record(piece));
                assert_eq!(opening.protocol(), protocol, "{bytes:?} in {size}");
            }
        }
    }
}
