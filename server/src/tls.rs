//! Encrypted connections: a page from another computer has no WebGPU without them.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::serve::Listener;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use crate::access::private_file;

/// How long a client may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);
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
        let first = self.read_chain()?.into_iter().next().context("the certificate's file is empty")?;
        let digits: Vec<_> = Sha256::digest(&first).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(digits.join(":"))
    }

    fn read_chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let read = || CertificateDer::pem_file_iter(&self.chain)?.collect::<Result<Vec<_>, _>>();
        read().with_context(|| format!("the certificate {}", self.chain.display()))
    }
}

impl TlsListener {
    /// Encrypts what `tcp` accepts.
    ///
    /// # Errors
    /// Certificate or key cannot be read or do not fit.
    pub fn new(tcp: TcpListener, certificate: &Certificate) -> anyhow::Result<Self> {
        let chain = certificate.read_chain()?;
        let key = PrivateKeyDer::from_pem_file(&certificate.key)
            .with_context(|| format!("the key {}", certificate.key.display()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key do not fit")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)), pending: JoinSet::new() })
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
                    self.pending.spawn(async move {
                        Ok((timeout(HANDSHAKE, acceptor.accept(stream)).await??, peer))
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}
