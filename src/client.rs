//! The HTTP client of `send`, `demo`, `healthcheck` and the schema registry.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::http::request;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A client that reuses its connections, over HTTP/1.1 and HTTPS.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    inner: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The setting that names the file of authorities, for error messages.
    authorities_setting: &'static str,
}

/// The authorities whose certificates a client trusts.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// Their certificates.
    pub roots: RootCertStore,
    /// The setting that names the file of certificates, such as `--ca`.
    pub setting: &'static str,
}

impl HttpClient {
    /// For plain HTTP: it trusts no certificate.
    pub(crate) fn new() -> Self {
        Self::trusting(Authorities {
            roots: RootCertStore::empty(),
            setting: "",
        })
    }

    /// For HTTPS too, with servers whose certificates are of these authorities and for the name in
    /// the URL.
    pub(crate) fn trusting(authorities: Authorities) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the versions of TLS")
            .with_root_certificates(authorities.roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self {
            inner: Client::builder(TokioExecutor::new()).build(connector),
            authorities_setting: authorities.setting,
        }
    }

    /// Gets a page within `timeout`.
    ///
    /// # Errors
    ///
    /// Why there was no answer, in words.
    pub(crate) async fn get(
        &self,
        url: &Uri,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        self.request(Request::get(url), Bytes::new(), timeout).await
    }

    /// Posts a body and reads its complete answer, within `timeout`.
    ///
    /// # Errors
    ///
    /// Why there was no answer, in words.
    pub(crate) async fn post(
        &self,
        url: &Uri,
        content_type: &'static str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = Request::post(url).header("content-type", content_type);
        self.request(request, body, timeout).await
    }

    /// Sends a request and reads its complete answer, within `timeout`.
    ///
    /// # Errors
    ///
    /// Why there was no answer, in words.
    pub(crate) async fn request(
        &self,
        request: request::Builder,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.inner.request(request).await;
            let response = response.map_err(|error| reason(&error, self.authorities_setting))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
    }
}

/// Why a request failed. The innermost cause is more specific than "client error (Connect)".
fn reason(error: &(dyn Error + 'static), authorities_setting: &str) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => format!(
            "the server's certificate is not of a trusted authority; name the file of its authority with {authorities_setting}"
        ),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not answer with TLS; write http:// in the URL".to_owned()
        }
        Some(error) => error.to_string(),
        None => {
            let mut cause = error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            cause.to_string()
        }
    }
}

/// The cause that is an error of TLS. An `io::Error` skips its content in the chain of sources.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    let content = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let content = content.map(|content| content as &(dyn Error + 'static));
    tls_error(content.or_else(|| error.source())?)
}

/// The address at which a listener is reached from this machine: loopback if it listens on all
/// addresses.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
