//! Where weights are imported from: files of many gigabytes, of which one tensor at a time is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kosmosg::weights::{DType, HostTensor};
use safetensors::tensor::{Metadata, TensorInfo};

use super::torch::TorchFile;

/// Floating-point tensors by name, read one by one.
pub trait Source {
    /// The shapes of all of them.
    fn shapes(&self) -> Shapes<'_>;
    /// One of them.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be read.
    fn read(&self, name: &str) -> anyhow::Result<HostTensor>;
    /// The files that they are in.
    fn files(&self) -> Vec<&Path>;
}

/// Shapes by name.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// How many of the places `BEGINNING.0.…`, `BEGINNING.1.…` there are.
pub(super) fn places(shapes: &Shapes<'_>, beginning: &str) -> usize {
    let is_there = |i: &usize| {
        let place = format!("{beginning}.{i}.");
        shapes.keys().any(|name| name.starts_with(&place))
    };
    (0..).take_while(is_there).count()
}

/// The tensors of a file in one of the forms that checkpoints come in.
///
/// # Errors
/// The file cannot be read, or is of no such form.
pub fn open(path: &Path) -> anyhow::Result<Box<dyn Source>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Ok(Box::new(SafetensorsFile::open(path)?)),
        _ => Ok(Box::new(TorchFile::open(path)?.tensors()?)),
    }
}

/// A file of which ranges are read.
pub(super) struct Bytes {
    pub path: PathBuf,
    file: File,
    pub length: u64,
}

impl Bytes {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(cannot)?;
        let length = file.metadata().with_context(cannot)?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// `length` bytes from `start`, all of which must be there.
    pub fn read(&self, start: u64, length: u64) -> anyhow::Result<Vec<u8>> {
        if start.checked_add(length).is_none_or(|end| end > self.length) {
            bail!(
                "{} ends at byte {}, before bytes {start} to {}: it is truncated",
                self.path.display(),
                self.length,
                start.saturating_add(length)
            );
        }
        let mut bytes = vec![0; usize::try_from(length)?];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(bytes)
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A safetensors file.
pub struct SafetensorsFile {
    bytes: Bytes,
    /// Where the tensors' bytes begin.
    data: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

/// No header of a model is longer.
const LONGEST_HEADER: u64 = 100_000_000;

impl SafetensorsFile {
    /// Reads the header.
    ///
    /// # Errors
    /// The file cannot be read, or its header is damaged.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let bytes = Bytes::open(path)?;
        let header = || format!("{} is no safetensors file", path.display());
        let length = bytes.read(0, 8).with_context(header)?;
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        if length > LONGEST_HEADER {
            bail!("{}: its header is said to have {length} bytes", header());
        }
        let json = bytes.read(8, length).with_context(header)?;
        let metadata: Metadata = serde_json::from_slice(&json).with_context(header)?;
        let data = 8 + length;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let file = Self { bytes, data, tensors };
        for (name, info) in &file.tensors {
            let (start, end) = info.data_offsets;
            if start > end || data + end as u64 > file.bytes.length {
                bail!("{}: ends inside tensor `{name}`; the file is truncated", path.display());
            }
        }
        Ok(file)
    }

    fn float(info: &TensorInfo) -> Option<Float> {
        use safetensors::Dtype::{BF16, F16, F32, F64};
        match info.dtype {
            F64 => Some(Float::Double),
            F32 => Some(Float::Stored(DType::F32)),
            F16 => Some(Float::Stored(DType::F16)),
            BF16 => Some(Float::Stored(DType::Bf16)),
            _ => None,
        }
    }
}

impl Source for SafetensorsFile {
    fn shapes(&self) -> Shapes<'_> {
        let floats = self.tensors.iter().filter(|(_, info)| Self::float(info).is_some());
        floats.map(|(name, info)| (name.as_str(), info.shape.as_slice())).collect()
    }

    fn read(&self, name: &str) -> anyhow::Result<HostTensor> {
        let missing = || format!("{} has no tensor `{name}`", self.bytes.path.display());
        let info = self.tensors.get(name).with_context(missing)?;
        let float = Self::float(info).with_context(missing)?;
        let (start, end) = info.data_offsets;
        let bytes = self.bytes.read(self.data + start as u64, (end - start) as u64)?;
        float.tensor(info.shape.clone(), bytes).with_context(|| format!("{}: `{name}`", self.bytes.path.display()))
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.bytes.path]
    }
}

/// How floating-point numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Float {
    Stored(DType),
    /// 64 bits, of which 32 are kept.
    Double,
}

impl Float {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::Stored(dtype) => dtype.block_bytes(),
            Self::Double => 8,
        }
    }

    /// A tensor of little-endian numbers.
    pub fn tensor(self, shape: Vec<usize>, bytes: Vec<u8>) -> anyhow::Result<HostTensor> {
        match self {
            Self::Stored(dtype) => Ok(HostTensor::new(shape, dtype, bytes)?),
            Self::Double => {
                let numbers = bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32);
                let bytes = numbers.flat_map(f32::to_le_bytes).collect();
                Ok(HostTensor::new(shape, DType::F32, bytes)?)
            }
        }
    }
}

/// Tensors that lie in several files.
pub struct Joined(Vec<Box<dyn Source>>);

impl Joined {
    /// All tensors of these.
    ///
    /// # Errors
    /// Two have a tensor of the same name.
    pub fn new(sources: Vec<Box<dyn Source>>) -> anyhow::Result<Self> {
        let mut names = BTreeMap::new();
        for (i, source) in sources.iter().enumerate() {
            for name in source.shapes().into_keys() {
                if names.insert(name.to_owned(), i).is_some() {
                    bail!("tensor `{name}` is in two of the files");
                }
            }
        }
        Ok(Self(sources))
    }
}

impl Source for Joined {
    fn shapes(&self) -> Shapes<'_> {
        self.0.iter().flat_map(|source| source.shapes()).collect()
    }

    fn read(&self, name: &str) -> anyhow::Result<HostTensor> {
        let source = self.0.iter().find(|source| source.shapes().contains_key(name));
        source.with_context(|| format!("there is no tensor `{name}`"))?.read(name)
    }

    fn files(&self) -> Vec<&Path> {
        self.0.iter().flat_map(|source| source.files()).collect()
    }
}
