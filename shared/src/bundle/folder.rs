//! A bundle in a folder of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::{BundleError, MANIFEST, Manifest, Tensors};
use crate::weights::HostTensor;
use crate::weights::gguf::{self, Located};

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

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tensors of the part called `name`.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn part(&self, name: &str) -> Result<Tensors, BundleError> {
        self.manifest.read_part(name, |file| read_file(&self.dir.join(&file.name)))
    }

    /// Where the tensors of the part called `name` lie, without reading them: the file with each.
    ///
    /// # Errors
    /// Any [`BundleError`] but that of a wrong digest, for which all would have to be read.
    pub fn index(&self, name: &str) -> Result<BTreeMap<String, (PathBuf, Located)>, BundleError> {
        let mut tensors = BTreeMap::new();
        for file in &self.manifest.part(name)?.files {
            let path = self.dir.join(&file.name);
            let beginning = read_range(&path, 0, LONGEST_HEADER.min(file.bytes))?;
            let located = gguf::index(&file.name, &beginning, file.bytes);
            let located = located.map_err(|source| BundleError::Weights { part: name.to_owned(), source })?;
            tensors.extend(located.into_iter().map(|(tensor, located)| (tensor, (path.clone(), located))));
        }
        Ok(tensors)
    }

    /// A tensor of an [`index`](Self::index).
    ///
    /// # Errors
    /// [`BundleError::Io`].
    pub fn read(&self, (path, located): &(PathBuf, Located)) -> Result<HostTensor, BundleError> {
        let Located { shape, dtype, start } = located;
        let length = dtype.bytes(shape).expect("a shape that was checked");
        let bytes = read_range(path, *start, length as u64)?;
        Ok(HostTensor::new(shape.clone(), *dtype, bytes).expect("as many bytes as the shape says"))
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

/// No header is longer.
const LONGEST_HEADER: u64 = 16 << 20;

fn read_range(path: &Path, start: u64, length: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(length).read_to_end(&mut bytes)
    });
    match read {
        Ok(read) if read as u64 == length => Ok(bytes),
        Ok(_) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        Err(error) => Err(error),
    }
    .map_err(|source| BundleError::Io { path: path.to_owned(), source })
}

fn read_file(path: &Path) -> Result<Vec<u8>, BundleError> {
    std::fs::read(path).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}
