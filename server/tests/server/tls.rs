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

use crate::support::Server;

#[tokio::test]
async fn the_servers_own_certificate_encrypts() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost", "127.0.0.1", "box.local"].map(str::to_owned);
    let certificate = Certificate::own(folder.path(), &names).unwrap();
    let fingerprint = certificate.fingerprint().unwrap();
    assert_eq!(fingerprint.split(':').count(), 32);
    let again = Certificate::own(folder.path(), &names).unwrap();
    assert_eq!(again.fingerprint().unwrap(), fingerprint, "the next start keeps it");

    // Also where the clock is behind.
    let tomorrow = std::time::SystemTime::now() + Duration::from_hours(24);
    std::fs::File::open(&certificate.chain).unwrap().set_modified(tomorrow).unwrap();
    let again = Certificate::own(folder.path(), &names).unwrap();
    assert_eq!(again.fingerprint().unwrap(), fingerprint, "one from the future is new");

    let server = Server::with(|app| app.is_encrypted = true);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = TlsListener::new(tcp, &certificate).unwrap();
    let serving = tokio::spawn(serve(listener, server.app.clone(), async { stopped.await.unwrap() }));

    // One that never agrees on a key, and one that speaks no TLS at all, keep nobody waiting.
    let silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();

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
    let other = Certificate::own(other.path(), &names).unwrap();
    let mixed = Certificate { key: other.key, ..certificate };
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = TlsListener::new(tcp, &mixed).unwrap_err();
    assert!(error.to_string().contains("certificate and key do not fit"), "{error}");
}
