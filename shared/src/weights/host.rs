//! Tensors in host memory, in the forms that files hold.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use super::WeightError;

/// How a [`HostTensor`]'s numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
    /// ggml's Q8_0: blocks of 32 numbers along the last dimension, an f16 scale and 32 signed bytes.
    Q8_0,
    /// ggml's Q4_0: blocks of 32 numbers along the last dimension, an f16 scale and 32 nibbles of offset 8.
    Q4_0,
}

impl DType {
    /// Numbers that are stored together, along the last dimension.
    pub const fn block(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::Bf16 => 1,
            DType::Q8_0 | DType::Q4_0 => 32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
        }
    }

    /// Bytes of a tensor of this shape, or `None` if its rows are not whole blocks or it is too large to address.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if row % self.block() != 0 {
            return None;
        }
        let numbers = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        (numbers / self.block()).checked_mul(self.block_bytes())
    }

    /// Whether a linear map's weight of this shape is to stay as it is stored.
    pub fn stays_packed(self, shape: &[usize]) -> bool {
        self != DType::F32 && shape.iter().product::<usize>() >= STAYS_PACKED
    }
}

/// Numbers from which on a linear map's weight stays packed: a smaller one is worth its memory.
const STAYS_PACKED: usize = 1 << 21;

/// A tensor in host memory: little-endian, row-major, a view into a shared buffer.
#[derive(Clone)]
pub struct HostTensor {
    shape: Vec<usize>,
    dtype: DType,
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl std::fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostTensor({:?} {:?})", self.dtype, self.shape)
    }
}

impl HostTensor {
    /// A tensor from its bytes.
    ///
    /// # Errors
    /// [`WeightError::Malformed`] if the number of bytes does not fit shape and type.
    pub fn new(shape: Vec<usize>, dtype: DType, bytes: Vec<u8>) -> Result<Self, WeightError> {
        let range = 0..bytes.len();
        Self::view(shape, dtype, Arc::new(bytes), range)
    }

    /// A tensor within a larger buffer.
    ///
    /// # Errors
    /// [`WeightError::Malformed`] if the range is not within the buffer or does not fit shape and type.
    pub fn view(
        shape: Vec<usize>,
        dtype: DType,
        buffer: Arc<Vec<u8>>,
        range: Range<usize>,
    ) -> Result<Self, WeightError> {
        let malformed = |detail| WeightError::Malformed { what: format!("tensor {shape:?} {dtype:?}"), detail };
        let Some(expected) = dtype.bytes(&shape) else {
            return Err(malformed(format!("rows are not whole blocks of {}", dtype.block())));
        };
        if range.len() != expected || buffer.get(range.clone()).is_none() {
            return Err(malformed(format!("{} bytes at {}, expected {expected}", range.len(), range.start)));
        }
        Ok(Self { shape, dtype, buffer, range })
    }

    /// A tensor of 32-bit floats.
    ///
    /// # Panics
    /// If there are not as many numbers as `shape` says.
    pub fn from_f32(shape: Vec<usize>, numbers: &[f32]) -> Self {
        assert_eq!(numbers.len(), shape.iter().product::<usize>(), "{} numbers for shape {shape:?}", numbers.len());
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let range = 0..bytes.len();
        Self { shape, dtype: DType::F32, buffer: Arc::new(bytes), range }
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// [`WeightError::Malformed`] if the shape holds another number of values.
    pub fn reshape(&self, shape: Vec<usize>) -> Result<Self, WeightError> {
        Self::view(shape, self.dtype, self.buffer.clone(), self.range.clone())
    }

    /// All numbers.
    pub fn to_f32(&self) -> Vec<f32> {
        decode(self.dtype, self.bytes())
    }

    /// The numbers of some rows of a table `[entries, dim]`, one row after the other.
    ///
    /// # Panics
    /// If this is not a table or a row is past its end.
    pub fn rows(&self, rows: &[u32]) -> Vec<f32> {
        let &[_, dim] = self.shape.as_slice() else { panic!("rows of a tensor of shape {:?}", self.shape) };
        let mut numbers = vec![0.0; rows.len() * dim];
        for (&row, numbers) in rows.iter().zip(numbers.chunks_mut(dim.max(1))) {
            self.unpack(row as usize..row as usize + 1, numbers);
        }
        numbers
    }

    /// Writes the numbers of successive rows of a table `[entries, dim]` to `numbers`.
    ///
    /// # Panics
    /// If this is not a table, a row is past its end, or `numbers` has another length.
    pub fn unpack(&self, rows: Range<usize>, numbers: &mut [f32]) {
        let &[entries, dim] = self.shape.as_slice() else { panic!("rows of a tensor of shape {:?}", self.shape) };
        assert!(rows.end <= entries, "rows {rows:?} of a table of {entries}");
        assert_eq!(numbers.len(), rows.len() * dim, "{rows:?} of a table of {dim} columns");
        let row_bytes = self.range.len() / entries.max(1);
        decode_into(self.dtype, &self.bytes()[rows.start * row_bytes..rows.end * row_bytes], numbers);
    }

    /// The same tensor in another form, as closely as it can hold it.
    ///
    /// # Errors
    /// [`WeightError::Malformed`] if its rows are not whole blocks, or a number is too large for the form.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self, WeightError> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let numbers = self.to_f32();
        let packed = Self::new(self.shape.clone(), dtype, encode(dtype, &numbers))?;
        if packed.first_not_finite().is_some() && self.first_not_finite().is_none() {
            let largest = numbers.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let what = format!("tensor {:?} {:?}", self.shape, self.dtype);
            let detail = format!("its numbers reach {largest:e}, which {dtype:?} cannot hold");
            return Err(WeightError::Malformed { what, detail });
        }
        Ok(packed)
    }

    /// The first number that is infinite or none at all, with its place.
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        let mut numbers = [0.0; 4096];
        let (block, block_bytes) = (self.dtype.block(), self.dtype.block_bytes());
        let mut pieces = self.bytes().chunks(numbers.len() / block * block_bytes).enumerate();
        pieces.find_map(|(i, bytes)| {
            let start = i * numbers.len();
            let numbers = &mut numbers[..bytes.len() / block_bytes * block];
            decode_into(self.dtype, bytes, numbers);
            let at = numbers.iter().position(|number| !number.is_finite())?;
            Some((start + at, numbers[at]))
        })
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut numbers = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block()];
    decode_into(dtype, bytes, &mut numbers);
    numbers
}

#[inline]
fn decode_into(dtype: DType, bytes: &[u8], numbers: &mut [f32]) {
    match dtype {
        DType::F32 => {
            let (bytes, _) = bytes.as_chunks();
            numbers.iter_mut().zip(bytes).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
        }
        DType::F16 => {
            let (bytes, _) = bytes.as_chunks();
            numbers.iter_mut().zip(bytes).for_each(|(x, bytes)| *x = f16::from_le_bytes(*bytes).to_f32());
        }
        DType::Bf16 => {
            let (bytes, _) = bytes.as_chunks();
            numbers.iter_mut().zip(bytes).for_each(|(x, bytes)| *x = bf16::from_le_bytes(*bytes).to_f32());
        }
        DType::Q8_0 => {
            let (blocks, _) = bytes.as_chunks::<34>();
            let (numbers, _) = numbers.as_chunks_mut::<32>();
            for (numbers, [low, high, quants @ ..]) in numbers.iter_mut().zip(blocks) {
                let scale = f16::from_le_bytes([*low, *high]).to_f32();
                numbers.iter_mut().zip(quants).for_each(|(x, &quant)| *x = scale * f32::from(quant as i8));
            }
        }
        DType::Q4_0 => {
            let (blocks, _) = bytes.as_chunks::<18>();
            let (numbers, _) = numbers.as_chunks_mut::<32>();
            for (numbers, [low, high, quants @ ..]) in numbers.iter_mut().zip(blocks) {
                let scale = f16::from_le_bytes([*low, *high]).to_f32();
                // The low nibbles hold the block's first half, the high ones its second.
                let (first, second) = numbers.split_at_mut(16);
                for ((first, second), quant) in first.iter_mut().zip(second).zip(quants) {
                    *first = scale * (f32::from(quant & 15) - 8.0);
                    *second = scale * (f32::from(quant >> 4) - 8.0);
                }
            }
        }
    }
}

fn encode(dtype: DType, numbers: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::Q8_0 => numbers.chunks(32).flat_map(encode_q8_0).collect(),
        DType::Q4_0 => numbers.chunks(32).flat_map(encode_q4_0).collect(),
    }
}

fn encode_q8_0(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    let quants = block.iter().map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8);
    scale.to_le_bytes().into_iter().chain(quants).collect()
}

fn encode_q4_0(block: &[f32]) -> Vec<u8> {
    let scale = f16::from_f32(fitted_scale(block));
    let inverse = if scale.to_f32() != 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    let quant = |x: f32| (x * inverse + 8.0).round().clamp(0.0, 15.0) as u8;
    let nibbles = (0..16).map(|i| quant(block[i]) | quant(block[16 + i]) << 4);
    scale.to_le_bytes().into_iter().chain(nibbles).collect()
}

/// The scale of 4-bit codes with the least mean square error, of a few that are tried.
fn fitted_scale(block: &[f32]) -> f32 {
    /// Adding it leaves a number no bits behind the point: much faster than rounding.
    const ROUND: f32 = 12_582_912.0;
    let largest = block.iter().fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    if largest == 0.0 {
        return 0.0;
    }
    // The number of the largest size takes about −8, the one code that has no positive twin. Then the scale is fitted to the
    // codes: the error is what this leaves of the numbers' squares.
    let fit = |code_of_largest: f32| {
        let inverse = code_of_largest / largest;
        // Eight sums side by side, as processors add.
        let (mut products, mut squares) = ([0.0; 8], [0.0; 8]);
        for xs in block.as_chunks::<8>().0 {
            for ((x, product), square) in xs.iter().zip(&mut products).zip(&mut squares) {
                let code = (x * inverse).clamp(-8.0, 7.0) + ROUND - ROUND;
                *product += code * x;
                *square += code * code;
            }
        }
        let [products, squares] = [products, squares].map(|sums| sums.iter().sum::<f32>());
        (products * products / squares, products / squares)
    };
    let fits = [-7.0, -7.5, -8.0, -8.5, -9.0].map(fit);
    fits.into_iter().fold((0.0, 0.0), |best, fit| if fit.0 > best.0 { fit } else { best }).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Folder;
    use crate::noise;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 * 0.01)).collect()
    }

    #[test]
    fn each_form_holds_the_numbers_as_closely_as_it_can() {
        let numbers = wave(4 * 64);
        let tensor = HostTensor::from_f32(vec![4, 64], &numbers);
        for (dtype, tolerance) in
            [(DType::F32, 0.0), (DType::F16, 3e-4), (DType::Bf16, 3e-3), (DType::Q8_0, 5e-3), (DType::Q4_0, 0.09)]
        {
            let packed = tensor.to_dtype(dtype).unwrap();
            assert_eq!(packed.bytes().len(), dtype.bytes(&[4, 64]).unwrap());
            let norm = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| x * x).sum::<f32>().sqrt();
            let error = norm(&mut packed.to_f32().iter().zip(&numbers).map(|(a, b)| a - b));
            assert!(error <= tolerance * norm(&mut numbers.iter().copied()), "{dtype:?}: {error}");
            assert_eq!(packed.rows(&[2, 0]), [&packed.to_f32()[128..192], &packed.to_f32()[..64]].concat());
        }
    }

    /// Squares of the errors of 4-bit codes whose scale is fitted, against those of one that only brings the largest to −8.
    fn fitted_against_plain(numbers: &[f32]) -> f64 {
        let tensor = HostTensor::from_f32(vec![numbers.len()], numbers);
        let fitted = tensor.to_dtype(DType::Q4_0).unwrap().to_f32();
        let plain = numbers.chunks_exact(32).flat_map(|block| {
            let largest = block.iter().fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
            let scale = f16::from_f32(largest / -8.0).to_f32();
            block.iter().map(move |x| if scale == 0.0 { 0.0 } else { scale * (x / scale).round().clamp(-8.0, 7.0) })
        });
        let errors = |packed: &mut dyn Iterator<Item = f32>| {
            packed.zip(numbers).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        errors(&mut fitted.into_iter()) / errors(&mut plain.into_iter())
    }

    #[test]
    fn fitted_scales_lose_less() {
        let gaussian = fitted_against_plain(&noise::gaussian(1, 0, 1 << 16));
        let tiny = Folder::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny")).unwrap();
        let matrices = tiny.part("mllm").unwrap().into_values().filter(|tensor| tensor.dtype() == DType::Q8_0);
        let trained = fitted_against_plain(&matrices.flat_map(|tensor| tensor.to_f32()).collect::<Vec<_>>());
        println!("mean square errors: {gaussian:.4} of normal numbers, {trained:.4} of trained ones");
        assert!(gaussian < 0.91 && trained < 0.91, "{gaussian} {trained}");
    }

    #[test]
    fn zeros_stay_zeros() {
        for dtype in [DType::Q8_0, DType::Q4_0] {
            let tensor = HostTensor::from_f32(vec![32], &[0.0; 32]).to_dtype(dtype).unwrap();
            assert_eq!(tensor.to_f32(), [0.0; 32]);
        }
    }

    #[test]
    fn numbers_that_are_too_large_for_a_form_are_errors() {
        let with = |number: f32| {
            let mut numbers = [1.0; 8192];
            numbers[5000] = number;
            HostTensor::from_f32(vec![2, 4096], &numbers)
        };
        for (dtype, held, too_large) in [
            (DType::F16, 65_504.0, 1e6),
            (DType::Bf16, 1e38, f32::MAX),
            (DType::Q8_0, 8e6, 1e30),
            (DType::Q4_0, 4e5, 1e30),
        ] {
            assert_eq!(with(held).to_dtype(dtype).unwrap().first_not_finite(), None, "{dtype:?}");
            let error = with(-too_large).to_dtype(dtype).unwrap_err().to_string();
            assert!(error.contains(&format!("reach {too_large:e}, which {dtype:?}")), "{error}");
            // What was none before is no fault of the form.
            assert_eq!(with(f32::NAN).to_dtype(dtype).unwrap().dtype(), dtype);
        }
        assert_eq!(with(f32::INFINITY).first_not_finite(), Some((5000, f32::INFINITY)));
    }

    #[test]
    fn wrong_sizes_are_errors() {
        assert!(matches!(HostTensor::new(vec![3], DType::F32, vec![0; 11]), Err(WeightError::Malformed { .. })));
        assert!(matches!(HostTensor::new(vec![31], DType::Q8_0, vec![0; 34]), Err(WeightError::Malformed { .. })));
        let huge = vec![usize::MAX, 2];
        assert!(matches!(HostTensor::new(huge, DType::F32, vec![]), Err(WeightError::Malformed { .. })));
    }
}
