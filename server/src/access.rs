//! Who may use the server: tokens, how a new device gets one, and how much each may ask for.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::a1111;
use crate::app::Shared;
use crate::error::Error;
use crate::jobs::{Job, Owner};
use crate::openai;

/// Name of the cookie that a paired browser has.
pub const COOKIE: &str = "kosmosg";
/// How long a pairing code works.
const PAIRING_TIME: Duration = Duration::from_mins(10);
/// Wrong codes after which none works.
const MAX_TRIES: u32 = 20;
/// Letters of a pairing code: none that look alike.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Letters of a code, five bits each.
const CODE: usize = 10;

/// What a token is good for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Making pictures.
    Use,
    /// That, and giving and taking tokens.
    Admin,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Whose jobs theirs are.
    pub owner: Owner,
    /// What they may do.
    pub role: Role,
    /// Whether jobs are theirs alone: without tokens, whoever knows a job's name may look at it.
    pub is_known: bool,
}

impl Visitor {
    /// Whether a job is theirs, or anyone's.
    pub fn may_see(&self, job: &Job) -> bool {
        !self.is_known || *job.owner() == self.owner
    }
}

/// A token as it is kept: not the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is: a name for people.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// SHA-256 of the token, in hexadecimal digits. A token has 256 random bits, so that no slower hash is needed.
    sha256: String,
}

/// Who may use the server.
#[derive(Debug)]
pub struct Access {
    /// Whether only who has a token may.
    is_closed: bool,
    tokens: Mutex<Tokens>,
    pairing: Mutex<Option<Pairing>>,
    limiter: DefaultKeyedRateLimiter<Owner>,
}

/// The file of tokens.
#[derive(Debug)]
pub struct Tokens {
    path: Option<PathBuf>,
    list: Vec<Token>,
    read: Option<SystemTime>,
}

/// A code for a new device.
#[derive(Debug)]
struct Pairing {
    code: String,
    role: Role,
    until: Instant,
    tries: u32,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file.
    #[error("the file of tokens {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Its contents.
    #[error("the file of tokens {} is damaged: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// Two cannot have one name.
    #[error("there is a token called {0:?} already; remove it first, or choose another name")]
    Taken(String),
    /// A name that cannot be one.
    #[error("a token's name has 1 to 60 letters, digits, spaces, `-`, `_` or `.`")]
    Name,
    /// None of that name.
    #[error("there is no token called {0:?}")]
    Unknown(String),
}

impl Tokens {
    /// Reads the file, or begins with none where there is no file; without a path, tokens live as long as the server.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(path: Option<&Path>) -> Result<Self, TokenError> {
        let mut tokens = Self { path: path.map(Path::to_owned), list: Vec::new(), read: None };
        tokens.refresh()?;
        Ok(tokens)
    }

    /// All of them.
    pub fn list(&self) -> &[Token] {
        &self.list
    }

    /// Makes a token and writes its hash down. The token is shown this once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn add(&mut self, name: &str, role: Role) -> Result<String, TokenError> {
        let is_plain = |c: char| c.is_alphanumeric() || " -_.".contains(c);
        if !(1..=60).contains(&name.chars().count()) || !name.chars().all(is_plain) {
            return Err(TokenError::Name);
        }
        if self.list.iter().any(|token| token.name == name) {
            return Err(TokenError::Taken(name.into()));
        }
        let token = URL_SAFE_NO_PAD.encode(random::<32>());
        self.list.push(Token { name: name.into(), role, sha256: hash(&token) });
        self.write()?;
        Ok(token)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn remove(&mut self, name: &str) -> Result<(), TokenError> {
        let before = self.list.len();
        self.list.retain(|token| token.name != name);
        if self.list.len() == before { Err(TokenError::Unknown(name.into())) } else { self.write() }
    }

    /// Reads the file again if it has changed.
    ///
    /// # Errors
    /// [`TokenError`]; then what was known stays.
    pub fn refresh(&mut self) -> Result<(), TokenError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let changed = fs::metadata(&path).and_then(|file| file.modified()).ok();
        if changed == self.read {
            return Ok(());
        }
        if changed.is_some() {
            let io = |source| TokenError::Io { path: path.clone(), source };
            let json = fs::read(&path).map_err(io)?;
            self.list =
                serde_json::from_slice(&json).map_err(|source| TokenError::Json { path: path.clone(), source })?;
        } else {
            self.list.clear();
        }
        self.read = changed;
        Ok(())
    }

    /// The token that somebody shows. Takes the same time whichever it is.
    fn find(&self, shown: &str) -> Option<&Token> {
        let shown = hash(shown);
        let mut found = None;
        for token in &self.list {
            if bool::from(token.sha256.as_bytes().ct_eq(shown.as_bytes())) {
                found = Some(token);
            }
        }
        found
    }

    fn write(&mut self) -> Result<(), TokenError> {
        let Some(path) = &self.path else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let fresh = path.with_extension("new");
            private_file(&fresh)?.write_all(&serde_json::to_vec_pretty(&self.list)?)?;
            fs::rename(&fresh, path)
        };
        write().map_err(|source| TokenError::Io { path: path.clone(), source })?;
        self.read = fs::metadata(path).and_then(|file| file.modified()).ok();
        Ok(())
    }
}

impl Access {
    /// Everybody may use the server; `per_minute` requests of each.
    pub fn open(per_minute: NonZeroU32) -> Self {
        Self::new(false, Tokens { path: None, list: Vec::new(), read: None }, per_minute)
    }

    /// Who has one of the tokens may.
    pub fn with_tokens(tokens: Tokens, per_minute: NonZeroU32) -> Self {
        Self::new(true, tokens, per_minute)
    }

    fn new(is_closed: bool, tokens: Tokens, per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::keyed(Quota::per_minute(per_minute));
        Self { is_closed, tokens: Mutex::new(tokens), pairing: Mutex::default(), limiter }
    }

    /// Whether only who has a token may use the server.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The tokens, as the file has them now.
    pub fn tokens(&self) -> MutexGuard<'_, Tokens> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = tokens.refresh() {
            tracing::error!("{error}; the tokens stay as they were");
        }
        tokens
    }

    /// A code that gives one new device a token, for a few minutes. An earlier one works no more.
    pub fn pair(&self, role: Role) -> String {
        let letters = random::<CODE>().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
        let code: String = letters.map(char::from).iter().collect();
        *self.pairing() = Some(Pairing { code: code.clone(), role, until: Instant::now() + PAIRING_TIME, tries: 0 });
        code
    }

    /// The token for who has the code. A code works once.
    ///
    /// # Errors
    /// 403 for a wrong code, 500 if the token cannot be kept.
    pub fn redeem(&self, code: &str) -> Result<String, Error> {
        let mut pairing = self.pairing();
        let Some(open) = pairing.as_mut().filter(|open| open.until > Instant::now() && open.tries < MAX_TRIES) else {
            return Err(Error::forbidden("no code is open; whoever runs the server makes a new one"));
        };
        let code = code.trim().to_ascii_uppercase();
        if !bool::from(open.code.as_bytes().ct_eq(code.as_bytes())) {
            open.tries += 1;
            return Err(Error::forbidden("this is not the code that the server shows"));
        }
        let mut tokens = self.tokens();
        let name = (1..).map(|number| format!("device {number}"));
        let name = name.into_iter().find(|name| tokens.list().iter().all(|token| token.name != *name));
        let token = tokens.add(&name.unwrap_or_default(), open.role).map_err(Error::internal)?;
        *pairing = None;
        Ok(token)
    }

    /// Whoever a request comes from.
    ///
    /// # Errors
    /// 401 without a token that is known.
    fn visitor(&self, headers: &HeaderMap, address: Option<SocketAddr>) -> Result<Visitor, Error> {
        let is_here = address.is_none_or(|address| address.ip().is_loopback());
        if !self.is_closed {
            let owner = address.filter(|_| !is_here).map_or_else(Owner::here, |address| Owner::at(address.ip()));
            return Ok(Visitor { owner, role: if is_here { Role::Admin } else { Role::Use }, is_known: false });
        }
        let shown = shown(headers).ok_or_else(|| {
            Error::unauthorized("this server asks for a token: `Authorization: Bearer …`, or a browser that was paired")
        })?;
        let tokens = self.tokens();
        let token = tokens.find(&shown).ok_or_else(|| Error::unauthorized("this token is not known here"))?;
        Ok(Visitor { owner: Owner::named(&token.name), role: token.role, is_known: true })
    }

    /// Counts a request that makes work.
    ///
    /// # Errors
    /// 429.
    fn count(&self, owner: &Owner) -> Result<(), Error> {
        self.limiter
            .check_key(owner)
            .map_err(|until| Error::too_often(until.wait_time_from(self.limiter.clock().now()).as_secs() + 1))
    }

    /// Forgets who has not asked for a while. To be called every now and then.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
    }

    fn pairing(&self) -> MutexGuard<'_, Option<Pairing>> {
        self.pairing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets only those in who may, and says who they are.
pub(crate) async fn admit(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    let access = &shared.app.access;
    let admitted = access.visitor(request.headers(), address).and_then(|visitor| {
        if request.method() == Method::POST {
            access.count(&visitor.owner)?;
        }
        Ok(visitor)
    });
    match admitted {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(error) => match request.uri().path() {
            path if path.starts_with("/v1/") => openai::failure(error),
            path if path.starts_with("/sdapi/") => a1111::failure(error),
            _ => error.into_response(),
        },
    }
}

/// The token that a request shows: as a bearer's, as the password of older programs, or in the cookie of a paired browser.
fn shown(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, value) = value.to_str().ok()?.split_once(' ')?;
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(value.trim().to_owned()),
            "basic" => {
                let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
                Some(pair.split_once(':')?.1.to_owned())
            }
            _ => None,
        };
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, _)| *name == COOKIE).map(|(_, token)| token.to_owned())
}

/// A new file that only its owner may read.
///
/// # Errors
/// What the system says.
pub fn private_file(path: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}
