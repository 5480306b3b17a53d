//! Encryption as libpq understands `sslmode`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use stackkit_core::{Error, Result, tls};
use tokio_postgres::tls::TlsConnect;

use crate::config::{PostgresConfig, TlsMode};
use crate::wire::Shared;

/// The rustls configuration of a mode that encrypts.
fn client_config(config: &PostgresConfig) -> Result<ClientConfig> {
    if config.tls == TlsMode::VerifyFull {
        return tls::client_config(config.ca_file.as_deref()).map(Arc::unwrap_or_clone);
    }
    tls::ensure_provider();
    let provider = CryptoProvider::get_default().ok_or_else(|| Error::config("no TLS provider is installed"))?;
    let versions = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|e| Error::config("the TLS provider offers no protocol").with_source(e))?;
    let any = Arc::new(AnyCertificate(provider.clone()));
    Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth())
}

/// Accepts any certificate, as `sslmode=prefer` and `sslmode=require` do: they protect against listeners, not
/// against impostors. Signatures of the handshake are checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connector that notes whether the server agreed to begin TLS, which the driver's error does not tell, and keeps a way
/// to the stream.
pub(crate) struct Noted<T, S> {
    pub(crate) inner: T,
    pub(crate) began: Arc<AtomicBool>,
    pub(crate) stream: Shared<S>,
}

impl<S, T> TlsConnect<S> for Noted<T, T::Stream>
where
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
    T::Future: Send + 'static,
{
    type Stream = Shared<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        self.began.store(true, Ordering::Relaxed);
        let (encrypted, slot) = (self.inner.connect(stream), self.stream);
        Box::pin(async move {
            slot.put(encrypted.await?);
            Ok(slot)
        })
    }
}

/// The rustls connector for `host`.
pub(crate) fn connector<S>(
    config: &PostgresConfig,
    host: &str,
) -> Result<<tokio_postgres_rustls::MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<S>>::TlsConnect>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut make = tokio_postgres_rustls::MakeRustlsConnect::new(client_config(config)?);
    tokio_postgres::tls::MakeTlsConnect::<S>::make_tls_connect(&mut make, host)
        .map_err(|e| Error::config("TLS can't be set up").with_source(e))
}
