//! One rustls with one crypto provider, whatever is compiled in beside it.

use std::io::Write as _;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, ServerConfig, ServerConnection, WantsVerifier};

use crate::tool::Test;

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("one_rustls_with_ring_is_in_the_tree", one_rustls_with_ring_is_in_the_tree),
    Test::new("rustls_finds_its_provider_by_itself", rustls_finds_its_provider_by_itself),
    Test::new("a_client_of_stackkit_shakes_hands", a_client_of_stackkit_shakes_hands),
];

/// The lock file is the resolution for all features and all platforms, so what it does not name cannot be built in.
const LOCK: &str = include_str!("../Cargo.lock");

/// The names of the locked packages.
fn locked() -> impl Iterator<Item = &'static str> {
    LOCK.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

fn one_rustls_with_ring_is_in_the_tree() {
    let count = |name: &str| locked().filter(|locked| *locked == name).count();
    assert_eq!((count("rustls"), count("ring")), (1, 1));
    for other in ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "rustls-openssl", "boring"] {
        assert_eq!(count(other), 0, "{other} brings a second TLS stack");
    }
}

/// Without a default provider rustls takes the one that is compiled in, and panics if there are none or two.
fn rustls_finds_its_provider_by_itself() {
    let _: ConfigBuilder<ClientConfig, WantsVerifier> = ClientConfig::builder();
}

fn a_client_of_stackkit_shakes_hands() {
    let authority = rcgen::generate_simple_self_signed(["db.internal".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.cert.pem().as_bytes()).unwrap();

    let client = stackkit_core::tls::client_config(Some(file.path())).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(authority.signing_key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![authority.cert.der().clone()], key)
        .unwrap();

    let mut client = ClientConnection::new(client, ServerName::try_from("db.internal").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        let sent = client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        let answered = server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
        assert!(sent + answered > 0, "both wait for each other");
    }
}
