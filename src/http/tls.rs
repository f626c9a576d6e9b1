//! TLS 1.2 and 1.3 on the callback port, by rustls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;

/// A certificate with its chain and its key, ready to be served.
pub struct Certificate {
    config: Arc<ServerConfig>,
    not_after: Duration,
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file holds no certificate.
    #[error("the certificate file holds no readable PEM block CERTIFICATE")]
    NoCertificate,
    /// The first certificate is invalid.
    #[error("the first certificate cannot be read: {0}")]
    Unreadable(#[from] x509_cert::der::Error),
    /// The file holds no key.
    #[error(
        "the key file holds no readable PEM block PRIVATE KEY (PKCS#8, PKCS#1 or SEC1, not encrypted)"
    )]
    NoKey,
    /// The certificate or the key cannot be used, or they do not belong together.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Certificate {
    /// Parses two PEM texts: the certificate with its chain, in the order in which they are sent,
    /// and the key of the first.
    ///
    /// # Errors
    ///
    /// If one of them is invalid, or the key belongs to another certificate.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| CertificateError::NoCertificate)?;
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        let validity = *x509_cert::Certificate::from_der(first)?
            .tbs_certificate()
            .validity();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            not_after: validity.not_after.to_unix_duration(),
        })
    }

    /// When it expires, as the time since 1970-01-01 UTC.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// Whether it has expired.
    pub fn is_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.is_ok_and(|now| now > self.not_after)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The certificate for new connections. Open connections keep the one they began with.
#[derive(Clone)]
pub struct Tls(RustlsConfig);

impl Tls {
    /// Begins with this certificate.
    pub fn new(certificate: &Certificate) -> Self {
        Self(RustlsConfig::from_config(Arc::clone(&certificate.config)))
    }

    /// Uses this certificate for connections from now on.
    pub fn replace(&self, certificate: &Certificate) {
        self.0.reload_from_config(Arc::clone(&certificate.config));
    }

    pub(super) fn config(&self) -> RustlsConfig {
        self.0.clone()
    }
}
