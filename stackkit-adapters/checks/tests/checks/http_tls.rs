//! TLS: real handshakes with certificates made for the test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use stackkit_checks::HttpCheck;
use stackkit_core::health::{Status, Thresholds};
use stackkit_core::{Clock, ErrorKind, HealthCheck, Observation, Phase, tls};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::server::{OK, Server, serve};
use crate::support::{is_ready, probe, probe_in_vain};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        Self::called("an authority")
    }

    fn called(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server with a certificate for `host` that ends at the first of January of `year`.
    async fn server(&self, host: &str, year: i32) -> Server {
        tls::ensure_provider();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start(move |stream, requests| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, OK, &requests).await;
                }
            }
        })
        .await
    }

    fn check(&self, server: &Server) -> HttpCheck {
        HttpCheck::new("web", format!("https://127.0.0.1:{}/", server.port)).with_ca_file(self.file.path())
    }
}

/// A file of an authority that signed nothing.
pub(crate) fn any_authority() -> NamedTempFile {
    Authority::new().file
}

async fn tls_fault(check: &HttpCheck) -> (ErrorKind, Option<Phase>, Option<String>) {
    let (error, _) = probe_in_vain(check).await;
    (error.kind(), error.phase(), error.code().map(str::to_owned))
}

#[tokio::test]
async fn a_trusted_server_tells_when_its_certificate_ends() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", 2090).await;
    let check = authority.check(&server);
    for _ in 0..3 {
        let seen = probe(&check).await.unwrap();
        assert!(is_ready(&check, &seen), "{seen:?}");
        let ends: jiff::Timestamp = "2090-01-01T00:00:00Z".parse().unwrap();
        let left = ends.duration_since(Clock::system().now()).as_secs_f64();
        let told = seen.value("tls_certificate_expiry_seconds").unwrap();
        assert!((told - left).abs() < 60.0, "{told} is not {left}");
    }
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn an_expired_certificate() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", 2020).await;
    let found = tls_fault(&authority.check(&server)).await;
    assert_eq!(found, (ErrorKind::Config, Some(Phase::Tls), Some("certificate.expired".to_owned())));
}

#[tokio::test]
async fn an_unknown_authority() {
    let server = Authority::new().server("127.0.0.1", 2090).await;
    // Another one, and one that was made anew under the same name.
    for trusted in [Authority::called("another authority"), Authority::new()] {
        let found = tls_fault(&trusted.check(&server)).await;
        assert_eq!(found, (ErrorKind::Config, Some(Phase::Tls), Some("certificate.unknown_issuer".to_owned())));
    }
}

#[tokio::test]
async fn another_host() {
    let authority = Authority::new();
    let server = authority.server("other.invalid", 2090).await;
    let found = tls_fault(&authority.check(&server)).await;
    assert_eq!(found, (ErrorKind::Config, Some(Phase::Tls), Some("certificate.wrong_host".to_owned())));
}

#[tokio::test]
async fn no_tls_at_all() {
    let server = Server::start(|mut stream, _| async move {
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    let authority = Authority::new();
    let (kind, phase, _) = tls_fault(&authority.check(&server)).await;
    assert_eq!((kind, phase), (ErrorKind::Unreachable, Some(Phase::Tls)));
}

#[tokio::test]
async fn an_authority_file_that_was_mended_is_read_again() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", 2090).await;
    let file = any_authority();
    let check = HttpCheck::new("web", format!("https://127.0.0.1:{}/", server.port)).with_ca_file(file.path());
    assert_eq!(tls_fault(&check).await.0, ErrorKind::Config);
    std::fs::write(file.path(), authority.issuer.pem()).unwrap();
    assert!(probe(&check).await.is_ok());
}

#[test]
fn a_certificate_near_its_end_is_a_risk() {
    let check = HttpCheck::new("web", "https://shop.example/");
    const DAY: f64 = 24.0 * 3600.0;
    for (left, risk) in [(15.0 * DAY, Status::Healthy), (14.0 * DAY, Status::Degraded), (-1.0, Status::Unhealthy)] {
        let seen = Observation::new().gauge("tls_certificate_expiry_seconds", left);
        let verdict = Thresholds::new().verdict(&check.rules(), &seen);
        assert_eq!((verdict.risk, verdict.ready), (risk, Status::Healthy), "{left}");
    }
}
