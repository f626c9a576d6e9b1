//! The authorities whose certificates a client of HTTPS trusts.

use std::path::Path;

use hyper::Uri;
use hyper::http::uri::Scheme;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::faults::{ConfigError, invalid};
use super::file::read_text;
use crate::client::Authorities;

/// The names of two settings: of the URLs, and of the file of authorities.
#[derive(Debug, Clone, Copy)]
pub struct AuthoritiesSettings {
    /// The URLs of the servers.
    pub url: &'static str,
    /// The file of the authorities' certificates.
    pub file: &'static str,
}

impl AuthoritiesSettings {
    /// The authorities for these URLs: none over plain HTTP, otherwise those of the file, or of the
    /// system.
    ///
    /// # Errors
    ///
    /// If this system has no authorities, the file cannot be read, or it is set without an `https` URL.
    pub fn read(self, urls: &[Uri], file: Option<&Path>) -> Result<Authorities, ConfigError> {
        let is_https = |url: &Uri| url.scheme() == Some(&Scheme::HTTPS);
        let roots = match (urls.iter().any(is_https), file) {
            (true, Some(file)) => of_file(self.file, file),
            (true, None) => of_system(self.file),
            (false, None) => Ok(RootCertStore::empty()),
            (false, Some(_)) => Err(invalid(
                self.file,
                format!(
                    "is for HTTPS, but {} begins with http://; write https:// there, or leave out {}",
                    self.url, self.file
                ),
            )),
        };
        Ok(Authorities {
            roots: roots?,
            setting: self.file,
        })
    }
}

fn of_file(setting: &'static str, file: &Path) -> Result<RootCertStore, ConfigError> {
    let text = read_text(setting, file)?;
    let invalid = |problem: &str| {
        let file = file.display();
        invalid(
            setting,
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

fn of_system(setting: &'static str) -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    match authorities.is_empty() {
        true => Err(invalid(
            setting,
            format!(
                "is not set, and this system has no list of authorities; install ca-certificates, or name the file of the server's authority with {setting}"
            ),
        )),
        false => Ok(authorities),
    }
}
