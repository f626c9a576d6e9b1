//! Certificates of the tests' own authority, and a client that trusts it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name that certificates are for.
const NAME: &str = "callbacks.test";

/// An authority, and the two files that a service reads.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("it is signed"),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Writes the authority's own certificate to a file.
    pub(crate) fn ca(&self) -> PathBuf {
        let file = self.folder.path().join("ca.pem");
        write(&file, &self.issuer.pem());
        file
    }

    /// The two variables that name the files.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        [
            ("ZIM2KAFKA_TLS_CERT", text(self.cert())),
            ("ZIM2KAFKA_TLS_KEY", text(self.key())),
        ]
    }

    /// A certificate that ends with this year, and its key, both PEM.
    pub(crate) fn issue(&self, last_year: i32) -> (String, String) {
        self.issue_with(last_year, |_| {})
    }

    /// The same, with a change.
    pub(crate) fn issue_with(
        &self,
        last_year: i32,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// Issues a certificate and writes both files, the certificate's first.
    pub(crate) fn write(&self, last_year: i32) {
        let (cert, key) = self.issue(last_year);
        write(&self.cert(), &cert);
        write(&self.key(), &key);
    }

    /// A client that trusts this authority and speaks these versions.
    pub(crate) async fn connect(
        &self,
        to: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(NAME).expect("a name");
        let tcp = TcpStream::connect(to).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }
}

/// As tools do that replace a file: it is whole at every moment.
pub(crate) fn write(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).expect("it can be written");
    fs::rename(aside, path).expect("both are in one folder");
}

/// What the service showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().expect("a server shows one");
    chain.first().expect("its own").clone().into_owned()
}
