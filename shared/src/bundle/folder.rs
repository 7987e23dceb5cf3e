//! A bundle in a folder of this machine.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BundleError, MANIFEST, Manifest, ReadAt, StoredPart, Tensors};

/// A bundle in a folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
    manifest: Manifest,
}

impl Folder {
    /// Opens a bundle; weights are read when asked for.
    ///
    /// # Errors
    /// [`BundleError::Io`] or [`BundleError::Manifest`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let dir = dir.into();
        let manifest = Manifest::from_json(&read_file(&dir.join(MANIFEST))?)?;
        Ok(Self { dir, manifest })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Compares every file with its digest.
    ///
    /// # Errors
    /// [`BundleError::Io`] or [`BundleError::Corrupt`].
    pub fn check(&self) -> Result<(), BundleError> {
        self.manifest.all_files().try_for_each(|file| file.check(&read_file(&self.dir.join(&file.name))?))
    }

    /// The tensors of the part called `name`.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn part(&self, name: &str) -> Result<Tensors, BundleError> {
        self.manifest.read_part(name, |file| read_file(&self.dir.join(&file.name)))
    }

    /// The part called `name`, without reading its tensors and their digests.
    ///
    /// # Errors
    /// Any [`BundleError`] but that of a wrong digest.
    pub fn stored(&self, name: &str) -> Result<StoredPart, BundleError> {
        StoredPart::open(&self.manifest, name, Arc::new(self.clone()))
    }

    /// The tokenizer's JSON.
    ///
    /// # Errors
    /// [`BundleError::Io`] or [`BundleError::Corrupt`].
    pub fn tokenizer(&self) -> Result<Vec<u8>, BundleError> {
        let file = &self.manifest.tokenizer;
        let contents = read_file(&self.dir.join(&file.name))?;
        file.check(&contents)?;
        Ok(contents)
    }
}

impl ReadAt for Folder {
    fn read_at(&self, name: &str, start: u64, length: u64) -> Result<Vec<u8>, BundleError> {
        let path = self.dir.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(start))?;
            file.take(length).read_to_end(&mut bytes)
        });
        match read {
            Ok(read) if read as u64 == length => Ok(bytes),
            Ok(_) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            Err(error) => Err(error),
        }
        .map_err(|source| BundleError::Io { path, source })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, BundleError> {
    std::fs::read(path).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}
