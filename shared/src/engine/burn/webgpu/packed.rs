//! Linear maps on the GPU whose weights stay in blocks of 8 or 4 bits: the matrix product unpacks them on the way.
//!
//! A unit computes a few rows by four columns of the result. The four columns lie side by side in memory, word by word, so that
//! neighbouring units read neighbouring words; each number that is unpacked is used for all of the unit's rows. It needs neither
//! workgroup memory nor subgroups, and works for units in any number. Where a shader can have numbers of 16 bits, the
//! activations are read as such, which halves what is read most; sums have 32 bits everywhere.

use ::burn::backend::Cube;
use ::burn::tensor::{Bytes, DType, Device, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::server::Handle;
use half::f16;

use super::{Gpu, opened};
use crate::engine::burn::Burn;
use crate::engine::cpu::matrix::Matrix;
use crate::engine::cpu::packed;
use crate::engine::{Engine as _, EngineError};
use crate::weights::{DType as Stored, HostTensor};

/// Numbers of a block, which share a scale.
const BLOCK: usize = 32;
/// Rows of the result that a unit computes.
const ROWS: usize = 8;
/// Columns of the result that a unit computes.
const COLUMNS: usize = 4;
/// Units of a workgroup, along the columns.
const UNITS: u32 = 64;

/// A weight `[out, in]` on the GPU, in blocks.
#[derive(Debug, Clone)]
pub struct PackedWeight {
    /// `[in / 4, out]` words of four bytes, 128 for 0, or `[in / 8, out]` of eight nibbles, 8 for 0.
    quants: Handle,
    /// `[⌈in / 64⌉, out]` words of two f16: scales of an even block, in the low half, and of the next.
    scales: Handle,
    kernel: Kernel,
    size: [usize; 2],
}

/// A way to compute a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    form: Form,
    activations: Activations,
}

/// In how many bits a kernel reads activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activations {
    F32,
    F16,
}

impl Kernel {
    /// All of them; of two for the same form, the faster one first.
    const ALL: [Self; 4] = [
        Self { form: Form::Q8, activations: Activations::F16 },
        Self { form: Form::Q8, activations: Activations::F32 },
        Self { form: Form::Q4, activations: Activations::F16 },
        Self { form: Form::Q4, activations: Activations::F32 },
    ];

    /// Those that a GPU has what it takes for.
    pub fn possible(has_f16: bool) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kernel| has_f16 || kernel.activations == Activations::F32)
    }

    /// The best one for a form: a comparison has not shown that it computes something else here.
    fn best(form: Form, has_f16: bool, wrong: &[&str]) -> Option<Self> {
        Self::possible(has_f16).find(|kernel| kernel.form == form && !wrong.contains(&kernel.name()))
    }

    /// The best one for a weight on this program's GPU.
    fn of(weight: &HostTensor) -> Option<Self> {
        let wrong = opened().map_or(&[][..], Gpu::wrong_kernels);
        Self::best(Form::of(weight)?, has_f16(), wrong)
    }

    pub fn name(self) -> &'static str {
        match (self.form, self.activations) {
            (Form::Q8, Activations::F32) => "linear map of 8 bits",
            (Form::Q8, Activations::F16) => "linear map of 8 bits, activations of 16",
            (Form::Q4, Activations::F32) => "linear map of 4 bits",
            (Form::Q4, Activations::F16) => "linear map of 4 bits, activations of 16",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Q8,
    Q4,
}

impl Form {
    fn of(weight: &HostTensor) -> Option<Self> {
        match weight.dtype() {
            Stored::Q8_0 => Some(Form::Q8),
            Stored::Q4_0 => Some(Form::Q4),
            Stored::F32 | Stored::F16 | Stored::Bf16 => None,
        }
    }

    fn stored(self) -> Stored {
        match self {
            Form::Q8 => Stored::Q8_0,
            Form::Q4 => Stored::Q4_0,
        }
    }

    /// Words of a block.
    fn words(self) -> usize {
        match self {
            Form::Q8 => 8,
            Form::Q4 => 4,
        }
    }

    /// Numbers of a byte.
    fn parts(self) -> usize {
        8 / self.words()
    }

    fn mask(self) -> u32 {
        match self {
            Form::Q8 => 255,
            Form::Q4 => 15,
        }
    }

    /// What stands for 0.
    fn zero(self) -> f32 {
        match self {
            Form::Q8 => 128.0,
            Form::Q4 => 8.0,
        }
    }
}

/// Whether [`linear`] can compute with a weight `[out, in]` as it is stored: not if a comparison has shown that it computes
/// something else here.
pub fn takes(weight: &HostTensor) -> bool {
    Kernel::of(weight).is_some() && weight.shape()[0].is_multiple_of(COLUMNS)
}

/// How far a kernel's result is from the CPU's on a small case, relative to the largest number.
///
/// # Errors
/// [`EngineError`] if the device fails or refuses the kernel.
pub async fn deviation(kernel: Kernel, device: &Device) -> Result<f32, EngineError> {
    // A number of blocks that is odd, groups that fill no workgroup, and rows that fill no unit.
    let [rows, inputs, outputs] = [ROWS + 3, 5 * BLOCK, 3 * COLUMNS];
    let (x, bias) = (wave(rows * inputs, 0.7), wave(outputs, 0.3));
    let numbers = HostTensor::from_f32(vec![outputs, inputs], &wave(outputs * inputs, 0.37));
    let weight = numbers.to_dtype(kernel.form.stored()).expect("rows of whole blocks");
    let read: Vec<f32> = match kernel.activations {
        Activations::F32 => x.clone(),
        Activations::F16 => x.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
    };
    let expected = packed::linear(Matrix::new(&read, [rows, inputs]), &weight, Some(&bias));
    let on_gpu = PackedWeight::for_kernel(kernel, &weight, device);
    let tensor = |numbers: &[f32]| Tensor::<1>::from_floats(numbers, device);
    let y = linear(tensor(&x).reshape([rows, inputs]), &on_gpu, Some(tensor(&bias)));
    let found = Burn::to_host(y).await?;
    // A number that is none is as far as can be.
    let off = |(found, expected): (&f32, &f32)| Some((found - expected).abs()).filter(|off| off.is_finite());
    let furthest = found.iter().zip(&expected).map(|pair| off(pair).unwrap_or(f32::INFINITY)).fold(0.0, f32::max);
    let largest = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    Ok(furthest / largest)
}

/// Whether shaders on this program's GPU can have numbers of 16 bits.
fn has_f16() -> bool {
    opened().is_some_and(|gpu| gpu.limits.has_f16)
}

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * by).sin()).collect()
}

impl PackedWeight {
    /// Brings a weight that the kernel [takes] to a GPU.
    ///
    /// # Panics
    /// If it is none.
    pub fn new(weight: &HostTensor, device: &Device) -> Self {
        Self::for_kernel(Kernel::of(weight).expect("a weight that a kernel takes"), weight, device)
    }

    fn for_kernel(kernel: Kernel, weight: &HostTensor, device: &Device) -> Self {
        let form = kernel.form;
        let &[outputs, inputs] = weight.shape() else { panic!("a linear map of shape {:?}", weight.shape()) };
        let client = cube(Tensor::<1>::zeros([1], device)).client;
        let (mut quants, scales) = side_by_side(weight.bytes(), form.words(), [outputs, inputs / BLOCK]);
        if form == Form::Q8 {
            // From −128 … 127 to 0 … 255.
            quants.iter_mut().for_each(|word| *word ^= 0x8080_8080);
        }
        let [quants, scales] = [quants, scales].map(|words| client.create(Bytes::from_elems(words)));
        Self { quants, scales, kernel, size: [outputs, inputs] }
    }
}

/// The words of rows of blocks, and pairs of their scales, such that those of neighbouring rows are neighbours.
fn side_by_side(bytes: &[u8], words: usize, [rows, blocks]: [usize; 2]) -> (Vec<u32>, Vec<u32>) {
    let block_bytes = 2 + 4 * words;
    let mut quants = vec![0; words * blocks * rows];
    let mut scales = vec![0; blocks.div_ceil(2) * rows];
    for (i, block) in bytes.chunks_exact(block_bytes).enumerate() {
        let (row, block_at) = (i / blocks, i % blocks);
        let (scale, block) = block.split_at(2);
        scales[block_at / 2 * rows + row] |=
            u32::from(u16::from_le_bytes([scale[0], scale[1]])) << (16 * (block_at % 2));
        for (word, bytes) in block.as_chunks().0.iter().enumerate() {
            quants[(block_at * words + word) * rows + row] = u32::from_le_bytes(*bytes);
        }
    }
    (quants, scales)
}

/// A tensor of the GPU, row-major.
fn cube<const D: usize>(x: Tensor<D>) -> CubeTensor {
    into_contiguous(x.try_into_primitive::<Cube>().expect("a tensor on the GPU"))
}

/// `x · weightᵀ + bias`: x `[…, in]`, bias `[out]`, to `[…, out]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: &PackedWeight, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let [outputs, inputs] = weight.size;
    shape[D - 1] = outputs;
    let rows: usize = shape[..D - 1].iter().product();
    let bias = cube(bias.unwrap_or_else(|| Tensor::zeros([outputs], &x.device())));
    let x = cube(x);
    let client = x.client.clone();
    let y = client.empty(rows * outputs * size_of::<f32>());
    let argument = |handle: &Handle, numbers: usize| {
        // SAFETY: handles of as many numbers as they were made with.
        unsafe { BufferArg::from_raw_parts(handle.clone(), numbers / COLUMNS) }
    };
    let (Kernel { form, activations }, blocks) = (weight.kernel, inputs / BLOCK);
    let launch = match activations {
        Activations::F32 => packed_linear::launch::<f32>,
        Activations::F16 => packed_linear::launch::<f16>,
    };
    let x_read = match activations {
        Activations::F32 => x.handle.clone(),
        Activations::F16 => {
            let halves = client.empty(rows * inputs * size_of::<f16>());
            let count = CubeCount::Static(((inputs / COLUMNS) as u32).div_ceil(UNITS), rows as u32, 1);
            let [from, to] = [argument(&x.handle, rows * inputs), argument(&halves, rows * inputs)];
            round::launch(&client, count, CubeDim::new_1d(UNITS), COLUMNS, from, to, (inputs / COLUMNS) as u32);
            halves
        }
    };
    let groups = (outputs / COLUMNS) as u32;
    launch(
        &client,
        CubeCount::Static(groups.div_ceil(UNITS), rows.div_ceil(ROWS) as u32, 1),
        CubeDim::new_1d(UNITS),
        COLUMNS,
        argument(&x_read, rows * inputs),
        argument(&weight.quants, blocks * form.words() * outputs),
        argument(&weight.scales, blocks.div_ceil(2) * outputs),
        argument(&bias.handle, outputs),
        argument(&y, rows * outputs),
        rows as u32,
        blocks as u32,
        form,
    );
    let y = CubeTensor::new_contiguous(client, x.device.clone(), shape.into(), y, DType::F32);
    Tensor::from_primitive::<Cube>(y)
}

/// Rows of `groups` vectors of four in 16 bits; what these cannot hold becomes the largest number that they can.
#[cube(launch)]
fn round<N: Size>(x: &[Vector<f32, N>], y: &mut [Vector<f16, N>], groups: u32) {
    if ABSOLUTE_POS_X < groups {
        let at = (CUBE_POS_Y * groups + ABSOLUTE_POS_X) as usize;
        y[at] = Vector::cast_from(clamp(x[at], Vector::new(-65504.0f32), Vector::new(65504.0f32)));
    }
}

/// Unit (i, j) computes columns 4·i to 4·i + 3 of rows 8·j to 8·j + 7 of `x · weightᵀ + bias`, all in vectors of four.
#[cube(launch)]
fn packed_linear<F: Float, N: Size>(
    x: &[Vector<F, N>],
    quants: &[Vector<u32, N>],
    scales: &[Vector<u32, N>],
    bias: &[Vector<f32, N>],
    y: &mut [Vector<f32, N>],
    rows: u32,
    blocks: u32,
    #[comptime] form: Form,
) {
    let groups = bias.len();
    let group = ABSOLUTE_POS_X as usize;
    let (rows, blocks) = (rows as usize, blocks as usize);
    let first = CUBE_POS_Y as usize * ROWS;
    if group < groups {
        let mut sums = Array::<Vector<f32, N>>::new(ROWS);
        #[unroll]
        for row in 0..ROWS {
            sums[row] = bias[group];
        }
        let words = form.words();
        for block in 0..blocks {
            let pair = scales[block / 2 * groups + group];
            let scale = f16_numbers(pair >> Vector::new((block % 2) as u32 * 16));
            #[unroll]
            for word in 0..words {
                let packed = quants[(block * words + word) * groups + group];
                // Where in the block's input the word's numbers are: bytes from one place, nibbles from two.
                #[unroll]
                for part in 0..form.parts() {
                    let place = block * (BLOCK / COLUMNS) + part * words + word;
                    let mut inputs = Array::<Vector<f32, N>>::new(ROWS);
                    #[unroll]
                    for row in 0..ROWS {
                        // Rows past the end are computed like the last one, and not kept.
                        let row_at = min(first + row, rows - 1);
                        inputs[row] = Vector::cast_from(x[row_at * (blocks * (BLOCK / COLUMNS)) + place]);
                    }
                    #[unroll]
                    for byte in 0..4usize {
                        let shift = (byte * 8 + part * 4) as u32;
                        let quant = (packed >> Vector::new(shift)) & Vector::new(form.mask());
                        let number = (Vector::cast_from(quant) - Vector::new(form.zero())) * scale;
                        #[unroll]
                        for row in 0..ROWS {
                            sums[row] += Vector::new(inputs[row].extract(byte)) * number;
                        }
                    }
                }
            }
        }
        #[unroll]
        for row in 0..ROWS {
            if first + row < rows {
                y[(first + row) * groups + group] = sums[row];
            }
        }
    }
}

/// What the lower halves of words say as f16.
#[cube]
fn f16_numbers<N: Size>(bits: Vector<u32, N>) -> Vector<f32, N> {
    let exponent = (bits >> Vector::new(10u32)) & Vector::new(31u32);
    let sign = Vector::<f32, N>::cast_from((bits >> Vector::new(15u32)) & Vector::new(1u32));
    // Numbers below the smallest normal one have its exponent, and no leading 1.
    let leading = min(exponent, Vector::new(1u32));
    let mantissa = (bits & Vector::new(1023u32)) + (leading << Vector::new(10u32));
    let power = (max(exponent, Vector::new(1u32)) + Vector::new(102u32)) << Vector::new(23u32);
    Vector::cast_from(mantissa) * Vector::reinterpret(power) * (Vector::new(1.0f32) - sign * Vector::new(2.0f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::burn::BurnDevice;

    #[test]
    fn the_gpu_computes_what_the_cpu_does() {
        let device = pollster::block_on(BurnDevice::webgpu()).unwrap();
        let deviations = pollster::block_on(device.compare_kernels(1e-3)).unwrap();
        assert_eq!(deviations.len(), if device.gpu_limits().unwrap().has_f16 { 4 } else { 2 });
        assert!(deviations.iter().all(|(_, deviation)| *deviation < 1e-5), "{deviations:?}");
    }

    #[test]
    fn a_wrong_kernel_gives_way_to_the_next_one() {
        let best = |has_f16, wrong: &[&str]| Kernel::best(Form::Q4, has_f16, wrong).map(|kernel| kernel.activations);
        let [fast, plain] = ["linear map of 4 bits, activations of 16", "linear map of 4 bits"];
        assert_eq!(best(true, &[]), Some(Activations::F16));
        assert_eq!(best(true, &[fast]), Some(Activations::F32));
        assert_eq!(best(true, &["linear map of 8 bits, activations of 16"]), Some(Activations::F16));
        assert_eq!(best(false, &[]), Some(Activations::F32));
        assert_eq!(best(true, &[fast, plain]), None);
        assert_eq!(best(false, &[plain]), None);
    }

    #[test]
    fn activations_that_16_bits_cannot_hold_stay_finite() {
        let device = pollster::block_on(BurnDevice::webgpu()).unwrap();
        let weight = HostTensor::from_f32(vec![4, 32], &[1.0; 4 * 32]).to_dtype(Stored::Q8_0).unwrap();
        let kernels: Vec<_> = Kernel::possible(has_f16()).filter(|kernel| kernel.form == Form::Q8).collect();
        for kernel in kernels {
            let on_gpu = PackedWeight::for_kernel(kernel, &weight, device.inner());
            let mut x = vec![0.0; 32];
            (x[0], x[1], x[2]) = (2e5, -1e5, 0.5);
            let y = linear(Tensor::<1>::from_floats(x.as_slice(), device.inner()).reshape([1, 32]), &on_gpu, None);
            let found = pollster::block_on(Burn::to_host(y)).unwrap();
            let expected = if kernel.activations == Activations::F16 { 0.5 } else { 1e5 + 0.5 };
            assert!(found.iter().all(|y| (y - expected).abs() < 1e-2 * expected), "{kernel:?}: {found:?}");
        }
    }

    #[test]
    fn scales_of_all_sizes_are_read() {
        let device = pollster::block_on(BurnDevice::webgpu()).unwrap();
        for largest in [6e4f32, 1.0, 3e-5, 2e-6] {
            let numbers: Vec<f32> = wave(4 * 32, 0.37).iter().map(|x| x * largest).collect();
            let weight = HostTensor::from_f32(vec![4, 32], &numbers).to_dtype(Stored::Q8_0).unwrap();
            let on_gpu = PackedWeight::new(&weight, device.inner());
            let mut one = vec![0.0; 32];
            one[3] = 1.0;
            let y = linear(Tensor::<1>::from_floats(one.as_slice(), device.inner()).reshape([1, 32]), &on_gpu, None);
            let found = pollster::block_on(Burn::to_host(y)).unwrap();
            let expected: Vec<f32> = weight.to_f32().chunks(32).map(|row| row[3]).collect();
            assert_eq!(found, expected, "{largest}");
        }
    }
}
