//! The code with which a new device gets a token. It is kept beside the file of tokens, so that a server takes what a command
//! opens while it runs.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::tokens::{Role, TokenError, hash, random, replace};

/// How long a code works.
const OPEN_FOR: Duration = Duration::from_mins(10);
/// Wrong codes after which none works.
const MAX_TRIES: u32 = 20;
/// Letters of a code: none that look alike.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// How many, five bits each.
const LETTERS: usize = 10;

/// Where the code is, of which there is one at a time.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// The file; without one, the code ends with the server.
    path: Option<PathBuf>,
    kept: Option<Code>,
}

/// A code as it is kept: not the code itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Code {
    sha256: String,
    /// What the token will be good for.
    role: Role,
    /// When it ends, in seconds since 1970.
    until: u64,
    /// Wrong ones that were shown.
    tries: u32,
}

impl Codes {
    /// The one beside that file of tokens.
    pub(super) fn beside(tokens: Option<&Path>) -> Self {
        Self { path: tokens.map(|path| path.with_extension("pairing")), kept: None }
    }

    /// Makes a code. An earlier one works no more.
    pub(super) fn open(&mut self, role: Role) -> Result<String, TokenError> {
        let letters = random::<LETTERS>().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
        let code: String = letters.map(char::from).iter().collect();
        self.keep(Code { sha256: hash(&code), role, until: now() + OPEN_FOR.as_secs(), tries: 0 })?;
        Ok(code)
    }

    /// What the token is to be good for of whoever shows this code.
    pub(super) fn check(&mut self, shown: &str) -> Result<Role, TokenError> {
        // A clock that was put back does not make it longer.
        let is_open = |code: &Code| (1..=OPEN_FOR.as_secs()).contains(&code.until.saturating_sub(now()));
        let code = self.read()?.filter(|code| is_open(code) && code.tries < MAX_TRIES);
        let code = code.ok_or(TokenError::NoCode)?;
        let shown = hash(&shown.trim().to_ascii_uppercase());
        if bool::from(code.sha256.as_bytes().ct_eq(shown.as_bytes())) {
            return Ok(code.role);
        }
        self.keep(Code { tries: code.tries + 1, ..code })?;
        Err(TokenError::WrongCode)
    }

    /// Lets no code work any more.
    pub(super) fn close(&mut self) -> Result<(), TokenError> {
        self.kept = None;
        let Some(path) = &self.path else { return Ok(()) };
        match fs::remove_file(path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(TokenError::Io { path: path.clone(), source }),
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<Option<Code>, TokenError> {
        let Some(path) = &self.path else { return Ok(self.kept.clone()) };
        match fs::read(path) {
            Ok(json) => {
                let code = serde_json::from_slice(&json);
                code.map(Some).map_err(|source| TokenError::Json { path: path.clone(), source })
            }
            Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TokenError::Io { path: path.clone(), source }),
        }
    }

    fn keep(&mut self, code: Code) -> Result<(), TokenError> {
        match &self.path {
            Some(path) => replace(path, &code)?,
            None => self.kept = Some(code),
        }
        Ok(())
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}
