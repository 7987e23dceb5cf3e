//! The tokens, of which only hashes are kept.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::codes::Codes;

/// Digits of a token's hash that tell it from others.
const ID: usize = 16;

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

impl Token {
    /// What tells it from any other, also of the same name, and gives nothing away.
    pub fn id(&self) -> &str {
        self.sha256.get(..ID).unwrap_or(&self.sha256)
    }
}

/// The file of tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    path: Option<PathBuf>,
    list: Vec<Token>,
    read: Option<SystemTime>,
    /// Whether the file could not be read when it was looked at last.
    is_stale: bool,
    /// Those that were taken back, until somebody [asks](Self::take_removed).
    removed: Vec<Token>,
    codes: Codes,
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
    /// A device would pair itself, and nobody lets it.
    #[error("no code is open; whoever runs the server makes a new one")]
    NoCode,
    /// Its code is another.
    #[error("this is not the code that the server shows")]
    WrongCode,
}

impl Tokens {
    /// Reads the file, or begins with none where there is no file; without a path, tokens live as long as the server.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(path: Option<&Path>) -> Result<Self, TokenError> {
        let mut tokens = Self { path: path.map(Path::to_owned), codes: Codes::beside(path), ..Self::default() };
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
        let rest: Vec<_> = self.list.iter().filter(|token| token.name != name).cloned().collect();
        if rest.len() == self.list.len() {
            return Err(TokenError::Unknown(name.into()));
        }
        self.set(rest);
        self.write()
    }

    /// A code that gives one new device a token, for a few minutes. An earlier one works no more.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn pair(&mut self, role: Role) -> Result<String, TokenError> {
        self.codes.open(role)
    }

    /// The token for who has the code. A code works once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn redeem(&mut self, code: &str) -> Result<String, TokenError> {
        let role = self.codes.check(code)?;
        let mut names = (1..).map(|number| format!("device {number}"));
        let name = names.find(|name| self.list.iter().all(|token| token.name != *name));
        let token = self.add(&name.unwrap_or_default(), role)?;
        self.codes.close()?;
        Ok(token)
    }

    /// Those that were taken back since this was asked last.
    pub(super) fn take_removed(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.removed)
    }

    fn set(&mut self, list: Vec<Token>) {
        let before = std::mem::replace(&mut self.list, list);
        self.removed.extend(before.into_iter().filter(|token| !self.list.contains(token)));
    }

    /// Reads the file again if it has changed.
    ///
    /// # Errors
    /// [`TokenError`]; then what was known stays.
    pub fn refresh(&mut self) -> Result<(), TokenError> {
        let result = self.read_again();
        self.is_stale = result.is_err();
        result
    }

    /// Whether the file could not be read when it was looked at last.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    fn read_again(&mut self) -> Result<(), TokenError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let changed = fs::metadata(&path).and_then(|file| file.modified()).ok();
        if changed == self.read {
            return Ok(());
        }
        if changed.is_some() {
            let io = |source| TokenError::Io { path: path.clone(), source };
            let json = fs::read(&path).map_err(io)?;
            self.set(serde_json::from_slice(&json).map_err(|source| TokenError::Json { path: path.clone(), source })?);
        } else {
            self.set(Vec::new());
        }
        self.read = changed;
        Ok(())
    }

    /// The token that somebody shows. Takes the same time whichever it is.
    pub(super) fn find(&self, shown: &str) -> Option<&Token> {
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
        replace(path, &self.list)?;
        self.read = fs::metadata(path).and_then(|file| file.modified()).ok();
        Ok(())
    }
}

/// Writes a file that only its owner may read, all of it or nothing.
pub(super) fn replace(path: &Path, what: &impl Serialize) -> Result<(), TokenError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = private_file(fresh.as_ref())?;
        keep_owner(&file, path)?;
        file.write_all(&serde_json::to_vec_pretty(what)?)?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| TokenError::Io { path: path.to_owned(), source })
}

/// Gives a new file the owner of the one that it replaces, or else of the folder: whoever runs the server reads it, and not
/// always runs the command that changes it.
#[cfg(unix)]
fn keep_owner(file: &fs::File, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let before = fs::metadata(path).or_else(|_| fs::metadata(folder))?;
    let own = file.metadata()?;
    // Only root has anything to give away.
    if own.uid() == 0 && before.uid() != 0 { fchown(file, Some(before.uid()), Some(before.gid())) } else { Ok(()) }
}

/// Elsewhere files belong to whoever their folder lets in.
#[cfg(not(unix))]
fn keep_owner(_: &fs::File, _: &Path) -> std::io::Result<()> {
    Ok(())
}

/// A new file that only its owner may read.
///
/// # Errors
/// What the system says.
pub fn private_file(path: &Path) -> std::io::Result<fs::File> {
    private(fs::OpenOptions::new().write(true).create(true).truncate(true)).open(path)
}

/// What they make, only its owner may read.
pub fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

pub(super) fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes.
///
/// # Panics
/// If the operating system has none, without which no secret is safe.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}
