//! One TLS stack for every adapter: rustls with the ring provider.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};

/// Installs ring as the process's provider, unless the host program installed one.
///
/// Every adapter calls it before it builds a TLS client: without a default, or with two candidates, rustls panics
/// at the first connection.
pub fn ensure_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing the race against another thread is fine: there is a default then.
        let _ = ring::default_provider().install_default();
    }
}

/// The process's provider, after [`ensure_provider`].
fn provider() -> Arc<CryptoProvider> {
    ensure_provider();
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// A client configuration that verifies the server against `ca_file` (PEM) if given, else against the system's roots.
///
/// # Errors
/// `Config` if the file holds no certificate or a bad one, or the machine has no roots; the kinds of reading a file.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let roots = match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::config("the TLS provider offers no protocol").with_source(error))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore> {
    let pem = std::fs::read(path)
        .map_err(|error| Error::io("read the CA file", error).with_context("path", path.display()))?;
    let bad = |what: &str| Error::config(format!("the CA file {what}")).with_context("path", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad("is not PEM").with_source(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad("holds a bad certificate").with_source(error))?;
    }
    if roots.is_empty() { Err(bad("holds no certificate")) } else { Ok(roots) }
}

/// One unreadable certificate of the system must not stop TLS; none at all must.
fn roots_of_system() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::config("the machine has no trusted certificates; name a CA file"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(client_config(Some(file.path())).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(client_config(Some(Path::new("/no/such/file"))).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
