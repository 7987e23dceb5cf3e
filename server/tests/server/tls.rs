//! Encrypted connections, over a real socket.

use std::sync::Arc;
use std::time::Duration;

use kosmosg_server::serving::serve;
use kosmosg_server::tls::{Certificate, TlsListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::support::{PATIENCE, Server};

#[tokio::test]
async fn the_servers_own_certificate_encrypts() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost", "127.0.0.1", "box.local"].map(str::to_owned);
    let certificate = Certificate::own(folder.path(), &names, &[]).unwrap();
    let fingerprint = certificate.fingerprint().unwrap();
    assert_eq!(fingerprint.split(':').count(), 32);
    let again = Certificate::own(folder.path(), &names, &[]).unwrap();
    assert_eq!(again.fingerprint().unwrap(), fingerprint, "the next start keeps it");

    // Also where the clock is behind.
    let tomorrow = std::time::SystemTime::now() + Duration::from_hours(24);
    std::fs::File::open(&certificate.chain).unwrap().set_modified(tomorrow).unwrap();
    let again = Certificate::own(folder.path(), &names, &[]).unwrap();
    assert_eq!(again.fingerprint().unwrap(), fingerprint, "one from the future is new");

    let server = Server::with(|app| app.is_encrypted = true);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = TlsListener::new(tcp, certificate.acceptor().unwrap());
    let serving = tokio::spawn(serve(listener, server.app.clone(), async { stopped.await.unwrap() }));

    // One that never agrees on a key keeps nobody waiting, and one that does not encrypt is told to.
    let silent = TcpStream::connect(address).await.unwrap();
    for (request, answer) in [
        (
            "GET /pair?code=1 HTTP/1.1\r\nhost: box.local:8080",
            ["307 ", "\r\nlocation: https://box.local:8080/pair?code=1\r\n"],
        ),
        ("POST /api/v1/jobs HTTP/1.1\r\nhost: box.local:8080", ["400 ", "its address begins with https://"]),
        ("no HTTP either", ["400 ", ""]),
    ] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(format!("{request}\r\n\r\n").as_bytes()).await.unwrap();
        let mut told = String::new();
        timeout(PATIENCE, plain.read_to_string(&mut told)).await.unwrap().unwrap();
        assert!(told.starts_with(&format!("HTTP/1.1 {}", answer[0])) && told.contains(answer[1]), "{request}: {told}");
    }

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate.chain).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    for name in ["localhost", "127.0.0.1", "box.local"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let connect = connector.connect(ServerName::try_from(name).unwrap(), stream);
        let mut stream = timeout(Duration::from_secs(5), connect).await.unwrap().unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"queued\":0"), "{answer}");
    }
    drop(silent);
    stop.send(()).unwrap();
    timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();

    // A key that is another's is found at start.
    let other = tempfile::tempdir().unwrap();
    let other = Certificate::own(other.path(), &names, &[]).unwrap();
    let mixed = Certificate { key: other.key, ..certificate };
    let error = mixed.acceptor().map(drop).unwrap_err();
    assert!(error.to_string().contains("certificate and key do not fit"), "{error}");
}

#[test]
fn a_file_that_is_no_certificate_or_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Certificate { chain, key } = Certificate::own(folder.path(), &["localhost".into()], &[]).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nMAMC\n-----END {kind}-----\n");
    let garbage = file("garbage", "this is no PEM");
    let encrypted = file("encrypted", &pem("ENCRYPTED PRIVATE KEY"));
    let cut = file("cut", "-----BEGIN CERTIFICATE-----\nMAMC\n");
    let missing = folder.path().join("missing");
    for (certificate, named, complaint) in [
        ((&key, &key), &key, "has no certificate; --cert takes a PEM file"),
        ((&garbage, &key), &garbage, "has no certificate"),
        ((&cut, &key), &cut, "is damaged"),
        ((&missing, &key), &missing, "cannot read the certificate"),
        ((&chain, &chain), &chain, "has no key; --key takes a PEM file"),
        ((&chain, &garbage), &garbage, "has no key"),
        ((&chain, &encrypted), &encrypted, "is encrypted; decrypt it with `openssl pkey -in "),
        ((&chain, &missing), &missing, "cannot read the key"),
    ] {
        let certificate = Certificate { chain: certificate.0.clone(), key: certificate.1.clone() };
        let error = certificate.acceptor().map(drop).unwrap_err().to_string();
        assert!(error.contains(complaint) && error.contains(named.to_str().unwrap()), "{complaint}: {error}");
    }
}
