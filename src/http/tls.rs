//! TLS 1.2 and 1.3 on the callback port, by rustls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_server::tls_rustls::RustlsConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use x509_cert::der::{self, Decode};

use crate::finding::Finding;

/// A certificate with its chain and its key, ready to be served.
pub struct Certificate {
    config: Arc<ServerConfig>,
    /// When it is valid. rustls serves certificates whose validity cannot be read, as one with a
    /// serial number of more than 20 bytes.
    validity: Result<Validity, der::Error>,
    /// Whether each certificate of the chain was issued by the next one.
    is_in_order: bool,
}

/// Times since 1970-01-01 UTC.
#[derive(Debug)]
struct Validity {
    not_before: Duration,
    not_after: Duration,
}

/// How long before its end a certificate is reported, as by the alert.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86400);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file holds no certificate.
    #[error("{0}; write the certificate and its chain as CERTIFICATE PEM blocks")]
    NoCertificate(&'static str),
    /// The file holds no key.
    #[error(
        "{0}; write the key as a PEM block PRIVATE KEY (PKCS#8, PKCS#1 or SEC1, not encrypted)"
    )]
    NoKey(&'static str),
    /// The key is of a kind that cannot be used.
    #[error(
        "the key cannot be used: {0}; use RSA of at least 2048 bits, ECDSA P-256 or P-384, or Ed25519"
    )]
    UnusableKey(#[source] rustls::Error),
    /// The key is not that of the first certificate.
    #[error(
        "the first certificate does not belong to the key; write the server's certificate first, with its own key in ZIM2KAFKA_TLS_KEY"
    )]
    KeyMismatch,
    /// The certificate cannot be used.
    #[error("the first certificate cannot be used: {0}; replace it with a valid one")]
    Unusable(#[source] rustls::Error),
}

impl Certificate {
    /// Parses two PEM texts: the certificate with its chain, in the order in which they are sent,
    /// and the key of the first.
    ///
    /// # Errors
    ///
    /// If one of them is invalid, or the key belongs to another certificate.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let certificates = CertificateDer::pem_slice_iter(chain).collect();
        let certificates: Vec<_> = Result::unwrap_or_default(certificates);
        let Some(first) = certificates.first() else {
            return Err(CertificateError::NoCertificate(missing(chain, CERTIFICATE)));
        };
        let parsed = x509_cert::Certificate::from_der(first);
        let validity = parsed.map(|certificate| {
            let validity = certificate.tbs_certificate().validity();
            Validity {
                not_before: validity.not_before.to_unix_duration(),
                not_after: validity.not_after.to_unix_duration(),
            }
        });
        let is_in_order = is_in_order(&certificates);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| CertificateError::NoKey(missing(key, KEY)))?;
        ring::sign::any_supported_type(&key).map_err(CertificateError::UnusableKey)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CertificateError::KeyMismatch
                }
                error => CertificateError::Unusable(error),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            validity,
            is_in_order,
        })
    }

    /// When it expires, as the time since 1970-01-01 UTC, if that is known.
    pub fn not_after(&self) -> Option<Duration> {
        let validity = self.validity.as_ref().ok()?;
        Some(validity.not_after)
    }

    /// Why senders may not accept it, although it is served.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        const SUBJECT: &str = "ZIM2KAFKA_TLS_CERT";
        let mut findings = Vec::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        match (&self.validity, now.unwrap_or_default()) {
            (Ok(validity), now) if now > validity.not_after => findings.push(Finding::error(
                SUBJECT,
                "the certificate has expired: senders that verify it cannot connect; replace the file",
            )),
            (Ok(validity), now) if now < validity.not_before => findings.push(Finding::error(
                SUBJECT,
                format!(
                    "the certificate is not valid for another {} s: senders that verify it cannot connect; check the clock of this machine, or replace the file",
                    (validity.not_before - now).as_secs()
                ),
            )),
            (Ok(validity), now) if now + EXPIRES_SOON > validity.not_after => {
                findings.push(Finding::warning(
                    SUBJECT,
                    format!(
                        "the certificate expires in {} h, and then senders that verify it cannot connect; replace the file, which is reloaded",
                        (validity.not_after - now).as_secs() / 3600
                    ),
                ));
            }
            (Ok(_), _) => {}
            (Err(error), _) => findings.push(Finding::warning(
                SUBJECT,
                format!(
                    "the certificate is served, but when it expires is unknown, because it does not follow RFC 5280 ({error}): zim2kafka_tls_certificate_not_after_timestamp_seconds is NaN, and no alert fires before it expires"
                ),
            )),
        }
        if !self.is_in_order {
            findings.push(Finding::warning(
                SUBJECT,
                "the chain is not in order, so some senders cannot verify it; write the server's certificate first, and after each certificate that of its issuer",
            ));
        }
        findings
    }
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "PRIVATE KEY-----";

/// Why a file holds no readable PEM block of this kind.
fn missing(content: &[u8], wanted: &str) -> &'static str {
    let holds = |text: &str| {
        let mut parts = content.windows(text.len());
        parts.any(|part| part == text.as_bytes())
    };
    if content.iter().all(u8::is_ascii_whitespace) {
        "the file is empty"
    } else if content.contains(&0) {
        "the file is binary (DER or PKCS#12), not PEM"
    } else if wanted == KEY && holds("ENCRYPTED") {
        "the key is encrypted (openssl pkey decrypts it)"
    } else if holds(wanted) {
        "the file is damaged"
    } else if holds(KEY) {
        "the file holds a private key only"
    } else if holds(CERTIFICATE) {
        "the file holds certificates only"
    } else {
        "the file holds something else"
    }
}

/// Whether each certificate was issued by the next one. True if one of them cannot be read.
fn is_in_order(chain: &[CertificateDer<'_>]) -> bool {
    let chain: Result<Vec<_>, _> = (chain.iter())
        .map(|certificate| x509_cert::Certificate::from_der(certificate))
        .collect();
    chain.map_or(true, |chain| {
        chain
            .iter()
            .zip(chain.iter().skip(1))
            .all(|(issued, issuer)| {
                issued.tbs_certificate().issuer() == issuer.tbs_certificate().subject()
            })
    })
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("validity", &self.validity)
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SerialNumber,
    };

    use super::*;
    use crate::finding::Level;

    struct Issued {
        cert: String,
        key: KeyPair,
    }

    impl Issued {
        fn certificate(&self) -> Certificate {
            parse(&self.cert, &self.key.serialize_pem()).expect("they belong together")
        }
    }

    fn parse(chain: &str, key: &str) -> Result<Certificate, CertificateError> {
        Certificate::parse(chain.as_bytes(), key.as_bytes())
    }

    fn issue(change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2099, 12, 31);
        change(&mut params);
        let cert = params.self_signed(&key).expect("it is signed").pem();
        Issued { cert, key }
    }

    /// The level and the text of the only finding.
    #[track_caller]
    fn finding(certificate: &Certificate) -> (Level, String) {
        let findings = certificate.findings();
        let [finding] = findings.as_slice() else {
            panic!("not one finding: {findings:?}");
        };
        assert_eq!(finding.subject, "ZIM2KAFKA_TLS_CERT");
        (finding.level, finding.text.clone())
    }

    #[test]
    fn a_certificate_has_its_time_and_nothing_to_report() {
        let certificate = issue(|_| {}).certificate();
        assert_eq!(
            certificate.not_after(),
            Some(Duration::from_secs(4_102_358_400))
        );
        assert_eq!(certificate.findings(), []);
    }

    #[test]
    fn one_that_rustls_serves_and_whose_time_cannot_be_read_is_taken_with_a_warning() {
        for (length, is_known) in [(20, true), (24, false), (200, false)] {
            let serial = SerialNumber::from(vec![0x11; length]);
            let certificate = issue(|params| params.serial_number = Some(serial)).certificate();
            assert_eq!(certificate.not_after().is_some(), is_known, "{length}");
            if is_known {
                assert_eq!(certificate.findings(), []);
            } else {
                let (level, text) = finding(&certificate);
                assert_eq!(level, Level::Warning);
                assert!(text.contains("when it expires is unknown"), "{text}");
            }
        }
    }

    #[test]
    fn one_that_is_not_valid_now_is_reported() {
        let expired = issue(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        let (level, text) = finding(&expired.certificate());
        assert_eq!(level, Level::Error);
        assert!(text.contains("has expired"), "{text}");
        let soon = SystemTime::now() + EXPIRES_SOON - Duration::from_secs(1800);
        let soon = issue(|params| params.not_after = soon.into());
        let (level, text) = finding(&soon.certificate());
        assert_eq!(level, Level::Warning);
        assert!(text.contains("expires in 335 h"), "{text}");
        let early = issue(|params| params.not_before = rcgen::date_time_ymd(2099, 1, 1));
        let (level, text) = finding(&early.certificate());
        assert_eq!(level, Level::Error);
        assert!(text.contains("is not valid for another "), "{text}");
    }

    #[test]
    fn a_chain_is_in_the_order_of_its_issuers() {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            (params, KeyPair::generate().expect("a key"))
        };
        let (params, key) = authority("root");
        let root = CertifiedIssuer::self_signed(params, key).expect("it is signed");
        let (params, key) = authority("between");
        let between = CertifiedIssuer::signed_by(params, key, &root).expect("it is signed");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &between).expect("it is signed").pem();
        let (root, between, key) = (root.pem(), between.pem(), key.serialize_pem());
        for chain in [
            leaf.clone(),
            format!("{leaf}{between}"),
            format!("{leaf}{between}{root}"),
            // One file for both, as some proxies want it.
            format!("{key}{leaf}{between}"),
        ] {
            let certificate = parse(&chain, &key).expect("it is served");
            assert_eq!(certificate.findings(), []);
        }
        for chain in [
            format!("{leaf}{root}"),
            format!("{leaf}{root}{between}"),
            format!("{leaf}{leaf}"),
        ] {
            let (level, text) = finding(&parse(&chain, &key).expect("it is served"));
            assert_eq!(level, Level::Warning);
            assert!(text.contains("the chain is not in order"), "{text}");
        }
        let error = parse(&format!("{between}{leaf}"), &key).expect_err("not its key");
        assert!(matches!(error, CertificateError::KeyMismatch), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let Issued { cert, key } = issue(|_| {});
        let der = key.serialize_der();
        let key = key.serialize_pem();
        let with_label = |label: &str| key.replace("PRIVATE KEY", label);
        let cut = |text: &str| text[..text.len() - 40].to_owned();
        for (chain, problem) in [
            ("", "the file is empty"),
            (" \r\n", "the file is empty"),
            (&key, "the file holds a private key only"),
            (&cut(&cert), "the file is damaged"),
            ("<html>503</html>", "the file holds something else"),
            (
                &cert.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
                "the file holds something else",
            ),
        ] {
            let error = parse(chain, &key).expect_err(chain);
            assert!(
                matches!(error, CertificateError::NoCertificate(_)),
                "{error}"
            );
            assert!(error.to_string().starts_with(problem), "{error}");
        }
        for (key, problem) in [
            ("", "the file is empty"),
            (&cert, "the file holds certificates only"),
            (&cut(&key), "the file is damaged"),
            (&with_label("ENCRYPTED PRIVATE KEY"), "the key is encrypted"),
            (
                &key.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n"),
                "the key is encrypted",
            ),
            (&with_label("PUBLIC KEY"), "the file holds something else"),
        ] {
            let error = parse(&cert, key).expect_err(key);
            assert!(matches!(error, CertificateError::NoKey(_)), "{error}");
            assert!(error.to_string().starts_with(problem), "{error}");
        }
        let error = Certificate::parse(&der, key.as_bytes())
            .expect_err("binary")
            .to_string();
        assert!(error.starts_with("the file is binary"), "{error}");
        let error = Certificate::parse(cert.as_bytes(), &der)
            .expect_err("binary")
            .to_string();
        assert!(error.starts_with("the file is binary"), "{error}");
        // A key under the label of another kind.
        let error = parse(&cert, &with_label("RSA PRIVATE KEY")).expect_err("not RSA");
        assert!(matches!(error, CertificateError::UnusableKey(_)), "{error}");
        let other = issue(|_| {}).key.serialize_pem();
        let error = parse(&cert, &other).expect_err("another key");
        assert!(matches!(error, CertificateError::KeyMismatch), "{error}");
    }
}
