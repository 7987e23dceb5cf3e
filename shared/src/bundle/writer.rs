//! Writing a bundle tensor by tensor, so that a model larger than memory can be written, and what was written is there as a whole or
//! not at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BundleError, Folder, MANIFEST, Manifest, Part, PartFile, Tensors};
use crate::digest::hex;
use crate::weights::{DType, HostTensor, WeightError, gguf};

/// Files of a part are split at this size, so that a page can fetch them one by one.
const MAX_FILE_BYTES: usize = 256 << 20;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Full name.
    pub name: String,
    /// The sizes of the dimensions.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: DType,
}

impl Planned {
    /// What a tensor takes when loaded: 32-bit floats, but for large matrices in blocks, which every device multiplies with as
    /// they are, and the vocabulary, of which a prompt reads a few rows.
    pub fn loaded_bytes(&self) -> u64 {
        let numbers = self.shape.iter().product::<usize>() as u64;
        match (self.dtype, &self.shape[..]) {
            _ if self.name == VOCABULARY => 0,
            (DType::Q8_0 | DType::Q4_0, [_, _]) if self.dtype.stays_packed(&self.shape) => {
                numbers / self.dtype.block() as u64 * self.dtype.block_bytes() as u64
            }
            _ => numbers * 4,
        }
    }

    /// What a tensor takes in a file.
    ///
    /// # Errors
    /// [`BundleError::Weights`] if its rows are not whole blocks.
    fn bytes(&self, part: &str) -> Result<usize, BundleError> {
        self.dtype.bytes(&self.shape).ok_or_else(|| BundleError::Weights {
            part: part.to_owned(),
            source: WeightError::Malformed {
                what: format!("tensor `{}`", self.name),
                detail: format!("{:?} cannot hold shape {:?}", self.dtype, self.shape),
            },
        })
    }
}

/// What is done about what is there already where a bundle is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Existing {
    /// Replace a bundle; a folder with anything else in it stays.
    pub replace: bool,
    /// Go on with what an interrupted writer of the same bundle left.
    pub resume: bool,
}

impl Existing {
    /// Checks that a bundle may be put into the place of `out`.
    ///
    /// # Errors
    /// [`BundleError::Occupied`]; [`BundleError::Io`] or [`BundleError::Manifest`] if what is there cannot be read.
    pub fn check(self, out: &Path) -> Result<(), BundleError> {
        if !out.exists() {
            return Ok(());
        }
        let entries = fs::read_dir(out).map_err(at(out))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>();
        let names = names.map_err(at(out))?;
        let why = if names.is_empty() {
            return Ok(());
        } else if !out.join(MANIFEST).exists() {
            "is there and is no bundle; name another folder".to_owned()
        } else if !self.replace {
            "is a bundle already; name another folder, or replace it with --force".to_owned()
        } else if let Some(name) = foreign(&names, Folder::open(out)?.manifest()) {
            let name = name.display();
            format!("is not replaced, for {name} in it is not the bundle's; name another folder, or move {name} away")
        } else {
            return Ok(());
        };
        Err(BundleError::Occupied { path: out.to_owned(), why })
    }
}

/// The first name of a file in a bundle's folder that is not the bundle's.
fn foreign<'a>(names: &'a [OsString], manifest: &Manifest) -> Option<&'a OsString> {
    let own: Vec<_> = manifest.all_files().map(|file| file.name.as_str()).chain([MANIFEST, STATE]).collect();
    names.iter().find(|name| own.iter().all(|own| *name != own))
}

/// A bundle that is being written: into a folder beside the one that it is to be, which it becomes at the end.
#[derive(Debug)]
pub struct Writer {
    out: PathBuf,
    unfinished: PathBuf,
    existing: Existing,
    state: State,
    parts: BTreeMap<String, Part>,
}

/// What an interrupted writer left.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// What is written.
    basis: String,
    /// Files that are there as a whole.
    done: BTreeMap<String, PartFile>,
}

/// The language model's word embeddings.
const VOCABULARY: &str = "gpt_model.decoder.embed_tokens.weight";
const STATE: &str = "unfinished.json";

impl Writer {
    /// Begins a bundle that will be the folder `out`. `basis` tells what is written from one that is not the same: only files
    /// that an interrupted writer of the same, in this version of the program, finished are kept, and only if they are whole.
    ///
    /// # Errors
    /// [`BundleError::Io`]; also those of [`Existing::check`].
    pub fn create(out: &Path, basis: &str, existing: Existing) -> Result<Self, BundleError> {
        let out = std::path::absolute(out).map_err(at(out))?;
        existing.check(&out)?;
        let unfinished = beside(&out, "unfinished");
        let basis = format!("{} {basis}", env!("CARGO_PKG_VERSION"));
        let mut state = State { basis, ..State::default() };
        if unfinished.exists() {
            let left =
                fs::read(unfinished.join(STATE)).ok().and_then(|json| serde_json::from_slice::<State>(&json).ok());
            match left.filter(|left| existing.resume && left.basis == state.basis) {
                Some(State { mut done, .. }) => {
                    done.retain(|name, file| {
                        fs::read(unfinished.join(name)).is_ok_and(|contents| file.check(&contents).is_ok())
                    });
                    state.done = done;
                }
                None => fs::remove_dir_all(&unfinished).map_err(at(&unfinished))?,
            }
        }
        fs::create_dir_all(&unfinished).map_err(at(&unfinished))?;
        Ok(Self { out, unfinished, existing, state, parts: BTreeMap::new() })
    }

    /// Writes the part called `name`, whose tensors `read` gives one by one, each in the form that is planned for it. Those of
    /// files that are there already are not asked for.
    ///
    /// # Errors
    /// Those of `read`; [`BundleError::Io`]; [`BundleError::Weights`] if a tensor is not as planned.
    pub fn part<X: From<BundleError>>(
        &mut self,
        name: &str,
        plan: &[Planned],
        mut read: impl FnMut(&Planned) -> Result<HostTensor, X>,
    ) -> Result<(), X> {
        let shards = split(name, plan)?;
        let mut files = Vec::with_capacity(shards.len());
        for (i, shard) in shards.iter().enumerate() {
            let file = match shards.len() {
                1 => format!("{name}.gguf"),
                n => format!("{name}-{:05}-of-{n:05}.gguf", i + 1),
            };
            if !self.state.done.contains_key(&file) {
                let entry = self.write_shard(name, &file, shard, &mut read)?;
                self.state.done.insert(file.clone(), entry);
                self.save()?;
            }
            files.push(self.state.done[&file].clone());
        }
        let part = Part {
            bytes: files.iter().map(|file| file.bytes).sum(),
            memory_bytes: plan.iter().map(Planned::loaded_bytes).sum(),
            largest_tensor_bytes: plan.iter().map(Planned::loaded_bytes).max().unwrap_or(0),
            files,
        };
        self.parts.insert(name.to_owned(), part);
        Ok(())
    }

    fn write_shard<X: From<BundleError>>(
        &self,
        part: &str,
        file: &str,
        shard: &[Planned],
        read: &mut impl FnMut(&Planned) -> Result<HostTensor, X>,
    ) -> Result<PartFile, X> {
        let path = self.unfinished.join(file);
        let mut out =
            Hashing { file: BufWriter::new(File::create(&path).map_err(at(&path))?), hash: Sha256::new(), bytes: 0 };
        let header = gguf::header(shard.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..], tensor.dtype)));
        out.write(&header).map_err(at(&path))?;
        for planned in shard {
            let tensor = read(planned)?;
            if (tensor.shape(), tensor.dtype()) != (&planned.shape[..], planned.dtype) {
                let Planned { name, shape, dtype } = planned;
                let source = WeightError::Malformed {
                    what: format!("tensor `{name}`"),
                    detail: format!("{tensor:?} instead of the planned {dtype:?} {shape:?}"),
                };
                return Err(BundleError::Weights { part: part.to_owned(), source }.into());
            }
            let padding = out.bytes.next_multiple_of(gguf::ALIGNMENT as u64) - out.bytes;
            out.write(&vec![0; padding as usize]).and_then(|()| out.write(tensor.bytes())).map_err(at(&path))?;
        }
        let (sha256, bytes) = out.finish().map_err(at(&path))?;
        Ok(PartFile { name: file.to_owned(), bytes, sha256 })
    }

    /// Writes the tokenizer and the manifest, of which `draft` says everything but files, and puts the bundle in its place, where
    /// an older one may be.
    ///
    /// # Errors
    /// [`BundleError::Io`]; also those of [`Existing::check`], for hours may have passed.
    pub fn finish(self, draft: Manifest, tokenizer: &[u8]) -> Result<Manifest, BundleError> {
        let Self { out, unfinished, existing, parts, .. } = self;
        existing.check(&out)?;
        let manifest = Manifest { tokenizer: PartFile::new("tokenizer.json", tokenizer), parts, ..draft };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        for (name, contents) in [("tokenizer.json", tokenizer), (MANIFEST, &json)] {
            let path = unfinished.join(name);
            write_through(&path, contents).map_err(at(&path))?;
        }
        // A name that nobody else gives: what is set aside here is removed.
        let old = beside(&out, &format!("replaced-{}", std::process::id()));
        let is_replaced = out.exists();
        if is_replaced {
            fs::rename(&out, &old).map_err(at(&old))?;
        }
        fs::rename(&unfinished, &out).map_err(at(&out))?;
        // Until then, an interrupted writer could go on.
        let state = out.join(STATE);
        if state.exists() {
            fs::remove_file(&state).map_err(at(&state))?;
        }
        if is_replaced {
            fs::remove_dir_all(&old).map_err(at(&old))?;
        }
        Ok(manifest)
    }

    fn save(&self) -> Result<(), BundleError> {
        let path = self.unfinished.join(STATE);
        let fresh = path.with_extension("new");
        let json = serde_json::to_vec(&self.state).expect("names and numbers");
        write_through(&fresh, &json).and_then(|()| fs::rename(&fresh, &path)).map_err(at(&path))
    }
}

/// Writes a bundle into the folder `dir`, which it makes, and returns its manifest. `draft` says everything but files.
///
/// # Errors
/// [`BundleError::Io`]; also those of [`Existing::check`].
pub fn write(
    dir: &Path,
    existing: Existing,
    draft: Manifest,
    tokenizer: &[u8],
    parts: &BTreeMap<String, Tensors>,
) -> Result<Manifest, BundleError> {
    let mut writer = Writer::create(dir, "", existing)?;
    for (name, tensors) in parts {
        let planned = |(name, tensor): (&String, &HostTensor)| Planned {
            name: name.clone(),
            shape: tensor.shape().to_vec(),
            dtype: tensor.dtype(),
        };
        let plan: Vec<_> = tensors.iter().map(planned).collect();
        writer.part(name, &plan, |planned| Ok::<_, BundleError>(tensors[&planned.name].clone()))?;
    }
    writer.finish(draft, tokenizer)
}

/// Tensors in groups of at most [`MAX_FILE_BYTES`], a larger tensor alone.
fn split<'a>(part: &str, mut plan: &'a [Planned]) -> Result<Vec<&'a [Planned]>, BundleError> {
    let mut shards = Vec::new();
    while !plan.is_empty() {
        let (mut bytes, mut count) = (0, 0);
        for tensor in plan {
            bytes += tensor.bytes(part)?;
            if count > 0 && bytes > MAX_FILE_BYTES {
                break;
            }
            count += 1;
        }
        let (shard, rest) = plan.split_at(count);
        shards.push(shard);
        plan = rest;
    }
    if shards.is_empty() {
        shards.push(&[]);
    }
    Ok(shards)
}

/// A file, and the digest of what is written to it.
struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// SHA-256 and length of the whole, once it is on the disk.
    fn finish(self) -> std::io::Result<(String, u64)> {
        self.file.into_inner()?.sync_all()?;
        Ok((hex(&self.hash.finalize()), self.bytes))
    }
}

/// Writes a file, and waits until it is on the disk: what is told of it is to be true after a power cut too.
fn write_through(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// The path of another folder in the same place.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    path.with_file_name(name)
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, numbers: usize) -> Planned {
        Planned { name: name.to_owned(), shape: vec![numbers], dtype: DType::F32 }
    }

    #[test]
    fn what_stays_packed_or_in_its_file_takes_less_memory() {
        let bytes = |name: &str, dtype, shape: &[usize]| {
            Planned { name: name.to_owned(), shape: shape.to_vec(), dtype }.loaded_bytes()
        };
        assert_eq!(bytes("fc1.weight", DType::Q8_0, &[8192, 2048]), 8192 * 2048 / 32 * 34);
        assert_eq!(bytes("fc1.weight", DType::F16, &[8192, 2048]), 8192 * 2048 * 4);
        assert_eq!(bytes("small.weight", DType::Q4_0, &[64, 64]), 64 * 64 * 4);
        assert_eq!(bytes(VOCABULARY, DType::F16, &[64_007, 2048]), 0);
    }

    #[test]
    fn files_are_split_by_size() {
        let third = MAX_FILE_BYTES / 4 / 3;
        let plan = [
            planned("a", third),
            planned("b", third),
            planned("c", 2 * third),
            planned("d", 9 * third),
            planned("e", 1),
        ];
        let counts: Vec<_> = split("x", &plan).unwrap().iter().map(|shard| shard.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(split("x", &[]).unwrap().len(), 1);
        let odd = Planned { dtype: DType::Q8_0, ..planned("odd", 33) };
        let error = split("x", &[odd]).unwrap_err().to_string();
        assert!(error.contains("`odd`") && error.contains("Q8_0"), "{error}");
    }
}
