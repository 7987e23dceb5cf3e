//! The engine of the page and of training: the burn library, on the CPU or over WebGPU, picked at run time.

use ::burn::Tensor;
use ::burn::tensor::activation;
use ::burn::tensor::module;
use ::burn::tensor::ops::{InterpolateMode, InterpolateOptions, PadMode};
use ::burn::tensor::{ExecutionError, FloatDType, Int, TensorData};

use super::{Activation, Binary, ConvOptions, Engine, EngineError, Mask, Unary, plain};
use crate::weights::{HostTensor, Parameter};

pub use device::BurnDevice;
#[cfg(feature = "autodiff")]
use train::{lower_precision, seen};
#[cfg(feature = "webgpu")]
pub use webgpu::GpuLimits;

mod cpu;
mod device;
#[cfg(feature = "autodiff")]
pub mod train;
#[cfg(feature = "webgpu")]
mod webgpu;

/// The burn library as an [`Engine`].
#[derive(Debug, Clone)]
pub struct Burn;

/// A prepared linear map.
#[derive(Debug, Clone)]
pub struct BurnLinear {
    weight: LinearWeight,
    bias: Option<Tensor<1>>,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "nearly all are dense; not on 32 bits, where it is none")]
enum LinearWeight {
    /// `[in, out]`, except while training on the CPU: there `[out, in]`, as it is stored, to spare a transposition in
    /// each step.
    Dense(Tensor<2>, cpu::Rows),
    /// `[out, in]`, on the CPU, where no gradients are wanted.
    Packed(HostTensor),
    /// The same on the GPU.
    #[cfg(feature = "webgpu")]
    OnGpu(webgpu::packed::PackedWeight),
}

/// A prepared convolution: `weight` `[out, in, k, k]`.
#[derive(Debug, Clone)]
pub struct BurnConv2d {
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions,
}

impl Engine for Burn {
    type Tensor<const D: usize> = Tensor<D>;
    type Device = BurnDevice;
    type Linear = BurnLinear;
    type Conv2d = BurnConv2d;

    const NAME: &'static str = "burn";

    fn largest_tensor_bytes(device: &BurnDevice) -> u64 {
        device.largest_tensor_bytes()
    }

    fn from_host<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &BurnDevice) -> Tensor<D> {
        Tensor::from_data(TensorData::new(data, shape), device.inner())
    }

    async fn to_host<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>, EngineError> {
        let device = Self::device(&x);
        let data = x.into_data_async().await;
        device.check()?;
        let data = data.map_err(read_error)?.convert::<f32>().try_into_vec::<f32>();
        data.map_err(|error| operation("to_host", format!("{error:?}")))
    }

    fn dense<const D: usize>(parameter: Parameter<Self>, shape: [usize; D], device: &BurnDevice) -> Tensor<D> {
        match parameter {
            Parameter::Host(tensor) => Self::from_host(tensor.to_f32(), shape, device),
            Parameter::Device(flat, _) => flat.reshape(shape),
        }
    }

    fn shape<const D: usize>(x: &Tensor<D>) -> [usize; D] {
        x.dims()
    }

    fn device<const D: usize>(x: &Tensor<D>) -> BurnDevice {
        BurnDevice::from(x.device())
    }

    fn reshape<const D: usize, const D2: usize>(x: Tensor<D>, shape: [usize; D2]) -> Tensor<D2> {
        seen(x).reshape(shape)
    }

    fn permute<const D: usize>(x: Tensor<D>, axes: [usize; D]) -> Tensor<D> {
        seen(x).permute(axes)
    }

    fn narrow<const D: usize>(x: Tensor<D>, dim: usize, start: usize, length: usize) -> Tensor<D> {
        seen(x).narrow(dim, start, length)
    }

    fn cat<const D: usize>(parts: Vec<Tensor<D>>, dim: usize) -> Tensor<D> {
        Tensor::cat(parts.into_iter().map(seen).collect(), dim)
    }

    fn affine<const D: usize>(x: Tensor<D>, scale: f32, offset: f32) -> Tensor<D> {
        let x = seen(x);
        let x = if scale == 1.0 { x } else { x.mul_scalar(scale) };
        if offset == 0.0 { x } else { x.add_scalar(offset) }
    }

    fn unary<const D: usize>(x: Tensor<D>, function: Unary) -> Tensor<D> {
        let x = seen(x);
        match function {
            Unary::Silu | Unary::Gelu | Unary::QuickGelu if on_cpu(&x) => {
                cpu::apply(cpu::Activate(function), [x.into()])
            }
            Unary::Exp => x.exp(),
            Unary::Log => x.log(),
            Unary::Sqrt => x.sqrt(),
            Unary::Silu => activation::silu(x),
            Unary::Gelu => activation::gelu(x),
            Unary::QuickGelu => x.clone() * activation::sigmoid(x.mul_scalar(1.702)),
        }
    }

    fn binary<const D: usize>(a: Tensor<D>, b: Tensor<D>, function: Binary) -> Tensor<D> {
        let (a, b) = (seen(a), seen(b));
        match function {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
        }
    }

    fn sum<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
        seen(x).sum_dim(dim)
    }

    fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        let (a, b) = (seen(a), seen(b));
        match lower_precision() {
            Some(lower) => a.cast(lower).matmul(b.cast(lower)).cast(FloatDType::F32),
            None => a.matmul(b),
        }
    }

    fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::softmax(seen(x), D - 1)
    }

    fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::log_softmax(seen(x), D - 1)
    }

    fn rows(table: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let n = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &table.device());
        seen(table).select(0, rows)
    }

    fn pad(x: Tensor<4>, [left, right, top, bottom]: [usize; 4]) -> Tensor<4> {
        seen(x).pad([(top, bottom), (left, right)], PadMode::Constant(0.0))
    }

    fn upsample(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        module::interpolate(seen(x), InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size))
    }

    fn prepare_linear(weight: Parameter<Self>, bias: Option<Parameter<Self>>, device: &BurnDevice) -> BurnLinear {
        let shape = [weight.shape()[0], weight.shape()[1]];
        let bias = bias.map(|bias| Self::dense(bias, [shape[0]], device));
        let is_trained = device.inner().is_autodiff();
        let stays_packed = |weight: &HostTensor| weight.dtype().stays_packed(weight.shape());
        let weight = match weight {
            Parameter::Host(weight) if !is_trained && device.is_cpu() && stays_packed(&weight) => {
                LinearWeight::Packed(weight)
            }
            // Of any size: on a GPU the product that unpacks is also the faster one.
            #[cfg(feature = "webgpu")]
            Parameter::Host(weight)
                if !is_trained && device.gpu_limits().is_some() && webgpu::packed::takes(&weight) =>
            {
                LinearWeight::OnGpu(webgpu::packed::PackedWeight::new(&weight, device.inner()))
            }
            weight => {
                let weight = Self::dense(weight, shape, device);
                match (on_cpu(&weight), weight.is_autodiff()) {
                    (true, true) => LinearWeight::Dense(weight, cpu::Rows::Outputs),
                    (true, false) => LinearWeight::Dense(cpu::row_major(weight.transpose()), cpu::Rows::Inputs),
                    (false, _) => LinearWeight::Dense(weight.transpose(), cpu::Rows::Inputs),
                }
            }
        };
        BurnLinear { weight, bias }
    }

    fn linear<const D: usize>(x: Tensor<D>, linear: &BurnLinear) -> Tensor<D> {
        let BurnLinear { weight, bias } = linear.clone();
        let (x, bias) = (seen(x), bias.map(seen));
        let (weight, rows) = match weight {
            LinearWeight::Dense(weight, rows) => (seen(weight), rows),
            LinearWeight::Packed(weight) => return cpu::packed_linear(x, &weight, bias),
            #[cfg(feature = "webgpu")]
            LinearWeight::OnGpu(weight) => return webgpu::packed::linear(x, &weight, bias),
        };
        if let Some(lower) = lower_precision() {
            let weight = if rows == cpu::Rows::Outputs { weight.transpose() } else { weight };
            let bias = bias.map(|bias| bias.cast(lower));
            return module::linear(x.cast(lower), weight.cast(lower), bias).cast(FloatDType::F32);
        }
        if on_cpu(&x) {
            let output = weight.dims()[if rows == cpu::Rows::Inputs { 1 } else { 0 }];
            let bias = bias.unwrap_or_else(|| Tensor::zeros([output], &weight.device()));
            return cpu::apply(cpu::Linear(rows), [x.into(), weight.into(), bias.into()]);
        }
        module::linear(x, weight, bias)
    }

    fn prepare_conv2d(
        weight: Parameter<Self>,
        bias: Option<Parameter<Self>>,
        options: ConvOptions,
        device: &BurnDevice,
    ) -> BurnConv2d {
        let shape = [weight.shape()[0], weight.shape()[1], weight.shape()[2], weight.shape()[3]];
        BurnConv2d {
            weight: Self::dense(weight, shape, device),
            bias: bias.map(|bias| Self::dense(bias, [shape[0]], device)),
            options,
        }
    }

    fn conv2d(x: Tensor<4>, conv: &BurnConv2d) -> Tensor<4> {
        let BurnConv2d { weight, bias, options } = conv.clone();
        let (x, weight, bias) = (seen(x), seen(weight), bias.map(seen));
        let lower = lower_precision();
        if on_cpu(&x) && lower.is_none() {
            let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[0]], &weight.device()));
            return cpu::apply(cpu::Conv(options), [x.into(), weight.into(), bias.into()]);
        }
        let ConvOptions { stride, padding } = options;
        let options = ::burn::tensor::ops::ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        match lower {
            Some(lower) => {
                let bias = bias.map(|bias| bias.cast(lower));
                module::conv2d(x.cast(lower), weight.cast(lower), bias, options).cast(FloatDType::F32)
            }
            None => module::conv2d(x, weight, bias, options),
        }
    }

    fn layer_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f32) -> Tensor<D> {
        let [weight, bias] = [weight, bias].map(|x| seen(x.clone()));
        let x = seen(x);
        if on_cpu(&x) {
            return cpu::apply(cpu::LayerNorm { eps }, [x.into(), weight.into(), bias.into()]);
        }
        module::layer_norm(x, weight, Some(bias), f64::from(eps))
    }

    fn group_norm(
        x: Tensor<4>,
        groups: usize,
        weight: &Tensor<1>,
        bias: &Tensor<1>,
        eps: f32,
        activation: Activation,
    ) -> Tensor<4> {
        if on_cpu(&x) {
            let [weight, bias] = [weight, bias].map(|x| seen(x.clone()));
            return cpu::apply(
                cpu::GroupNorm { groups, eps, activation },
                [seen(x).into(), weight.into(), bias.into()],
            );
        }
        plain::group_norm::<Self>(x, groups, weight, bias, eps, activation)
    }

    fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        if on_cpu(&x) {
            return cpu::apply(cpu::Geglu, [seen(x).into()]);
        }
        plain::geglu::<Self, D>(x)
    }

    fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, mask: &Mask<Self>) -> Tensor<3> {
        if on_cpu(&q) && lower_precision().is_none() {
            let visible = match mask {
                Mask::None => cpu::Visible::All,
                Mask::Causal => cpu::Visible::Past,
                Mask::Keys(scores) => cpu::Visible::Scores(cpu::numbers(scores.0.clone())),
            };
            return cpu::apply(cpu::Attention { heads, visible }, [q, k, v].map(|x| seen(x).into()));
        }
        // Whoever trains keeps all scores anyway.
        let most = match Self::largest_tensor_bytes(&Self::device(&q)) {
            u64::MAX => usize::MAX,
            bytes => plain::SCORES.min(usize::try_from(bytes / 4).unwrap_or(usize::MAX)),
        };
        plain::attention::<Self>([q, k, v], heads, mask, most)
    }

    #[cfg(feature = "autodiff")]
    fn checkpoint<M: Clone + 'static, I: Clone + 'static, const D: usize>(
        module: &M,
        input: I,
        block: fn(&M, I) -> super::Tensor<Self, D>,
    ) -> super::Tensor<Self, D> {
        train::checkpoint(module, input, block)
    }
}

#[cfg(not(feature = "autodiff"))]
fn seen<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x
}

#[cfg(not(feature = "autodiff"))]
fn lower_precision() -> Option<FloatDType> {
    None
}

fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    cpu::is_cpu(&x.device())
}

/// What cubecl says where a tensor is larger than a buffer of the device, or the device has no memory left: burn hands over its
/// words alone.
const NO_MEMORY: [&str; 3] =
    ["can't allocate buffer of size", "out of device memory", "every page size the memory tracks still holds"];

fn read_error(error: ExecutionError) -> EngineError {
    if let ExecutionError::DevicePoisoned { reason } = error {
        return EngineError::DeviceLost { engine: Burn::NAME, detail: reason };
    }
    let detail = error.to_string();
    if NO_MEMORY.iter().any(|words| detail.contains(words)) {
        return EngineError::OutOfMemory { engine: Burn::NAME, detail };
    }
    operation("to_host", detail)
}

fn operation(operation: &str, detail: String) -> EngineError {
    EngineError::Operation { engine: Burn::NAME, operation: operation.to_owned(), detail }
}
