//! Parts whose tensors are read when a network asks for them, one at a time: a part may be larger than the memory at hand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{BundleError, Manifest};
use crate::engine::Engine;
use crate::weights::gguf::{self, Located};
use crate::weights::{DType, HostTensor, Parameter, Rows, Store, WeightError};

/// The files of a bundle, wherever they are.
pub trait ReadAt: Send + Sync {
    /// `length` bytes from `start` on of the file called `name`.
    ///
    /// # Errors
    /// [`BundleError::Io`], also where the file ends before.
    fn read_at(&self, name: &str, start: u64, length: u64) -> Result<Vec<u8>, BundleError>;
}

/// A part that stays in its files. Its tables are read row by row.
#[derive(Clone)]
pub struct StoredPart {
    files: Arc<dyn ReadAt>,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub located: Located,
}

/// Headers are shorter than this, mostly.
const USUAL_HEADER: u64 = 1 << 17;
/// No header is longer.
const LONGEST_HEADER: u64 = 16 << 20;

impl StoredPart {
    /// Reads where the tensors of a bundle's part called `name` are. That its files have the right digests was checked before.
    ///
    /// # Errors
    /// [`BundleError::NoPart`], [`BundleError::Io`] or [`BundleError::Weights`].
    pub fn open(manifest: &Manifest, name: &str, files: Arc<dyn ReadAt>) -> Result<Self, BundleError> {
        let in_part = |source| BundleError::Weights { part: name.to_owned(), source };
        let mut tensors = BTreeMap::new();
        for file in &manifest.part(name)?.files {
            let mut length = USUAL_HEADER.min(file.bytes);
            let located = loop {
                let beginning = files.read_at(&file.name, 0, length)?;
                match gguf::index(&file.name, &beginning, file.bytes) {
                    // It may only be longer than was read.
                    Err(_) if length < LONGEST_HEADER.min(file.bytes) => length = LONGEST_HEADER.min(file.bytes),
                    located => break located.map_err(in_part)?,
                }
            };
            for (tensor, located) in located {
                if tensors.contains_key(&tensor) {
                    let detail = format!("tensor `{tensor}` is in an earlier file too");
                    return Err(in_part(WeightError::Malformed { what: file.name.clone(), detail }));
                }
                tensors.insert(tensor, Stored { file: file.name.clone(), located });
            }
        }
        Ok(Self { files, tensors })
    }

    /// Names of the tensors, and where they are.
    pub fn tensors(&self) -> &BTreeMap<String, Stored> {
        &self.tensors
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Unreadable`].
    pub fn read(&self, name: &str) -> Result<HostTensor, WeightError> {
        let missing = || WeightError::Missing { name: name.to_owned(), expected: None };
        let Stored { file, located: Located { shape, dtype, start } } = self.tensors.get(name).ok_or_else(missing)?;
        let length = dtype.bytes(shape).expect("a shape that was checked");
        let bytes = self.files.read_at(file, *start, length as u64).map_err(|error| unreadable(name, &error))?;
        HostTensor::new(shape.clone(), *dtype, bytes)
    }
}

impl fmt::Debug for StoredPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredPart").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

impl<E: Engine> Store<E> for StoredPart {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Option<Parameter<E>>, WeightError> {
        self.tensors.contains_key(name).then(|| self.read(name).map(Parameter::Host)).transpose()
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn table(&self, name: &str) -> Option<Arc<dyn Rows>> {
        let Stored { file, located } = self.tensors.get(name)?;
        let &[entries, dim] = located.shape.as_slice() else { return None };
        Some(Arc::new(StoredTable {
            files: self.files.clone(),
            file: file.clone(),
            name: name.to_owned(),
            shape: [entries, dim],
            dtype: located.dtype,
            start: located.start,
        }))
    }
}

/// A table that stays in its file.
struct StoredTable {
    files: Arc<dyn ReadAt>,
    file: String,
    name: String,
    shape: [usize; 2],
    dtype: DType,
    start: u64,
}

impl fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTable({} {:?} {:?})", self.name, self.dtype, self.shape)
    }
}

impl Rows for StoredTable {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn read(&self, rows: &[u32]) -> Result<Vec<f32>, WeightError> {
        let [entries, dim] = self.shape;
        let length = self.dtype.bytes(&[1, dim]).expect("a shape that was checked") as u64;
        let mut numbers = Vec::with_capacity(rows.len() * dim);
        for &row in rows {
            assert!((row as usize) < entries, "row {row} of a table of {entries}");
            let bytes = self.files.read_at(&self.file, self.start + u64::from(row) * length, length);
            let bytes = bytes.map_err(|error| unreadable(&self.name, &error))?;
            numbers.extend(HostTensor::new(vec![1, dim], self.dtype, bytes)?.to_f32());
        }
        Ok(numbers)
    }
}

fn unreadable(name: &str, error: &BundleError) -> WeightError {
    WeightError::Unreadable { name: name.to_owned(), detail: error.to_string() }
}
