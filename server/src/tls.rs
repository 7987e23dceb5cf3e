//! Encrypted connections: a page from another computer has no WebGPU without them.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
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
/// How often the files of a certificate are looked at, which somebody may renew.
const LOOK_EVERY: Duration = Duration::from_mins(1);

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
    /// The server's own certificate in a folder, made for these names and addresses if there is none, it is about to end or
    /// it lacks one that is `asked` for. Others may come and go; each new certificate is one more for browsers to warn of.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn own(folder: &Path, names: &[String], asked: &[String]) -> anyhow::Result<Self> {
        let own = Self { chain: folder.join("certificate.pem"), key: folder.join("key.pem") };
        let made = fs::metadata(&own.chain).and_then(|file| file.modified());
        // One from the future is new, and the clock is behind.
        let age = made.ok().map(|made| made.elapsed().unwrap_or_default());
        if age.is_none_or(|age| age > REPLACED_AFTER) || !own.key.exists() || !own.is_for(asked) {
            own.make(names).with_context(|| format!("cannot make a certificate in {}", folder.display()))?;
        }
        Ok(own)
    }

    /// Whether it is good for these names, as far as they can be in a certificate.
    fn is_for(&self, names: &[String]) -> bool {
        let Ok(chain) = self.read_chain() else { return false };
        let Ok(certificate) = ParsedCertificate::try_from(&chain[0]) else { return false };
        let mut names = names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
        names.all(|name| verify_server_name(&certificate, &name).is_ok())
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

    /// What encrypts with it, and with what takes its place in its files.
    ///
    /// # Errors
    /// Certificate or key cannot be read or do not fit.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Renewed::open(self)?));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn read(&self) -> anyhow::Result<CertifiedKey> {
        let (chain, key) = (self.read_chain()?, self.read_key()?);
        CertifiedKey::from_der(chain, key, &crypto::ring::default_provider()).with_context(|| {
            format!("certificate and key do not fit: {} and {}", self.chain.display(), self.key.display())
        })
    }

    /// When its files were changed.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.chain, &self.key].map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
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

/// A certificate as its files have it. While they cannot be used, as between the change of one and of the other, it is the
/// one before.
#[derive(Debug)]
struct Renewed {
    certificate: Certificate,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    key: Arc<CertifiedKey>,
    /// Of the files that were read last, whether they could be used or not.
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Renewed {
    fn open(certificate: &Certificate) -> anyhow::Result<Self> {
        let (changed, key) = (certificate.changed(), Arc::new(certificate.read()?));
        let read = Mutex::new(Read { key, changed, looked: Instant::now() });
        Ok(Self { certificate: certificate.clone(), read })
    }

    /// The one to use, if the files were looked at no longer ago than this.
    fn current(&self, look_every: Duration) -> Arc<CertifiedKey> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked.elapsed() >= look_every {
            read.looked = Instant::now();
            let changed = self.certificate.changed();
            if changed != read.changed {
                read.changed = changed;
                match self.certificate.read() {
                    Ok(key) => {
                        read.key = Arc::new(key);
                        tracing::info!("the certificate {} was renewed", self.certificate.chain.display());
                    }
                    Err(error) => tracing::error!("{error:#}; the certificate before it stays in use"),
                }
            }
        }
        Arc::clone(&read.key)
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(LOOK_EVERY))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_is_taken_up_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let made = |name: &str| Certificate::own(&folder.path().join(name), &names, &[]).unwrap();
        let (used, next) = (made("used"), made("next"));
        let certificate = |key: &Arc<CertifiedKey>| key.cert[0].clone();
        let renewed = Renewed::open(&used).unwrap();
        let first = certificate(&renewed.current(Duration::ZERO));
        let put = |from: &Path, to: &Path, minute: u64| {
            fs::copy(from, to).unwrap();
            let time = SystemTime::now() + Duration::from_mins(minute);
            fs::File::options().append(true).open(to).unwrap().set_modified(time).unwrap();
        };
        put(&next.chain, &used.chain, 1);
        assert_eq!(certificate(&renewed.current(Duration::ZERO)), first, "its key is not there yet");
        put(&next.key, &used.key, 1);
        assert_eq!(certificate(&renewed.current(LOOK_EVERY)), first, "it was looked at just now");
        let second = certificate(&renewed.current(Duration::ZERO));
        assert_eq!(second, next.read_chain().unwrap()[0]);
        fs::write(&used.chain, "no certificate").unwrap();
        assert_eq!(certificate(&renewed.current(Duration::ZERO)), second);
        fs::remove_file(&used.chain).unwrap();
        assert_eq!(certificate(&renewed.current(Duration::ZERO)), second);
    }

    #[test]
    fn an_own_certificate_has_every_name_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let own = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(|&name| name.to_owned()).collect();
            let names = [&asked[..], &["localhost".to_owned()]].concat();
            Certificate::own(folder.path(), &names, &asked).unwrap().fingerprint().unwrap()
        };
        let first = own(&["box.local"]);
        assert_eq!(own(&[]), first);
        let both = own(&["box.local", "192.168.1.5"]);
        assert_ne!(both, first);
        for asked in [&["192.168.1.5"][..], &["box.local"], &["box.local", "192.168.1.5"]] {
            assert_eq!(own(asked), both);
        }
    }
}
