//! Encrypted connections: a page from another computer has no WebGPU without them.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::serve::Listener;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use crate::access::private_file;
use crate::error::Error;
use crate::serving::http;

/// How long a client may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What a client begins with that wants to: the type of the record (RFC 8446, 5.1).
const WANTS_TO: u8 = 22;
/// Clients that may do so at once.
const HANDSHAKES: usize = 256;
/// Days that a certificate of our own is good for; some browsers take none that is good for longer.
const DAYS: i64 = 800;
/// Age at which it is replaced.
const REPLACED_AFTER: Duration = Duration::from_hours(700 * 24);

/// A listener whose connections are encrypted. Handshakes run beside each other, so that a slow one keeps nobody waiting.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    pending: JoinSet<io::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

/// Where certificate and key are, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, with those that vouch for it.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificate {
    /// The server's own certificate in a folder, made if there is none or it is about to end, for these names and addresses.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn own(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        let own = Self { chain: folder.join("certificate.pem"), key: folder.join("key.pem") };
        let made = fs::metadata(&own.chain).and_then(|file| file.modified());
        // One from the future is new, and the clock is behind.
        let age = made.ok().map(|made| made.elapsed().unwrap_or_default());
        if age.is_none_or(|age| age > REPLACED_AFTER) || !own.key.exists() {
            own.make(names).with_context(|| format!("cannot make a certificate in {}", folder.display()))?;
        }
        Ok(own)
    }

    fn make(&self, names: &[String]) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "KOSMOS-G server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(1);
        params.not_after = now + time::Duration::days(DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        if let Some(folder) = self.chain.parent() {
            fs::create_dir_all(folder)?;
        }
        private_file(&self.key)?.write_all(key.serialize_pem().as_bytes())?;
        fs::write(&self.chain, certificate.pem())?;
        Ok(())
    }

    /// SHA-256 of the certificate, as browsers show it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn fingerprint(&self) -> anyhow::Result<String> {
        let chain = self.read_chain()?;
        let first = chain.first().context("the certificate is missing")?;
        let digits: Vec<_> = Sha256::digest(first).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(digits.join(":"))
    }

    /// What encrypts with it.
    ///
    /// # Errors
    /// Certificate or key cannot be read or do not fit.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let (chain, key) = (self.read_chain()?, self.read_key()?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| {
                format!("certificate and key do not fit: {} and {}", self.chain.display(), self.key.display())
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// The certificate and those that vouch for it: at least one.
    fn read_chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let path = self.chain.display();
        let pem = fs::read(&self.chain).with_context(|| format!("cannot read the certificate {path}"))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the certificate {path} is damaged"))?;
        if chain.is_empty() {
            bail!("{path} has no certificate; --cert takes a PEM file with `-----BEGIN CERTIFICATE-----`");
        }
        Ok(chain)
    }

    fn read_key(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        let path = self.key.display();
        let pem = fs::read(&self.key).with_context(|| format!("cannot read the key {path}"))?;
        if String::from_utf8_lossy(&pem).contains("ENCRYPTED") {
            bail!(
                "the key {path} is encrypted; decrypt it with `openssl pkey -in {path} -out FILE`, and give --key FILE"
            );
        }
        match PrivateKeyDer::from_pem_slice(&pem) {
            Err(pem::Error::NoItemsFound) => {
                bail!("{path} has no key; --key takes a PEM file with `-----BEGIN PRIVATE KEY-----`")
            }
            key => key.with_context(|| format!("the key {path} is damaged")),
        }
    }
}

impl TlsListener {
    /// Encrypts what `tcp` accepts.
    pub fn new(tcp: TcpListener, acceptor: TlsAcceptor) -> Self {
        Self { tcp, acceptor, pending: JoinSet::new() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.pending.join_next() => match done {
                    Ok(Ok(ready)) => return ready,
                    Ok(Err(error)) => tracing::debug!("a client did not agree on a key: {error}"),
                    Err(error) => tracing::error!("a handshake: {error}"),
                },
                (stream, peer) = Listener::accept(&mut self.tcp), if self.pending.len() < HANDSHAKES => {
                    let acceptor = self.acceptor.clone();
                    self.pending.spawn(async move { Ok((timeout(HANDSHAKE, agree(acceptor, stream)).await??, peer)) });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Agrees with a client on a key. One that speaks HTTP as it is, as browsers do with an address that was typed without
/// `https://`, is told where to go.
async fn agree(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    let is_plain = stream.peek(&mut first).await? > 0 && first != [WANTS_TO];
    if !is_plain {
        return acceptor.accept(stream).await;
    }
    let service = TowerToHyperService::new(Router::new().fallback(to_https));
    let mut http = http(HANDSHAKE);
    http.http1().keep_alive(false);
    let answered = http.serve_connection(TokioIo::new(stream), service).await;
    Err(answered.map_or_else(io::Error::other, |()| io::Error::other("it does not encrypt, and was told so")))
}

/// Leads to the same address with encryption. What would change something is refused: it has been sent for all to read.
async fn to_https(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match host.filter(|_| method.is_safe()) {
        // Not for ever: browsers would still go there when encryption was turned off.
        Some(host) => {
            Redirect::temporary(&format!("https://{host}{}", uri.path_and_query().map_or("/", |path| path.as_str())))
                .into_response()
        }
        None => {
            Error::invalid("connections to this server are encrypted; its address begins with https://").into_response()
        }
    }
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}
