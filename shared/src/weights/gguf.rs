//! GGUF, version 3: the container of a bundle's weights.
//!
//! Layout (all little-endian): magic, version, number of tensors, number of metadata entries, metadata, a table of tensors
//! (name, dimensions from the fastest, type, offset), padding, data. Source: ggml's `docs/gguf.md`.

use std::collections::BTreeMap;

use super::{DType, HostTensor, WeightError};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// Where tensors begin, in bytes.
pub const ALIGNMENT: usize = 32;
/// ggml allows four dimensions.
const MAX_DIMS: u32 = 4;

/// Tensors by name.
///
/// # Errors
/// [`WeightError::Malformed`], naming `what`, if the bytes are not GGUF, end too early, hold a type of tensor that is
/// not one of [`DType`], or tensors that together have more bytes than the file.
pub fn read(what: &str, bytes: &[u8]) -> Result<BTreeMap<String, HostTensor>, WeightError> {
    let tensor = |(name, Located { shape, dtype, start })| {
        let length = dtype.bytes(&shape).expect("a shape that was checked");
        // Bytes of its own: what is not kept packed does not keep the others in memory.
        Ok((name, HostTensor::new(shape, dtype, bytes[start as usize..][..length].to_vec())?))
    };
    index(what, bytes, bytes.len() as u64)?.into_iter().map(tensor).collect()
}

/// A tensor within a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The sizes of the dimensions.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Where its bytes begin.
    pub start: u64,
}

/// Where the tensors lie in a file of `length` bytes that has this `beginning`, in which its header is.
///
/// # Errors
/// Those of [`read`].
pub fn index(what: &str, beginning: &[u8], length: u64) -> Result<BTreeMap<String, Located>, WeightError> {
    let malformed = |detail: String| WeightError::Malformed { what: what.to_owned(), detail };
    let mut cursor = Cursor { bytes: beginning, at: 0 };
    let entries = read_header(&mut cursor).map_err(malformed)?;
    let data = cursor.at.next_multiple_of(ALIGNMENT) as u64;
    let mut left = length.saturating_sub(data);
    let mut tensors = BTreeMap::new();
    for Entry { name, shape, dtype, offset } in entries {
        let bytes = dtype.bytes(&shape).ok_or_else(|| malformed(format!("tensor `{name}`: shape {shape:?}")))? as u64;
        let start = data.checked_add(offset as u64);
        let start = start.filter(|start| start.checked_add(bytes).is_some_and(|end| end <= length));
        let Some(start) = start else {
            return Err(malformed(format!("ends inside tensor `{name}`; the file is truncated")));
        };
        // Thousands of names for the same bytes would be many times the file in memory.
        left = left.checked_sub(bytes).ok_or_else(|| malformed("its tensors overlap".into()))?;
        if tensors.insert(name.clone(), Located { shape, dtype, start }).is_some() {
            return Err(malformed(format!("tensor `{name}` is there twice")));
        }
    }
    Ok(tensors)
}

/// A file of these tensors.
pub fn write(tensors: &BTreeMap<String, HostTensor>) -> Vec<u8> {
    let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape(), tensor.dtype()));
    let mut file = header(entries);
    for tensor in tensors.values() {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(tensor.bytes());
    }
    file
}

/// What a file of tensors of these names, shapes and types begins with: then each follows, padded from the file's beginning to
/// [`ALIGNMENT`].
///
/// # Panics
/// If a shape's rows are not whole blocks.
pub fn header<'a>(tensors: impl ExactSizeIterator<Item = (&'a str, &'a [usize], DType)>) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(1u64.to_le_bytes());
    string(&mut file, "general.alignment");
    file.extend(4u32.to_le_bytes()); // a u32
    file.extend((ALIGNMENT as u32).to_le_bytes());
    let mut offset = 0;
    for (name, shape, dtype) in tensors {
        string(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        for &size in shape.iter().rev() {
            file.extend((size as u64).to_le_bytes());
        }
        file.extend(code(dtype).to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        let bytes = dtype.bytes(shape).expect("rows of whole blocks");
        offset = (offset + bytes).next_multiple_of(ALIGNMENT);
    }
    file
}

fn string(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

/// ggml's number for a type.
fn code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q8_0 => 8,
        DType::Bf16 => 30,
    }
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    offset: usize,
}

fn read_header(cursor: &mut Cursor<'_>) -> Result<Vec<Entry>, String> {
    if cursor.take(4)? != MAGIC {
        return Err("not a GGUF file".into());
    }
    let version = cursor.u32()?;
    if version != VERSION {
        return Err(format!("GGUF version {version}, expected {VERSION}"));
    }
    let (tensors, metadata) = (cursor.u64()?, cursor.u64()?);
    for _ in 0..metadata {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        if key == "general.alignment" {
            let alignment = cursor.u32()? as usize;
            if alignment != ALIGNMENT {
                return Err(format!("alignment {alignment}, expected {ALIGNMENT}"));
            }
        } else {
            skip_value(cursor, kind)?;
        }
    }
    (0..tensors).map(|_| entry(cursor)).collect()
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry, String> {
    let name = cursor.string()?;
    let dims = cursor.u32()?;
    if dims > MAX_DIMS {
        return Err(format!("tensor `{name}` has {dims} dimensions"));
    }
    let mut shape = (0..dims).map(|_| cursor.size()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let number = cursor.u32()?;
    let known = [DType::F32, DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0];
    let Some(dtype) = known.into_iter().find(|&dtype| code(dtype) == number) else {
        return Err(format!("tensor `{name}` has ggml type {number}; known are F32, F16, BF16, Q8_0 and Q4_0"));
    };
    Ok(Entry { name, shape, dtype, offset: cursor.size()? })
}

/// Steps over a metadata value of ggml's type `kind`.
fn skip_value(cursor: &mut Cursor<'_>, kind: u32) -> Result<(), String> {
    let bytes = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => return cursor.string().map(drop),
        9 => {
            let (element, count) = (cursor.u32()?, cursor.u64()?);
            if element == 9 {
                return Err("nested arrays in the metadata".into());
            }
            return (0..count).try_for_each(|_| skip_value(cursor, element));
        }
        _ => return Err(format!("metadata of unknown type {kind}")),
    };
    cursor.take(bytes).map(drop)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("ends inside its header; the file is truncated")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("`take` gives as many bytes as asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|_| "a size beyond this machine's memory".into())
    }

    fn string(&mut self) -> Result<String, String> {
        let length = self.size()?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a name that is not UTF-8".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, HostTensor> {
        let numbers: Vec<f32> = (0..128).map(|i| i as f32 - 60.0).collect();
        let tensor = HostTensor::from_f32(vec![2, 64], &numbers);
        let forms = [DType::F32, DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0];
        let mut tensors: BTreeMap<_, _> =
            forms.into_iter().map(|dtype| (format!("{dtype:?}"), tensor.to_dtype(dtype).unwrap())).collect();
        tensors.insert("odd".into(), HostTensor::from_f32(vec![3], &[1.0, 2.0, 3.0]));
        tensors
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = read("x.gguf", &write(&sample())).unwrap();
        assert_eq!(tensors.len(), 6);
        for (name, tensor) in sample() {
            assert_eq!(tensors[&name].shape(), tensor.shape());
            assert_eq!(tensors[&name].bytes(), tensor.bytes(), "{name}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let file = write(&sample());
        for end in 0..file.len() {
            assert!(matches!(read("x.gguf", &file[..end]), Err(WeightError::Malformed { .. })), "{end}");
        }
    }

    #[test]
    fn tensors_together_are_no_larger_than_the_file() {
        let numbers = HostTensor::from_f32(vec![64], &[1.0; 64]);
        let file = |names: &[&str]| {
            let tensors = names.iter().map(|name| ((*name).to_owned(), numbers.clone())).collect();
            write(&tensors)
        };
        let mut overlapping = file(&["a", "b"]);
        // The second one's place is the last number of the header.
        let header = overlapping.len() - 2 * numbers.bytes().len();
        let place = overlapping[..header].windows(8).rposition(|bytes| bytes == 256u64.to_le_bytes()).unwrap();
        overlapping[place..place + 8].fill(0);
        // Where the file has room for both, no harm is done.
        for whole in [&file(&["a", "b"]), &overlapping] {
            let tensors = read("x.gguf", whole).unwrap();
            assert_eq!(tensors["a"].to_f32(), tensors["b"].to_f32());
            assert_eq!((tensors.len(), tensors["b"].to_f32()), (2, vec![1.0; 64]));
        }
        overlapping.truncate(header + numbers.bytes().len());
        assert!(read("x.gguf", &overlapping).unwrap_err().to_string().contains("overlap"));
    }

    #[test]
    fn lying_headers_are_errors() {
        let file = write(&sample());
        for at in 0..200 {
            let mut file = file.clone();
            file[at] = 0xff;
            // Either an error or another name, never a panic or an enormous allocation.
            drop(read("x.gguf", &file));
        }
    }
}
