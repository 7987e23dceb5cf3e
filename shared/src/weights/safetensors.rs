//! Reading safetensors: what diffusers folders and the fixtures are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::{DType, HostTensor, WeightError};

/// Tensors of floating-point numbers by name, those of 64 bits rounded to 32; whole numbers are left out.
///
/// # Errors
/// [`WeightError::Malformed`], naming `what`, if the bytes are not a safetensors file or a tensor is of another type of
/// floating-point numbers.
pub fn read(what: &str, bytes: Vec<u8>) -> Result<BTreeMap<String, HostTensor>, WeightError> {
    let bytes = Arc::new(bytes);
    let file = open(what, &bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::F64 => {
                let numbers = view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32);
                let tensor = HostTensor::from_f32(view.shape().to_vec(), &numbers.collect::<Vec<f32>>());
                tensors.insert(name.to_owned(), tensor);
                continue;
            }
            dtype if is_whole(dtype) => continue,
            dtype => {
                let detail = format!("tensor `{name}` is {dtype:?}; known are F64, F32, F16 and BF16");
                return Err(WeightError::Malformed { what: what.to_owned(), detail });
            }
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

fn is_whole(dtype: Dtype) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, BOOL | U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
}

fn open<'a>(what: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>, WeightError> {
    SafeTensors::deserialize(bytes).map_err(|error| WeightError::Malformed {
        what: what.to_owned(),
        detail: format!("not a safetensors file: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
        let view = TensorView::new(dtype, vec![2], bytes).unwrap();
        safetensors::serialize([("x", view)], None).unwrap()
    }

    #[test]
    fn doubles_are_read_and_whole_numbers_left_out() {
        let doubles = [0.1f64, -2.5].map(f64::to_le_bytes).concat();
        let tensors = read("x.safetensors", file(Dtype::F64, &doubles)).unwrap();
        assert_eq!(tensors["x"].to_f32(), [0.1, -2.5]);
        assert!(read("x.safetensors", file(Dtype::U8, &[1, 2])).unwrap().is_empty());
        assert_eq!(read_integers("x.safetensors", &file(Dtype::U8, &[1, 2])).unwrap()["x"], (vec![2], vec![1, 2]));
    }

    #[test]
    fn other_floats_are_named() {
        let error = read("x.safetensors", file(Dtype::F8_E4M3, &[1, 2])).unwrap_err().to_string();
        assert_eq!(error, "x.safetensors: tensor `x` is F8_E4M3; known are F64, F32, F16 and BF16");
    }
}
