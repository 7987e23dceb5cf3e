//! candle-core 0.11, the server's engine: CUDA through candle's own operations, the CPU through kernels of ours.

use candle_core::{DType, Device, Tensor};

use super::{Activation, Binary, ConvOptions, Engine, EngineError, Mask, Unary, plain};
use crate::weights::{HostTensor, Parameter};

use failure::Failure;
use kernels::{AttentionMask, Kernels};

mod cpu;
mod failure;
#[cfg(feature = "faults")]
pub mod faults;
#[cfg(feature = "flash-attention")]
mod flash;
mod kernels;
mod library;

/// The engine on candle. A tensor carries what went wrong while it was computed until it is read back.
#[derive(Debug, Clone)]
pub struct Candle;

/// Where candle's tensors live, in which precision, and whose kernels compute them.
#[derive(Debug, Clone)]
pub struct CandleDevice {
    device: Device,
    dtype: DType,
    kernels: &'static Kernels,
    #[cfg(feature = "faults")]
    faults: faults::Faults,
}

impl CandleDevice {
    /// The CPU, in f32.
    pub fn cpu() -> Self {
        Self::of(Device::Cpu, &cpu::KERNELS)
    }

    /// The CPU computing as CUDA does, with candle's own operations: slow, for tests where there is no GPU.
    pub fn cpu_like_cuda() -> Self {
        Self { kernels: &library::KERNELS, ..Self::cpu() }
    }

    /// The CUDA device of that number, in f32.
    ///
    /// # Errors
    /// [`EngineError::NoDevice`] if there is none, or if this build knows no CUDA.
    pub fn cuda(index: usize) -> Result<Self, EngineError> {
        let device = Device::new_cuda(index).map_err(|error| failure::no_device(format!("cuda:{index}"), &error))?;
        Ok(Self::of(device, &library::KERNELS))
    }

    /// The same device in f16: half the memory. Norms and softmax are computed in f32 all the same.
    ///
    /// On the CPU this means candle's own operations, since ours are for f32.
    pub fn in_f16(self) -> Self {
        Self { dtype: DType::F16, kernels: &library::KERNELS, ..self }
    }

    fn of(device: Device, kernels: &'static Kernels) -> Self {
        Self {
            device,
            dtype: DType::F32,
            kernels,
            #[cfg(feature = "faults")]
            faults: Default::default(),
        }
    }

    /// The tensor of that `shape` that `work` computes from tensors of the shapes `inputs`, or why it could not.
    fn run<const D: usize>(
        &self,
        operation: &str,
        inputs: &[&[usize]],
        shape: [usize; D],
        work: impl FnOnce() -> Result<Tensor, Failure>,
    ) -> CandleTensor<D> {
        #[cfg(feature = "faults")]
        let work = || self.faults.count().and_then(|()| work());
        let value = work().and_then(|x| if x.dims() == shape { Ok(x) } else { Err(Failure::shape(x.dims(), &shape)) });
        let value = value.map_err(|failure| failure.describe(operation, inputs));
        CandleTensor { value, shape, device: self.clone() }
    }
}

/// A tensor of [`Candle`], or why there is none.
#[derive(Debug, Clone)]
pub struct CandleTensor<const D: usize> {
    value: Result<Tensor, EngineError>,
    /// Known for a failed tensor too, so that a graph can go on to its end.
    shape: [usize; D],
    device: CandleDevice,
}

impl<const D: usize> CandleTensor<D> {
    fn get(&self) -> Result<&Tensor, Failure> {
        self.value.as_ref().map_err(|error| Failure::Earlier(error.clone()))
    }

    /// The tensor of that `shape` that `work` computes from this one and the device's kernels.
    fn map<const D2: usize>(
        self,
        operation: &str,
        shape: [usize; D2],
        work: impl FnOnce(&Tensor, &Kernels) -> candle_core::Result<Tensor>,
    ) -> CandleTensor<D2> {
        self.device.run(operation, &[&self.shape], shape, || Ok(work(self.get()?, self.device.kernels)?))
    }
}

/// A linear map of [`Candle`].
#[derive(Debug, Clone)]
pub struct CandleLinear {
    weight: LinearWeight,
    bias: Option<CandleTensor<1>>,
}

#[derive(Debug, Clone)]
enum LinearWeight {
    /// `[in, out]`: few inputs run fastest over rows.
    Dense(CandleTensor<2>),
    /// `[out, in]`, for kernels that read it as it is stored.
    Packed(HostTensor, kernels::PackedLinear),
}

/// A convolution of [`Candle`].
#[derive(Debug, Clone)]
pub struct CandleConv2d {
    /// `[out, in, k, k]`, which is also the matrix `[out, in·k·k]`.
    weight: CandleTensor<4>,
    bias: Option<CandleTensor<1>>,
    options: ConvOptions,
}

impl Engine for Candle {
    type Tensor<const D: usize> = CandleTensor<D>;
    type Device = CandleDevice;
    type Linear = CandleLinear;
    type Conv2d = CandleConv2d;

    const NAME: &'static str = "candle";

    fn in_full_precision(device: &CandleDevice) -> Option<CandleDevice> {
        (device.dtype != DType::F32).then(|| CandleDevice { dtype: DType::F32, ..device.clone() })
    }

    fn from_host<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &CandleDevice) -> CandleTensor<D> {
        device.run("from_host", &[&shape], shape, || {
            Ok(Tensor::from_vec(data, &shape, &device.device)?.to_dtype(device.dtype)?)
        })
    }

    async fn to_host<const D: usize>(x: CandleTensor<D>) -> Result<Vec<f32>, EngineError> {
        let numbers = || -> Result<_, Failure> {
            #[cfg(feature = "faults")]
            x.device.faults.count()?;
            let x = (x.device.kernels.contiguous)(x.get()?)?;
            Ok(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        numbers().map_err(|failure| failure.describe("to_host", &[&x.shape]))
    }

    fn dense<const D: usize>(parameter: Parameter<Self>, shape: [usize; D], device: &CandleDevice) -> CandleTensor<D> {
        match parameter {
            Parameter::Host(tensor) => Self::from_host(tensor.to_f32(), shape, device),
            Parameter::Device(tensor, _) => Self::reshape(tensor, shape),
        }
    }

    fn shape<const D: usize>(x: &CandleTensor<D>) -> [usize; D] {
        x.shape
    }

    fn device<const D: usize>(x: &CandleTensor<D>) -> CandleDevice {
        x.device.clone()
    }

    fn reshape<const D: usize, const D2: usize>(x: CandleTensor<D>, shape: [usize; D2]) -> CandleTensor<D2> {
        x.map("reshape", shape, |x, kernels| (kernels.contiguous)(x)?.reshape(&shape))
    }

    fn permute<const D: usize>(x: CandleTensor<D>, axes: [usize; D]) -> CandleTensor<D> {
        let shape = axes.map(|axis| x.shape[axis]);
        x.map("permute", shape, |x, _| x.permute(axes))
    }

    fn narrow<const D: usize>(x: CandleTensor<D>, dim: usize, start: usize, length: usize) -> CandleTensor<D> {
        let shape = with(x.shape, dim, length);
        x.map("narrow", shape, |x, _| x.narrow(dim, start, length))
    }

    fn cat<const D: usize>(parts: Vec<CandleTensor<D>>, dim: usize) -> CandleTensor<D> {
        let device = &parts[0].device;
        let shape = with(parts[0].shape, dim, parts.iter().map(|part| part.shape[dim]).sum());
        let shapes: Vec<&[usize]> = parts.iter().map(|part| part.shape.as_slice()).collect();
        device.run("cat", &shapes, shape, || {
            let contiguous = |part: &CandleTensor<D>| Ok((device.kernels.contiguous)(part.get()?)?);
            Ok(Tensor::cat(&parts.iter().map(contiguous).collect::<Result<Vec<_>, Failure>>()?, dim)?)
        })
    }

    fn affine<const D: usize>(x: CandleTensor<D>, scale: f32, offset: f32) -> CandleTensor<D> {
        let shape = x.shape;
        x.map("affine", shape, |x, kernels| (kernels.affine)(x, scale, offset))
    }

    fn unary<const D: usize>(x: CandleTensor<D>, function: Unary) -> CandleTensor<D> {
        let shape = x.shape;
        x.map("unary", shape, |x, kernels| (kernels.unary)(x, function))
    }

    fn binary<const D: usize>(a: CandleTensor<D>, b: CandleTensor<D>, function: Binary) -> CandleTensor<D> {
        let shape = std::array::from_fn(|dim| if a.shape[dim] == 1 { b.shape[dim] } else { a.shape[dim] });
        a.device.run("binary", &[&a.shape, &b.shape], shape, || {
            Ok((a.device.kernels.binary)(a.get()?, b.get()?, function)?)
        })
    }

    fn sum<const D: usize>(x: CandleTensor<D>, dim: usize) -> CandleTensor<D> {
        let shape = with(x.shape, dim, 1);
        x.map("sum", shape, |x, kernels| (kernels.sum)(x, dim))
    }

    fn matmul<const D: usize>(a: CandleTensor<D>, b: CandleTensor<D>) -> CandleTensor<D> {
        let shape = with(a.shape, D - 1, b.shape[D - 1]);
        a.device.run("matmul", &[&a.shape, &b.shape], shape, || {
            let kernels = a.device.kernels;
            Ok(kernels.matmul_operand(a.get()?)?.matmul(&kernels.matmul_operand(b.get()?)?)?)
        })
    }

    fn softmax<const D: usize>(x: CandleTensor<D>) -> CandleTensor<D> {
        let shape = x.shape;
        x.map("softmax", shape, |x, kernels| (kernels.softmax)(x))
    }

    fn log_softmax<const D: usize>(x: CandleTensor<D>) -> CandleTensor<D> {
        let shape = x.shape;
        x.map("log_softmax", shape, |x, kernels| (kernels.log_softmax)(x))
    }

    fn rows(table: CandleTensor<2>, rows: &[u32]) -> CandleTensor<2> {
        let shape = with(table.shape, 0, rows.len());
        table.map("rows", shape, |table, kernels| {
            (kernels.contiguous)(table)?.index_select(&Tensor::new(rows, table.device())?, 0)
        })
    }

    fn pad(x: CandleTensor<4>, [left, right, top, bottom]: [usize; 4]) -> CandleTensor<4> {
        let [b, c, h, w] = x.shape;
        x.map("pad", [b, c, top + h + bottom, left + w + right], |x, kernels| {
            (kernels.contiguous)(x)?.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)
        })
    }

    fn upsample(x: CandleTensor<4>, [height, width]: [usize; 2]) -> CandleTensor<4> {
        let [b, c, ..] = x.shape;
        x.map("upsample", [b, c, height, width], |x, kernels| (kernels.upsample)(x, [height, width]))
    }

    fn prepare_linear(weight: Parameter<Self>, bias: Option<Parameter<Self>>, device: &CandleDevice) -> CandleLinear {
        let bias = prepare_bias(bias, device);
        let weight = match (weight, device.kernels.packed_linear) {
            (Parameter::Host(weight), Some(kernel)) if weight.dtype().stays_packed(weight.shape()) => {
                LinearWeight::Packed(weight, kernel)
            }
            (weight, _) => {
                let shape = [weight.shape()[0], weight.shape()[1]];
                let weight = Self::permute(Self::dense(weight, shape, device), [1, 0]);
                let shape = weight.shape;
                let row_major = weight.map("prepare_linear", shape, |weight, kernels| (kernels.contiguous)(weight));
                LinearWeight::Dense(row_major)
            }
        };
        CandleLinear { weight, bias }
    }

    fn linear<const D: usize>(x: CandleTensor<D>, linear: &CandleLinear) -> CandleTensor<D> {
        let bias = &linear.bias;
        match &linear.weight {
            LinearWeight::Dense(weight) => {
                let shape = with(x.shape, D - 1, weight.shape[1]);
                x.device.run("linear", &[&x.shape, &weight.shape], shape, || {
                    Ok((x.device.kernels.linear)(x.get()?, weight.get()?, optional(bias)?)?)
                })
            }
            LinearWeight::Packed(weight, kernel) => {
                let shape = with(x.shape, D - 1, weight.shape()[0]);
                x.device.run("linear", &[&x.shape, weight.shape()], shape, || {
                    Ok(kernel(x.get()?, weight, optional(bias)?)?)
                })
            }
        }
    }

    fn prepare_conv2d(
        weight: Parameter<Self>,
        bias: Option<Parameter<Self>>,
        options: ConvOptions,
        device: &CandleDevice,
    ) -> CandleConv2d {
        let shape = std::array::from_fn(|dim| weight.shape()[dim]);
        CandleConv2d { weight: Self::dense(weight, shape, device), bias: prepare_bias(bias, device), options }
    }

    fn conv2d(x: CandleTensor<4>, conv: &CandleConv2d) -> CandleTensor<4> {
        let CandleConv2d { weight, bias, options } = conv;
        let [out, _, kernel, _] = weight.shape;
        let size = |pixels: usize| (pixels + 2 * options.padding).saturating_sub(kernel) / options.stride + 1;
        let [b, _, h, w] = x.shape;
        x.device.run("conv2d", &[&x.shape, &weight.shape], [b, out, size(h), size(w)], || {
            Ok((x.device.kernels.conv2d)(x.get()?, weight.get()?, optional(bias)?, *options)?)
        })
    }

    fn layer_norm<const D: usize>(
        x: CandleTensor<D>,
        weight: &CandleTensor<1>,
        bias: &CandleTensor<1>,
        eps: f32,
    ) -> CandleTensor<D> {
        x.device.run("layer_norm", &[&x.shape, &weight.shape], x.shape, || {
            Ok((x.device.kernels.layer_norm)(x.get()?, weight.get()?, bias.get()?, eps)?)
        })
    }

    fn group_norm(
        x: CandleTensor<4>,
        groups: usize,
        weight: &CandleTensor<1>,
        bias: &CandleTensor<1>,
        eps: f32,
        activation: Activation,
    ) -> CandleTensor<4> {
        x.device.run("group_norm", &[&x.shape, &weight.shape], x.shape, || {
            let norm = kernels::GroupNorm { groups, weight: weight.get()?, bias: bias.get()?, eps, activation };
            Ok((x.device.kernels.group_norm)(x.get()?, norm)?)
        })
    }

    fn geglu<const D: usize>(x: CandleTensor<D>) -> CandleTensor<D> {
        let Some(geglu) = x.device.kernels.geglu else {
            return plain::geglu::<Self, D>(x);
        };
        let shape = with(x.shape, D - 1, x.shape[D - 1] / 2);
        x.map("geglu", shape, |x, _| geglu(x))
    }

    fn attention(
        q: CandleTensor<3>,
        k: CandleTensor<3>,
        v: CandleTensor<3>,
        heads: usize,
        mask: &Mask<Self>,
    ) -> CandleTensor<3> {
        let attention = q.device.kernels.attention;
        #[cfg(feature = "flash-attention")]
        let attention = attention.or_else(|| flash::kernel(&q.device, q.shape[2] / heads, mask));
        let Some(attention) = attention else {
            return plain::attention::<Self>([q, k, v], heads, mask, SCORES);
        };
        q.device.run("attention", &[&q.shape, &k.shape, &v.shape], q.shape, || {
            let mask = match mask {
                Mask::None => AttentionMask::None,
                Mask::Causal => AttentionMask::Causal,
                Mask::Keys(keys) => AttentionMask::Keys(keys.0.get()?),
            };
            Ok(attention([q.get()?, k.get()?, v.get()?], heads, mask)?)
        })
    }
}

/// Scores that attention computes at once in the plain way: 256 MiB of them in f32, of which softmax has several copies.
const SCORES: usize = 64 << 20;

fn prepare_bias(bias: Option<Parameter<Candle>>, device: &CandleDevice) -> Option<CandleTensor<1>> {
    bias.map(|bias| {
        let shape = [bias.shape()[0]];
        Candle::dense(bias, shape, device)
    })
}

fn optional(bias: &Option<CandleTensor<1>>) -> Result<Option<&Tensor>, Failure> {
    bias.as_ref().map(CandleTensor::get).transpose()
}

fn with<const D: usize>(mut shape: [usize; D], dim: usize, size: usize) -> [usize; D] {
    shape[dim] = size;
    shape
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;

    #[test]
    fn attention_in_parts_is_the_same() {
        let device = CandleDevice::cpu_like_cuda();
        let tensor = |shape: [usize; 3], salt: usize| {
            let number = |i: usize| ((i * 37 + salt) % 101) as f32 / 50.0 - 1.0;
            Candle::from_host((0..shape.iter().product()).map(number).collect(), shape, &device)
        };
        let heads = 2;
        let hidden = (0..10).map(|i| if i % 5 == 3 { Mask::<Candle>::HIDDEN } else { 0.0 }).collect();
        let hidden = Mask::Keys(crate::engine::Tensor(Candle::from_host(hidden, [2, 5], &device)));
        for (mask, keys) in [(Mask::None, 5), (hidden, 5), (Mask::Causal, 7)] {
            // Three queries at a time, one at a time though even it is too much, and all.
            let [whole, parts @ ..] = [usize::MAX, 2 * 2 * keys * 3, 1, 2 * 2 * keys * 7].map(|most| {
                let qkv = [tensor([2, 7, 8], 1), tensor([2, keys, 8], 2), tensor([2, keys, 8], 3)];
                block_on(Candle::to_host(plain::attention::<Candle>(qkv, heads, &mask, most))).unwrap()
            });
            assert!(parts.iter().all(|part| *part == whole), "{mask:?}: {parts:?} are not {whole:?}");
        }
    }
}
