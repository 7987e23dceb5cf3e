//! A bundle in a folder of this machine: read and written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{BundleError, MANIFEST, Manifest, Part, PartFile, Tensors};
use crate::weights::{HostTensor, gguf};

/// Files of a part are split at this size, so that a page can fetch them one by one.
const MAX_FILE_BYTES: usize = 256 << 20;

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
        let files = &self.manifest.part(name)?.files;
        let contents = files.iter().map(|file| read_file(&self.dir.join(&file.name)));
        self.manifest.read_part(name, contents.collect::<Result<_, _>>()?)
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

/// Writes a bundle into the folder `dir`, which it makes, and returns its manifest. `draft` says everything but files.
///
/// # Errors
/// [`BundleError::Io`].
pub fn write(
    dir: &Path,
    draft: Manifest,
    tokenizer: &[u8],
    parts: &BTreeMap<String, Tensors>,
) -> Result<Manifest, BundleError> {
    std::fs::create_dir_all(dir).map_err(|source| BundleError::Io { path: dir.to_owned(), source })?;
    let mut manifest =
        Manifest { tokenizer: PartFile::new("tokenizer.json", tokenizer), parts: BTreeMap::new(), ..draft };
    write_file(&dir.join("tokenizer.json"), tokenizer)?;
    for (name, tensors) in parts {
        let shards = split(tensors);
        let mut files = Vec::with_capacity(shards.len());
        for (i, shard) in shards.iter().enumerate() {
            let file_name = match shards.len() {
                1 => format!("{name}.gguf"),
                n => format!("{name}-{:05}-of-{n:05}.gguf", i + 1),
            };
            let contents = gguf::write(shard);
            write_file(&dir.join(&file_name), &contents)?;
            files.push(PartFile::new(&file_name, &contents));
        }
        let loaded = |tensor: &HostTensor| tensor.shape().iter().product::<usize>() as u64 * 4;
        let part = Part {
            bytes: files.iter().map(|file| file.bytes).sum(),
            memory_bytes: tensors.values().map(loaded).sum(),
            largest_tensor_bytes: tensors.values().map(loaded).max().unwrap_or(0),
            files,
        };
        manifest.parts.insert(name.clone(), part);
    }
    let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    write_file(&dir.join(MANIFEST), &json)?;
    Ok(manifest)
}

/// Tensors in groups of at most [`MAX_FILE_BYTES`], a larger tensor alone.
fn split(tensors: &Tensors) -> Vec<Tensors> {
    let mut shards = vec![Tensors::new()];
    let mut bytes = 0;
    for (name, tensor) in tensors {
        if bytes > 0 && bytes + tensor.bytes().len() > MAX_FILE_BYTES {
            shards.push(Tensors::new());
            bytes = 0;
        }
        bytes += tensor.bytes().len();
        shards.last_mut().expect("there is a first shard").insert(name.clone(), tensor.clone());
    }
    shards
}

fn read_file(path: &Path) -> Result<Vec<u8>, BundleError> {
    std::fs::read(path).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), BundleError> {
    std::fs::write(path, contents).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}
