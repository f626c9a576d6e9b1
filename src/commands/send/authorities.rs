//! The authorities whose certificates `send` trusts.

use std::path::Path;

use hyper::Uri;
use hyper::http::uri::Scheme;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::{self, ConfigError};

const CA: &str = "--ca";

/// Those for this URL: none over plain HTTP, otherwise those of the file, or of the system.
///
/// # Errors
///
/// If there is none, or the file cannot be read.
pub(super) fn authorities(url: &Uri, ca: Option<&Path>) -> Result<RootCertStore, ConfigError> {
    match (url.scheme() == Some(&Scheme::HTTPS), ca) {
        (true, Some(file)) => of_file(file),
        (true, None) => of_system(),
        (false, None) => Ok(RootCertStore::empty()),
        (false, Some(_)) => Err(ConfigError::of_flag(
            CA,
            "is for HTTPS, but --url begins with http://; write https:// there, or leave out --ca",
        )),
    }
}

fn of_file(file: &Path) -> Result<RootCertStore, ConfigError> {
    let text = config::read_text(CA, file)?;
    let invalid = |problem: &str| {
        let file = file.display();
        ConfigError::of_flag(
            CA,
            format!(
                "{file}: {problem}; write the authority's certificate as a CERTIFICATE PEM block"
            ),
        )
    };
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|_| invalid("has a block that is not PEM"))?;
        (authorities.add(certificate)).map_err(|error| invalid(&error.to_string()))?;
    }
    match authorities.is_empty() {
        true => Err(invalid("has no certificate")),
        false => Ok(authorities),
    }
}

fn of_system() -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    match authorities.is_empty() {
        true => Err(ConfigError::of_flag(
            CA,
            "is not given, and this system has no list of authorities; install ca-certificates, or name the file of the server's authority with --ca",
        )),
        false => Ok(authorities),
    }
}
