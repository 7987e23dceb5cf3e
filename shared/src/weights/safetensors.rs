//! Reading safetensors: what diffusers folders and the fixtures are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::{DType, HostTensor, WeightError};

/// Tensors by name, of every floating-point type; other types are left out.
///
/// # Errors
/// [`WeightError::Malformed`], naming `what`, if the bytes are not a safetensors file.
pub fn read(what: &str, bytes: Vec<u8>) -> Result<BTreeMap<String, HostTensor>, WeightError> {
    let bytes = Arc::new(bytes);
    let file = open(what, &bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            _ => continue,
        };
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let range = start..start + view.data().len();
        let tensor = HostTensor::view(view.shape().to_vec(), dtype, bytes.clone(), range)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// Shape and numbers of a tensor of integers.
pub type Integers = (Vec<usize>, Vec<i64>);

/// Integer tensors (`I64`, `I32`, `U8`, `BOOL`) by name. Cases of a fixture hold token ids so.
///
/// # Errors
/// [`WeightError::Malformed`], naming `what`, if the bytes are not a safetensors file.
pub fn read_integers(what: &str, bytes: &[u8]) -> Result<BTreeMap<String, Integers>, WeightError> {
    let mut tensors = BTreeMap::new();
    for (name, view) in open(what, bytes)?.iter() {
        let data = view.data();
        let numbers: Vec<i64> = match view.dtype() {
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| b.into()).collect(),
            _ => continue,
        };
        tensors.insert(name.to_owned(), (view.shape().to_vec(), numbers));
    }
    Ok(tensors)
}

fn open<'a>(what: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>, WeightError> {
    SafeTensors::deserialize(bytes).map_err(|error| WeightError::Malformed {
        what: what.to_owned(),
        detail: format!("not a safetensors file: {error}"),
    })
}
